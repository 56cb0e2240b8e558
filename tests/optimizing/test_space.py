"""What a search may turn, and how far a value is from the recipe's own."""

import math

import pytest

from m3tune.config import SearchConfig, TrainConfig
from m3tune.optimizing.space import dials_of, distance, rounded, texts_encoded, with_values

WIDTH = 1024 / 2**0.5  # auto is 4e-5 there


def dials(train=None, most_negatives=0, **config):
    found = dials_of(SearchConfig(**config), train or TrainConfig(), WIDTH, most_negatives)
    return {dial.key: dial for dial in found}


def test_ranges_are_around_auto_and_always_hold_the_recipes_own():
    found = dials()
    assert list(found) == ["learning_rate", "temperature", "epochs", "false_negative_margin"]
    assert found["learning_rate"].own == pytest.approx(4e-5)
    assert found["learning_rate"].values == pytest.approx((1e-5, 1.6e-4))
    assert found["epochs"].values == (1.0, 2.0, 3.0, 5.0)
    assert found["false_negative_margin"].values == (0.05, 0.1, 0.2, None)
    far = dials(TrainConfig(learning_rate=1e-3, temperature=0.5, epochs=7, false_negative_margin=0.15))
    assert far["learning_rate"].values == pytest.approx((1e-5, 1e-3))
    assert far["temperature"].values == (0.01, 0.5)
    assert far["epochs"].values[-1] == far["epochs"].own == 7
    assert far["false_negative_margin"].values == (0.05, 0.1, 0.15, 0.2, None)


def test_negatives_are_searched_only_where_there_are_some_and_no_more_than_there_are():
    assert "negatives_per_query" not in dials()
    assert dials(most_negatives=5)["negatives_per_query"].values == (0, 1, 2, 4)
    assert dials(TrainConfig(negatives_per_query=3), most_negatives=9)["negatives_per_query"].values == (1, 2, 3, 4, 8)


def test_epochs_stay_where_the_steps_are_given_and_other_settings_where_they_are_not_named():
    assert "epochs" not in dials(TrainConfig(max_steps=10))
    assert list(dials(settings=["temperature"])) == ["temperature"]
    assert dials(settings=["epochs"], epochs=[3.0]) == {}


def test_a_place_is_even_in_the_logarithm_or_in_the_order():
    found = dials()
    rate, margin = found["learning_rate"], found["false_negative_margin"]
    assert [rate.place(value) for value in (1e-5, 4e-5, 1.6e-4)] == pytest.approx([0, 0.5, 1])
    assert [margin.place(value) for value in margin.values] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_distance_is_the_sum_of_what_was_turned():
    found = list(dials().values())
    own = {dial.key: dial.own for dial in found}
    assert distance(found, own) == 0
    other = own | {"learning_rate": 8e-5, "false_negative_margin": 0.1}
    assert distance(found, other) == pytest.approx(math.log(2) / math.log(16) + 2 / 3)


def test_values_have_two_digits_but_stay_in_the_range_and_the_own_one_is_untouched():
    rate = dials(TrainConfig(learning_rate=1.2345e-5))["learning_rate"]
    assert rounded(rate, 3.4567e-5) == 3.5e-5
    assert rounded(rate, 1.2345e-5) == 1.2345e-5
    narrow = dials(temperature=[0.0123, 0.0999], settings=["temperature"])["temperature"]
    assert [rounded(narrow, value) for value in (0.01231, 0.09989)] == [0.0123, 0.0999]


def test_the_recipes_own_values_leave_it_as_it_is_even_auto():
    train, found = TrainConfig(), list(dials().values())
    own = {dial.key: dial.own for dial in found}
    assert with_values(train, found, own) == train
    assert with_values(train, found, own).learning_rate == "auto"
    assert with_values(train, found, own | {"temperature": 0.02}) == train.model_copy(update={"temperature": 0.02})


def test_time_goes_with_passes_and_texts_a_query():
    assert texts_encoded(TrainConfig(epochs=2, negatives_per_query=4)) == 2 * 6
    assert texts_encoded(TrainConfig(epochs=1, positives_per_query=0)) == 2
