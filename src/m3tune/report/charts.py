"""Inline SVG from numbers. Colours come from the page's CSS variables, so that one chart serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

Point = Sequence[float]
"""x and y."""

Place = Callable[[float, float], tuple[float, float]]
"""A point's place in the picture."""

_MOST_LABELS = 6
_MOST_POINTS = 400  # more than this are averaged in runs of neighbours

_FOREST_WIDTH, _FOREST_ROW, _FOREST_SIDE, _FOREST_AXIS = 370, 46, 12, 42


class _Frame(NamedTuple):
    """A picture's size and the margins around what is plotted."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


_WHOLE = _Frame(400, 236, 54, 14, 14, 42)
_SMALL = _Frame(250, 138, 44, 8, 8, 22)


class Line(NamedTuple):
    """One line of a small chart; `spread` is how far its band reaches to both sides of each point."""

    name: str
    points: Sequence[Point]
    spread: Sequence[float] = ()


class Interval(NamedTuple):
    """One row of a forest plot: a difference, the ends of its interval, the words at its right, perhaps single dots."""

    label: str
    difference: float
    low: float
    high: float
    words: str
    emphasis: bool = False
    dots: Sequence[float] = ()


class Mark(NamedTuple):
    """One named point of a scatter plot, with a ring around it where it is the one."""

    name: str
    x: float
    y: float
    ringed: bool = False


def line_chart(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str,
    reference: tuple[float, str] | None = None,
    marked: Point | None = None,
    dots: bool = False,
    at_words: str = "step",
) -> str:
    """A line with ticks and labels on both axes, empty without points.

    `reference` is a dashed horizontal line with its name, `marked` a point with a ring, `dots` draws every point,
    `at_words` stands before an x in words.
    """
    if not points:
        return ""
    points = _thinned(points)
    ys = [y for _, y in points]
    at, parts = _axes(_WHOLE, [x for x, _ in points], [*ys, reference[0]] if reference else ys)
    middle = (_WHOLE.left + _WHOLE.width - _WHOLE.right) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{_WHOLE.height - 6}" text-anchor="middle">{escape(x_label)}</text>'
    )
    places = [at(x, y) for x, y in points]
    parts.append(_polyline("line", places))
    if reference:
        parts += _reference(at(points[0][0], reference[0])[1], reference[1])
    if dots or len(points) == 1:
        parts += [
            f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"><title>{_exact(point, at_words)}</title></circle>'
            for (x, y), point in zip(places, points, strict=True)
        ]
    if marked is not None:
        x, y = at(*marked)
        parts.append(f'<circle class="ring" cx="{x}" cy="{y}" r="7"/>')
    description = f"{title}: from {_exact(points[0], at_words)} to {_exact(points[-1], at_words)}"
    return svg(_WHOLE.width, _WHOLE.height, description, parts)


def small_chart(lines: Sequence[Line], *, title: str, least: float = -math.inf) -> str:
    """Up to three lines on one scale, with bands; for a row of many charts. Empty where no line has a point.

    Steps run along the bottom; the scale does not go below `least`. Lines have the classes line-1 to line-3.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    bands = [_band(line) for line in lines]
    every = [point for line, band in zip(lines, bands, strict=True) for point in (*line.points, *band)]
    at, parts = _axes(_SMALL, [x for x, _ in every], [y for _, y in every], about=3, least=least)
    for number, band in enumerate(bands, start=1):
        if len(band) > 2:
            corners = " ".join(f"{x},{y}" for x, y in (at(*point) for point in band))
            parts.append(f'<polygon class="band line-{number}" points="{corners}"/>')
    for number, line in enumerate(lines, start=1):
        places = [at(*point) for point in _thinned(line.points)]
        if len(places) == 1:
            parts.append(f'<circle class="dot line-{number}" cx="{places[0][0]}" cy="{places[0][1]}" r="3"/>')
        else:
            parts.append(_polyline(f"line line-{number}", places))
    ends = "; ".join(
        f"{line.name} from {_exact(line.points[0], 'step')} to {_exact(line.points[-1], 'step')}" for line in lines
    )
    return svg(_SMALL.width, _SMALL.height, f"{title}: {ends}", parts)


