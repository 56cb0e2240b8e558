import json
import shutil

import numpy as np
import pytest

from m3tune import delivering, measuring, pipeline, preparation, selecting, tuning
from m3tune.artifact import MANIFEST, read_json
from m3tune.config import EvaluateConfig, ModelConfig
from m3tune.data import token_store
from m3tune.data.prepared import load_split
from m3tune.errors import ArtifactError, DataError, ModelError
from m3tune.model.weights import load_encoder
from m3tune.processes import alone_in
from m3tune.recipe import build_recipe, load_recipe
from m3tune.retrieval.encode import encode
from m3tune.types import Split
from tiny import save_tiny_encoder, tiny_collection, write_flagembedding, write_llamaindex

STAGES = ("data", "bm25", "base", "train", "select", "tuned", "model")
METRICS = ("nDCG@10", "RR@10", "AP@100", "Success@1", "Recall@10", "Recall@100")
TEXTS = ["c01 r02 r03", "r05 c03 c03 r17", "c00"]
WRITERS = {"llamaindex": write_llamaindex, "flagembedding": write_flagembedding}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the collection in both formats and an encoder."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name, write in WRITERS.items():
        write(folder / f"{name}.json", tiny_collection())
    save_tiny_encoder(folder / "encoder")
    return folder


def recipe_for(place, output, data="llamaindex", **train):
    settings = {"epochs": 6, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}
    return build_recipe(
        {
            "output": str(output),
            "data": {"path": str(place / f"{data}.json")},
            "model": {"path": str(place / "encoder")},
            "train": settings | train,
            "evaluate": {"resamples": 200},
            "select": {"alphas": []},  # merges have a file of their own, test_selecting.py
        }
    )


@pytest.fixture(scope="module", params=WRITERS)
def finished(request, place):
    """(recipe, verdict, what was said) of a whole run on each format. Never written to."""
    said = []
    negatives = {"negatives_per_query": 2} if request.param == "flagembedding" else {}
    recipe = recipe_for(place, place / f"run-{request.param}", request.param, **negatives)
    return recipe, pipeline.run(recipe, said.append), said


@pytest.fixture
def copied(place, tmp_path):
    """A copy of the finished LlamaIndex run to go on from, and the recipe for it."""
    recipe = recipe_for(place, place / "run-llamaindex")
    if not (place / "run-llamaindex" / "verdict.json").exists():
        pipeline.run(recipe)
    shutil.copytree(place / "run-llamaindex", tmp_path / "run")
    return tmp_path / "run", recipe_for(place, tmp_path / "run")


def folder_of(recipe):
    return pipeline.Path(recipe.output)


def manifests(folder):
    """Stage -> the manifest's bytes, which hold when it finished, and when the file was written."""
    return {stage: ((folder / stage / MANIFEST).read_bytes(), (folder / stage / MANIFEST).stat().st_mtime_ns)
            for stage in STAGES}  # fmt: skip


def changed_stages(before, after):
    return [stage for stage in STAGES if before[stage] != after[stage]]


def vectors(folder):
    return encode(load_encoder(ModelConfig(path=str(folder)))[0], TEXTS, "passage")


# --- a whole run


def test_verdict_json_holds_exactly_what_programs_were_promised(finished):
    recipe, result, _ = finished
    verdict = json.loads((folder_of(recipe) / "verdict.json").read_text())
    assert {key: type(value) for key, value in verdict.items()} == {
        "metric": str, "base": float, "tuned": float, "difference": float, "ci95": list, "p_value": float,
        "queries": int, "verdict": str, "delivered": str, "checkpoint": int, "head": str,
    }  # fmt: skip
    assert verdict["metric"] == "nDCG@10"
    assert verdict["verdict"] in ("better", "no worse", "inconclusive", "worse")
    assert verdict["delivered"] in ("tuned", "base")
    low, high = verdict["ci95"]
    assert low <= verdict["difference"] <= high
    assert verdict["difference"] == pytest.approx(verdict["tuned"] - verdict["base"], abs=2e-6)
    assert 0 <= verdict["p_value"] <= 1
    assert verdict["queries"] == len(read_json(folder_of(recipe) / "data" / "split.json")["test"]) == 12
    assert verdict == {**vars(result), "ci95": list(result.ci95)}


