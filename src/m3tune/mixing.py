"""The weights of a run's hybrid: the recipe's, those that a model was saved with, those that development data chose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from m3tune.artifact import read_json, write_json
from m3tune.config import Recipe
from m3tune.evaluation.measure import Searched
from m3tune.evaluation.weights import tune_weights
from m3tune.model.encoder import Encoder
from m3tune.report.gather import WEIGHTS
from m3tune.types import Head


def recipe_weights(recipe: Recipe) -> Mapping[Head, float]:
    """The hybrid's weights that the recipe names, by head."""
    return dict(zip(("dense", "sparse", "multi"), recipe.train.hybrid_weights, strict=True))


def default_weights(encoder: Encoder, recipe: Recipe) -> Mapping[Head, float]:
    """The hybrid's weights that a model was saved with, else the recipe's."""
    return encoder.settings.hybrid_weights or recipe_weights(recipe)


def tuned_weights(
    on_dev: Searched, recipe: Recipe, default: Mapping[Head, float], folder: Path
) -> Mapping[Head, float]:
    """The weights of the best point on development data, whose grid goes to hybrid.json in `folder`."""
    if on_dev.found.candidates is None or not recipe.evaluate.tune_weights:
        return default
    tuning = tune_weights(on_dev, recipe.evaluate.main_metric, default)
    write_json(folder / WEIGHTS, tuning.as_json())
    return tuning.best.weights


def weights_of_base(folder: Path, encoder: Encoder) -> Mapping[Head, float] | None:
    """The hybrid's weights that were tuned for the base, else those that it was saved with."""
    tuned = folder / "base" / WEIGHTS
    return read_json(tuned)["best"]["weights"] if tuned.is_file() else encoder.settings.hybrid_weights
