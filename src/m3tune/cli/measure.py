"""Measure a model, and set two measurements side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Json, Sets


def evaluate(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id or package:NAME/FOLDER.")],
    data: Annotated[str, typer.Argument(help="The data to measure it on.")],
    split: Annotated[str, typer.Option(help="Which queries: a split that the data brings, or all.")] = "all",
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where metrics, runs and per-query results go.", show_default="runs/evaluation-MODEL-DATA"
        ),
    ] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="ir-measures' name; can be repeated.")] = None,
    bm25: Annotated[bool, typer.Option(help="Measure BM25 beside it.")] = True,
    as_json: Json = False,
) -> None:
    """Measure every head of any model on any data, with BM25 beside it.

    Example: m3tune evaluate runs/demo/model package:m3tune/demo/scifact --split test
    """
    from m3tune import pipeline
    from m3tune.config import EvaluateConfig, ModelConfig
    from m3tune.data.read import read_collection
    from m3tune.data.split import queries_of
    from m3tune.evaluation.metrics import mean, parse_metrics
    from m3tune.report.terminal import print_evaluations

    config = EvaluateConfig(bm25=bm25, **({"metrics": tuple(metrics), "main_metric": metrics[0]} if metrics else {}))
    parse_metrics(config.metrics)
    collection, why = read_collection(data)
    say = console.say_unless(as_json)
    say(why)
    query_ids = queries_of(collection, split)
    name = Path(model).name
    folder = output or Path("runs") / f"evaluation-{name}-{Path(data).stem}"
    with console.progress(as_json):
        evaluations = pipeline.evaluate(ModelConfig(path=model), collection, query_ids, config, folder, name, say)
    say(f"metrics, runs and per-query results: {folder}")
    if as_json:
        means: dict[str, dict[str, Any]] = {}
        for evaluation in evaluations:
            means.setdefault(evaluation.name, {})[evaluation.head] = mean(evaluation.per_query)
        console.print_json(means)
    else:
        print_evaluations(console.out, evaluations)


def compare(
    base: Annotated[Path, typer.Argument(help="The evaluation directory to compare with.")],
    tuned: Annotated[Path, typer.Argument(help="The evaluation directory that should be better.")],
    data: Annotated[str, typer.Option("--data", help="The data both were measured on.")],
    head: Annotated[
        str, typer.Option(help="The head of both, or BASE:TUNED such as dense:hybrid; auto: hybrid, or the only head.")
    ] = "auto",
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Compare two evaluations query by query: difference, interval, p-value, verdict.

    Example: m3tune compare runs/old runs/new --data questions.json
    """
    from dataclasses import asdict

    from m3tune.data.read import read_collection
    from m3tune.data.similar import find_similar
    from m3tune.evaluation.compare import verdict
    from m3tune.evaluation.measure import deciding_head
    from m3tune.evaluation.store import load_evaluation, measured_heads
    from m3tune.pipeline import compare_evaluations
    from m3tune.recipe import build_recipe
    from m3tune.report.terminal import print_comparison

    config = build_recipe({"data": {"path": data}, "model": {"path": "-"}}, overrides or [], where="--set").evaluate
    collection, _ = read_collection(data)
    first_head, _, second_head = head.partition(":")
    choices = zip((base, tuned), (first_head, second_head or first_head), strict=True)
    first, second = (
        load_evaluation(at, deciding_head("auto", measured_heads(at)) if of == "auto" else of) for at, of in choices
    )
    shared = tuple(metric for metric in first.per_query if metric in second.per_query)
    config = config.model_copy(update={"metrics": shared})
    comparison = compare_evaluations(first, second, collection, config, find_similar(collection))
    word = verdict(comparison, config.no_worse_margin)
    if as_json:
        console.print_json({"verdict": word, "metrics": [asdict(item) for item in comparison.metrics]})
    else:
        print_comparison(console.out, comparison)
        console.out.print(f"verdict: {word}")
    raise typer.Exit(FINE if word == "better" else NOT_GOOD_ENOUGH)
