"""One training that is watched on development data: a run does it once, a search for settings many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from m3tune.config import Recipe
from m3tune.data.prepared import Prepared
from m3tune.evaluation.measure import DevCorpus, Searched, deciding_head, measure_encoder
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.select import LAST
from m3tune.model.encoder import Encoder
from m3tune.preparation import Say
from m3tune.retrieval.search import FIRST_STAGE
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


def recipe_weights(recipe: Recipe) -> Mapping[Head, float]:
    """The hybrid's weights that the recipe names, by head."""
    return dict(zip(("dense", "sparse", "multi"), recipe.train.hybrid_weights, strict=True))
