"""A run again: the same figures, and what is said where they are not."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from m3tune import pipeline
from m3tune.artifact import read_json, write_json
from m3tune.errors import ArtifactError
from m3tune.recipe import build_recipe, load_recipe
from m3tune.record import RESULTS, RUN, record_run
from m3tune.replaying import replay
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run. Never written to."""
    place = tmp_path_factory.mktemp("replaying")
    recipe = build_recipe(
        {
            "output": str(place / "run"),
            "data": {"path": str(write_llamaindex(place / "data.json", tiny_collection()))},
            "model": {"path": str(save_tiny_encoder(place / "encoder"))},
            "train": {"epochs": 3, "batch_queries": 8, "learning_rate": 5e-3},
            "evaluate": {"resamples": 200},
            "select": {"alphas": [0.7]},
        }
    )
    pipeline.run(recipe)
    return place / "run"


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def changed(file, change):
    content = read_json(file)
    change(content)
    write_json(file, content)


def test_the_record_says_what_the_run_depended_on(finished):
    record = read_json(finished / RUN)
    assert set(record) == {"recipe", "data", "model", "precision", "machine", "versions", "stages"}
    assert record["data"] == read_json(finished / "data" / "manifest.json")["inputs"]["source"]
    assert record["model"] == read_json(finished / "base" / "manifest.json")["inputs"]["model"]
    assert record["precision"] in ("float32", "bfloat16")
    assert {"platform", "processors", "instructions", "device", "device_name", "threads"} == set(record["machine"])
    assert {"python", "m3tune", "torch", "transformers", "numpy"} <= set(record["versions"])
    assert list(record["stages"]) == ["data", "bm25", "base", "train", "select", "tuned", "model"]


def test_the_record_keeps_where_stages_were_made_when_nothing_is_made_anew(copied):
    changed(copied / RUN, lambda record: record["machine"].update(platform="elsewhere"))
    record_run(copied, load_recipe(copied / "resolved.toml"))
    assert read_json(copied / RUN)["machine"]["platform"] == "elsewhere"
    changed(copied / "tuned" / "manifest.json", lambda manifest: manifest.update(finished="later"))
    record_run(copied, load_recipe(copied / "resolved.toml"))
    assert read_json(copied / RUN)["machine"]["platform"] != "elsewhere"


def test_a_replay_on_the_same_machine_gives_the_very_same(finished, tmp_path, m3tune):
    code, out, err = m3tune("replay", finished, "--out", tmp_path / "again")
    assert code == 0, err
    figures = sum(1 for _ in (finished / "comparison.json").read_text().split('"metric"')) - 1
    assert figures == 6
    assert "of" in out
    assert "figures are the same" in out
    assert "other " not in out
    for name in RESULTS:
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "again", finished))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert load_recipe(tmp_path / "again" / "resolved.toml").train.precision == read_json(finished / RUN)["precision"]


def test_what_came_out_otherwise_is_named_with_what_else_differs(copied, tmp_path, m3tune):
    changed(copied / "tuned" / "metrics.json", lambda metrics: metrics["dense"].update({"RR@10": 0.123}))
    changed(copied / RUN, lambda record: record["versions"].update(torch="2.0.0"))
    code, out, _ = m3tune("replay", copied)
    assert code == 1
    assert "tuned/metrics.json: dense RR@10" in out
    assert "0.123" in out
    assert "other versions torch: 2.0.0 in the run" in out
    assert (copied.with_name("run-replay") / "verdict.json").is_file()
    code, out, err = m3tune("replay", copied, "--json")
    found = json.loads(out)
    assert (code, err, found["same"]) == (1, "", False)
    assert [of["where"] for of in found["results"]] == ["tuned/metrics.json: dense RR@10"]
    assert found["results"][0]["run"] == 0.123
    assert [of["where"] for of in found["origins"]] == ["versions torch"]
    assert found["figures"] > 70


def test_other_data_is_seen(copied, tmp_path):
    recipe = (copied / "resolved.toml").read_text()
    other = write_llamaindex(tmp_path / "other.json", tiny_collection(seed=4))
    (copied / "resolved.toml").write_text(recipe.replace(load_recipe(copied / "resolved.toml").data.path, str(other)))
    found = replay(copied, tmp_path / "again", lambda _: None)
    assert [of.where for of in found.origins] == ["recipe", "data"]
    assert found.results


def test_a_run_is_replayed_neither_into_itself_nor_before_it_is_finished(copied):
    with pytest.raises(ArtifactError, match="into itself"):
        replay(copied, copied / ".." / "run", lambda _: None)
    (copied / "verdict.json").unlink()
    with pytest.raises(ArtifactError, match=r"verdict\.json"):
        replay(copied, copied.with_name("again"), lambda _: None)
    assert not copied.with_name("again").exists()
