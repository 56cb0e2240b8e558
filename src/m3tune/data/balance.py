"""How alike the sides of a split are: lengths, number of positives, script, set.

n queries. A side that was carved at random is like the rest up to chance; this measures it, and helps to choose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from m3tune.data.collection import Collection
from m3tune.data.scripts import script_of

_SHOWN_LABELS = 5
_EXACT_QUERIES = 500  # the exact test takes long for more


@dataclass(frozen=True)
class Features:
    """What is compared of n queries: numbers, and labels by number."""

    query_ids: tuple[str, ...]
    numbers: Mapping[str, NDArray[np.float64]]  # name -> (n,)
    labels: Mapping[str, tuple[NDArray[np.int64], tuple[str, ...]]]  # name -> (n,) index of a label, and the labels


def features_of(collection: Collection, query_ids: Sequence[str]) -> Features:
    """The features of queries that each have a relevant passage. Lengths are in characters."""
    set_of = {q: name for name, of_set in collection.sets.items() for q in of_set.query_ids}
    texts = [collection.queries[query_id].text for query_id in query_ids]
    positives = [collection.positives[query_id] for query_id in query_ids]
    numbers = {
        "query length": [len(text) for text in texts],
        "passage length": [
            np.mean([len(collection.passages[passage_id].full_text) for passage_id in ids]) for ids in positives
        ],
        "positives": [len(ids) for ids in positives],
    }
    labels = {
        "script": [script_of(text) or "none" for text in texts],
        "set": [set_of.get(query_id, "none") for query_id in query_ids],
    }
    return Features(
        tuple(query_ids),
        {name: np.asarray(values, dtype=np.float64) for name, values in numbers.items()},
        {name: _indexed(values) for name, values in labels.items()},
    )


def imbalance(features: Features, inside: NDArray[np.bool_]) -> float:
    """The largest distance between the queries inside, (n,) bool, and those outside over all features: 0 alike, 1 not.

    Numbers: the Kolmogorov-Smirnov statistic. Labels: total variation distance. 1 where one side is empty.
    """
    if inside.all() or not inside.any():
        return 1.0
    distances = [_distance(values, inside) for values in features.numbers.values()]
    for index, names in features.labels.values():
        shares = [np.bincount(index[side], minlength=len(names)) / side.sum() for side in (inside, ~inside)]
        distances.append(float(np.abs(shares[0] - shares[1]).sum() / 2))
    return max(distances)


def balance_table(features: Features, sides: Mapping[str, frozenset[str]]) -> list[dict[str, Any]]:
    """One row a feature: a summary of each side, and the test of each side against the first.

    Numbers: median and 90th percentile; two-sample Kolmogorov-Smirnov test. Labels: shares of the most frequent; chi
    squared test. Queries that share documents are not independent, which makes p too small; a carved side was chosen to
    be like the rest, which makes it too large: p is a measure there, and a test for splits that the data brings.
    """
    members = {name: np.array([q in ids for q in features.query_ids]) for name, ids in sides.items() if ids}
    first, *others = members
    rows: list[dict[str, Any]] = []
    for name, values in features.numbers.items():
        row: dict[str, Any] = {"feature": name}
        for side, inside in members.items():
            median, high = np.percentile(values[inside], [50, 90])
            row[side] = {"median": float(median), "p90": float(high)}
        row["tests"] = {s: _ks(values[members[s]], values[members[first]]) for s in others}
        rows.append(row)
    for name, (index, labels) in features.labels.items():
        if len(labels) < 2:
            continue  # nothing in which sides could differ
        counts = {side: np.bincount(index[inside], minlength=len(labels)) for side, inside in members.items()}
        frequent = np.argsort(-sum(counts.values()), kind="stable")[:_SHOWN_LABELS]
        row = {"feature": name}
        for side, of_side in counts.items():
            row[side] = {labels[i]: round(float(of_side[i] / of_side.sum()), 4) for i in frequent}
        row["tests"] = {s: _chi_squared(counts[s], counts[first]) for s in others}
        rows.append(row)
    return rows


def _distance(values: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """The Kolmogorov-Smirnov statistic: how far two cumulative distributions are apart at most."""
    order = np.argsort(values, kind="stable")
    within = inside[order]
    gap = np.cumsum(within) / within.sum() - np.cumsum(~within) / (~within).sum()
    ends_a_tie = np.append(np.diff(values[order]) > 0, True)
    return float(np.abs(gap[ends_a_tie]).max())


def _indexed(values: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    labels, index = np.unique(np.asarray(values, dtype=object), return_inverse=True)
    return index.astype(np.int64), tuple(labels)


def _ks(side: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
    exact = max(len(side), len(other)) <= _EXACT_QUERIES
    result = stats.ks_2samp(side, other, method="exact" if exact else "asymp")
    return {"statistic": float(result.statistic), "p_value": float(result.pvalue)}


def _chi_squared(side: NDArray[np.int64], other: NDArray[np.int64]) -> dict[str, float]:
    table = np.stack([side, other])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return {"statistic": 0.0, "p_value": 1.0}
    result = stats.chi2_contingency(table)
    return {"statistic": float(result.statistic), "p_value": float(result.pvalue)}
