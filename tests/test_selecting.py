"""The selection stage on real runs of tiny encoders: what it measures, chooses, keeps and delivers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cutting import cut_off_at
from m3tune import contending, delivering, measuring, pipeline
from m3tune.artifact import read_json
from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.data.prepared import load_prepared
from m3tune.errors import DataError
from m3tune.evaluation.store import load_evaluation
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe, load_recipe
from m3tune.report import selection_words, verdict_words
from m3tune.retrieval.encode import encode
from m3tune.selecting import chosen_encoder
from m3tune.tuning import OnDev
from m3tune.types import Judgment, Passage, Query
from tiny import COMMON, save_tiny_encoder, tiny_collection, write_llamaindex

METRIC = "nDCG@10"
TEXTS = ["c01 r02 r03", "r05 c03 c03 r17", "c00"]
TRAIN = {"epochs": 6, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}


def tables(place, output, **select):
    return {
        "output": str(output),
        "data": {"path": str(place / "data.json"), "dev": 0.3},
        "model": {"path": str(place / "encoder")},
        "train": TRAIN,
        "evaluate": {"resamples": 200},
        "select": select,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selecting")
    write_llamaindex(folder / "data.json", tiny_collection())
    save_tiny_encoder(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def finished(place):
    """(folder, verdict, what was said) of a whole run. Never written to."""
    said = []
    return place / "run", pipeline.run(build_recipe(tables(place, place / "run")), said.append), said


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run to go on from."""
    return shutil.copytree(finished[0], tmp_path / "run")


def again(folder, *overrides, said=None, of=None):
    recipe = load_recipe((of or folder) / "resolved.toml", [f"output={folder}", *overrides])
    return pipeline.run(recipe, (said if said is not None else []).append)


def selection_in(folder):
    return read_json(folder / "select" / "selection.json")


def vectors(folder):
    return encode(load_encoder(ModelConfig(path=str(folder)))[0], TEXTS, "passage")


def sets_measured(monkeypatch):
    """Every (model, sets of queries) that is encoded from now on."""
    calls = []
    for module in (measuring, contending):
        real = module.measure_encoder

        def counted(encoder, name, collection, passage_ids, sets, *rest, real=real, **more):
            calls.append((name, tuple(sets)))
            return real(encoder, name, collection, passage_ids, sets, *rest, **more)

        monkeypatch.setattr(module, "measure_encoder", counted)
    return calls


# --- what is measured


def test_every_contender_has_its_figures_and_the_ends_are_those_of_training(finished):
    folder, _, said = finished
    selection = selection_in(folder)
    rows = {row["name"]: row for row in selection["candidates"]}
    assert list(rows) == ["base", "merged 0.3", "merged 0.5", "merged 0.7", "merged 0.85", "tuned"]
    trained = read_json(folder / "train" / "selection.json")
    assert rows["base"]["dev"] == trained["base"]
    assert rows["tuned"]["dev"] == pytest.approx(trained["best_checkpoint"], abs=1e-9)
    assert trained.items() <= selection.items()
    assert selection["chosen_metric"] == rows[selection["chosen"]]["dev"]
    far = rows["tuned"]["distance"]
    assert far > 0.02
    for row in rows.values():
        assert row["distance"] == pytest.approx(row["alpha"] * far)
    cosines = [row["query_cosine"] for row in rows.values()]
    assert cosines[0] == 1
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] < 0.95
    for name, row in list(rows.items())[1:]:
        at = folder / "select" / name.replace(" ", "-")
        values = load_evaluation(at, "dense").per_query[METRIC]
        assert np.mean(list(values.values())) == pytest.approx(row["dev"])
    assert selection["retention"] is None
    assert "give a question about either half (44 are too short)" in selection["why_no_retention"]
    assert any(selection["why_no_retention"] in line for line in said)
    assert any(line.endswith(f"; chosen: {selection['chosen']}") for line in said)


def test_a_merge_is_measured_as_the_formula_makes_it(finished, place, tmp_path):
    """The development metric of a merge made by hand."""
    folder, _, _ = finished
    ends = [load_encoder(ModelConfig(path=str(at)))[0] for at in (place / "encoder", folder / "train" / "model")]
    weights = [encoder.state_dict() for encoder in ends]
    ends[1].load_state_dict({name: (weights[0][name] + weights[1][name]) / 2 for name in weights[0]})
    prepared, corpus = load_prepared(folder / "data"), read_json(folder / "base" / "dev_corpus.json")
    recipe = load_recipe(folder / "resolved.toml")
    searched = OnDev(recipe, prepared, corpus, tmp_path / "vectors").search(ends[1])
    values = searched.evaluation("dense", {}).per_query[METRIC]
    assert values == pytest.approx(load_evaluation(folder / "select" / "merged-0.5", "dense").per_query[METRIC])
    assert len(values) >= 10


