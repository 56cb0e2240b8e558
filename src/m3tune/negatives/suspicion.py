"""In which order a person's time finds most false negatives."""

from __future__ import annotations

import math
from collections.abc import Iterable

from m3tune.types import Candidate


def excess(candidate: Candidate) -> float:
    """How far a candidate's score is above its positive's, as a share of the positive's size; negative below.

    Not the ratio of the two: where scores are negative, as a cross-encoder's often are, a ratio turns the order round.

    >>> excess(Candidate("q", "p", ("dense",), 1, score=0.5, positive_score=1.0))
    -0.5
    """
    difference = candidate.score - candidate.positive_score
    if difference == 0 or math.isnan(difference):
        return 0.0
    size = abs(candidate.positive_score)
    return difference / size if size else math.copysign(math.inf, difference)


def teacher_disagrees(candidate: Candidate) -> bool:
    """Whether teacher and mining model differ on which of candidate and positive is the better answer."""
    if candidate.teacher is None or candidate.positive_teacher is None:
        return False
    return (candidate.teacher >= candidate.positive_teacher) != (candidate.score >= candidate.positive_score)


def most_suspicious_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates in the order in which they should be looked at.

    First those that the teacher and the mining model see differently: one of the two is wrong about a pair that
    training leans on. Within both parts the closest to, or farthest above, the positive's score first; then what was
    chosen to train on before what was not, the better rank, and at last the ids, so that the order is always the same.
    """
    return sorted(
        candidates,
        key=lambda candidate: (
            not teacher_disagrees(candidate),
            -excess(candidate),
            not candidate.chosen,
            candidate.rank,
            candidate.query_id,
            candidate.passage_id,
        ),
    )
