"""The card of a delivered model: metadata that Hugging Face takes, figures that are the verdict's, code that runs."""

import re

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from m3tune import pipeline
from m3tune.artifact import read_json, write_json
from m3tune.config import ModelConfig
from m3tune.model.weights import load_encoder, model_fingerprint
from m3tune.recipe import build_recipe, load_recipe
from m3tune.report.card import CARD, card
from m3tune.report.gather import gather
from m3tune.report.html import write_report
from tiny import save_tiny_encoder, save_tiny_m3, tiny_collection, write_llamaindex


def finished_run(place, model):
    recipe = build_recipe(
        {
            "output": str(place / "run"),
            "data": {"path": str(write_llamaindex(place / "manuals.json", tiny_collection())), "dev": 0.3},
            "model": {"path": str(model), "query_prompt": 'c00 "c01" ', "query_max_tokens": 16},
            "train": {"epochs": 20, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32"},
            "evaluate": {"resamples": 200},
            "select": {"alphas": [0.7]},
        }
    )
    return place / "run", pipeline.run(recipe)


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    """(folder, verdict) of a run of a dense encoder. Never written to."""
    place = tmp_path_factory.mktemp("dense")
    return finished_run(place, save_tiny_encoder(place / "little-bert"))


@pytest.fixture(scope="module")
def m3_run(tmp_path_factory):
    place = tmp_path_factory.mktemp("m3")
    return finished_run(place, save_tiny_m3(place / "little-m3"))


def figures(run, **changes):
    """(metric -> value of the card's model-index, the card) with verdict.json changed."""
    data = gather(run)
    data["verdict"] = data["verdict"] | changes
    content = ModelCard(card(data, read_json(run / "model" / "m3tune.json")))
    return {result.metric_name: result.metric_value for result in content.data.eval_results}, content


def test_hugging_face_parses_the_card_and_the_figures_are_the_verdicts(dense_run):
    run, verdict = dense_run
    assert verdict.delivered != "base", "or the test shows less than it says"
    loaded = ModelCard.load(run / "model" / CARD)
    assert loaded.data.library_name == "sentence-transformers"
    assert loaded.data.pipeline_tag == "sentence-similarity"
    assert {"m3tune", "sentence-transformers", "dense"} <= set(loaded.data.tags)
    assert loaded.data.model_name == "little-bert tuned on manuals.json"
    assert "language" not in loaded.data.to_dict(), "nobody told which"
    assert "base_model" not in loaded.data.to_dict(), "a local folder is no name on the Hub"
    found = {result.metric_name: result.metric_value for result in loaded.data.eval_results}
    assert found["nDCG@10"] == verdict.tuned
    assert found == {row["metric"]: round(row["tuned"], 6) for row in read_json(run / "comparison.json")}
    assert len(found) == 6
    name, results = model_index_to_eval_results(loaded.data.to_dict()["model-index"])
    assert (name, len(results)) == (loaded.data.model_name, 6)
    assert {result.metric_type for result in results} >= {"ndcg_at_10", "recall_at_100"}


def test_the_text_has_intervals_bm25_data_recipe_and_what_was_chosen(dense_run):
    run, verdict = dense_run
    text = ModelCard.load(run / "model" / CARD).text
    low, high = verdict.ci95
    assert f"[{low:.3f}, {high:.3f}]" in text
    against = next(pair for pair in read_json(run / "heads.json") if pair["first"]["head"] == "bm25")
    row = next(row for row in against["metrics"] if row["metric"] == "nDCG@10")
    assert f"Against BM25, nDCG@10 is {row['difference']:+.3f} [{row['ci95'][0]:.3f}" in text
    manifests = [read_json(run / stage / "manifest.json") for stage in ("data", "base")]
    assert f"fingerprint `{manifests[0]['inputs']['source']}`: 90 passages" in text
    assert f"fingerprint `{manifests[1]['inputs']['model']}`" in text
    assert "12 test queries" in text
    for row in read_json(run / "select" / "selection.json")["candidates"]:
        assert f"| {row['name']} | {row['dev']:.3f} |" in text
    toml = re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1]
    assert toml == (run / "resolved.toml").read_text()
    assert "What else the model may have forgotten was not measured: 0 of " in text
    assert "{{" not in text
    assert "None" not in text.replace("or None", "")


def code_of(text, word):
    """The block of Python that has a word, for a folder."""
    return next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in block)


