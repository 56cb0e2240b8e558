"""From which score on a candidate is suspected of being relevant: fixed rules, and one calibrated on the data.

M candidates, N known positives
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

LEAST_POSITIVES = 20  # fewer say nothing about a distribution
FALLBACK = 0.95
_POSITIVES_A_BIN = 10
_MOST_BINS = 50


class Calibration(NamedTuple):
    """What `calibrate` found: `suspected` of the candidates score at least `score`, where the risk is reached."""

    score: float
    suspected: int


def relative(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """A score relative to a positive's, 1 where equal; right for scores below zero as well.

    score > positive - (1 - ratio) |positive| exactly where relative(score, positive) > ratio, for |positive| > 0.
    """
    return 1 + (score - positive) / np.maximum(np.abs(positive), np.finfo(np.float32).tiny)


def calibrate(positives: np.ndarray, candidates: np.ndarray, risk: float) -> Calibration | None:
    """The score from which on there are at least `risk` known positives for each candidate; None without enough.

    Were as many relevant passages unlabelled as are labelled, and scored alike, `risk` would be the share of relevant
    ones among the candidates of that score. Positives and candidates are counted in bins with equally many positives;
    the share of positives is made to rise with the score by isotonic regression.

    positives: (N,), candidates: (M,) scores. The score is infinite where no score has so many positives.
    """
    if len(positives) < LEAST_POSITIVES:
        return None
    ordered = np.sort(positives)
    bins = min(_MOST_BINS, len(ordered) // _POSITIVES_A_BIN)
    at = np.linspace(0, len(ordered), bins + 1).astype(np.int64)
    edges = ordered[at[:-1]]
    inside = candidates[candidates >= edges[0]]
    counted = np.bincount(np.searchsorted(edges, inside, side="right") - 1, minlength=bins)
    known = np.diff(at)
    total = (known + counted).astype(np.float64)
    share = isotonic_regression(known / total, weights=total).x
    enough = np.flatnonzero(share >= risk * (1 - share))
    score = float(edges[enough[0]]) if len(enough) else np.inf
    return Calibration(score, int(np.count_nonzero(candidates >= score)))


def feedback(score: np.ndarray, positive: np.ndarray, likeness: np.ndarray, scale: float) -> np.ndarray:
    """How a candidate answers the query joined with its positive, relative to the positive itself: (M,).

        (score + scale * likeness) / (positive + scale)

    Rocchio's relevance feedback (1971): the candidate's inner product with the sum of query and positive. `likeness` is
    the candidate's similarity to the positive over the positive's to itself, and `scale` what a text scores that says
    the same as the query, which keeps a positive with a small score from suspecting everything.
    """
    return relative(score + scale * likeness, positive + scale)
