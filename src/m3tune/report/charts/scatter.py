"""Named points by two figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from m3tune.report.charts.axes import WHOLE, grid, nice_ticks, placing, reference_line, svg, x_title

_LETTER, _LINE = 7.2, 13  # width and height of a name's letters, generously
_DOT = 5


class Mark(NamedTuple):
    """One named point of a scatter plot, with a ring around it where it is the one."""

    name: str
    x: float
    y: float
    ringed: bool = False


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0) * max(high, 0)


def scatter_plot(marks: Sequence[Mark], *, title: str, labels: tuple[str, str], reference: tuple[float, str]) -> str:
    """Named points with ticks and labels on both axes; `reference` is a dashed horizontal line with its name."""
    x_ticks = nice_ticks(min(mark.x for mark in marks), max(mark.x for mark in marks), about=4)
    ys = [reference[0], *(mark.y for mark in marks)]
    y_ticks = nice_ticks(min(ys), max(ys))
    at = placing(WHOLE, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    parts = grid(WHOLE, at, x_ticks, y_ticks, x_ticks[0])
    parts += reference_line(WHOLE, at(x_ticks[0], reference[0])[1], reference[1])
    parts.append(x_title(WHOLE, labels[0]))
    places = [at(mark.x, mark.y) for mark in marks]
    for mark, (x, y), name in zip(marks, places, _names(marks, places), strict=True):
        words = f"{mark.name}: {labels[0]} {mark.x:.4g}, {labels[1]} {mark.y:.4g}"
        parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="4"><title>{escape(words)}</title></circle>')
        parts += [f'<circle class="ring" cx="{x}" cy="{y}" r="8"/>'] if mark.ringed else []
        middle = (name.left + name.right) / 2
        parts.append(
            f'<text class="axis name" x="{middle:.1f}" y="{name.bottom - 3:.1f}" text-anchor="middle">'
            f"{escape(mark.name)}</text>"
        )
    described = "; ".join(f"{mark.name} {mark.x:.4g}, {mark.y:.4g}" for mark in marks)
    return svg(WHOLE.width, WHOLE.height, f"{title}: {described}", parts)


def _names(marks: Sequence[Mark], places: Sequence[tuple[float, float]]) -> list[_Box]:
    """Where each point's name goes: beside, above or below it, over as little of other names and points as can be."""
    taken = [_Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in places]
    boxes = []
    for mark, place in zip(marks, places, strict=True):
        best = min(_around(place, _LETTER * len(mark.name)), key=lambda box: _cost(box, taken))
        boxes.append(best)
        taken.append(best)
    return boxes


def _around(place: tuple[float, float], wide: float) -> Iterator[_Box]:
    """Places for a name of this width around a point, the best first."""
    x, y = place
    for drop in (0, -_LINE, _LINE):
        top = y + drop - _LINE / 2
        for left in (x + 11, x - 11 - wide):
            yield _Box(left, top, left + wide, top + _LINE)
    for top in (y - 10 - _LINE, y + 10):
        yield _Box(x - wide / 2, top, x + wide / 2, top + _LINE)


def _cost(box: _Box, taken: Sequence[_Box]) -> float:
    """The area of a name that lies over others, or outside the frame."""
    inside = box.overlap(_Box(WHOLE.left, 0, WHOLE.width, WHOLE.height - WHOLE.bottom))
    return (box.right - box.left) * _LINE - inside + sum(box.overlap(other) for other in taken)
