"""The end of a run: the chosen model judged against the base on the test queries, and what is delivered."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m3tune.artifact import StageKey, is_complete, read_json, write_json, writing
from m3tune.config import EvaluateConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import Prepared
from m3tune.data.similar import Similar
from m3tune.evaluation.compare import Comparison, compare, document_groups, verdict
from m3tune.evaluation.select import BASE, LAST
from m3tune.evaluation.store import Evaluation, load_evaluation, load_evaluations
from m3tune.mixing import weights_of_base
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.report.gather import HEADS
from m3tune.selecting import chosen_encoder
from m3tune.stages import as_input, without_new_heads
from m3tune.types import HYBRID, RRF


@dataclass(frozen=True)
class Verdict:
    """verdict.json: whether the tuned model is better, and what was delivered."""

    metric: str
    base: float
    tuned: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    queries: int
    verdict: str
    delivered: str
    checkpoint: int
    head: str = "dense"


def judge(folder: Path, recipe: Recipe, prepared: Prepared) -> Verdict:
    """Compare the chosen model with the base and say what follows.

    Writes comparison.json, verdict.json and heads.json.
    """
    selection = read_json(folder / "select" / "selection.json")
    base_head = selection["base_head"]
    head = base_head if selection["chosen"] == BASE else selection["head"]
    base, tuned = load_evaluation(folder / "base", base_head), load_evaluation(folder / "tuned", head)
    comparison = compare_evaluations(base, tuned, prepared.collection, recipe.evaluate, prepared.similar)
    word = verdict(comparison, recipe.evaluate.no_worse_margin)
    delivered = BASE if word == "worse" and recipe.select.rule != LAST else selection["chosen"]
    main = comparison.main
    result = Verdict(
        metric=main.metric,
        base=round(main.base, 6),
        tuned=round(main.tuned, 6),
        difference=round(main.difference, 6),
        ci95=(round(main.ci95[0], 6), round(main.ci95[1], 6)),
        p_value=main.p_value,
        queries=main.queries,
        verdict=word,
        delivered=delivered,
        checkpoint=selection["checkpoint"],
        head=head,
    )
    write_json(folder / "comparison.json", [asdict(item) for item in comparison.metrics])
    write_json(folder / HEADS, _compare_heads(folder, recipe, prepared, head))
    write_json(folder / "verdict.json", asdict(result))
    return result


def compare_evaluations(
    base: Evaluation, tuned: Evaluation, collection: Collection, config: EvaluateConfig, similar: Similar
) -> Comparison:
    """Two evaluations over the same queries of `collection`, clustered by relevant passages that they share."""
    qrels = collection.qrels(next(iter(base.per_query.values())))
    return compare(base.per_query, tuned.per_query, document_groups(qrels, similar.passages.first), config)


def deliver(folder: Path, recipe: Recipe, result: Verdict) -> None:
    """Put the delivered model into model/."""
    key = StageKey("model", {}, as_input(folder, "select") | {"delivered": result.delivered})
    if is_complete(folder / "model", key):
        return
    if result.delivered == BASE:
        encoder, _ = load_encoder(without_new_heads(recipe.model))
        encoder.settings = replace(encoder.settings, hybrid_weights=weights_of_base(folder, encoder))
    else:
        encoder = chosen_encoder(folder, recipe)
    with writing(folder / "model", key) as (partial, _):
        save_encoder(encoder, partial)


def _compare_heads(folder: Path, recipe: Recipe, prepared: Prepared, decides: str) -> list[dict[str, Any]]:
    """The chosen model's heads against each other and against BM25; where it has one head, against BM25 alone.

    Each item has `first`, `second` (the model and its head) and `metrics`, rows as in comparison.json whose `base` is
    the first and `tuned` the second.
    """
    found = {evaluation.head: evaluation for evaluation in load_evaluations(folder / "tuned")}
    if recipe.evaluate.bm25:
        found["bm25"] = load_evaluation(folder / "bm25", "bm25")
    pairs = [("bm25", decides)]
    if HYBRID in found:
        pairs = [("dense", HYBRID), ("bm25", HYBRID), ("dense", RRF), ("bm25", "dense"), ("dense", "sparse"),
                 ("dense", "multi"), ("bm25", "sparse"), *pairs]  # fmt: skip
    pairs = [pair for pair in dict.fromkeys(pairs) if set(pair) <= found.keys()]
    compared = [(found[first], found[second]) for first, second in pairs]
    before = {evaluation.head: evaluation for evaluation in load_evaluations(folder / "base")}
    if HYBRID in found and "dense" in before and "dense" in found:
        compared.insert(0, (before["dense"], found["dense"]))
    return [
        {
            "first": {"name": first.name, "head": first.head},
            "second": {"name": second.name, "head": second.head},
            "metrics": [
                asdict(row)
                for row in compare_evaluations(
                    first, second, prepared.collection, recipe.evaluate, prepared.similar
                ).metrics
            ],
        }
        for first, second in compared
    ]
