"""Differences with their intervals, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from m3tune.report.charts.axes import nice_ticks, svg, tick_label
from m3tune.report.words import change

_WIDTH, _ROW, _SIDE, _AXIS = 370, 46, 12, 42


class Interval(NamedTuple):
    """One row of a forest plot: a difference, the ends of its interval, the words at its right, perhaps single dots."""

    label: str
    difference: float
    low: float
    high: float
    words: str
    emphasis: bool = False
    dots: Sequence[float] = ()


def interval_of(label: str, compared: Mapping[str, Any], *, emphasis: bool) -> Interval:
    """A row for what has a `difference` and its `ci95`, which stand in words at the right."""
    difference, (low, high) = compared["difference"], compared["ci95"]
    return Interval(label, difference, low, high, change(difference, (low, high)), emphasis)


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
    bottom = _ROW * len(intervals) + 4

    def at(value: float) -> float:
        return round(_SIDE + (value - low) / (high - low) * (_WIDTH - 2 * _SIDE), 1)

    ticks = [tick for tick in nice_ticks(low, high) if low <= tick <= high]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    parts = [
        f'<text class="axis" x="{at(tick)}" y="{bottom + 15}" text-anchor="middle">{tick_label(tick, step)}</text>'
        for tick in ticks
    ]
    parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>')
    for number, row in enumerate(intervals):
        top = _ROW * number + 4
        # Not through the words above each interval.
        parts += [f'<path class="grid" d="M{at(tick)} {top + 21}V{top + 41}"/>' for tick in ticks]
        parts.append(f'<path class="zero" d="M{at(0)} {top + 21}V{top + 41}"/>')
        parts += [f'<circle class="dot" cx="{at(dot)}" cy="{top + 31}" r="3.5"/>' for dot in row.dots]
        parts += _forest_row(row, top, at(row.low), at(row.difference), at(row.high))
    description = f"{title}: " + "; ".join(f"{row.label} {row.words}" for row in intervals)
    return svg(_WIDTH, bottom + _AXIS, description, parts)


def _forest_row(row: Interval, top: float, low: float, middle: float, high: float) -> list[str]:
    """The words above, the interval with its end caps below."""
    tone = "good" if row.low > 0 else "bad" if row.high < 0 else "neutral"
    weight = " strong" if row.emphasis else ""
    y = top + 31
    return [
        f'<text class="label{weight}" x="{_SIDE}" y="{top + 16}">{escape(row.label)}</text>',
        f'<text class="label{weight}" x="{_WIDTH - _SIDE}" y="{top + 16}" text-anchor="end">{escape(row.words)}</text>',
        f'<path class="interval {tone}" d="M{low} {y - 5}v10M{low} {y}H{high}M{high} {y - 5}v10"/>',
        f'<circle class="mean {tone}" cx="{middle}" cy="{y}" r="{5.5 if row.emphasis else 4.5}"/>',
    ]
