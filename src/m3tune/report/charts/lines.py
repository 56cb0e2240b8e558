"""Lines over steps: one large chart, or small ones for a row of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from m3tune.report.charts.axes import (
    WHOLE,
    Frame,
    Place,
    Point,
    grid,
    nice_ticks,
    placing,
    polyline,
    reference_line,
    svg,
    x_title,
)

_MOST_POINTS = 400  # more than this are averaged in runs of neighbours
_SMALL = Frame(250, 138, 44, 8, 8, 22)


class Line(NamedTuple):
    """One line of a small chart; `spread` is how far its band reaches to both sides of each point."""

    name: str
    points: Sequence[Point]
    spread: Sequence[float] = ()


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
    at, parts = _axes(WHOLE, [x for x, _ in points], [*ys, reference[0]] if reference else ys)
    parts.append(x_title(WHOLE, x_label))
    places = [at(x, y) for x, y in points]
    parts.append(polyline("line", places))
    if reference:
        parts += reference_line(WHOLE, at(points[0][0], reference[0])[1], reference[1])
    if dots or len(points) == 1:
        parts += [
            f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"><title>{_exact(point, at_words)}</title></circle>'
            for (x, y), point in zip(places, points, strict=True)
        ]
    if marked is not None:
        x, y = at(*marked)
        parts.append(f'<circle class="ring" cx="{x}" cy="{y}" r="7"/>')
    description = f"{title}: from {_exact(points[0], at_words)} to {_exact(points[-1], at_words)}"
    return svg(WHOLE.width, WHOLE.height, description, parts)


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
            parts.append(polyline(f"line line-{number}", places))
    ends = "; ".join(
        f"{line.name} from {_exact(line.points[0], 'step')} to {_exact(line.points[-1], 'step')}" for line in lines
    )
    return svg(_SMALL.width, _SMALL.height, f"{title}: {ends}", parts)


def _axes(
    frame: Frame, xs: Sequence[float], ys: Sequence[float], about: int = 5, least: float = -math.inf
) -> tuple[Place, list[str]]:
    """Where a point goes in the frame, and the lines and numbers behind the points."""
    x_low, x_high = min(xs), max(xs)
    y_ticks = [tick for tick in nice_ticks(max(min(ys), least), max(*ys, least), about) if tick >= least]
    x_ticks = [tick for tick in nice_ticks(x_low, x_high) if x_low <= tick <= x_high and tick.is_integer()]
    at = placing(frame, (x_low, x_high), (y_ticks[0], y_ticks[-1]))
    return at, grid(frame, at, x_ticks or [x_low], y_ticks, x_low)


def _band(line: Line) -> list[Point]:
    """The corners of a line's band, there along its upper side and back along its lower one."""
    if not line.spread:
        return []
    upper = _thinned([(x, y + spread) for (x, y), spread in zip(line.points, line.spread, strict=True)])
    lower = _thinned([(x, y - spread) for (x, y), spread in zip(line.points, line.spread, strict=True)])
    return [*upper, *reversed(lower)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS` points, means of equal runs of neighbours."""
    run = math.ceil(len(points) / _MOST_POINTS)
    runs = (points[start : start + run] for start in range(0, len(points), run))
    return [(sum(x for x, _ in near) / len(near), sum(y for _, y in near) / len(near)) for near in runs]


def _exact(point: Point, at_words: str) -> str:
    return f"{point[1]:.4g} at {at_words} {point[0]:,.0f}"
