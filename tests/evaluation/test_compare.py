"""Comparisons on numbers worked by hand."""

import pytest

from m3tune.config import EvaluateConfig
from m3tune.data.groups import connected_groups
from m3tune.errors import ArtifactError
from m3tune.evaluation.compare import (
    Comparison,
    MetricComparison,
    QueryChange,
    RankChange,
    compare,
    document_groups,
    gained_and_lost,
    paired_differences,
    rank_changes,
    verdict,
)
from m3tune.types import Hit

CONFIG = EvaluateConfig(metrics=("RR@10",), main_metric="nDCG@10", resamples=1000)


def values(*numbers):
    return {f"q{i}": number for i, number in enumerate(numbers)}


def test_compare_by_hand():
    base = {"nDCG@10": values(0.0, 0.5, 0.2, 0.1, 0.3, 0.4, 0.0, 1.0), "RR@10": values(*[0.5] * 8)}
    tuned = {"nDCG@10": values(0.5, 0.9, 0.7, 0.2, 0.9, 0.9, 0.0, 0.9), "RR@10": values(*[0.5] * 8)}
    result = compare(base, tuned, {f"q{i}": i for i in range(8)}, CONFIG)
    assert [item.metric for item in result.metrics] == ["RR@10", "nDCG@10"]
    rr, ndcg = result.metrics
    assert ndcg is result.main
    assert (ndcg.base, ndcg.tuned, ndcg.difference) == pytest.approx((2.5 / 8, 5.0 / 8, 2.5 / 8))
    assert (ndcg.wins, ndcg.ties, ndcg.losses, ndcg.queries) == (6, 1, 1, 8)
    # The sum is 2.5, the largest of any flip 2.7. Only turning one of the two tenths stays at 2.5 or above: 3 flips,
    # times 2 for the query without a change, times 2 for the mirror images.
    assert ndcg.p_value == pytest.approx(12 / 256)
    assert 0 < ndcg.ci95[0] < ndcg.difference < ndcg.ci95[1]
    assert (rr.difference, rr.ci95, rr.p_value, rr.wins, rr.ties, rr.losses) == (0.0, (0.0, 0.0), 1.0, 0, 8, 0)


def test_groups_widen_the_interval():
    base = {"nDCG@10": values(*[0.0] * 24)}
    tuned = {"nDCG@10": values(*([0.5] * 12 + [-0.1] * 6 + [0.2] * 6))}
    config = EvaluateConfig(metrics=("nDCG@10",))
    alone = compare(base, tuned, {f"q{i}": i for i in range(24)}, config).main
    grouped = compare(base, tuned, {f"q{i}": i // 6 for i in range(24)}, config).main
    assert alone.difference == grouped.difference
    assert alone.ci95[0] > 0
    assert grouped.ci95 == (-1.0, 1.0)  # four documents
    assert grouped.p_value > alone.p_value


def test_different_queries_are_an_error():
    with pytest.raises(ArtifactError, match=r"different queries.*'q2'"):
        compare({"nDCG@10": values(0, 1)}, {"nDCG@10": values(0, 1, 1)}, {}, EvaluateConfig(metrics=()))


def test_a_missing_metric_is_an_error():
    with pytest.raises(ArtifactError, match=r"the tuned model was not measured with nDCG@10(.|\n)*it has RR@10"):
        compare({"nDCG@10": values(0)}, {"RR@10": values(0)}, {"q0": 0}, EvaluateConfig(metrics=()))


def test_document_groups():
    qrels = {
        "a": {"p1": 1},
        "b": {"p2": 1, "p1": 0},  # not relevant, so no bond with a
        "c": {"p1 copy": 2, "p3": 1},
        "d": {"p3": 1},
        "e": {"p4": 0},
    }
    assert document_groups(qrels, {"p1": "p1", "p1 copy": "p1"}) == {"a": 0, "b": 1, "c": 0, "d": 0, "e": 2}


def test_connected_groups_join_late():
    keys = {"a": [1], "b": [2], "c": [1, 2], "d": [3], "e": [], "f": []}
    assert connected_groups(keys) == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2, "f": 3}


def test_a_long_chain_is_one_group():
    keys = {str(i): [i, i + 1] for i in range(5000)}
    assert set(connected_groups(keys).values()) == {0}


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.001, 0.1), "better"),
        ((-0.1, -0.001), "worse"),
        ((-0.01, 0.1), "no worse"),
        ((0.0, 0.0), "no worse"),
        ((-0.011, 0.1), "inconclusive"),
        ((-1.0, 1.0), "inconclusive"),
        ((-0.005, -0.001), "worse"),
    ],
)
def test_verdict(interval, word):
    item = MetricComparison("nDCG@10", 0.5, 0.5, 0.0, interval, 0.5, 1, 1, 1, 3)
    assert verdict(Comparison((item,), "nDCG@10"), no_worse_margin=0.01) == word


def test_rank_changes():
    base = {"q": [Hit("x", 3), Hit("a", 2), Hit("b", 1)], "r": []}
    tuned = {"q": [Hit("b", 3), Hit("a", 2)], "r": [Hit("x", 2), Hit("c", 1)], "s": [Hit("x", 2), Hit("y", 1)]}
    qrels = {"q": {"a": 1, "b": 2, "x": 0}, "r": {"c": 1}, "s": {"y": 1}}
    expected = [RankChange("q", 2, 1), RankChange("r", None, 2), RankChange("s", None, 2)]
    assert rank_changes(base, tuned, qrels, depth=2) == expected
    assert rank_changes(base, tuned, qrels, depth=1)[1:] == [RankChange("r", None, None), RankChange("s", None, None)]


def test_gained_and_lost():
    gained, lost = gained_and_lost(values(0.5, 0.1, 0.0, 1.0, 0.3), values(0.5, 0.6, 0.5, 0.0, 0.2), n=2)
    assert gained == [QueryChange("q1", 0.1, 0.6), QueryChange("q2", 0.0, 0.5)]
    assert lost == [QueryChange("q3", 1.0, 0.0), QueryChange("q4", 0.3, 0.2)]
    assert lost[0].difference == -1.0
    assert gained_and_lost(values(1.0), values(1.0)) == ([], [])


def test_paired_differences_go_by_id():
    differences, groups = paired_differences({"a": 0.25, "b": 0.5}, {"b": 1.0, "a": 0.0}, {"b": 7, "a": 3})
    assert differences.tolist() == [-0.25, 0.5]
    assert groups.tolist() == [3, 7]