def test_tuning_is_found_to_be_better_and_delivered(finished):
    recipe, result, said = finished
    assert (result.verdict, result.delivered) == ("better", "tuned")
    assert result.tuned > result.base + 0.2
    selection = read_json(folder_of(recipe) / "select" / "selection.json")
    assert selection["chosen"] == "tuned"
    assert selection["checkpoint"] == result.checkpoint > 0
    assert any("train, " in line and "12 test" in line for line in said)
    assert not any("only in-batch negatives" in line for line in said)


def test_metrics_json_of_every_model_has_every_metric_of_its_head(finished):
    recipe, result, _ = finished
    for name, head in {"base": "dense", "tuned": "dense", "bm25": "bm25", "base/dev": "dense"}.items():
        metrics = read_json(folder_of(recipe) / name / "metrics.json")
        assert set(metrics) == {head}
        assert set(metrics[head]) == set(METRICS)
        assert all(isinstance(value, float) and 0 <= value <= 1 for value in metrics[head].values())
    for name in ("base", "tuned"):
        mean = read_json(folder_of(recipe) / name / "metrics.json")["dense"]["nDCG@10"]
        assert mean == pytest.approx(getattr(result, name), abs=1e-6)


def test_every_stage_is_whole_and_nothing_is_left_half_written(finished):
    recipe, _, _ = finished
    folder = folder_of(recipe)
    assert all((folder / stage / MANIFEST).is_file() for stage in STAGES)
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("checkpoint-*")), "the best one is train/model"
    assert not list(folder.rglob("begun.json"))
    assert load_recipe(folder / "resolved.toml") == recipe
    assert [item["metric"] for item in read_json(folder / "comparison.json")] == list(METRICS)
    assert "<html" in (folder / "report.html").read_text()


def test_counts_balance(finished):
    recipe, _, _ = finished
    counts = {stage: read_json(folder_of(recipe) / stage / MANIFEST)["counts"] for stage in STAGES}
    data = counts["data"]
    assert data["queries"] == data["train"] + data["dev"] + data["test"] == 60
    assert data["judgments"] == 60
    assert counts["train"]["queries"] == data["train"]
    assert counts["base"]["test_queries"] == counts["tuned"]["test_queries"] == data["test"]
    assert counts["base"]["passages"] == data["passages"]
    assert 0 < counts["base"]["dev_passages"] <= data["passages"]


def test_the_delivered_model_is_the_chosen_one_and_loads(finished):
    recipe, _, _ = finished
    folder = folder_of(recipe)
    delivered = vectors(folder / "model")
    assert np.array_equal(delivered, vectors(folder / "train" / "model"))
    assert np.abs(delivered - vectors(recipe.model.path)).max() > 0.1


@pytest.mark.peers
def test_the_delivered_model_loads_in_sentence_transformers(finished):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder = folder_of(finished[0]) / "model"
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors(folder), theirs, atol=1e-5)


def test_the_split_that_a_run_wrote_is_read_back(finished):
    recipe, _, _ = finished
    split = load_split(folder_of(recipe) / "data")
    assert split == preparation.prepare(recipe.data, folder_of(recipe) / "data", pipeline.silent).split
    assert len(split.train) + len(split.dev) + len(split.test) == 60


# --- what is up to date is skipped


def fail(*_, **__):
    pytest.fail("a stage that is up to date ran again")


