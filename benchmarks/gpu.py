"""What a GPU alone can show: its faster paths against the plain ones, then every benchmark at BGE-M3's shape.

    python benchmarks/gpu.py [--layers 24] [--width 1024] [--checks-only]

The model has random weights (random_m3.py). Each check prints the figure that it is judged by, and where one fails the
script ends with exit code 1: attention and its way back, vectors, gradients under several budgets and on several
devices, search, memory that really runs out. Without a GPU they run on the CPU, which shows that they themselves work;
give small sizes there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.data.tokens import tokenize
from m3tune.machine import autocast, pick_precision
from m3tune.model.attention import packed_attention, text_ends
from m3tune.model.encoder import set_dropout
from m3tune.model.packing import LengthRun
from m3tune.model.weights import load_encoder
from m3tune.retrieval.encode import encode
from m3tune.retrieval.exact import rank
from m3tune.retrieval.vectors import Vectors
from m3tune.scoring import dense_scores
from m3tune.training.budget import Budget
from m3tune.training.devices import Devices, started
from m3tune.training.losses import contrastive
from m3tune.training.train import train
from peers import DEVICE, our_encoder, print_machine, scifact
from random_m3 import save_random_m3
from train_step import TEMPERATURE

TABLE = (
    ("train_step.py",),
    ("unified_step.py",),
    ("cached_step.py",),
    ("encode.py",),
    ("plan.py",),
    ("search.py", "--passages", "1000000", "--dimension", "1024"),
)
BUDGETS = (0.5, 0.25, 0.1, 0.0)  # of the batch's tokens; at 0 one text is held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--checks-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_random_m3(Path(folder), arguments.layers, arguments.width)
        os.environ["M3TUNE_BENCH_MODEL"] = folder
        print_machine()
        failed = [check.__name__ for check in CHECKS if not _passes(check)]
        for script, *options in () if arguments.checks_only else TABLE:
            print(f"\n=== {script} {' '.join(options)}", flush=True)
            subprocess.run([sys.executable, Path(__file__).with_name(script), *options], check=False)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _passes(check: Callable[[], Iterator[tuple[str, float, float]]]) -> bool:
    """Whether every figure of a check, (what, value, the most it may be), is small enough."""
    good = True
    for what, value, most in check():
        fine = value <= most
        good &= fine
        print(f"{'ok' if fine else 'FAILED':7} {check.__name__}: {what} {value:.2g} (at most {most:.2g})", flush=True)
    return good


def attention_and_its_gradients() -> Iterator[tuple[str, float, float]]:
    """Of a packed row in the device's precision, against the formula in float32, text by text."""
    runs = (LengthRun(0, 5, 7), LengthRun(35, 3, 64), LengthRun(227, 2, 250))
    tokens = sum(run.count * run.length for run in runs)
    dtype = pick_precision("auto", DEVICE)
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(1, 4, tokens, 64, generator=generator).to(DEVICE, dtype) for _ in range(4)]

    def attended(attend: Callable, precision: torch.dtype) -> list[torch.Tensor]:
        row = [x.to(precision).detach().requires_grad_() for x in exact[:3]]
        output = attend(*row)
        output.backward(exact[3].transpose(1, 2).to(precision))
        return [output.detach().float(), *(x.grad.float() for x in row)]

    def packed(query, key, value):
        ends = text_ends(runs).to(DEVICE)
        return packed_attention(torch.nn.Identity(), query, key, value, None, packed_runs=runs, packed_ends=ends)[0]

    def plain(query, key, value):
        ends = text_ends(runs).tolist()
        texts = [slice(first, last) for first, last in pairwise(ends)]
        scores = [torch.softmax(query[:, :, t] @ key[:, :, t].mT / 64**0.5, dim=-1) @ value[:, :, t] for t in texts]
        return torch.cat(scores, dim=2).transpose(1, 2)

    found, expected = attended(packed, dtype), attended(plain, torch.float32)
    for name, ours, right in zip(("output", "query", "key", "value"), found, expected, strict=True):
        yield f"relative error of {name}", relative_error(ours, right), 0.01


def vectors_as_on_a_cpu() -> Iterator[tuple[str, float, float]]:
    """Dense vectors in the device's precision against float32 on the CPU."""
    texts = [passage.full_text for passage in scifact().passages.values()][:8]
    ours = encode(our_encoder(), texts, "passage", pick_precision("auto", DEVICE))
    plain, _ = load_encoder(ModelConfig(path=os.environ["M3TUNE_BENCH_MODEL"]))
    right = encode(plain, texts, "passage", torch.float32)
    yield "1 - lowest cosine", 1 - float((ours * right).sum(axis=1).min()), 0.01


