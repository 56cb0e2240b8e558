"""The contenders of a selection: the base, the best checkpoint and merges, on development and retention data.

The test queries take no part. A merge's weights are made when they are needed and never written here; every contender
leaves its figures in a folder of its own, so that an interrupted selection goes on behind the last whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.artifact import read_json, write_json
from m3tune.config import Recipe
from m3tune.evaluation.measure import Measured, Searched, measure_encoder
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.select import BASE, LAST, folder_of, name_of
from m3tune.evaluation.store import Evaluation, save_evaluations
from m3tune.machine import pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.model.merge import become, distance, weights_of
from m3tune.retaining import Ground, Retention
from m3tune.retrieval.encode import encode_tokens, tokenize_queries
from m3tune.types import Head

FIGURES = "contender.json"


@dataclass(frozen=True)
class Contest:
    """What contenders are measured on and by.

    `base_dev` is the base on the development queries, `head` what decides for all others, `weigh` tunes the hybrid's
    weights on what was found for the development queries and leaves its grid in a folder. Vectors that do not fit in
    memory go to `place`.
    """

    recipe: Recipe
    dev: Ground
    retention: Retention
    base_dev: Evaluation
    head: str
    weigh: Callable[[Searched, Path], Mapping[Head, float]]
    place: Path


def run_contest(base: Encoder, tuned: Encoder, contest: Contest, folder: Path) -> list[dict[str, Any]]:
    """Measure every contender into `folder`, the base first and the checkpoint last; returns their figures.

    `tuned` becomes one after the other. Where training left the shared weights as they were there is nothing to merge,
    nor where the last step is taken whatever it is worth.
    """
    vectors = _query_vectors(base, contest)
    rows = [_of_base(base, contest, folder / folder_of(BASE))]
    base_weights, tuned_weights = base.cpu().state_dict(), weights_of(tuned)  # the device is for one model at a time
    far = distance(base_weights, tuned_weights)
    merging = far and contest.recipe.select.rule != LAST
    alphas = sorted({*(contest.recipe.select.alphas if merging else ()), 1.0})
    for alpha in alphas:
        place = folder / folder_of(name_of(alpha))
        if not (place / FIGURES).is_file():
            become(tuned, base_weights, tuned_weights, alpha)
            _measure(tuned, alpha, alpha * far, vectors, contest, place)
        rows.append(read_json(place / FIGURES))
    return rows


def _of_base(base: Encoder, contest: Contest, place: Path) -> dict[str, Any]:
    metric = contest.recipe.evaluate.main_metric
    if not (place / FIGURES).is_file():
        place.mkdir(parents=True, exist_ok=True)
        weights = base.settings.hybrid_weights or {}
        figures = {
            "name": BASE,
            "alpha": 0.0,
            "dev": mean(contest.base_dev.per_query)[metric],
            "distance": 0.0,
            "query_cosine": 1.0 if "dense" in base.settings.heads else None,
            "retention": _retention(base, BASE, contest.base_dev.head, weights, contest, place),
            "weights": _of_several(base, weights),
        }
        write_json(place / FIGURES, figures)
    return read_json(place / FIGURES)


def _measure(
    encoder: Encoder, alpha: float, far: float, base_vectors: np.ndarray | None, contest: Contest, place: Path
) -> None:
    """Measure one merge, or the checkpoint, into `place`; its figures are written last."""
    name, metric = name_of(alpha), contest.recipe.evaluate.main_metric
    place.mkdir(parents=True, exist_ok=True)
    measured = _measured(encoder, name, contest.dev, contest)
    searched = measured.searched[contest.dev.name]
    weights = contest.weigh(searched, place)
    evaluations = searched.evaluations(weights)
    save_evaluations(place, evaluations)
    decisive = next(evaluation for evaluation in evaluations if evaluation.head == contest.head)
    kept = _retention(encoder, name, contest.head, weights, contest, place)
    figures = {
        "name": name,
        "alpha": alpha,
        "dev": mean(decisive.per_query)[metric],
        "distance": far,
        "query_cosine": _mean_cosine(base_vectors, measured.queries[contest.dev.name].dense),
        "retention": kept,
        "weights": _of_several(encoder, weights),
    }
    write_json(place / FIGURES, figures)


def _retention(
    encoder: Encoder,
    name: str,
    head: str,
    weights: Mapping[Head, float],
    contest: Contest,
    place: Path,
) -> float | None:
    """The mean of the main metric on retention data, where there is any."""
    ground = contest.retention.ground
    if ground is None:
        return None
    measured = _measured(encoder, name, ground, contest)
    evaluation = measured.searched[ground.name].evaluation(head, weights)
    save_evaluations(place / "retention", [evaluation])
    return mean(evaluation.per_query)[contest.recipe.evaluate.main_metric]


def _measured(encoder: Encoder, name: str, ground: Ground, contest: Contest) -> Measured:
    config, precision = contest.recipe.evaluate, contest.recipe.train.precision
    sets = {ground.name: ground.query_ids}
    return measure_encoder(
        encoder, name, ground.collection, ground.passage_ids, sets, config, precision, None, contest.place
    )


def _of_several(encoder: Encoder, weights: Mapping[Head, float]) -> dict[Head, float] | None:
    """The hybrid's weights of an encoder that has a hybrid."""
    return dict(weights) if len(encoder.settings.heads) > 1 else None


def _query_vectors(base: Encoder, contest: Contest) -> np.ndarray | None:
    """The base's dense vectors of the development queries, (N, D), None without a dense head."""
    if "dense" not in base.settings.heads:
        return None
    device = pick_device()
    tokens = tokenize_queries(base.to(device), contest.dev.collection, contest.dev.query_ids)
    return encode_tokens(base, tokens, pick_precision(contest.recipe.train.precision, device)).dense


def _mean_cosine(first: np.ndarray | None, second: np.ndarray | None) -> float | None:
    """The mean cosine of rows, (N, D) each."""
    if first is None or second is None or not len(first):
        return None
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean((first * second).sum(axis=1) / np.maximum(lengths, 1e-12)))
