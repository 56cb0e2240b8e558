"""What is held out of a corpus to see what a model forgot: the forgetful are caught, the base's luck is left out."""

import itertools
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cutting import cut_off_at
from m3tune import pipeline, retaining
from m3tune.artifact import read_json
from m3tune.config import EvaluateConfig, ModelConfig, SelectConfig
from m3tune.data.collection import Collection
from m3tune.data.known_items import FIRST, SECOND, known_items
from m3tune.data.similar import Similar
from m3tune.evaluation.measure import measure_encoder
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe, load_recipe
from m3tune.types import Passage, Split
from tiny import COMMON, save_tiny_encoder, tiny_collection, tiny_tokenizer, write_llamaindex

TRAIN = {"epochs": 6, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}


def said_in(words, generator):
    """A text of eight sentences; those of either half say the same six words in another order."""
    halves = [generator.choice(words, 6, replace=False) for _ in range(2)]
    return " ".join(" ".join(generator.permutation(half)) + "." for half in halves for _ in range(4))


def with_texts(count=200):
    """The tiny collection, in whose training common words do not count, and long texts about common words."""
    generator, collection = np.random.default_rng(3), tiny_collection()
    texts = {f"t{i}": Passage(f"t{i}", said_in(COMMON, generator)) for i in range(count)}
    return Collection(collection.queries, {**collection.passages, **texts}, collection.judgments)


def recipe_of(place, output):
    tables = {
        "output": str(output),
        "data": {"path": str(place / "data.json"), "dev": 0.3},
        "model": {"path": str(place / "encoder")},
        "train": TRAIN,
        "evaluate": {"resamples": 200, "bm25": False},
        "select": {"alphas": [0.2, 0.5]},
    }
    return build_recipe(tables)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retaining")
    save_tiny_encoder(folder / "encoder", initializer_range=0.05)
    return folder


