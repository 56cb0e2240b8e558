"""Settings of the default recipe, compared by cross-validation over SciFact's training claims; no test claim is read.

python benchmarks/recipe_choice.py OUT [--ways once twice ...] [--folds 0 1 2] [--max-tokens 256]

Each fold keeps a fifth of the training claims for development, claims of nearly the same text together, and trains on
the rest by the default recipe with the settings of a way. What is compared is the last step, searched among the judged
passages and the first of the untuned model and of BM25, as a run's own development data is. Each training leaves a file
in OUT; what is there is not done again, so that several processes may share the work.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import GroupKFold

from m3tune.artifact import read_json, write_json
from m3tune.config import EvaluateConfig, Recipe
from m3tune.data.prepared import Prepared
from m3tune.data.similar import find_similar
from m3tune.evaluation.compare import compare, document_groups
from m3tune.evaluation.measure import dev_corpus, measure_bm25, measure_encoder
from m3tune.evaluation.store import load_evaluation, save_evaluations
from m3tune.mining import mine
from m3tune.model.weights import load_encoder
from m3tune.progress import shown
from m3tune.recipe import load_recipe
from m3tune.stages import without_new_heads
from m3tune.starter import DEMO, recipe_file
from m3tune.tuning import OnDev, recipe_weights, tune_on_dev
from m3tune.types import Run, Split
from peers import print_machine, scifact

FOLDS = 5
METRIC = "nDCG@10"
AUTO_RATE = 2e-5 * 1024 / 384  # what "auto" was when this was first asked
_IN_BATCH = {"mine": "false", "train.negatives_per_query": 0, "train.epochs": 3}
_TWICE = {"train.learning_rate": 2 * AUTO_RATE, "train.epochs": 3}
_DOUBLED = {**_IN_BATCH, **_TWICE}
_MINED = {**_TWICE, "mine.threshold": "auto", "mine.risk": 0.02, "train.negatives_per_query": 2}
_THREE = {**_DOUBLED, "model.new_heads": '["sparse", "multi"]', "evaluate.head": "dense"}
_DISTILLED = {**_THREE, "train.self_distill": "true"}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "before": _IN_BATCH,  # the default recipe until 2026-11-28
    "once": {**_IN_BATCH, "train.learning_rate": AUTO_RATE},
    "half-batch": {**_IN_BATCH, "train.learning_rate": AUTO_RATE, "train.batch_queries": 16},
    "quarter-batch": {**_IN_BATCH, "train.learning_rate": AUTO_RATE, "train.batch_queries": 8},
    "twice": _DOUBLED,
    "four-times": {**_IN_BATCH, "train.learning_rate": 4 * AUTO_RATE},
    "twice-sharp": {**_DOUBLED, "train.temperature": 0.02},
    "twice-dropout": {**_DOUBLED, "train.dropout": 0.1},
    "twice-half-batch": {**_DOUBLED, "train.batch_queries": 16},
    "twice-longer": {**_DOUBLED, "train.epochs": 9},  # as many texts as two negatives a query and three epochs
    "twice-mined": _MINED,
    "twice-mined-one": {**_MINED, "train.negatives_per_query": 1},
    "twice-mined-four": {**_MINED, "train.negatives_per_query": 4},
    "twice-mined-unfiltered": {**_MINED, "mine.threshold": "none"},
    "twice-mined-risk-10": {**_MINED, "mine.risk": 0.1},
    "twice-mined-30-risk-10": {**_MINED, "mine.risk": 0.1, "mine.sources.model.last": 30},
    "twice-mined-mixed": {**_MINED, "mine.negatives_per_query": 4, "mine.random_per_query": 4},
    "twice-mined-sharp": {**_MINED, "train.temperature": 0.02},
    "twice-mined-six-epochs": {**_MINED, "train.epochs": 6},
    "four-times-mined": {**_MINED, "train.learning_rate": 4 * AUTO_RATE},
    "twice-three-heads": _DISTILLED,
    "twice-three-heads-late": {**_DISTILLED, "train.self_distill_start": 0.5, "train.loss_weights": "[2, 0.1, 1, 1]"},
    "twice-three-heads-apart": {**_THREE, "train.heads_apart": "true", "train.head_learning_rate": 1e-3},
}


class Steps:
    """A watch that counts steps; with one no checkpoint is written."""

    def __init__(self) -> None:
        """None is done yet."""
        self.done = 0

    def stepped(self, step: int, of: int) -> None:
        """So many optimizer steps are done."""
        self.done = step

    def evaluated(self, value: float, per_query: Mapping[str, float]) -> None:
        """What the only evaluation found is measured again below, by every head."""


def claims_of_training() -> Prepared:
    """SciFact without its test claims; every claim is for training as yet."""
    whole = scifact()
    train = whole.splits["train"]
    kept = {query_id: whole.queries[query_id] for query_id in train}
    judgments = tuple(judgment for judgment in whole.judgments if judgment.query_id in kept)
    collection = replace(whole, queries=kept, judgments=judgments, splits={"train": train})
    judged = tuple(query_id for query_id in train if query_id in collection.positives)
    return Prepared(collection, find_similar(collection), Split(judged, (), (), "new questions"), "recipe-choice")


def fold_of(prepared: Prepared, number: int) -> Prepared:
    """Fold `number` of five: a fifth of the claims is development, the rest trains."""
    claims = np.array(prepared.split.train)
    groups = [prepared.similar.queries.first_of(claim) for claim in claims]
    train, dev = list(GroupKFold(FOLDS, shuffle=True, random_state=0).split(claims, groups=groups))[number]
    split = replace(prepared.split, train=tuple(claims[train].tolist()), dev=tuple(claims[dev].tolist()))
    return replace(prepared, split=split, fingerprint=f"{prepared.fingerprint}-{number}")


def recipe_of(way: str, seed: int, max_tokens: int, epochs: float | None) -> Recipe:
    """The default recipe with the settings of a way, evaluated at the end alone."""
    keys: dict[str, Any] = {key: DEMO[key] for key in ("data.path", "model.path")}
    keys |= {"model.passage_max_tokens": max_tokens, "train.seed": seed, "train.evaluations": 1}
    keys |= {} if epochs is None else {"train.epochs": epochs}
    keys |= WAYS[way] | ({} if WAYS[way].get("mine") == "false" else {"mine.seed": seed})
    return load_recipe(recipe_file("default"), [f"{key}={value}" for key, value in keys.items()])


def rankings(prepared: Prepared, max_tokens: int, place: Path) -> list[Run]:
    """The untuned model's and BM25's rankings of every claim, made once for all ways and folds."""
    heads = ("dense", "bm25")
    if not place.is_dir():
        recipe = recipe_of("once", 0, max_tokens, None)
        encoder, _ = load_encoder(recipe.model)
        collection, claims = prepared.collection, {"all": prepared.split.train}
        passages = tuple(collection.passages)
        measured = measure_encoder(encoder, "base", collection, passages, claims, recipe.evaluate, "auto")
        words = measure_bm25(collection, claims, recipe.evaluate)["all"]
        save_evaluations(place, [measured.searched["all"].evaluation("dense", {}), words])
    return [load_evaluation(place, head).run for head in heads]


def train_once(recipe: Recipe, fold: Prepared, runs: Sequence[Run]) -> dict[str, Any]:
    """Steps, seconds and each head's development metric of every query after the last step."""
    corpus = dev_corpus(fold.collection, fold.split.dev, runs, recipe.data.dev_depth)
    watch = Steps()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mined = mine(Path(folder), recipe, fold, without_new_heads(recipe.model), print)
        encoder, _ = load_encoder(recipe.model)
        on_dev = OnDev(recipe, mined, corpus, Path(folder))
        tune_on_dev(encoder, on_dev, Path(folder) / "train", print, watch)
        seconds = time.perf_counter() - begun
        searched = on_dev.search(encoder)
    by_head = {h: dict(searched.evaluation(h, recipe_weights(recipe)).per_query[METRIC]) for h in searched.heads}
    return {"steps": watch.done, "seconds": seconds, "by_head": by_head}