def test_no_weights_lie_about_and_none_are_left_half_made(finished):
    folder, _, _ = finished
    assert {at.parent.relative_to(folder).as_posix() for at in folder.rglob("*.safetensors")} == {
        "train/model",
        "model",
    }
    assert not list(folder.glob("*.partial"))


def test_the_test_queries_are_encoded_once_by_the_base_and_once_by_the_chosen(place, tmp_path, monkeypatch):
    calls = sets_measured(monkeypatch)
    pipeline.run(build_recipe(tables(place, tmp_path / "run")))
    assert [name for name, sets in calls if "test" in sets] == ["base", "tuned"]
    assert [name for name, _ in calls].count("merged 0.5") == 1


# --- what is chosen and delivered


def test_a_merge_that_is_best_on_development_data_is_chosen_judged_and_delivered(copied, place, m3tune):
    """The checkpoint is moved ten times as far from the base as training went: a tenth of that is what it had been."""
    good, base = (load_file(at / "model.safetensors") for at in (copied / "train" / "model", place / "encoder"))
    far = {name: base[name] + 10 * (good[name] - base[name]) for name in good}
    save_file(far, copied / "train" / "model" / "model.safetensors", metadata={"format": "pt"})
    expected = again(copied, "select.alphas=[0.1]", "select.noise=0.1")
    selection = selection_in(copied)
    rows = {row["name"]: row for row in selection["candidates"]}
    assert rows["merged 0.1"]["dev"] > rows["tuned"]["dev"], "or nothing was planted"
    assert (selection["chosen"], selection["alpha"]) == ("merged 0.1", 0.1)
    assert (expected.delivered, expected.verdict) == ("merged 0.1", "better")
    delivered = load_file(copied / "model" / "model.safetensors")
    for name, value in good.items():
        if "pooler" not in name:
            torch.testing.assert_close(delivered[name], value, atol=1e-5, rtol=1e-4)
    tuned = read_json(copied / "tuned" / "metrics.json")["dense"][METRIC]
    assert expected.tuned == pytest.approx(tuned, abs=1e-6)
    arguments = [f"output={copied}", "select.alphas=[0.1]", "select.noise=0.1"]
    code, out, _ = m3tune("run", copied / "resolved.toml", *[part for a in arguments for part in ("--set", a)])
    assert code == 0
    assert f"delivered: checkpoint {expected.checkpoint} merged 0.1" in out
    assert "holds the merge of base and tuned model at 0.1." in (copied / "report.html").read_text()


@pytest.mark.parametrize("wrong", ["learning rate", "labels"])
def test_a_run_that_went_wrong_delivers_no_worse_model_and_says_so(place, tmp_path, m3tune, wrong):
    collection = tiny_collection()
    if wrong == "labels":
        ids = [judgment.passage_id for judgment in collection.judgments]
        shuffled = [Judgment(of.query_id, ids[n - 7]) for n, of in enumerate(collection.judgments)]
        train = set(list(collection.queries)[:40])
        kept = [new if new.query_id in train else old for new, old in zip(shuffled, collection.judgments, strict=True)]
        collection = Collection(collection.queries, collection.passages, tuple(kept))
    write_llamaindex(tmp_path / "data.json", collection)
    rate = 0.3 if wrong == "learning rate" else 5e-3
    recipe = tables(place, tmp_path / "run") | {"data": {"path": str(tmp_path / "data.json")}}
    recipe["train"] = TRAIN | {"learning_rate": rate}
    arguments = [f"{section}.{key}={json.dumps(value)}" for section in ("data", "model", "train", "evaluate")
                 for key, value in recipe[section].items()]  # fmt: skip
    (tmp_path / "recipe.toml").write_text('[data]\npath = "-"\n[model]\npath = "-"\n')
    arguments.append(f"output={tmp_path / 'run'}")
    code, _, err = m3tune("run", tmp_path / "recipe.toml", *[part for a in arguments for part in ("--set", a)])
    assert code == 1, err
    verdict = read_json(tmp_path / "run" / "verdict.json")
    assert verdict["delivered"] == "base" or verdict["delivered"].startswith("merged")
    assert verdict["verdict"] in ("no worse", "inconclusive", "worse")
    if verdict["delivered"] == "base":
        assert np.array_equal(vectors(tmp_path / "run" / "model"), vectors(place / "encoder"))


