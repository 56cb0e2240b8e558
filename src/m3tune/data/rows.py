"""Records of JSON files, and the errors for what is wrong with one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.files import create_text, open_text, read_lines
from m3tune.data.intake import Row
from m3tune.errors import DataError, excerpt, listed, nearest

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a new file with one object a line, which `read_json_lines` reads."""
    with create_text(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a file that is one JSON document. Raises DataError with file and line."""
    with open_text(path) as file:
        return _parse_json(file.read(), path, 1, "give a whole JSON document; was the file cut off?")


def read_json_lines(path: Path) -> Iterator[Row]:
    """Each line's object; blank lines are skipped. A line that is none is a row with an error.

    Raises DataError where the file itself cannot be read.
    """
    place = f"{path}:"
    for number, text, error in read_lines(path):
        if not text or text.isspace():
            continue
        where = place + str(number)
        try:
            if error:
                raise error
            value = _parse_json(text, path, number)
        except DataError as problem:
            yield Row(where, None, problem, text)
            continue
        if isinstance(value, dict):
            yield Row(where, value)
        else:
            what = f"this line is not a JSON object: {excerpt(value)}"
            error = DataError(what, where=where, fix=_json_lines_fix(text), reason="not-an-object")
            yield Row(where, None, error, text)


def string_at(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under `key` of a row. Raises DataError when it is missing or not a text."""
    if key not in row:
        raise missing_key(row, key, where)
    value = row[key]
    if not isinstance(value, str):
        raise DataError(
            f"{key!r} is not a text: {excerpt(value)}",
            where=where,
            fix=f"write {key!r} as a JSON string",
            reason="wrong-type",
        )
    return value


def missing_key(row: Mapping[str, Any], key: str, where: str) -> DataError:
    """The error for a key that must be there; the fix names the nearest key that is."""
    close = nearest(key, row)
    return DataError(
        f"the key {key!r} is missing; here are {listed(row)}",
        where=where,
        fix=f"rename {close!r} to {key!r}" if close else f"add {key!r}",
        reason="missing-key",
    )


def _parse_json(text: str, path: Path, first_line: int, fix: str = "") -> Any:
    """The value of a JSON text that begins at `first_line` of the file."""
    try:
        value = _decode(text)
        if "\\u" in text and _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise _json_error(error, text, path, first_line, fix or _json_lines_fix(text)) from None


def _json_error(error: ValueError | RecursionError, text: str, path: Path, first_line: int, fix: str) -> DataError:
    where = f"{path}:{first_line}"
    if isinstance(error, json.JSONDecodeError):
        line = error.doc.split("\n")[error.lineno - 1].strip()
        return DataError(
            f"broken JSON ({error.msg}, column {error.colno}) in {excerpt(line)}",
            where=f"{path}:{first_line + error.lineno - 1}",
            fix=fix,
            reason="broken-json",
        )
    if isinstance(error, UnicodeEncodeError):
        return DataError(
            f"a text holds half a character: {error.object[error.start]!r} without its other half",
            where=where,
            fix="a text was cut inside an emoji or a rare character: remove that \\u escape",
            reason="half-a-character",
        )
    what = "JSON nested too deeply" if isinstance(error, RecursionError) else f"JSON that cannot be read ({error})"
    return DataError(f"{what} in {excerpt(text.strip())}", where=where, fix=fix, reason="broken-json")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. json keeps the last of repeated keys, so a text would be lost in silence."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!r} stands twice in one object")
    return value


_decode = json.JSONDecoder(object_pairs_hook=_unique_keys).decode


def _json_lines_fix(line: str) -> str:
    """What to do about a line that is not one JSON object."""
    start = line.lstrip()
    if start.startswith("version https://git-lfs"):
        return "this is a Git LFS pointer and not the file: run git lfs pull"
    if start.startswith("["):
        return "write one JSON object a line and no array around them, for example with: jq -c '.[]'"
    if start.strip() == "{":
        return "write each JSON object on one line, for example with: jq -c ."
    return "write one whole JSON object on each line"