def forest_plot(
    intervals: Sequence[Interval], *, title: str, x_label: str, reach: tuple[float, float] = (0.0, 0.0)
) -> str:
    """Each difference with its interval on one scale, and a line at zero; empty without rows.

    The scale covers `reach` too, so that several plots can share one.
    """
    if not intervals:
        return ""
    low = min(0.0, reach[0], *(value for row in intervals for value in (row.low, *row.dots)))
    high = max(0.0, reach[1], *(value for row in intervals for value in (row.high, *row.dots)))
    pad = 0.06 * (high - low) or 0.01
    low, high = low - pad, high + pad
    bottom = _FOREST_ROW * len(intervals) + 4

    def at(value: float) -> float:
        return round(_FOREST_SIDE + (value - low) / (high - low) * (_FOREST_WIDTH - 2 * _FOREST_SIDE), 1)

    ticks = [tick for tick in nice_ticks(low, high) if low <= tick <= high]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts = [
        f'<text class="axis" x="{at(tick)}" y="{bottom + 15}" text-anchor="middle">{tick_label(tick, step)}</text>'
        for tick in ticks
    ]
    parts.append(
        f'<text class="axis" x="{_FOREST_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for number, row in enumerate(intervals):
        top = _FOREST_ROW * number + 4
        # Not through the words above each interval.
        parts += [f'<path class="grid" d="M{at(tick)} {top + 21}V{top + 41}"/>' for tick in ticks]
        parts.append(f'<path class="zero" d="M{at(0)} {top + 21}V{top + 41}"/>')
        parts += [f'<circle class="dot" cx="{at(dot)}" cy="{top + 31}" r="3.5"/>' for dot in row.dots]
        parts += _forest_row(row, top, at(row.low), at(row.difference), at(row.high))
    description = f"{title}: " + "; ".join(f"{row.label} {row.words}" for row in intervals)
    return svg(_FOREST_WIDTH, bottom + _FOREST_AXIS, description, parts)


def scatter_plot(marks: Sequence[Mark], *, title: str, labels: tuple[str, str], reference: tuple[float, str]) -> str:
    """Named points with ticks and labels on both axes; `reference` is a dashed horizontal line with its name."""
    frame = _WHOLE
    x_ticks = nice_ticks(min(mark.x for mark in marks), max(mark.x for mark in marks), about=4)
    ys = [reference[0], *(mark.y for mark in marks)]
    y_ticks = nice_ticks(min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = ((v - t[0]) / (t[-1] - t[0]) for v, t in ((x, x_ticks), (y, y_ticks)))
        left, right, bottom = frame.left, frame.width - frame.right, frame.height - frame.bottom
        return round(left + across * (right - left), 1), round(bottom - up * (bottom - frame.top), 1)

    parts = _grid(frame, at, x_ticks, y_ticks, x_ticks[0]) + _reference(at(x_ticks[0], reference[0])[1], reference[1])
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{frame.height - 6}" text-anchor="middle">{escape(labels[0])}</text>'
    )
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
    return svg(frame.width, frame.height, f"{title}: {described}", parts)


def histogram_chart(histogram: Mapping[str, Any], *, title: str) -> str:
    """Bars for `data.lengths.histogram`; bins are drawn equally wide, so that the axis is about logarithmic."""
    counts, edges = histogram["counts"], histogram["edges"]
    frame = _WHOLE
    bottom, left, right = frame.height - frame.bottom, frame.left, frame.width - frame.right
    width = (right - left) / len(counts)
    y_ticks = [tick for tick in nice_ticks(0, max(counts)) if tick.is_integer()]

    def at(x: float, y: float) -> tuple[float, float]:
        return round(left + x * width, 1), round(bottom - y / y_ticks[-1] * (bottom - frame.top), 1)

    parts = _grid(frame, at, [], y_ticks, 0)
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
    parts.append(
        f'<text class="axis" x="{(left + right) / 2}" y="{frame.height - 6}" text-anchor="middle">characters</text>'
    )
    return svg(frame.width, frame.height, f"{title}: lengths from 0 to {histogram['longest']:,} characters", parts)


def score_chart(edges: Sequence[float], counts: Mapping[str, Sequence[int]], *, title: str) -> str:
    """Up to three groups of scores, each as the share of its own that falls into each bin; empty without scores.

    Lines have the classes line-1 to line-3, in the order of the groups.
    """
    groups = {name: [count / sum(of) for count in of] for name, of in counts.items() if sum(of)}
    if not groups:
        return ""
    frame, top = _WHOLE, max(max(shares) for shares in groups.values())
    x_ticks = [tick for tick in nice_ticks(edges[0], edges[-1]) if edges[0] <= tick <= edges[-1]]
    y_ticks = nice_ticks(0, 100 * top)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - edges[0]) / ((edges[-1] - edges[0]) or 1), y / y_ticks[-1]
        right, bottom = frame.width - frame.right, frame.height - frame.bottom
        return round(frame.left + across * (right - frame.left), 1), round(bottom - up * (bottom - frame.top), 1)

    parts = _grid(frame, at, x_ticks or [edges[0]], y_ticks, edges[0])
    numbers = {name: number for number, name in enumerate(counts, start=1)}
    for name, shares in groups.items():
        corners = [at(x, 100 * share) for low, high, share in zip(edges, edges[1:], shares, strict=False)
                   for x in (low, high)]  # fmt: skip
        parts.append(_polyline(f"line line-{numbers[name]}", corners))
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{frame.height - 6}" text-anchor="middle">score</text>')
    return svg(frame.width, frame.height, f"{title}: percent of {', of '.join(groups)} by score", parts)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers 1, 2 or 5 times a power of ten apart that just enclose low..high, about `about` of them."""
    if high - low < 1e-12 * max(1.0, abs(low)):
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """`value` with as many decimals as ticks `step` apart need; a power of ten where it is tiny."""
    if value == 0:
        return "0"
    if step < 5e-4 and abs(value) < 100 * step:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    return f"{value:,.{decimals}f}"


def _grid(frame: _Frame, at: Place, x_ticks: Sequence[float], y_ticks: Sequence[float], x_low: float) -> list[str]:
    """Horizontal lines with their numbers at the left, and numbers below."""
    y_step = y_ticks[1] - y_ticks[0]
    x_step = x_ticks[1] - x_ticks[0] if len(x_ticks) > 1 else 1.0
    parts = []
    for tick in y_ticks:
        y = at(x_low, tick)[1]
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text class="axis" x="{frame.left - 7}" y="{y + 4}" text-anchor="end">{tick_label(tick, y_step)}</text>'
        )
    for tick in x_ticks:
        x = at(tick, y_ticks[0])[0]
        parts.append(
            f'<text class="axis" x="{x}" y="{frame.height - frame.bottom + 17}" text-anchor="middle">'
            f"{tick_label(tick, x_step)}</text>"
        )
    return parts


def _axes(
    frame: _Frame, xs: Sequence[float], ys: Sequence[float], about: int = 5, least: float = -math.inf
) -> tuple[Place, list[str]]:
    """Where a point goes in the frame, and the lines and numbers behind the points."""
    x_low, x_high = min(xs), max(xs)
    y_ticks = [tick for tick in nice_ticks(min(ys), max(ys), about) if tick >= least]
    x_ticks = [tick for tick in nice_ticks(x_low, x_high) if x_low <= tick <= x_high and tick.is_integer()]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        right, bottom = frame.width - frame.right, frame.height - frame.bottom
        return round(frame.left + across * (right - frame.left), 1), round(bottom - up * (bottom - frame.top), 1)

    return at, _grid(frame, at, x_ticks or [x_low], y_ticks, x_low)


def _polyline(name: str, places: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="{name}" points="' + " ".join(f"{x},{y}" for x, y in places) + '"/>'


def _band(line: Line) -> list[Point]:
    """The corners of a line's band, there along its upper side and back along its lower one."""
    if not line.spread:
        return []
    upper = _thinned([(x, y + spread) for (x, y), spread in zip(line.points, line.spread, strict=True)])
    lower = _thinned([(x, y - spread) for (x, y), spread in zip(line.points, line.spread, strict=True)])
    return [*upper, *reversed(lower)]


