"""Metrics equal trec_eval's own, in our order of ties, over all judged queries."""

import math

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.errors import RecipeError
from m3tune.evaluation.metrics import evaluate_run, mean, parse_metrics
from m3tune.types import Hit

TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG@3": "ndcg_cut_3",
    "RR": "recip_rank",
    "AP@100": "map_cut_100",
    "Success@1": "success_1",
    "Recall@5": "recall_5",
    "P@5": "P_5",
}

passages = st.sampled_from([f"d{i:02}" for i in range(15)])
rankings = st.lists(passages, unique=True, max_size=15)
judgments = st.dictionaries(passages, st.integers(0, 3), min_size=1)


def hits(*passage_ids, score=1.0):
    return [Hit(passage_id, score) for passage_id in passage_ids]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(rankings, judgments), min_size=1, max_size=5))
def test_equal_to_trec_eval(queries):
    run = {f"q{i}": [Hit(p, 1.0 / (n + 1)) for n, p in enumerate(ranking)] for i, (ranking, _) in enumerate(queries)}
    qrels = {f"q{i}": grades for i, (_, grades) in enumerate(queries)}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(TREC_NAMES.values()))
    expected = evaluator.evaluate({q: {h.passage_id: h.score for h in ranked} for q, ranked in run.items()})
    ours = evaluate_run(run, qrels, list(TREC_NAMES))
    for name, trec_name in TREC_NAMES.items():
        for query_id in qrels:
            theirs = expected.get(query_id, {}).get(trec_name, 0.0)
            assert ours[name][query_id] == pytest.approx(theirs, abs=1e-9), (name, query_id)


def test_graded_ndcg_by_hand():
    qrels = {"q": {"a": 2, "b": 1, "c": 0}}
    ndcg = evaluate_run({"q": hits("c", "b", "a")}, qrels, ["nDCG@10"])["nDCG@10"]["q"]
    assert ndcg == pytest.approx((1 / math.log2(3) + 2 / math.log2(4)) / (2 + 1 / math.log2(3)))


def test_ties_keep_the_order_of_the_run():
    qrels = {"q": {"a": 1}, "r": {"z": 1}}
    run = {"q": hits("a", "z"), "r": hits("a", "z")}
    result = evaluate_run(run, qrels, ["RR@10", "Success@1", "nDCG@10"])
    assert result["RR@10"] == {"q": 1.0, "r": 0.5}
    assert result["Success@1"] == {"q": 1.0, "r": 0.0}
    # Not vacuous: with the run's own scores trec_eval puts z first.
    plain = pytrec_eval.RelevanceEvaluator(qrels, {"success_1"}).evaluate({q: dict(h) for q, h in run.items()})
    assert plain["q"]["success_1"] == 0.0


def test_scores_that_rise_down_the_ranking_do_not_matter():
    run = {"q": [Hit("a", 0.1), Hit("b", 0.9)]}
    assert evaluate_run(run, {"q": {"a": 1}}, ["RR@10"])["RR@10"]["q"] == 1.0


def test_every_judged_query_counts_and_no_other():
    qrels = {"found": {"a": 1}, "empty": {"a": 1}, "absent": {"a": 1}, "no relevant": {"a": 0}, "no judgment": {}}
    run = {"found": hits("a"), "empty": [], "no relevant": hits("a"), "no judgment": hits("a"), "unjudged": hits("a")}
    names = ["nDCG@10", "RR@10", "AP@100", "Success@1", "Recall@100"]
    result = evaluate_run(run, qrels, names)
    for name in names:
        assert list(result[name]) == list(qrels)
        assert result[name] == {q: float(q == "found") for q in qrels}
    assert mean(result) == dict.fromkeys(names, 0.2)
    assert evaluate_run({}, qrels, ["nDCG@10"])["nDCG@10"] == dict.fromkeys(qrels, 0.0)


def test_grades_of_zero_and_below_are_not_relevant():
    qrels = {"q": {"a": -1, "b": 0, "c": 1}}
    result = evaluate_run({"q": hits("a", "b", "c")}, qrels, ["nDCG@10", "RR@10", "P@2", "R@3"])
    assert {name: values["q"] for name, values in result.items()} == {
        "nDCG@10": pytest.approx(1 / math.log2(4)),
        "RR@10": pytest.approx(1 / 3),
        "P@2": 0.0,
        "R@3": 1.0,
    }


def test_results_stand_under_the_names_given():
    result = evaluate_run({"q": hits("a")}, {"q": {"a": 1}}, ["Recall@5", "R@5", "MRR@5"])
    assert result == {"Recall@5": {"q": 1.0}, "R@5": {"q": 1.0}, "MRR@5": {"q": 1.0}}


@pytest.mark.parametrize(
    "name", ["nDCG@10", "RR@10", "AP@100", "Success@1", "R@100", "P(rel=2)@5", "nDCG(gains={1:3,2:7})@10"]
)
def test_canonical_names_come_back(name):
    assert [str(measure) for measure in parse_metrics([name])] == [name]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ndcg@10", "did you mean 'nDCG@10'"),
        ("recall@5", "did you mean 'Recall@5'"),
        ("Sucess@1", "did you mean 'Success@1'"),
        ("hit rate", "such as nDCG@10"),
        ("", "such as nDCG@10"),
        ("P", "cutoff"),
        ("nDCG@0", "no rank"),
        ("nDCG@1.5", "cutoff=1.5"),
        ("P(foo=1)@5", "foo"),
        ("P(rel=__import__('os'))@5", "malformed"),
        ("P(2)@5", "key=value"),
        ("RBP(p=0.8)", "not installed"),
    ],
)
def test_bad_names_are_explained(name, part):
    with pytest.raises(RecipeError, match="metric") as error:
        parse_metrics([name])
    assert part in str(error.value)
    assert "such as nDCG@10" in str(error.value)
