"""Make a model of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3tune.cli import console
from m3tune.cli.options import Json


def merge(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Folders or Hub ids; with --alpha two.")],
    output: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    alpha: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="How far from the first (0) to the second (1).")
    ] = None,
    average: Annotated[bool, typer.Option("--average", help="The mean of all, instead of --alpha.")] = False,
    as_json: Json = False,
) -> None:
    """Merge models of one shape, heads included: between two, or the mean of several.

    Example: m3tune merge BAAI/bge-m3 runs/demo/model --alpha 0.7 --out merged
    """
    from m3tune.config import ModelConfig
    from m3tune.errors import RecipeError
    from m3tune.merging import merge_models

    if average == (alpha is not None):
        raise RecipeError(
            "one of --alpha and --average says how", where="merge", fix="name one of them, e.g. --alpha 0.7"
        )
    merge_models([ModelConfig(path=model) for model in models], alpha, output, console.say_unless(as_json))
    if as_json:
        console.print_json({"folder": str(output), "models": models, "alpha": alpha})
    else:
        console.out.print(f"model {output}", markup=False, highlight=False, soft_wrap=True)
