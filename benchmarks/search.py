"""Exact dense search: m3tune against sentence-transformers and FAISS, over a corpus of random vectors on disk.

    python benchmarks/search.py [--passages 1000000] [--queries 1000] [--dimension 384] [--depth 100] [--repeats 3]

Each contestant searches in a process of its own, given the corpus as a memory-mapped float32 file. Its peak memory is
what the search adds, without pages of the file, which the kernel may take back. How far its best scores are from those
of the first is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from peers import Peak, print_machine, print_table

OURS = "m3tune"
_BLOCK = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("passages", 1_000_000), ("queries", 1000), ("dimension", 384), ("depth", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.alone[0], Path(arguments.alone[1]), arguments.depth)))
        return
    print_machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_vectors(folder / "queries.npy", arguments.queries, arguments.dimension, 0)
        write_vectors(folder / "passages.npy", arguments.passages, arguments.dimension, 1)
        results = {name: [] for name in SEARCHERS}
        for _ in range(arguments.repeats):
            for name in SEARCHERS:
                command = [sys.executable, __file__, "--alone", name, place, "--depth", str(arguments.depth)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[name].append(json.loads(output))
        scores = {name: np.load(folder / f"{name}.scores.npy") for name in SEARCHERS}
    flop = 2 * arguments.queries * arguments.passages * arguments.dimension
    print(f"{arguments.queries:,} queries x {arguments.passages:,} passages x {arguments.dimension}, {flop:.2e} FLOP")
    seconds = {name: float(np.median([run["seconds"] for run in of])) for name, of in results.items()}
    print_table(seconds, OURS, "s")
    for name, of in results.items():
        apart = np.abs(scores[name] - scores[OURS]).max()
        peak = max(run["peak_gib"] for run in of)
        print(f"{name}: {flop / seconds[name] / 1e9:.0f} GFLOP/s, peak {peak:.2f} GiB, scores within {apart:.1e}")


def write_vectors(file: Path, count: int, dimension: int, seed: int) -> None:
    """Random vectors of length one, float32."""
    generator = np.random.default_rng(seed)
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, dimension))
    for first in range(0, count, _BLOCK):
        block = generator.standard_normal((min(_BLOCK, count - first), dimension), dtype=np.float32)
        array[first : first + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    array.flush()


def measure(name: str, folder: Path, depth: int) -> dict[str, float]:
    """One search in this process; writes its scores, (Q, K) best first."""
    queries, passages = (np.load(folder / f"{side}.npy", mmap_mode="c") for side in ("queries", "passages"))
    search = SEARCHERS[name]()
    with Peak() as memory:
        start = time.perf_counter()
        scores = search(queries, passages, depth)
        seconds = time.perf_counter() - start
    np.save(folder / f"{name}.scores.npy", scores)
    return {"seconds": seconds, "peak_gib": memory.bytes / 2**30}


Search = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def ours() -> Search:
    from m3tune.retrieval.exact import rank
    from m3tune.retrieval.vectors import Vectors

    def search(queries: np.ndarray, passages: np.ndarray, depth: int) -> np.ndarray:
        return np.stack([of.scores for of in rank(Vectors(dense=queries), Vectors(dense=passages), "dense", depth)])

    return search


def sentence_transformers() -> Search:
    import torch
    from sentence_transformers.util import dot_score, semantic_search

    def search(queries: np.ndarray, passages: np.ndarray, depth: int) -> np.ndarray:
        sides = (torch.from_numpy(side) for side in (queries, passages))
        found = semantic_search(*sides, top_k=depth, score_function=dot_score)
        return np.array([[hit["score"] for hit in hits] for hits in found], dtype=np.float32)

    return search


def faiss_flat() -> Search:
    import faiss

    def search(queries: np.ndarray, passages: np.ndarray, depth: int) -> np.ndarray:
        index = faiss.IndexFlatIP(passages.shape[1])
        for first in range(0, len(passages), _BLOCK):
            index.add(np.ascontiguousarray(passages[first : first + _BLOCK]))
        return index.search(np.ascontiguousarray(queries), depth)[0]

    return search


SEARCHERS: dict[str, Callable[[], Search]] = {
    OURS: ours,
    "sentence-transformers semantic_search": sentence_transformers,
    "FAISS IndexFlatIP": faiss_flat,
}


if __name__ == "__main__":
    main()
