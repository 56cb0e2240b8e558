"""Everything that a comparison of recipes shows, as one dict that JSON can hold, read from its finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.artifact import MANIFEST, installed_versions, read_json
from m3tune.config import Recipe
from m3tune.data.prepared import Prepared
from m3tune.evaluation.compare import document_groups
from m3tune.evaluation.contest import contest
from m3tune.evaluation.metrics import mean
from m3tune.evaluation.select import BASE, LAST
from m3tune.evaluation.store import METRICS, load_evaluation
from m3tune.machine import machine_facts
from m3tune.recipe import load_recipe
from m3tune.report.contest_words import best_of, finding
from m3tune.training.pairs import PairCounter

COMPARISON = "comparison.json"
_SHOWN = ("dev", "pairs", "train_seconds", "seconds", "peak_gib")  # means over the seeds


def gather_contest(
    folders: Mapping[str, Sequence[Path]], prepared: Prepared, budget: int, notes: Sequence[str]
) -> dict[str, Any]:
    """What the runs of every recipe found, one a seed; all on the same base and test queries.

    A recipe's figures are those of what its selection chose, whatever the test then said of it: the test decides
    nothing here. Raises ArtifactError where a run is not finished.
    """
    first = next(iter(folders.values()))[0]
    recipe = load_recipe(first / "resolved.toml")
    metric = recipe.evaluate.main_metric
    base = load_evaluation(first / "base", read_json(first / "select" / "selection.json")["base_head"])
    on_base = base.per_query[metric]
    groups = document_groups(prepared.collection.qrels(on_base), prepared.similar.passages.first)
    systems: dict[str, Sequence[Mapping[str, float]]] = {
        name: [_per_query(folder, metric) for folder in of_recipe] for name, of_recipe in folders.items()
    }
    compared = contest(systems | {BASE: [on_base]}, BASE, groups, recipe.evaluate.resamples, recipe.evaluate.seed)
    facts = {
        "metric": metric,
        "queries": len(on_base),
        "groups": len(set(groups.values())),
        "seeds": len(next(iter(folders.values()))),
        "budget": budget,
        "notes": list(notes),
        "data": recipe.data.path,
        "model": recipe.model.path,
        "max_tokens": read_json(first / "base" / "settings.json")["passage_max_tokens"],
        "base": mean(base.per_query)[metric],
        "base_dev": read_json(first / "select" / "selection.json")["base"],
        "bm25": _bm25(first, recipe),
        "recipes": [_of_recipe(name, of_recipe, systems[name], prepared) for name, of_recipe in folders.items()],
        "differences": [difference._asdict() for difference in compared],
        "machine": machine_facts(),
        "versions": installed_versions(),
        "finished": max(read_json(of[-1] / "tuned" / MANIFEST)["finished"] for of in folders.values()),
    }
    return facts | {"best": best_of(facts)["name"], "finding": finding(facts)}


def _per_query(folder: Path, metric: str) -> Mapping[str, float]:
    return load_evaluation(folder / "tuned", read_json(folder / "verdict.json")["head"]).per_query[metric]


def _bm25(folder: Path, recipe: Recipe) -> float | None:
    metrics = read_json(folder / "bm25" / METRICS) if recipe.evaluate.bm25 else {}
    return next((values[recipe.evaluate.main_metric] for values in metrics.values()), None)


def _of_recipe(
    name: str, folders: Sequence[Path], per_seed: Sequence[Mapping[str, float]], prepared: Prepared
) -> dict[str, Any]:
    runs = [
        _of_run(seed, folder, values, prepared)
        for seed, (folder, values) in enumerate(zip(folders, per_seed, strict=True))
    ]
    values = [run["value"] for run in runs]
    recipe = load_recipe(folders[0] / "resolved.toml")
    own, others = _negatives(folders[0], recipe)
    return {
        "name": name,
        "mean": float(np.mean(values)),
        "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "guarded": recipe.select.rule != LAST,
        "base_delivered": sum(run["delivered"] == BASE for run in runs),
        "own_negatives": own,
        "batch_negatives": others,
        **{key: _mean(run[key] for run in runs) for key in _SHOWN},
        "runs": runs,
    }


def _of_run(seed: int, folder: Path, per_query: Mapping[str, float], prepared: Prepared) -> dict[str, Any]:
    """One run. `seconds` are of every stage, those that were linked too."""
    verdict, selection = read_json(folder / "verdict.json"), read_json(folder / "select" / "selection.json")
    recipe = load_recipe(folder / "resolved.toml")
    manifests = {file.parent.name: read_json(file) for file in folder.glob(f"*/{MANIFEST}")}
    counter = PairCounter(prepared.collection, prepared.split.train, recipe.train)
    return {
        "seed": seed,
        "folder": folder.name,
        "value": float(np.mean(list(per_query.values()))),
        "dev": selection["chosen_metric"],
        "chosen": selection["chosen"],
        "delivered": verdict["delivered"],
        "verdict": verdict["verdict"],
        "steps": selection["steps"],
        "pairs": counter.seen(selection["steps"]),
        "train_seconds": manifests["train"]["seconds"],
        "seconds": sum(manifest["seconds"] for manifest in manifests.values()),
        "peak_gib": manifests["train"]["counts"]["memory"]["peak_gib"],
    }


def _negatives(folder: Path, recipe: Recipe) -> tuple[float, float]:
    """Negatives that a query brings, on average, and at most those that a whole batch's other queries bring it."""
    train, counts = recipe.train, read_json(folder / "train" / MANIFEST)["counts"]
    there = counts.get("given_negatives", 0) - counts.get("given_negatives_known_relevant", 0)
    own = min(float(train.negatives_per_query), there / max(counts["queries"], 1))
    of_others = (train.batch_queries - 1) * (max(train.positives_per_query, 1) + own)
    return own, of_others if train.in_batch_negatives else 0.0


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
