import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gradients import assert_same_steps
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.errors import RecipeError, TrainingError
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe
from m3tune.retrieval.encode import encode
from m3tune.training import trainer as trainer_module
from m3tune.training.batches import EpochBatches
from m3tune.training.callbacks import LOG_FILE, FiniteGradients
from m3tune.training.feed import guided, make_feed
from m3tune.training.guide import Guide
from m3tune.training.objective import Known, Objective, unified
from m3tune.training.train import train
from m3tune.types import Judgment
from m3tune.vectors import Embeddings
from tiny import save_tiny_encoder, tiny_collection

QUERIES = tuple(f"q{i}" for i in range(20))
BUDGETS = (1, 37, 10**6)
SETTINGS = {"batch_queries": 7, "precision": "float32", "logging_steps": 1, "evaluations": 1, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def guide_folder(tmp_path_factory):
    """Another random encoder than the one that is trained. Never written to."""
    return save_tiny_encoder(tmp_path_factory.mktemp("guide") / "encoder", seed=5)


def trained(base, folder, **config):
    folder.mkdir(exist_ok=True)
    encoder, _ = load_encoder(ModelConfig(path=str(base)))
    train(
        encoder, tiny_collection(), Similar(), QUERIES, TrainConfig(**SETTINGS | config), "m", lambda _: {"m": 0.0},
        folder, lambda _: None,
    )  # fmt: skip
    return encoder.state_dict(), [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_brings_the_guides_scores_of_its_own_pairs(tiny_folders, guide_folder, tmp_path):
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    collection, config = tiny_collection(), TrainConfig(**SETTINGS)
    feed = make_feed(encoder, collection, Similar(), QUERIES, config, lambda _: None)
    assert feed.collate.guide is None
    feed = guided(feed, str(guide_folder), collection, torch.float32, tmp_path)
    guide, _ = load_encoder(ModelConfig(path=str(guide_folder)))
    batches = [[feed.examples[draw] for draw in of_batch] for of_batch in EpochBatches(feed.sets, config)]
    assert len(batches) == 3
    for examples in batches:
        batch = feed.collate(examples)
        texts = encoder.tokenizer.batch_decode(batch.texts, skip_special_tokens=True)
        queries, passages = texts[: batch.num_queries], texts[batch.num_queries :]
        assert len(passages) > 5
        expected = encode(guide, queries, "query") @ encode(guide, passages, "passage").T
        assert np.allclose(batch.guide, expected, atol=1e-5)
    own = encode(encoder, queries, "query") @ encode(encoder, passages, "passage").T
    assert not np.allclose(own, expected, atol=0.1), "not the scores of the model that trains"


@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.2])
def test_the_guide_suspects_what_it_scores_above_its_best_score_of_a_positive(margin):
    generator = torch.Generator().manual_seed(0)
    sides = [Embeddings(torch.randn(n, 8, generator=generator)) for n in (4, 7)]
    positive = torch.eye(4, 7, dtype=torch.bool)
    positive[0, 5] = True
    negative = ~positive
    negative[1, 3] = False  # known to be relevant, and no positive of the batch
    guide = torch.rand(4, 7, generator=generator)
    none, unscored = torch.zeros_like(positive), torch.full(positive.shape, torch.nan)
    objective = Objective.of(TrainConfig(false_negative_margin=margin, guide="any"))
    outcome = unified(objective, *sides, Known(positive, negative, none, unscored, guide), self_distill=False)
    expected = negative.clone()
    for q in range(4):
        best = max(guide[q, p].item() for p in range(7) if positive[q, p])
        for p in range(7):
            if negative[q, p] and guide[q, p].item() > best + margin:
                expected[q, p] = False
    assert 0 < (negative & ~expected).sum() < negative.sum()
    assert torch.equal(outcome.known.negative, expected)
    torch.testing.assert_close(outcome.share_suspected, (negative & ~expected).sum() / negative.sum())
    plain = unified(Objective.of(TrainConfig()), *sides, Known(positive, expected, none, unscored), self_distill=False)
    assert torch.equal(outcome.loss, plain.loss)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_under_a_guide_are_the_same_for_every_budget(
    tiny_folders, guide_folder, tmp_path, monkeypatch, accumulate
):
    seen = {}

    def remember(self, args, state, control, model, **_):
        seen.setdefault(budget, []).append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )

    monkeypatch.setattr(FiniteGradients, "on_pre_optimizer_step", remember)
    for budget in BUDGETS:
        _, log = trained(
            tiny_folders["bert"], tmp_path / str(budget), guide=str(guide_folder), false_negative_margin=0.0,
            budget_tokens=budget, max_steps=2, accumulate_batches=accumulate, learning_rate=1e-9, max_grad_norm=1e6,
        )  # fmt: skip
        assert all(0 < line["negatives_suspected"] < 1 for line in log if "loss" in line)
    assert_same_steps(seen, BUDGETS[-1])


