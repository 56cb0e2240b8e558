"""The mining stage: hard negatives for the training queries, each with where it comes from and why others are none.

directory/candidates.parquet   every candidate: sources, ranks, scores, why it was removed, whether it was chosen
directory/positives.parquet    the known positives and their scores
directory/summary.json         what other thresholds would keep, score histograms, examples; negatives.html shows it
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3tune import __version__
from m3tune.artifact import (
    MANIFEST,
    StageKey,
    fingerprint,
    is_complete,
    read_json,
    stage_fingerprint,
    write_json,
    writing,
)
from m3tune.config import MineConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant
from m3tune.data.prepared import Prepared
from m3tune.data.read import read_collection
from m3tune.data.similar import Similar, exact_copies, find_similar
from m3tune.data.split import queries_of
from m3tune.errors import DataError, RecipeError
from m3tune.evaluation.measure import deciding_head
from m3tune.machine import Precision, pick_device, pick_precision
from m3tune.model.settings import M3_WEIGHTS
from m3tune.model.weights import load_encoder, model_fingerprint
from m3tune.negatives import filters, summary
from m3tune.negatives.candidates import Pairs, unite
from m3tune.negatives.ground import Ground, make_ground, read_pool
from m3tune.negatives.mined import keeps_given, with_mined, with_promoted, write_outputs
from m3tune.negatives.scores import Scores, feedback_between_positives, feedback_ratios, score_all
from m3tune.negatives.select import select, suspicion
from m3tune.negatives.sources import RANDOM, brought, check_sources, drawn, searched
from m3tune.negatives.table import read_suspects, write_mined
from m3tune.negatives.teacher import Teacher, TextPair
from m3tune.negatives.verdicts import read_verdicts
from m3tune.paths import resolve_path
from m3tune.preparation import Say, prepare, source_fingerprint
from m3tune.report.negatives_page import PAGE, SUMMARY, write_negatives_page
from m3tune.retrieval.corpus import corpus_vectors
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.retrieval.vectors import Vectors
from m3tune.stages import without_new_heads
from m3tune.types import HYBRID, Head, PairVerdict

STAGE, FOLDER = "mine", "negatives"
CACHE = ".teacher.sqlite"  # how the name of the file beside the stage's directory ends
_SPARE = 8  # random passages beyond twice those that are wanted, since some will be removed


@dataclass(frozen=True)
class Task:
    """For whom negatives are mined, and with what."""

    config: MineConfig
    model: ModelConfig
    collection: Collection
    similar: Similar
    query_ids: Sequence[str]
    data_fingerprint: str
    precision: Precision = "auto"
    before: Path | None = None  # what a round before mined: whom it suspected is suspected still

    @property
    def key(self) -> StageKey:
        """What the mined negatives depend on, the contents of every file that the recipe names among it."""
        config = self.config
        named = {"pool": config.pool, "verdicts": config.verdicts}
        named |= {f"run {name}": source.run for name, source in config.sources.items()}
        files = {name: source_fingerprint(resolve_path(file, name)) for name, file in named.items() if file}
        teacher = {"teacher": model_fingerprint(ModelConfig(path=config.teacher))} if config.teacher else {}
        inputs = {"data": self.data_fingerprint, "model": model_fingerprint(self.model), "m3tune": __version__}
        if self.before is not None:
            inputs["before"] = stage_fingerprint(self.before)
        settings = {
            "mine": config.model_dump(exclude={"rounds"}),
            "model": self.model.model_dump(exclude={"path"}),  # its contents are among the inputs
            "queries": fingerprint(self.query_ids),
        }
        return StageKey(STAGE, settings | {"precision": self.precision}, inputs | files | teacher)


class Miner(NamedTuple):
    """Vectors of queries and of all passages, and how the mining model scores."""

    queries: Vectors
    passages: Vectors
    deciding: str  # a head, or the hybrid
    mixed: Mapping[Head, float]  # the hybrid's weights

    @property
    def weights(self) -> Mapping[Head, float]:
        """The weights of the heads whose sum is the score."""
        by_head: Mapping[Any, float] = self.mixed if self.deciding == HYBRID else {self.deciding: 1.0}
        return {head: by_head[head] for head in self.passages.heads if by_head.get(head)}


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


def check_mining(config: MineConfig) -> None:
    """Raises RecipeError for a [mine] table that contradicts itself."""
    check_sources(config.sources)
    if not config.negatives_per_query + config.random_per_query:
        raise RecipeError(
            "nothing is to be mined", where="mine.negatives_per_query", fix="set it, or random_per_query, above zero"
        )
    if config.teacher is None and not (config.teacher_threshold is None and config.teacher_margin is None):
        raise RecipeError(
            "there is no teacher", where="mine.teacher", fix="name a cross-encoder, or leave its keys out"
        )
    if config.suspects == "soft" and config.teacher is None:
        raise RecipeError(
            "suspects are learned by a teacher's score, and there is no teacher",
            where="mine.suspects",
            fix='name a cross-encoder in mine.teacher, or set it to "drop"',
        )


def check_use(recipe: Recipe) -> None:
    """Raises RecipeError where a recipe mines what it would not train on."""
    if recipe.mine is None:
        return
    check_mining(recipe.mine)
    if not recipe.train.negatives_per_query:
        raise RecipeError(
            "[mine] finds negatives, and training would use none of them",
            where="train.negatives_per_query",
            fix="set it, e.g. to 4, or leave [mine] out",
        )
    if recipe.mine.suspects == "soft" and recipe.train.distill == "none":
        raise RecipeError(
            "suspects would be sampled, and nothing learned of them",
            where="train.distill",
            fix='set it, e.g. to "kl", or mine.suspects to "drop"',
        )


def task_of(
    recipe: Recipe, collection: Collection, similar: Similar, query_ids: Sequence[str], data: str, model: ModelConfig
) -> Task:
    """What a recipe's [mine] table asks for. Raises RecipeError where it contradicts itself."""
    config = recipe.mine or MineConfig()
    check_mining(config)
    if config.model is not None:
        model = ModelConfig(path=config.model, trust_remote_code=recipe.model.trust_remote_code)
    return Task(config, model, collection, similar, query_ids, data, recipe.train.precision)


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
        miner = _encode(task, ground, place, say)
        counts |= mine_vectors(partial, task, ground, miner, verdicts, cache)
    shutil.rmtree(place, ignore_errors=True)
    write_negatives_page(directory)


