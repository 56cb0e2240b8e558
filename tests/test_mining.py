import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from m3tune import mining, pipeline
from m3tune.artifact import MANIFEST, read_json
from m3tune.data.read import read_collection
from m3tune.errors import DataError, ModelError, RecipeError
from m3tune.negatives.cross_encoder import CrossEncoder
from m3tune.negatives.mined import with_mined, with_promoted
from m3tune.negatives.table import read_candidates, read_negatives
from m3tune.negatives.teacher import Teacher
from m3tune.negatives.verdicts import read_verdicts, write_verdicts
from m3tune.recipe import build_recipe, to_toml
from m3tune.review.project import open_project
from m3tune.types import MINED, SOFT, TAUGHT, Negative, PairVerdict
from tiny import MAX_TOKENS, WORDS, save_tiny_encoder, tiny_collection, tiny_tokenizer, write_llamaindex

SILENT = pipeline.silent


def save_tiny_teacher(folder, outputs=1):
    """A random cross-encoder."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4 + len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=MAX_TOKENS, pad_token_id=0, num_labels=outputs, initializer_range=0.4,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, an encoder and a cross-encoder. Never written to."""
    folder = tmp_path_factory.mktemp("mining")
    write_llamaindex(folder / "data.json", tiny_collection(40, 60))
    save_tiny_encoder(folder / "encoder")
    save_tiny_teacher(folder / "teacher")
    return folder


def recipe_for(place, output, **mine):
    return build_recipe(
        {
            "output": str(output),
            "data": {"path": str(place / "data.json")},
            "model": {"path": str(place / "encoder")},
            "mine": {"negatives_per_query": 3} | mine,
            "train": {
                "max_steps": 2, "batch_queries": 8, "precision": "float32", "evaluations": 1, "negatives_per_query": 2,
            },
            "evaluate": {"resamples": 100},
        }
    )  # fmt: skip


def mined(place, output, **mine):
    """The stage's directory."""
    folder, _ = mining.mine_data(recipe_for(place, output, **mine), "all", SILENT)
    return folder


def test_every_candidate_says_where_it_comes_from_and_what_became_of_it(place, tmp_path):
    folder = mined(place, tmp_path / "out", sources={"model": {"last": 20}, "bm25": {"first": 2, "last": 10}})
    candidates, counts = read_candidates(folder), read_json(folder / MANIFEST)["counts"]
    collection = tiny_collection(40, 60)
    assert counts["candidates"] == len(candidates)
    assert len(candidates) == counts["kept"] + sum(counts["removed"].values())
    assert counts["chosen"] == sum(c.chosen for c in candidates) == 40 * 3 - counts["negatives_missing"]
    assert {source for c in candidates for source in c.sources} == {"model", "bm25"}
    assert all(not c.removed for c in candidates if c.chosen)
    assert any(c.removed for c in candidates)
    assert any(len(c.sources) == 2 and c.sources[0] == "bm25" for c in candidates)
    for c in candidates:
        assert (c.removed == "known relevant") == (c.passage_id in collection.positives[c.query_id])
    known = {(c.query_id, c.positive_score) for c in candidates}
    assert len(known) == 40, "one reference a query"
    own = [c for c in candidates if c.removed == "known relevant"]
    assert own
    assert all(c.score == pytest.approx(c.positive_score, abs=1e-6) for c in own)


def test_scores_are_the_models_own_whatever_found_the_candidate(place, tmp_path):
    from m3tune.model.weights import load_encoder
    from m3tune.retrieval.encode import encode

    recipe = recipe_for(place, tmp_path / "out", sources={"bm25": {"last": 5}}, random_per_query=2)
    folder, _ = mining.mine_data(recipe, "all", SILENT)
    collection, (encoder, _) = tiny_collection(40, 60), load_encoder(recipe.model)
    candidates = read_candidates(folder)
    assert {source for c in candidates for source in c.sources} == {"bm25", "random"}
    texts = [collection.queries[c.query_id].text for c in candidates]
    passages = [collection.passages[c.passage_id].text for c in candidates]
    expected = (encode(encoder, texts, "query") * encode(encoder, passages, "passage")).sum(axis=1)
    assert np.allclose([c.score for c in candidates], expected, atol=1e-5)


