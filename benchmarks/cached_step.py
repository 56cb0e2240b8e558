"""One step with a large logical batch: m3tune against sentence-transformers' CachedMNRL, and against itself uncached.

    python benchmarks/cached_step.py [--pairs 512] [--tokens 256] [--repeats 3]

The pairs are SciFact's. "a tenth" keeps the activations of a tenth of the tokens and makes those of the others again;
CachedMNRL has a token budget of the same size for its mini-batches. Peak memory is that of a process of its own that
makes one step, less that process before it. "best" is without dropout and, where the machine has it, with bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch

from peers import at_best, interleaved_medians, peak_gib, print_machine, print_table, sentence_transformer
from train_step import TEMPERATURE, on_device, ours, scifact_pairs, step_of, turn_dropout_off

KEPT = 0.1
CONTESTANTS = (
    "m3tune, a tenth",
    "m3tune, all kept",
    "CachedMNRL (as it comes)",
    "CachedMNRL (best)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    queries, passages = scifact_pairs(arguments.pairs)

    def step(name: str) -> Callable[[], None]:
        if name.startswith("m3tune"):
            return ours(queries, passages, arguments.tokens, "auto", KEPT if "tenth" in name else 1.0)
        return cached(queries, passages, arguments.tokens, best="best" in name)

    if arguments.peak_of:
        print(peak_gib(step(arguments.peak_of), repeats=1))
        return
    print_machine()
    sizes = ["--pairs", str(arguments.pairs), "--tokens", str(arguments.tokens)]
    peaks = {}
    for name in CONTESTANTS:  # first, while this process is small: what it has held it does not give back
        command = [sys.executable, __file__, *sizes, "--peak-of", name]
        peaks[name] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(f"\n{len(queries)} pairs, texts up to {arguments.tokens} tokens\n\npeak memory beyond the loaded model")
    print_table(peaks, CONTESTANTS[0], "GiB")
    steps = {name: step(name) for name in CONTESTANTS}
    medians = interleaved_medians(steps, arguments.repeats)
    print(f"\nmedian of {arguments.repeats} steps")
    print_table(medians, CONTESTANTS[0], "s/step")


def cached(queries: list[str], passages: list[str], tokens: int, *, best: bool) -> Callable[[], None]:
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss

    model = sentence_transformer(tokens, train=True)
    if best:
        turn_dropout_off(model)
    features = [on_device(model.preprocess(texts)) for texts in (queries, passages)]
    real = sum(int(side["attention_mask"].sum()) for side in features)
    objective = CachedMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE, mini_batch_num_tokens=int(KEPT * real))

    def loss() -> torch.Tensor:
        with at_best(best=best):
            return objective([dict(side) for side in features], None)

    return step_of(list(model.parameters()), loss)


if __name__ == "__main__":
    main()
