"""Training on several devices against training on one: here processes on the CPU, which speak as those of GPUs do."""

import numpy as np
import pytest
import torch
from failing import Dies, Fails, RunsOut
from heads import TRAIN_QUERIES, fresh
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from m3tune import pipeline
from m3tune.config import TrainConfig
from m3tune.data.similar import Similar
from m3tune.errors import TrainingError
from m3tune.model.encoder import set_dropout
from m3tune.recipe import build_recipe
from m3tune.training import exchange
from m3tune.training import plan as plan_module
from m3tune.training.arguments import training_arguments
from m3tune.training.budget import Budget
from m3tune.training.devices import Devices, count_devices, shares, started
from m3tune.training.exchange import embeddings_of, tensors_of
from m3tune.training.objective import Known, Objective, unified
from m3tune.training.train import train
from m3tune.vectors import split_at
from tiny import tiny_collection, write_llamaindex

CPU = torch.device("cpu")
QUERIES = 5
HEADS = ("dense", "sparse", "multi")


# --- who encodes what


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80), st.integers(1, 9))
def test_every_text_has_one_device_and_the_first_device_a_text(lengths, devices):
    found = shares(lengths, 384, devices)
    assert len(found) == devices
    assert [i for one in found for i in range(len(lengths))[one]] == list(range(len(lengths)))
    assert found[0].stop > found[0].start


def test_shares_of_a_large_batch_take_about_as_long():
    lengths = sorted(np.random.default_rng(0).integers(4, 8000, size=500).tolist())
    work = [sum(n + n**2 / (6 * 1024) for n in lengths[one]) for one in shares(lengths, 1024, 4)]
    assert max(work) < 1.02 * min(work)
    tokens = [sum(lengths[one]) for one in shares(lengths, 1024, 4)]
    assert tokens[0] > 1.1 * tokens[-1], "long texts take longer by the token"


@pytest.mark.parametrize("heads", [("dense",), ("sparse", "multi"), HEADS], ids=" ".join)
def test_vectors_are_taken_apart_and_put_together(tiny_folders, heads):
    devices = Devices(fresh(tiny_folders))
    found = devices.encode(devices.encoder, texts_of_a_batch(), Budget(1000), heads, dropout=False)
    again = embeddings_of(tensors_of(found), heads)
    assert all(a is b for a, b in zip(tensors_of(again), tensors_of(found), strict=True))
    assert [part is None for part in again] == [part is None for part in found]


# --- gradients


def texts_of_a_batch(seed=0):
    """Five queries and nine passages, each side by length."""
    generator = np.random.default_rng(seed)
    lengths = [*sorted(generator.integers(3, 8, size=QUERIES)), *sorted(generator.integers(5, 40, size=9))]
    return [generator.integers(4, 60, size=length) for length in lengths]


def add_gradients(devices, seed, budget, heads):
    """Forward and backward of a batch; returns its loss."""
    objective = Objective.of(TrainConfig(loss_weights=tuple(float(head in heads) for head in (*HEADS, "hybrid"))))
    vectors = devices.encode(devices.encoder, texts_of_a_batch(seed), budget, heads, dropout=False)
    queries, passages = split_at(vectors, QUERIES)
    positive = torch.eye(QUERIES, 9, dtype=torch.bool)
    known = Known(positive, ~positive, torch.zeros_like(positive), torch.full(positive.shape, torch.nan))
    loss = unified(objective, queries, passages, known, self_distill=False).loss
    loss.backward()
    return loss.item()


def gradients(devices, budget, heads, batches=1):
    devices.encoder.zero_grad()
    losses = [add_gradients(devices, seed, budget, heads) for seed in range(batches)]
    devices.collect()
    return losses, {name: p.grad.clone() for name, p in devices.encoder.named_parameters() if p.grad is not None}


def assert_equal_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_losses_and_gradients_are_those_of_one_device(tiny_folders):
    encoder = fresh(tiny_folders).train()
    set_dropout(encoder, 0.0)
    alone = Devices(encoder)
    with started(encoder, 3, torch.float32, seed=0) as three:
        assert len(three) == 3
        for budget, heads, batches in (
            (Budget(1000), HEADS, 1),
            (Budget(60), HEADS, 1),
            (Budget(40, recompute_layers=True), HEADS, 1),
            (Budget(1000), ("dense",), 2),
            (Budget(1000), ("sparse", "multi"), 1),
        ):
            losses, found = gradients(three, budget, heads, batches)
            expected_losses, expected = gradients(alone, budget, heads, batches)
            assert losses == pytest.approx(expected_losses, rel=1e-5)
            assert_equal_gradients(found, expected)
            assert max(g.abs().max() for g in expected.values()) > 1e-3
        # What is given up leaves nothing behind.
        add_gradients(three, 7, Budget(1000), HEADS)
        three.forget()
        with torch.no_grad():
            for weight in encoder.parameters():  # an update, which the workers hear of
                weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        three._stale = True
        _, found = gradients(three, Budget(1000), HEADS)
        assert_equal_gradients(found, gradients(alone, Budget(1000), HEADS)[1])


# --- trainings