def test_mining_is_skipped_when_up_to_date_and_the_same_when_made_again(place, tmp_path):
    first, again = mined(place, tmp_path / "a"), mined(place, tmp_path / "b")
    assert (first / "candidates.parquet").read_bytes() == (again / "candidates.parquet").read_bytes()
    before = (first / MANIFEST).stat().st_mtime_ns
    assert (mined(place, tmp_path / "a") / MANIFEST).stat().st_mtime_ns == before
    other = mined(place, tmp_path / "a", seed=1)
    assert (other / MANIFEST).stat().st_mtime_ns != before
    assert read_candidates(other) != read_candidates(again)


def test_random_ones_stand_beside_the_hard_and_fill_up_only_where_asked(place, tmp_path):
    hard = {"sources": {"model": {"last": 3}}, "negatives_per_query": 4, "threshold": "none"}
    few = read_json(mined(place, tmp_path / "few", **hard) / MANIFEST)["counts"]
    assert few["negatives_missing"] >= 40
    filled = read_json(mined(place, tmp_path / "filled", fill="random", **hard) / MANIFEST)["counts"]
    assert (filled["negatives_missing"], filled["chosen"]) == (0, 160)
    beside = read_candidates(mined(place, tmp_path / "beside", random_per_query=2, **hard))
    random = [c for c in beside if c.chosen and c.sources == ("random",)]
    assert len(random) == 80
    assert len([c for c in beside if c.chosen]) == few["chosen"] + 80


def test_more_negatives_than_the_corpus_has_are_a_stated_shortage(place, tmp_path):
    said = []
    recipe = recipe_for(place, tmp_path / "run", negatives_per_query=500, sources={"model": {"last": 5000}})
    prepared = pipeline.prepare(recipe.data, tmp_path / "run" / "data", SILENT)
    mining.mine(tmp_path / "run", recipe, prepared, recipe.model, said.append)
    assert any("fewer than asked for" in line for line in said)


def test_a_teacher_scores_pairs_once_and_its_scores_reach_training(place, tmp_path, monkeypatch):
    folder = mined(place, tmp_path / "out", teacher=str(place / "teacher"), teacher_margin=0.0)
    negatives = read_negatives(folder)
    assert {negative.source for negative in negatives} == {TAUGHT}
    candidates = {(c.query_id, c.passage_id): c for c in read_candidates(folder)}
    for negative in negatives:
        candidate = candidates[negative.query_id, negative.passage_id]
        assert negative.score == candidate.teacher
        assert candidate.teacher <= candidate.positive_teacher
    assert any(c.removed == "the teacher's score" for c in candidates.values())
    rows = [json.loads(line) for line in (folder / "flagembedding.jsonl").read_text().splitlines()]
    assert all(len(row["pos_scores"]) == len(row["pos"]) and len(row["neg_scores"]) == len(row["neg"]) for row in rows)
    computed = []
    monkeypatch.setattr(CrossEncoder, "logits", lambda self, pairs: computed.extend(pairs) or np.zeros(len(pairs)))
    mined(place, tmp_path / "out", teacher=str(place / "teacher"), sample="top")
    assert not computed, "every pair is in the cache"


def test_the_teachers_batches_give_each_pair_its_own_score(place, tmp_path):
    pairs = [("r01 r02", "c01 " * n + "r02") for n in (1, 30, 2, 17)] + [("r01 r02", "c01 r02")]
    with Teacher(str(place / "teacher"), "f", tmp_path / "cache.sqlite", 32, "float32") as teacher:
        together = teacher.scores(pairs)
        alone = [teacher.encoder.logits([pair])[0] for pair in pairs]
    assert np.allclose(together, alone, atol=1e-5)
    assert together[0] == together[4]
    assert len(set(np.round(together[:4], 4))) == 4


def test_a_teacher_with_two_outputs_is_refused(place, tmp_path):
    teacher = save_tiny_teacher(tmp_path / "two", outputs=2)
    with pytest.raises(ModelError, match="2 outputs"):
        mined(place, tmp_path / "out", teacher=str(teacher))
    assert not (tmp_path / "out").exists()


