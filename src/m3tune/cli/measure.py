"""Measure a model, and set measurements or recipes side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Columns, Json, Sets, Source
from m3tune.errors import RecipeError


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
    source: Source = "auto",
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Measure every head of any model on any data, with BM25 beside it.

    Example: m3tune evaluate runs/demo/model package:m3tune/demo/scifact --split test
    """
    from m3tune import pipeline
    from m3tune.config import EvaluateConfig, ModelConfig
    from m3tune.data.columns import parse_columns
    from m3tune.data.read import read_collection
    from m3tune.data.split import queries_of
    from m3tune.evaluation.metrics import mean, parse_metrics
    from m3tune.report.terminal import print_evaluations

    config = EvaluateConfig(bm25=bm25, **({"metrics": tuple(metrics), "main_metric": metrics[0]} if metrics else {}))
    parse_metrics(config.metrics)
    collection, why = read_collection(data, source, parse_columns(columns or []))
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
    what: Annotated[
        list[str], typer.Argument(metavar="A B ...", help="Recipes, files or names; or two evaluation directories.")
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="The data of all recipes; that both directories were measured on.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model of all recipes.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every recipe, with the seeds 0, 1, ...")] = 3,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Training pairs that every run sees.", show_default="as the first recipe asks"),
    ] = None,
    output: Annotated[Path, typer.Option("--out", help="Where the runs of recipes go.")] = Path("runs/compare"),
    head: Annotated[
        str,
        typer.Option(
            help="Of directories: the head of both, or BASE:TUNED such as dense:hybrid; auto: hybrid, or the only head."
        ),
    ] = "auto",
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Compare recipes fairly, several seeds each; or two evaluations query by query.

    Example: m3tune compare llamaindex default --data questions.json --seeds 3
    """
    from m3tune.comparing import is_recipe

    recipes = [is_recipe(name) for name in what]
    if all(recipes):
        _compare_recipes(what, data, model, seeds, pairs, output.expanduser(), overrides or [], as_json)
    elif any(recipes) or len(what) != 2:
        raise RecipeError(
            "neither recipes alone nor two evaluation directories",
            where=" ".join(what),
            fix="name .toml files or shipped recipes, or two directories that m3tune evaluate wrote",
        )
    elif data is None:
        raise RecipeError("the data of the two evaluations is missing", where="--data", fix="name it")
    else:
        _compare_evaluations(Path(what[0]), Path(what[1]), data, head, overrides or [], as_json)


def _compare_recipes(
    names: list[str],
    data: str | None,
    model: str | None,
    seeds: int,
    pairs: int | None,
    output: Path,
    overrides: list[str],
    as_json: bool,
) -> None:
    from m3tune.comparing import compare_recipes, load_ways
    from m3tune.recipe import toml_value
    from m3tune.report.contest_page import PAGE
    from m3tune.report.contest_words import is_better
    from m3tune.report.terminal import print_contest

    say = console.say_unless(as_json)
    given = {"data.path": data, "model.path": model}
    laid_over = [f"{key}={toml_value(value)}" for key, value in given.items() if value is not None]
    ways = load_ways(names, [*laid_over, *overrides], say)
    with console.progress(as_json):
        facts = compare_recipes(ways, seeds, pairs, output, say)
    if as_json:
        console.print_json(facts)
    else:
        print_contest(console.out, facts, output / PAGE)
    raise typer.Exit(FINE if is_better(facts) else NOT_GOOD_ENOUGH)


def _compare_evaluations(base: Path, tuned: Path, data: str, head: str, overrides: list[str], as_json: bool) -> None:
    from dataclasses import asdict

    from m3tune.data.read import read_collection
    from m3tune.data.similar import find_similar
    from m3tune.evaluation.compare import verdict
    from m3tune.evaluation.measure import deciding_head
    from m3tune.evaluation.store import load_evaluation, measured_heads
    from m3tune.pipeline import compare_evaluations
    from m3tune.recipe import build_recipe
    from m3tune.report.terminal import print_comparison

    recipe = build_recipe({"data": {"path": data}, "model": {"path": "-"}}, overrides, where="--set")
    config = recipe.evaluate
    collection, _ = read_collection(recipe.data.path, recipe.data.format, recipe.data.columns)
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
