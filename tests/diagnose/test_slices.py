"""Planted differences are found, and where there is none the page is silent."""

import numpy as np
import pytest

from m3tune.data.balance import features_of
from m3tune.data.collection import Collection
from m3tune.diagnose.query_words import shared_shares, words_of_queries
from m3tune.diagnose.slices import LEVEL, Dimension, by_label, by_number, dimensions_of, slices_of
from m3tune.evaluation.significance import joint_randomisation, paired_randomisation
from m3tune.types import Judgment, Passage, Query

QUERIES = 240


def simulated(rng, queries=QUERIES):
    """Base and tuned values with nothing but noise between them, in groups of one to three, and six dimensions."""
    clusters = np.repeat(np.arange(queries), rng.integers(1, 4, queries))[:queries]
    noise = rng.normal(0, 0.15, queries)[clusters] + rng.normal(0, 0.1, queries)
    base = rng.uniform(0.3, 0.6, queries)
    ids = [f"q{i}" for i in range(queries)]
    dimensions = [by_number(f"number {i}", rng.integers(0, 1000, queries)) for i in range(5)]
    dimensions.append(by_label("label", rng.integers(0, 3, queries), ("a", "b", "c")))
    return ids, base, base + 0.05 + noise, dict(zip(ids, clusters.tolist(), strict=True)), dimensions


def slices(ids, base, tuned, clusters, dimensions):
    before, after = (dict(zip(ids, of.tolist(), strict=True)) for of in (base, tuned))
    return slices_of(dimensions, before, after, clusters, 0)


def test_a_planted_slice_is_named_and_no_other_dimension():
    rng = np.random.default_rng(0)
    ids, base, tuned, clusters, dimensions = simulated(rng)
    tuned = tuned - 0.25 * (dimensions[2].group_of == 1)
    found = slices(ids, base, tuned, clusters, dimensions)
    differing = [of for of in found if of.differs]
    assert (dimensions[2].name, dimensions[2].groups[1]) in {(of.dimension, of.group) for of in differing}
    assert {of.dimension for of in differing} == {"number 2"}
    planted = next(of for of in differing if of.group == dimensions[2].groups[1])
    assert planted.against_rest == pytest.approx(-0.25, abs=0.1)


def test_a_difference_of_all_queries_is_no_slice():
    rng = np.random.default_rng(1)
    ids, base, tuned, clusters, dimensions = simulated(rng)
    found = slices(ids, base, tuned + 0.3, clusters, dimensions)
    assert all(of.ci95[0] > 0 for of in found)  # every group gained
    assert not any(of.differs for of in found)  # none more than the rest


def test_false_alarms_stay_below_the_level():
    alarms = uncorrected = 0
    trials = 120
    for trial in range(trials):
        found = slices(*simulated(np.random.default_rng(1000 + trial), 160))
        alarms += any(of.differs for of in found)
        uncorrected += any(of.p_value <= LEVEL for of in found)
    assert alarms / trials <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / trials)
    assert uncorrected / trials > 0.3  # the correction is what keeps it silent


def test_means_intervals_and_the_rest_by_hand():
    rng = np.random.default_rng(2)
    ids, base, tuned, clusters, dimensions = simulated(rng)
    found = slices(ids, base, tuned, clusters, dimensions[:1])
    for number, of in enumerate(found):
        inside = dimensions[0].group_of == number
        difference = (tuned - base)[inside].mean()
        assert of.queries == inside.sum()
        assert (of.base, of.tuned) == (pytest.approx(base[inside].mean()), pytest.approx(tuned[inside].mean()))
        assert of.against_rest == pytest.approx(difference - (tuned - base)[~inside].mean())
        assert of.ci95[0] <= of.difference <= of.ci95[1]


def test_small_groups_are_too_few_to_tell():
    ids = [f"q{i}" for i in range(100)]
    values = np.linspace(0, 1, 100)
    group_of = np.zeros(100, dtype=np.int64)
    group_of[:19] = 1  # too few queries
    group_of[19:60] = 2  # enough queries that hang together
    clusters = {query_id: (0 if 19 <= i < 60 else i) for i, query_id in enumerate(ids)}
    found = slices(ids, values, values + 0.1, clusters, [Dimension("d", group_of, ("rest", "few", "together"))])
    told = {of.group: of.ci95 is not None for of in found}
    assert told == {"rest": True, "few": False, "together": False}
    assert all((of.p_corrected is None) == (of.ci95 is None) for of in found)


def test_no_difference_at_all():
    ids, base, _, clusters, dimensions = simulated(np.random.default_rng(3))
    found = slices(ids, base, base, clusters, dimensions)
    assert {of.ci95 for of in found} == {(0.0, 0.0)}
    assert {of.p_corrected for of in found} == {1.0}


