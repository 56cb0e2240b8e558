"""From where on the doctor names an illness, and what it must not take for one; the formulas behind it."""

from dataclasses import replace

import numpy as np
import pytest
from patients import ILL, QUERIES, W, codes, log, positives_of_others, scored, suspected, trained, verdict, without_gain

from m3tune.config import MineConfig
from m3tune.diagnose.doctor.case import Moved, Sample
from m3tune.diagnose.doctor.likeness import separability
from m3tune.diagnose.doctor.pressure import gradient_weights
from m3tune.diagnose.doctor.registry import case_findings
from m3tune.diagnose.doctor.vectors import skewness
from m3tune.types import GIVEN, MINED, Finding


@pytest.mark.parametrize(("moved", "expected"), [(0.005, []), (0.3, ["high-learning-rate"])])
def test_a_loss_that_wavers_while_nothing_moves_is_no_high_rate(moved, expected):
    wavering = log([1.0, 1.2, 1.3, 1.4, 1.5, 1.3, 1.4, 1.5, 1.4, 1.4], [0.61, 0.62, 0.62, 0.62])
    assert codes(replace(W, log=wavering, moved=Moved(moved, 0.9))) == expected


def test_a_loss_near_zero_that_doubles_is_no_high_rate():
    assert codes(replace(W, log=log([0.05, *([0.1] * 9)], [0.61, 0.62, 0.62, 0.62]), moved=Moved(0.3, 0.9))) == []


def test_a_longer_or_shorter_run_is_asked_for_as_the_recipe_asks():
    (steps,) = case_findings(trained(ILL["few-steps"], max_steps=40))
    assert steps.fix.endswith("train.max_steps=80")
    (epochs,) = case_findings(ILL["many-epochs"])
    assert "train.epochs=1.5" in epochs.fix
    logged = replace(ILL["few-steps"], log=[*ILL["few-steps"].log, {"step": 40, "epoch": 6.0}])
    (auto,) = case_findings(trained(logged, epochs="auto"))
    assert auto.fix.endswith("train.epochs=12")


@pytest.mark.parametrize(
    ("why", "cosine", "named"), [("forgets", 0.49, True), ("forgets", 0.8, False), ("noise", 0.49, False)]
)
def test_what_was_learned_at_the_price_of_what_was_known_is_a_high_rate(why, cosine, named):
    selection = {**W.selection, "chosen": "base", "why_base": why}
    case = replace(W, selection=selection, verdict=verdict("no worse", 0.0), moved=Moved(0.045, cosine))
    assert ("high-learning-rate" in codes(case)) == named
    if named:
        assert case_findings(case)[0].code == "high-learning-rate"
        assert "a cosine of 0.49" in case_findings(case)[0].what


def test_a_loss_at_chance_with_weights_far_away_is_a_high_rate():
    flat = log([6.0, 5.5, *([5.07] * 8)], [0.61, 0.62, 0.62, 0.62])  # log(32 queries x 5 passages) = 5.08
    assert codes(replace(W, log=flat, moved=Moved(0.5, 0.1))) == ["high-learning-rate"]
    assert codes(replace(W, log=flat)) == []


@pytest.mark.parametrize(
    ("losses", "cosine", "word", "expected"),
    [
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.49, "no worse", ["high-learning-rate"]),
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.93, "no worse", []),
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.49, "better", []),
        ([0.41, 0.45, 0.42, 0.44, 0.39, 0.37, 0.1, 0.15, 0.1], 0.49, "no worse", []),
    ],
)
def test_a_loss_that_rises_before_it_falls_and_queries_that_end_elsewhere_are_a_high_rate(
    losses, cosine, word, expected
):
    ill = replace(W, log=log(losses, [0.57, 0.63, 0.62, 0.63]), moved=Moved(0.049, cosine), verdict=verdict(word, 0.0))
    found = [f for f in case_findings(ill) if f.code == "high-learning-rate"]
    assert [f.code for f in found] == expected
    assert all(f.severity == "error" for f in found)


def test_a_first_evaluation_below_the_base_that_comes_back_is_no_high_rate():
    back = log([2.0, *([0.9] * 9)], [0.3, 0.6, 0.7, 0.73])
    assert "high-learning-rate" not in codes(replace(W, log=back))


def test_labels_that_only_words_cannot_confirm_are_not_shuffled():
    cross_lingual = scored(W, "bm25", np.ones_like(W.sample.positive), 0.0)
    assert "shuffled-labels" not in codes(without_gain(cross_lingual))
    nobody = scored(cross_lingual, "base", np.ones_like(W.sample.positive), 0.0)
    assert "shuffled-labels" in codes(without_gain(nobody))
    assert "shuffled-labels" not in codes(nobody), "labels that can be learned and help on the test are labels"


def test_the_share_of_shuffled_labels_is_estimated():
    half = positives_of_others(W).sample
    positive = np.where((np.arange(QUERIES) % 2 == 0)[:, None], half.positive, W.sample.positive)
    case = without_gain(replace(W, sample=replace(W.sample, positive=positive, relevant=positive)))
    (finding,) = [f for f in case_findings(case) if f.code == "shuffled-labels"]
    assert finding.evidence["shuffled"] == pytest.approx(0.5, abs=0.1)


def test_hard_negatives_below_the_positive_are_not_false():
    hard = scored(W, "base", W.sample.given, 0.6)
    assert "false-negatives" not in codes(hard)


