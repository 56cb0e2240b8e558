"""Counted pairs are those that the batches really bring, whatever their size."""

from dataclasses import replace

import pytest

from m3tune.config import TrainConfig
from m3tune.data.known import known_relevant
from m3tune.data.similar import Similar
from m3tune.training.batches import EpochBatches, Examples, make_examples
from m3tune.training.pairs import PairCounter
from m3tune.training.sets import training_sets
from m3tune.types import Judgment
from tiny import tiny_collection


@pytest.fixture(scope="module")
def collection():
    """Every third question has a second positive."""
    made = tiny_collection(37, 60)
    return replace(made, judgments=(*made.judgments, *(Judgment(f"q{i}", f"p{i + 20}") for i in range(0, 37, 3))))


def drawn(collection, query_ids, config, steps):
    """Positives of the batches that so many steps are made of, one by one."""
    sets = training_sets(collection, query_ids, config)
    by_query = {e.query_id: e for e in make_examples(collection, query_ids, known_relevant(collection, Similar()))}
    examples, batches, pairs, epoch = Examples(sets, by_query, config), EpochBatches(sets, config), 0, 0
    while steps:
        batches.set_epoch(epoch)
        of_epoch = list(batches)
        while of_epoch and steps:
            step, of_epoch = of_epoch[: config.accumulate_batches], of_epoch[config.accumulate_batches :]
            pairs += sum(len(examples[draw].positive_ids) for batch in step for draw in batch)
            steps -= 1
        epoch += 1
    return pairs


@pytest.mark.parametrize(
    "keys",
    [
        {"batch_queries": 8},
        {"batch_queries": 8, "positives_per_query": 2},
        {"batch_queries": 10, "positives_per_query": 0},
        {"batch_queries": 7, "accumulate_batches": 4},
    ],
)
@pytest.mark.parametrize("steps", [1, 3, 11])
def test_pairs_are_counted_as_they_are_drawn(collection, keys, steps):
    query_ids, config = tuple(collection.queries), TrainConfig(**keys)
    counter = PairCounter(collection, query_ids, config)
    assert counter.seen(steps) == drawn(collection, query_ids, config, steps) > 0


def test_steps_for_a_budget_come_within_half_a_step_of_it(collection):
    for keys in ({"batch_queries": 8}, {"batch_queries": 11}, {"batch_queries": 5, "accumulate_batches": 3}):
        counter = PairCounter(collection, tuple(collection.queries), TrainConfig(**keys))
        largest = counter._of_epoch(0)[0]
        for pairs in (30, 74, 111):
            assert abs(counter.seen(counter.steps_for(pairs)) - pairs) <= largest
        assert counter.seen(counter.steps_for(111)) == 111  # three whole epochs


def test_what_a_recipe_asks_for_is_whole_epochs(collection):
    counter = PairCounter(collection, tuple(collection.queries), TrainConfig(epochs=2, batch_queries=8))
    assert (counter.steps, counter.seen(counter.steps)) == (10, 74)
    assert PairCounter(collection, tuple(collection.queries), TrainConfig(max_steps=3)).steps == 3
