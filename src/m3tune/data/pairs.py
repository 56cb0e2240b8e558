"""Pairs, triplets and n-tuples in named columns: JSON lines, CSV, TSV, Parquet. Names say what columns hold."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.builder import Builder
from m3tune.data.collection import Collection, text_hash
from m3tune.data.files import PACKED
from m3tune.data.intake import Intake, Row
from m3tune.data.rows import read_json_lines
from m3tune.data.tables import TABLES, table_rows
from m3tune.errors import DataError, excerpt, listed, nearest
from m3tune.types import Passage, Query

# Role -> the names that are known for it, whatever their case; `-` and blanks count as `_`.
NAMES: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "question", "anchor"),
    "positive": ("positive", "pos", "passage", "answer", "context", "document"),
    "negative": ("negative", "negatives", "neg", "hard_negative", "hard_negatives", "hard_neg"),
    "query_id": ("query_id", "question_id", "qid"),
    "positive_id": ("positive_id", "passage_id", "document_id", "doc_id", "corpus_id", "pid"),
    "title": ("title", "positive_title", "passage_title", "document_title"),
}
IGNORE = "ignore"
_ROLE_OF_NAME = {name: role for role, names in NAMES.items() for name in names}
_NUMBERED = re.compile(r"(negative|neg|hard_negative|hard_neg)_?[0-9]+")
EXTENSIONS = (*(f".{name}{packed}" for name in ("jsonl", "json") for packed in PACKED), *TABLES)


def read_pairs(path: Path, intake: Intake, columns: Mapping[str, str] | None = None) -> Collection:
    """The collection in a file of pairs, or in all those of a folder, in the order of their names.

    Each row holds a query, a positive and any number of negatives, in columns that `NAMES` knows; `columns` says for
    others what they are, as column -> role, with the role `ignore` for those to leave out. A cell of a positive or a
    negative may be a list of texts; an empty negative is none. Without an id column the id is the hash of the text, so
    equal texts are stored once and rows with one query unite.

    Bad rows go to `intake`: a wrong type, an empty query or positive, an id with two texts, a text that is positive and
    negative in one row. Raises DataError for a column of no known role and for two of one role.
    """
    columns = columns or {}
    for role in columns.values():
        if role not in (*NAMES, IGNORE):
            close = nearest(role, (*NAMES, IGNORE))
            hint = f"did you mean {close!r}? " if close else ""
            raise DataError(
                f"unknown role {role!r}", where="--column", fix=f"{hint}roles: {', '.join(NAMES)}, {IGNORE}"
            )
    builder = Builder()
    for file in _files(path):
        rows = list(itertools.islice(all_rows := rows_of(file), 1))
        # What the columns of a file are is settled by its first row, before any row is judged.
        known = {tuple(row.value): _roles(tuple(row.value), columns, row.where) for row in rows if row.error is None}

        def add(row: Mapping[str, Any], where: str, known: dict[tuple[str, ...], dict[str, str]] = known) -> bool:
            names = tuple(row)
            if names not in known:
                known[names] = _roles(names, columns, where)
            return _add(builder, row, known[names], where)

        intake.take("row", itertools.chain(rows, all_rows), add)
    return builder.collection()


def parse_columns(options: Iterable[str]) -> dict[str, str]:
    """Column -> role from options like `positive=body`. Raises DataError."""
    columns: dict[str, str] = {}
    for option in options:
        role, equals, name = option.partition("=")
        if not equals:
            raise DataError(f"{option!r} has no '='", where="--column", fix="write ROLE=NAME, as in positive=body")
        if columns.setdefault(name, role) != role:
            raise DataError(f"{name!r} is both {columns[name]} and {role}", where="--column", fix="say one of them")
    return columns


def fits(names: Iterable[str]) -> bool:
    """Whether there is a name for a query and one for a positive among these."""
    return {"query", "positive"} <= {_known_role(name) for name in names}


def rows_of(file: Path) -> Iterator[Row]:
    """Each row of a table or of JSON lines; the file's name says which it is."""
    return table_rows(file) if file.name.endswith(TABLES) else read_json_lines(file)


def _known_role(name: str) -> str | None:
    plain = re.sub(r"[-\s]+", "_", name.strip().lower())
    return "negative" if _NUMBERED.fullmatch(plain) else _ROLE_OF_NAME.get(plain)