def test_soft_suspects_are_sampled_and_stay_out_of_the_negatives(place, tmp_path):
    settings = {"teacher": str(place / "teacher"), "teacher_margin": 0.0, "sample": "top", "negatives_per_query": 6}
    hard, soft = (mined(place, tmp_path / name, suspects=name, **settings) for name in ("drop", "soft"))
    counts = read_json(soft / MANIFEST)["counts"]
    labels = [c for c in read_candidates(soft) if c.chosen and c.removed]
    assert counts["soft"] == len(labels) > 20
    assert {c.removed for c in labels} <= {"score near the positive's", "the teacher's score"}
    assert read_json(hard / MANIFEST)["counts"]["soft"] == 0
    page = (soft / "negatives.html").read_text()
    assert f"{counts['chosen'] - counts['soft']:,} negatives for 40 queries" in page
    assert f"{counts['soft']:,} soft labels beside them" in page
    assert "soft labels" not in (hard / "negatives.html").read_text()
    assert not any(c.chosen and c.removed for c in read_candidates(hard))
    known = tiny_collection(40, 60).positives
    assert not any(c.passage_id in known[c.query_id] for c in labels)
    by_source = {source: [n for n in read_negatives(soft) if n.source == source] for source in (SOFT, TAUGHT)}
    assert len(by_source[SOFT]) == len(labels)
    assert len(by_source[SOFT]) + len(by_source[TAUGHT]) == counts["chosen"]
    teacher = {(c.query_id, c.passage_id): c.teacher for c in labels}
    assert all(n.score == teacher[n.query_id, n.passage_id] for n in by_source[SOFT])
    written, _ = read_collection(str(soft / "pairs.parquet"))
    assert {(n.query_id, n.passage_id) for n in written.negatives} == {n[:2] for n in by_source[TAUGHT]}


def test_what_people_find_relevant_trains_as_a_positive_unless_that_is_off(place, tmp_path):
    collection = tiny_collection(40, 60)
    says = [("q0", "p50", "relevant", "person"), ("q1", "p51", "relevant", "model"), ("q2", "p2", "relevant", "person"),
            ("q3", "p52", "not relevant", "person"), ("q4", "p53", "unsure", "person")]  # fmt: skip
    file = tmp_path / "verdicts.jsonl"
    write_verdicts([PairVerdict(q, p, judged, "ann", kind) for q, p, judged, kind in says], file)
    settings = {"verdicts": str(file), "sources": {"model": {"last": 60}}, "teacher": str(place / "teacher")}
    recipe = recipe_for(place, tmp_path / "run", **settings)
    prepared = pipeline.prepare(recipe.data, tmp_path / "run" / "data", SILENT)
    split = replace(prepared.split, train=tuple(collection.queries))
    prepared = replace(prepared, split=split)
    ours = mining.mine(tmp_path / "run", recipe, prepared, recipe.model, SILENT).collection
    assert ours.positives["q0"] == ("p0", "p50")
    assert {q: p for q, p in ours.positives.items() if q != "q0"} == {
        q: p for q, p in collection.positives.items() if q != "q0"
    }
    assert all(judgment.score is not None for judgment in ours.judgments), "the teacher's, for the new one too"
    assert with_promoted(collection, read_verdicts(file), ["q1"]) is collection
    off = recipe_for(place, tmp_path / "run", promote=False, **settings)
    assert mining.mine(tmp_path / "run", off, prepared, recipe.model, SILENT).collection.positives["q0"] == ("p0",)


@pytest.mark.parametrize(
    ("mine", "where"),
    [
        ({"suspects": "soft"}, "mine.suspects"),
        ({"sources": {"denes": {}}}, "mine.sources.denes"),
        ({"sources": {"sparse": {}}}, "mine.sources.sparse"),
        ({"head": "hybrid"}, "mine.head"),
        ({"negatives_per_query": 0}, "mine.negatives_per_query"),
        ({"teacher_margin": 0.1}, "mine.teacher"),
    ],
)
def test_a_recipe_that_cannot_be_mined_says_so(place, tmp_path, mine, where):
    with pytest.raises(RecipeError) as raised:
        mined(place, tmp_path / "out", **mine)
    assert raised.value.where == where
    assert raised.value.fix


