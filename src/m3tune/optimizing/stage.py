"""The search stage: settings of training tried on development data, and the recipe with those that were chosen.

directory/trials.json    every trial: its values, the development metric at each evaluation, what became of it, its time
directory/search.json    the same for people: what was chosen and why, which settings mattered
directory/chosen.toml    the recipe with the chosen values, to run again without a search
directory/trial-N/       the training log of a trial
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3tune.artifact import MANIFEST, StageKey, is_complete, read_json, write_json, writing
from m3tune.config import Recipe, SelectConfig, TrainConfig
from m3tune.errors import RecipeError
from m3tune.evaluation.compare import document_groups
from m3tune.evaluation.select import LAST, Choice, Contender, choose
from m3tune.memory import clear_cache
from m3tune.model.weights import load_encoder
from m3tune.optimizing.loop import Task, run_trials
from m3tune.optimizing.space import Dial, dials_of, distance, with_values
from m3tune.optimizing.suggest import check_installed, importance
from m3tune.optimizing.trials import COMPLETE, TRIALS, Record
from m3tune.preparation import Say, silent
from m3tune.recipe import to_toml
from m3tune.report.settings import SEARCH, in_words
from m3tune.training.pairs import PairCounter
from m3tune.tuning import OnDev, Watch, tune_on_dev

CHOSEN = "chosen.toml"


def check_search(recipe: Recipe) -> None:
    """Raises RecipeError where a recipe asks for a search that this machine cannot do."""
    if recipe.search.minutes is not None:
        check_installed()


def search_settings(directory: Path, on_dev: OnDev, key: StageKey, say: Say) -> Recipe:
    """The recipe with the values that were chosen on development data; it asks for no further search.

    A finished search is not done again unless there is more time for it now; then its trials count.
    """
    recipe = _with_epochs(on_dev)
    on_dev = replace(on_dev, recipe=recipe)
    if not _is_done(directory, key, recipe):
        with writing(directory, key, keep_partial=True) as (partial, counts):
            if is_complete(directory, key) and not (partial / TRIALS).is_file():
                shutil.copytree(directory, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
            counts |= _search(partial, on_dev, say)
    found = read_json(directory / SEARCH)
    for line in in_words(found):
        say(f"search: {line}")
    return _chosen(recipe, TrainConfig.model_validate(found["train"]))


def _with_epochs(on_dev: OnDev) -> Recipe:
    """The recipe with its epochs as a number, which other numbers can be compared with."""
    recipe, prepared = on_dev.recipe, on_dev.prepared
    epochs = PairCounter(prepared.collection, prepared.split.train, recipe.train).epochs
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": epochs})})


def _is_done(directory: Path, key: StageKey, recipe: Recipe) -> bool:
    """Whether this search was finished with at least as much time."""
    return is_complete(directory, key) and read_json(directory / SEARCH)["minutes"] >= recipe.search.minutes


def _search(folder: Path, on_dev: OnDev, say: Say) -> dict[str, Any]:
    """Run the trials, write what is chosen, and return the counts."""
    recipe, prepared = on_dev.recipe, on_dev.prepared
    encoder, _ = load_encoder(recipe.model)
    width = encoder.dimension
    del encoder
    given = prepared.collection.given_negatives
    most = max((len(given.get(query_id, ())) for query_id in prepared.split.train), default=0)
    dials = dials_of(recipe.search, recipe.train, width, most)
    if not dials:
        raise RecipeError("nothing is left to search", where="search.settings", fix="name more of them, or more values")

    def measure(train: TrainConfig, watch: Watch, place: Path) -> None:
        clear_cache()  # of the trial before, which an exception may have ended
        own = replace(on_dev, recipe=recipe.model_copy(update={"train": train}))
        tune_on_dev(load_encoder(recipe.model)[0], own, place, say if train == recipe.train else silent, watch)

    task = Task(recipe.search, dials, recipe.train, measure, keep_best=recipe.select.rule != LAST)
    records = run_trials(task, folder, say)
    clusters = document_groups(prepared.collection.qrels(prepared.split.dev), prepared.similar.passages.first)
    choice = _choice(dials, records, clusters, recipe)
    found = _as_json(dials, records, choice, recipe)
    write_json(folder / SEARCH, found)
    chosen = _chosen(recipe, TrainConfig.model_validate(found["train"]))
    (folder / CHOSEN).write_text(to_toml(chosen), encoding="utf-8")
    return {"trials": len(records), "complete": sum(record.fate == COMPLETE for record in records)}


def _choice(dials: Sequence[Dial], records: Sequence[Record], clusters: Mapping[str, int], recipe: Recipe) -> Choice:
    """By the rule of the selection, with the recipe's own values as the base and turned dials as what is further away.

    So other values must beat the recipe's own by more than noise, and of those as good as the best the nearest is
    taken. Where the recipe's own never came to an end nothing else did.
    """
    contenders = [
        Contender(str(record.number), distance(dials, record.values), record.per_query)
        for record in records
        if record.fate == COMPLETE
    ]
    if not contenders:
        return Choice("0", {}, {})
    return choose(contenders, clusters, SelectConfig(noise=recipe.select.noise), recipe.evaluate)


def _as_json(dials: Sequence[Dial], records: Sequence[Record], choice: Choice, recipe: Recipe) -> dict[str, Any]:
    chosen = records[int(choice.name)]
    return {
        "metric": recipe.evaluate.main_metric,
        "minutes": recipe.search.minutes,
        "noise": recipe.select.noise,
        "seconds": round(sum(record.seconds for record in records), 1),
        "needed_s": round(2 * records[0].whole_s, 1),
        "chosen": chosen.number,
        "train": with_values(recipe.train, dials, chosen.values).model_dump(mode="json"),
        "dials": [{"key": of.key, "own": of.own, "values": of.values, "is_range": of.is_range} for of in dials],
        "importance": importance(dials, records, recipe.search.seed),
        "trials": [
            {
                "number": record.number,
                "values": record.values,
                "places": {dial.key: dial.place(record.values[dial.key]) for dial in dials},
                "fate": record.fate,
                "reason": record.reason,
                "became": choice.fates.get(str(record.number)),
                "p_value": choice.p_values.get(str(record.number)),
                "steps": record.steps,
                "of_steps": record.of_steps,
                "dev": record.dev,
                "seconds": record.seconds,
            }
            for record in records
        ],
    }


def _chosen(recipe: Recipe, train: TrainConfig) -> Recipe:
    """The recipe with other settings of training, and no further search."""
    return recipe.model_copy(update={"train": train, "search": recipe.search.model_copy(update={"minutes": None})})
