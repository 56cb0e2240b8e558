"""The mining stage: hard negatives for the training queries, each with where it comes from and why others are none.

directory/candidates.parquet   every candidate: sources, ranks, scores, why it was removed, whether it was chosen
directory/positives.parquet    the known positives and their scores
directory/source.json          where the data is, when it was mined without a recipe
directory/summary.json         what other thresholds would keep, score histograms, examples; negatives.html shows it
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from m3tune.artifact import MANIFEST, fingerprint, is_complete, read_json, writing
from m3tune.config import MineConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant
from m3tune.data.prepared import Prepared
from m3tune.data.read import read_collection
from m3tune.data.similar import exact_copies, find_similar
from m3tune.data.source import keep_source
from m3tune.data.split import queries_of
from m3tune.negatives import filters, summary
from m3tune.negatives.ground import make_ground, read_pool
from m3tune.negatives.mined import keeps_given, with_mined, with_promoted, write_outputs
from m3tune.negatives.miner import encode_for, mine_vectors
from m3tune.negatives.task import Task, task_of
from m3tune.negatives.verdicts import read_verdicts
from m3tune.paths import resolve_path
from m3tune.preparation import Say, prepare
from m3tune.report.negatives_page import PAGE, SUMMARY, write_negatives_page
from m3tune.stages import without_new_heads

FOLDER = "negatives"
CACHE = ".teacher.sqlite"  # how the name of the file beside the stage's directory ends


def mine(
    folder: Path,
    recipe: Recipe,
    prepared: Prepared,
    model: ModelConfig,
    say: Say,
    into: Path | None = None,
    before: Path | None = None,
) -> Prepared:
    """The data with negatives mined for its training queries, where the recipe asks for them; else as it is.

    `model` mines unless the recipe names another. A round of several is mined into a folder of its own, after what the
    round `before` it mined; the teacher's scores are shared.
    """
    if recipe.mine is None:
        return prepared
    task = task_of(recipe, prepared.collection, prepared.similar, prepared.split.train, prepared.fingerprint, model)
    task, place = replace(task, before=before), (into or folder) / FOLDER
    mine_into(place, task, say, folder / (FOLDER + CACHE))
    for line in summary.in_words(read_json(place / MANIFEST)["counts"], read_json(place / SUMMARY)["rule"]):
        say(line)
    return replace(prepared, collection=_put_back(task, place), fingerprint=task.key.fingerprint)


def mine_into(directory: Path, task: Task, say: Say, cache: Path) -> None:
    """Mine into `directory`, unless it is there already. A teacher's scores are kept in `cache`."""
    key, config = task.key, task.config
    if is_complete(directory, key):
        if not (directory / PAGE).is_file():  # the process was killed between the two
            write_negatives_page(directory)
        return
    known = known_relevant(task.collection, task.similar)
    pool = read_pool(resolve_path(config.pool, "the pool"), task.collection) if config.pool else None
    ground = make_ground(task.collection, known, task.query_ids, pool)
    verdicts = filters.load_verdicts(resolve_path(config.verdicts, "the verdicts"), ground) if config.verdicts else []
    place = directory.with_name(directory.name + ".vectors")
    with writing(directory, key) as (partial, counts):
        miner = encode_for(task, ground, place, say)
        counts |= mine_vectors(partial, task, ground, miner, verdicts, cache)
    shutil.rmtree(place, ignore_errors=True)
    write_negatives_page(directory)


def mine_recipe(recipe: Recipe, say: Say) -> tuple[Path, dict[str, Path]]:
    """The data and the mining stage of a recipe alone: the stage's directory, and what was written for others."""
    folder = Path(recipe.output).expanduser()
    prepared = prepare(recipe.data, folder / "data", say)
    asked = recipe if recipe.mine else recipe.model_copy(update={"mine": MineConfig()})
    mined = mine(folder, asked, prepared, without_new_heads(recipe.model), say)
    return folder / FOLDER, write_outputs(mined.collection, prepared.split.train, folder / FOLDER)


def mine_data(recipe: Recipe, split: str, say: Say) -> tuple[Path, dict[str, Path]]:
    """Mine for the queries of data that is not divided further, into the recipe's output; as `mine_recipe`."""
    config, directory = recipe.data, Path(recipe.output).expanduser()
    collection, why = read_collection(config.path, config.format, config.columns)
    say(why)
    if split == "auto":
        split = "train" if "train" in collection.splits else "all"
    query_ids = queries_of(collection, split)
    similar = find_similar(collection) if config.near_duplicates else exact_copies(collection)
    data = fingerprint([collection.fingerprint, config.near_duplicates])
    task = task_of(recipe, collection, similar, query_ids, data, recipe.model)
    mine_into(directory, task, say, directory.with_name(directory.name + CACHE))
    keep_source(directory, config, collection)
    return directory, write_outputs(_put_back(task, directory), query_ids, directory)


def _put_back(task: Task, directory: Path) -> Collection:
    """The task's data with what was mined into `directory`, and with what people found relevant."""
    collection, config = task.collection, task.config
    if config.verdicts and config.promote:
        verdicts = read_verdicts(resolve_path(config.verdicts, "the verdicts"))
        collection = with_promoted(collection, verdicts, task.query_ids)
    return with_mined(collection, directory, keep_given=keeps_given(config))
