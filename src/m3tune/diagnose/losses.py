"""Why a query lost: the passage that now stands where its relevant one stood, and what hints at a cause."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from m3tune.diagnose.disagreement import TOP
from m3tune.types import Hit


class Hint(NamedTuple):
    """A possible cause: a stable code, and what was seen."""

    code: str
    what: str


class Loss(NamedTuple):
    """A query that lost. `pushed_by` is the passage that overtook its best relevant one, None where none did."""

    query_id: str
    pushed_by: str | None
    hints: tuple[Hint, ...]


def overtaker(base_ranking: Sequence[Hit], tuned_ranking: Sequence[Hit], grades: Mapping[str, int]) -> str | None:
    """The first passage of the tuned ranking that is not relevant and stood below the best relevant one before.

    None where no such passage stands above the best relevant one now.
    """
    before = {hit.passage_id: rank for rank, hit in enumerate(base_ranking)}
    relevant = [rank for passage_id, rank in before.items() if grades.get(passage_id, 0) > 0]
    best = min(relevant, default=len(before))
    for passage_id, _ in tuned_ranking:
        if grades.get(passage_id, 0) > 0:
            return None
        if before.get(passage_id, len(before)) > best:
            return passage_id
    return None


def hints_of(
    tuned_ranking: Sequence[Hit],
    grades: Mapping[str, int],
    rare: Sequence[tuple[str, int]],
    first_copy: Mapping[str, str],
    cut: Container[str],
) -> tuple[Hint, ...]:
    """What may be behind a loss; hints to look at, not findings.

    `rare` are the query's rare words and how many passages have each, `first_copy` the first passage of a group of
    near-duplicates for those that are not first, `cut` the relevant passages that are longer than the model reads.
    """
    positives = [passage_id for passage_id, grade in grades.items() if grade > 0]
    above = _above(tuned_ranking, positives)
    unjudged = sum(passage_id not in grades for passage_id in above)
    groups = {first_copy.get(passage_id, passage_id) for passage_id in positives}
    copies = sum(first_copy.get(passage_id, passage_id) in groups for passage_id in above)
    too_long = sum(passage_id in cut for passage_id in positives)
    hints = []
    there = f"above it in the top {TOP}"
    if copies:
        hints.append(Hint("near-duplicate", f"{there}, nearly the same as a relevant one: {_passages(copies)}"))
    if unjudged:
        hints.append(Hint("unjudged", f"{there}, judged by nobody: {_passages(unjudged)}; one may answer too"))
    if too_long:
        hints.append(Hint("truncated", f"relevant but cut: {_passages(too_long)}; the answer may lie beyond the cut"))
    if rare:
        told = ", ".join(f"“{word}” in {_passages(count)}" for word, count in rare[:3])
        hints.append(Hint("rare words", told))
    return tuple(hints)


def _above(ranking: Sequence[Hit], positives: Container[str]) -> list[str]:
    """The passages of the top above the best relevant one; all of it where none is there."""
    above = []
    for passage_id, _ in ranking[:TOP]:
        if passage_id in positives:
            break
        above.append(passage_id)
    return above


def _passages(count: int) -> str:
    return "no passage" if count == 0 else f"{count:,} passage{'s' * (count != 1)}"
