"""torch.compile of the layers: the same gradients, and off where it fails or does not pay."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.model.encoder import set_dropout
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder
from m3tune.training import compiling
from m3tune.training.batches import EpochBatches
from m3tune.training.compiling import compiled
from m3tune.training.costs import Probed
from m3tune.training.plan import make_plan
from m3tune.training.train import _made_ready, train
from tiny import tiny_collection

QUERIES = tuple(f"q{i}" for i in range(40))


@pytest.fixture
def compiling_as(tiny_folders, monkeypatch):
    """(encoder, context of `compiled`); the backend needs no C++ compiler."""
    monkeypatch.setattr(compiling, "_BACKEND", "aot_eager")
    monkeypatch.setattr(compiling, "_WORTH_TRYING_S", 0.0)

    def made(how):
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        config = TrainConfig(compile=how, batch_queries=8, precision="float32")
        feed, batches, dtype = _made_ready(encoder, tiny_collection(), Similar(), QUERIES, config, print)
        assert isinstance(batches, EpochBatches)
        texts = feed.collate([feed.examples[draw] for draw in next(iter(batches))]).texts
        return encoder, compiled(encoder, texts, make_plan(encoder, feed, batches, config, dtype), config, dtype)

    return made


def gradients(encoder, rows):
    found = []
    encoder.train()
    for row in rows:
        encoder.zero_grad()
        encoder(row).dense.pow(3).sum().backward()
        found += [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    return found


def is_compiled(encoder):
    return [module for module in encoder.modules() if module._compiled_call_impl is not None]


@pytest.mark.slow
def test_gradients_are_the_same_and_rows_of_all_sizes_share_what_was_compiled(compiling_as):
    encoder, context = compiling_as("on")
    set_dropout(encoder, 0.0)
    generator = np.random.default_rng(0)
    rows = [pack([generator.integers(5, 60, generator.integers(3, 30)) for _ in range(n)]) for n in (5, 9, 3, 12, 7)]
    names, plain = set(encoder.state_dict()), gradients(encoder, rows)
    torch._dynamo.reset()
    counters.clear()
    with context as said:
        assert said == "compile: on"
        assert len(is_compiled(encoder)) == 3 * encoder.backbone.config.num_hidden_layers
        torch.testing.assert_close(gradients(encoder, rows), plain, atol=1e-5, rtol=1e-4)
        assert set(encoder.state_dict()) == names, "saved as ever"
    # Three kinds of part, for all layers and all five sizes.
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]
    assert not is_compiled(encoder)


@pytest.mark.parametrize(
    ("after", "kept", "said"),
    [(1.9, True, "on, 1.05 times as fast"), (1.95, False, "off, for it does not pay here (1.03 times as fast)")],
)
def test_auto_keeps_what_is_measured_to_be_faster(compiling_as, monkeypatch, after, kept, said):
    encoder, context = compiling_as("auto")

    def timed(encoder, *_):
        return Probed(1, 1, 1, after if is_compiled(encoder) else 2.0)

    monkeypatch.setattr(compiling, "probe", timed)
    with context as found:
        assert found == f"compile: {said}"
        assert bool(is_compiled(encoder)) == kept


def test_a_short_training_is_not_compiled_for(compiling_as, monkeypatch):
    encoder, context = compiling_as("auto")
    monkeypatch.setattr(compiling, "_WORTH_TRYING_S", 600.0)
    with context as said:
        assert "over before it would pay" in said
        assert not is_compiled(encoder)


def test_training_goes_on_without_where_compiling_fails(tiny_folders, tmp_path, monkeypatch):
    def broken(_graph, _inputs):
        raise RuntimeError("no C++ compiler\nand much more")

    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    monkeypatch.setattr(compiling, "_BACKEND", broken)
    config = TrainConfig(compile="on", batch_queries=8, max_steps=2, evaluations=1, precision="float32")
    said = []
    result = train(
        encoder, tiny_collection(), Similar(), QUERIES, config, "m", lambda _: {"m": 0.0}, tmp_path, said.append
    )
    assert result.steps == 2
    (line,) = [line for line in said if line.startswith("compile")]
    assert line == "compile: off, for it fails here (RuntimeError: no C++ compiler)"
    assert not is_compiled(encoder)


def test_off_says_nothing_and_does_nothing(compiling_as):
    encoder, context = compiling_as("off")
    with context as said:
        assert said is None
        assert not is_compiled(encoder)
