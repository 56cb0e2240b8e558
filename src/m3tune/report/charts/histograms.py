"""How lengths and scores are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m3tune.report.charts.axes import WHOLE, grid, nice_ticks, placing, polyline, svg, x_title

_MOST_LABELS = 6


def histogram_chart(histogram: Mapping[str, Any], *, title: str) -> str:
    """Bars for `data.lengths.histogram`; bins are drawn equally wide, so that the axis is about logarithmic."""
    counts, edges = histogram["counts"], histogram["edges"]
    bottom = WHOLE.height - WHOLE.bottom
    width = (WHOLE.width - WHOLE.right - WHOLE.left) / len(counts)
    y_ticks = [tick for tick in nice_ticks(0, max(counts)) if tick.is_integer()]
    at = placing(WHOLE, (0, len(counts)), (0, y_ticks[-1]))
    parts = grid(WHOLE, at, [], y_ticks, 0)
    for number, count in enumerate(counts):
        x, y = at(number, count)
        words = f"{count:,} of {edges[number]:,} to {edges[number + 1] - 1:,}"
        parts.append(
            f'<rect class="bar" x="{x}" y="{y}" width="{max(width - 1, 0.5):.1f}" height="{round(bottom - y, 1)}">'
            f"<title>{words}</title></rect>"
        )
    for number in range(0, len(edges), max(1, -(-len(edges) // _MOST_LABELS))):
        x = at(number, 0)[0]
        parts.append(f'<text class="axis" x="{x}" y="{bottom + 17}" text-anchor="middle">{edges[number]:,}</text>')
    parts.append(x_title(WHOLE, "characters"))
    return svg(WHOLE.width, WHOLE.height, f"{title}: lengths from 0 to {histogram['longest']:,} characters", parts)


def score_chart(edges: Sequence[float], counts: Mapping[str, Sequence[int]], *, title: str) -> str:
    """Up to three groups of scores, each as the share of its own that falls into each bin; empty without scores.

    Lines have the classes line-1 to line-3, in the order of the groups.
    """
    groups = {name: [count / sum(of) for count in of] for name, of in counts.items() if sum(of)}
    if not groups:
        return ""
    top = max(max(shares) for shares in groups.values())
    x_ticks = [tick for tick in nice_ticks(edges[0], edges[-1]) if edges[0] <= tick <= edges[-1]]
    y_ticks = nice_ticks(0, 100 * top)
    at = placing(WHOLE, (edges[0], edges[-1]), (0, y_ticks[-1]))
    parts = grid(WHOLE, at, x_ticks or [edges[0]], y_ticks, edges[0])
    numbers = {name: number for number, name in enumerate(counts, start=1)}
    for name, shares in groups.items():
        corners = [at(x, 100 * share) for low, high, share in zip(edges, edges[1:], shares, strict=False)
                   for x in (low, high)]  # fmt: skip
        parts.append(polyline(f"line line-{numbers[name]}", corners))
    parts.append(x_title(WHOLE, "score"))
    return svg(WHOLE.width, WHOLE.height, f"{title}: percent of {', of '.join(groups)} by score", parts)
