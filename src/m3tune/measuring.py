"""The measuring stages: BM25, the untuned encoder and the chosen one on the queries of a run; any model on any data."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from m3tune import __version__
from m3tune.artifact import StageKey, is_complete, read_json, write_json, writing
from m3tune.config import EvaluateConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import Prepared
from m3tune.data.token_store import tokens_kept
from m3tune.errors import RecipeError
from m3tune.evaluation.measure import Measured, deciding_head, dev_corpus, measure_bm25, measure_encoder
from m3tune.evaluation.select import BASE
from m3tune.evaluation.store import HOW, Evaluation, load_evaluation, load_evaluations, save_evaluations
from m3tune.mixing import default_weights, tuned_weights
from m3tune.model.encoder import Encoder
from m3tune.model.settings import M3_WEIGHTS
from m3tune.model.weights import load_encoder, model_fingerprint
from m3tune.preparation import Say, silent
from m3tune.report import selection_words
from m3tune.selecting import chosen_encoder
from m3tune.stages import as_input, model_key, vectors_place, without_new_heads
from m3tune.types import HYBRID, RRF


def measure_words(folder: Path, recipe: Recipe, prepared: Prepared) -> None:
    """BM25 on the test queries, and on the development queries for the development corpus."""
    if not recipe.evaluate.bm25:
        return
    key = StageKey("bm25", recipe.evaluate.measuring(), {"data": prepared.fingerprint})
    if is_complete(folder / "bm25", key):
        return
    split = prepared.split
    with writing(folder / "bm25", key) as (partial, _):
        measured = measure_bm25(prepared.collection, {"test": split.test, "dev": split.dev}, recipe.evaluate)
        save_evaluations(partial, [measured["test"]])
        save_evaluations(partial / "dev", [measured["dev"]])


def measure_base(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """The untuned encoder on the test queries, and the development corpus that training is watched on."""
    choice = {"head": recipe.evaluate.head, "tune_weights": recipe.evaluate.tune_weights}
    config = recipe.evaluate.measuring() | choice | {"precision": recipe.train.precision, "bm25": recipe.evaluate.bm25}
    config |= {"dev_depth": recipe.data.dev_depth, "hybrid_weights": recipe.train.hybrid_weights}
    key = model_key("base", recipe, prepared, config)
    if is_complete(folder / "base", key):
        return
    collection, split = prepared.collection, prepared.split
    encoder, why = load_encoder(without_new_heads(recipe.model))
    say(f"{recipe.model.path}: {why}")
    head = _head_of_base(recipe, encoder)
    with writing(folder / "base", key) as (partial, counts), vectors_place(folder, "base") as place:
        sets = {"test": split.test, "dev": split.dev}
        measured = _measure(encoder, "base", recipe, prepared, tuple(collection.passages), sets, place, keep=True)
        weights = default_weights(encoder, recipe)
        runs = [measured.searched["dev"].run(head, weights)]
        if recipe.evaluate.bm25:
            runs.append(load_evaluation(folder / "bm25" / "dev", "bm25").run)
        corpus = dev_corpus(collection, split.dev, runs, recipe.data.dev_depth)
        on_dev = measured.on_subset("dev", corpus)
        weights = tuned_weights(on_dev, recipe, weights, partial)
        save_evaluations(partial, measured.searched["test"].evaluations(weights), measured.searched["test"].found.how)
        save_evaluations(partial / "dev", on_dev.evaluations(weights), on_dev.found.how)
        write_json(partial / "dev_corpus.json", list(corpus))
        write_json(partial / "settings.json", asdict(encoder.settings))
        counts |= {**measured.counts, "dev_passages": len(corpus)}


def measure_tuned(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """What development data chose, measured once on the test queries; the base is not measured twice."""
    selection = read_json(folder / "select" / "selection.json")
    key = StageKey("tuned", recipe.evaluate.measuring(), as_input(folder, "select"))
    if is_complete(folder / "tuned", key):
        return
    with writing(folder / "tuned", key) as (partial, counts), vectors_place(folder, "tuned") as place:
        if selection["chosen"] == BASE:
            say(f"the base is kept: {selection_words.why_base(selection)}")
            save_evaluations(partial, load_evaluations(folder / "base"), read_json(folder / "base" / HOW))
            return
        encoder = chosen_encoder(folder, recipe)
        passages = tuple(prepared.collection.passages)
        measured = _measure(encoder, "tuned", recipe, prepared, passages, {"test": prepared.split.test}, place=place)
        searched = measured.searched["test"]
        save_evaluations(partial, searched.evaluations(default_weights(encoder, recipe)), searched.found.how)
        counts |= measured.counts


def evaluate(
    model: ModelConfig,
    collection: Collection,
    query_ids: Sequence[str],
    config: EvaluateConfig,
    folder: Path,
    name: str,
    say: Say = silent,
) -> list[Evaluation]:
    """Every head of one model, and BM25 where `config` says so, over any collection; saved to `folder`, `folder`/bm25.

    The hybrid's weights are those that the model was saved with, else M3's.
    """
    key = StageKey(
        "evaluate",
        {**config.measuring(), "bm25": config.bm25, "model": model.model_dump(), "queries": list(query_ids)},
        {"data": collection.fingerprint, "model": model_fingerprint(model), "m3tune": __version__},
    )
    if not is_complete(folder, key):
        encoder, why = load_encoder(model)
        say(f"{model.path}: {why}")
        place = folder.with_name(folder.name + ".vectors")
        tokens = folder.with_name(folder.name + ".tokens")
        with writing(folder, key) as (partial, counts), tokens_kept(tokens):
            measured = measure_encoder(
                encoder, name, collection, list(collection.passages), {"all": query_ids}, config, "auto", place=place
            )
            searched = measured.searched["all"]
            weights = encoder.settings.hybrid_weights or M3_WEIGHTS
            save_evaluations(partial, searched.evaluations(weights), searched.found.how)
            if config.bm25:
                save_evaluations(partial / "bm25", [measure_bm25(collection, {"all": query_ids}, config)["all"]])
            counts |= measured.counts
        shutil.rmtree(place, ignore_errors=True)
    evaluations = load_evaluations(folder)
    return [*evaluations, *load_evaluations(folder / "bm25")] if config.bm25 else evaluations


def _head_of_base(recipe: Recipe, encoder: Encoder) -> str:
    """What decides for the base. Raises RecipeError where `evaluate.head` is nothing that training could give."""
    choice = recipe.evaluate.head
    heads = {*encoder.settings.heads, *recipe.model.new_heads}
    if recipe.model.heads is not None:
        heads &= {*recipe.model.heads, *recipe.model.new_heads}
    possible = {"auto", *heads, *((HYBRID, RRF) if len(heads) > 1 else ())}
    if choice not in possible:
        raise RecipeError(
            f"{choice!r} decides, but this model has {', '.join(sorted(heads))} only",
            where="evaluate.head",
            fix='set it to "auto", or give the model heads with model.heads or model.new_heads',
        )
    return deciding_head(choice, encoder.settings.heads)


def _measure(
    encoder: Encoder,
    name: str,
    recipe: Recipe,
    prepared: Prepared,
    passage_ids: Sequence[str],
    query_sets: Mapping[str, Sequence[str]],
    place: Path,
    *,
    keep: bool = False,
) -> Measured:
    collection, config, precision = prepared.collection, recipe.evaluate, recipe.train.precision
    return measure_encoder(
        encoder, name, collection, passage_ids, query_sets, config, precision, None, place, keep=keep
    )
