"""Several recipes on the same data with several seeds each: `m3tune compare A.toml B.toml --seeds 3`.

folder/RECIPE-SEED/    an ordinary run of `pipeline.run`, with everything that a run has
folder/comparison.json every figure for programs; comparison.html and results.md say the same to people

What must be the same in all recipes is checked, what can be made equal is, and both are said. Stages that runs have in
common are made once, and so are the vectors of the untuned model, which is measured and mines. An interrupted
comparison goes on: runs skip what they have finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3tune import pipeline
from m3tune.artifact import write_json
from m3tune.config import Recipe
from m3tune.data.prepared import Prepared
from m3tune.data.token_store import tokens_kept
from m3tune.errors import RecipeError
from m3tune.evaluation.metrics import parse_metrics
from m3tune.machine import pick_device, pick_precision
from m3tune.mining import FOLDER as NEGATIVES
from m3tune.negatives.task import check_use
from m3tune.preparation import Say, prepare
from m3tune.progress import track
from m3tune.recipe import load_recipe
from m3tune.report.contest import COMPARISON, gather_contest
from m3tune.report.contest_page import write_contest_page
from m3tune.retrieval.corpus import vectors_kept
from m3tune.sharing import share_stages
from m3tune.starter import recipe_file, recipe_names
from m3tune.training.pairs import PairCounter

_ELSEWHERE = {"output": "--out", "train.seed": "--seeds", "mine.seed": "--seeds"}
_NEGATIVES_OF_A_QUERY = "train.negatives_per_query"


class Way(NamedTuple):
    """A recipe and what it is called."""

    name: str
    recipe: Recipe


def is_recipe(name: str) -> bool:
    """Whether an argument names a recipe: a .toml file, or a shipped recipe where no folder is called so."""
    return name.endswith(".toml") or (name in recipe_names() and not Path(name).is_dir())


def load_ways(names: Sequence[str], overrides: Sequence[str], say: Say) -> list[Way]:
    """The recipes, each with `overrides` laid over it, but what is about negatives only where there are any.

    Otherwise `--set mine.negatives_per_query=3` would make a recipe that mines out of every other. Raises RecipeError
    for fewer than two, for two of one name, and for keys that the comparison itself sets.
    """
    for override in overrides:
        key = _key(override)
        if key in _ELSEWHERE:
            raise RecipeError(f"a comparison sets {key}", where=f"--set {override}", fix=f"use {_ELSEWHERE[key]}")
    ways = [_load_way(name, overrides, say) for name in names]
    if len(ways) < 2:
        raise RecipeError(
            "one recipe is nothing to compare", where=names[0], fix="name two or more, or type m3tune run"
        )
    called = [way.name for way in ways]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise RecipeError(f"two recipes are called {twice!r}", fix="give their files different names")
    return ways


def compare_recipes(ways: Sequence[Way], seeds: int, pairs: int | None, output: Path, say: Say) -> dict[str, Any]:
    """Run every recipe with every seed into `output`, and return what comparison.json there holds.

    `pairs` is the budget of training pairs, else the first recipe's own. Raises RecipeError where the recipes differ
    in what must be the same.
    """
    check_same(ways)
    for way in ways:
        parse_metrics((*way.recipe.evaluate.metrics, way.recipe.evaluate.main_metric))
        check_use(way.recipe)
    first = _folder(output, ways[0], 0)
    prepared = prepare(ways[0].recipe.data, first / "data", say)
    ways, notes = _one_precision(ways, first)
    ways, budget, changed = equalised(ways, prepared, pairs)
    notes += changed
    for note in notes:
        say(note)
    _run_all(ways, seeds, output, say)
    folders = {way.name: [_folder(output, way, seed) for seed in range(seeds)] for way in ways}
    facts = gather_contest(folders, prepared, budget, notes)
    write_json(output / COMPARISON, facts)
    write_contest_page(output)
    return facts


def check_same(ways: Sequence[Way]) -> None:
    """Raises RecipeError where recipes differ in data, model, measuring or precision, with every such key."""
    settings = {way.name: _must_be_same(way.recipe) for way in ways}
    first = ways[0].name
    different = [
        f"{key}: " + ", ".join(f"{of[key]!r} in {name}" for name, of in settings.items())
        for key, value in settings[first].items()
        if any(of[key] != value for of in settings.values())
    ]
    if different:
        raise RecipeError(
            "the recipes differ in what must be the same:\n  " + "\n  ".join(different),
            fix="give it to all of them, with --data, --model or --set KEY=VALUE, or write it into their files",
        )


def equalised(ways: Sequence[Way], prepared: Prepared, pairs: int | None) -> tuple[list[Way], int, list[str]]:
    """The recipes with as many steps as see the same number of training pairs, that number, and what was changed.

    To half a step: a recipe with larger batches sees some more or less. The schedule and the warm-up are shares of the
    steps and follow.
    """
    counters = {way.name: PairCounter(prepared.collection, prepared.split.train, way.recipe.train) for way in ways}
    own = {name: counter.seen(counter.steps) for name, counter in counters.items()}
    budget = pairs or own[ways[0].name]
    first = "every recipe" if len({*own.values()}) == 1 else ways[0].name
    why = "as --pairs says" if pairs else f"as {first} asks"
    equal, notes = [], [f"budget: {budget:,} training pairs, {why}"]
    for name, recipe in ways:
        counter = counters[name]
        steps = counter.steps_for(budget)
        if own[name] != budget and steps != counter.steps:
            notes.append(
                f"{name}: {steps:,} steps that see {counter.seen(steps):,} pairs, instead of {counter.steps:,} that "
                f"see {own[name]:,}"
            )
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"max_steps": steps})})
        equal.append(Way(name, recipe))
    return equal, budget, notes


def _run_all(ways: Sequence[Way], seeds: int, output: Path, say: Say) -> None:
    """Every recipe with one seed, then with the next; what an earlier run has made is linked."""
    first = _folder(output, ways[0], 0)
    mines = any(way.recipe.mine for way in ways)
    kept = vectors_kept(output / "vectors" / "kept") if mines else contextlib.nullcontext()
    with tokens_kept(output / "tokens"), kept, track("compare", total=seeds * len(ways)) as advance:
        for seed in range(seeds):
            done: list[Way] = []
            for way in ways:
                folder, recipe = _folder(output, way, seed), _seeded(way.recipe, seed)
                say(f"{way.name}, seed {seed}: {folder}")
                share_stages(first, folder, ("data", "bm25", "base"))
                for other in done:
                    if recipe.mine is not None and other.recipe.mine == way.recipe.mine:
                        share_stages(_folder(output, other, seed), folder, (NEGATIVES,))
                pipeline.run(recipe.model_copy(update={"output": str(folder)}), say)
                done.append(way)
                advance(1)


def _load_way(name: str, overrides: Sequence[str], say: Say) -> Way:
    file = Path(name) if name.endswith(".toml") else recipe_file(name)
    kept = [override for override in overrides if not _about_negatives(_key(override))]
    plain = load_recipe(file, kept)
    for override in overrides:
        if override in kept:
            continue
        if plain.mine is not None or (_key(override) == _NEGATIVES_OF_A_QUERY and plain.train.negatives_per_query):
            kept.append(override)
        else:
            say(f"{file.stem}: --set {override} is not for it, as it trains on no such negatives")
    return Way(file.stem, load_recipe(file, kept))


def _one_precision(ways: Sequence[Way], first: Path) -> tuple[list[Way], list[str]]:
    """The recipes with the precision that "auto" finds now, or that the first run was begun with, and what was found.

    It is measured, so that every run by itself might find another.
    """
    if ways[0].recipe.train.precision != "auto":
        return list(ways), []
    begun = first / "resolved.toml"
    precision = load_recipe(begun).train.precision if begun.is_file() else "auto"
    if precision == "auto":
        precision = str(pick_precision("auto", pick_device())).removeprefix("torch.")  # type: ignore[assignment]
    same = [
        Way(name, recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})}))
        for name, recipe in ways
    ]
    return same, [f'train.precision: "auto" is {precision} here, for every run']


def _must_be_same(recipe: Recipe) -> Mapping[str, Any]:
    sections = {"data": recipe.data, "model": recipe.model, "evaluate": recipe.evaluate}
    keys = {f"{name}.{key}": value for name, of in sections.items() for key, value in of.model_dump().items()}
    return keys | {"train.precision": recipe.train.precision}


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with this seed of training and mining; the split keeps its own, so that the base is the same."""
    mine = recipe.mine and recipe.mine.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"mine": mine, "train": recipe.train.model_copy(update={"seed": seed})})


def _folder(output: Path, way: Way, seed: int) -> Path:
    return output / f"{way.name}-{seed}"


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _about_negatives(key: str) -> bool:
    return key.startswith("mine.") or key == _NEGATIVES_OF_A_QUERY
