"""What mined negatives do to quality: SciFact, seven ways of choosing negatives, several seeds.

python benchmarks/negatives_quality.py OUT [--seeds 0 1 2] [--passages 5183] [--max-tokens 256] [--set KEY=VALUE ...]

    in-batch     no negatives but the other passages of the batch
    native       mined as FlagEmbedding's script does it: ranks 3 to 200 of the dense search, the query's own positives
                 taken out, some of the rest at random
    unfiltered   ours, with nothing but known relevant passages left out
    filtered     ours, by the defaults
    mixed        ours, by the defaults, half of them random
    guided       ours, by the defaults, and in each batch the untuned model suspects what it puts above the positive
    rounds       ours, by the defaults, mined again with the tuned model

The training queries with several positives have all judgments but one withheld, so that some of what is mined is known
to be false: its share among what each way trains on is printed. Each run has a folder in OUT; what is finished there is
not done again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from false_negatives import smaller
from m3tune import pipeline
from m3tune.artifact import read_json
from m3tune.data.collection import Collection
from m3tune.data.write import write_collection
from m3tune.negatives.table import CANDIDATES, read_negatives
from m3tune.progress import shown
from m3tune.recipe import load_recipe
from m3tune.starter import DEMO, recipe_file
from peers import print_machine, scifact

NEGATIVES = 4
_OURS = {"sources.model.last": 100, "negatives_per_query": 8}
WAYS: Mapping[str, Mapping[str, Any] | None] = {
    "in-batch": None,
    "native": {
        "sources.model.first": 3, "sources.model.last": 200, "negatives_per_query": 8, "threshold": "none",
    },
    "unfiltered": {**_OURS, "threshold": "none"},
    "filtered": _OURS,
    "mixed": {**_OURS, "negatives_per_query": 4, "random_per_query": 4},
    "guided": _OURS,
    "rounds": {**_OURS, "rounds": 2},
}  # fmt: skip
_GUIDE = {"train.guide": DEMO["model.path"], "train.false_negative_margin": 0.0}


def withhold(collection: Collection, seed: int) -> tuple[Collection, set[tuple[str, str]]]:
    """The data without all but one judgment of its training queries, and the pairs taken out."""
    generator = random.Random(seed)
    train = collection.splits["train"]
    gone: set[tuple[str, str]] = set()
    for query_id in train:
        positives = collection.positives.get(query_id, ())
        gone |= {(query_id, passage_id) for passage_id in generator.sample(positives, max(len(positives) - 1, 0))}
    judgments = tuple(j for j in collection.judgments if (j.query_id, j.passage_id) not in gone)
    return replace(collection, judgments=judgments), gone


def settings(way: str, folder: Path, data: Path, seed: int, max_tokens: int) -> list[str]:
    """The recipe's keys for one run."""
    mine = WAYS[way]
    keys: dict[str, Any] = {**DEMO, "data.path": data, "output": folder, "data.seed": seed, "train.seed": seed}
    keys |= {"model.passage_max_tokens": max_tokens}
    if way == "native":
        keys["data.near_duplicates"] = "false"
    if way == "guided":
        keys |= _GUIDE
    if mine is not None:
        keys |= {f"mine.{key}": value for key, value in mine.items()} | {"mine.seed": seed}
        keys["train.negatives_per_query"] = NEGATIVES
    return [f"{key}={value}" for key, value in keys.items()]


def false_share(folder: Path, gone: set[tuple[str, str]]) -> float:
    """The share of the mined negatives that are withheld positives of their query."""
    if not (folder / "negatives" / CANDIDATES).is_file():
        return 0.0
    mined = read_negatives(folder / "negatives")
    return sum((negative.query_id, negative.passage_id) in gone for negative in mined) / max(len(mined), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--passages", type=int, default=5183)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    print_machine()
    rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in arguments.ways}
    with shown(Console(stderr=True)):
        for seed in arguments.seeds:
            data = arguments.output / f"data-{seed}"
            collection, gone = withhold(smaller(scifact(), arguments.passages), seed)
            if not data.exists():
                write_collection(collection, data, "beir")
            for way in arguments.ways:
                folder = arguments.output / f"{way}-{seed}"
                keys = settings(way, folder, data, seed, arguments.max_tokens)
                result = pipeline.run(load_recipe(recipe_file("default"), [*keys, *arguments.overrides]), print)
                dev = read_json(folder / "train" / "selection.json")["tuned"]
                rows[way].append((result.tuned, dev, false_share(folder, gone)))
                print(f"{way} seed {seed}: {asdict(result)}; {len(gone)} judgments withheld", flush=True)
    print(f"\n{'':12}  test {result.metric}    sd   dev     false negatives among the mined")
    for way, found in rows.items():
        test, dev, share = np.array(found).T
        spread = test.std(ddof=1) if len(test) > 1 else 0.0
        print(f"{way:12}  {test.mean():.4f}      {spread:.4f}  {dev.mean():.4f}  {share.mean():.3%}")


if __name__ == "__main__":
    main()