def test_the_code_of_m3tune_runs_as_it_stands(dense_run):
    run, _ = dense_run
    names: dict = {}
    exec(code_of((run / "model" / CARD).read_text(), "load_encoder").replace("THIS_FOLDER", str(run / "model")), names)
    assert names["queries"].shape == names["passages"].shape == (1, 32)


@pytest.mark.peers
@pytest.mark.parametrize("word", ["SentenceTransformer", "FlagModel"])
def test_the_code_of_peers_runs_and_gives_the_same_vectors(dense_run, word):
    import numpy as np

    pytest.importorskip("sentence_transformers" if word == "SentenceTransformer" else "FlagEmbedding")
    from m3tune.retrieval.encode import encode

    run, _ = dense_run
    code = code_of((run / "model" / CARD).read_text(), word).replace("THIS_FOLDER", str(run / "model"))
    code = code.replace('"..."', '"c01 r02 r03"').replace(
        "pooling_method", 'devices="cpu", use_fp16=False, pooling_method'
    )
    names: dict = {}
    exec(code, names)
    encoder, _ = load_encoder(ModelConfig(path=str(run / "model")))
    for side in ("query", "passage"):
        theirs = names["queries" if side == "query" else "passages"]
        np.testing.assert_allclose(encode(encoder, ["c01 r02 r03"], side), np.asarray(theirs), atol=1e-5)
    assert not np.allclose(names["queries"], names["passages"]), "or no prompt was put before the query"


def test_only_heads_that_are_there_are_told_of(dense_run, m3_run):
    dense, m3 = ((run / "model" / CARD).read_text() for run, _ in (dense_run, m3_run))
    assert "| vectors | dense |" in dense
    assert "BGEM3FlagModel" not in dense
    assert "weights of the hybrid" not in dense
    assert "| vectors | dense, sparse, multi-vector |" in m3
    assert 'BGEM3FlagModel("THIS_FOLDER", query_instruction_for_retrieval="c00 \\"c01\\" ")' in m3
    weights = read_json(m3_run[0] / "model" / "m3tune.json")["hybrid_weights"]
    assert f"| weights of the hybrid | dense {weights['dense']:.4g}, sparse" in m3
    assert {"dense", "sparse", "multi"} <= set(ModelCard(m3).data.tags)
    for text in (dense, m3):
        assert "longest query, passage | 16, 48 tokens" in text
        assert '`c00 "c01" `' in text


def test_the_base_has_its_own_figures_where_it_is_delivered(dense_run):
    run, verdict = dense_run
    found, content = figures(run, delivered="base", verdict="worse")
    assert found["nDCG@10"] == verdict.base != verdict.tuned
    assert content.data.model_name == "little-bert"
    assert "unchanged" in content.text
    assert "Against BM25" not in content.text


def test_a_base_of_the_hub_is_named(dense_run):
    run, _ = dense_run
    data = gather(run) | {"model": "BAAI/bge-m3"}
    content = ModelCard(card(data, read_json(run / "model" / "m3tune.json")))
    assert content.data.base_model == "BAAI/bge-m3"


@pytest.mark.parametrize("hostile", ["a: b\n- c", "`---`", "x|y]z(", "{{ 7 * 7 }}", "# %20 <b>"])
def test_hostile_names_break_neither_front_matter_nor_text(dense_run, hostile):
    run, verdict = dense_run
    data = gather(run)
    data["data"] = data["data"] | {"path": f"somewhere/{hostile}"}
    content = ModelCard(card(data, read_json(run / "model" / "m3tune.json")))
    assert content.data.eval_results[0].metric_value == verdict.tuned
    assert content.data.eval_results[0].dataset_name == hostile.replace("`", "'")
    assert "49" not in content.data.eval_results[0].dataset_name


def test_the_card_changes_no_fingerprint_and_is_written_anew_with_the_report(dense_run, tmp_path):
    import shutil

    run = shutil.copytree(dense_run[0], tmp_path / "run")
    model = ModelConfig(path=str(run / "model"))
    before = model_fingerprint(model)
    (run / "model" / CARD).unlink()
    assert model_fingerprint(model) == before
    write_json(run / "verdict.json", read_json(run / "verdict.json") | {"verdict": "inconclusive"})
    write_report(run)
    assert "Verdict: **inconclusive**" in (run / "model" / CARD).read_text()
    assert load_recipe(run / "resolved.toml").model.query_prompt == 'c00 "c01" '