def mine_vectors(
    folder: Path, task: Task, ground: Ground, miner: Miner, verdicts: Sequence[PairVerdict], cache: Path
) -> dict[str, Any]:
    """Mine by vectors that are there, write the tables and the summary to `folder`, and return the counts.

    A teacher's scores are kept in `cache`.
    """
    config = task.config
    pairs = _candidates(task, ground, miner)
    scores = score_all(miner.queries, miner.passages, miner.weights, ground, pairs)
    masks = filters.known_masks(pairs, ground)
    unknown = ~np.any(list(masks.values()), axis=0)
    clean = unknown & pairs.found_by([source for source in pairs.sources if source != RANDOM])
    teacher = _teach(task, ground, pairs, unknown, cache) if config.teacher else None
    ratios = feedback_ratios(miner.passages, ground, pairs, scores)
    suspected = suspicion(config, ground, pairs, scores, teacher, ratios, clean)
    if task.before is not None:
        suspected = replace(suspected, earlier=filters.among(ground, pairs, read_suspects(task.before)))
    review = filters.reviewed(pairs, ground, verdicts)
    selection = select(config, ground, pairs, scores, teacher, masks, review, suspected)
    write_mined(folder, ground, pairs, scores, teacher, selection)
    between = feedback_between_positives(miner.passages, ground, scores)
    facts = {
        "rule": suspected.found,
        "sources": summary.by_source(pairs, selection),
        "thresholds": summary.thresholds(ground, pairs, scores, clean, ratios, between),
        "histograms": summary.histograms(scores, selection),
        "examples": summary.examples(ground, pairs, scores, selection),
    }
    write_json(folder / SUMMARY, facts)
    return selection.counts()


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
    return directory, write_outputs(_put_back(task, directory), query_ids, directory)


