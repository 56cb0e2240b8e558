"""Several systems at once: corrected p-values and intervals against their definitions, and seeds that are averaged."""

import numpy as np
import pytest

from m3tune.evaluation.compare import paired_differences
from m3tune.evaluation.contest import contest, holm, over_seeds
from m3tune.evaluation.significance import paired_bootstrap, paired_randomisation

QUERIES, RESAMPLES = 40, 400


def plain_holm(p_values):
    """Holm 1979: reject in the order of p while p <= a / (tests left); a test's corrected p is the least such a."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = {}
    for place, number in enumerate(order):
        # To reject this one, all before it must have been rejected too.
        corrected[number] = max(min(1, p_values[order[i]] * (len(order) - i)) for i in range(place + 1))
    return [corrected[number] for number in range(len(p_values))]


def systems(seed=0, seeds=3, gains=(0.0, 0.15, 0.02)):
    """base (measured once) and one system a gain, per query and seed."""
    generator = np.random.default_rng(seed)
    base = generator.uniform(0.2, 0.8, QUERIES)

    def values(of):
        return {f"q{i}": float(value) for i, value in enumerate(of)}

    made = {"base": [values(base)]}
    for number, gain in enumerate(gains):
        made[f"s{number}"] = [values(base + gain + generator.normal(0, 0.1, QUERIES)) for _ in range(seeds)]
    return made


CLUSTERS = {f"q{i}": i // 2 for i in range(QUERIES)}


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_its_definition(seed):
    p_values = list(np.random.default_rng(seed).uniform(0, 0.2, 7).round(3))
    assert holm(p_values) == pytest.approx(plain_holm(p_values))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_every_system_meets_the_base_and_every_other_one():
    found = contest(systems(), "base", CLUSTERS, RESAMPLES, 0)
    assert [(of.first, of.second) for of in found] == [
        ("s0", "base"), ("s1", "base"), ("s2", "base"), ("s0", "s1"), ("s0", "s2"), ("s1", "s2"),
    ]  # fmt: skip


def test_a_difference_is_tested_on_the_means_of_seeds_over_groups():
    made = systems()
    found = {(of.first, of.second): of for of in contest(made, "base", CLUSTERS, RESAMPLES, 0)}
    of = found["s0", "s1"]
    means = {name: {q: np.mean([one[q] for one in made[name]]) for q in CLUSTERS} for name in ("s0", "s1")}
    test = paired_differences(means["s1"], means["s0"], CLUSTERS)
    assert of.difference == pytest.approx(np.mean([means["s0"][q] - means["s1"][q] for q in CLUSTERS]))
    assert of.p_value == paired_randomisation(*test, RESAMPLES, 0)
    assert of.interval == paired_bootstrap(*test, RESAMPLES, 0, 1 - 0.05 / 6)
    narrow = paired_bootstrap(*test, RESAMPLES, 0)
    assert of.interval[0] < narrow[0] < narrow[1] < of.interval[1]
    for seed in range(3):
        own = np.mean([made["s0"][seed][q] - made["s1"][seed][q] for q in CLUSTERS])
        assert of.by_seed[seed] == pytest.approx(own)
    ungrouped = contest(made, "base", {q: i for i, q in enumerate(CLUSTERS)}, RESAMPLES, 0)
    assert ungrouped[3].interval != of.interval


def test_p_is_corrected_over_all_differences_and_agrees_with_the_intervals():
    found = contest(systems(), "base", CLUSTERS, RESAMPLES, 0)
    assert [of.p_holm for of in found] == pytest.approx(plain_holm([of.p_value for of in found]))
    seen = [of for of in found if not of.interval[0] <= 0 <= of.interval[1]]
    assert len(seen) in range(2, 6)
    assert all(of.p_holm <= 0.05 for of in seen)


def test_the_same_run_under_several_seeds_is_no_further_witness():
    one, three = systems(seeds=1), systems(seeds=1)
    three = {name: of if name == "base" else of * 3 for name, of in three.items()}
    alone, repeated = (contest(made, "base", CLUSTERS, RESAMPLES, 0) for made in (one, three))
    for first, second in zip(alone, repeated, strict=True):
        assert (*second.interval, second.p_value) == pytest.approx((*first.interval, first.p_value))
        assert second.by_seed == pytest.approx(first.by_seed * 3)


def test_of_many_equal_systems_one_is_seldom_called_better():
    wrong = {"corrected": 0, "alone": 0}
    for seed in range(60):
        found = contest(systems(seed, seeds=1, gains=(0, 0, 0, 0)), "base", CLUSTERS, RESAMPLES, 0)
        wrong["corrected"] += any(not of.interval[0] <= 0 <= of.interval[1] for of in found)
        wrong["alone"] += any(of.p_value <= 0.05 for of in found)
    assert wrong["corrected"] <= 8 < wrong["alone"]  # of 60: 5 % are 3, and 8 are more with a chance under 1 %


def test_other_queries_are_an_error():
    made = systems()
    del made["s1"][1]["q3"]
    with pytest.raises(KeyError):
        contest(made, "base", CLUSTERS, RESAMPLES, 0)
    assert over_seeds([{"q": 0.0}, {"q": 0.5}]) == {"q": 0.25}
