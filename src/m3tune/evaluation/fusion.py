"""Rank fusion of stored runs: what a search by both would have found, without searching again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from m3tune.retrieval.search import RRF_K
from m3tune.types import Hit, Run


def fuse(runs: Sequence[Run], depth: int, k: int = RRF_K) -> Run:
    """The `depth` best passages of each query by the sum over runs of 1 / (k + rank), ranks from 1.

    A passage that a run does not list gets nothing from it. Equal sums keep the order in which the runs, the first
    before the second, bring the passages. Source: Cormack, Clarke & Buettcher 2009, "Reciprocal rank fusion".
    """
    fused: dict[str, list[Hit]] = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        sums: dict[str, float] = defaultdict(float)
        for run in runs:
            for rank, (passage_id, _) in enumerate(run.get(query_id, ()), start=1):
                sums[passage_id] += 1 / (k + rank)
        best = sorted(sums.items(), key=lambda item: -item[1])[:depth]
        fused[query_id] = [Hit(passage_id, total) for passage_id, total in best]
    return fused
