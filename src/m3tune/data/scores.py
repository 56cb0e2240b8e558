"""The scores that a teacher gave pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from m3tune.types import Judgment, Negative


def is_finite_number(value: object) -> bool:
    """Whether a value of JSON is a number that a float holds."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def first_scores(pairs: Iterable[Judgment | Negative]) -> dict[tuple[str, str], float | None]:
    """Each pair's first score that is a finite number, None where it has none; keys are (query id, passage id)."""
    scores: dict[tuple[str, str], float | None] = {}
    for query_id, passage_id, _, score in pairs:
        if scores.get((query_id, passage_id)) is None:
            scores[query_id, passage_id] = score if is_finite_number(score) else None
    return scores
