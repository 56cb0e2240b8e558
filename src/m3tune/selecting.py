"""The selection stage: who of the base, the best checkpoint and merges of the two is chosen on development data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3tune import retaining
from m3tune.artifact import StageKey, is_complete, read_json, write_json, writing
from m3tune.config import Recipe
from m3tune.contending import Contest, run_contest
from m3tune.data.prepared import Prepared
from m3tune.evaluation.compare import document_groups
from m3tune.evaluation.select import BASE, Choice, Contender, choose, folder_of, why_base
from m3tune.evaluation.store import load_evaluation
from m3tune.mixing import recipe_weights, tuned_weights, weights_of_base
from m3tune.model.encoder import Encoder
from m3tune.model.merge import become
from m3tune.model.weights import load_encoder
from m3tune.preparation import Say, silent
from m3tune.rounds import tuned_model
from m3tune.stages import as_input, read_dev_corpus, vectors_place, without_new_heads


def select(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """Choose between the base, the best checkpoint and merges of the two, by the rule of evaluation/select.py."""
    trained = read_json(folder / "train" / "selection.json")
    rule = recipe.select.model_dump() | recipe.evaluate.measuring()
    rule |= recipe.evaluate.model_dump(include={"resamples", "seed"})
    inputs = {"retention": retaining.retention_fingerprint(recipe.select)}
    key = StageKey("select", rule, inputs | as_input(folder, "train"))
    if is_complete(folder / "select", key):
        return
    base, _ = load_encoder(without_new_heads(recipe.model))
    default, dev = recipe_weights(recipe), prepared.split.dev
    base.settings = replace(base.settings, hybrid_weights=weights_of_base(folder, base) or default)
    tuned, _ = load_encoder(tuned_model(folder, recipe))
    with (
        writing(folder / "select", key, keep_partial=True) as (partial, counts),
        vectors_place(folder, "select") as place,
    ):
        base_head = trained["base_head"]
        contest = Contest(
            recipe,
            retaining.Ground("dev", prepared.collection, dev, read_dev_corpus(folder)),
            retaining.retention_of(base, base_head, recipe, prepared, partial, place, say),
            load_evaluation(folder / "base" / "dev", base_head),
            trained["head"],
            lambda searched, at: tuned_weights(searched, recipe, default, at),
            place,
        )
        rows = run_contest(base, tuned, contest, partial)
        clusters = document_groups(prepared.collection.qrels(dev), prepared.similar.passages.first)
        selection = trained | decide(rows, contest, clusters, partial)
        write_json(partial / "selection.json", selection)
        counts |= {"dev_queries": len(dev), "candidates": len(rows)}
    say(in_words(selection))


def chosen_encoder(folder: Path, recipe: Recipe) -> Encoder:
    """What the selection chose, where that is not the base; a merge is made anew from its two ends, the same each time.

    It has the hybrid's weights that were tuned for it.
    """
    selection = read_json(folder / "select" / "selection.json")
    encoder, _ = load_encoder(tuned_model(folder, recipe))
    if selection["alpha"] != 1:
        base, _ = load_encoder(without_new_heads(recipe.model))
        become(encoder, base.state_dict(), encoder.state_dict(), selection["alpha"])
    encoder.settings = replace(encoder.settings, hybrid_weights=selection["weights"])
    return encoder


def decide(
    rows: Sequence[Mapping[str, Any]], contest: Contest, clusters: Mapping[str, int], folder: Path
) -> dict[str, Any]:
    """Choose between the contenders that `run_contest` measured into `folder`.

    Returns for selection.json who was chosen and why, by which rule, and the figures and fate of every contender.
    """
    metric = contest.recipe.evaluate.main_metric
    contenders = [Contender(BASE, 0.0, contest.base_dev.per_query[metric], rows[0]["retention"])]
    for row in rows[1:]:
        dev = load_evaluation(folder / folder_of(row["name"]), contest.head).per_query[metric]
        contenders.append(Contender(row["name"], row["alpha"], dev, row["retention"]))
    choice = choose(contenders, clusters, contest.recipe.select, contest.recipe.evaluate)
    return _as_json(rows, choice, contest)


def in_words(selection: Mapping[str, Any]) -> str:
    """One line for a person: every contender's development metric, and who was chosen."""
    figures = ", ".join(f"{row['name']} {row['dev']:.4f}" for row in selection["candidates"])
    return f"dev {selection['metric']}: {figures}; chosen: {selection['chosen']}"


def _as_json(rows: Sequence[Mapping[str, Any]], choice: Choice, contest: Contest) -> dict[str, Any]:
    config = contest.recipe.select
    chosen = next(row for row in rows if row["name"] == choice.name)
    return {
        "chosen": choice.name,
        "rule": config.rule,
        "alpha": chosen["alpha"],
        "chosen_metric": chosen["dev"],
        "weights": chosen["weights"],
        "why_base": why_base(choice),
        "noise": config.noise,
        "retention": contest.retention.as_json(config.retention),
        "why_no_retention": contest.retention.why_not,
        "retention_tolerance": config.retention_tolerance,
        "candidates": [
            {**row, "fate": choice.fates[row["name"]], "p_value": choice.p_values.get(row["name"])} for row in rows
        ],
    }
