import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.errors import TrainingError
from m3tune.model import encoder as encoder_module
from m3tune.model.encoder import Encoder
from m3tune.model.weights import load_encoder
from m3tune.training.budget import Budget, smaller
from m3tune.training.train import train
from tiny import save_tiny_encoder, tiny_collection

QUERIES = tuple(f"q{i}" for i in range(40))


def texts(*lengths):
    return [np.zeros(length, dtype=int) for length in lengths]


def test_a_budget_is_halved_down_to_the_longest_text_and_then_layers_are_recomputed():
    batch, budget, seen = texts(3, 5, 8, 16, 30), Budget(1000), []
    while budget is not None:
        seen.append(budget)
        budget = smaller(budget, batch)
    assert seen == [Budget(1000), Budget(31), Budget(30), Budget(30, recompute_layers=True)]


# --- a step that runs out of memory


class Memory:
    """Runs out where a pass of training has more than `most` tokens, or in the backward pass of chosen passes."""

    def __init__(self, monkeypatch, most=10**9, backward_of=(), error=None):
        self.most, self.backward_of, self.passes, self.armed = most, set(backward_of), 0, False
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        original = encoder_module.run_packed

        def run_packed(backbone, packed):
            states = original(backbone, packed)
            if not (self.armed and backbone.training):
                return states
            self.passes += 1
            if packed.num_tokens > self.most:
                raise self.error
            if self.passes in self.backward_of:
                states.register_hook(self.fail)
            return states

        monkeypatch.setattr(encoder_module, "run_packed", run_packed)

    def fail(self, _gradient):
        raise self.error


@pytest.fixture
def tuned(tiny_folders, tmp_path, monkeypatch):
    """Trains a tiny encoder under a plan without probes; returns its weights, the log, and what was said."""
    collection = tiny_collection()
    runs = []

    def run(memory=None, **config):
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        runs.append(folder)
        said = []

        def say(line):
            said.append(line)
            if memory is not None:
                memory.armed = True  # the plan has been made

        settings = TrainConfig(
            **{
                "batch_queries": 8, "max_steps": 4, "evaluations": 1, "precision": "float32", "learning_rate": 1e-3,
                "logging_steps": 1, "budget_tokens": 10**6, "gradient_checkpointing": False,
            } | config
        )  # fmt: skip
        result = train(
            encoder, collection, Similar(), QUERIES, settings, "m", lambda _: {"m": 0.0}, folder, say
        )  # fmt: skip
        if memory is not None:
            memory.armed = False
        lines = [line for line in result.log if "loss" in line]
        return {name: value.clone() for name, value in encoder.state_dict().items()}, lines, said[1:]

    return run


def assert_same_course(lines, others):
    """The same losses and gradients; AdamW goes by signs at first, so weights with hardly any gradient may differ."""
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in others] == pytest.approx([line[name] for line in lines], rel=1e-3)


def test_a_step_that_does_not_fit_is_repeated_with_half_the_budget_and_ends_in_the_same_weights(tuned, monkeypatch):
    _, lines, said = tuned()
    assert said == []
    tokens = lines[0]["budget_tokens"]
    assert tokens == 10**6
    failing, after, said = tuned(Memory(monkeypatch, most=90))
    assert len(said) == 1
    assert said[0].startswith("out of memory in step 1; it is repeated with activations of ")
    budget = after[0]["budget_tokens"]
    assert {line["budget_tokens"] for line in after} == {budget}
    assert budget < 90
    small, _, said = tuned(budget_tokens=budget)
    assert said == []
    assert all(torch.equal(weight, failing[name]) for name, weight in small.items())
    assert_same_course(lines, after)


def test_gradients_of_a_half_made_backward_pass_are_dropped(tuned, monkeypatch):
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried")
    _, lines, _ = tuned()
    _, after, said = tuned(Memory(monkeypatch, backward_of={3}, error=error))
    assert len(said) == 1
    assert "in step 3;" in said[0]
    assert after[1]["budget_tokens"] == 10**6 > after[2]["budget_tokens"]
    assert_same_course(lines, after)


