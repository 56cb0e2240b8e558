"""What a mining found, for a page and a terminal: counts, scores, what other thresholds would keep, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3tune.negatives.candidates import Pairs
from m3tune.negatives.ground import Ground
from m3tune.negatives.scores import Scores
from m3tune.negatives.select import Selection, cut_of
from m3tune.negatives.threshold import calibrate, relative

_RATIOS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05)
_RISKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_BINS = 30
_EXAMPLES = 3
_CHARACTERS = 300
KEPT = "kept"


def by_source(pairs: Pairs, selection: Selection) -> list[dict[str, Any]]:
    """What each source found and how much of it was left; a candidate counts for every source that found it."""
    kept = selection.removed == 0
    return [
        {
            "source": source,
            "found": int(found.sum()),
            "kept": int((found & kept).sum()),
            "chosen": int((found & selection.chosen).sum()),
        }
        for source, found in zip(pairs.sources, pairs.ranks > 0, strict=True)
    ]


def thresholds(
    ground: Ground, pairs: Pairs, scores: Scores, clean: np.ndarray, ratios: np.ndarray, between: np.ndarray
) -> dict[str, list[dict[str, float | None]]]:
    """What each ratio, and each risk of the calibration, would keep of the `clean` (M,) candidates.

    `caught` is the share of known positives that it would remove, were each known only by another of its query; None
    where no query has several. `between` are these positives' feedback ratios, `ratios` (M,) the candidates'.
    """
    against = relative(scores.candidate, scores.lowest(ground)[pairs.query])[clean]
    fixed: list[dict[str, float | None]] = [{"threshold": r, "kept": _share(against <= r)} for r in _RATIOS]
    calibrated: list[dict[str, float | None]] = []
    for risk in _RISKS:
        found = calibrate(scores.positive, scores.candidate[clean], risk)
        if found is None:
            break
        cut = cut_of(ratios[clean], found)
        caught = _share(between >= cut) if len(between) else None
        calibrated.append({"risk": risk, "kept": _share(ratios[clean] < cut), "caught": caught})
    return {"threshold": fixed, "risk": calibrated}


def histograms(scores: Scores, selection: Selection) -> dict[str, Any]:
    """Scores of the positives, of what was removed and of what was kept, counted in the same bins."""
    kept = selection.removed == 0
    groups = {"positives": scores.positive, "removed": scores.candidate[~kept], KEPT: scores.candidate[kept]}
    every = np.concatenate(list(groups.values()))
    edges = np.histogram_bin_edges(every, _BINS) if len(every) else np.zeros(2)
    return {
        "edges": edges.tolist(),
        "counts": {name: np.histogram(values, edges)[0].tolist() for name, values in groups.items()},
    }


def examples(ground: Ground, pairs: Pairs, scores: Scores, selection: Selection) -> dict[str, list[dict[str, Any]]]:
    """Reason, or kept, -> a few candidates with their texts; the best scored of as many queries."""
    names = (KEPT, *selection.reasons)
    order = np.argsort(-scores.candidate, kind="stable")
    shown: dict[str, list[dict[str, Any]]] = {}
    for number, name in enumerate(names):
        rows = order[selection.removed[order] == number]
        _, first = np.unique(pairs.query[rows], return_index=True)
        if len(rows):
            shown[name] = [_example(ground, pairs, scores, row) for row in rows[np.sort(first)][:_EXAMPLES].tolist()]
    return shown


def in_words(counts: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The counts, and how scores were judged, as lines for a person."""
    lines = [
        f"{counts['candidates']:,} candidates of {counts['queries']:,} queries: {counts['kept']:,} kept, "
        f"{sum(counts['removed'].values()):,} removed, {counts['chosen']:,} chosen",
        *(f"  {count:,} {reason}" for reason, count in counts["removed"].items()),
    ]
    if soft := counts["soft"]:
        lines.append(f"  {soft:,} of the chosen are suspects: soft labels, only their teacher's scores are learned")
    if few := counts["queries_with_too_few"]:
        lines.append(f"{few:,} queries have fewer than asked for: {counts['negatives_missing']:,} are missing in all")
    return [*lines, rule_in_words(found)]


def rule_in_words(found: Mapping[str, Any]) -> str:
    """How `mine.threshold` judged scores."""
    rule, because = found["rule"], found.get("because")
    if rule == "none":
        return "no threshold on scores"
    if rule == "ratio":
        return f"threshold: {found['ratio']:g} of the lowest positive's score" + (f" ({because})" if because else "")
    if found["suspected"] == 0:
        return f"threshold: no score is so high, at a risk of {found['risk']:g}"
    if rule == "teacher":
        return f"threshold: the teacher's score {found['score']:.4g}, at a risk of {found['risk']:g}"
    return f"threshold: {found['ratio']:.3f} of the positive's own feedback score, at a risk of {found['risk']:g}"


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _example(ground: Ground, pairs: Pairs, scores: Scores, row: int) -> dict[str, Any]:
    query_id = ground.query_ids[pairs.query[row]]
    positives: Sequence[str] = ground.collection.positives[query_id]
    texts = ground.collection.passages
    return {
        "query": ground.collection.queries[query_id].text[:_CHARACTERS],
        "positive": texts[positives[0]].full_text[:_CHARACTERS],
        "passage": texts[ground.passage_ids[pairs.passage[row]]].full_text[:_CHARACTERS],
        "score": float(scores.candidate[row]),
        "positive_score": float(scores.lowest(ground)[pairs.query[row]]),
        "rank": int(pairs.rank[row]),
        "sources": [source for source, ranks in zip(pairs.sources, pairs.ranks, strict=True) if ranks[row]],
    }
