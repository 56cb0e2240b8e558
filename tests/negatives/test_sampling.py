import numpy as np
import pytest

from m3tune.config import MineConfig
from m3tune.negatives.sampling import best_keys, keys, uniform_numbers


def test_the_largest_keys_of_each_query_win():
    rng = np.random.default_rng(0)
    query = np.sort(rng.integers(0, 7, 200))
    key, eligible, wanted = rng.integers(0, 20, 200).astype(float), rng.random(200) < 0.6, rng.integers(0, 9, 7)
    chosen = best_keys(query, key, eligible, wanted)
    for row in range(7):
        own = [i for i in np.flatnonzero((query == row) & eligible)]
        expected = sorted(own, key=lambda i: (-key[i], i))[: wanted[row]]
        assert np.flatnonzero(chosen & (query == row)).tolist() == sorted(expected)
    assert 0 < chosen.sum() < eligible.sum()


def test_a_querys_numbers_depend_on_seed_and_id_alone():
    query = np.repeat([0, 1, 2], 5)
    numbers = uniform_numbers(3, ["a", "b", "c"], query, "sample").reshape(3, 5)
    turned = uniform_numbers(3, ["c", "a", "b"], query, "sample").reshape(3, 5)
    assert np.array_equal(turned, numbers[[2, 0, 1]])
    assert not np.array_equal(numbers[0], numbers[1])
    assert not np.array_equal(numbers, uniform_numbers(4, ["a", "b", "c"], query, "sample").reshape(3, 5))
    # The same on every machine: NumPy promises the stream of its generators.
    assert np.round(uniform_numbers(0, ["q1"], np.zeros(2, np.int64), "sample"), 6).tolist() == EXPECTED


EXPECTED = [0.651382, 0.679875]


def test_around_draws_by_simans_probabilities():
    """p is proportional to exp(-a (s - s+ - b)^2): the share of first draws, over many queries."""
    scores, positive, a, b = np.array([0.2, 0.5, 0.7, 0.9]), 0.6, 30.0, 0.05
    weights = np.exp(-a * (scores - positive - b) ** 2)
    config = MineConfig(sample="around", around_decay=a, around_offset=b)
    draws = 20_000
    query, every = np.repeat(np.arange(draws), 4), np.tile(scores, draws)
    numbers = np.random.default_rng(0).random(4 * draws)
    key = keys(config, every, np.full_like(every, positive), numbers, np.ones(4 * draws, bool))
    chosen = best_keys(query, key, np.ones(4 * draws, bool), np.ones(draws, np.int64)).reshape(draws, 4).mean(axis=0)
    assert chosen == pytest.approx(weights / weights.sum(), abs=0.012)


def test_around_has_a_width_of_its_own_that_follows_the_scores():
    rng = np.random.default_rng(1)
    scores, numbers, every = rng.normal(size=500), rng.random(500), np.ones(500, bool)
    config = MineConfig(sample="around")
    plain = keys(config, scores, np.zeros(500), numbers, every)
    assert np.allclose(plain, keys(config, 100 * scores, np.zeros(500), numbers, every))
    assert np.isfinite(keys(config, np.ones(5), np.ones(5), np.array([0, 0.5, 1, 0.2, 0.3]), np.ones(5, bool))).all()


def test_top_takes_the_best_scores_and_uniform_does_not_look_at_them():
    scores, numbers = np.array([0.1, 0.9, 0.5]), np.array([0.3, 0.1, 0.2])
    arguments = (scores, np.zeros(3), numbers, np.ones(3, bool))
    assert keys(MineConfig(sample="top"), *arguments).tolist() == scores.tolist()
    assert keys(MineConfig(sample="uniform"), *arguments).tolist() == numbers.tolist()
