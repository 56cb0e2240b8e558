"""The whole job from a recipe, and what begins and ends it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Columns, Json, Sets, minutes_of


def demo(
    output: Annotated[Path, typer.Option("--out", help="The run directory.")] = Path("runs/demo"),
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """The whole job on SciFact with a small real encoder: no network, a CPU is enough.

    Example: m3tune demo --set train.epochs=1
    """
    from m3tune.recipe import load_recipe
    from m3tune.starter import DEMO, recipe_file

    built_in = [f"{key}={value}" for key, value in DEMO.items()] + [f"output={output}"]
    _run(load_recipe(recipe_file("default"), [*built_in, *(overrides or [])]), as_json)


def init(
    data: Annotated[str, typer.Argument(help="Your data, in any format that m3tune reads.")],
    model: Annotated[str, typer.Option("--model", help="A folder or Hub id.")] = "BAAI/bge-m3",
    recipe: Annotated[Path, typer.Option("--out", help="The recipe to write.")] = Path("recipe.toml"),
    base: Annotated[str, typer.Option("--from", help="A shipped recipe: default, llamaindex, native, ...")] = "default",
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="What DATA is, where it is not seen: pairs, beir, ...")
    ] = "auto",
    columns: Columns = None,
) -> None:
    """Write a commented recipe for your files and machine; asks nothing it can see for itself.

    Example: m3tune init questions.json --model BAAI/bge-m3
    """
    from m3tune.data.columns import parse_columns
    from m3tune.starter import write_starter

    seen = write_starter(data, model, recipe, base, format, parse_columns(columns or []))
    lines = [*seen, f"wrote {recipe}; next: m3tune run {shlex.quote(str(recipe))}"]
    console.out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")] = Path("recipe.toml"),
    overrides: Sets = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Look for better settings on development data first: for 90s, 20m or 2h."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every stage of a recipe; skips what is up to date and goes on with what was cut off.

    Example: m3tune run recipe.toml --search 20m
    """
    from m3tune.recipe import load_recipe

    searching = [] if search is None else [f"search.minutes={minutes_of('--search', search)}"]
    _run(load_recipe(recipe, [*(overrides or []), *searching]), as_json)


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")] = Path("recipe.toml"),
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Memory and time that a run would take on this machine, measured in some seconds; 2 where it does not fit.

    Example: m3tune plan recipe.toml --set train.batch_queries=512
    """
    from m3tune.planning import plan_run
    from m3tune.recipe import load_recipe
    from m3tune.report.terminal import print_plan

    found = plan_run(load_recipe(recipe, overrides or []), console.say_unless(as_json))
    if as_json:
        console.print_json(found.as_json())
    else:
        print_plan(console.out, found)


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run directory.")],
    as_json: Json = False,
) -> None:
    """Write the HTML report of a run again, and print its verdict.

    Example: m3tune report runs/demo
    """
    from m3tune.artifact import read_json
    from m3tune.report.html import write_report
    from m3tune.report.terminal import print_verdict

    file = write_report(run_folder)
    facts = read_json(file.with_suffix(".json"))
    if as_json:
        console.print_json(facts)
    else:
        print_verdict(console.out, facts)


def replay(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run directory.")],
    output: Annotated[
        Path | None, typer.Option("--out", help="The directory of the replay.", show_default="RUN-replay")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a finished run again from its own recipe, and compare every figure of the two.

    Example: m3tune replay runs/demo
    """
    from m3tune.replaying import replay
    from m3tune.report.terminal import print_replay

    home = run_folder.resolve()
    folder = output or home.with_name(home.name + "-replay")
    with console.progress(as_json):
        found = replay(run_folder, folder, console.say_unless(as_json))
    if as_json:
        console.print_json(found.as_json())
    else:
        print_replay(console.out, found, folder)
    raise typer.Exit(NOT_GOOD_ENOUGH if found.results else FINE)


def _run(recipe: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from m3tune import pipeline
    from m3tune.artifact import read_json
    from m3tune.report.terminal import print_verdict

    with console.progress(as_json):
        result = pipeline.run(recipe, console.say_unless(as_json))
    if as_json:
        console.print_json(asdict(result))
    else:
        print_verdict(console.out, read_json(Path(recipe.output).expanduser() / "report.json"))
    raise typer.Exit(FINE if result.verdict == "better" else NOT_GOOD_ENOUGH)
