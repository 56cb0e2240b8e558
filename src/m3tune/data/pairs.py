"""Pairs, triplets and n-tuples in named columns: JSON lines, CSV, TSV, Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.builder import Builder
from m3tune.data.collection import Collection, text_hash
from m3tune.data.columns import Columns, check_roles, columns_of
from m3tune.data.files import PACKED
from m3tune.data.intake import Intake, Row
from m3tune.data.rows import read_json_lines
from m3tune.data.scores import is_finite_number
from m3tune.data.tables import TABLES, table_rows
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

EXTENSIONS = (*(f".{name}{packed}" for name in ("jsonl", "json") for packed in PACKED), *TABLES)

_Positives = list[tuple[Passage, float | None]]
_Negatives = list[tuple[Passage | str, float | None]]


def read_pairs(path: Path, intake: Intake, columns: Mapping[str, str] | None = None) -> Collection:
    """The collection in a file of pairs, or in all those of a folder, in the order of their names.

    Each row holds a query, a positive and any number of negatives, in columns that `columns.NAMES` knows; `columns`
    says for others what they are, as column -> role, with the role `ignore` for those to leave out. A cell of a
    positive or a negative may be a list of texts, and what else the row says of them is then a list of as many; an
    empty negative is none. Without an id column the id is the hash of the text, so equal texts are stored once and rows
    with one query unite.

    Bad rows go to `intake`: a wrong type, an empty query or positive, an id with two texts, a text that is positive and
    negative in one row. Raises DataError for a column of no known role and for two of one role.
    """
    builder = Builder(intake)
    for file in _files(path):
        take_pairs(builder, rows_of(file), intake, columns or {})
    return builder.collection()


def take_pairs(
    builder: Builder,
    all_rows: Iterator[Row],
    intake: Intake,
    columns: Mapping[str, str],
    members: dict[str, None] | None = None,
) -> None:
    """Take the rows of one table, as `read_pairs` says; the ids of their queries are added to `members`."""
    check_roles(columns)
    rows = list(itertools.islice(all_rows, 1))
    # What the columns of a table are is settled by its first row, before any row is judged.
    known = {tuple(row.value): columns_of(tuple(row.value), columns, row.where) for row in rows if not row.error}
    ids = {} if members is None else members

    def add(row: Mapping[str, Any], where: str) -> bool:
        names = tuple(row)
        if names not in known:
            known[names] = columns_of(names, columns, where)
        query, positives, negatives = _parse(row, known[names], where)
        is_new = builder.add(query, positives, negatives, where) or (members is not None and query.id not in ids)
        ids[query.id] = None
        return is_new

    intake.take("row", itertools.chain(rows, all_rows), add)


def rows_of(file: Path) -> Iterator[Row]:
    """Each row of a table or of JSON lines; the file's name says which it is."""
    return table_rows(file) if file.name.endswith(TABLES) else read_json_lines(file)


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


def _parse(row: Mapping[str, Any], columns: Columns, where: str) -> tuple[Query, _Positives, _Negatives]:
    """What a row holds; a negative without an id is a text."""
    text = _text(columns.query, row[columns.query], where)
    prompt = _prompt(columns.prompt, row, where)
    hash_ = text_hash(text if prompt is None else f"{prompt}\x1f{text}")
    query_id = _id(columns.query_id, row[columns.query_id], where) if columns.query_id else hash_
    positives = list(_passages(columns.positive, row, where))
    if not positives:
        name = columns.positive["text"]
        raise DataError(
            f"{name!r} is empty: {excerpt(row[name])}",
            where=where,
            fix="give a positive or drop the row",
            reason="no-positive",
        )
    negatives: _Negatives = []
    for of_one in columns.negatives:
        for passage, score in _passages(of_one, row, where, needs_id=False):
            # Where the row gives nothing but its text, a negative may be a passage that another row names.
            negatives.append((passage if passage.id else passage.text, score))
    return Query(query_id, text, prompt), positives, negatives


def _passages(
    column_of: Mapping[str, str], row: Mapping[str, Any], where: str, needs_id: bool = True
) -> Iterator[tuple[Passage, float | None]]:
    """The passages of a row's cells, each with its score. With `needs_id` an id column must say each one's id.

    Without such a column it is the hash of title and text; where an id is not needed, only a title calls for it.
    """
    texts = _texts(column_of["text"], row[column_of["text"]], where)
    cells = {part: _as_many(name, row[name], len(texts), where) for part, name in column_of.items() if part != "text"}
    for at, text in enumerate(texts):
        title = _title(column_of["title"], cells["title"][at], where) if "title" in cells else ""
        score = _score(column_of["score"], cells["score"][at], where) if "score" in cells else None
        id_ = ""
        if "id" in cells and (needs_id or not _is_empty(cells["id"][at])):
            id_ = _id(column_of["id"], cells["id"][at], where)
        elif needs_id or title:
            id_ = text_hash(f"{title}\x1f{text}" if title else text)
        yield Passage(id_, text, title), score


def _text(name: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, value, where)
    if not value.strip():
        raise DataError(
            f"{name!r} is empty: {value!r}", where=where, fix="write a text or drop the row", reason="empty-text"
        )
    return value


def _texts(name: str, value: Any, where: str) -> list[str]:
    """The texts of a cell that holds one or a list of them; none where it is empty."""
    if _is_empty(value):
        return []
    return [_text(name, text, where) for text in value] if isinstance(value, list) else [_text(name, value, where)]


def _id(name: str, value: Any, where: str) -> str:
    """An id, where a whole number counts as its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(name, value, where)


def _title(name: str, value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong_type(name, value, where)
    return value


def _prompt(name: str | None, row: Mapping[str, Any], where: str) -> str | None:
    """The query's prompt; an empty one is none, which a table cannot tell apart."""
    if name is None or row[name] in (None, ""):
        return None
    if not isinstance(row[name], str):
        raise _wrong_type(name, row[name], where)
    return row[name]


def _score(name: str, value: Any, where: str) -> float | None:
    """A score, None where the cell is empty; in a table it is a text."""
    if _is_empty(value):
        return None
    try:
        number: Any = float(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not is_finite_number(number):
        raise DataError(
            f"{name!r} is not a finite number: {excerpt(value)}",
            where=where,
            fix="write a number, or leave it empty",
            reason="bad-score",
        )
    return float(number)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _as_many(name: str, value: Any, length: int, where: str) -> list[Any]:
    """The values of a cell beside so many texts: a list of as many, or one alone; an empty cell is empty for all."""
    if _is_empty(value) and length != 1:
        return [None] * length
    values = value if isinstance(value, list) else [value]
    if len(values) != length:
        raise DataError(
            f"{name!r} has {len(values)} values for {length} texts: {excerpt(value)}",
            where=where,
            fix="write a list with one value for each text",
            reason="wrong-type",
        )
    return values


def _wrong_type(name: str, value: Any, where: str) -> DataError:
    return DataError(f"{name!r} is not a text: {excerpt(value)}", where=where, fix="write a text", reason="wrong-type")
