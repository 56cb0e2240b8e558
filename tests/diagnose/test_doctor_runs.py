"""The doctor on genuine tiny runs: healthy ones are silent, in those made to go wrong the cause stands first."""

import functools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from ailing import base_model, collection, half_false, prepared_data, run_of, shuffled

from m3tune.artifact import read_json, write_json
from m3tune.config import ModelConfig
from m3tune.diagnose.doctor import sampling
from m3tune.diagnose.doctor.reading import read_model, read_run, statements
from m3tune.diagnose.doctor.registry import case_findings
from m3tune.encoding import encode_collection
from m3tune.errors import ArtifactError, ModelError
from m3tune.model.weights import load_encoder, save_encoder
from tiny import save_tiny_encoder, save_tiny_m3, tiny_collection, write_flagembedding, write_llamaindex


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> a finished run, made when it is first asked for. Never written to."""
    place = tmp_path_factory.mktemp("runs")
    base, whole = base_model(place), collection()
    recipes = {
        "healthy": (lambda: whole, {}),
        "shuffled": (lambda: shuffled(whole), {}),
        "half false": (lambda: half_false(whole), {"negatives_per_query": 4}),
        "high rate": (lambda: whole, {"learning_rate": 0.3}),
        "no rate": (lambda: whole, {"learning_rate": 1e-9, "max_steps": 2}),
    }

    def of(name):
        if not (place / name).is_dir():
            make, train = recipes[name]
            run_of(place, name, prepared_data(place / f"{name} data", make()), base, **train)
        return place / name

    return of


@pytest.fixture(scope="module")
def cases(runs):
    """name -> what the doctor knows of a run, read once."""
    return functools.cache(lambda name: read_run(runs(name)))


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the healthy run to plant something in."""
    shutil.copytree(runs("healthy"), tmp_path / "run")
    return tmp_path / "run"


def severe(case):
    return [finding.code for finding in case_findings(case) if finding.severity != "note"]


# --- whole runs


def test_a_healthy_run_is_silent(cases):
    case = cases("healthy")
    assert case.verdict["verdict"] == "better"
    assert severe(case) == []
    assert case.sample.num_train == 140
    assert len(case.sample.query_ids) == 240
    assert 0.005 < case.moved.weights < 0.15


def test_a_random_encoder_on_llamaindex_data_is_silent(tmp_path):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection(240, 400))
    base = save_tiny_encoder(tmp_path / "xlmr", "xlm-roberta")
    case = read_run(run_of(tmp_path, "run", data, base, learning_rate=5e-3, epochs=8))
    assert case.verdict["verdict"] == "better"
    assert severe(case) == []


def test_flagembedding_rows_beside_a_model_are_silent(runs, tmp_path):
    data = write_flagembedding(tmp_path / "rows.jsonl", tiny_collection(240, 400))
    case = read_model(str(runs("healthy") / "model"), str(data))
    assert [code for code in severe(case) if code != "few-queries"] == [], "240 queries are too few for a test"
    assert case.sample.given.sum() > 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("shuffled", "shuffled-labels"),
        ("half false", "false-negatives"),
        ("high rate", "high-learning-rate"),
        ("no rate", "low-learning-rate"),
    ],
)
def test_the_true_cause_stands_first(cases, name, code):
    finding, *_ = case_findings(cases(name))
    assert finding.code == code
    assert finding.severity in ("error", "warning")


def test_the_figures_are_near_the_truth(cases):
    (dealt,) = [f for f in case_findings(cases("shuffled")) if f.code == "shuffled-labels"]
    assert dealt.evidence["shuffled"] > 0.8
    (false,) = [f for f in case_findings(cases("half false")) if f.code == "false-negatives"]
    assert 0.3 < false.evidence["estimated_share"] < 0.7
    assert false.examples


# --- what is read