def test_no_candidate_at_all_is_an_error(place, tmp_path):
    with pytest.raises(DataError, match="no source found a candidate"):
        mined(place, tmp_path / "out", sources={"document": {}})


def test_given_negatives_stay_beside_and_their_scores_do_not_mix_with_a_teachers(place, tmp_path):
    folder = mined(place, tmp_path / "plain")
    collection = tiny_collection(40, 60)
    given = replace(collection, negatives=(read_negatives(folder)[0]._replace(source="given", score=0.5),
                                           wrong_pair(collection)))  # fmt: skip
    kept = with_mined(given, folder, keep_given=True)
    assert [n.source for n in kept.negatives].count("given") == 1, "what is mined again stands once"
    assert {n.source for n in with_mined(given, folder, keep_given=False).negatives} == {MINED}
    taught = mined(place, tmp_path / "taught", teacher=str(place / "teacher"))
    scored = with_mined(given, taught, keep_given=True)
    assert all(judgment.score is not None for judgment in scored.judgments)
    assert [n.score for n in scored.negatives if n.source == "given"] in ([None], [None, None])


def wrong_pair(collection):
    """Another query's positive, as the data may give it."""
    return Negative("q0", collection.positives["q1"][0], "given", 0.7)


def test_the_multi_vector_and_hybrid_of_a_model_mine_too(m3_folder, place, tmp_path):
    recipe = recipe_for(
        place, tmp_path / "out", sources={"model": {"last": 8}, "sparse": {"last": 4}, "multi": {"last": 4}}
    )
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"path": str(m3_folder)})})
    folder, _ = mining.mine_data(recipe, "all", SILENT)
    candidates = read_candidates(folder)
    assert {source for c in candidates for source in c.sources} == {"model", "sparse", "multi"}
    assert all(c.rank <= 8 for c in candidates)
    ranked = [c for c in candidates if c.query_id == "q0" and "model" in c.sources]
    assert len(ranked) == 8


def test_a_run_trains_on_what_it_mined(place, tmp_path):
    said = []
    recipe = recipe_for(place, tmp_path / "run")
    pipeline.run(recipe, said.append)
    folder = tmp_path / "run"
    counts = read_json(folder / "negatives" / MANIFEST)["counts"]
    trained = read_json(folder / "train" / MANIFEST)
    assert trained["counts"]["given_negatives"] == counts["chosen"] > 0
    assert trained["counts"].get("given_negatives_known_relevant", 0) == 0
    before = trained["fingerprint"]
    assert (folder / "negatives" / "negatives.html").is_file()
    assert f"{counts['chosen']:,} negatives mined for" in (folder / "report.html").read_text()
    assert any("kept" in line and "chosen" in line for line in said)
    assert list(read_json(folder / "run.json")["stages"])[:4] == ["data", "bm25", "base", "negatives"]
    (folder / "negatives" / "negatives.html").unlink()  # as where the process was killed before it
    pipeline.run(recipe, SILENT)
    assert (folder / "negatives" / "negatives.html").is_file()
    assert read_json(folder / "train" / MANIFEST)["fingerprint"] == before
    pipeline.run(recipe_for(place, tmp_path / "run", seed=3), SILENT)
    assert read_json(folder / "train" / MANIFEST)["fingerprint"] != before, "other negatives, another training"


def test_a_run_learns_of_soft_labels_by_their_teachers_scores_alone(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run", teacher=str(place / "teacher"), teacher_margin=0.0, suspects="soft")
    with pytest.raises(RecipeError) as raised:
        pipeline.run(recipe)
    assert raised.value.where == "train.distill"
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"distill": "kl"})})
    pipeline.run(recipe)
    counts = read_json(tmp_path / "run" / "negatives" / MANIFEST)["counts"]
    assert read_json(tmp_path / "run" / "train" / MANIFEST)["counts"]["soft_labels"] == counts["soft"] > 0


def test_a_run_that_would_not_use_its_negatives_stops_at_once(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"negatives_per_query": 0})})
    with pytest.raises(RecipeError) as raised:
        pipeline.run(recipe)
    assert raised.value.where == "train.negatives_per_query"
    assert not (tmp_path / "run").exists()


