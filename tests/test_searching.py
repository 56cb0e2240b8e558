"""Vectors of whole data sets, questions against them, and the two commands."""

from dataclasses import replace

import pytest
import torch

from m3tune.config import ModelConfig
from m3tune.encoding import encode_collection, read_texts
from m3tune.errors import ArtifactError, DataError, RecipeError
from m3tune.model.weights import load_encoder
from m3tune.retrieval.search import SearchPlan
from m3tune.scoring import hybrid
from m3tune.searching import answer, open_index
from tiny import save_tiny_m3

HEADS = ["dense", "sparse", "multi"]
QUESTION = "r23 r26 c00 c03 c19 c15"


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return load_encoder(ModelConfig(path=str(m3_folder)))[0]


@pytest.fixture(scope="module")
def folder(encoder, collection, tmp_path_factory):
    """Vectors of everything. Never written to."""
    place = tmp_path_factory.mktemp("vectors")
    encode_collection(encoder, collection, place)
    return place


def test_what_is_written_is_said_part_by_part(encoder, collection, folder):
    written = encode_collection(encoder, collection, folder)
    assert [(part["kind"], part["texts"], part["heads"]) for part in written] == [
        ("passages", 90, HEADS), ("queries", 60, HEADS),
    ]  # fmt: skip
    assert {file.name for file in folder.iterdir()} == {"passages", "queries"}


@pytest.mark.parametrize("head", ["auto", "hybrid", "rrf", *HEADS])
def test_answers_are_ranked_by_the_head_and_carry_every_heads_score(encoder, collection, folder, head):
    (answers,) = answer(encoder, open_index(folder, encoder), [QUESTION], head, top=7)
    assert answers.head == ("hybrid" if head == "auto" else head)
    assert [hit.rank for hit in answers.hits] == list(range(1, len(answers.hits) + 1))
    scores = [hit.score for hit in answers.hits]
    assert scores == sorted(scores, reverse=True)
    for hit in answers.hits:
        assert list(hit.scores) == HEADS
        assert hit.text == collection.passages[hit.passage_id].text
        assert sum(word.product for word in hit.shared) == pytest.approx(hit.scores["sparse"], abs=1e-5)
        if answers.head == "hybrid":
            weights = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}
            by_hand = hybrid({name: torch.tensor(score) for name, score in hit.scores.items()}, weights)
            assert hit.score == pytest.approx(by_hand.item(), abs=2e-3)  # stored multi-vectors are float16
        elif head in HEADS:
            assert hit.score == pytest.approx(hit.scores[head], abs=1e-5)
    assert answers.words == sorted(answers.words, key=lambda word: -word.weight)
    assert {word.word for word in answers.words} <= set(QUESTION.split())


def test_the_models_own_weights_make_the_hybrid(encoder, folder):
    index = open_index(folder, encoder)
    before = encoder.settings
    try:
        encoder.settings = replace(before, hybrid_weights={"dense": 1.0, "sparse": 0.0, "multi": 0.0})
        mixed, dense = (answer(encoder, index, [QUESTION], head)[0] for head in ("hybrid", "dense"))
    finally:
        encoder.settings = before
    assert [hit.passage_id for hit in mixed.hits] == [hit.passage_id for hit in dense.hits]


def test_a_small_first_stage_is_obeyed(encoder, folder):
    plan = SearchPlan(candidates=3, first_stage="dense", exact_passages=0)
    index = open_index(folder, encoder)
    (multi,) = answer(encoder, index, [QUESTION], "multi", 10, plan)
    (dense,) = answer(encoder, index, [QUESTION], "dense", 3)
    assert {hit.passage_id for hit in multi.hits} == {hit.passage_id for hit in dense.hits}


def test_vectors_of_another_model_are_refused(folder, tmp_path):
    other = load_encoder(ModelConfig(path=str(save_tiny_m3(tmp_path / "other", seed=3))))[0]
    with pytest.raises(ArtifactError, match="made by another model; what differs: weights") as caught:
        open_index(folder, other)
    assert "encode again" in caught.value.fix


def test_a_head_that_was_not_stored_is_named(encoder, collection, tmp_path):
    encode_collection(encoder, collection, tmp_path, "passages", ["dense", "sparse"])
    index = open_index(tmp_path, encoder)
    with pytest.raises(RecipeError, match="'multi'") as caught:
        answer(encoder, index, [QUESTION], "multi")
    assert "dense" in caught.value.fix
    assert answer(encoder, index, [QUESTION])[0].head == "hybrid"


def test_lines_of_a_text_file(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("first line\n\n  second  \n", encoding="utf-8")
    passages, _ = read_texts(str(file), "both")
    assert {p.id: p.text for p in passages.passages.values()} == {"1": "first line", "3": "second"}
    queries, _ = read_texts(str(file), "queries")
    assert list(queries.queries) == ["1", "3"]
    file.write_text("\n")
    with pytest.raises(DataError, match="no line"):
        read_texts(str(file), "both")
