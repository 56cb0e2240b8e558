"""The same words and roundings for the page and the terminal."""

from __future__ import annotations

_DECIMALS, _MOST_DECIMALS = 3, 6

_HEADS = {
    "dense": "dense",
    "sparse": "sparse",
    "multi": "multi-vector",
    "hybrid": "hybrid",
    "rrf": "rank fusion",
    "bm25": "BM25",
}


def number(value: float | None) -> str:
    """Three decimals; more where a value that is not zero would read as zero; a dash for None."""
    if value is None:
        return "–"
    decimals = next((d for d in range(_DECIMALS, _MOST_DECIMALS) if abs(value) * 10**d >= 0.5), _DECIMALS)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float) -> str:
    """As `number`, with a plus sign where it is above zero."""
    text = number(value)
    return f"+{text}" if float(text) > 0 else text


def interval(ci95: tuple[float, float]) -> str:
    """`[low, high]`."""
    return f"[{number(ci95[0])}, {number(ci95[1])}]"


def change(difference: float, ci95: tuple[float, float]) -> str:
    """A difference with its interval, `+0.067 [0.041, 0.094]`."""
    return f"{signed(difference)} {interval(ci95)}"


def p_value(value: float) -> str:
    """Three decimals, or that it is below them."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def share(value: float | None) -> str:
    """A percentage with one decimal, or a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def rank(value: int | None) -> str:
    """A rank, or that the passage was not found."""
    return "not found" if value is None else f"{value}"


def duration(seconds: float) -> str:
    """Seconds in the largest units that say something."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def head(name: str) -> str:
    """A head or mixture in words."""
    return _HEADS.get(name, name)


def cut(text: str, characters: int) -> str:
    """`text`, or its start and an ellipsis where it is longer than `characters`."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"
