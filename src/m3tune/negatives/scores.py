"""The mining model's scores of every candidate and of every known positive, whatever found them.

Q queries, P passages, M candidates, N known positives
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from m3tune.negatives.candidates import Pairs
from m3tune.negatives.ground import Ground
from m3tune.negatives.threshold import feedback
from m3tune.retrieval.search import pair_scores
from m3tune.retrieval.vectors import HEADS, Vectors
from m3tune.scoring import hybrid
from m3tune.types import Head

_TOP_PERCENT = 99  # of the positives' scores: what a passage scores that says what the query says


@dataclass(frozen=True)
class Scores:
    """Scores of candidates and of positives by one judge, the mining model or a teacher."""

    candidate: np.ndarray  # (M,) float32
    positive: np.ndarray  # (N,) float32

    def lowest(self, ground: Ground) -> np.ndarray:
        """(Q,) the lowest score of each query's positives.

        Fixed rules measure against it: what scores as high as any known positive may be another. Against the highest,
        every unlabelled positive below the best labelled one would pass.
        """
        lowest = np.full(len(ground.query_ids), np.inf, dtype=np.float32)
        np.minimum.at(lowest, ground.positives[0], self.positive)
        return lowest


def score_pairs(
    queries: Vectors, passages: Vectors, weights: Mapping[Head, float], query: np.ndarray, passage: np.ndarray
) -> np.ndarray:
    """(m,) float32 scores of pairs of rows by the weighted sum of heads; one head of weight 1 is that head."""
    by_head = {head: pair_scores(queries, passages, head, query, passage) for head in weights}
    return hybrid(by_head, weights).numpy()


def score_all(
    queries: Vectors, passages: Vectors, weights: Mapping[Head, float], ground: Ground, pairs: Pairs
) -> Scores:
    """Candidates and positives, each scored exactly."""
    return Scores(
        score_pairs(queries, passages, weights, pairs.query, pairs.passage),
        score_pairs(queries, passages, weights, *ground.positives),
    )


def feedback_ratios(passages: Vectors, ground: Ground, pairs: Pairs, scores: Scores) -> np.ndarray:
    """(M,) the highest `threshold.feedback` of each candidate, over the positives of its query."""
    query, positive = ground.positives
    starts = np.searchsorted(query, np.arange(len(ground.query_ids) + 1))
    counts = np.diff(starts)[pairs.query]
    candidate = np.repeat(np.arange(len(pairs)), counts)
    ends = np.cumsum(counts)
    against = np.arange(len(candidate)) + np.repeat(starts[pairs.query] - (ends - counts), counts)  # of N
    ratios = _feedback(passages, positive[against], pairs.passage[candidate], scores.candidate[candidate],
                       scores.positive[against], _scale(scores))  # fmt: skip
    return np.maximum.reduceat(ratios, ends - counts) if len(pairs) else ratios


def feedback_between_positives(passages: Vectors, ground: Ground, scores: Scores) -> np.ndarray:
    """What `feedback_ratios` would say of each positive of a query with several, were it not known to be one."""
    query, positive = ground.positives
    starts = np.searchsorted(query, np.arange(len(ground.query_ids) + 1))
    counts = np.diff(starts)[query]
    one = np.repeat(np.arange(len(query)), counts)
    ends = np.cumsum(counts)
    other = np.arange(len(one)) + np.repeat(starts[query] - (ends - counts), counts)
    one, other = one[one != other], other[one != other]
    ratios = _feedback(passages, positive[other], positive[one], scores.positive[one], scores.positive[other],
                       _scale(scores))  # fmt: skip
    best = np.full(len(query), -np.inf)
    np.maximum.at(best, one, ratios)
    return best[np.isfinite(best)]


def _scale(scores: Scores) -> float:
    return float(np.percentile(np.abs(scores.positive), _TOP_PERCENT))


def _feedback(
    passages: Vectors, positive: np.ndarray, candidate: np.ndarray, score: np.ndarray, positive_score: np.ndarray,
    scale: float,
) -> np.ndarray:  # fmt: skip
    """`threshold.feedback` of pairs; passages are compared by the first head that is there, as dense costs least."""
    head = next(head for head in HEADS if head in passages.heads)
    own_rows, own = np.unique(positive, return_inverse=True)
    itself = pair_scores(passages, passages, head, own_rows, own_rows).numpy()[own]
    likeness = pair_scores(passages, passages, head, positive, candidate).numpy()
    return feedback(score, positive_score, likeness / np.maximum(itself, np.finfo(np.float32).tiny), scale)