def test_one_column_is_the_test_that_stands_alone():
    rng = np.random.default_rng(4)
    for clusters in (np.arange(60), np.arange(60) // 3, np.arange(60) // 7):  # the last one enumerates its flips
        differences = rng.normal(0.05, 0.2, 60)
        p_value, corrected = joint_randomisation(differences[:, None], clusters, 999, 7)
        assert p_value[0] == corrected[0] == paired_randomisation(differences, clusters, 999, 7)


def test_the_correction_is_the_plain_one():
    """Against maxT written out as in Westfall and Young, flip by flip."""
    rng = np.random.default_rng(5)
    contrasts, clusters = rng.normal([0.8, 0, 0.2, 0], 1, (18, 4)), np.arange(18) // 2  # 9 groups: 256 flips
    sums = np.array([contrasts[clusters == g].sum(axis=0) for g in range(9)])
    flips = np.array([[1, *(1 - 2 * (i >> b & 1) for b in range(8))] for i in range(256)])
    totals = np.abs(flips @ sums)
    scaled = totals / np.sqrt((totals**2).mean(axis=0))
    expected = [(scaled.max(axis=1) >= of - 1e-9).mean() for of in scaled[0]]
    _, corrected = joint_randomisation(contrasts, clusters, 999, 0)
    assert corrected == pytest.approx(expected)
    assert min(expected) < max(expected)


@pytest.mark.parametrize(
    ("values", "groups", "sizes"),
    [
        (range(1, 101), ("1 to 25", "26 to 50", "51 to 75", "76 to 100"), [25, 25, 25, 25]),
        ([1] * 70 + [2] * 20 + [3, 9], ("1", "2 to 9"), [70, 22]),
        ([*range(40), *[100] * 60], ("0 to 24", "25 to 39", "100"), [25, 15, 60]),
        ([5] * 50, ("5",), [50]),
        (range(1, 31), ("1 to 15", "16 to 30"), [15, 15]),
        ([1000.4, 2000.2, 2000.4], ("1,000", "2,000"), [1, 2]),
    ],
)
def test_groups_of_a_number(values, groups, sizes):
    found = by_number("n", np.array(list(values), dtype=np.float64))
    assert found.groups == groups
    assert np.bincount(found.group_of).tolist() == sizes


def test_rare_labels_are_one_group():
    index = np.repeat(np.arange(12), np.arange(12, 0, -1))
    found = by_label("set", index, [f"s{i}" for i in range(12)])
    assert found.groups == (*(f"s{i}" for i in range(7)), "all others")
    assert np.bincount(found.group_of).tolist() == [12, 11, 10, 9, 8, 7, 6, 5 + 4 + 3 + 2 + 1]
    assert by_label("set", np.array([1, 0, 1]), ("a", "b")).groups == ("b", "a")


def make_collection():
    passages = {f"p{i}": Passage(f"p{i}", "common words of every passage") for i in range(2000)}
    passages["p0"] = Passage("p0", "zebra common", title="Striped animals")
    passages["p1"] = Passage("p1", "中文 段落 zebra")
    queries = {"q0": Query("q0", "zebra striped"), "q1": Query("q1", "quagga of the common"), "q2": Query("q2", "the")}
    judgments = (Judgment("q0", "p0"), Judgment("q0", "p1"), Judgment("q1", "p2"), Judgment("q2", "p3"))
    return Collection(queries, passages, judgments)


def test_words_of_queries_against_a_plain_count():
    collection = make_collection()
    words = words_of_queries(collection, ["q0", "q1", "q2"])
    assert words.counted == 2000
    texts = [passage.full_text.lower().split() for passage in collection.passages.values()]
    for word in ("zebra", "striped", "common"):
        assert words.counts.get(word, 0) == sum(word in text for text in texts)
    assert words.rare("q0") == [("striped", 1), ("zebra", 2)]
    assert words.rare("q1") == [("quagga", 0)]
    assert [words.rarest(query_id) for query_id in ("q0", "q1", "q2")] == [1, 0, 2000]
    assert shared_shares(collection, words) == {"q0": 1.0, "q1": 0.5, "q2": 0.0}


def test_a_large_collection_is_counted_in_part(monkeypatch):
    monkeypatch.setattr("m3tune.diagnose.query_words._SEEN_PASSAGES", 300)
    words = words_of_queries(make_collection(), ["q1"])
    assert words.counted == 286  # every seventh
    assert words.counts["common"] == 286


def test_every_way_to_divide_and_none_with_one_group():
    collection = make_collection()
    features = features_of(collection, list(collection.queries))
    rarest, shared = np.array([1.0, 0.0, 2000.0]), np.array([1.0, 0.5, 0.0])
    names = [of.name for of in dimensions_of(features, rarest, shared, np.array([True, False, False]))]
    assert names == [
        "Characters of the query",
        "Characters of its relevant passages",
        "Number of its relevant passages",
        "Passages that have its rarest word",
        "Percent of its words that a relevant passage has",
        "Relevant passage",
    ]  # one script and no sets
    assert "Relevant passage" not in [of.name for of in dimensions_of(features, rarest, shared, None)]