@pytest.fixture(scope="module")
def finished(place):
    """(folder, what was said) of a whole run on a corpus that has long texts about common words. Never written to."""
    write_llamaindex(place / "data.json", with_texts())
    said = []
    pipeline.run(recipe_of(place, place / "run"), said.append)
    return place / "run", said


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run to go on from."""
    return shutil.copytree(finished[0], tmp_path / "run")


def again(folder, *overrides, said=None):
    recipe = load_recipe(folder / "resolved.toml", [f"output={folder}", *overrides])
    return pipeline.run(recipe, (said if said is not None else []).append)


def selection_in(folder):
    return read_json(folder / "select" / "selection.json")


def rows_of(folder):
    return {row["name"]: row for row in selection_in(folder)["candidates"]}


def blend(model, words):
    """Let a saved model take some words for one another: each has their mean for its embedding."""
    file = model / "model.safetensors"
    weights = load_file(file)
    (name,) = [name for name in weights if name.endswith("word_embeddings.weight")]
    ids = tiny_tokenizer().convert_tokens_to_ids(list(words))
    weights[name][ids] = weights[name][ids].mean(dim=0)
    save_file(weights, file, metadata={"format": "pt"})


# --- whole runs


def test_a_healthy_run_is_measured_and_loses_nothing(finished):
    folder, said = finished
    selection, rows = selection_in(folder), rows_of(folder)
    measured = selection["retention"]
    assert measured["data"] == "auto"
    assert 100 < measured["queries"] == measured["found_by_base"] < measured["passages"] == 200
    assert measured["untouched"] == measured["passages"] + measured["too_short"], "short passages give no question"
    assert 0.8 < rows["base"]["retention"] < 1, "what the base found by one half it may miss by the other"
    assert selection["chosen"] != "base"
    assert "forgets" not in [row["fate"] for row in rows.values()]
    assert any(f"{measured['queries']:,} questions held out of 200 texts" in line for line in said)
    page = (folder / "report.html").read_text()
    assert "was held out of the corpus" in page
    assert "What is gained and lost" in page
    assert "was held out of the corpus" in (folder / "model" / "README.md").read_text()


def test_a_checkpoint_that_forgot_is_caught_and_the_merge_that_lost_less_is_chosen(finished, copied):
    blend(copied / "train" / "model", COMMON)
    again(copied, "select.retention_tolerance=0.15")
    before, rows = rows_of(finished[0]), rows_of(copied)
    assert rows["tuned"]["dev"] > rows["base"]["dev"] + 0.2, "development queries do not see it"
    assert rows["tuned"]["retention"] < 0.5 * before["tuned"]["retention"]
    assert rows["tuned"]["fate"] == "forgets"
    selection = selection_in(copied)
    assert selection["chosen"] == "merged 0.2"
    assert rows["merged 0.2"]["retention"] > 0.85 * rows["base"]["retention"] > rows["merged 0.5"]["retention"]
    assert rows["base"]["retention"] == before["base"]["retention"], "the same questions"


def test_where_every_candidate_forgot_the_base_is_kept(copied):
    blend(copied / "train" / "model", COMMON)
    result = again(copied, "select.alphas=[]")
    assert (result.delivered, selection_in(copied)["why_base"]) == ("base", "forgets")


def test_shuffled_labels_at_a_high_rate_lose_much_of_what_the_base_could_do(place, tmp_path):
    collection = with_texts()
    ids = [pair.passage_id for pair in collection.judgments]
    dealt = tuple(pair._replace(passage_id=ids[n - 7]) for n, pair in enumerate(collection.judgments))
    write_llamaindex(tmp_path / "data.json", Collection(collection.queries, collection.passages, dealt))
    recipe = load_recipe(place / "run" / "resolved.toml", [
        f"output={tmp_path / 'run'}", f"data.path={tmp_path / 'data.json'}", "train.learning_rate=0.3"
    ])  # fmt: skip
    pipeline.run(recipe)
    rows = rows_of(tmp_path / "run")
    assert rows["tuned"]["retention"] < 0.5 * rows["base"]["retention"]


def test_nothing_is_measured_where_it_is_not_wanted(copied):
    said = []
    again(copied, "select.retention=none", said=said)
    assert selection_in(copied)["retention"] is None
    assert any("not measured: select.retention names no data" in line for line in said)


def test_too_few_texts_or_a_base_that_finds_too_few_leave_it_unmeasured_with_the_reason(copied, monkeypatch):
    again(copied, "select.retention_passages=40")
    assert "40 of 244 texts that training does not touch give a question" in selection_in(copied)["why_no_retention"]
    monkeypatch.setattr(retaining, "_found_first", lambda *_: ["t0 second"] * 49)
    again(copied, "select.retention_passages=5000")
    assert selection_in(copied)["why_no_retention"] == "the base finds 49 of 200 texts, and 50 are needed"


def test_an_interrupted_selection_asks_the_same_without_measuring_the_base_again(finished, copied, monkeypatch):
    shutil.rmtree(copied / "select")
    with cut_off_at("merged 0.5"):
        again(copied)
    monkeypatch.setattr(retaining, "measure_encoder", None)
    again(copied)
    assert selection_in(copied) == selection_in(finished[0])


# --- what is drawn


def test_the_bases_luck_is_not_measured_against_the_others(tmp_path):
    """Random encoders of one kind are equally good, whichever is called the base.

    The others lose on the very questions that chose the texts, and not on those about the other halves.
    """
    collection = with_texts(400)
    items = known_items(
        collection, Similar(), Split(tuple(collection.queries), (), ()), 400, np.random.default_rng(0)
    ).collection
    values = []
    for seed in range(6):
        folder = save_tiny_encoder(tmp_path / str(seed), seed=seed, initializer_range=0.08)
        encoder, _ = load_encoder(ModelConfig(path=str(folder)))
        of_halves = {}
        for half in (FIRST, SECOND):
            ids = items.splits[half]
            found = measure_encoder(encoder, "x", items, ids, {half: ids}, EvaluateConfig(), "float32").searched[half]
            per_query = found.evaluation("dense", {}).per_query["nDCG@10"]
            of_halves[half] = np.array([per_query[id_] for id_ in ids])
        values.append(of_halves)
    lost = {FIRST: [], SECOND: []}
    for base, other in itertools.permutations(values, 2):
        found = base[FIRST] == 1
        assert found.sum() > 30
        for half, losses in lost.items():
            losses.append(np.mean(base[half][found]) - np.mean(other[half][found]))
    assert np.mean(lost[FIRST]) > 0.1
    assert abs(np.mean(lost[SECOND])) < 0.02


def test_few_queries_and_passages_are_drawn_the_same_each_time_with_what_answers_them():
    config = SelectConfig(retention_queries=7, retention_passages=20)
    grounds = []
    for seed in (0, 0, 1):
        monkey = pytest.MonkeyPatch()
        monkey.setattr(retaining, "read_collection", lambda _: (tiny_collection(), "read"))
        grounds.append(retaining.named_ground(config.model_copy(update={"retention": "x"}), seed, lambda _: None))
        monkey.undo()
    assert grounds[0].query_ids == grounds[1].query_ids != grounds[2].query_ids
    for ground in grounds:
        assert (len(ground.query_ids), len(ground.passage_ids)) == (7, 20)
        assert {f"p{query_id[1:]}" for query_id in ground.query_ids} <= set(ground.passage_ids)
