"""Training with several heads and with teachers."""

import json

import pytest
import torch
from heads import (
    METRIC,
    SELF,
    TRAIN_QUERIES,
    UNIFIED,
    constant,
    found_first,
    fresh,
    moved,
    scores_of_heads,
    tuned,
    weights_of,
)

from m3tune.data.collection import Collection
from m3tune.errors import TrainingError
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.training.callbacks import LOG_FILE
from m3tune.types import Judgment, Negative
from tiny import tiny_collection


def test_new_heads_learn_and_every_part_of_the_loss_is_logged(encoder, collection, tmp_path):
    untrained = {name: found_first(s, collection) for name, s in scores_of_heads(encoder, collection).items()}
    result, said = tuned(encoder, collection, tmp_path, self_distill=True, self_distill_start=0.5)
    trained = {name: found_first(s, collection) for name, s in scores_of_heads(encoder, collection).items()}
    assert all(trained[name] > untrained[name] + 0.2 for name in ("dense", "multi", "hybrid")), (untrained, trained)
    assert trained["sparse"] >= 0.7, trained
    assert "starts from inverse document frequency" in said[0]
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == result.steps == 40
    for number, line in enumerate(steps):
        names = UNIFIED + (SELF if number >= 20 else [])
        assert [name for name in line if name.startswith("loss_")] == names, number
        base = (line["loss_dense"] + 0.1 * line["loss_sparse"] + line["loss_multi"] + line["loss_hybrid"]) / 4
        if number >= 20:
            taught = line["loss_self_dense"] + 0.1 * line["loss_self_sparse"] + line["loss_self_multi"]
            base = (base + taught / 3) / 2
        assert line["loss"] == pytest.approx(base, abs=1e-3)


def test_a_dense_model_logs_one_loss(tiny_folders, collection, tmp_path):
    encoder = fresh(tiny_folders, new_heads=(), multi_dim=None)
    result, said = tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2)
    assert not any(name.startswith("loss_") for line in result.log for name in line)
    assert [line.partition(":")[0] for line in said] == ["plan"]


def test_heads_that_the_loss_does_not_look_at_stay_as_they_are(encoder, collection, tmp_path):
    before = weights_of(encoder)
    encoder.new_heads = ()
    tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=2, evaluations=1, loss_weights=[1, 0, 0, 0])
    changed = moved(before, weights_of(encoder))
    assert changed
    assert not any(name.startswith("heads.") for name in changed)