def _reference(y: float, name: str) -> list[str]:
    """A dashed line across, its name above it, or below where there is no room."""
    beside = y - 6 if y > _WHOLE.top + 14 else y + 15
    end = _WHOLE.width - _WHOLE.right
    return [
        f'<line class="reference" x1="{_WHOLE.left}" x2="{end}" y1="{y}" y2="{y}"/>',
        f'<text class="axis name" x="{end}" y="{beside}" text-anchor="end">{escape(name)}</text>',
    ]


def _forest_row(row: Interval, top: float, low: float, middle: float, high: float) -> list[str]:
    """The words above, the interval with its end caps below."""
    tone = "good" if row.low > 0 else "bad" if row.high < 0 else "neutral"
    weight = " strong" if row.emphasis else ""
    y = top + 31
    return [
        f'<text class="label{weight}" x="{_FOREST_SIDE}" y="{top + 16}">{escape(row.label)}</text>',
        f'<text class="label{weight}" x="{_FOREST_WIDTH - _FOREST_SIDE}" y="{top + 16}" text-anchor="end">'
        f"{escape(row.words)}</text>",
        f'<path class="interval {tone}" d="M{low} {y - 5}v10M{low} {y}H{high}M{high} {y - 5}v10"/>',
        f'<circle class="mean {tone}" cx="{middle}" cy="{y}" r="{5.5 if row.emphasis else 4.5}"/>',
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS` points, means of equal runs of neighbours."""
    run = math.ceil(len(points) / _MOST_POINTS)
    runs = (points[start : start + run] for start in range(0, len(points), run))
    return [(sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near)) for near in runs]


def _exact(point: Point, at_words: str) -> str:
    return f"{point[1]:.4g} at {at_words} {point[0]:,.0f}"


def svg(width: float, height: float, description: str, parts: Sequence[str]) -> str:
    """A picture of these parts; `description` is what it shows in words."""
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )
