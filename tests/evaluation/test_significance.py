"""The interval and the p-value keep their promise on simulated data, clustered data included."""

import itertools

import numpy as np
import pytest

from m3tune.evaluation.significance import paired_bootstrap, paired_randomisation, queries_needed

NDCG = np.array([0.0] + [1 / np.log2(rank + 1) for rank in range(1, 11)])
TRIALS = 500


def null_differences(rng, queries):
    """Two equally good systems: six in ten queries unchanged, the rest two independent nDCG values."""
    changed = rng.random(queries) < 0.4
    return np.where(changed, rng.choice(NDCG, queries) - rng.choice(NDCG, queries), 0.0)


def clustered_null(rng, queries, shared=0.8):
    """Groups of one to eight queries, most of which get the difference of their group."""
    sizes = rng.integers(1, 9, queries)
    clusters = np.repeat(np.arange(queries), sizes)[:queries]
    common, own = null_differences(rng, queries)[clusters], null_differences(rng, queries)
    return np.where(rng.random(queries) < shared, common, own), clusters


def excludes_zero(interval):
    return interval[0] > 0 or interval[1] < 0


def test_interval_of_independent_queries_excludes_zero_in_five_percent():
    rng = np.random.default_rng(0)
    wrong = 0
    for trial in range(TRIALS):
        differences = null_differences(rng, 120)
        wrong += excludes_zero(paired_bootstrap(differences, np.arange(120), 999, trial))
    assert 0.03 <= wrong / TRIALS <= 0.07


def test_interval_of_groups_excludes_zero_in_five_percent_and_needs_the_groups():
    rng = np.random.default_rng(1)
    wrong = wrong_without_groups = 0
    for trial in range(TRIALS):
        differences, clusters = clustered_null(rng, 120)
        wrong += excludes_zero(paired_bootstrap(differences, clusters, 999, trial))
        wrong_without_groups += excludes_zero(paired_bootstrap(differences, np.arange(120), 999, trial))
    assert 0.03 <= wrong / TRIALS <= 0.07
    assert wrong_without_groups / TRIALS > 0.15


# Shares of queries whose relevant passage stands first to tenth, and nowhere there: many values are 1 or 0.
RANKED = [0.40, 0.13, 0.08, 0.05, 0.04, 0.03, 0.02, 0.02, 0.02, 0.01, 0.20]


def ranked_null(rng, queries, most_in_group):
    """Ranks drawn anew for four in ten groups; four in five queries of a group share what becomes of it."""
    gains = NDCG[[*range(1, 11), 0]]
    clusters = np.repeat(np.arange(queries), rng.integers(1, most_in_group + 1, queries))[:queries]
    drawn = rng.choice(gains, (4, queries), p=RANKED)
    common, own = (np.where(rng.random(queries) < 0.4, a - b, 0.0) for a, b in (drawn[:2], drawn[2:]))
    return np.where(rng.random(queries) < 0.8, common[clusters], own), clusters


@pytest.mark.parametrize(
    ("queries", "most_in_group", "lowest"),
    [(100, 1, 0.03), (100, 5, 0.03), (300, 5, 0.03), (30, 1, 0.0), (30, 5, 0.0)],  # of the last two, few groups differ
)
def test_interval_of_ranks_with_many_ties_excludes_zero_in_five_percent(queries, most_in_group, lowest):
    rng = np.random.default_rng(12)
    drawn = [ranked_null(rng, queries, most_in_group) for _ in range(TRIALS)]
    wrong = [excludes_zero(paired_bootstrap(*of, 499, trial)) for trial, of in enumerate(drawn)]
    assert lowest <= np.mean(wrong) <= 0.07
    values = np.concatenate([differences for differences, _ in drawn])
    assert 0.5 < np.mean(values == 0) < 0.9
    if most_in_group > 1:
        ignored = [excludes_zero(paired_bootstrap(of, np.arange(queries), 499, t)) for t, (of, _) in enumerate(drawn)]
        assert np.mean(ignored) > 0.12


def test_interval_covers_a_true_difference_of_skewed_data():
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(TRIALS):  # one query in five gains, by half on average
        differences = np.where(rng.random(200) < 0.2, rng.choice([0.25, 0.5, 0.75], 200), 0.0)
        low, high = paired_bootstrap(differences, np.arange(200), 999, trial)
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / TRIALS <= 0.98


def test_p_is_uniform_under_the_null_and_small_under_a_shift():
    rng = np.random.default_rng(3)
    null, shifted = [], []
    for trial in range(300):
        differences, clusters = clustered_null(rng, 80)
        null.append(paired_randomisation(differences, clusters, 499, trial))
        shifted.append(paired_randomisation(differences + 0.5, clusters, 499, trial))
    for quantile in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(null) <= quantile) == pytest.approx(quantile, abs=0.08)
    assert np.median(shifted) < 0.01


@pytest.mark.parametrize("seed", range(20))
def test_interval_excludes_zero_exactly_where_p_is_small(seed):
    rng = np.random.default_rng(seed)
    differences = rng.choice([-0.5, 0.0, 0.5, 1.0], 25)  # coarse, so that flips tie with the observed mean
    clusters = rng.integers(0, rng.integers(4, 25), 25)
    for level in (0.8, 0.95):
        interval = paired_bootstrap(differences, clusters, 999, seed, level)
        assert excludes_zero(interval) == (paired_randomisation(differences, clusters, 999, seed) <= 1 - level + 1e-12)


def brute_force_p(differences, clusters):
    groups = sorted(set(clusters))
    observed = abs(np.mean(differences))
    extreme = 0
    for signs in itertools.product([1, -1], repeat=len(groups)):
        flipped = differences * np.array([signs[groups.index(c)] for c in clusters])
        extreme += abs(flipped.mean()) >= observed - 1e-12
    return extreme / 2 ** len(groups)


@pytest.mark.parametrize("groups", [1, 2, 5, 8])
def test_enumeration_equals_brute_force(groups):
    rng = np.random.default_rng(groups)
    clusters = np.concatenate([np.arange(groups), rng.integers(0, groups, 7)])
    differences = rng.choice([-0.4, 0.1, 0.3, 0.6], len(clusters))
    expected = brute_force_p(differences, clusters)
    assert paired_randomisation(differences, clusters, 2**groups, seed=0) == pytest.approx(expected)


def test_interval_holds_what_the_exact_test_does_not_reject():
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(8), [1, 2, 1, 3, 1, 1, 2, 4])
    differences = rng.normal(0.2, 0.3, len(clusters))
    low, high = paired_bootstrap(differences, clusters, 1000, seed=0)
    for inside in (low + 1e-6, (low + high) / 2, high - 1e-6):
        assert brute_force_p(differences - inside, clusters) > 0.05
    for outside in (low - 1e-6, high + 1e-6):
        assert brute_force_p(differences - outside, clusters) <= 0.05


def test_drawn_flips_agree_with_enumerated_ones():
    rng = np.random.default_rng(6)
    differences = rng.normal(0.15, 0.3, 14)
    clusters = np.arange(14)
    exact = paired_bootstrap(differences, clusters, 2**14, seed=0)
    drawn = paired_bootstrap(differences, clusters, 2**13 - 1, seed=0)
    assert exact != drawn
    assert drawn == pytest.approx(exact, abs=0.01)
    p_exact, p_drawn = (paired_randomisation(differences, clusters, r, seed=0) for r in (2**14, 2**13 - 1))
    assert p_drawn == pytest.approx(p_exact, abs=0.02)


def test_blocks_do_not_change_the_result(monkeypatch):
    differences, clusters = null_differences(np.random.default_rng(7), 40) + 0.05, np.arange(40)
    whole = paired_bootstrap(differences, clusters, 501, seed=3)
    monkeypatch.setattr("m3tune.evaluation.significance._SIGNS_AT_ONCE", 80)  # two rows a block, and one left over
    assert paired_bootstrap(differences, clusters, 501, seed=3) == pytest.approx(whole, abs=1e-12)


def test_seed_decides():
    differences, clusters = null_differences(np.random.default_rng(8), 60), np.arange(60)
    assert paired_bootstrap(differences, clusters, 500, 1) == paired_bootstrap(differences, clusters, 500, 1)
    assert paired_bootstrap(differences, clusters, 500, 1) != paired_bootstrap(differences, clusters, 500, 2)


def test_names_of_groups_do_not_matter():
    differences, clusters = clustered_null(np.random.default_rng(9), 40)
    renamed = clusters * 7 + 100
    assert paired_bootstrap(differences, clusters, 500, 1) == paired_bootstrap(differences, renamed, 500, 1)


def test_sign_and_scale():
    differences, clusters = null_differences(np.random.default_rng(10), 60) + 0.05, np.arange(60)
    low, high = paired_bootstrap(differences, clusters, 2000, 1)
    assert low <= differences.mean() <= high
    assert paired_bootstrap(-differences, clusters, 2000, 1) == pytest.approx((-high, -low), abs=1e-12)
    assert paired_bootstrap(differences / 2, clusters, 2000, 1) == pytest.approx((low / 2, high / 2), abs=1e-12)


def test_what_cannot_be_told_is_not_told():
    zeros = np.zeros(12)
    assert paired_bootstrap(zeros, np.arange(12), 100, 0) == (0.0, 0.0)
    assert paired_randomisation(zeros, np.arange(12), 100, 0) == 1.0
    one = np.array([0.3])
    assert paired_bootstrap(one, np.array([4]), 100, 0) == (-1.0, 1.0)
    assert paired_randomisation(one, np.array([4]), 100, 0) == 1.0
    # However many queries, one document is one witness.
    assert paired_bootstrap(np.full(50, 0.3), np.zeros(50, dtype=int), 100, 0) == (-1.0, 1.0)
    # Five groups cannot reach p = 0.05, six can.
    assert paired_bootstrap(np.full(5, 0.3), np.arange(5), 100, 0) == (-1.0, 1.0)
    assert paired_bootstrap(np.full(6, 0.3), np.arange(6), 100, 0) == pytest.approx((0.3, 0.3))
    with pytest.raises(ValueError, match="no differences"):
        paired_bootstrap(np.array([]), np.array([], dtype=int), 100, 0)
    with pytest.raises(ValueError, match="no differences"):
        paired_randomisation(np.array([]), np.array([], dtype=int), 100, 0)


def test_queries_needed_by_hand_and_by_simulation():
    alternating = np.array([0.4, -0.2] * 50)  # mean 0.1, standard deviation 0.3015
    assert queries_needed(alternating, np.arange(100)) == 72  # (1.95996 + 0.84162)^2 * 0.3015^2 / 0.1^2 = 71.4
    rng = np.random.default_rng(11)
    shown = sum(paired_randomisation(rng.choice([0.4, -0.2], 72), np.arange(72), 499, t) <= 0.05 for t in range(300))
    assert shown / 300 == pytest.approx(0.8, abs=0.08)


def test_queries_needed_counts_groups():
    differences = np.repeat([0.4, -0.2] * 25, 4)  # each group of four says one thing
    alone = queries_needed(differences, np.arange(200))
    grouped = queries_needed(differences, np.repeat(np.arange(50), 4))
    assert grouped == pytest.approx(4 * alone, rel=0.05)
    assert queries_needed(np.zeros(5), np.arange(5)) is None
    assert queries_needed(np.array([0.1, -0.1]), np.arange(2)) is None
    assert queries_needed(np.array([0.1, 0.2]), np.zeros(2, dtype=int)) is None