def test_batches_before_it_that_the_same_update_is_made_of_are_repeated_too(tuned, monkeypatch):
    _, lines, _ = tuned(accumulate_batches=3, max_steps=2)
    _, after, said = tuned(Memory(monkeypatch, backward_of={2}), accumulate_batches=3, max_steps=2)
    assert len(said) == 1
    assert_same_course(lines, after)


def test_a_text_that_does_not_fit_by_itself_is_named_with_the_length_that_would(tuned, monkeypatch):
    memory = Memory(monkeypatch, most=5)
    with pytest.raises(TrainingError, match=r"one text of \d+ tokens does not fit, even layer by layer; about 5") as e:
        tuned(memory)
    assert e.value.where == "model.passage_max_tokens"
    assert e.value.fix == "set it to 5 or less"


def test_layers_are_recomputed_before_anything_is_given_up(tuned, monkeypatch):
    _, lines, _ = tuned()
    layers = []

    original = Encoder.recompute_layers
    memory = Memory(monkeypatch, most=0)

    def freed(self, on):
        layers.append(on)
        original(self, on)
        if on:
            memory.most = 10**9

    monkeypatch.setattr(Encoder, "recompute_layers", freed)
    _, after, said = tuned(memory)
    assert said[-1].count("layers recomputed") == 1
    assert layers.count(True) == 1
    assert layers[-1] is False, "the encoder is handed back as it came"
    assert_same_course(lines, after)


def test_a_batch_whose_scores_do_not_fit_is_told_from_a_text_that_does_not(tuned, monkeypatch):
    from m3tune.training import trainer

    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    memory = Memory(monkeypatch)
    original = trainer.unified
    monkeypatch.setattr(trainer, "unified", lambda *a, **k: no_room() if memory.armed else original(*a, **k))
    with pytest.raises(TrainingError, match="not the scores and vectors of 8 queries and 8 passages together") as e:
        tuned(memory)
    assert e.value.where == "train.batch_queries"


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.model.weights import load_encoder
from m3tune.training.train import train
from tiny import save_tiny_encoder, tiny_collection

torch.set_num_threads(1)
said = []

def say(line):
    said.append(line)
    if line.startswith("plan"):
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + {room} * 2**20, resource.RLIM_INFINITY))

def evaluate(encoder):  # after the last step: what checkpoints take is not what is tested
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {{"m": 0.0}}

encoder, _ = load_encoder(ModelConfig(path={encoder!r}))
config = TrainConfig(batch_queries=40, max_steps=2, evaluations=1, precision="float32", budget_tokens=10**6,
                     gradient_checkpointing=False)
queries = tuple("q%d" % i for i in range(40))
result = train(encoder, tiny_collection(), Similar(), queries, config, "m", evaluate, Path({out!r}), say)
print(sum("out of memory" in line for line in said), result.memory["budget_tokens"], result.steps)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit and where memory is read are Linux'")
@pytest.mark.parametrize(("room_mib", "fits"), [(1000, True), (130, False)])
def test_under_a_real_limit_of_the_system_training_goes_on_in_what_there_is(tmp_path, room_mib, fits):
    # Wide layers: a quarter MiB of activations for each of the batch's 720 tokens.
    save_tiny_encoder(tmp_path / "encoder", intermediate_size=16_384)
    (tmp_path / "out").mkdir()
    paths = {
        "tests": str(Path(__file__).parents[1]),
        "encoder": str(tmp_path / "encoder"),
        "out": str(tmp_path / "out"),
    }
    code = LIMITED.format(room=room_mib, **paths)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    shrunk, budget, steps = map(int, ended.stdout.split())
    assert steps == 2
    assert (shrunk == 0) == fits
    assert (budget == 10**6) == fits
