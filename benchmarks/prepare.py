"""Reading, comparing and splitting millions of passages: time, memory and growth.

    python benchmarks/prepare.py [--passages 5000000] [--steps 4]

Makes BEIR folders of 1x to 8x as many passages by a script (words by Zipf's law, 60 words each; 2 % exact copies, 3 %
copies with a few words changed; one query a hundred passages), and prepares each in a process of its own. The last line
is the growth: the exponent of time, and memory for each passage, between the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 60
VOCABULARY = 200_000
QUERY_WORDS = 8
PASSAGES_A_QUERY = 100
CHUNK = 10_000


def make(folder: Path, passages: int) -> None:
    """Write a BEIR folder. A chunk's copies are of passages of the chunk."""
    generator = np.random.default_rng(0)
    vocabulary = np.array([np.base_repr(i * 7919 + 46_656, 36).lower() for i in range(VOCABULARY)], dtype=object)
    shares = 1 / np.arange(1, VOCABULARY + 1)
    cumulative = np.cumsum(shares / shares.sum())
    (folder / "qrels").mkdir(parents=True)
    with (
        (folder / "corpus.jsonl").open("w") as corpus,
        (folder / "queries.jsonl").open("w") as queries,
        (folder / "qrels" / "train.tsv").open("w") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for start in range(0, passages, CHUNK):
            count = min(CHUNK, passages - start)
            words = vocabulary[np.searchsorted(cumulative, generator.random((count, WORDS)))]
            kind = generator.random(count)
            for i in np.flatnonzero(kind[1:] < 0.05) + 1:
                words[i] = words[generator.integers(i)]
                if kind[i] > 0.02:
                    words[i, generator.integers(WORDS, size=3)] = vocabulary[generator.integers(VOCABULARY, size=3)]
            for i, row in enumerate(words):
                corpus.write(f'{{"_id": "p{start + i}", "title": "", "text": "{" ".join(row)}"}}\n')
                if i % PASSAGES_A_QUERY == 0:
                    text = " ".join(generator.permutation(row)[:QUERY_WORDS])
                    queries.write(f'{{"_id": "q{start + i}", "text": "{text}"}}\n')
                    qrels.write(f"q{start + i}\tp{start + i}\t1\n")


def measure(source: Path, target: Path) -> None:
    """Prepare in this process; prints one JSON object."""
    from m3tune.config import DataConfig
    from m3tune.preparation import prepare

    started = time.monotonic()
    marks: list[tuple[str, float]] = []
    prepared = prepare(DataConfig(path=str(source)), target, lambda text: marks.append((text, time.monotonic())))
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - started,
                "seconds_reading": marks[0][1] - started,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                "nearly_the_same": len(prepared.similar.passages.first),
                "train": len(prepared.split.train),
                "dev": len(prepared.split.dev),
                "test": len(prepared.split.test),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=5_000_000, help="passages of the largest folder")
    parser.add_argument("--steps", type=int, default=4, help="folders, each twice as large as the one before")
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    rows = []
    for step in range(arguments.steps):
        count = arguments.passages // 2 ** (arguments.steps - 1 - step)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "data"
            make(source, count)
            gib = sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) / 2**30
            command = [sys.executable, __file__, "--measure", str(source), str(Path(folder) / "prepared")]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows.append((count, result))
        seconds, reading, peak = result["seconds"], result["seconds_reading"], result["peak_gib"]
        sides = " / ".join(f"{result[side]:,}" for side in ("train", "dev", "test"))
        print(f"{count:>9,} passages ({gib:.2f} GiB): {seconds:.0f} s (reading {reading:.0f}), peak {peak:.2f} GiB")
        print(f"          {result['nearly_the_same']:,} nearly the same as another; {sides} queries", flush=True)
    if len(rows) > 1:
        (small, first), (large, last) = rows[0], rows[-1]
        exponent = math.log(last["seconds"] / first["seconds"]) / math.log(large / small)
        bytes_each = (last["peak_gib"] - first["peak_gib"]) * 2**30 / (large - small)
        print(f"growth {large / small:.0f}x: time exponent {exponent:.2f}; {bytes_each:.0f} bytes a further passage")


if __name__ == "__main__":
    main()
