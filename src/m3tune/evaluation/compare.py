"""Two models on the same queries: difference, interval, p-value and verdict, and which queries changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from m3tune.config import EvaluateConfig
from m3tune.data.groups import connected_groups
from m3tune.errors import ArtifactError
from m3tune.evaluation.metrics import PerQuery
from m3tune.evaluation.significance import Floats, Integers, paired_bootstrap, paired_randomisation
from m3tune.types import Qrels, Run

VerdictWord = Literal["better", "no worse", "inconclusive", "worse"]

_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of both models: means, tuned minus base with its 95 % interval, two-sided p, and counts of queries."""

    metric: str
    base: float
    tuned: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    wins: int
    ties: int
    losses: int
    queries: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All metrics of two models on the same queries."""

    metrics: tuple[MetricComparison, ...]
    main_metric: str

    @property
    def main(self) -> MetricComparison:
        """The metric that the verdict is about."""
        return next(item for item in self.metrics if item.metric == self.main_metric)


class RankChange(NamedTuple):
    """Rank of a query's first relevant passage, from 1; None where none is within the depth."""

    query_id: str
    base_rank: int | None
    tuned_rank: int | None


class QueryChange(NamedTuple):
    """One metric of one query in both models."""

    query_id: str
    base: float
    tuned: float

    @property
    def difference(self) -> float:
        """What tuning gained, negative for a loss."""
        return self.tuned - self.base


def compare(base: PerQuery, tuned: PerQuery, clusters: Mapping[str, int], config: EvaluateConfig) -> Comparison:
    """Every metric of `config`, and its main metric, of two models over the same queries.

    `clusters` numbers the group of every query (see `document_groups`). Raises ArtifactError when a metric is missing
    or the queries differ.
    """
    names = dict.fromkeys((*config.metrics, config.main_metric))
    pairs = ((name, _values(base, name, "base"), _values(tuned, name, "tuned")) for name in names)
    return Comparison(tuple(_compare_metric(*pair, clusters, config) for pair in pairs), config.main_metric)


def document_groups(qrels: Qrels, canonical_passage: Mapping[str, str]) -> dict[str, int]:
    """Query id -> number of its group: queries that share a relevant passage, copies of it too, stand together."""
    return connected_groups(
        {q: [canonical_passage.get(p, p) for p, grade in grades.items() if grade > 0] for q, grades in qrels.items()}
    )


def verdict(comparison: Comparison, no_worse_margin: float) -> VerdictWord:
    """What the interval of the main metric says.

    Better or worse where it excludes zero, no worse where it excludes a loss above the margin, else inconclusive.
    """
    low, high = comparison.main.ci95
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "no worse" if low >= -no_worse_margin else "inconclusive"


def rank_changes(base_run: Run, tuned_run: Run, qrels: Qrels, depth: int) -> list[RankChange]:
    """Where each query's first relevant passage stood and stands, in the order of `qrels`."""
    changes = []
    for query_id, grades in qrels.items():
        relevant = {passage_id for passage_id, grade in grades.items() if grade > 0}
        ranks = (_first_rank(run, query_id, relevant, depth) for run in (base_run, tuned_run))
        changes.append(RankChange(query_id, *ranks))
    return changes


def gained_and_lost(
    base: Mapping[str, float], tuned: Mapping[str, float], n: int = 10
) -> tuple[list[QueryChange], list[QueryChange]]:
    """The `n` queries that gained most and the `n` that lost most in one metric, the largest change first.

    Equal changes keep the order of `base`. Raises ArtifactError when the queries differ.
    """
    _require_same_queries(base, tuned, "the metric")
    changes = [QueryChange(query_id, base[query_id], tuned[query_id]) for query_id in base]
    gained = sorted((change for change in changes if change.difference > _TIE), key=lambda change: -change.difference)
    lost = sorted((change for change in changes if change.difference < -_TIE), key=lambda change: change.difference)
    return gained[:n], lost[:n]


def paired_differences(
    base: Mapping[str, float], tuned: Mapping[str, float], clusters: Mapping[str, int]
) -> tuple[Floats, Integers]:
    """Tuned minus base and the group of each query, in the order of `base`: (N,), (N,).

    Raises KeyError for a query without value or group.
    """
    differences = np.array([tuned[query_id] - base[query_id] for query_id in base], dtype=np.float64)
    return differences, np.array([clusters[query_id] for query_id in base], dtype=np.int64)


def _compare_metric(
    metric: str,
    base: Mapping[str, float],
    tuned: Mapping[str, float],
    clusters: Mapping[str, int],
    config: EvaluateConfig,
) -> MetricComparison:
    _require_same_queries(base, tuned, metric)
    differences, groups = paired_differences(base, tuned, clusters)
    wins, losses = int((differences > _TIE).sum()), int((differences < -_TIE).sum())
    return MetricComparison(
        metric=metric,
        base=float(np.mean(list(base.values()))),
        tuned=float(np.mean(list(tuned.values()))),
        difference=float(differences.mean()),
        ci95=paired_bootstrap(differences, groups, config.resamples, config.seed),
        p_value=paired_randomisation(differences, groups, config.resamples, config.seed),
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        queries=len(differences),
    )


def _values(per_query: PerQuery, metric: str, side: str) -> Mapping[str, float]:
    if not per_query.get(metric):
        raise ArtifactError(
            f"the {side} model was not measured with {metric}",
            fix=f"evaluate it again; it has {', '.join(per_query) or 'no metric'}",
        )
    return per_query[metric]


def _require_same_queries(base: Mapping[str, float], tuned: Mapping[str, float], metric: str) -> None:
    different = sorted(base.keys() ^ tuned.keys())
    if different:
        raise ArtifactError(
            f"{metric}: the models were measured on different queries; {len(different)} are in one only, "
            f"the first {different[0]!r}",
            fix="evaluate both on the same queries",
        )


def _first_rank(run: Run, query_id: str, relevant: set[str], depth: int) -> int | None:
    hits = run.get(query_id, [])[:depth]
    return next((rank for rank, hit in enumerate(hits, start=1) if hit.passage_id in relevant), None)