def test_where_training_moved_nothing_there_is_nothing_to_merge(copied, place):
    shutil.copyfile(place / "encoder" / "model.safetensors", copied / "train" / "model" / "model.safetensors")
    again(copied, "select.noise=0.3")
    assert [row["name"] for row in selection_in(copied)["candidates"]] == ["base", "tuned"]
    assert selection_in(copied)["chosen"] == "base"
    assert selection_in(copied)["why_base"] == "no gain"


# --- what may not be forgotten


def common_words():
    """What the tiny training data teaches to ignore: passages told apart by their common words alone."""
    generator = np.random.default_rng(5)
    texts = [" ".join(generator.choice(COMMON, 5, replace=False)) for _ in range(40)]
    passages = {f"g{i}": Passage(f"g{i}", text) for i, text in enumerate(texts)}
    queries = {f"h{i}": Query(f"h{i}", " ".join(text.split()[::-1])) for i, text in enumerate(texts)}
    return Collection(queries, passages, tuple(Judgment(f"h{i}", f"g{i}") for i in range(40)))


def test_a_forgetful_candidate_is_not_chosen(copied, tmp_path):
    write_llamaindex(tmp_path / "general.json", common_words())
    before = selection_in(copied)["chosen"]
    retention = f"select.retention={tmp_path / 'general.json'}"
    again(copied, retention, "select.retention_tolerance=0.9")
    rows = {row["name"]: row for row in selection_in(copied)["candidates"]}
    kept = [row["retention"] for row in rows.values()]
    assert kept[0] > 0.3 > 1.5 * kept[-1], kept
    assert selection_in(copied)["chosen"] == before, "with this much tolerance retention decides nothing"
    lost = 1 - rows[before]["retention"] / kept[0]
    said = []
    result = again(copied, retention, f"select.retention_tolerance={lost * 0.9}", said=said)
    selection = selection_in(copied)
    assert {row["name"]: row["fate"] for row in selection["candidates"]}[before] == "forgets"
    assert selection["chosen"] != before
    assert selection["candidates"][0]["retention"] == kept[0]
    assert selection["retention"]["queries"] == selection["retention"]["passages"] == 40
    page = (copied / "report.html").read_text()
    assert "What is gained and lost" in page
    assert str(tmp_path / "general.json") in page
    assert result.delivered in ("base", selection["chosen"])
    strict = again(copied, retention, "select.retention_tolerance=0", "select.alphas=[]", said=said)
    assert (strict.delivered, selection_in(copied)["why_base"]) == ("base", "forgets")
    assert "the base is kept: whatever beat it on development data lost too much on the retention data" in said


def test_another_text_of_the_retention_data_chooses_anew(copied, tmp_path, monkeypatch):
    general = write_llamaindex(tmp_path / "general.json", common_words())
    again(copied, f"select.retention={general}")
    calls = sets_measured(monkeypatch)
    again(copied, f"select.retention={general}")
    assert calls == []
    write_llamaindex(general, tiny_collection(seed=3))
    again(copied, f"select.retention={general}")
    assert ("base", ("retention",)) in calls


