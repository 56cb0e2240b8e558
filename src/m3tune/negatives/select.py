"""From scored candidates to negatives: why each may not be one, and which of the others were sampled.

Q queries, M candidates, N known positives
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3tune.config import MineConfig
from m3tune.negatives import filters
from m3tune.negatives.candidates import Pairs
from m3tune.negatives.ground import Ground
from m3tune.negatives.sampling import best_keys, keys, uniform_numbers
from m3tune.negatives.scores import Scores
from m3tune.negatives.sources import RANDOM
from m3tune.negatives.threshold import FALLBACK, Calibration, calibrate, relative


@dataclass(frozen=True)
class Suspicion:
    """How the score of a candidate is judged under `mine.threshold`."""

    mask: np.ndarray  # (M,) bool, whether it is too high
    found: dict[str, Any]  # how, for people and programs
    earlier: np.ndarray | None = None  # (M,) bool, whether it was suspected a round before


@dataclass(frozen=True)
class Selection:
    """What became of every candidate."""

    reasons: tuple[str, ...]
    removed: np.ndarray  # (M,) int64, 1 + the place of its reason, 0 where it was kept
    chosen: np.ndarray  # (M,) bool
    missing: np.ndarray  # (Q,) int64, how many negatives fewer than asked

    def counts(self) -> dict[str, Any]:
        """What adds up: candidates = kept + removed by reason; the chosen are among the kept, but for soft labels."""
        by_reason = np.bincount(self.removed, minlength=len(self.reasons) + 1).tolist()
        return {
            "candidates": len(self.removed),
            "kept": by_reason[0],
            "removed": {reason: count for reason, count in zip(self.reasons, by_reason[1:], strict=True) if count},
            "chosen": int(self.chosen.sum()),
            "soft": int((self.chosen & (self.removed > 0)).sum()),
            "queries": len(self.missing),
            "queries_with_too_few": int(np.count_nonzero(self.missing)),
            "negatives_missing": int(self.missing.sum()),
        }


def suspicion(
    config: MineConfig, ground: Ground, pairs: Pairs, scores: Scores, teacher: Scores | None,
    ratios: np.ndarray, clean: np.ndarray,
) -> Suspicion:  # fmt: skip
    """What `mine.threshold` says of the scores.

    auto: with a teacher, what scores at least what `calibrate` finds on the teacher's scores. Without one, as many
    candidates as `calibrate` finds on the model's own scores, namely those with the highest feedback `ratios`: how many
    are too high, the scores of all positives tell; which, the likeness to the query's own positives tells better.
    `clean` (M,) are the candidates to calibrate on: searched, and not known to be relevant.
    """
    if config.threshold == "none":
        return Suspicion(np.zeros(len(pairs), dtype=bool), {"rule": "none"})
    against = relative(scores.candidate, scores.lowest(ground)[pairs.query])
    if config.threshold != "auto":
        return Suspicion(against > config.threshold, {"rule": "ratio", "ratio": config.threshold})
    judge = teacher or scores
    calibration = calibrate(judge.positive, judge.candidate[clean], config.risk)
    if calibration is None:
        found = {"rule": "ratio", "ratio": FALLBACK, "because": "too few positives to calibrate on"}
        return Suspicion(against > FALLBACK, found)
    rule = "feedback" if teacher is None else "teacher"
    found = {"rule": rule, "risk": config.risk, "suspected": calibration.suspected}
    if not calibration.suspected:
        return Suspicion(np.zeros(len(pairs), dtype=bool), found)
    if teacher is not None:
        return Suspicion(teacher.candidate >= calibration.score, found | {"score": calibration.score})
    ratio = cut_of(ratios[clean], calibration)
    return Suspicion(ratios >= ratio, found | {"ratio": ratio})


def cut_of(ratios: np.ndarray, calibration: Calibration) -> float:
    """The ratio that as many of these candidates reach as the calibration suspects; infinite for none."""
    if not calibration.suspected:
        return float("inf")
    return float(np.partition(ratios, -calibration.suspected)[-calibration.suspected])


def select(
    config: MineConfig, ground: Ground, pairs: Pairs, scores: Scores, teacher: Scores | None,
    known: filters.Masks, review: tuple[np.ndarray, np.ndarray], suspected: Suspicion,
) -> Selection:  # fmt: skip
    """Every filter in turn, then the sample. What a person cleared is removed by no score.

    Where `mine.suspects` is soft, the sample is drawn from suspects too, which stay removed for their reason.
    """
    relevant, cleared = review
    masks = {**known, filters.VERDICT: relevant}
    if config.same_document:
        masks[filters.DOCUMENT] = filters.document_mask(pairs, ground)
    by_score = {filters.THRESHOLD: suspected.mask}
    if suspected.earlier is not None:
        by_score[filters.EARLIER] = suspected.earlier
    if config.margin is not None:
        by_score[filters.MARGIN] = scores.candidate > scores.lowest(ground)[pairs.query] - config.margin
    if teacher is not None:
        by_score[filters.TEACHER] = _taught_mask(config, ground, pairs, teacher)
    if config.min_score is not None:
        by_score[filters.LOW] = scores.candidate < config.min_score
    if config.max_score is not None:
        by_score[filters.HIGH] = scores.candidate > config.max_score
    masks |= {reason: mask & ~cleared for reason, mask in by_score.items()}
    removed = np.any(list(masks.values()), axis=0)
    soft = _soft(config, masks)
    masks[filters.REPEATED] = filters.repeated_mask(pairs, ground, scores.candidate, removed & ~soft)
    numbers = filters.first_reasons(masks)
    eligible = (numbers == 0) | (soft & ~masks[filters.REPEATED])
    chosen, missing = _sample(config, ground, pairs, scores, eligible)
    return Selection(tuple(masks), numbers, chosen, missing)


def _soft(config: MineConfig, masks: filters.Masks) -> np.ndarray:
    """(M,) what nothing but a suspicion keeps out, where the recipe learns from suspects; else nothing."""
    suspected = np.any([mask for reason, mask in masks.items() if reason in filters.SUSPECTS], axis=0)
    if config.suspects == "drop":
        return np.zeros_like(suspected)
    return suspected & ~np.any([mask for reason, mask in masks.items() if reason not in filters.SUSPECTS], axis=0)


def _taught_mask(config: MineConfig, ground: Ground, pairs: Pairs, teacher: Scores) -> np.ndarray:
    lowest = teacher.lowest(ground)[pairs.query]
    mask = np.zeros(len(pairs), dtype=bool)
    if config.teacher_threshold is not None:
        mask |= relative(teacher.candidate, lowest) > config.teacher_threshold
    if config.teacher_margin is not None:
        mask |= teacher.candidate > lowest - config.teacher_margin
    return mask


def _sample(
    config: MineConfig, ground: Ground, pairs: Pairs, scores: Scores, eligible: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) chosen of the `eligible` (M,) and (Q,) missing: searched ones by `mine.sample`, then random ones.

    Of these more are taken where they fill up.
    """
    query_ids: Sequence[str] = ground.query_ids
    searched = pairs.found_by([source for source in pairs.sources if source != RANDOM])
    numbers = uniform_numbers(config.seed, query_ids, pairs.query, "sample")
    lowest = scores.lowest(ground)[pairs.query]
    key = keys(config, scores.candidate, lowest, numbers, eligible & searched)
    hard = best_keys(pairs.query, key, eligible & searched, np.full(len(query_ids), config.negatives_per_query))
    missing = config.negatives_per_query - np.bincount(pairs.query[hard], minlength=len(query_ids))
    wanted = config.random_per_query + (missing if config.fill == "random" else np.zeros_like(missing))
    random = best_keys(pairs.query, numbers, eligible & pairs.found_by([RANDOM]) & ~hard, wanted)
    chosen = hard | random
    asked = config.negatives_per_query + config.random_per_query
    return chosen, asked - np.bincount(pairs.query[chosen], minlength=len(query_ids))