def _roles(names: tuple[str, ...], columns: Mapping[str, str], where: str) -> dict[str, str]:
    """Column -> role, without the columns to leave out."""
    roles = {name: columns.get(name) or _known_role(name) for name in names}
    of_role = {role: [name for name in names if roles[name] == role] for role in NAMES}
    unknown = [name for name in names if roles[name] is None]
    for role in ("query", "positive"):
        if not of_role[role]:
            guess = unknown[0] if unknown else "NAME"
            raise DataError(
                f"no column is the {role}; here are {listed(names)}",
                where=where,
                fix=f"name it {NAMES[role][0]}, or {_say(f'{role}={guess}')}",
                reason="columns",
            )
    for role, found in of_role.items():
        if len(found) > 1 and role != "negative":
            others = [f"{IGNORE}={name}" for name in found[1:]]
            raise DataError(
                f"several columns are the {role}: {listed(found)}", where=where, fix=_say(*others), reason="columns"
            )
    if unknown:
        raise DataError(
            f"no known name for a column: {listed(unknown)}",
            where=where,
            fix=f"{_say(f'{IGNORE}={unknown[0]}')}, or ROLE={unknown[0]}; roles: {', '.join(NAMES)}",
        )
    return {name: role for name, role in roles.items() if role is not None and role != IGNORE}


def _say(*options: str) -> str:
    return "say m3tune convert " + " ".join(f"--column {shlex.quote(option)}" for option in options)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(EXTENSIONS) and file.is_file())
    if not files:
        raise DataError(
            f"no file with pairs is here; they end in {', '.join(EXTENSIONS)}",
            where=path,
            fix="name the folder that holds them",
        )
    return files


def _add(builder: Builder, row: Mapping[str, Any], role_of: Mapping[str, str], where: str) -> bool:
    cells = {role: (name, row[name]) for name, role in role_of.items() if role != "negative"}
    text = _text(*cells["query"], where)
    (query_id,) = _ids(cells.get("query_id"), [text], where)
    positives = _texts(*cells["positive"], where)
    if not positives:
        name, value = cells["positive"]
        raise DataError(
            f"{name!r} is empty: {excerpt(value)}",
            where=where,
            fix="give a positive or drop the row",
            reason="no-positive",
        )
    negatives = [
        (text, None) for name, role in role_of.items() if role == "negative" for text in _texts(name, row[name], where)
    ]
    titles = _titles(cells.get("title"), len(positives), where)
    ids = _ids(
        cells.get("positive_id"),
        [f"{title}\x1f{text}" if title else text for title, text in zip(titles, positives, strict=True)],
        where,
    )
    passages = [(Passage(*record), None) for record in zip(ids, positives, titles, strict=True)]
    return builder.add(Query(query_id, text), passages, negatives, where)


def _text(name: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(
            f"{name!r} is not a text: {excerpt(value)}", where=where, fix="write a text", reason="wrong-type"
        )
    if not value.strip():
        raise DataError(
            f"{name!r} is empty: {value!r}", where=where, fix="write a text or drop the row", reason="empty-text"
        )
    return value


def _texts(name: str, value: Any, where: str) -> list[str]:
    """The texts of a cell that holds one or a list of them; none where it is empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    return [_text(name, text, where) for text in value] if isinstance(value, list) else [_text(name, value, where)]


def _ids(cell: tuple[str, Any] | None, texts: list[str], where: str) -> list[str]:
    """One id for each text: the column's, where a whole number counts as its digits, or the hash of the text."""
    if cell is None:
        return [text_hash(text) for text in texts]
    return [
        str(id_) if isinstance(id_, int) and not isinstance(id_, bool) else _text(cell[0], id_, where)
        for id_ in _as_many(cell, len(texts), where)
    ]


def _titles(cell: tuple[str, Any] | None, length: int, where: str) -> list[str]:
    if cell is None:
        return [""] * length
    titles = ["" if title is None else title for title in _as_many(cell, length, where)]
    return [title if title == "" else _text(cell[0], title, where) for title in titles]


def _as_many(cell: tuple[str, Any], length: int, where: str) -> list[Any]:
    """The values of a cell beside `length` positives: a list of as many, or one alone."""
    name, value = cell
    values = value if isinstance(value, list) else [value]
    if len(values) != length:
        raise DataError(
            f"{name!r} has {len(values)} values for {length} positives: {excerpt(value)}",
            where=where,
            fix="write a list with one value for each positive",
            reason="wrong-type",
        )
    return values
