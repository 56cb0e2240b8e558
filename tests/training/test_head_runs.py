"""Whole runs that teach a model several heads."""

import json
from pathlib import Path

import pytest
import torch
from heads import (
    BASE,
    METRIC,
    fresh,
)

from m3tune import delivering, pipeline
from m3tune.config import ModelConfig
from m3tune.errors import RecipeError
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe
from m3tune.retrieval import corpus as corpus_module
from m3tune.training.callbacks import LOG_FILE
from tiny import write_llamaindex


def run_with_heads(folder, output, collection, **evaluate):
    recipe = build_recipe({
        "output": str(output),
        "data": {"path": str(write_llamaindex(output.parent / "data.json", collection))},
        "model": {"path": str(folder), "new_heads": ["sparse", "multi"], "multi_dim": 16},
        "train": {**BASE, "epochs": 4, "self_distill": True, "head_learning_rate": 1e-2},
        "evaluate": {"resamples": 100, **evaluate},
        "select": {"alphas": []},
    })  # fmt: skip
    return recipe, pipeline.run(recipe)


@pytest.fixture(scope="module")
def whole_run(tiny_folders, collection, tmp_path_factory):
    """(recipe, verdict) of a whole run that starts two heads. Never written to."""
    return run_with_heads(tiny_folders["bert"], tmp_path_factory.mktemp("whole") / "run", collection)


def read(output, *names):
    return json.loads(output.joinpath(*names).read_text())


def test_a_whole_run_delivers_the_heads_it_taught(whole_run, tiny_folders):
    output = Path(whole_run[0].output)
    assert read(output, "verdict.json")["delivered"] == "tuned"
    delivered, _ = load_encoder(ModelConfig(path=str(output / "model")))
    assert delivered.settings.heads == ("dense", "sparse", "multi")
    assert delivered.linear("multi").weight.shape == (16, 32)
    start = fresh(tiny_folders)
    assert not torch.equal(delivered.linear("multi").weight, start.linear("multi").weight)


def test_a_whole_run_measures_every_head_and_decides_by_the_hybrid(whole_run):
    output, result = Path(whole_run[0].output), whole_run[1]
    assert list(read(output, "base", "metrics.json")) == ["dense"], "nobody has taught the base its new heads"
    tuned = read(output, "tuned", "metrics.json")
    assert list(tuned) == ["dense", "sparse", "multi", "hybrid", "rrf"]
    assert result.head == "hybrid"
    assert result.tuned == pytest.approx(tuned["hybrid"][METRIC], abs=1e-6)
    assert result.base == pytest.approx(read(output, "base", "metrics.json")["dense"][METRIC], abs=1e-6)
    assert set(read(output, "tuned", "search.json")) == set(tuned)
    selection = read(output, "train", "selection.json")
    assert (selection["base_head"], selection["head"]) == ("dense", "hybrid")
    logged = [json.loads(line) for line in (output / "train" / LOG_FILE).read_text().splitlines()]
    at_best = next(line for line in logged if line.get("step") == result.checkpoint and f"eval_{METRIC}" in line)
    assert at_best[f"eval_{METRIC}"] == pytest.approx(selection["best_checkpoint"])
    assert f"eval_{METRIC} sparse" in at_best
    assert not (output / "vectors").exists()


def test_weights_are_tuned_on_development_data_and_go_with_the_model(whole_run):
    output = Path(whole_run[0].output)
    tuning = read(output, "select", "tuned", "hybrid.json")
    assert tuning == read(output, "train", "hybrid.json"), "the checkpoint's, tuned twice"
    best = max([tuning["default"], *tuning["grid"]], key=lambda point: point["value"])
    assert tuning["best"]["value"] == best["value"] == pytest.approx(read(output, "train", "selection.json")["tuned"])
    assert read(output, "model", "m3tune.json")["hybrid_weights"] == tuning["best"]["weights"]
    loaded, _ = load_encoder(ModelConfig(path=str(output / "model")))
    assert loaded.settings.hybrid_weights == tuning["best"]["weights"]


