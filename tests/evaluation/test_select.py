"""The rule that chooses between the base, the checkpoint and merges, on figures made up for each case."""

import numpy as np
import pytest

from m3tune.config import EvaluateConfig, SelectConfig
from m3tune.evaluation.select import Contender, choose, folder_of, lost_share, name_of, why_base

QUERIES = 60
TEST = EvaluateConfig(resamples=2000)
IDS = [f"q{i}" for i in range(QUERIES)]
ALONE = {query_id: number for number, query_id in enumerate(IDS)}
BASE_VALUES = np.random.default_rng(0).uniform(0.2, 0.6, QUERIES)


def contender(alpha, gain=0.0, spread=0.1, retention=None, seed=None):
    """One whose queries gain `gain` over the base exactly in the mean, give or take `spread` each."""
    noise = np.random.default_rng(round(100 * alpha) if seed is None else seed).normal(0, spread, QUERIES)
    values = BASE_VALUES + (noise - noise.mean() + gain if alpha else 0.0)
    return Contender(name_of(alpha), alpha, dict(zip(IDS, values.tolist(), strict=True)), retention)


def chosen(*contenders, clusters=ALONE, **config):
    return choose(contenders, clusters, SelectConfig(**config), TEST)


def test_names_and_folders():
    assert [name_of(alpha) for alpha in (0, 0.3, 0.85, 1.0)] == ["base", "merged 0.3", "merged 0.85", "tuned"]
    assert folder_of("merged 0.3") == "merged-0.3"


def test_the_checkpoint_is_chosen_where_it_is_clearly_the_best():
    choice = chosen(contender(0), contender(0.5, 0.05), contender(0.85, 0.1), contender(1, 0.2))
    assert choice.name == "tuned"
    assert choice.fates == {"base": "base", "merged 0.5": "worse", "merged 0.85": "worse", "tuned": "chosen"}
    assert why_base(choice) is None
    assert list(choice.p_values) == ["merged 0.5", "merged 0.85", "tuned"]
    assert max(choice.p_values.values()) < 0.01


def test_a_merge_is_chosen_where_it_is_clearly_the_best():
    choice = chosen(contender(0), contender(0.5, 0.05), contender(0.7, 0.2), contender(1, 0.1))
    assert choice.name == "merged 0.7"
    assert choice.fates["tuned"] == "worse"


def test_of_equals_the_nearest_to_the_base_is_chosen_whatever_their_order():
    rows = [contender(0.5, 0.199), contender(0.7, 0.2), contender(1, 0.2), contender(0.3, 0.1)]
    for order in (rows, rows[::-1]):
        choice = chosen(contender(0), *order)
        assert choice.name == "merged 0.5"
        assert choice.fates == {"base": "base", "merged 0.5": "chosen", "merged 0.7": "further", "tuned": "further",
                                "merged 0.3": "worse"}  # fmt: skip


def test_with_any_difference_taken_for_real_the_highest_is_chosen():
    rows = [contender(0), contender(0.5, 0.199), contender(1, 0.2)]
    assert chosen(*rows).name == "merged 0.5"
    assert chosen(*rows, noise=1).name == "tuned"


@pytest.mark.parametrize("gain", [0.0, -0.1])
def test_what_does_not_gain_leaves_the_base(gain):
    choice = chosen(contender(0), contender(0.5, gain, spread=0), contender(1, -0.2))
    assert choice.name == "base"
    assert choice.fates == {"base": "chosen", "merged 0.5": "no gain", "tuned": "no gain"}
    assert why_base(choice) == "no gain"


def test_noise_is_about_one_standard_error_by_default():
    """A gain of `size` standard errors of its own mean, computed here by the plain formula."""
    for size, name in ((0.7, "base"), (1.4, "tuned")):
        probe = contender(1, 0.0, 0.1)
        differences = np.array(list(probe.dev.values())) - BASE_VALUES
        standard_error = differences.std(ddof=1) / QUERIES**0.5
        choice = chosen(contender(0), contender(1, size * standard_error, 0.1))
        assert choice.name == name, size
    assert why_base(chosen(contender(0), contender(1, 0.7 * standard_error, 0.1))) == "noise"


def test_queries_that_hang_together_are_one_witness():
    """The same gain, by two groups of queries instead of sixty: nothing can be shown."""
    rows = [contender(0), contender(1, 0.1)]
    assert chosen(*rows).name == "tuned"
    choice = chosen(*rows, clusters={query_id: number % 2 for number, query_id in enumerate(IDS)})
    assert (choice.name, why_base(choice), choice.p_values["tuned"]) == ("base", "noise", 0.5)


def test_who_forgets_is_not_chosen_though_it_is_the_best():
    rows = [contender(0, retention=0.5), contender(0.3, 0.1, retention=0.4951), contender(1, 0.2, retention=0.4)]
    choice = chosen(*rows)
    assert choice.name == "merged 0.3"
    assert choice.fates["tuned"] == "forgets"
    assert chosen(*rows, retention_tolerance=0.25).name == "tuned"


def test_where_all_forget_the_base_stays_and_it_is_said_why():
    choice = chosen(contender(0, retention=0.5), contender(0.3, 0.1, retention=0.48), contender(1, -0.1, retention=0.1))
    assert (choice.name, why_base(choice)) == ("base", "forgets")
    assert choice.fates == {"base": "chosen", "merged 0.3": "forgets", "tuned": "no gain"}


def test_the_loss_is_a_share_of_the_bases_metric():
    base = contender(0, retention=0.5)
    assert lost_share(base, contender(1, retention=0.4)) == pytest.approx(0.2)
    assert lost_share(base, contender(1, retention=0.6)) == 0
    assert lost_share(contender(0, retention=0.0), contender(1, retention=0.0)) == 0
    assert lost_share(contender(0), contender(1)) == 0


def test_exactly_the_tolerance_may_be_lost():
    rows = [contender(0, retention=0.5), contender(1, 0.2, retention=0.375)]
    assert chosen(*rows, retention_tolerance=0.25).name == "tuned"
    assert chosen(*rows, retention_tolerance=0.2499).name == "base"


def test_without_a_rule_the_last_is_chosen_whatever_it_is_worth():
    contenders = contender(0, retention=0.9), contender(1, -0.2, retention=0.1)
    assert chosen(*contenders).name == "base"
    choice = chosen(*contenders, rule="last")
    assert (choice.name, choice.fates, why_base(choice)) == ("tuned", {"base": "base", "tuned": "chosen"}, None)
    assert list(choice.p_values) == ["tuned"]
