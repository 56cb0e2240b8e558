"""A run's recipe: TOML in, one frozen config per stage out. An unknown key is an error that names the nearest one.

The keys stand in `config/`. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from m3tune.config import Recipe
from m3tune.errors import RecipeError, existing_path, nearest

_KEY_PART = re.compile(r'"([^"]*)"|([^."]+)')
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe at `path` with each `section.key=value` of `overrides` laid over it.

    Relative `data.path`, `model.path` and `output` are relative to the current folder. Raises RecipeError.
    """
    file = existing_path(path, "the recipe")
    if file.is_dir():
        raise RecipeError("this is a folder, not a recipe", where=file, fix="name the .toml file")
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = "strings need quotes; see recipes/"
        if file.suffix != ".toml":
            fix = f"name a recipe; for data, m3tune init {shlex.quote(str(path))} writes one"
        raise RecipeError(f"not valid TOML: {error}", where=file, fix=fix) from None
    return build_recipe(tables, overrides, where=str(file))


def build_recipe(tables: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """A checked recipe from parsed TOML tables and `section.key=value` overrides. Raises RecipeError."""
    merged, overrides = _copied(tables), tuple(overrides)
    for override in overrides:
        _lay_over(merged, override)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        explained = _explain(error.errors())
        laid_over = all(any(_is_within(override, key) for override in overrides) for key in explained)
        raise RecipeError("\n".join(explained.values()), where="--set" if laid_over else where) from None


def _copied(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tables.items()}


def _lay_over(tables: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into `tables`; the value is TOML, or a bare string."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"{override!r} has no '='", where="--set", fix="write --set train.learning_rate=1e-5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    parts = [quoted or bare for quoted, bare in _KEY_PART.findall(dotted.strip())]
    if not parts:
        raise RecipeError(f"{override!r} has no key", where="--set", fix="write --set train.learning_rate=1e-5")
    *sections, key = parts
    table = tables
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{section!r} is a value, not a table", where=f"--set {override}")
    table[key] = value


def _is_within(override: str, key: str) -> bool:
    """Whether an override is of this key, or of one in the table of this name."""
    name = override.partition("=")[0].strip().replace('"', "")
    return name == key or name.startswith(f"{key}.")


def _explain(errors: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A line for a person for each key, from pydantic's errors."""
    by_key: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        by_key.setdefault(_key_of(error["loc"])[0], []).append(error)
    return {".".join(key): _explain_key(key, of_key) for key, of_key in by_key.items()}


def _key_of(location: Sequence[str | int]) -> tuple[tuple[str, ...], type[BaseModel]]:
    """The recipe's key that pydantic's location is in, without the steps into its value, and the table it stands in."""
    table: type[BaseModel] = Recipe
    length = 1
    while length < len(location):
        field = table.model_fields.get(str(location[length - 1]))
        inner = field.annotation if field else None
        if get_origin(inner) is not dict:  # a table that may be left out
            inner = next((option for option in get_args(inner) if _is_table(option)), inner)
        if get_origin(inner) is dict and _is_table(get_args(inner)[1]):
            inner = get_args(inner)[1]
            length += 1  # the name that the person chose
        if not _is_table(inner) or length == len(location):
            break
        table, length = inner, length + 1  # type: ignore[assignment]
    return tuple(str(part) for part in location[:length]), table


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _explain_key(key: tuple[str, ...], errors: Sequence[Mapping[str, Any]]) -> str:
    name, error = ".".join(key), errors[0]
    if error["type"] == "extra_forbidden":
        known = _key_of(error["loc"])[1].model_fields
        close = nearest(key[-1], known)
        return f"unknown key {name!r}; " + (f"did you mean {close!r}?" if close else f"known keys: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{name!r} is missing"
    if error["type"] == "model_type":
        return f"{name} = {error['input']!r}: this is a table; write [{name}] and its keys, or {name}.KEY=VALUE"
    wrong = ", or ".join(item["msg"].removeprefix("Value error, ").lower() for item in errors)
    return f"{name} = {error['input']!r}: {wrong}"


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML that `load_recipe` reads back to an equal recipe."""
    lines = [f"output = {toml_value(recipe.output)}"]
    for section in ("data", "model", "mine", "train", "evaluate", "select", "search"):
        if table := getattr(recipe, section):
            lines += _table_lines(section, table.model_dump())
    return "\n".join(lines) + "\n"


def _table_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """A table under its heading, and after it the tables that it holds by name."""
    below = {key: value for key, value in values.items() if _holds_tables(value)}
    plain = {key: value for key, value in values.items() if value is not None and key not in below}
    lines = ["", f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in plain.items())]
    for key, tables in below.items():
        for inner, table in tables.items():
            lines += _table_lines(f"{name}.{key}.{_toml_key(inner)}", table)
    return lines


def _holds_tables(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values())


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """`value` as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too; JSON alone lets the delete character stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
