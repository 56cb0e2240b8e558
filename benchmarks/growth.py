"""How time and memory of encoding, searching and training grow from 1 x to 8 x the passages or the batch.

    python benchmarks/growth.py [--passages 1000] [--dimension 384] [--search-passages 100000] [--queries 200]
                                [--pairs 16] [--tokens 128] [--only WORK ...]

Encoding: SciFact's passages, repeated as often as needed, into files. Search: random vectors on disk, exact. Training:
a step of so many pairs of SciFact that holds the activations of 2,048 tokens. Each size is measured in a process of its
own. The exponents are least squares on logarithms, of seconds and of bytes beyond what the process held before: 1 is
proportional, 0 does not grow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from peers import Peak, print_machine

FACTORS = (1, 2, 4, 8)
_TRAIN_TOKENS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("passages", 1000), ("search-passages", 100_000), ("queries", 200), ("dimension", 384))
    sizes += (("pairs", 16), ("tokens", 128))
    for name, default in sizes:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--alone", nargs=2, metavar=("WORK", "PASSAGES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        work, passages = arguments.alone
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(WORK[work](int(passages), Path(folder), arguments)))
        return
    print_machine()
    bases = {"encode": arguments.passages, "search": arguments.search_passages, "train": arguments.pairs}
    for work in arguments.only:
        base = bases[work]
        counts = [factor * base for factor in FACTORS]
        print(f"\n{work}")
        measured = [alone(work, count) for count in counts]
        for count, result in zip(counts, measured, strict=True):
            print(f"{count:>10,}  {result['seconds']:9.2f} s  peak {result['peak_gib']:6.3f} GiB")
        for what in ("seconds", "peak_gib"):
            print(f"exponent of {what}: {exponent(counts, [result[what] for result in measured]):.3f}")


def alone(work: str, passages: int) -> dict[str, float]:
    """The measurement in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", work, str(passages)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The exponent of value = factor * size ** exponent, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def measure_encode(passages: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    import torch

    from m3tune.data.token_store import tokens_kept
    from m3tune.retrieval.encode import encode, tokenize_texts
    from m3tune.retrieval.store import store_vectors
    from peers import our_encoder, scifact

    encoder = our_encoder()
    texts = [passage.full_text for passage in scifact().passages.values()]
    # A number in front, so that no text is the same as another.
    repeated = [f"{row} {text}" for row, text in enumerate(itertools.islice(itertools.cycle(texts), passages))]
    encode(encoder, texts[:64], "passage")
    with Peak() as memory, tokens_kept(folder / "tokens"):
        start = time.perf_counter()
        tokens = tokenize_texts(encoder, repeated, "passage")
        store_vectors(encoder, tokens, torch.float32, folder / "vectors", heads=("dense",))
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gib": memory.bytes / 2**30}


def measure_search(passages: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    from m3tune.retrieval.exact import rank
    from m3tune.retrieval.vectors import Vectors
    from search import write_vectors

    for number, (side, count) in enumerate((("queries", arguments.queries), ("passages", passages))):
        write_vectors(folder / f"{side}.npy", count, arguments.dimension, number)
    queries = np.load(folder / "queries.npy")
    stored = np.load(folder / "passages.npy", mmap_mode="r")
    rank(Vectors(dense=queries[:8]), Vectors(dense=stored[:1000]), "dense", 10)
    with Peak() as memory:
        start = time.perf_counter()
        rank(Vectors(dense=queries), Vectors(dense=stored), "dense", 100)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gib": memory.bytes / 2**30}


def measure_train(pairs: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    from train_step import ours, scifact_pairs

    queries, passages = scifact_pairs(pairs)
    step = ours(queries, passages, arguments.tokens, "auto", budget_tokens=_TRAIN_TOKENS)
    step()  # the optimizer's state is made
    with Peak() as memory:
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gib": memory.bytes / 2**30}


WORK = {"encode": measure_encode, "search": measure_search, "train": measure_train}


if __name__ == "__main__":
    main()
