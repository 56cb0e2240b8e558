"""Named points by two figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from m3tune.report.charts.axes import WHOLE, grid, nice_ticks, placing, reference_line, svg, x_title


class Mark(NamedTuple):
    """One named point of a scatter plot, with a ring around it where it is the one."""

    name: str
    x: float
    y: float
    ringed: bool = False


def scatter_plot(marks: Sequence[Mark], *, title: str, labels: tuple[str, str], reference: tuple[float, str]) -> str:
    """Named points with ticks and labels on both axes; `reference` is a dashed horizontal line with its name."""
    x_ticks = nice_ticks(min(mark.x for mark in marks), max(mark.x for mark in marks), about=4)
    ys = [reference[0], *(mark.y for mark in marks)]
    y_ticks = nice_ticks(min(ys), max(ys))
    at = placing(WHOLE, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    parts = grid(WHOLE, at, x_ticks, y_ticks, x_ticks[0])
    parts += reference_line(WHOLE, at(x_ticks[0], reference[0])[1], reference[1])
    parts.append(x_title(WHOLE, labels[0]))
    middle = (WHOLE.left + WHOLE.width - WHOLE.right) / 2
    for mark in marks:
        x, y = at(mark.x, mark.y)
        words = f"{mark.name}: {labels[0]} {mark.x:.4g}, {labels[1]} {mark.y:.4g}"
        parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="4"><title>{escape(words)}</title></circle>')
        parts += [f'<circle class="ring" cx="{x}" cy="{y}" r="8"/>'] if mark.ringed else []
        beside = (x - 11, "end") if x > middle else (x + 11, "start")
        parts.append(
            f'<text class="axis name" x="{beside[0]}" y="{y + 4}" text-anchor="{beside[1]}">{escape(mark.name)}</text>'
        )
    described = "; ".join(f"{mark.name} {mark.x:.4g}, {mark.y:.4g}" for mark in marks)
    return svg(WHOLE.width, WHOLE.height, f"{title}: {described}", parts)