def test_a_sample_is_scored_as_searching_scores(runs, monkeypatch):
    monkeypatch.setattr(sampling, "pick_precision", lambda *_: torch.float32)  # on machines with fast bfloat16 too
    case = read_run(runs("half false"), 20)
    sample = case.sample
    assert (sample.num_train, len(sample.query_ids)) == (20, 40)
    base, _ = load_encoder(case.recipe.model)
    from m3tune.retrieval.encode import encode

    queries = encode(base, [case.collection.queries[q].text for q in sample.query_ids], "query")
    passages = encode(base, [case.collection.passages[p].full_text for p in sample.passage_ids], "passage")
    np.testing.assert_allclose(sample.scores["base"], queries @ passages.T, atol=1e-4)
    for row, query_id in enumerate(sample.query_ids):
        positives = {sample.passage_ids[i] for i in np.flatnonzero(sample.positive[row])}
        assert positives == set(case.collection.positives[query_id])
        given = {sample.passage_ids[i] for i in np.flatnonzero(sample.given[row])}
        assert given <= set(case.collection.given_negatives.get(query_id, ()))
        assert bool(given) == (row < 20)
    assert not (sample.given & sample.relevant).any()


def test_given_negatives_that_a_run_did_not_use_are_not_looked_at(runs):
    case = read_run(runs("half false"), 0)
    assert case.sample is None
    unused = case.recipe.model_copy(update={"train": case.recipe.train.model_copy(update={"negatives_per_query": 0})})
    from m3tune.diagnose.doctor.sampling import take_sample

    encoder, _ = load_encoder(case.recipe.model)
    assert not take_sample(replace(case, recipe=unused), encoder, 20).given.any()


def test_how_far_training_went_is_measured(cases):
    moved = cases("no rate").moved
    assert moved.weights < 1e-5
    assert moved.cosine == pytest.approx(1, abs=1e-4)


def test_without_a_sample_the_artefacts_alone_are_read(runs):
    case = read_run(runs("high rate"), 0)
    assert case.moved is None
    assert case_findings(case)[0].code == "high-learning-rate"


def test_a_run_that_was_cut_off_is_read_as_far_as_it_goes(copy):
    (copy / "train").rename(copy / "train.partial")
    for name in ("tuned", "model"):
        shutil.rmtree(copy / name)
    for name in ("train.partial/selection.json", "verdict.json"):
        (copy / name).unlink()
    with (copy / "train.partial" / "log.jsonl").open("a") as log:
        log.write('{"step": 29, "loss": NaN}\n{"step": 3')
    case = read_run(copy, 20)
    assert case_findings(case)[0].code == "not-finite"


def test_a_base_model_that_is_gone_can_be_done_without(copy):
    file = copy / "resolved.toml"
    file.write_text(file.read_text().replace("knowing", "gone"))
    with pytest.raises(ModelError, match="--sample 0"):
        read_run(copy)
    assert severe(read_run(copy, 0)) == []


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no run directory"):
        read_run(tmp_path)


# --- illnesses planted in the files


def test_a_delivered_model_with_another_prompt_is_found(copy):
    settings = read_json(copy / "model" / "m3tune.json")
    write_json(copy / "model" / "m3tune.json", settings | {"query_prompt": "query: "})
    finding, *_ = case_findings(read_run(copy, 0))
    # The folder's own files contradict one another now, and it is not as it was measured.
    assert finding.code == "conflicting-files"
    assert "differing-settings" in [f.code for f in case_findings(read_run(copy, 0))]


