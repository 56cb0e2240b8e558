"""Everything the report shows, as one dict that JSON can hold, read from a finished run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from m3tune.artifact import MANIFEST, read_json
from m3tune.config import Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import load_similar
from m3tune.data.store import load_collection
from m3tune.diagnose.error_analysis import ERRORS
from m3tune.evaluation.compare import document_groups, paired_differences, rank_changes
from m3tune.evaluation.select import BASE, folder_of
from m3tune.evaluation.significance import queries_needed
from m3tune.evaluation.store import HOW, METRICS, Evaluation, load_evaluation
from m3tune.recipe import load_recipe
from m3tune.report.changes import changed_queries, rank_table
from m3tune.report.settings import SEARCH
from m3tune.report.training_log import training_curves
from m3tune.report.words import cut
from m3tune.types import SIDE_PAIRS, Qrels

WEIGHTS, HEADS = "hybrid.json", "heads.json"  # how weights were tuned, heads against each other
ROUNDS = "rounds/rounds.json"  # what rounds of mining and training came to

_STAGES = ("data", "bm25", "base", "negatives", "train", "select", "tuned", "model")

_EXAMPLE_CHARACTERS = 120


def gather(run_folder: Path, collection: Collection | None = None) -> dict[str, Any]:
    """What a run found: verdict, metrics, training curves, changed queries, data, recipe, versions and seconds.

    `collection` is the run's own, read from its folder unless the caller has read it already.
    Numbers are the artefacts' own, not rounded again; texts are cut to their first 400 characters. `bm25` of a metric
    is None where BM25 was not measured; `queries_needed` is None unless the verdict is inconclusive. Raises
    ArtifactError or DataError where `run_folder` is not a finished run.
    """
    verdict = read_json(run_folder / "verdict.json")
    recipe = load_recipe(run_folder / "resolved.toml")
    selection = read_json(run_folder / "select" / "selection.json")
    collection = collection or load_collection(run_folder / "data")
    base = load_evaluation(run_folder / "base", selection["base_head"])
    tuned = load_evaluation(run_folder / "tuned", verdict["head"])
    qrels = collection.qrels(base.per_query[verdict["metric"]])
    errors = _optional_json(run_folder / ERRORS)
    changes = rank_changes(base.run, tuned.run, qrels, recipe.evaluate.depth)
    manifests = {stage: _optional_json(run_folder / stage / MANIFEST) for stage in _STAGES}
    return {
        "folder": str(run_folder),
        "finished": manifests["tuned"].get("finished"),
        "verdict": verdict,
        "chosen": selection["chosen"],
        "selection": selection,
        "search": _search(run_folder, recipe),
        "base_head": selection["base_head"],
        "no_worse_margin": recipe.evaluate.no_worse_margin,
        "queries_needed": _queries_needed(run_folder, verdict, base, tuned, qrels),
        "metrics": _metric_table(run_folder, recipe),
        "heads": _heads(run_folder, verdict["metric"]),
        "against_bm25": _against_bm25(run_folder, verdict),
        "hybrid": _optional_json(_folder_of_chosen(run_folder, selection["chosen"]) / WEIGHTS) or None,
        "training": training_curves(run_folder / "train", selection),
        "negatives": manifests["negatives"].get("counts"),
        "rounds": _optional_json(run_folder / ROUNDS) if recipe.mine and recipe.mine.rounds > 1 else None,
        "rank_changes": rank_table(changes, recipe.evaluate.depth),
        "errors": _with_examples(errors, collection) if errors else None,
        **changed_queries(verdict["metric"], base, tuned, qrels, collection, errors.get("lost", ())),
        "data": _data(run_folder, recipe, manifests),
        "model": recipe.model.path,
        "model_fingerprint": manifests["base"].get("inputs", {}).get("model"),
        "recipe": (run_folder / "resolved.toml").read_text(encoding="utf-8"),
        "versions": _versions(manifests.values()),
        "seconds": {stage: manifest["seconds"] for stage, manifest in manifests.items() if "seconds" in manifest},
    }


def _search(run_folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What a search for settings found, where the run trained with it."""
    found = _optional_json(run_folder / "search" / SEARCH)
    return found if found and found["train"] == recipe.train.model_dump(mode="json") else None