def compared(output: Path, prepared: Prepared, ways: Sequence[str], seed: int) -> Table:
    """Every way and head against the first way's dense head on the claims of the folds that both have finished."""
    table = Table("way", "head", "folds", "steps", f"dev {METRIC}", "over the first", "p", "s a fold")
    found = {way: _finished(output, way, seed) for way in ways}
    clusters = document_groups(prepared.collection.qrels(prepared.split.train), prepared.similar.passages.first)
    for way, folds in found.items():
        both = sorted(folds.keys() & found[ways[0]].keys())
        if not both:
            continue
        seconds = f"{np.median([folds[fold]['seconds'] for fold in both]):.0f}"
        first = _values(found[ways[0]], both, "dense")
        for head in folds[both[0]]["by_head"]:
            own = _values(folds, both, head)
            against = compare({METRIC: first}, {METRIC: own}, clusters, EvaluateConfig(metrics=(METRIC,))).main
            over = f"{against.difference:+.4f} [{against.ci95[0]:+.4f}, {against.ci95[1]:+.4f}]"
            shown_p = f"{against.p_value:.3f}"
            steps = f"{folds[both[0]]['steps']}"
            table.add_row(way, head, f"{both}", steps, f"{against.tuned:.4f}", over, shown_p, seconds)
    return table


def _values(folds: Mapping[int, Any], numbers: Sequence[int], head: str) -> dict[str, float]:
    return {query_id: value for fold in numbers for query_id, value in folds[fold]["by_head"][head].items()}


def _finished(output: Path, way: str, seed: int) -> dict[int, Any]:
    files = {fold: _file(output, way, fold, seed) for fold in range(FOLDS)}
    return {fold: read_json(file) for fold, file in files.items() if file.is_file()}


def _file(output: Path, way: str, fold: int, seed: int) -> Path:
    return output / f"{way}-{fold}-{seed}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--epochs", type=float, help="instead of each way's own")
    parser.add_argument("--report", action="store_true", help="train nothing, compare what is there")
    arguments = parser.parse_args()
    print_machine()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    prepared = claims_of_training()
    if not arguments.report:
        runs = rankings(prepared, arguments.max_tokens, output / "base")
        with shown(Console(stderr=True)):
            for fold in arguments.folds:
                for way in arguments.ways:
                    file = _file(output, way, fold, arguments.seed)
                    if not file.is_file():
                        recipe = recipe_of(way, arguments.seed, arguments.max_tokens, arguments.epochs)
                        write_json(file, train_once(recipe, fold_of(prepared, fold), runs))
                        print(f"{way}, fold {fold}: done", flush=True)
    Console(width=120).print(compared(output, prepared, arguments.ways, arguments.seed))


if __name__ == "__main__":
    main()