def test_the_command_writes_rows_that_read_back(m3tune, place, tmp_path):
    out = tmp_path / "mined"
    code, text, err = m3tune("mine", place / "data.json", out, "--model", place / "encoder", "--json",
                             "--set", "mine.negatives_per_query=2")  # fmt: skip
    assert (code, err) == (0, "")
    facts = json.loads(text)
    assert facts["counts"]["chosen"] == 80
    assert facts["thresholds"]["threshold"][0]["threshold"] == 0.7
    collection, _ = read_collection(str(out / "flagembedding.jsonl"))
    assert len(collection.negatives) == 80
    assert all(negative.score is None for negative in collection.negatives), "the miner's score is no teacher's"
    pairs, _ = read_collection(str(out / "pairs.parquet"))
    assert {(n.query_id, n.passage_id) for n in pairs.negatives} == {
        (c.query_id, c.passage_id) for c in read_candidates(out) if c.chosen
    }
    (out / "pairs.parquet").unlink()
    code, text, _ = m3tune("mine", place / "data.json", out, "--model", place / "encoder",
                           "--set", "mine.negatives_per_query=2")  # fmt: skip
    assert code == 0
    assert "80 chosen" in text
    assert (out / "pairs.parquet").is_file()


def test_what_was_mined_is_reviewed_without_naming_its_data(m3tune, place, tmp_path, monkeypatch):
    rows = tmp_path / "my rows.csv"
    rows.write_text("frage,body\n" + "".join(f"q{i} {WORDS[i]},{WORDS[i]} {WORDS[i + 1]}\n" for i in range(30)))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mined"
    code, text, _ = m3tune("mine", rows.name, out, "--model", place / "encoder", "--estimate", 30,
                           "--column", "query=frage", "--column", "positive=body")  # fmt: skip
    assert code == 0
    command = f"m3tune review {out} --estimate 30"
    assert command in text
    monkeypatch.chdir("/")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\nq\n"))
    code, text, err = m3tune(*command.split()[1:], "--terminal")
    assert (code, err) == (0, "")
    assert "1 of 30" in text
    code, text, _ = m3tune("review", out, "--results", "--json")
    assert json.loads(text)["sample"] == 30
    rows.write_text("frage,body\nsomething,else\n")
    code, _, err = m3tune("review", out, "--results")
    assert code == 2
    assert "my rows.csv has changed since this was made from it" in err


def test_a_recipe_is_reviewed_in_its_run(m3tune, place, tmp_path):
    (tmp_path / "recipe.toml").write_text(to_toml(recipe_for(place, tmp_path / "run")))
    code, text, _ = m3tune("mine", tmp_path / "recipe.toml", "--json", "--estimate", 25)
    assert code == 0
    command = json.loads(text)["review"]
    assert command == ["m3tune", "review", str(tmp_path / "run"), "--estimate", "25"]
    assert len(open_project(tmp_path / "run").sample().pairs) == 25


def test_the_command_takes_a_recipe(m3tune, place, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(recipe_for(place, tmp_path / "run")))
    code, text, _ = m3tune("mine", recipe)
    assert code == 0
    assert "kept" in text
    assert (tmp_path / "run" / "negatives" / "flagembedding.jsonl").is_file()
    assert not (tmp_path / "run" / "train").exists()
    code, _, err = m3tune("mine", recipe, tmp_path / "x")
    assert code == 2
    assert "leave both out" in err
    code, _, err = m3tune("mine", place / "data.json")
    assert code == 2
    assert "m3tune mine IN OUT --model M" in err


def test_hostile_text_is_no_markup_on_the_page(place, tmp_path):
    collection = tiny_collection(40, 60)
    queries = {
        id_: replace(query, text=f"<script>alert(1)</script> {query.text}") for id_, query in collection.queries.items()
    }
    write_llamaindex(tmp_path / "hostile.json", replace(collection, queries=queries))
    recipe = recipe_for(place, tmp_path / "out")
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(tmp_path / "hostile.json")})})
    folder, _ = mining.mine_data(recipe, "all", SILENT)
    page = (folder / "negatives.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