def _folder_of_chosen(run_folder: Path, chosen: str) -> Path:
    """Where the hybrid's weights of the chosen model were tuned."""
    return run_folder / "base" if chosen == BASE else run_folder / "select" / folder_of(chosen)


def _optional_json(path: Path) -> Any:
    return read_json(path) if path.is_file() else {}


def _metric_table(run_folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The rows of comparison.json, each with BM25's mean or None."""
    measured = _optional_json(run_folder / "bm25" / METRICS) if recipe.evaluate.bm25 else {}
    bm25: Mapping[str, float] = next(iter(measured.values()), {})
    return [row | {"bm25": bm25.get(row["metric"])} for row in read_json(run_folder / "comparison.json")]


def _heads(run_folder: Path, metric: str) -> dict[str, Any] | None:
    """Where the chosen model has several heads: the mean of each by model, and one metric of each pair compared."""
    means = {model: _optional_json(run_folder / model / METRICS) for model in ("base", "tuned")}
    if len(means["tuned"]) == 1:
        return None
    return {
        "means": [
            {"head": head, **{model: of_heads.get(head, {}).get(metric) for model, of_heads in means.items()}}
            for head in dict.fromkeys(head for of_heads in means.values() for head in of_heads)
        ],
        "how": _optional_json(run_folder / "tuned" / HOW),
        "compared": [
            {"first": pair["first"], "second": pair["second"], **row}
            for pair in _optional_json(run_folder / HEADS) or ()
            for row in pair["metrics"]
            if row["metric"] == metric
        ],
    }


def _against_bm25(run_folder: Path, verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """The main metric of the chosen model compared with BM25's, where both were measured."""
    rows = (
        row
        for pair in _optional_json(run_folder / HEADS) or ()
        if (pair["first"]["head"], pair["second"]["head"]) == ("bm25", verdict["head"])
        for row in pair["metrics"]
        if row["metric"] == verdict["metric"]
    )
    return next(rows, None)


def _queries_needed(
    run_folder: Path, verdict: Mapping[str, Any], base: Evaluation, tuned: Evaluation, qrels: Qrels
) -> int | None:
    if verdict["verdict"] != "inconclusive":
        return None
    before, after = base.per_query[verdict["metric"]], tuned.per_query[verdict["metric"]]
    groups = document_groups(qrels, load_similar(run_folder / "data").passages.first)  # as the verdict has them
    return queries_needed(*paired_differences(before, after, groups))


def _with_examples(errors: Mapping[str, Any], collection: Collection) -> dict[str, Any]:
    """What errors.json holds, but the losses, which stand with their queries; examples have the query's text."""
    disagreement = errors["disagreement"]
    patterns = [
        pattern | {"examples": [cut(collection.queries[q].text, _EXAMPLE_CHARACTERS) for q in pattern["examples"]]}
        for pattern in disagreement["patterns"]
    ]
    kept = {key: value for key, value in errors.items() if key != "lost"}
    return kept | {"disagreement": disagreement | {"patterns": patterns}}


def _data(run_folder: Path, recipe: Recipe, manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    settings = _optional_json(run_folder / "base" / "settings.json")
    counts = manifests["data"].get("counts", {})
    return {
        "path": recipe.data.path,
        "fingerprint": manifests["data"].get("inputs", {}).get("source"),
        "protocol": _optional_json(run_folder / "data" / "split.json").get("protocol"),
        "counts": counts,
        "shared": [
            {"side": side, "other": other, "how": how, "queries": counts[f"{side}_{how}_{other}"]}
            for side, other in SIDE_PAIRS
            for how in ("also_in", "sharing_a_passage_with")
            if counts.get(f"{side}_{how}_{other}")
        ],
        "base_counts": manifests["base"].get("counts", {}),
        "train_counts": manifests["train"].get("counts", {}),
        "query_max_tokens": settings.get("query_max_tokens"),
        "passage_max_tokens": settings.get("passage_max_tokens"),
    }


def _versions(manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Package -> its version; the versions, where the stages were run with several."""
    seen: dict[str, dict[str, None]] = {}
    for manifest in manifests:
        for package, version in manifest.get("versions", {}).items():
            seen.setdefault(package, {})[version] = None
    return {package: ", ".join(versions) for package, versions in seen.items()}
