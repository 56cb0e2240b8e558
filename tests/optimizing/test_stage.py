"""The search on real runs of tiny encoders: what the run makes of it, what it never sees, and what is said of it."""

import json
import re
import shutil
import sys

import numpy as np
import pytest

from m3tune import pipeline, tuning
from m3tune.artifact import read_json
from m3tune.cli.options import minutes_of
from m3tune.data.similar import Similar
from m3tune.data.split import split_queries
from m3tune.errors import RecipeError
from m3tune.optimizing import stage
from m3tune.recipe import build_recipe, load_recipe
from m3tune.replaying import replay
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

METRIC = "nDCG@10"
TRIALS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    write_llamaindex(folder / "data.json", tiny_collection())
    save_tiny_encoder(folder / "encoder")
    return folder


def recipe_for(place, output, data="data.json", minutes=30, **search):
    return build_recipe(
        {
            "output": str(output),
            "data": {"path": str(place / data), "dev": 0.3, "near_duplicates": False},
            "model": {"path": str(place / "encoder")},
            # Too low a rate to learn much: there is something to find.
            "train": {"epochs": 2, "batch_queries": 8, "learning_rate": 1e-4, "precision": "float32"},
            "evaluate": {"resamples": 200},
            "select": {"alphas": []},
            "search": {
                "minutes": minutes, "trials": TRIALS, "settings": ["learning_rate", "temperature"],
                "learning_rate": [0.25, 8], "seed": 2,
            } | search,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(place):
    """(folder, recipe, what was said) of a run that searched. Never written to."""
    said, recipe = [], recipe_for(place, place / "run")
    pipeline.run(recipe, said.append)
    return place / "run", recipe, said


@pytest.fixture
def copied(finished, place, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run", recipe_for(place, tmp_path / "run")


def found_in(folder):
    return read_json(folder / "search" / "search.json")


def without_times(found):
    plain = {key: value for key, value in found.items() if not key.endswith(("seconds", "needed_s", "minutes"))}
    return plain | {"trials": [{k: v for k, v in trial.items() if k != "seconds"} for trial in found["trials"]]}


# --- the run goes on with what was found


def test_the_run_trains_with_the_chosen_values_and_reaches_what_their_trial_did(finished):
    folder, recipe, _ = finished
    found, resolved = found_in(folder), load_recipe(folder / "resolved.toml")
    assert found["chosen"] != 0, "the rate of the recipe is too low"
    chosen = found["trials"][found["chosen"]]
    assert chosen["fate"] == "complete"
    assert resolved.train.learning_rate == chosen["values"]["learning_rate"] != recipe.train.learning_rate
    assert resolved.train.temperature == chosen["values"]["temperature"]
    assert resolved.train == recipe.train.model_copy(update=chosen["values"])
    # The same training: what the trial measured, the run's own checkpoint measures.
    assert read_json(folder / "train" / "selection.json")["best_checkpoint"] == chosen["dev"][-1][1]
    assert chosen["dev"][-1][1] > found["trials"][0]["dev"][-1][1]


def test_a_trial_is_the_training_that_a_run_does(finished, place, tmp_path):
    """The recipe's own trial, step by step, is what the run without a search does."""
    own = found_in(finished[0])["trials"][0]
    pipeline.run(recipe_for(place, tmp_path / "plain", minutes=None))
    lines = [json.loads(line) for line in (tmp_path / "plain" / "train" / "log.jsonl").read_text().splitlines()]
    evaluated = [[line["step"], line[f"eval_{METRIC}"]] for line in lines if f"eval_{METRIC}" in line]
    best = [[step, max(value for _, value in evaluated[: n + 1])] for n, (step, _) in enumerate(evaluated)]
    assert len(best) == 4
    assert own["dev"] == best


def test_a_run_that_keeps_the_last_step_chooses_by_the_last_evaluations(place, tmp_path):
    """Rates so high that some trials end below their best: else the best and the last were the same."""
    recipe = recipe_for(place, tmp_path / "run", learning_rate=[200, 2000])
    recipe = recipe.model_copy(update={"select": recipe.select.model_copy(update={"rule": "last"})})
    pipeline.run(recipe)
    found, folder = found_in(tmp_path / "run"), tmp_path / "run"
    records = read_json(folder / "search" / "trials.json")
    fallen = [r for r in records if r["dev"][-1][1] < max(value for _, value in r["dev"]) and r["fate"] == "complete"]
    assert fallen
    for record in records:
        log = (folder / "search" / f"trial-{record['number']}" / "log.jsonl").read_text()
        lines = [line for line in map(json.loads, log.splitlines()) if f"eval_{METRIC}" in line]
        assert record["dev"][: len(lines)] == [[line["step"], line[f"eval_{METRIC}"]] for line in lines]
        assert np.mean(list(record["per_query"].values())) == pytest.approx(record["dev"][-1][1], abs=1e-6)
    ended = {r["number"]: r["dev"][-1][1] for r in records if r["fate"] == "complete"}
    assert read_json(folder / "train" / "selection.json")["best_checkpoint"] == ended[found["chosen"]]
    assert "at each evaluation of a trial" in (page := (folder / "report.html").read_text())
    assert "the best so far" not in page


def test_chosen_toml_is_the_recipe_of_the_run_and_asks_for_no_search(finished):
    folder, recipe, _ = finished
    chosen = load_recipe(folder / "search" / stage.CHOSEN)
    assert chosen == load_recipe(folder / "resolved.toml")
    assert chosen.search.minutes is None
    assert chosen.model_copy(update={"train": recipe.train, "search": recipe.search}) == recipe


def test_nothing_but_logs_and_records_is_left(finished):
    folder = finished[0]
    assert {path.name for path in (folder / "search").iterdir()} == {
        "manifest.json", "search.json", "trials.json", "chosen.toml", *(f"trial-{n}" for n in range(TRIALS)),
    }  # fmt: skip
    assert not list(folder.rglob("checkpoint-*"))
    assert not (folder / "vectors").exists()
    assert read_json(folder / "search" / "manifest.json")["counts"]["trials"] == TRIALS


def test_a_replay_takes_the_chosen_values_without_searching(finished, tmp_path):
    replayed = replay(finished[0], tmp_path / "again", pipeline.silent)
    assert replayed.results == []
    assert "recipe" not in {difference.where for difference in replayed.origins}
    assert not (tmp_path / "again" / "search").exists()


# --- it never looks at the test


def test_only_development_queries_are_measured_and_no_test_query_is_handed_in(place, tmp_path, monkeypatch):
    measured, real = [], tuning.measure_encoder

    def spied(encoder, name, collection, passages, sets, *rest):
        measured.append({query_id for query_ids in sets.values() for query_id in query_ids})
        return real(encoder, name, collection, passages, sets, *rest)

    def guarded(directory, on_dev, key, say):
        monkeypatch.setattr(tuning, "measure_encoder", spied)
        assert on_dev.prepared.split.test == ()
        search_settings(directory, on_dev, key, say)
        raise KeyboardInterrupt

    search_settings = stage.search_settings
    monkeypatch.setattr(pipeline, "search_settings", guarded)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe_for(place, tmp_path / "run", trials=2))
    split = read_json(tmp_path / "run" / "data" / "split.json")
    assert len(split["test"]) == 12
    assert len(measured) >= 5, "four evaluations of the first trial, and some of the second"
    assert set().union(*measured) == set(split["dev"])


def test_other_test_labels_lead_to_the_same_search(place, tmp_path, monkeypatch):
    """BEIR's folders bring their split, so that the labels of the test can be anything."""
    collection = tiny_collection()
    split = split_queries(collection, Similar(), recipe_for(place, "x").data)[0]
    founds = []

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "tune", stopped)
    for name, shift in (("honest", 0), ("garbage", 37)):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        for file, texts in (("queries", collection.queries), ("corpus", collection.passages)):
            rows = [json.dumps({"_id": of.id, "text": of.text}) for of in texts.values()]
            (folder / f"{file}.jsonl").write_text("\n".join(rows))
        for side in ("train", "dev", "test"):
            pairs = [(q, f"p{(int(q[1:]) + (shift if side == 'test' else 0)) % 90}") for q in getattr(split, side)]
            lines = [f"{query}\t{passage}\t1" for query, passage in pairs]
            (folder / "qrels" / f"{side}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
        recipe = recipe_for(tmp_path, tmp_path / f"{name}-run", data=name, trials=3)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe.model_copy(update={"model": recipe_for(place, "x").model}))
        founds.append(without_times(found_in(tmp_path / f"{name}-run")))
    bases = [read_json(tmp_path / f"{name}-run" / "base" / "metrics.json") for name in ("honest", "garbage")]
    assert bases[0] != bases[1], "the labels did change"
    assert len(founds[0]["trials"]) == 3
    assert founds[0] == founds[1]


# --- again, and after an interruption


def fail(*_, **__):
    pytest.fail("a search that is done was done again")


def test_the_same_command_again_searches_and_trains_nothing(copied, monkeypatch):
    folder, recipe = copied
    before, train = (folder / "train" / "manifest.json").read_bytes(), load_recipe(folder / "resolved.toml").train
    for module, name in ((stage, "run_trials"), (tuning, "tune_on_dev")):
        monkeypatch.setattr(module, name, fail)
    said = []
    pipeline.run(recipe, said.append)
    pipeline.run(recipe.model_copy(update={"search": recipe.search.model_copy(update={"minutes": 20})}))
    assert (folder / "train" / "manifest.json").read_bytes() == before
    assert load_recipe(folder / "resolved.toml").train == train
    assert any(line.startswith("search: learning rate") for line in said)


def test_a_search_asked_of_a_finished_run_is_done_and_without_it_the_recipes_own_values_train(copied):
    folder, recipe = copied
    said = []
    pipeline.run(recipe.model_copy(update={"search": recipe.search.model_copy(update={"minutes": None})}), said.append)
    assert any("without --search the recipe's own are used" in line for line in said)
    assert load_recipe(folder / "resolved.toml").train == recipe.train
    assert read_json(folder / "train" / "manifest.json")["config"]["train"]["learning_rate"] == 1e-4
    assert read_json(folder / "report.json")["search"] is None
    pipeline.run(recipe)
    assert load_recipe(folder / "resolved.toml").train != recipe.train


def test_more_time_goes_on_from_the_trials_that_are_there(copied, monkeypatch):
    folder, recipe = copied
    before = read_json(folder / "search" / "trials.json")
    seen = []
    monkeypatch.setattr(stage, "run_trials", lambda task, place, say: seen.append(place) or real(task, place, say))
    from m3tune.optimizing.loop import run_trials as real

    more = recipe.search.model_copy(update={"minutes": recipe.search.minutes * 2})
    pipeline.run(recipe.model_copy(update={"search": more}))
    assert len(seen) == 1
    assert read_json(folder / "search" / "trials.json") == before, "no more trials than the recipe allows"
    assert found_in(folder)["minutes"] == 60


def test_a_killed_search_goes_on_with_the_trial_that_was_cut_off_and_ends_equal(finished, place, tmp_path, monkeypatch):
    trained, real = [], stage.tune_on_dev

    def killed(*arguments):
        trained.append(1)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    recipe = recipe_for(place, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "tune_on_dev", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe)
    assert not (tmp_path / "run" / "search").exists()
    assert len(read_json(tmp_path / "run" / "search.partial" / "trials.json")) == 2
    said = []
    pipeline.run(recipe, said.append)
    assert any("going on after 2 trials" in line for line in said)
    assert without_times(found_in(tmp_path / "run")) == without_times(found_in(finished[0]))


# --- what is said of it


def test_the_terminal_and_the_report_explain_the_choice(finished):
    folder, _, said = finished
    found = found_in(folder)
    own, chosen = found["trials"][0], found["trials"][found["chosen"]]
    lines = [line for line in said if line.startswith("trial ")]
    assert len(lines) == TRIALS
    assert lines[0].startswith("trial 0: learning rate 0.0001, temperature 0.05: dev 0.")
    sentence = next(line for line in said if line.startswith("search: learning rate"))
    assert f"{chosen['dev'][-1][1]:.4f} against {own['dev'][-1][1]:.4f} by the recipe's own values" in sentence
    assert any("looks better than it is" in line for line in said)
    page = (folder / "report.html").read_text()
    assert 'id="search"' in page
    assert page.count('<polyline class="line') >= TRIALS
    assert "looks better than it is" in page
    assert read_json(folder / "report.json")["search"]["chosen"] == found["chosen"]


def test_too_little_time_is_said_with_what_would_do_and_the_own_values_train(place, tmp_path):
    said = []
    recipe = recipe_for(place, tmp_path / "run", minutes=1e-4)
    pipeline.run(recipe, said.append)
    told = next(line for line in said if line.startswith("search: only the recipe's own values were tried"))
    assert re.search(r"take about .*, so ask for --search \d+m or more", told)
    assert load_recipe(tmp_path / "run" / "resolved.toml").train == recipe.train
    assert (tmp_path / "run" / "verdict.json").is_file()


# --- mistakes


def test_without_optuna_it_says_how_to_get_it_before_anything_is_done(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RecipeError, match="optuna") as caught:
        pipeline.run(recipe_for(place, tmp_path / "run"))
    assert "pip install 'm3tune[search]'" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_nothing_to_search_is_an_error(place, tmp_path):
    with pytest.raises(RecipeError, match="nothing is left to search"):
        pipeline.run(recipe_for(place, tmp_path / "run", settings=["negatives_per_query"]))


@pytest.mark.parametrize("text, minutes", [("90s", 1.5), ("20m", 20), ("2h", 120), ("0.5h", 30), (" 20 M ", 20)])
def test_times_are_read(text, minutes):
    assert minutes_of("--search", text) == minutes


@pytest.mark.parametrize("text", ["20", "m", "0m", "-5m", "20 minutes", "1h30m", ""])
def test_what_is_no_time_is_refused(text, place, tmp_path, m3tune):
    code, _, err = m3tune("run", place / "none.toml", f"--search={text}")
    assert code == 2
    assert "is no time" in err


def test_automatic_epochs_are_a_number_to_a_search(place, tmp_path):
    recipe = recipe_for(place, tmp_path, trials=2, settings=["epochs"], epochs=[1])
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": "auto"})})
    pipeline.run(recipe)
    (dial,) = found_in(tmp_path)["dials"]
    assert (dial["own"], dial["values"]) == (10.0, [1.0, 10.0])
    assert load_recipe(tmp_path / "resolved.toml").train.epochs in (1.0, 10.0)