def test_an_interrupted_run_goes_on_with_its_heads_and_its_self_distillation(tiny_folders, collection, tmp_path):
    config = {"max_steps": 8, "evaluations": 4, "self_distill": True, "self_distill_start": 0.5}
    whole = fresh(tiny_folders)
    expected, _ = tuned(whole, collection, tmp_path / "whole", evaluate_dev=constant, **config)

    calls = []

    def failing(_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {METRIC: 0.5}

    with pytest.raises(KeyboardInterrupt):
        tuned(fresh(tiny_folders), collection, tmp_path / "cut", evaluate_dev=failing, **config)
    again = fresh(tiny_folders)
    result, said = tuned(again, collection, tmp_path / "cut", evaluate_dev=constant, **config)
    assert said[0] == "going on from checkpoint-2"
    assert not any("inverse document frequency" in line for line in said), "the warm start is not done again"
    losses = [[{k: v for k, v in line.items() if "loss" in k and k != "train_loss"} for line in r.log if "loss" in line]
              for r in (result, expected)]  # fmt: skip
    assert losses[0] == losses[1]
    assert ["loss_self_dense" in line for line in losses[0]] == [False] * 4 + [True] * 4
    assert moved(weights_of(again), weights_of(whole)) == set()


@pytest.fixture(scope="module")
def taught():
    """The tiny collection with a negative a query, and a teacher's score for every given pair."""
    plain = tiny_collection()
    passages = list(plain.passages)
    judgments = tuple(Judgment(j.query_id, j.passage_id, 1, 4.0) for j in plain.judgments)
    negatives = tuple(
        Negative(j.query_id, passages[(i + 1) % len(passages)], score=-2.0) for i, j in enumerate(plain.judgments)
    )
    return Collection(plain.queries, plain.passages, judgments, negatives)


@pytest.mark.parametrize("distill", ["kl", "ordered", "margin"])
def test_a_teachers_scores_reach_the_loss(tiny_folders, taught, tmp_path, distill):
    losses = {}
    for kind in ("none", distill):
        config = {"max_steps": 1, "negatives_per_query": 1, "distill": kind}
        result, _ = tuned(fresh(tiny_folders), taught, tmp_path / kind, evaluate_dev=constant, **config)
        losses[kind] = next(line["loss"] for line in result.log if "loss" in line)
        assert result.counts.get("queries_with_teacher_scores") == (None if kind == "none" else 40)
    assert abs(losses[distill] - losses["none"]) > 1e-3


def test_distillation_without_scores_says_what_is_missing(encoder, collection, tmp_path):
    with pytest.raises(TrainingError, match="the data brings no teacher scores") as caught:
        tuned(encoder, collection, tmp_path, distill="kl")
    assert "pos_scores" in caught.value.fix


def test_matryoshka_makes_short_vectors_better(tiny_folders, collection, tmp_path):
    first = {}
    for dims in ((), (4,)):
        encoder = fresh(tiny_folders, new_heads=(), multi_dim=None)
        tuned(
            encoder, collection, tmp_path / str(len(dims)), evaluate_dev=constant, evaluations=1, matryoshka_dims=dims
        )
        tokens = (
            tokenize_queries(encoder, collection, TRAIN_QUERIES),
            tokenize_passages(encoder, collection, list(collection.passages)),
        )
        queries, passages = (encode_tokens(encoder, texts, torch.float32).dense for texts in tokens)
        short = [torch.nn.functional.normalize(torch.from_numpy(v)[:, :4], dim=1) for v in (queries, passages)]
        first[dims] = found_first(short[0] @ short[1].T, collection, TRAIN_QUERIES)
    assert first[(4,)] > first[()] + 0.1


HEALTH = {
    "sparse_tokens_query", "sparse_tokens_passage", "sparse_empty", "dense_norm", "dense_norm_sd", "dense_cosine",
    "dense_uniformity", "dense_rank", "dense_rank_share",
    *(f"score_{head}_{kind}{sd}" for head in ("dense", "sparse", "multi", "hybrid")
      for kind in ("positive", "negative") for sd in ("", "_sd")),
}  # fmt: skip


def health_of(line):
    return {name for name in line if name.startswith(("score_", "sparse_", "dense_"))}


def test_every_logged_step_has_its_health_and_a_margin_the_share_of_suspects(encoder, collection, tmp_path):
    result, said = tuned(
        encoder, collection, tmp_path, evaluate_dev=constant, epochs=1.4, evaluations=1, logging_steps=3,
        false_negative_margin=0.0,
    )  # fmt: skip
    lines = [line for line in result.log if "loss" in line]
    assert [line["step"] for line in lines] == [1, 3, 6]
    assert all(health_of(line) == HEALTH for line in lines)
    assert all(0 <= line["negatives_suspected"] < 1 for line in lines)
    assert any(line["negatives_suspected"] for line in lines)
    assert not any(line.startswith("warning") for line in said)
    dense_only = {name for name in HEALTH if name.startswith(("score_dense", "dense"))}
    result, _ = tuned(
        encoder, collection, tmp_path / "dense", evaluate_dev=constant, max_steps=1, loss_weights=[1, 0, 0, 0]
    )
    assert health_of(result.log[0]) == dense_only
    assert "negatives_suspected" not in result.log[0]


def test_illness_is_said_once_and_stands_in_every_line_that_shows_it(encoder, collection, tmp_path):
    encoder.new_heads = ()  # so that the head is not warm-started
    with torch.no_grad():
        encoder.linear("sparse").weight.zero_()
        encoder.linear("sparse").bias.fill_(-1)
    result, said = tuned(encoder, collection, tmp_path, evaluate_dev=constant, max_steps=3, evaluations=1)
    lines = [line for line in result.log if "loss" in line]
    assert [line["sparse_empty"] for line in lines] == [1, 1, 1], "no gradient reaches it"
    assert [line["warning_sparse-vectors-die"] for line in lines] == [1, 1, 1]
    _plan, warning = said
    assert warning.startswith("warning: train, step 1: 100% of the sparse vectors of a batch are empty")
    written = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert sum("warning_sparse-vectors-die" in line for line in written) == 3
