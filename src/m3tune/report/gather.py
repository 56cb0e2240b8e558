"""Everything the report shows, as one dict that JSON can hold, read from a finished run folder."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3tune.artifact import MANIFEST, read_json
from m3tune.config import Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import load_similar
from m3tune.data.store import load_collection
from m3tune.diagnose.error_analysis import ERRORS, WORST
from m3tune.evaluation.compare import (
    QueryChange,
    RankChange,
    document_groups,
    gained_and_lost,
    paired_differences,
    rank_changes,
)
from m3tune.evaluation.select import BASE, folder_of
from m3tune.evaluation.significance import queries_needed
from m3tune.evaluation.store import HOW, METRICS, Evaluation, load_evaluation
from m3tune.recipe import load_recipe
from m3tune.report.settings import SEARCH
from m3tune.training.findings import health_findings
from m3tune.types import Qrels, Run

WEIGHTS, HEADS = "hybrid.json", "heads.json"  # how weights were tuned, heads against each other
ROUNDS = "rounds/rounds.json"  # what rounds of mining and training came to

_STAGES = ("data", "bm25", "base", "negatives", "train", "select", "tuned", "model")

_TOP_SHOWN = 3  # passages of each model's ranking
_RELEVANT_SHOWN = 5  # relevant passages of a query, the best ranked first
_TEXT_CHARACTERS = 400
_TITLE_CHARACTERS = 160
_EXAMPLE_CHARACTERS = 120
_SIDES = (("train", "test"), ("train", "dev"), ("dev", "test"))
_BUCKET_ENDS = (1, 3, 10)
_HEALTH = ("loss_", "score_", "sparse_", "dense_", "negatives_")


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
        "training": _training(run_folder / "train", selection),
        "negatives": manifests["negatives"].get("counts"),
        "rounds": _optional_json(run_folder / ROUNDS) if recipe.mine and recipe.mine.rounds > 1 else None,
        "rank_changes": _rank_table(changes, recipe.evaluate.depth),
        "errors": _with_examples(errors, collection) if errors else None,
        **_changed_queries(verdict["metric"], base, tuned, qrels, collection, errors.get("lost", ())),
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


def _training(folder: Path, selection: Mapping[str, Any]) -> dict[str, Any]:
    """Curves as [step, value] pairs; the development curve begins with the base model at step 0."""
    file = folder / "log.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    speeds = sorted(speed for _, speed in _curve(lines, "tokens_per_s"))
    return {
        "metric": selection["metric"],
        "steps": selection["steps"],
        "best_step": selection["checkpoint"],
        "base": selection["base"],
        "best": selection["best_checkpoint"],
        "loss": _curve(lines, "loss"),
        "learning_rate": _curve(lines, "learning_rate"),
        "dev": [[0, selection["base"]], *_curve(lines, f"eval_{selection['metric']}")],
        "tokens_per_s": speeds[len(speeds) // 2] if speeds else None,
        "health": {name: _curve(lines, name) for name in _health_names(lines)},
        "findings": _first_findings(lines),
    }


def _health_names(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """The figures of single losses, scores and vectors that the log has, in its order."""
    return [name for name in dict.fromkeys(itertools.chain(*lines)) if name.startswith(_HEALTH)]


def _first_findings(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each illness of the log, as the first line that shows it has it."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        for finding in health_findings(line):
            found.setdefault(
                finding.code, {"code": finding.code, "where": finding.where, "what": finding.what, "fix": finding.fix}
            )
    return list(found.values())


def _curve(lines: Iterable[Mapping[str, Any]], name: str) -> list[list[float]]:
    """The finite values of one name in the log."""
    return [[line["step"], line[name]] for line in lines if name in line and math.isfinite(line[name])]


def _rank_table(changes: Sequence[RankChange], depth: int) -> dict[str, Any]:
    """How often the first relevant passage moved from one range of ranks (base, rows) to another (tuned, columns)."""
    ends = [*(end for end in _BUCKET_ENDS if end < depth), depth]
    starts = [1, *(end + 1 for end in ends[:-1])]
    names = [str(end) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    counts = [[0] * (len(ends) + 1) for _ in range(len(ends) + 1)]

    def bucket(rank: int | None) -> int:
        return len(ends) if rank is None else next(i for i, end in enumerate(ends) if rank <= end)

    moved = {"improved": 0, "unchanged": 0, "worsened": 0}
    for _, base_rank, tuned_rank in changes:
        counts[bucket(base_rank)][bucket(tuned_rank)] += 1
        before, after = base_rank or math.inf, tuned_rank or math.inf
        moved["improved" if after < before else "worsened" if after > before else "unchanged"] += 1
    return {"buckets": [*names, "none"], "counts": counts, "depth": depth, **moved}


def _changed_queries(
    metric: str,
    base: Evaluation,
    tuned: Evaluation,
    qrels: Qrels,
    collection: Collection,
    losses: Iterable[Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """The queries that gained most and lost most, with what both models found and what is behind the `losses`."""
    sides = gained_and_lost(base.per_query[metric], tuned.per_query[metric], WORST)
    behind = {loss["query_id"]: loss for loss in losses}
    return {
        name: [
            _query_card(change, base.run, tuned.run, qrels, collection, behind.get(change.query_id, {}))
            for change in changes
        ]
        for name, changes in zip(("gained", "lost"), sides, strict=True)
    }


def _query_card(
    change: QueryChange,
    base_run: Run,
    tuned_run: Run,
    qrels: Qrels,
    collection: Collection,
    loss: Mapping[str, Any],
) -> dict[str, Any]:
    grades = qrels.get(change.query_id, {})
    rankings = [[hit.passage_id for hit in run.get(change.query_id, [])] for run in (base_run, tuned_run)]
    base_ranks, tuned_ranks = ({p: rank for rank, p in enumerate(ids, start=1)} for ids in rankings)

    def shown(passage_id: str) -> dict[str, Any]:
        passage = collection.passages[passage_id]
        return {
            "passage_id": passage_id,
            "title": cut(passage.title, _TITLE_CHARACTERS),
            "text": cut(passage.text, _TEXT_CHARACTERS),
            "grade": grades.get(passage_id),
            "base_rank": base_ranks.get(passage_id),
            "tuned_rank": tuned_ranks.get(passage_id),
        }

    relevant = [passage_id for passage_id, grade in grades.items() if grade > 0]
    relevant.sort(key=lambda p: min(base_ranks.get(p, math.inf), tuned_ranks.get(p, math.inf)))
    return {
        "query_id": change.query_id,
        "text": cut(collection.queries[change.query_id].text, _TEXT_CHARACTERS),
        "base": change.base,
        "tuned": change.tuned,
        "difference": change.difference,
        "relevant_total": len(relevant),
        "relevant": [shown(passage_id) for passage_id in relevant[:_RELEVANT_SHOWN]],
        "base_top": [shown(passage_id) for passage_id in rankings[0][:_TOP_SHOWN]],
        "pushed_by": shown(loss["pushed_by"]) if loss.get("pushed_by") else None,
        "hints": loss.get("hints", []),
        "tuned_top": [shown(passage_id) for passage_id in rankings[1][:_TOP_SHOWN]],
    }


def _with_examples(errors: Mapping[str, Any], collection: Collection) -> dict[str, Any]:
    """What errors.json holds, but the losses, which stand with their queries; examples have the query's text."""
    disagreement = errors["disagreement"]
    patterns = [
        pattern | {"examples": [cut(collection.queries[q].text, _EXAMPLE_CHARACTERS) for q in pattern["examples"]]}
        for pattern in disagreement["patterns"]
    ]
    kept = {key: value for key, value in errors.items() if key != "lost"}
    return kept | {"disagreement": disagreement | {"patterns": patterns}}


def cut(text: str, characters: int) -> str:
    """`text`, or its start and an ellipsis where it is longer than `characters`."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


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
            for side, other in _SIDES
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
