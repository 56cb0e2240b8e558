"""Which rule should choose between base, checkpoint and merges: asked on folds of SciFact's training claims.

python benchmarks/selection_folds.py OUT [--folds 0 1 2 3 4] [--max-tokens 256]

No test claim is read. Each fold of the training claims is once what the test is to a run: the default recipe trains and
selects on the claims of the other folds, then every contender is measured on the fold, among the whole corpus. Printed
is what each rule chooses, what that has on the folds and what it lost of what it did not learn. Each fold leaves a
folder in OUT; what is there is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from m3tune import pipeline
from m3tune.artifact import read_json
from m3tune.config import EvaluateConfig, Recipe, SelectConfig
from m3tune.data.prepared import Prepared
from m3tune.data.token_store import tokens_kept
from m3tune.evaluation.compare import compare, document_groups
from m3tune.evaluation.measure import measure_encoder
from m3tune.evaluation.select import BASE, Contender, choose, folder_of, lost_share
from m3tune.evaluation.store import Evaluation, load_evaluation, save_evaluations
from m3tune.model.merge import become, weights_of
from m3tune.model.weights import load_encoder
from m3tune.progress import shown
from m3tune.recipe import load_recipe
from m3tune.rounds import tuned_model
from m3tune.starter import DEMO, recipe_file
from negatives_quality import write_data
from peers import print_machine
from recipe_choice import FOLDS, METRIC, claims_of_training, fold_of

HEAD = "dense"
ON_FOLD = EvaluateConfig(metrics=(METRIC,))


@dataclass(frozen=True)
class Fold:
    """The contenders of a finished fold, the groups of its development and test queries, and the test by contender."""

    contenders: Sequence[Contender]
    dev_groups: Mapping[str, int]
    test_groups: Mapping[str, int]
    test: Mapping[str, Mapping[str, float]]


Rule = Callable[[Fold], str]


def by_config(**keys: float) -> Rule:
    """The rule of evaluation/select.py."""
    return lambda fold: choose(fold.contenders, fold.dev_groups, SelectConfig(**keys), ON_FOLD).name


def highest(tolerance: float) -> Rule:
    """The highest on development data of those above the base by more than noise that lose at most `tolerance`."""

    def rule(fold: Fold) -> str:
        config = SelectConfig(retention_tolerance=tolerance)
        fates = choose(fold.contenders, fold.dev_groups, config, ON_FOLD).fates
        left = [of for of in fold.contenders if fates[of.name] in ("chosen", "worse", "further")]
        return max(left or fold.contenders[:1], key=lambda of: np.mean(list(of.dev.values()))).name

    return rule


def always(name: str) -> Rule:
    """One contender, whatever its figures."""
    return lambda fold: name


RULES: Mapping[str, Rule] = {
    "guarded: nearest within noise": by_config(),
    "nearest within noise, 5 %": by_config(noise=0.05),
    "highest that loses at most 2 %": highest(0.02),
    "highest that loses at most 1 %": highest(0.01),
    "highest that loses nothing": highest(0.0),
    "highest, whatever it loses": highest(0.99),
    "always the base": always(BASE),
    "always merged 0.7": always("merged 0.7"),
    "always the checkpoint": always("tuned"),
}


def run_fold(folder: Path, recipe: Recipe) -> None:
    """Train and select as a run does, then measure every contender on the fold."""
    prepared = pipeline.prepare(recipe.data, folder / "data", print)
    with tokens_kept(folder / "tokens"):
        pipeline.measure_words(folder, recipe, prepared)
        pipeline.measure_base(folder, recipe, prepared, print)
        pipeline.mine_and_tune(folder, recipe, prepared, pipeline.tune, print)
        pipeline.select(folder, recipe, prepared, print)
        measure_contenders(folder, recipe, prepared)


def measure_contenders(folder: Path, recipe: Recipe, prepared: Prepared) -> None:
    """Into `folder`/fold, one folder for each but the base, which the run has measured."""
    base, _ = load_encoder(recipe.model)
    encoder, _ = load_encoder(tuned_model(folder, recipe))
    ends = weights_of(base), weights_of(encoder)
    collection, passages = prepared.collection, list(prepared.collection.passages)
    for row in read_json(folder / "select" / "selection.json")["candidates"][1:]:
        place = folder / "fold" / folder_of(row["name"])
        if not place.is_dir():
            become(encoder, *ends, row["alpha"])
            sets = {"test": prepared.split.test}
            measured = measure_encoder(encoder, row["name"], collection, passages, sets, recipe.evaluate, "auto")
            save_evaluations(place, [measured.searched["test"].evaluation(HEAD, {})])


def read_fold(folder: Path, recipe: Recipe) -> Fold:
    """What `run_fold` left."""
    prepared = pipeline.prepare(recipe.data, folder / "data", pipeline.silent)

    def values(at: Path) -> Mapping[str, float]:
        evaluation: Evaluation = load_evaluation(at, HEAD)
        return evaluation.per_query[METRIC]

    contenders, test = [], {}
    for row in read_json(folder / "select" / "selection.json")["candidates"]:
        name, is_base = row["name"], row["name"] == BASE
        dev = values(folder / "base" / "dev" if is_base else folder / "select" / folder_of(name))
        contenders.append(Contender(name, row["alpha"], dev, row["retention"]))
        test[name] = values(folder / "base" if is_base else folder / "fold" / folder_of(name))
    groups = [
        document_groups(prepared.collection.qrels(side), prepared.similar.passages.first)
        for side in (prepared.split.dev, prepared.split.test)
    ]
    return Fold(contenders, *groups, test)


def compared(folds: Sequence[Fold]) -> Table:
    """Every rule: what it chose, the metric of that over the claims of all folds, and against the first rule."""
    table = Table("rule", "chosen", METRIC, "over the first rule", "p", "retention lost")
    groups = {f"{n} {q}": (n, group) for n, fold in enumerate(folds) for q, group in fold.test_groups.items()}
    numbers = {pair: number for number, pair in enumerate(dict.fromkeys(groups.values()))}
    clusters = {query_id: numbers[pair] for query_id, pair in groups.items()}
    first: dict[str, float] = {}
    for name, rule in RULES.items():
        chosen = [rule(fold) for fold in folds]
        found = {
            f"{n} {q}": value
            for n, (fold, of) in enumerate(zip(folds, chosen, strict=True))
            for q, value in fold.test[of].items()
        }
        first = first or found
        against = compare({METRIC: first}, {METRIC: found}, clusters, ON_FOLD).main
        lost = [
            lost_share(fold.contenders[0], next(each for each in fold.contenders if each.name == of))
            for fold, of in zip(folds, chosen, strict=True)
        ]
        over = f"{against.difference:+.4f} [{against.ci95[0]:+.4f}, {against.ci95[1]:+.4f}]"
        names = ", ".join(of.removeprefix("merged ") for of in chosen)
        table.add_row(name, names, f"{against.tuned:.4f}", over, f"{against.p_value:.3f}", f"{np.mean(lost):.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    print_machine()
    whole, folds = claims_of_training(), []
    arguments.output.mkdir(parents=True, exist_ok=True)
    for number in arguments.folds:
        split = fold_of(whole, number).split
        data = arguments.output / f"data-{number}"
        write_data(replace(whole.collection, splits={"train": split.train, "test": split.dev}), data)
        keys = {**DEMO, "data.path": data, "model.passage_max_tokens": arguments.max_tokens}
        recipe = load_recipe(recipe_file("default"), [f"{key}={value}" for key, value in keys.items()])
        folder = arguments.output / f"fold-{number}"
        with shown(Console(stderr=True)):
            run_fold(folder, recipe)
        folds.append(read_fold(folder, recipe))
        Console(width=140).print(compared(folds))


if __name__ == "__main__":
    main()