def test_a_guide_changes_what_is_learned_and_its_vectors_are_gone_at_the_end(tiny_folders, guide_folder, tmp_path):
    base = tiny_folders["bert"]
    by_guide, _ = trained(base, tmp_path / "guide", max_steps=4, guide=str(guide_folder), false_negative_margin=0.0)
    by_itself, _ = trained(base, tmp_path / "itself", max_steps=4, false_negative_margin=0.0)
    by_none, _ = trained(base, tmp_path / "none", max_steps=4)
    assert not same(by_guide, by_itself)
    assert not same(by_guide, by_none)
    assert not (tmp_path / "guide" / "guide").exists()


def test_a_training_that_was_cut_off_goes_on_with_the_guides_vectors(tiny_folders, guide_folder, tmp_path, monkeypatch):
    settings = {"max_steps": 4, "evaluations": 2, "guide": str(guide_folder), "false_negative_margin": 0.0}
    whole, _ = trained(tiny_folders["bert"], tmp_path / "whole", **settings)
    step = trainer_module.RetrievalTrainer.training_step

    def fails_in_the_fourth(self, *arguments):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(trainer_module.RetrievalTrainer, "training_step", fails_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_folders["bert"], tmp_path / "cut", **settings)
    monkeypatch.undo()
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cut" / "guide").rglob("dense.npy")}
    assert len(files) == 2
    seen = []
    made = Guide.scores

    def remember(self, *arguments):
        seen.append({Path(side.filename).stat().st_mtime_ns for side in (self.queries, self.passages)})
        return made(self, *arguments)

    monkeypatch.setattr(Guide, "scores", remember)
    resumed, _ = trained(tiny_folders["bert"], tmp_path / "cut", **settings)
    assert seen
    assert all(times == set(files.values()) for times in seen), "encoded once"
    assert same(whole, resumed)


def test_copies_of_a_passage_are_one_to_the_guide(tiny_folders, guide_folder, tmp_path):
    from dataclasses import replace

    collection = tiny_collection()
    copy = replace(collection.passages["p0"], id="copy")
    collection = replace(
        collection, passages={**collection.passages, "copy": copy},
        judgments=(Judgment("q5", "copy"), *collection.judgments),
    )  # fmt: skip
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    feed = make_feed(encoder, collection, Similar(), QUERIES, TrainConfig(**SETTINGS), lambda _: None)
    guide = guided(feed, str(guide_folder), collection, torch.float32, tmp_path).collate.guide
    assert "copy" not in guide.passage_rows
    assert len(guide.passages) == len(guide.passage_rows) == 20


def test_a_guide_without_dense_vectors_is_refused(m3_folder, tiny_folders, tmp_path, monkeypatch):
    import m3tune.training.guide as guide_module

    sparse_alone = lambda config: load_encoder(config.model_copy(update={"heads": ("sparse",)}))  # noqa: E731
    monkeypatch.setattr(guide_module, "load_encoder", sparse_alone)
    with pytest.raises(TrainingError) as raised:
        trained(tiny_folders["bert"], tmp_path / "out", guide=str(m3_folder), false_negative_margin=0.0)
    assert raised.value.where == "train.guide"


@pytest.mark.parametrize("train", [{"guide": "any"}, {"false_negative_margin": -0.1}])
def test_a_guide_and_its_margin_belong_together(train):
    tables = {"data": {"path": "x"}, "model": {"path": "x"}}
    with pytest.raises(RecipeError, match="guide"):
        build_recipe({**tables, "train": train})
    both = {"guide": "any", "false_negative_margin": -0.1}
    assert build_recipe({**tables, "train": both}).train.false_negative_margin == -0.1
