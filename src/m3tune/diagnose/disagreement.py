"""Where rankers disagree: who finds what the others miss, the ceiling of choosing between them, what fusion gets of it.

A ranker is one head of the chosen model, or BM25. A fusion is made of several: the model's own mixtures, and rank
fusion with BM25, which needs no weights and so none chosen by looking at the test.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from m3tune.config import EvaluateConfig
from m3tune.evaluation.compare import paired_differences
from m3tune.evaluation.fusion import fuse
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.significance import paired_bootstrap
from m3tune.evaluation.store import Evaluation
from m3tune.types import HYBRID, RRF, Qrels, Run

TOP = 10
"""Ranks that a person looks at."""
BM25 = "bm25"

_EXAMPLES = 3
_MIXTURES = (HYBRID, RRF)


@dataclass(frozen=True)
class Ranker:
    """Its mean metric, the queries of which it finds a relevant passage in the top, and those that `decides` misses."""

    name: str
    value: float
    found: int
    adds: int


@dataclass(frozen=True)
class Pattern:
    """Queries whose relevant passage exactly these rankers find in the top, and how many of them each fusion finds."""

    found_by: tuple[str, ...]
    queries: int
    by_fusion: Mapping[str, int]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """Passages that two rankers both have in the top over those that either has, mean over queries."""

    first: str
    second: str
    jaccard: float


@dataclass(frozen=True)
class Fusion:
    """A mixture of rankers: its mean metric, its difference to `decides` with a 95 % interval, and what it captures.

    `captured` is the share of the way from the best ranker to the ceiling; None where there is no way.
    """

    name: str
    members: tuple[str, ...]
    value: float
    difference: float
    ci95: tuple[float, float]
    captured: float | None


@dataclass(frozen=True)
class Disagreement:
    """Everything about the rankers on the same queries. `decides` is what the verdict is about.

    `ceiling` is the mean metric of an oracle that knows for each query which ranker is best: a bound for choosing
    between them, and no system, for it also takes every lucky one. `suggested` names the fusion with BM25 to try.
    """

    metric: str
    top: int
    decides: str
    queries: int
    rankers: tuple[Ranker, ...]
    patterns: tuple[Pattern, ...]
    overlaps: tuple[Overlap, ...]
    ceiling: float
    fusions: tuple[Fusion, ...]
    suggested: str | None


def disagreement_of(
    evaluations: Sequence[Evaluation], decides: str, qrels: Qrels, clusters: Mapping[str, int], config: EvaluateConfig
) -> Disagreement:
    """How the heads of one model and BM25, where it was measured, differ on the queries of `qrels`.

    Of a dense-only model that is dense against BM25. `decides` is one of the evaluations' heads.
    """
    metric, query_ids = config.main_metric, list(qrels)
    singles, members, runs, values = _compared(evaluations, decides, qrels, config)
    found = {name: found_in_top(run, qrels) for name, run in runs.items()}
    means = {name: float(np.mean([of[q] for q in query_ids])) for name, of in values.items()}
    ceiling = float(np.mean([max(values[name][q] for name in singles) for q in query_ids]))
    best = max(means[name] for name in singles)

    def fusion(name: str) -> Fusion:
        differences, groups = paired_differences(values[decides], values[name], clusters)
        return Fusion(
            name,
            members[name],
            means[name],
            float(differences.mean()),
            paired_bootstrap(differences, groups, config.resamples, config.seed),
            (means[name] - best) / (ceiling - best) if ceiling - best > 1e-9 else None,
        )

    suggested = fused_name((decides, BM25))
    return Disagreement(
        metric,
        TOP,
        decides,
        len(query_ids),
        tuple(Ranker(s, means[s], len(found[s]), len(found[s] - found[decides])) for s in singles),
        patterns_of({s: found[s] for s in singles}, {name: found[name] for name in members}, query_ids),
        tuple(Overlap(a, b, mean_jaccard(runs[a], runs[b], query_ids)) for a, b in itertools.combinations(singles, 2)),
        ceiling,
        tuple(map(fusion, members)),
        suggested if suggested in members else None,
    )


class _Compared(NamedTuple):
    """What is compared: single rankers, the members of each fusion of them, and the run and values of every one."""

    singles: list[str]
    members: dict[str, tuple[str, ...]]
    runs: dict[str, Run]
    values: dict[str, Mapping[str, float]]  # of the main metric, by query


def _compared(evaluations: Sequence[Evaluation], decides: str, qrels: Qrels, config: EvaluateConfig) -> _Compared:
    """The heads, their mixtures and BM25 as they were measured, and fusions with BM25 made of their runs."""
    metric = config.main_metric
    by_name = {evaluation.head: evaluation for evaluation in evaluations}
    singles = [name for name in by_name if name not in _MIXTURES]
    members = {name: tuple(head for head in singles if head != BM25) for name in _MIXTURES if name in by_name}
    runs = {name: evaluation.run for name, evaluation in by_name.items()}
    values = {name: evaluation.per_query[metric] for name, evaluation in by_name.items()}
    for name, of in _fusions_with_bm25(singles, decides).items():
        runs[name] = fuse([runs[member] for member in of], config.depth)
        values[name] = evaluate_run(runs[name], qrels, (metric,))[metric]
        members[name] = of
    return _Compared(singles, members, runs, values)


def found_in_top(run: Run, qrels: Qrels) -> frozenset[str]:
    """The queries that have a relevant passage among the first `TOP`."""
    return frozenset(
        query_id
        for query_id, grades in qrels.items()
        if any(grades.get(hit.passage_id, 0) > 0 for hit in run.get(query_id, ())[:TOP])
    )


def patterns_of(
    found: Mapping[str, frozenset[str]], by_fusion: Mapping[str, frozenset[str]], query_ids: Sequence[str]
) -> tuple[Pattern, ...]:
    """The queries by which rankers found them, the most frequent pattern first."""
    counts: Counter[tuple[str, ...]] = Counter()
    fused: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    examples: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for query_id in query_ids:
        by = tuple(name for name, ids in found.items() if query_id in ids)
        counts[by] += 1
        fused[by].update(name for name, ids in by_fusion.items() if query_id in ids)
        if len(examples[by]) < _EXAMPLES:
            examples[by].append(query_id)
    return tuple(
        Pattern(by, count, {name: fused[by][name] for name in by_fusion}, tuple(examples[by]))
        for by, count in counts.most_common()
    )


def mean_jaccard(first: Run, second: Run, query_ids: Sequence[str]) -> float:
    """The mean over queries of |A and B| / |A or B|, A and B the passages that each run has in the top.

    Queries of which neither found anything do not count; 0 where that is all of them. Source: Jaccard 1912, "The
    distribution of the flora in the alpine zone".
    """
    shares = []
    for query_id in query_ids:
        a, b = ({hit.passage_id for hit in run.get(query_id, ())[:TOP]} for run in (first, second))
        if a or b:
            shares.append(len(a & b) / len(a | b))
    return sum(shares) / max(1, len(shares))


def fused_name(members: Sequence[str]) -> str:
    """The name of a rank fusion of stored runs, such as `dense+bm25`."""
    return "+".join(members)


def _fusions_with_bm25(singles: Sequence[str], decides: str) -> dict[str, tuple[str, ...]]:
    """Rank fusions worth a look: what decides with BM25, the dense head with BM25, and all rankers."""
    if BM25 not in singles:
        return {}
    heads = [name for name in singles if name != BM25]
    wanted = [(decides, BM25), *(("dense", BM25) for name in heads if name == "dense"), (*heads, BM25)]
    return {fused_name(members): members for members in dict.fromkeys(wanted)}
