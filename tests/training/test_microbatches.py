import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradients import assert_same_steps
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.model.encoder import set_dropout
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder
from m3tune.training import microbatches
from m3tune.training.microbatches import Parts, cut, encode_parts
from m3tune.training.objective import Known, Objective, unified
from m3tune.training.train import train
from m3tune.training.trainer import FiniteGradients
from m3tune.vectors import split_at
from tiny import tiny_collection

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 200))
def test_parts_are_as_few_stretches_within_the_budget_as_can_be_of_like_sizes(lengths, budget):
    parts = cut(np.array(lengths), budget)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(lengths)))
    sums = [sum(lengths[part]) for part in parts]
    assert all(total <= budget or part.stop - part.start == 1 for total, part in zip(sums, parts, strict=True))
    fewest, room = 0, 0
    for length in lengths:
        fewest, room = (fewest, room - length) if length <= room else (fewest + 1, budget - length)
    assert len(parts) == fewest
    assert max(sums) <= sum(lengths) / len(parts) + max(lengths)


def test_the_last_parts_keep_their_activations_as_far_as_the_budget_goes():
    texts = [np.arange(n) for n in (2, 3, 4, 5, 6)]
    assert [(packed.num_tokens, kept) for packed, kept in Parts(texts, 9, CPU).packed()] == [
        (5, False), (9, False), (6, True),
    ]  # fmt: skip
    assert [kept for _, kept in Parts(texts, 20, CPU).packed()] == [True]
    assert [kept for _, kept in Parts(texts, 1, CPU).packed()] == [False] * 4 + [True]


def test_the_cpu_encodes_at_most_so_much_at_once_and_keeps_what_the_budget_allows():
    texts = [np.zeros(1500, dtype=int)] * 7
    assert [(packed.num_tokens, kept) for packed, kept in Parts(texts, 6500, CPU).packed()] == [
        (1500, False), (3000, False), (3000, True), (3000, True),
    ]  # fmt: skip


def texts_of(generator, count, longest):
    return sorted((generator.integers(5, 40, size=n) for n in generator.integers(2, longest, size=count)), key=len)


OBJECTIVES = {
    "dense": {"loss_weights": (1, 0, 0, 0)},
    "dense and sparse": {"loss_weights": (1, 1, 0, 0), "matryoshka_dims": (8, 5)},
    "unified": {"self_distill": True},
    "teacher": {"distill": "kl", "false_negative_margin": 0.05},
    "ordered": {"distill": "ordered"},
    "margin": {"distill": "margin"},
}
BUDGETS = (1, 23, 37, 64, 10**6)


@pytest.mark.parametrize("config", OBJECTIVES.values(), ids=OBJECTIVES)
def test_gradients_are_those_of_one_pass_whatever_the_budget(m3_folder, config):
    encoder, _ = load_encoder(ModelConfig(path=str(m3_folder)))
    set_dropout(encoder, 0.0)
    encoder.train()
    settings = TrainConfig(**config)
    objective = Objective.of(settings)
    generator = np.random.default_rng(0)
    queries, passages = 7, 11
    texts = texts_of(generator, queries, 9) + texts_of(generator, passages, 14)
    positive = torch.zeros(queries, passages, dtype=torch.bool)
    positive[torch.arange(queries), torch.arange(queries)] = True
    teacher = torch.from_numpy(generator.random((queries, passages))).float()
    none = torch.zeros_like(positive)
    known = Known(positive, ~positive, none, teacher if settings.distill != "none" else teacher * torch.nan)

    def gradients(embeddings):
        encoder.zero_grad()
        sides = split_at(embeddings, queries)
        unified(objective, *sides, known, self_distill=settings.self_distill).loss.backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    heads = objective.heads(encoder.settings.heads)
    passes = []
    encoder.backbone.register_forward_hook(lambda *_: passes.append(1))
    plain = gradients(encoder(pack(texts), heads=heads))
    assert len(passes) == 1
    assert sum(gradient.abs().sum() for gradient in plain.values()) > 1
    for budget in BUDGETS:
        passes.clear()
        parts = Parts(texts, budget, CPU)
        found = gradients(encode_parts(encoder, parts, heads, dropout=False))
        assert len(passes) == 2 * len(parts.slices) - parts.kept, "what is not kept goes forward twice"
        assert (len(parts.slices) > 1) == (budget < 10**6)
        assert found.keys() == plain.keys()
        for name, gradient in plain.items():
            torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=2e-4, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_of_training_has_the_same_gradients_under_every_budget(tiny_folders, tmp_path, monkeypatch, accumulate):
    collection = tiny_collection()
    seen = {}

    def remember(self, args, state, control, model, **_):
        seen.setdefault(budget, []).append({name: p.grad.clone() for name, p in model.named_parameters()
                                            if p.grad is not None})  # fmt: skip

    monkeypatch.setattr(FiniteGradients, "on_pre_optimizer_step", remember)
    for budget in BUDGETS:
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        config = TrainConfig(
            batch_queries=8, max_steps=2, evaluations=1, precision="float32", learning_rate=1e-9,
            budget_tokens=budget, accumulate_batches=accumulate, max_grad_norm=1e6,
        )  # fmt: skip
        (tmp_path / str(budget)).mkdir()
        train(
            encoder, collection, Similar(), tuple(f"q{i}" for i in range(40)), config, "m", lambda _: {"m": 0.0},
            tmp_path / str(budget), lambda _: None,
        )  # fmt: skip
    assert_same_steps(seen, BUDGETS[-1])


def test_dropout_draws_the_same_numbers_when_a_part_is_computed_again(tiny_folders):
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    set_dropout(encoder, 0.3)
    encoder.train()
    texts = texts_of(np.random.default_rng(1), 6, 12)
    outputs = []
    encoder.backbone.register_forward_hook(lambda _module, _inputs, output: outputs.append(output[0].detach().clone()))
    encode_parts(encoder, Parts(texts, 12, CPU), ("dense",), dropout=True).dense.sum().backward()
    parts = len(Parts(texts, 12, CPU).slices)
    assert parts > 2
    first, again = outputs[: parts - 1], outputs[parts:][::-1]
    assert len(again) == parts - 1
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("budget, trimmed", [(12, True), (10_000, False)])
def test_the_heap_is_trimmed_where_not_all_activations_are_held(tiny_folders, monkeypatch, budget, trimmed):
    """Before each part, on the way forward and when it is computed again."""
    times = []
    monkeypatch.setattr(microbatches, "trim_heap", lambda: times.append(1))
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    parts = Parts([np.arange(5, 11)] * 6, budget, CPU)
    encode_parts(encoder, parts, ("dense",), dropout=False).dense.sum().backward()
    assert len(times) == (2 * len(parts.slices) - parts.kept if trimmed else 0)
