"""The trials without a model: a made-up training on a clock that only it moves."""

import json
import math
from dataclasses import replace

import pytest

from m3tune.config import SearchConfig, TrainConfig
from m3tune.errors import TrainingError
from m3tune.optimizing.loop import Task, run_trials
from m3tune.optimizing.space import dials_of
from m3tune.optimizing.suggest import importance, rungs
from m3tune.optimizing.trials import TRIALS

STEPS, STEP_S, QUERIES = 40, 1.0, 20


class MadeUp:
    """A training whose metric rises to a peak that the learning rate decides; every step takes a second an epoch."""

    def __init__(self, best_rate=1e-4, fail=None, killed_in=None):
        self.now, self.evaluation_s = 0.0, 0.0
        self.best_rate, self.fail, self.killed_in = best_rate, fail, killed_in
        self.trained = []

    def clock(self):
        return self.now

    def __call__(self, train, watch, folder):
        self.trained.append(train)
        rate = 4e-5 if train.learning_rate == "auto" else train.learning_rate
        if self.fail and self.fail(train):
            raise TrainingError("too much of something")
        peak = 0.8 - 0.1 * abs(math.log(rate / self.best_rate)) - abs(train.temperature - 0.03)
        for step in range(1, STEPS + 1):
            self.now += STEP_S * train.epochs / 3
            if self.killed_in == len(self.trained) and step == STEPS // 8:
                raise KeyboardInterrupt
            watch.stepped(step, STEPS)
            if step % (STEPS // train.evaluations) == 0:
                self.now += self.evaluation_s
                value = peak * (1 - math.exp(-3 * step / STEPS))
                watch.evaluated(value, {f"q{i}": value for i in range(QUERIES)})


def task(measure, minutes, **config):
    search, train = SearchConfig(minutes=minutes, **config), TrainConfig()
    width = 1024 / 2**0.5  # auto is 4e-5 there
    return Task(search, dials_of(search, train, width, 0), train, measure)


def search(folder, minutes=60, measure=None, said=None, **config):
    folder.mkdir(exist_ok=True)
    measure = measure or MadeUp()
    records = run_trials(
        task(measure, minutes, **config), folder, (said if said is not None else []).append, measure.clock
    )
    return records, measure


def test_the_recipes_own_values_come_first_unchanged_and_to_the_end(tmp_path):
    records, measure = search(tmp_path, trials=3)
    assert measure.trained[0] == TrainConfig()
    assert measure.trained[0].learning_rate == "auto"
    assert (records[0].fate, records[0].steps) == ("complete", STEPS)
    assert len({json.dumps(record.values) for record in records}) == 3, "the others are others"


def test_the_same_seed_tries_the_same_and_another_seed_does_not(tmp_path):
    first, _ = search(tmp_path / "a", trials=9)
    again, _ = search(tmp_path / "b", trials=9)
    other, _ = search(tmp_path / "c", trials=9, seed=1)
    assert first == again
    assert [record.values for record in first[1:]] != [record.values for record in other[1:]]
    assert first[0] == other[0]


def test_only_about_a_third_goes_on_from_a_rung_and_those_are_the_best(tmp_path):
    records, _ = search(tmp_path, minutes=600, trials=30)
    fates = [record.fate for record in records]
    assert fates.count("halved") > 15
    assert fates.count("complete") >= 3
    at_first = [record.at_rungs[0] for record in records]
    # Each goes on exactly where it is in the best third of those that came before it, itself among them.
    for number, record in enumerate(records):
        so_far = sorted(at_first[: number + 1], reverse=True)
        went_on = record.fate != "halved" or len(record.at_rungs) > 1
        assert went_on == (at_first[number] >= so_far[max(0, len(so_far) // 3 - 1)])
    assert all(record.steps in (10, 20) for record in records if record.fate == "halved")


def test_it_finds_what_is_better(tmp_path):
    records, measure = search(tmp_path, minutes=600, trials=30)
    whole = [record for record in records if record.fate == "complete"]
    best = max(whole, key=lambda record: record.reached)
    assert best.reached > records[0].reached + 0.05
    assert 0.5 < best.values["learning_rate"] / measure.best_rate < 2


class Rises(MadeUp):
    """What is trained at more than the recipe's rate rises higher and falls lower after three quarters."""

    def __call__(self, train, watch, folder):
        high = 0.3 * (train.learning_rate != "auto" and train.learning_rate > 4.001e-5)
        for number, value in enumerate((0.5, 0.55 + high, 0.6 + high, 0.6 - high), start=1):
            self.now += STEPS / 4
            watch.stepped(number * STEPS // 4, STEPS)
            watch.evaluated(value, {f"q{i}": value for i in range(QUERIES)})


def test_where_the_last_step_is_kept_a_trial_is_judged_by_it_and_not_by_its_best(tmp_path):
    """At each rung, at the end, and in the metric of every query, by which the choice is made."""
    found = {}
    for keep_best in (True, False):
        measure, folder = Rises(), tmp_path / str(keep_best)
        folder.mkdir()
        of = replace(task(measure, 600, trials=6, settings=("learning_rate",)), keep_best=keep_best)
        found[keep_best] = run_trials(of, folder, lambda _: None, measure.clock)
    for keep_best, records in found.items():
        higher = [record for record in records if record.values["learning_rate"] > 4.001e-5]
        whole = [record for record in higher if record.fate == "complete"]
        assert whole
        for record in whole:
            values = [0.5, 0.85, 0.9, 0.9 if keep_best else 0.3]
            assert [value for _, value in record.dev] == pytest.approx(values)
            assert record.at_rungs == pytest.approx(values[:2])
            assert set(record.per_query.values()) == {record.reached}


def test_rungs_are_a_ninth_and_a_third_of_the_evaluations():
    assert {n: rungs(n) for n in (1, 2, 3, 4, 9, 20)} == {
        1: [], 2: [1], 3: [1], 4: [1, 2], 9: [1, 3], 20: [3, 7],
    }  # fmt: skip


# --- the time


@pytest.mark.parametrize("minutes", [2, 5, 20])
def test_the_time_is_kept_and_used(tmp_path, minutes):
    said = []
    records, measure = search(tmp_path, minutes, said=said)
    assert 60 * minutes - 2 * STEPS * STEP_S < measure.now <= 60 * minutes
    assert len(records) > 1
    assert "no other values would come to an end" in said[-1]


def test_a_suggestion_that_there_is_no_time_for_gives_way_to_one_that_fits(tmp_path):
    """The recipe's own take 40 s of 1.5 minutes, six epochs would take 80; one epoch takes 13, two take 27."""
    said = []
    records, measure = search(tmp_path, 1.5, said=said, settings=("epochs",), epochs=(1.0, 2.0, 6.0))
    assert sorted(record.values["epochs"] for record in records[1:]) in ([1.0], [1.0, 2.0])
    assert measure.now <= 90
    assert "no other values would come to an end" in said[-1]


def test_no_values_are_tried_twice(tmp_path):
    records, _ = search(tmp_path, 60, settings=("epochs",), epochs=(1.0, 2.0))
    assert sorted(record.values["epochs"] for record in records) == [1.0, 2.0, 3.0]


def test_a_trial_that_would_not_end_is_stopped_by_the_clock(tmp_path):
    class Slower(MadeUp):
        def __call__(self, train, watch, folder):
            if len(self.trained) == 1:
                stepped = watch.stepped

                def slow(step, of):
                    self.now += 30
                    stepped(step, of)

                watch.stepped = slow
            super().__call__(train, watch, folder)

    records, measure = search(tmp_path, 5, Slower())
    assert [record.fate for record in records] == ["complete", "out of time"]
    assert 0 < records[1].steps < STEPS
    assert 300 < measure.now < 300 + 40, "one step over"


def test_where_not_two_fit_the_first_ends_after_some_steps_and_says_what_would_do(tmp_path):
    records, measure = search(tmp_path, minutes=1)
    assert [record.fate for record in records] == ["out of time"]
    assert measure.now == 5 * STEP_S
    assert records[0].whole_s == pytest.approx(STEPS * STEP_S)
    slow_to_measure = MadeUp()
    slow_to_measure.evaluation_s = 15
    records, measure = search(tmp_path / "evaluations", 1.5, slow_to_measure)
    assert measure.now == STEPS / 4 * STEP_S + 15, "what evaluations take shows at the first one"
    assert [record.fate for record in records] == ["out of time"]
    with_more_time, _ = search(tmp_path, minutes=20)
    assert with_more_time[0].fate == "complete"


# --- going on


def test_a_search_that_was_killed_goes_on_and_ends_as_if_it_had_not(tmp_path):
    whole, _ = search(tmp_path / "whole", minutes=600, trials=12)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", minutes=600, measure=MadeUp(killed_in=7), trials=12)
    left = json.loads((tmp_path / "killed" / TRIALS).read_text())
    assert len(left) == 6
    said = []
    resumed, measure = search(tmp_path / "killed", minutes=600, said=said, trials=12)
    assert len(measure.trained) == 6
    assert "going on after 6 trials" in said[0]
    assert [(r.values, r.fate, r.dev, r.marks) for r in resumed] == [(r.values, r.fate, r.dev, r.marks) for r in whole]
    assert any(record.fate == "halved" for record in resumed[6:])


def test_the_time_of_finished_trials_counts_after_an_interruption(tmp_path):
    first, _ = search(tmp_path, minutes=20, trials=4)
    spent = sum(record.seconds for record in first)
    _, measure = search(tmp_path, minutes=(spent + 10) / 60)
    assert measure.trained == [], "ten seconds are not enough for another"


# --- what cannot be trained


def test_values_that_cannot_be_trained_are_a_trial_that_failed(tmp_path):
    measure = MadeUp(fail=lambda train: train.learning_rate != "auto" and train.temperature < 0.05)
    records, _ = search(tmp_path, minutes=600, measure=measure, trials=8)
    failed = [record for record in records if record.fate == "failed"]
    assert failed
    assert len(failed) < 7
    assert all(record.reason == "too much of something" for record in failed)


def test_a_recipe_that_cannot_be_trained_itself_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="too much of something"):
        search(tmp_path, measure=MadeUp(fail=lambda _: True))


# --- which settings mattered


def test_importance_names_what_moved_the_metric_and_needs_some_trials(tmp_path):
    records, measure = search(tmp_path, minutes=600, trials=30)
    dials = task(measure, 1).dials
    shares = importance(dials, records, 0)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "learning_rate"
    assert importance(dials, records[:7], 0) == {}