def test_retention_data_without_judgments_is_refused_and_nothing_is_left(copied, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("# One\n\nSome text about nothing in particular.\n")
    with pytest.raises(DataError, match=r"select.retention: no query has a relevant passage"):
        again(copied, f"select.retention={tmp_path / 'notes'}")
    assert (copied / "select").is_dir(), "the finished stage of the former rule still stands"
    with pytest.raises(DataError, match="does not exist"):
        again(tmp_path / "fresh", "select.retention=./nowhere", of=copied)
    assert not (tmp_path / "fresh" / "base").exists(), "it shows before anything is trained"


# --- what is cut off


def test_an_interrupted_selection_goes_on_behind_the_last_whole_contender(finished, copied, monkeypatch):
    folder, _, _ = finished
    shutil.rmtree(copied / "select")
    with cut_off_at("merged 0.7"):
        again(copied)
    assert not (copied / "select").exists()
    calls = sets_measured(monkeypatch)
    again(copied)
    assert [name for name, _ in calls] == ["merged 0.7", "merged 0.85", "tuned"], "the last is the checkpoint on dev"
    assert selection_in(copied) == selection_in(folder)


# --- several heads


def test_each_contender_gets_hybrid_weights_of_its_own_and_new_heads_stay(place, tmp_path):
    recipe = tables(place, tmp_path / "run", alphas=[0.6], noise=0.9)
    recipe["model"] |= {"new_heads": ["sparse", "multi"], "multi_dim": 16}
    result = pipeline.run(build_recipe(recipe))
    folder = Path(recipe["output"])
    selection = selection_in(folder)
    for row in selection["candidates"][1:]:
        tuning = read_json(folder / "select" / row["name"].replace(" ", "-") / "hybrid.json")
        assert row["weights"] == tuning["best"]["weights"]
        assert row["dev"] == pytest.approx(tuning["best"]["value"], abs=1e-6)
    assert (selection["base_head"], selection["head"]) == ("dense", "hybrid")
    encoder = chosen_encoder(folder, build_recipe(recipe))
    assert encoder.settings.heads == ("dense", "sparse", "multi")
    if result.delivered != "base":
        assert read_json(folder / "model" / "m3tune.json")["hybrid_weights"] == selection["weights"]
    trained, _ = load_encoder(ModelConfig(path=str(folder / "train" / "model")))
    assert torch.equal(encoder.linear("multi").weight, trained.linear("multi").weight)


def test_a_merge_between_models_that_share_no_head_is_made_and_measured(place, tmp_path):
    """The base is measured by its dense head, since it has not been taught the only one that is trained."""
    recipe = tables(place, tmp_path / "run", alphas=[0.6])
    recipe["model"] |= {"heads": ["sparse"], "new_heads": ["sparse"]}
    recipe = build_recipe(recipe)
    pipeline.run(recipe)
    rows = selection_in(tmp_path / "run")["candidates"]
    assert [row["name"] for row in rows] == ["base", "merged 0.6", "tuned"]
    assert [row["query_cosine"] for row in rows] == [1.0, None, None]
    forced = selection_in(tmp_path / "run") | {"chosen": "merged 0.6", "alpha": 0.6}
    (tmp_path / "run" / "select" / "selection.json").write_text(json.dumps(forced))
    encoder = chosen_encoder(tmp_path / "run", recipe)
    assert encoder.settings.heads == ("sparse",)


# --- without a selection


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def unguarded(place):
    """A run that delivers its last step, at a learning rate that makes it worse than an earlier one."""
    said = []
    recipe = build_recipe(tables(place, place / "last", rule="last") | {"train": TRAIN | {"learning_rate": 0.05}})
    return place / "last", pipeline.run(recipe, said.append), said


def test_the_last_step_is_delivered_though_an_earlier_one_was_better(unguarded, place):
    folder, verdict, _ = unguarded
    selection = selection_in(folder)
    log = [json.loads(line) for line in (folder / "train" / "log.jsonl").read_text().splitlines()]
    dev = {line["step"]: line[f"eval_{METRIC}"] for line in log if f"eval_{METRIC}" in line}
    last = max(dev)
    assert max(dev.values()) > dev[last]  # else this shows nothing
    assert (selection["checkpoint"], selection["steps"], verdict.checkpoint) == (last, last, last)
    assert selection["best_checkpoint"] == pytest.approx(dev[last])
    assert [row["name"] for row in selection["candidates"]] == ["base", "tuned"]
    assert (selection["chosen"], selection["rule"], verdict.delivered) == ("tuned", "last", "tuned")
    best = place / "best"
    pipeline.run(build_recipe(tables(place, best) | {"train": TRAIN | {"learning_rate": 0.05}}))
    kept = weights_of(best / "train" / "model")
    ours = weights_of(folder / "train" / "model")
    assert any(not torch.equal(kept[name], ours[name]) for name in kept)
    assert selection_in(best)["checkpoint"] < last


@pytest.mark.parametrize("rule", ["last", "guarded"])
def test_what_is_worse_on_the_test_is_delivered_only_without_a_guard(unguarded, finished, tmp_path, monkeypatch, rule):
    folder = shutil.copytree((unguarded if rule == "last" else finished)[0], tmp_path / "run")
    monkeypatch.setattr(delivering, "verdict", lambda *_: "worse")
    verdict = again(folder)
    assert (verdict.verdict, verdict.delivered) == ("worse", "tuned" if rule == "last" else "base")
    data = read_json(folder / "report.json")
    assert ("with no guard against a worse model" in verdict_words.sentence(data)) == (rule == "last")
    assert ("nothing guarded against it" in verdict_words.headline(data)) == (rule == "last")
    assert selection_words.rule(data["selection"]) in (folder / "report.html").read_text().replace("&#34;", '"')
    ours, delivered = (weights_of(folder / name) for name in ("train/model", "model"))
    assert all(torch.equal(ours[name], delivered[name]) for name in ours) == (rule == "last")


def test_another_rule_trains_again_only_where_it_keeps_another_step(copied):
    before = (copied / "train" / "manifest.json").read_bytes()
    again(copied, "select.noise=0.5")
    assert (copied / "train" / "manifest.json").read_bytes() == before
    again(copied, "select.rule=last")
    assert (copied / "train" / "manifest.json").read_bytes() != before
    assert selection_in(copied)["chosen"] == "tuned"