def _put_back(task: Task, directory: Path) -> Collection:
    """The task's data with what was mined into `directory`, and with what people found relevant."""
    collection, config = task.collection, task.config
    if config.verdicts and config.promote:
        verdicts = read_verdicts(resolve_path(config.verdicts, "the verdicts"))
        collection = with_promoted(collection, verdicts, task.query_ids)
    return with_mined(collection, directory, keep_given=keeps_given(config))


def _encode(task: Task, ground: Ground, place: Path, say: Say) -> Miner:
    """Encode by the heads that are needed; passages may go to `place`."""
    encoder, why = load_encoder(task.model)
    say(f"mining with {task.model.path}: {why}")
    config, heads = task.config, encoder.settings.heads
    check_sources(config.sources, heads)
    deciding = _deciding(config, heads)
    needed = {deciding, *config.sources, "dense"}  # dense, as it compares passages at the least cost
    if needed & {"multi", HYBRID}:  # which search among what the other heads find
        needed |= {*heads}
    wanted = [head for head in heads if head in needed]
    encoder.to(pick_device())
    dtype = pick_precision(task.precision, encoder.device)
    keep = task.before is None  # nobody else mines with what this run has tuned
    tokens = tokenize_passages(encoder, task.collection, ground.passage_ids)
    passages = corpus_vectors(encoder, tokens, dtype, wanted, "encode passages (mining)", place, keep=keep)
    tokens = tokenize_queries(encoder, task.collection, ground.query_ids)
    queries = corpus_vectors(encoder, tokens, dtype, wanted, "encode queries (mining)", keep=keep)
    return Miner(queries, passages, deciding, encoder.settings.hybrid_weights or M3_WEIGHTS)


def _deciding(config: MineConfig, heads: Sequence[Head]) -> str:
    """The head or the hybrid that `mine.head` means for a model with these heads. Raises RecipeError."""
    if config.head != "auto" and (config.head not in heads if config.head != HYBRID else len(heads) < 2):
        raise RecipeError(
            f"the mining model has {', '.join(heads)} only", where="mine.head", fix='name one of these, or "auto"'
        )
    return deciding_head(config.head, heads)


def _candidates(task: Task, ground: Ground, miner: Miner) -> Pairs:
    """What all sources bring, and the random passages that the recipe wants. Raises DataError where that is nothing."""
    config, passages = task.config, miner.passages
    whole = ground.pool_size == len(passages)
    pool = passages if whole else passages.subset(ground.own_numbers[: ground.pool_size])
    rankings = searched(miner.queries, pool, config.sources, miner.mixed, miner.deciding)
    rankings += brought(ground, config.sources)
    random = config.random_per_query + (config.negatives_per_query if config.fill == "random" else 0)
    if random:
        rankings.append(drawn(ground, config.seed, 2 * random + _SPARE))
    pairs = unite(rankings, len(ground.passage_ids))
    if not len(pairs):
        raise DataError(
            f"no source found a candidate for any of {len(ground.query_ids):,} queries",
            where="mine.sources",
            fix="widen their ranks, or check that there are queries with a relevant passage",
        )
    return pairs


def _teach(task: Task, ground: Ground, pairs: Pairs, wanted: np.ndarray, cache: Path) -> Scores:
    """The teacher's scores of the positives and of the `wanted` (M,) candidates; of others none, not a number."""
    config, collection = task.config, task.collection
    assert config.teacher is not None
    rows = np.flatnonzero(wanted)
    query, passage = ground.positives

    def texts(queries: np.ndarray, passages: np.ndarray) -> list[TextPair]:
        return [
            (collection.queries[ground.query_ids[q]].text, collection.passages[ground.passage_ids[p]].full_text)
            for q, p in zip(queries.tolist(), passages.tolist(), strict=True)
        ]

    made = model_fingerprint(ModelConfig(path=config.teacher))
    with Teacher(config.teacher, made, cache, config.teacher_max_tokens, task.precision) as teacher:
        candidate = np.full(len(pairs), np.nan, dtype=np.float32)
        candidate[rows] = teacher.scores(texts(pairs.query[rows], pairs.passage[rows]))
        return Scores(candidate, teacher.scores(texts(query, passage)))
