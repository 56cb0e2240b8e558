"""What charts are made of: a frame, where a point goes in it, round numbers along its sides, lines and words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

Point = Sequence[float]
"""x and y."""

Place = Callable[[float, float], tuple[float, float]]
"""A point's place in the picture."""


class Frame(NamedTuple):
    """A picture's size and the margins around what is plotted."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


WHOLE = Frame(400, 236, 54, 14, 14, 42)


def svg(width: float, height: float, description: str, parts: Sequence[str]) -> str:
    """A picture of these parts; `description` is what it shows in words."""
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )


def placing(frame: Frame, across: tuple[float, float], up: tuple[float, float]) -> Place:
    """Where a point goes in the frame, whose sides are the lowest and highest x (`across`) and y (`up`)."""
    left, right, bottom = frame.left, frame.width - frame.right, frame.height - frame.bottom
    wide, high = (across[1] - across[0]) or 1, up[1] - up[0]

    def at(x: float, y: float) -> tuple[float, float]:
        of_width, of_height = (x - across[0]) / wide, (y - up[0]) / high
        return round(left + of_width * (right - left), 1), round(bottom - of_height * (bottom - frame.top), 1)

    return at


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


def grid(frame: Frame, at: Place, x_ticks: Sequence[float], y_ticks: Sequence[float], x_low: float) -> list[str]:
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


def x_title(frame: Frame, name: str) -> str:
    """What the numbers below the frame are."""
    middle = (frame.left + frame.width - frame.right) / 2
    return f'<text class="axis" x="{middle}" y="{frame.height - 6}" text-anchor="middle">{escape(name)}</text>'


def polyline(name: str, places: Sequence[tuple[float, float]]) -> str:
    """A line through the places; `name` is its class, or several."""
    return f'<polyline class="{name}" points="' + " ".join(f"{x},{y}" for x, y in places) + '"/>'


def reference_line(frame: Frame, y: float, name: str) -> list[str]:
    """A dashed line across, its name above it, or below where there is no room."""
    beside = y - 6 if y > frame.top + 14 else y + 15
    end = frame.width - frame.right
    return [
        f'<line class="reference" x1="{frame.left}" x2="{end}" y1="{y}" y2="{y}"/>',
        f'<text class="axis name" x="{end}" y="{beside}" text-anchor="end">{escape(name)}</text>',
    ]
