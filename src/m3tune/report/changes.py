"""Which queries a tuned model changed: how ranks moved, and who gained and lost most, with what both models found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from m3tune.data.collection import Collection
from m3tune.diagnose.error_analysis import WORST
from m3tune.evaluation.compare import QueryChange, RankChange, gained_and_lost
from m3tune.evaluation.store import Evaluation
from m3tune.report.words import cut
from m3tune.types import Qrels, Run

_TOP_SHOWN = 3  # passages of each model's ranking
_RELEVANT_SHOWN = 5  # relevant passages of a query, the best ranked first
_TEXT_CHARACTERS = 400
_TITLE_CHARACTERS = 160
_BUCKET_ENDS = (1, 3, 10)


def rank_table(changes: Sequence[RankChange], depth: int) -> dict[str, Any]:
    """How often the first relevant passage moved from one range of ranks (base, rows) to another (tuned, columns)."""
    ends = [*(end for end in _BUCKET_ENDS if end < depth), depth]
    starts = [1, *(end + 1 for end in ends[:-1])]
    names = [str(end) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    counts = [[0] * (len(ends) + 1) for _ in range(len(ends) + 1)]

    def bucket(rank: int | None) -> int:
        return len(ends) if rank is None else next(i for i, end in enumerate(ends) if rank <= end)

    moved = {"improved": 0, "unchanged": 0, "worsened": 0}
    for _, base_rank, tuned_rank in changes:
        counts[bucket(base_rank)][bucket(tuned_rank)] += 1
        before, after = base_rank or math.inf, tuned_rank or math.inf
        moved["improved" if after < before else "worsened" if after > before else "unchanged"] += 1
    return {"buckets": [*names, "none"], "counts": counts, "depth": depth, **moved}


def changed_queries(
    metric: str,
    base: Evaluation,
    tuned: Evaluation,
    qrels: Qrels,
    collection: Collection,
    losses: Iterable[Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """The queries that gained most and lost most, with what both models found and what is behind the `losses`."""
    sides = gained_and_lost(base.per_query[metric], tuned.per_query[metric], WORST)
    behind = {loss["query_id"]: loss for loss in losses}
    return {
        name: [
            _query_card(change, base.run, tuned.run, qrels, collection, behind.get(change.query_id, {}))
            for change in changes
        ]
        for name, changes in zip(("gained", "lost"), sides, strict=True)
    }


def _query_card(
    change: QueryChange,
    base_run: Run,
    tuned_run: Run,
    qrels: Qrels,
    collection: Collection,
    loss: Mapping[str, Any],
) -> dict[str, Any]:
    grades = qrels.get(change.query_id, {})
    rankings = [[hit.passage_id for hit in run.get(change.query_id, [])] for run in (base_run, tuned_run)]
    base_ranks, tuned_ranks = ({p: rank for rank, p in enumerate(ids, start=1)} for ids in rankings)

    def shown(passage_id: str) -> dict[str, Any]:
        passage = collection.passages[passage_id]
        return {
            "passage_id": passage_id,
            "title": cut(passage.title, _TITLE_CHARACTERS),
            "text": cut(passage.text, _TEXT_CHARACTERS),
            "grade": grades.get(passage_id),
            "base_rank": base_ranks.get(passage_id),
            "tuned_rank": tuned_ranks.get(passage_id),
        }

    relevant = [passage_id for passage_id, grade in grades.items() if grade > 0]
    relevant.sort(key=lambda p: min(base_ranks.get(p, math.inf), tuned_ranks.get(p, math.inf)))
    return {
        "query_id": change.query_id,
        "text": cut(collection.queries[change.query_id].text, _TEXT_CHARACTERS),
        "base": change.base,
        "tuned": change.tuned,
        "difference": change.difference,
        "relevant_total": len(relevant),
        "relevant": [shown(passage_id) for passage_id in relevant[:_RELEVANT_SHOWN]],
        "base_top": [shown(passage_id) for passage_id in rankings[0][:_TOP_SHOWN]],
        "pushed_by": shown(loss["pushed_by"]) if loss.get("pushed_by") else None,
        "hints": loss.get("hints", []),
        "tuned_top": [shown(passage_id) for passage_id in rankings[1][:_TOP_SHOWN]],
    }
