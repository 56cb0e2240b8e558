import numpy as np
import pytest

from m3tune.negatives.threshold import LEAST_POSITIVES, calibrate, feedback, relative


@pytest.mark.parametrize(("positive", "ratio"), [(0.8, 0.95), (0.8, 1.1), (-2.0, 0.95), (-2.0, 1.2), (5.0, 0.5)])
def test_relative_is_the_rule_of_positive_minus_a_share_of_its_size(positive, ratio):
    scores = np.linspace(-6, 6, 401, dtype=np.float32)
    expected = scores > positive - (1 - ratio) * abs(positive)
    assert 0 < expected.sum() < len(scores)
    assert ((relative(scores, np.full_like(scores, positive)) > ratio) == expected).mean() > 0.995


def test_a_negative_positive_does_not_turn_the_rule_around():
    """Plain division would call -3 over -2, which is worse than the positive, a ratio of 1.5."""
    ratio = relative(np.array([-3.0, -2.0, -1.0]), np.full(3, -2.0))
    assert ratio.tolist() == [0.5, 1.0, 1.5]


def test_calibration_finds_where_positives_are_dense_enough():
    """Positives everywhere alike, candidates forty times as dense below 0.5 as above: the step is found."""
    rng = np.random.default_rng(0)
    positives = rng.uniform(0.0, 1.0, 2000)
    candidates = np.concatenate([rng.uniform(0.0, 0.5, 200_000), rng.uniform(0.5, 1.0, 5000)])
    # Below 0.5 there is one positive for 200 candidates, above it one for 5.
    found = calibrate(positives, candidates, 0.05)
    assert abs(found.score - 0.5) < 0.03, "a bin is 0.02 wide"
    assert found.suspected == np.count_nonzero(candidates >= found.score)
    assert 4500 < found.suspected < 15_000
    assert calibrate(positives, candidates, 0.001).score < 0.01
    assert calibrate(positives, candidates, 0.9) == (np.inf, 0)


def test_calibration_does_not_depend_on_the_scale_of_scores():
    rng = np.random.default_rng(1)
    positives, candidates = rng.normal(1, 1, 500), rng.normal(-1, 1, 20_000)
    found = calibrate(positives, candidates, 0.02)
    scaled = calibrate(40 * positives - 7, 40 * candidates - 7, 0.02)
    assert found.suspected == scaled.suspected > 0
    assert np.isclose(40 * found.score - 7, scaled.score)


def test_a_higher_risk_suspects_fewer():
    rng = np.random.default_rng(2)
    positives, candidates = rng.normal(1, 1, 500), rng.normal(-1, 1, 20_000)
    suspected = [calibrate(positives, candidates, risk).suspected for risk in (0.005, 0.02, 0.1, 0.5)]
    assert suspected == sorted(suspected, reverse=True)
    assert len(set(suspected)) == 4


def test_few_positives_calibrate_nothing():
    assert calibrate(np.ones(LEAST_POSITIVES - 1), np.zeros(1000), 0.02) is None
    assert calibrate(np.arange(LEAST_POSITIVES), np.zeros(1000), 0.02) is not None


def test_feedback_is_the_inner_product_with_query_plus_positive():
    rng = np.random.default_rng(3)
    query, positive, candidate = (v / np.linalg.norm(v) for v in rng.normal(size=(3, 8)))
    expected = (query + positive) @ candidate / ((query + positive) @ positive)
    found = feedback(query @ candidate, query @ positive, candidate @ positive, 1.0)
    assert np.isclose(found, expected)
