"""What mined negatives do to quality: SciFact, seven ways of choosing negatives, compared as m3tune compare does.

python benchmarks/negatives_quality.py OUT [--seeds 3] [--ways in-batch filtered ...] [--passages 5183]
                                           [--max-tokens 256] [--halves] [--set KEY=VALUE ...]

    in-batch     no negatives but the other passages of the batch
    native       mined as FlagEmbedding's script does it, by the [mine] table of recipes/native.toml: 15 drawn from
                 ranks 3 to 200 of the dense search, no threshold, random passages where they are too few
    unfiltered   ours, with nothing but known relevant passages left out
    filtered     ours, by the defaults
    mixed        ours, by the defaults, half of them random
    guided       ours, by the defaults, and in each batch the untuned model suspects what it puts above the positive
    rounds       ours, by the defaults, mined again with the tuned model

All else is the default recipe's, and so the same in all ways. That holds for native too, as the recipe itself says:
unlike in FlagEmbedding, near copies of a relevant passage are not mined, and known relevant ones are no negatives of a
batch.

The training queries with several positives have all judgments but one withheld, the same for all ways and seeds, so
that some of what is mined is known to be false: its share among what each way trains on is printed. With --halves every
passage is cut in two, and a training query knows but one half of what is relevant to it: labels as a question brings
them that was written for one chunk of a document, with many false negatives among its neighbours. Each way with each
seed has a folder in OUT, and each way a recipe in OUT/recipes; what is finished there is not done again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from m3tune.comparing import compare_recipes, load_ways
from m3tune.config import Recipe
from m3tune.data.collection import Collection
from m3tune.data.write import write_collection
from m3tune.negatives.table import CANDIDATES, read_negatives
from m3tune.progress import shown
from m3tune.recipe import load_recipe, to_toml
from m3tune.report.contest_page import PAGE
from m3tune.report.terminal import print_contest
from m3tune.starter import DEMO, recipe_file
from peers import print_machine, scifact
from planting import halved, smaller, withhold

_WITH_NEGATIVES = {"train.negatives_per_query": 4}
_OURS = {**_WITH_NEGATIVES, "mine.sources.model.last": 100, "mine.negatives_per_query": 8}
_GUIDE = {"train.guide": DEMO["model.path"], "train.false_negative_margin": 0.0}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "in-batch": {"mine": "false", "train.negatives_per_query": 0},
    "native": _WITH_NEGATIVES,  # and the [mine] table of its recipe
    "unfiltered": {**_OURS, "mine.threshold": "none"},
    "filtered": _OURS,
    "mixed": {**_OURS, "mine.negatives_per_query": 4, "mine.random_per_query": 4},
    "guided": {**_OURS, **_GUIDE},
    "rounds": {**_OURS, "mine.rounds": 2},
}


def write_data(collection: Collection, folder: Path) -> None:
    """Write the data, whole or not at all, where it is not there yet."""
    if folder.is_dir():
        return
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    write_collection(collection, beside, "beir")
    beside.rename(folder)


def recipe_of(way: str, data: Path, max_tokens: int) -> Recipe:
    """The default recipe with the settings of a way."""
    keys = {**DEMO, "data.path": data, "model.passage_max_tokens": max_tokens, **WAYS[way]}
    recipe = load_recipe(recipe_file("default"), [f"{key}={value}" for key, value in keys.items()])
    return recipe.model_copy(update={"mine": load_recipe(recipe_file("native")).mine}) if way == "native" else recipe


def write_recipes(output: Path, ways: Sequence[str], data: Path, max_tokens: int) -> list[str]:
    """A file for each way; their names."""
    folder = output / "recipes"
    folder.mkdir(exist_ok=True)
    for way in ways:
        (folder / f"{way}.toml").write_text(to_toml(recipe_of(way, data, max_tokens)), encoding="utf-8")
    return [str(folder / f"{way}.toml") for way in ways]


def false_share(folder: Path, gone: set[tuple[str, str]]) -> float | None:
    """The share of the mined negatives that are withheld positives of their query; None where nothing was mined."""
    if not (folder / "negatives" / CANDIDATES).is_file():
        return None
    mined = read_negatives(folder / "negatives")
    return sum((negative.query_id, negative.passage_id) in gone for negative in mined) / max(len(mined), 1)


def print_shares(facts: Mapping[str, Any], output: Path, gone: set[tuple[str, str]]) -> None:
    """The share of known false negatives and development and test metric of every way, means over the seeds."""
    print(f"\n{len(gone)} judgments withheld")
    print(f"{'way':12}  false among the mined  dev {facts['metric']}  test {facts['metric']}")
    for recipe in facts["recipes"]:
        shares = [false_share(output / run["folder"], gone) for run in recipe["runs"]]
        mined = [share for share in shares if share is not None]
        share = f"{np.mean(mined):.3%}" if mined else "none mined"
        print(f"{recipe['name']:12}  {share:>21}  {recipe['dev']:11.4f}  {recipe['mean']:12.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="runs of every way, with the seeds 0, 1, ...")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--passages", type=int, default=5183)
    parser.add_argument("--halves", action="store_true", help="chunks, of which training knows one")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="two or more")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    print_machine()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    hide = halved if arguments.halves else withhold
    collection, gone = hide(smaller(scifact(), arguments.passages))
    data = output / f"data-{arguments.passages}{'-halves' if arguments.halves else ''}"
    write_data(collection, data)
    files = write_recipes(output, arguments.ways, data, arguments.max_tokens)
    with shown(Console(stderr=True)):
        facts = compare_recipes(load_ways(files, arguments.overrides, print), arguments.seeds, None, output, print)
    print_contest(Console(width=120), facts, output / PAGE)
    print_shares(facts, output, gone)


if __name__ == "__main__":
    main()