def test_a_negative_just_below_the_positive_is_suspected():
    near = scored(W, "base", W.sample.given, 0.78)  # the positives are around 0.8, the passages of others around 0
    (finding,) = [f for f in case_findings(near) if f.code == "false-negatives"]
    assert finding.evidence["estimated_share"] > 0.8


@pytest.mark.parametrize(
    ("threshold", "source", "suspected"),
    [
        ("auto", MINED, False),
        (0.95, MINED, False),
        (1.5, MINED, True),
        ("none", MINED, True),
        ("auto", GIVEN, True),
    ],
)
def test_what_was_mined_by_a_threshold_is_near_because_it_was_sought_there(threshold, source, suspected):
    ill = ILL["false-negatives"]
    negatives = tuple(negative._replace(source=source) for negative in ill.collection.negatives)
    mining = ill.recipe.model_copy(update={"mine": MineConfig(threshold=threshold)})
    case = replace(ill, recipe=mining, collection=replace(ill.collection, negatives=negatives))
    assert ("false-negatives" in codes(case)) == suspected


def test_a_low_temperature_is_no_finding_where_suspects_take_little_of_the_gradient():
    cold = trained(suspected(W, 8), temperature=0.01)
    crowded = scored(cold, "base", W.sample.given, 1.2)  # every negative is pushed as hard as the suspects
    assert "low-temperature" in codes(cold)
    assert "low-temperature" not in codes(crowded)


def test_of_few_negatives_a_share_that_may_be_chance_is_a_note():
    given = W.sample.given.copy()
    given[30:] = False
    given &= np.cumsum(given, axis=1) == 1  # one for each of thirty queries
    few = replace(W, sample=replace(W.sample, given=given))
    near = scored(few, "base", given & (np.arange(QUERIES) < 5)[:, None], 1.5)
    (finding,) = [f for f in case_findings(near) if f.code == "false-negatives"]
    assert (finding.evidence["count"], finding.evidence["of"]) == (5, 30)
    assert finding.severity == "note"
    assert finding.evidence["at_least"] < 0.1 < finding.evidence["estimated_share"]


def test_a_base_that_ranks_at_random_says_nothing_about_given_negatives():
    noise = np.random.default_rng(3).normal(size=W.sample.positive.shape)
    assert "false-negatives" not in codes(scored(W, "base", np.ones_like(W.sample.positive), noise))


def test_findings_of_the_data_that_touch_little_are_notes_and_those_of_the_split_are_replaced():
    little = Finding("duplicate-queries", "error", "q", "2 of 300", "fix", (), {"count": 2, "of": 300})
    much = replace(little, code="positive-template", evidence={"count": 90, "of": 100})
    leaked = replace(little, code="leaked-query", evidence={"count": 90, "of": 100})
    few = replace(little, code="few-queries", evidence={"count": 40})
    found = case_findings(replace(ILL["high-learning-rate"], data_findings=(little, much, leaked, few)))
    assert [f.code for f in found] == ["positive-template", "high-learning-rate", "duplicate-queries"]
    assert found[-1].severity == "note"


def test_float16_scores_beyond_its_range_are_found():
    large = log([2.0, *([0.9] * 9)], [0.61, 0.62, 0.62, 0.62], score_dense_positive=40_000.0)
    assert codes(trained(replace(W, log=large), precision="float16")) == ["not-finite"]
    assert codes(replace(W, log=large)) == []


def test_a_case_of_a_model_and_data_needs_no_run():
    bare = replace(
        W,
        is_run=False,
        log=(),
        selection={},
        verdict={},
        measured={},
        settings={},
        moved=None,
        reading=None,
        balance=(),
    )
    assert codes(bare) == []
    (finding,) = case_findings(replace(bare, sample=ILL["false-negatives"].sample))
    assert finding.code == "false-negatives"
    assert "m3tune run recipe.toml --set train.false_negative_margin" in finding.fix


def test_weights_are_those_of_the_gradient_of_infonce():
    generator = np.random.default_rng(1)
    positive, given = np.zeros((2, 3, 7), dtype=bool)
    positive[[0, 1, 2], [0, 1, 2]] = True
    given[[0, 0, 1, 2], [3, 4, 5, 6]] = True
    scores = generator.normal(size=(3, 7))
    small = Sample(("a", "b", "c"), 3, tuple("1234567"), positive, given, positive, {"base": scores}, np.zeros((3, 2)))
    weights = gradient_weights(small, 0.5)
    for row in range(3):  # -log(e^p / sum of all): the gradient at a negative's logit is its softmax
        powers = np.exp(scores[row] / 0.5)
        expected = powers / powers.sum()
        expected[row] = 0
        np.testing.assert_allclose(weights[row], expected, rtol=1e-9)


def test_skewness_is_that_of_all_passages():
    from scipy import stats

    values = [9, 4, 1, 1, 0, 0, 0]
    counts = {str(i): n for i, n in enumerate(values) if n}
    assert skewness(counts, 7) == pytest.approx(stats.skew(values))
    assert skewness({}, 7) == 0


def test_a_classifier_tells_apart_what_differs_and_nothing_else():
    generator = np.random.default_rng(2)
    same = [separability(generator.normal(size=(53, 40)), generator.normal(size=(37, 40))) for _ in range(20)]
    assert 0.4 < np.mean(same) < 0.6
    assert max(same) < 0.8
    shifted = generator.normal(size=(37, 40)) + np.eye(40)[0] * 4
    assert separability(generator.normal(size=(53, 40)), shifted) > 0.9