def test_a_pooling_that_another_library_reads_otherwise_is_found(copy):
    (copy / "model" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (finding,) = [f for f in case_findings(read_run(copy, 0)) if f.severity == "error"]
    assert finding.code == "conflicting-files"
    assert finding.evidence["differing"]["pooling"] == {"m3tune.json": "mean", "modules.json": "cls"}


def test_head_files_without_modules_are_read_by_others_as_mean_pooling(tmp_path):
    said = statements(save_tiny_m3(tmp_path / "m3"))
    assert {file: of["pooling"] for file, of in said.items()} == {"sparse_linear.pt": "cls", "no modules.json": "mean"}
    assert statements(save_tiny_encoder(tmp_path / "plain")) == {}


def test_another_tokenizer_beside_the_weights_is_found(copy):
    file = copy / "train" / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["r01"], vocabulary["r02"] = vocabulary["r02"], vocabulary["r01"]
    file.write_text(json.dumps(content))
    (finding,) = [f for f in case_findings(read_run(copy, 20)) if f.severity == "error"]
    assert finding.code == "differing-tokenizer"
    assert finding.evidence["count"] > 0


def test_texts_that_the_model_cannot_write_are_found(runs, tmp_path):
    strange = tiny_collection(240, 400)
    passages = {p: replace(passage, text=f"{passage.text} 鯨 whale") for p, passage in strange.passages.items()}
    data = write_llamaindex(tmp_path / "data.json", replace(strange, passages=passages))
    case = read_model(str(runs("healthy") / "model"), str(data), 30)
    finding, *_ = case_findings(case)
    assert finding.code == "unknown-tokens"
    assert 0.1 < case.reading.unknown < 0.25  # two of ten words


def test_passages_longer_than_the_model_reads_are_told_by_query(copy):
    for place in ("train/model", "model"):
        settings = read_json(copy / place / "m3tune.json")
        write_json(copy / place / "m3tune.json", settings | {"passage_max_tokens": 9})  # of ten
    assert all(read_run(copy, 20).reading.cut.values())


def test_vectors_of_another_model_are_found(copy, tmp_path):
    small = tiny_collection(5, 9)
    for name, folder in (("own", copy / "model"), ("before", copy.parent / "other")):
        if name == "before":
            save_encoder(load_encoder(ModelConfig(path=read_recipe_model(copy)))[0], folder)
        encode_collection(load_encoder(ModelConfig(path=str(folder)))[0], small, tmp_path / name, "passages")
    (finding,) = [f for f in case_findings(read_run(copy, 0, [tmp_path / "own", tmp_path / "before"])) if
                  f.code == "stale-vectors"]  # fmt: skip
    assert finding.where == str(tmp_path / "before" / "passages")
    assert finding.evidence["differing"] == ["weights"]
    with pytest.raises(ArtifactError, match="no finished vectors"):
        read_run(copy, 0, [tmp_path])


def read_recipe_model(run):
    from m3tune.recipe import load_recipe

    return load_recipe(run / "resolved.toml").model.path


# --- the command


def test_the_command_says_the_cause_first_and_leaves_with_one(m3tune, runs):
    code, out, _ = m3tune("doctor", runs("high rate"), "--json")
    printed = json.loads(out)
    assert code == 1
    assert printed["findings"][0]["code"] == "high-learning-rate"
    code, out, _ = m3tune("doctor", runs("high rate"), "--sample", "0")
    assert code == 1
    assert out.index("high-learning-rate") < out.index("dense-vectors-collapse")
    assert "more: docs/findings/high-learning-rate.md" in out


def test_the_command_leaves_with_nothing_after_a_healthy_run(m3tune, runs):
    code, out, _ = m3tune("doctor", runs("healthy"), "--sample", "40")
    assert code == 0
    assert "better, delivered: tuned" in out


def test_a_model_needs_data_beside_it(m3tune, runs, tmp_path):
    code, _, err = m3tune("doctor", runs("healthy") / "model")
    assert code == 2
    assert "m3tune doctor" in err
    data = write_llamaindex(tmp_path / "data.json", tiny_collection(240, 400))
    code, out, _ = m3tune("doctor", runs("healthy") / "model", data, "--sample", "40", "--json")
    assert code == 1  # too few queries for a test
    assert [f["code"] for f in json.loads(out)["findings"] if f["severity"] != "note"] == ["few-queries"]
