"""The hybrid's weights on development data, and which head decides."""

import numpy as np
import pytest
import torch

from m3tune.config import EvaluateConfig
from m3tune.data.collection import Collection
from m3tune.evaluation.measure import Searched, deciding_head, dev_corpus
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.weights import tune_weights
from m3tune.retrieval.exact import Ranked
from m3tune.retrieval.search import Candidates, Found
from m3tune.types import Hit, Judgment, Passage, Query

METRIC = "nDCG@10"
QUERIES, PASSAGES = 30, 12


def searched(scales, seed=0):
    """Every passage is a candidate; the relevant one is lifted by a different head for each third of the queries."""
    generator = np.random.default_rng(seed)
    ids, passages = [f"q{i}" for i in range(QUERIES)], [f"p{i}" for i in range(PASSAGES)]
    heads = list(scales)
    scores = {head: generator.random((QUERIES, PASSAGES)) for head in heads}
    for query in range(QUERIES):
        scores[heads[query % len(heads)]][query, query % PASSAGES] += 0.9
    scores = {head: torch.from_numpy(scales[head] * of).float().flatten() for head, of in scores.items()}
    candidates = Candidates(np.tile(np.arange(PASSAGES), QUERIES), np.arange(QUERIES + 1) * PASSAGES, scores)
    collection = Collection(
        {i: Query(i, i) for i in ids},
        {i: Passage(i, i) for i in passages},
        tuple(Judgment(q, f"p{n % PASSAGES}") for n, q in enumerate(ids)),
    )
    by_head = {head: [Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))] * QUERIES for head in heads}
    return Searched("x", collection, EvaluateConfig(), ids, passages, Found(PASSAGES, by_head, candidates, {}))


@pytest.mark.parametrize("heads", [("dense", "sparse"), ("dense", "sparse", "multi")], ids=len)
def test_the_best_of_the_grid_is_found_and_is_what_it_measures(heads):
    found = searched(dict.fromkeys(heads, 1.0))
    tuning = tune_weights(found, METRIC, {"dense": 1.0})
    assert len(tuning.grid) == {2: 21, 3: 66}[len(heads)]
    assert tuning.best.value == max(point.value for point in tuning.grid) > tuning.default.value
    assert tuning.default.shares["dense"] == 1
    measured = mean(found.evaluation("hybrid", tuning.best.weights).per_query)[METRIC]
    assert measured == pytest.approx(tuning.best.value, abs=1e-6)
    assert sum(tuning.best.weights.values()) == pytest.approx(1, abs=2e-3)
    assert all(abs(sum(point.shares.values()) - 1) < 1e-3 for point in tuning.grid)
    assert min(tuning.best.shares.values()) > 0, "every head is needed"


def test_scales_of_the_heads_do_not_change_what_is_found():
    plain = tune_weights(searched({"dense": 1.0, "sparse": 1.0, "multi": 1.0}), METRIC, {"dense": 1.0})
    scaled = tune_weights(searched({"dense": 0.01, "sparse": 50.0, "multi": 1.0}), METRIC, {"dense": 1.0})
    assert [point.value for point in plain.grid] == pytest.approx([point.value for point in scaled.grid], abs=0.02)
    assert plain.best.shares == scaled.best.shares
    assert scaled.best.weights["dense"] > 100 * scaled.best.weights["sparse"]


def test_weights_that_nothing_beats_stay():
    found = searched({"dense": 1.0, "sparse": 1.0})
    best = tune_weights(found, METRIC, {"dense": 1.0}).best
    again = tune_weights(found, METRIC, best.weights)
    assert again.best == again.default
    assert again.best.weights == pytest.approx(best.weights, abs=2e-3)


def test_a_head_without_any_spread_breaks_nothing():
    tuning = tune_weights(searched({"dense": 1.0, "sparse": 0.0}), METRIC, {"dense": 1.0, "sparse": 0.3})
    assert tuning.best.value >= tuning.default.value > 0
    assert all(np.isfinite(list(point.weights.values())).all() for point in tuning.grid)


@pytest.mark.parametrize(
    ("choice", "heads", "expected"),
    [
        ("auto", ("dense",), "dense"),
        ("auto", ("dense", "sparse"), "hybrid"),
        ("auto", ("sparse",), "sparse"),
        ("hybrid", ("dense",), "dense"),
        ("rrf", ("dense", "multi"), "rrf"),
        ("multi", ("dense", "sparse"), "dense"),
        ("sparse", ("dense", "sparse"), "sparse"),
    ],
)
def test_what_decides(choice, heads, expected):
    assert deciding_head(choice, heads) == expected


def test_a_development_query_that_bm25_finds_nothing_for_is_no_mistake():
    found = searched({"dense": 1.0, "sparse": 1.0})
    corpus = dev_corpus(found.collection, ["q0", "q1"], [{"q0": [Hit("p5", 1.0), Hit("p6", 0.5)]}], 1)
    assert corpus == ("p0", "p1", "p5")
