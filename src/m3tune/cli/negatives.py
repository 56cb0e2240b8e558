"""Find hard negatives."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.options import Columns, Json, Sets, Source
from m3tune.errors import RecipeError


def mine(
    data: Annotated[str, typer.Argument(metavar="IN", help="Your data, in any format, or a recipe (.toml).")],
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="The directory to write; a recipe names its own.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model that searches: a folder or Hub id.")] = None,
    split: Annotated[
        str, typer.Option(help="For which queries: a split that the data brings, or all; auto: train, if there is one.")
    ] = "auto",
    sample: Annotated[
        int | None, typer.Option("--estimate", metavar="N", min=1, help="Draw N candidates to review, for the rates.")
    ] = None,
    source: Source = "auto",
    columns: Columns = None,
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Find hard negatives that are negative, and write them for m3tune, FlagEmbedding and others.

    Example: m3tune mine questions.json mined --model BAAI/bge-m3 --set mine.negatives_per_query=7
    """
    from m3tune import mining
    from m3tune.artifact import MANIFEST, read_json
    from m3tune.data.columns import parse_columns
    from m3tune.recipe import build_recipe, load_recipe
    from m3tune.report.terminal import print_mined
    from m3tune.review.project import open_project

    say = console.say_unless(as_json)
    is_recipe = data.endswith(".toml")
    if is_recipe:
        if output is not None or model is not None:
            raise RecipeError("a recipe names its own output and model", where="OUT, --model", fix="leave both out")
        with console.progress(as_json):
            folder, written = mining.mine_recipe(load_recipe(data, overrides or []), say)
    else:
        if output is None or model is None:
            raise RecipeError(
                "data is mined with a model into a directory", where="OUT, --model", fix="m3tune mine IN OUT --model M"
            )
        given: dict[str, Any] = {"path": data, "format": source, "columns": parse_columns(columns or [])}
        tables = {"output": str(output), "data": given, "model": {"path": model}, "mine": {}}
        with console.progress(as_json):
            folder, written = mining.mine_data(build_recipe(tables, overrides or [], where="--set"), split, say)
    reviewed = folder.parent if is_recipe else folder
    review = ["m3tune", "review", str(reviewed)]
    if sample is not None:
        open_project(reviewed).draw(sample, seed=0)
        review += ["--estimate", str(sample)]
    facts = {"counts": read_json(folder / MANIFEST)["counts"], **read_json(folder / mining.SUMMARY)}
    if as_json:
        facts.pop("examples")
        files = {name: str(file) for name, file in written.items()}
        console.print_json(facts | {"written": files, "review": review})
    else:
        print_mined(console.out, folder, facts, list(written.values()), shlex.join(review))
