"""Whether training queries are like those that judge: lengths, scripts and sets, words, and vectors.

n texts, d dimensions
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m3tune.diagnose.doctor.case import Case
from m3tune.diagnose.wording import found, share
from m3tune.types import SIDE_PAIRS, Finding

_FEWEST = 30  # queries of a side
_APART = 0.8  # chance of a linear classifier to tell a test query from a training query
_P_VALUE, _DISTANCE = 1e-3, 0.25  # of the tests of balance.json
_FOLDS = 5
_HASHED = 512  # dimensions of a text's words
_WORDS = re.compile(r"\w+")
_LEAKED = 0.05
_TOLD_BY = {"vectors": "the untuned model's vectors", "words": "their words"}


def differing_queries(case: Case) -> Iterator[Finding]:
    """Training queries that a test can tell from the test queries."""
    differing = [
        f"{row['feature']} (distance {far:.2f}, p {test['p_value']:.1g})"
        for row in case.balance
        if (test := row.get("tests", {}).get("test"))
        and test["p_value"] < _P_VALUE
        and (far := _distance(row)) >= _DISTANCE
    ]
    apart = _apart(case)
    differing += [
        f"{_TOLD_BY[name]} (a classifier tells them apart {value:.0%} of the time)"
        for name, value in apart.items()
        if value >= _APART
    ]
    if differing:
        yield found(
            "differing-queries",
            case.hint,
            "train and test queries",
            f"they differ in {'; '.join(differing)}: what is learned on the one may not help the other",
            "train on queries like those that are asked: from your logs, or generated in their style; compare them in "
            + f"{case.folder / 'data' / 'data.html'}, then {case.again()}",
            count=len(differing),
            apart={name: round(value, 4) for name, value in apart.items()},
        )


def leakage(case: Case) -> Iterator[Finding]:
    """Questions of the test that are asked, nearly the same, in training or development."""
    query_of, first_of = case.collection.canonical_query, case.similar.queries.first_of
    for side, other in SIDE_PAIRS:
        known = {first_of(query_of[q]) for q in getattr(case.split, side)}
        leaked = [q for q in getattr(case.split, other) if first_of(query_of[q]) in known]
        total = len(getattr(case.split, other))
        if leaked:
            yield found(
                "leakage",
                "error" if len(leaked) >= _LEAKED * total else "note",
                f"{side} and {other}",
                f"{share(len(leaked), total)} {other} queries are asked, nearly the same, in {side} too: what {other} "
                "measures is partly learned by heart",
                f"remove them from {side}, or leave the splits out of the data, so that it is split anew, then "
                + case.again(),
                (case.collection.queries[q].text[:80] for q in leaked),
                count=len(leaked),
                of=total,
            )


def separability(first: np.ndarray, second: np.ndarray) -> float:
    """The chance that a linear classifier that has not seen them puts one of the second (m, d) above one of the first.

    Ridge regression of the side on standardised columns, five folds, the area under the ROC curve of held-out texts: a
    classifier two-sample test (Lopez-Paz and Oquab, 2017). About a half for two draws from one distribution.
    """
    rows = np.concatenate([first, second]).astype(np.float64)
    side = np.concatenate([-np.ones(len(first)), np.ones(len(second))])
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-9)
    generator = np.random.default_rng(0)
    fold = np.concatenate([generator.permutation(len(texts)) % _FOLDS for texts in (first, second)])
    said = np.zeros(len(rows))
    for number in range(_FOLDS):
        seen = fold != number
        kernel = rows[seen] @ rows[seen].T  # fewer texts than dimensions
        weights = np.linalg.solve(kernel + rows.shape[1] * np.eye(seen.sum()), side[seen] - side[seen].mean())
        said[~seen] = rows[~seen] @ (rows[seen].T @ weights)
        said[~seen] -= said[~seen].mean()
    ranks = said.argsort().argsort()[side > 0]
    return float((ranks.sum() - len(second) * (len(second) - 1) / 2) / (len(first) * len(second)))


def _distance(row: Mapping[str, Any]) -> float:
    """How far test is from train in one feature, 0 to 1: Kolmogorov-Smirnov, of shares total variation."""
    if "median" in row["test"]:
        return float(row["tests"]["test"]["statistic"])
    train, test = row["train"], row["test"]
    return sum(abs(train.get(label, 0) - test.get(label, 0)) for label in {*train, *test}) / 2


def _apart(case: Case) -> dict[str, float]:
    """How often a classifier tells training from test queries, by vectors and by words; empty where there are few."""
    if case.sample is None or min(map(len, sides := _sides(case))) < _FEWEST:
        return {}
    vectors = [case.sample.vectors[side] for side in sides]
    words = [_hashed([case.collection.queries[case.sample.query_ids[i]].text for i in side]) for side in sides]
    return {"vectors": separability(*vectors), "words": separability(*words)}


def _sides(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the sample that are training queries and test queries."""
    assert case.sample is not None
    test = set(case.split.test)
    rows = np.arange(len(case.sample.query_ids))
    return rows[: case.sample.num_train], rows[[q in test for q in case.sample.query_ids]]


def _hashed(texts: Sequence[str]) -> np.ndarray:
    """Counts of words under a hash of 512 values, the root taken: (n, 512)."""
    counts = np.zeros((len(texts), _HASHED))
    for row, text in enumerate(texts):
        for word in _WORDS.findall(text.casefold()):
            counts[row, zlib.crc32(word.encode("utf-8", "surrogatepass")) % _HASHED] += 1
    return np.sqrt(counts)