def test_a_second_run_does_nothing_and_says_the_same(copied, monkeypatch):
    folder, recipe = copied
    before, verdict = manifests(folder), (folder / "verdict.json").read_text()
    for name in ("measure_encoder", "measure_bm25", "load_encoder"):
        monkeypatch.setattr(measuring, name, fail)
    for name in ("tune_on_dev", "load_encoder", "save_encoder"):
        monkeypatch.setattr(tuning, name, fail)
    monkeypatch.setattr(selecting, "load_encoder", fail)
    for name in ("load_encoder", "save_encoder"):
        monkeypatch.setattr(delivering, name, fail)
    for name in ("read_collection", "find_similar", "split_queries"):
        monkeypatch.setattr(preparation, name, fail)
    pipeline.run(recipe)
    assert manifests(folder) == before
    assert (folder / "verdict.json").read_text() == verdict


def rerun(copied, *overrides):
    """Run again with changes; returns the stages that were made anew."""
    folder, recipe = copied
    before = manifests(folder)
    pipeline.run(load_recipe(folder / "resolved.toml", [f"output={folder}", *overrides]))
    assert recipe.output == str(folder)
    return changed_stages(before, manifests(folder))


def test_another_learning_rate_trains_again_and_leaves_data_and_base(copied):
    assert rerun(copied, "train.learning_rate=4e-3") == ["train", "select", "tuned", "model"]


def test_another_seed_of_the_split_does_everything_again(copied):
    assert rerun(copied, "data.seed=1") == list(STAGES)


def test_another_prompt_does_all_but_the_data_and_bm25_again(copied):
    assert set(rerun(copied, "model.query_prompt=c01 ")) >= {"base", "train", "select", "tuned", "model"}
    assert load_encoder(ModelConfig(path=str(copied[0] / "model")))[0].settings.query_prompt == "c01 "


def test_a_changed_model_does_all_but_the_data_again(copied, tmp_path):
    other = save_tiny_encoder(tmp_path / "other", seed=1)
    assert rerun(copied, f"model.path={other}")[-5:] == ["base", "train", "select", "tuned", "model"]


def test_another_depth_measures_again_without_training(copied):
    assert {"base", "tuned"} <= set(changed := rerun(copied, "evaluate.depth=50"))
    assert "train" not in changed


def test_another_precision_measures_the_base_again(copied):
    assert "base" in rerun(copied, "train.precision=bfloat16", "train.max_steps=1")


def test_another_development_corpus_is_made_with_the_base_and_trained_on(copied):
    assert {"base", "train"} <= set(rerun(copied, "data.dev_depth=2", "train.max_steps=1"))


def test_another_rule_chooses_anew_without_training(copied):
    assert rerun(copied, "select.noise=0.2") == ["select", "tuned", "model"]


def test_another_margin_changes_the_word_without_training(copied):
    assert "train" not in rerun(copied, "evaluate.no_worse_margin=0.5")


# --- what is delivered


def test_where_nothing_was_learned_the_base_is_chosen_and_delivered(copied):
    folder, recipe = copied
    said = []
    overrides = [f"output={folder}", "train.learning_rate=1e-9"]
    result = pipeline.run(load_recipe(folder / "resolved.toml", overrides), said.append)
    assert read_json(folder / "select" / "selection.json")["chosen"] == "base"
    assert "the base is kept: no checkpoint beat it on development data" in said
    assert (result.delivered, result.difference, result.verdict) == ("base", 0.0, "no worse")
    assert np.array_equal(vectors(folder / "model"), vectors(recipe.model.path))


def test_what_is_worse_on_test_data_is_not_delivered(copied, monkeypatch):
    folder, recipe = copied
    assert not np.array_equal(vectors(folder / "model"), vectors(recipe.model.path))
    monkeypatch.setattr(delivering, "verdict", lambda *_: "worse")
    result = pipeline.run(recipe)
    assert (result.verdict, result.delivered) == ("worse", "base")
    assert np.array_equal(vectors(folder / "model"), vectors(recipe.model.path))