class Batch:
    """Titles and texts of some passages as queries and passages; encoded, compared, and taken backward."""

    def __init__(self) -> None:
        self.encoder = our_encoder()
        set_dropout(self.encoder, 0.0)
        self.encoder.train()
        pairs = [(passage.title, passage.text) for passage in scifact().passages.values()][:16]
        table = tokenize([text for side in zip(*pairs, strict=True) for text in side], self.encoder.tokenizer, 128)
        self.texts = [table[row] for row in range(len(table))]
        self.num_tokens = table.num_tokens
        self.positive = torch.eye(len(pairs), dtype=torch.bool, device=DEVICE)

    def gradients(self, devices: Devices, tokens: int, dtype: torch.dtype) -> torch.Tensor:
        """Of all weights, one after another, where the activations of so many tokens are held."""
        self.encoder.zero_grad()
        with autocast(DEVICE, dtype):
            dense = devices.encode(self.encoder, self.texts, Budget(tokens), ("dense",), dropout=False).dense
        contrastive(dense_scores(*dense.chunk(2)), self.positive, ~self.positive, TEMPERATURE).backward()
        devices.collect()
        return torch.cat([p.grad.flatten() for p in self.encoder.parameters() if p.grad is not None])


def gradients_under_every_budget() -> Iterator[tuple[str, float, float]]:
    """Of one batch, held whole or in parts: in float32, and in the device's precision.

    There a batch in parts may differ from the whole as the whole does from float32, for both are rounded.
    """
    batch = Batch()
    alone = Devices(batch.encoder)
    exact = batch.gradients(alone, batch.num_tokens, torch.float32)
    for dtype in dict.fromkeys((torch.float32, pick_precision("auto", DEVICE))):
        whole = batch.gradients(alone, batch.num_tokens, dtype)
        most = max(1e-4, 2 * relative_error(whole, exact))
        for share in BUDGETS:
            tokens = max(1, int(share * batch.num_tokens))
            error = relative_error(batch.gradients(alone, tokens, dtype), whole)
            yield f"{tokens} tokens of {batch.num_tokens} held, {dtype}", error, most


def gradients_of_several_devices() -> Iterator[tuple[str, float, float]]:
    """Of one batch that all GPUs share; without a GPU, that two processes share."""
    count = torch.cuda.device_count() if DEVICE.type == "cuda" else 2
    batch = Batch()
    whole = batch.gradients(Devices(batch.encoder), batch.num_tokens, torch.float32)
    with started(batch.encoder, count, torch.float32, seed=0) as devices:
        error = relative_error(batch.gradients(devices, batch.num_tokens, torch.float32), whole)
    yield f"{count} devices" + (", which shows nothing" if count == 1 else ""), error, 1e-4


def search_as_on_a_cpu() -> Iterator[tuple[str, float, float]]:
    """The same passages in the same order, of a corpus of several blocks."""
    generator = np.random.default_rng(0)
    queries, passages = (generator.standard_normal((n, 64), dtype=np.float32) for n in (200, 100_000))
    there, here = (rank(Vectors(queries), Vectors(passages), "dense", 50, at) for at in (DEVICE, torch.device("cpu")))
    # Sums in another order can turn two scores round that differ in their last digit.
    wrong = [np.abs(a.scores - b.scores).max() for a, b in zip(there, here, strict=True) if (a.rows != b.rows).any()]
    yield "difference of scores where ranks differ", max(wrong, default=0.0), 1e-4
    yield "share of queries with other ranks", len(wrong) / len(queries), 0.1


def memory_that_runs_out() -> Iterator[tuple[str, float, float]]:
    """A training whose budget does not fit ends with the weights of one that began with a small budget."""
    collection = scifact()
    queries = tuple(q for q in collection.splits["train"] if q in collection.positives)[:64]
    weights, said = [], []
    for budget in (1_000_000, 1024):
        encoder = our_encoder(passage_max_tokens=256)
        config = TrainConfig(
            max_steps=2, batch_queries=32, evaluations=1, precision="float32", learning_rate=1e-5,
            budget_tokens=budget, gradient_checkpointing=False,
        )  # fmt: skip
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
            _, total = torch.cuda.mem_get_info()
            learning = sum(p.numel() for p in encoder.parameters()) * 4
            # Weights, gradients, state and a few texts, but not the activations of 32 pairs.
            torch.cuda.set_per_process_memory_fraction((5 * learning + 4 * 2**30) / total)
        with tempfile.TemporaryDirectory() as folder:
            train(encoder, collection, Similar(), queries, config, "m", lambda _: {"m": 0.0}, Path(folder), said.append)
        weights.append(torch.cat([p.detach().float().cpu().flatten() for p in encoder.parameters()]))
        del encoder
    if DEVICE.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        yield "budgets given up, 0 is none", float(not any("out of memory in step" in line for line in said)), 0
    yield "relative difference of weights", relative_error(*weights), 1e-4


def relative_error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


CHECKS = (
    attention_and_its_gradients,
    vectors_as_on_a_cpu,
    gradients_under_every_budget,
    gradients_of_several_devices,
    search_as_on_a_cpu,
    memory_that_runs_out,
)


if __name__ == "__main__":
    main()