def test_heads_are_compared_in_pairs_and_stand_in_the_report(whole_run):
    output = Path(whole_run[0].output)
    compared = read(output, "heads.json")
    pairs = {(of["first"]["name"], of["first"]["head"], of["second"]["head"]) for of in compared}
    assert {("tuned", "dense", "hybrid"), ("bm25", "bm25", "hybrid"), ("base", "dense", "dense")} <= pairs
    tuned = read(output, "tuned", "metrics.json")
    for of in compared:
        row = next(row for row in of["metrics"] if row["metric"] == METRIC)
        assert row["ci95"][0] <= row["difference"] <= row["ci95"][1]
        assert row["tuned"] == pytest.approx(tuned[of["second"]["head"]][METRIC], abs=1e-6)
    page = (output / "report.html").read_text()
    assert "the base model by dense, the tuned one by hybrid" in page
    assert page.count("share of the") >= 3


def test_a_run_whose_vectors_go_to_disk_finds_the_same(whole_run, tiny_folders, collection, tmp_path, monkeypatch):
    stored = []
    store = corpus_module.store_vectors
    monkeypatch.setattr(corpus_module, "_MEMORY_BYTES", 0)
    monkeypatch.setattr(corpus_module, "store_vectors", lambda *a, **k: (stored.append(a[3].name), store(*a, **k))[1])
    run_with_heads(tiny_folders["bert"], tmp_path / "run", collection)
    assert set(stored) == {"base", "dev", "select", "tuned"}
    assert not (tmp_path / "run" / "vectors").exists()
    for stage in ("base", "tuned"):
        expected = read(Path(whole_run[0].output), stage, "metrics.json")
        for head, metrics in read(tmp_path / "run", stage, "metrics.json").items():
            assert metrics == pytest.approx(expected[head], abs=0.1), "multi-vectors are float16 there"
            if head == "dense":
                assert metrics == expected[head]


def test_a_verdict_by_another_head_and_untuned_weights(tiny_folders, collection, tmp_path):
    _, result = run_with_heads(tiny_folders["bert"], tmp_path / "run", collection, head="multi", tune_weights=False)
    assert result.head == "multi"
    assert result.tuned == pytest.approx(read(tmp_path / "run", "tuned", "metrics.json")["multi"][METRIC], abs=1e-6)
    assert not (tmp_path / "run" / "train" / "hybrid.json").exists()
    weights = read(tmp_path / "run", "model", "m3tune.json")["hybrid_weights"]
    assert weights == {"dense": 1.0, "sparse": 0.3, "multi": 1.0}


def test_heads_that_nobody_taught_are_not_delivered(tiny_folders, collection, tmp_path, monkeypatch):
    monkeypatch.setattr(delivering, "verdict", lambda *_: "worse")
    _, result = run_with_heads(tiny_folders["bert"], tmp_path / "run", collection)
    assert result.delivered == "base"
    assert read(tmp_path / "run", "model", "m3tune.json")["heads"] == ["dense"]
    assert not list((tmp_path / "run" / "model").glob("*_linear.pt"))


def test_a_base_with_heads_is_measured_and_delivered_by_its_own_hybrid(m3_folder, collection, tmp_path):
    recipe = build_recipe({
        "output": str(tmp_path / "run"),
        "data": {"path": str(write_llamaindex(tmp_path / "data.json", collection))},
        "model": {"path": str(m3_folder)},
        "train": {**BASE, "max_steps": 1, "learning_rate": 1e-9},
        "evaluate": {"resamples": 100},
    })  # fmt: skip
    result = pipeline.run(recipe)
    assert (result.head, result.difference, result.delivered) == ("hybrid", 0.0, "base")
    weights = read(tmp_path / "run", "base", "hybrid.json")["best"]["weights"]
    assert read(tmp_path / "run", "model", "m3tune.json")["hybrid_weights"] == weights


def test_a_head_that_nothing_gives_cannot_decide(tiny_folders, collection, tmp_path):
    recipe = build_recipe({
        "output": str(tmp_path / "run"),
        "data": {"path": str(write_llamaindex(tmp_path / "data.json", collection))},
        "model": {"path": str(tiny_folders["bert"])},
        "evaluate": {"head": "hybrid"},
    })  # fmt: skip
    with pytest.raises(RecipeError, match="'hybrid' decides, but this model has dense only") as caught:
        pipeline.run(recipe)
    assert caught.value.where == "evaluate.head"