def test_a_run_of_one_step_has_a_report_too(place, tmp_path):
    pipeline.run(recipe_for(place, tmp_path / "run", max_steps=1))
    assert (tmp_path / "run" / "report.html").is_file()


# --- mistakes


def test_no_text_is_tokenised_twice_in_a_whole_run_even_if_it_is_cut_off(place, tmp_path, monkeypatch):
    seen = []
    in_chunks = token_store.in_chunks

    def spied(texts, tokenizer, max_tokens):
        return in_chunks((seen.append((max_tokens, text)) or text for text in texts), tokenizer, max_tokens)

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(token_store, "in_chunks", spied)
    recipe = recipe_for(place, tmp_path / "run", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "measure_tuned", cut_off)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe)
    assert (tmp_path / "run" / "tokens").is_dir()
    counts = [read_json(tmp_path / "run" / stage / MANIFEST)["counts"] for stage in ("base", "train")]
    asked = sum(of["passages"] for of in counts) + counts[1]["queries"]
    pipeline.run(recipe)
    assert len(seen) == len(set(seen)) < asked
    assert not (tmp_path / "run" / "tokens").exists()


def test_wrong_data_leaves_no_stage(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run", data="missing")
    with pytest.raises(DataError, match="does not exist"):
        pipeline.run(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("side", ["dev", "test"])
def test_a_run_without_queries_to_choose_or_to_judge_ends_before_anything_is_encoded(place, tmp_path, side):
    recipe = recipe_for(place, tmp_path / "run")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={side: 0.0})})
    with pytest.raises(DataError, match=f"the split has no {side} queries") as caught:
        pipeline.run(recipe)
    assert caught.value.where == f"data.{side}"
    assert not {"base", "base.partial", "bm25", "train"} & {file.name for file in (tmp_path / "run").iterdir()}


def test_a_run_without_queries_to_train_on_says_so():
    with pytest.raises(DataError, match="no train queries") as caught:
        preparation.check_sides(Split((), ("q0",), ("q1",)))
    assert "not in dev or test" in caught.value.fix


def test_two_processes_do_not_fill_one_run(place, tmp_path):
    with alone_in(tmp_path / "run"), pytest.raises(ArtifactError, match="another m3tune is at work here"):
        pipeline.run(recipe_for(place, tmp_path / "run"))
    assert not any((tmp_path / "run").iterdir())  # not even its own recipe over that of the other


def test_a_model_that_is_not_there_leaves_no_stage_that_needs_it(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run")
    recipe = recipe.model_copy(update={"model": ModelConfig(path=str(place / "encoderr"))})
    with pytest.raises(ModelError, match="does not exist") as caught:
        pipeline.run(recipe)
    assert caught.value.fix == f"did you mean {place / 'encoder'}?"
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"resolved.toml", "data", "bm25"}


# --- measuring any model on any data


def test_evaluate_measures_a_model_with_bm25_beside_it_and_only_once(place, tmp_path, monkeypatch):
    collection = tiny_collection()
    query_ids = list(collection.queries)[:20]
    config = EvaluateConfig(metrics=("nDCG@10", "Success@1"), resamples=200)
    arguments = (ModelConfig(path=str(place / "encoder")), collection, query_ids, config, tmp_path / "e", "tiny")
    dense, bm25 = pipeline.evaluate(*arguments)
    assert (dense.name, dense.head, bm25.name, bm25.head) == ("tiny", "dense", "bm25", "bm25")
    assert set(dense.per_query) == {"nDCG@10", "Success@1"}
    assert set(dense.per_query["nDCG@10"]) == set(query_ids)
    assert all(len(hits) == 90 for hits in dense.run.values())  # fewer passages than the depth of 100
    monkeypatch.setattr(measuring, "measure_encoder", fail)
    assert pipeline.evaluate(*arguments) == [dense, bm25]
