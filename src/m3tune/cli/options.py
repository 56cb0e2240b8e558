"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from m3tune.errors import RecipeError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs instead of text.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Lay over the recipe, e.g. train.epochs=1.")
]
Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="What it is, where it is not seen: llamaindex, flagembedding, beir, trec, pairs, datasets or documents.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="ROLE=NAME", help="What a column of pairs is, e.g. positive=body."),
]


_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0}


def minutes_of(option: str, value: str) -> float:
    """Minutes of a time such as 90s, 20m or 2h. Raises RecipeError for anything else."""
    form = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", value.strip().lower())
    if form is None or not float(form[1]):
        raise RecipeError(f"{value!r} is no time", where=option, fix="write seconds, minutes or hours: 90s, 20m, 2h")
    return float(form[1]) * _MINUTES[form[2]]


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises RecipeError where `value` is none of those known."""
    if value not in known:
        raise RecipeError(f"{value!r} is none of {', '.join(known)}", where=option, fix="name one of them")
