import numpy as np
import pytest

from m3tune.config import DataConfig
from m3tune.data.balance import balance_table, features_of, imbalance
from m3tune.data.collection import Collection
from m3tune.data.similar import exact_copies
from m3tune.data.split import split_queries
from m3tune.types import Judgment, Passage, Query, QuerySet


def collection(count: int = 400) -> Collection:
    """Every fourth question is Chinese and of the set "zh"; question i has i % 40 + 5 letters."""
    queries = {f"q{i}": Query(f"q{i}", ("問" if i % 4 == 0 else "a") * (i % 40 + 1) + f"{i:04}") for i in range(count)}
    return Collection(
        queries,
        {f"p{i}": Passage(f"p{i}", f"passage {i}") for i in range(count + 1)},
        tuple(Judgment(f"q{i}", f"p{p}") for i in range(count) for p in ([i] if i % 10 else [i, i + 1])),
        sets={"zh": QuerySet(tuple(f"q{i}" for i in range(0, count, 4)))},
    )


def test_features_are_lengths_positives_script_and_set():
    features = features_of(collection(), ["q0", "q1", "q10"])
    assert features.numbers["query length"].tolist() == [5, 6, 15]
    assert features.numbers["positives"].tolist() == [2, 1, 2]
    index, names = features.labels["script"]
    assert [names[i] for i in index] == ["Han", "Latin", "Latin"]
    index, names = features.labels["set"]
    assert [names[i] for i in index] == ["zh", "none", "none"]


def test_imbalance_is_the_largest_distance():
    features = features_of(collection(), [f"q{i}" for i in range(400)])
    alike = np.arange(400) % 80 < 40
    assert imbalance(features, alike) == pytest.approx(0.1)  # 200 of 400 in blocks of 40: the numbers of passages
    only_chinese = np.arange(400) % 4 == 0
    assert imbalance(features, only_chinese) == pytest.approx(1)
    short = np.arange(400) % 40 < 20
    assert imbalance(features, short) == pytest.approx(1)
    assert imbalance(features, np.ones(400, bool)) == 1


def test_table_finds_the_feature_in_which_a_side_differs():
    ids = [f"q{i}" for i in range(400)]
    features = features_of(collection(), ids)
    # Test is long questions of both scripts; dev is like train.
    test = frozenset(q for i, q in enumerate(ids) if i % 40 >= 32)
    dev = frozenset(q for i, q in enumerate(ids) if i % 40 < 32 and i // 40 in (0, 5))
    sides = {"train": frozenset(ids) - test - dev, "dev": dev, "test": test}
    table = {row["feature"]: row for row in balance_table(features, sides)}
    assert table["query length"]["tests"]["test"]["p_value"] < 1e-9
    assert table["query length"]["tests"]["dev"]["p_value"] > 0.5
    assert table["script"]["tests"]["test"]["p_value"] > 0.5
    assert table["script"]["train"] == {"Latin": 0.75, "Han": 0.25}
    assert table["query length"]["test"]["median"] > table["query length"]["train"]["median"] + 10


def test_a_side_without_queries_is_left_out():
    features = features_of(collection(), ["q0", "q1"])
    (row, *_) = balance_table(features, {"train": frozenset({"q0"}), "dev": frozenset(), "test": frozenset({"q1"})})
    assert set(row) == {"feature", "train", "test", "tests"}
    assert set(row["tests"]) == {"test"}


def test_a_carved_side_is_more_like_the_rest_than_chance_makes_it():
    data = collection()
    judged = list(data.queries)
    features = features_of(data, judged)
    distances, by_chance = [], []
    for seed in range(8):
        config = DataConfig(path="unused", test=0.15, dev=0, seed=seed)
        split, _ = split_queries(data, exact_copies(data), config)
        distances.append(imbalance(features, np.isin(judged, split.test)))
        drawn = np.random.default_rng(seed).permutation(len(judged))[: len(split.test)]
        by_chance.append(imbalance(features, np.isin(np.arange(len(judged)), drawn)))
    assert np.mean(distances) < 0.75 * np.mean(by_chance)
