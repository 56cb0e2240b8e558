"""The training stage: one training that is watched on development data, which a search for settings does many times."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from m3tune.artifact import fingerprint, is_complete, read_json, write_json, writing
from m3tune.config import ModelConfig, Recipe
from m3tune.config.train import OF_THE_MACHINE
from m3tune.data.prepared import Prepared
from m3tune.evaluation.measure import DevCorpus, Searched, deciding_head, measure_encoder
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.select import LAST
from m3tune.evaluation.store import load_evaluation
from m3tune.mixing import recipe_weights, tuned_weights
from m3tune.model.encoder import Encoder
from m3tune.model.weights import load_encoder, model_fingerprint, save_encoder
from m3tune.preparation import Say, silent
from m3tune.retrieval.search import FIRST_STAGE
from m3tune.stages import model_key, read_dev_corpus, vectors_place
from m3tune.training.train import TrainingResult, train
from m3tune.types import Head


class Watch(Protocol):
    """Who looks on while a trial trains, and may end it by raising."""

    def stepped(self, step: int, of: int) -> None:
        """So many optimizer steps are done."""

    def evaluated(self, value: float, per_query: Mapping[str, float]) -> None:
        """The main metric on development data after the last step, and of every query."""


@dataclass(frozen=True)
class OnDev:
    """A recipe, its data, the passages that development queries are searched among, and where vectors may lie."""

    recipe: Recipe
    prepared: Prepared
    corpus: DevCorpus
    place: Path

    def search(self, encoder: Encoder, heads: Sequence[Head] | None = None) -> Searched:
        """What an encoder finds for the development queries, by all its heads unless fewer are named."""
        recipe, prepared = self.recipe, self.prepared
        sets, precision = {"dev": prepared.split.dev}, recipe.train.precision
        measured = measure_encoder(
            encoder, "dev", prepared.collection, self.corpus, sets, recipe.evaluate, precision, heads, self.place
        )
        return measured.searched["dev"]


def tune(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent, into: Path | None = None) -> None:
    """Train, and save the checkpoint that is best on development data, with the hybrid's weights tuned there.

    Where `select.rule` is "last" it is the last step's. To the run's folder, or to that of one of its rounds.
    """
    directory = (into or folder) / "train"
    metric = recipe.evaluate.main_metric
    corpus = read_dev_corpus(folder)
    key = model_key("train", recipe, prepared, training_config(recipe, corpus))
    if is_complete(directory, key):
        return
    encoder, _ = load_encoder(recipe.model)
    head = deciding_head(recipe.evaluate.head, encoder.settings.heads)
    base_head = deciding_head(recipe.evaluate.head, read_json(folder / "base" / "settings.json")["heads"])
    base_metric = mean(load_evaluation(folder / "base" / "dev", base_head).per_query)[metric]
    with writing(directory, key, keep_partial=True) as (partial, counts), vectors_place(folder, "dev") as place:
        on_dev = OnDev(recipe, prepared, corpus, place)
        result = tune_on_dev(encoder, on_dev, partial, say)
        tuned_metric = result.best_metric
        if len(encoder.settings.heads) > 1:
            searched = on_dev.search(encoder)
            weights = tuned_weights(searched, recipe, recipe_weights(recipe), partial)
            encoder.settings = replace(encoder.settings, hybrid_weights=weights)
            tuned_metric = mean(searched.evaluation(head, weights).per_query)[metric]
        save_encoder(encoder, partial / "model")
        selection = {"metric": metric, "base": base_metric, "tuned": tuned_metric}
        selection |= {"head": head, "base_head": base_head, "best_checkpoint": result.best_metric}
        write_json(partial / "selection.json", selection | {"checkpoint": result.best_step, "steps": result.steps})
        counts |= {**result.counts, "memory": result.memory}
        for checkpoint in partial.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    which = "last" if recipe.select.rule == LAST else "best"
    say(
        f"dev {metric}: base {base_metric:.4f} ({base_head}), {which} checkpoint (step {result.best_step}) "
        f"{tuned_metric:.4f} ({head})"
    )


def training_config(recipe: Recipe, corpus: DevCorpus) -> dict[str, Any]:
    """What a training that is watched on development data depends on, beside model and data.

    Not on settings of the machine: one that memory ran out for goes on from its checkpoint with less of it.
    """
    choice = recipe.evaluate.model_dump(include={"head", "tune_weights", "first_stage", "candidates", "exact_passages"})
    guide = recipe.train.guide and model_fingerprint(ModelConfig(path=recipe.train.guide))
    config = {"train": recipe.train.model_dump(exclude=OF_THE_MACHINE), "guide": guide}
    config |= {"metric": recipe.evaluate.main_metric}
    return config | {"rule": recipe.select.rule, "dev_corpus": fingerprint(corpus)} | choice


def tune_on_dev(encoder: Encoder, on_dev: OnDev, folder: Path, say: Say, watch: Watch | None = None) -> TrainingResult:
    """Train `encoder` in place by the recipe, evaluated by the head that decides; it ends as the best checkpoint.

    Where `select.rule` is "last" it ends as the last step left it, and so it does with a `watch`, which makes this a
    trial without any checkpoint.
    """
    recipe, prepared = on_dev.recipe, on_dev.prepared
    metric = recipe.evaluate.main_metric
    head = deciding_head(recipe.evaluate.head, encoder.settings.heads)
    weights = recipe_weights(recipe)

    def evaluate_dev(current: Encoder) -> Mapping[str, float]:
        # Multi-vectors are searched as they will be on the test: with the first stage of the other heads.
        alone: tuple[Head, ...] = tuple(one for one in FIRST_STAGE if one == head)
        searched = on_dev.search(current, alone or None)
        per_query = searched.evaluation(head, weights).per_query
        values = mean(per_query)
        if watch is not None:
            watch.evaluated(values[metric], per_query[metric])
        others = [other for other in searched.heads if other != head]
        return values | {f"{metric} {o}": mean(searched.evaluation(o, weights).per_query)[metric] for o in others}

    return train(
        encoder,
        prepared.collection,
        prepared.similar,
        prepared.split.train,
        recipe.train,
        metric,
        evaluate_dev,
        folder,
        say,
        keep_best=recipe.select.rule != LAST,
        after_step=watch.stepped if watch is not None else None,
    )