def tuned(tiny_folders, folder, hook=None, **config):
    """Trains a tiny encoder with three heads; returns its log of losses, its weights, and what was said."""
    encoder, said = fresh(tiny_folders), []
    if hook is not None:
        encoder.register_forward_pre_hook(hook)
    folder.mkdir()
    settings = TrainConfig(
        **{
            "batch_queries": 8, "max_steps": 6, "evaluations": 2, "precision": "float32", "learning_rate": 1e-3,
            "logging_steps": 1, "budget_tokens": 10**6, "gradient_checkpointing": False, "self_distill": True,
        } | config
    )  # fmt: skip
    result = train(
        encoder, tiny_collection(), Similar(), TRAIN_QUERIES, settings, "m", lambda _: {"m": 0.0}, folder, said.append,
        keep_best=False,
    )  # fmt: skip
    lines = [line for line in result.log if "loss" in line]
    return lines, torch.cat([p.detach().flatten() for p in encoder.parameters()]), said


def assert_same_course(lines, others):
    for name in ("loss", "grad_norm", "loss_multi", "score_sparse_positive"):
        assert [line[name] for line in others] == pytest.approx([line[name] for line in lines], rel=1e-3)


@pytest.mark.parametrize(
    "config",
    [{}, {"accumulate_batches": 2}, {"train_part": "heads"}, {"lora_rank": 2, "lora_targets": ("query", "value")}],
    ids=str,
)
def test_a_training_takes_the_same_course_on_two_devices(tiny_folders, tmp_path, config):
    one, weights, _ = tuned(tiny_folders, tmp_path / "one", **config)
    two, found, said = tuned(tiny_folders, tmp_path / "two", devices=2, compile="on", **config)
    assert "2 devices share each batch" in " ".join(said)
    assert "compile: off, for several devices train" in said
    assert_same_course(one, two)
    assert (found - weights).norm() < 0.01 * weights.norm()
    assert one[0]["loss"] > 1.05 * one[-1]["loss"], "something was learned"
    assert not torch.distributed.is_initialized()


def test_a_worker_that_runs_out_of_memory_is_asked_again_with_less(tiny_folders, tmp_path):
    one, _, _ = tuned(tiny_folders, tmp_path / "one")
    two, _, said = tuned(tiny_folders, tmp_path / "two", RunsOut(most=50), devices=2)
    repeated = [line for line in said if line.startswith("out of memory in step 1;")]
    assert repeated
    assert two[-1]["budget_tokens"] <= 50
    assert_same_course(one, two)


@pytest.mark.parametrize(("hook", "words"), [(Dies, "has ended by itself"), (Fails, "no such token")])
def test_a_worker_that_fails_ends_the_training_with_its_reason(tiny_folders, tmp_path, hook, words):
    with pytest.raises(TrainingError, match="device 1") as failed:
        tuned(tiny_folders, tmp_path / "run", hook(0), devices=2)
    assert words in str(failed.value)
    assert failed.value.where == "train.devices"


# --- how many


def test_devices_are_counted_and_what_cannot_be_is_refused(monkeypatch):
    assert count_devices(TrainConfig(devices="auto"), CPU) == 1
    assert count_devices(TrainConfig(devices=3), CPU) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cuda = torch.device("cuda")
    assert count_devices(TrainConfig(devices="auto"), cuda) == 4
    assert count_devices(TrainConfig(), cuda) == 1
    assert count_devices(TrainConfig(devices=2), cuda) == 2
    assert count_devices(TrainConfig(devices="auto", deepspeed="zero2.json"), cuda) == 1
    with pytest.raises(TrainingError, match="8 devices are asked for, and 4 are there"):
        count_devices(TrainConfig(devices=8), cuda)
    with pytest.raises(TrainingError, match="several devices and DeepSpeed or FSDP at once"):
        count_devices(TrainConfig(devices=2, fsdp="full_shard"), cuda)


def test_a_run_that_a_launcher_starts_several_times_says_so_before_it_does_anything(
    tiny_folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = {
        "output": str(tmp_path / "run"), "data": {"path": str(data)}, "model": {"path": str(tiny_folders["bert"])},
    }  # fmt: skip
    with pytest.raises(TrainingError, match="one of several processes") as refused:
        pipeline.run(build_recipe(tables))
    assert "torchrun" in str(refused.value.fix)
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="one of several processes"):
        tuned(tiny_folders, tmp_path / "train")


def test_the_trainer_splits_no_batch_over_gpus_by_itself(monkeypatch, tmp_path):
    original = TrainingArguments.__post_init__

    def with_four(self):
        original(self)
        self._n_gpu = 4

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four)
    arguments = training_arguments(TrainConfig(), 1e-5, tmp_path, 10, "m", torch.float32, CPU, "adamw")
    assert arguments.n_gpu == 1


def test_processes_on_one_cpu_share_its_memory(monkeypatch):
    monkeypatch.setattr(plan_module, "free_bytes", lambda _: 8 * 2**30)
    limits = [plan_module._limit(TrainConfig(), 2**30, CPU, devices) - 2**30 for devices in (1, 4)]
    assert limits[0] == pytest.approx(4 * limits[1], rel=1e-6)
    cuda = torch.device("cuda")
    assert plan_module._limit(TrainConfig(), 2**30, cuda, 4) - 2**30 == limits[0]


def test_what_is_sent_at_once_is_bounded(monkeypatch):
    monkeypatch.setattr(exchange, "_BUCKET_NUMBERS", 8)
    tensors, sizes = [torch.zeros(size) for size in (5, 3, 9, 1, 1)], []
    for bucket, flat in exchange._flattened(tensors):
        sizes.append(len(flat))
        exchange._put_back(flat + 1, bucket)
    assert sizes == [8, 9, 2]
    assert all(bool((tensor == 1).all()) for tensor in tensors)
