"""What `m3tune plan` predicts against what a training then takes: memory at the peak and seconds a step.

    python benchmarks/plan.py [--steps 6] [--tokens 256]

SciFact, under several recipes, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from m3tune.config import TrainConfig
from m3tune.data.similar import Similar
from m3tune.machine import wait_for
from m3tune.memory import GIB
from m3tune.training import train as train_module
from m3tune.training.trainer import RetrievalTrainer
from peers import DEVICE, our_encoder, print_machine, scifact

HEADS = {"new_heads": ["sparse", "multi"], "pooling": "cls"}
RECIPES: dict[str, tuple[dict, dict]] = {
    "dense, 32 queries": ({}, {}),
    "dense, 32 queries, 2,048 tokens held": ({}, {"budget_tokens": 2048}),
    "dense, 128 queries, 4,096 tokens held": ({}, {"batch_queries": 128, "budget_tokens": 4096}),
    "dense, 32 queries, layers recomputed": ({}, {"gradient_checkpointing": True}),
    "three heads, 32 queries": (HEADS, {"self_distill": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--one", choices=list(RECIPES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*RECIPES[arguments.one], arguments.steps, arguments.tokens)))
        return
    print_machine()
    print(f"\n{'':40} peak GiB planned  measured   ratio | s/step planned  measured   ratio")
    for name in RECIPES:
        command = [sys.executable, __file__, "--steps", str(arguments.steps), "--tokens", str(arguments.tokens)]
        ended = subprocess.run([*command, "--one", name], check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(ended.stdout.splitlines()[-1])
        columns = [
            f"{found[what][0]:12.2f}  {found[what][1]:8.2f}  {found[what][0] / found[what][1]:6.2f}"
            for what in ("gib", "step_s")
        ]
        print(f"{name:40} {'     | '.join(columns)}")


def measured(model: dict, train: dict, steps: int, tokens: int) -> dict[str, tuple[float, float]]:
    """(planned, measured) of each."""
    collection = scifact()
    encoder = our_encoder(passage_max_tokens=tokens, query_max_tokens=tokens, **model)
    queries = tuple(q for q in collection.splits["train"] if q in collection.positives)
    plans, seconds = [], []
    original, step = train_module.make_plan, RetrievalTrainer.training_step

    def planning(*arguments, **options):
        plans.append(original(*arguments, **options))
        return plans[-1]

    def timed(*arguments, **options):
        start = time.perf_counter()
        loss = step(*arguments, **options)
        wait_for(DEVICE)
        seconds.append(time.perf_counter() - start)
        return loss

    train_module.make_plan, RetrievalTrainer.training_step = planning, timed
    config = TrainConfig(max_steps=steps, evaluations=1, precision="auto", **train)
    with tempfile.TemporaryDirectory() as folder:
        result = train_module.train(
            encoder, collection, Similar(), queries, config, "m", lambda _: {"m": 0.0}, Path(folder), lambda _: None
        )
    (plan,) = plans
    return {
        "gib": (plan.peak / GIB, result.memory["peak_gib"]),
        "step_s": (plan.step_s, float(np.median(seconds))),
    }


if __name__ == "__main__":
    main()
