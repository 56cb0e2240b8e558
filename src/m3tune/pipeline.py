"""The stages in order: files in, a judged retriever out. A library user starts here; the command line only calls this.

    prepare -> measure_words -> measure_base -> find_settings, where the recipe searches -> mine and tune, in rounds
    where the recipe says so -> select -> measure_tuned -> judge -> deliver -> report

Here is their order. Each is a function of the run folder, the recipe and what came before, stands in a file of its own
(preparation, measuring, mining, tuning, rounds, selecting, delivering) and fills one directory of the run:

    resolved.toml the recipe with every key
    data/         the collection, its near-duplicates and the split
    base/         the untuned encoder on the test queries, by every head; base/dev on the development corpus
    bm25/         the baseline without a model
    negatives/    candidates, which of them are negatives and why, where the recipe mines; negatives.html
    search/       where the recipe searches for settings: every trial, what was chosen (chosen.toml) and why
    train/        the log, the best checkpoint (train/model) and how good it is (selection.json)
    rounds/       the two before for each round of mining and training, where there are several; the best stands above
    select/       what was chosen between the base, that checkpoint and merges of the two (selection.json), and why
    tuned/        the chosen encoder on the test queries
    verdict.json  the contract for programs; comparison.json has every metric, heads.json the heads of a model that has
                  several against each other; hybrid.json in base/ and select/*/ how the hybrid's weights were tuned
    tokens/       every text's tokens until the run is done, and vectors/ passages' vectors while they are measured,
                  where they do not fit in memory; those of the base until the run is done, where the recipe mines
    model/        what is delivered: loads in m3tune, sentence-transformers and transformers
    run.json      what the run depended on and where it was made: fingerprints, versions, machine, precision
    errors.json   which queries gained and lost, where rankers disagree, what may be behind the worst losses
    report.html   the same for people
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from m3tune import retaining
from m3tune.config import Recipe
from m3tune.data.prepared import Prepared
from m3tune.data.token_store import tokens_kept
from m3tune.delivering import Verdict, compare_evaluations, deliver, judge
from m3tune.evaluation.metrics import parse_metrics
from m3tune.measuring import evaluate, measure_base, measure_tuned, measure_words
from m3tune.negatives.task import check_use
from m3tune.optimizing.stage import check_search, search_settings
from m3tune.preparation import Say, check_sides, prepare, silent, source_of
from m3tune.processes import alone_in
from m3tune.recipe import to_toml
from m3tune.record import record_run
from m3tune.report.html import write_report
from m3tune.retrieval.corpus import vectors_kept
from m3tune.rounds import mine_and_tune, mine_first
from m3tune.selecting import select
from m3tune.stages import model_key, read_dev_corpus, vectors_place
from m3tune.training.sets import training_sets
from m3tune.training.train import check_alone
from m3tune.tuning import OnDev, training_config, tune

__all__ = [
    "Verdict",
    "compare_evaluations",
    "deliver",
    "evaluate",
    "find_settings",
    "judge",
    "measure_base",
    "measure_tuned",
    "measure_words",
    "mine_and_tune",
    "prepare",
    "run",
    "select",
    "silent",
    "tune",
]


def run(recipe: Recipe, say: Say = silent) -> Verdict:
    """Every stage of `recipe`, skipping what is up to date and going on with what was cut off."""
    check_alone()
    parse_metrics((*recipe.evaluate.metrics, recipe.evaluate.main_metric))
    check_use(recipe)
    check_search(recipe)
    folder = Path(recipe.output).expanduser()
    source_of(recipe.data, folder)  # before anything is written
    with alone_in(folder):
        return _run_stages(folder, recipe, say)


def _run_stages(folder: Path, recipe: Recipe, say: Say) -> Verdict:
    (folder / "resolved.toml").write_text(to_toml(recipe), encoding="utf-8")
    prepared = prepare(recipe.data, folder / "data", say)
    check_sides(prepared.split)
    training_sets(prepared.collection, prepared.split.train, recipe.train)  # a wrong name shows now, not after an hour
    if retaining.names_data(recipe.select) and not (folder / "select").is_dir():
        retaining.named_ground(recipe.select, recipe.data.seed, silent)  # and so does a mistake in this data
    # The base that is measured mines too.
    kept = vectors_kept(folder / "vectors" / "kept") if recipe.mine else contextlib.nullcontext()
    with tokens_kept(folder / "tokens"), kept:
        measure_words(folder, recipe, prepared)
        measure_base(folder, recipe, prepared, say)
        recipe = find_settings(folder, recipe, prepared, say)
        mine_and_tune(folder, recipe, prepared, tune, say)
        select(folder, recipe, prepared, say)
        measure_tuned(folder, recipe, prepared, say)
    result = judge(folder, recipe, prepared)
    deliver(folder, recipe, result)
    record_run(folder, recipe)
    write_report(folder)
    return result


def find_settings(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> Recipe:
    """The recipe as a search on development data leaves it, where it asks for one; resolved.toml becomes that.

    Trials train on the negatives of the first round of mining, where the recipe mines.
    """
    if recipe.search.minutes is None:
        if (folder / "search").is_dir():
            say("search/ has settings found for an earlier run: without --search the recipe's own are used")
        return recipe
    prepared = mine_first(folder, recipe, prepared, say)
    corpus = read_dev_corpus(folder)
    tried = {"search": recipe.search.model_dump(exclude={"minutes"}), "noise": recipe.select.noise}
    tried |= recipe.evaluate.model_dump(include={"resamples", "seed"})
    key = model_key("search", recipe, prepared, training_config(recipe, corpus) | tried)
    # Without the test queries: what is not there, nobody looks at.
    without_test = replace(prepared, split=replace(prepared.split, test=()))
    with vectors_place(folder, "search") as place:
        found = search_settings(folder / "search", OnDev(recipe, without_test, corpus, place), key, say)
    (folder / "resolved.toml").write_text(to_toml(found), encoding="utf-8")
    return found
