"""Pairs, triplets and n-tuples in named columns: JSON lines, CSV, TSV, Parquet. Names say what columns hold."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection, add_record, text_hash
from m3tune.data.files import excerpt, listed, open_text, read_json_lines
from m3tune.errors import DataError, nearest
from m3tune.types import Judgment, Negative, Passage, Query

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
_PACKED = ("", ".gz", ".zst")
_JSON = tuple(f".{name}{packed}" for name in ("jsonl", "json") for packed in _PACKED)
_COMMAS = tuple(f".csv{packed}" for packed in _PACKED)
_TABS = tuple(f".tsv{packed}" for packed in _PACKED)
_PARQUET = (".parquet",)
TABLES = (*_COMMAS, *_TABS, *_PARQUET)
EXTENSIONS = (*_JSON, *TABLES)


def read_pairs(path: Path, columns: Mapping[str, str] | None = None) -> Collection:
    """The collection in a file of pairs, or in all those of a folder, in the order of their names.

    Each row holds a query, a positive and any number of negatives, in columns that `NAMES` knows; `columns` says for
    others what they are, as column -> role, with the role `ignore` for those to leave out. A cell of a positive or a
    negative may be a list of texts; an empty negative is none. Without an id column the id is the hash of the text, so
    equal texts are stored once and rows with one query unite. A passage that one row calls positive and another
    negative, for the same query, is kept as positive.

    Raises DataError with file and line, or row: a column of no known role, two for one role, a wrong type, an empty
    query or positive, an id with two texts, a text that is positive and negative in one row.
    """
    columns = columns or {}
    for role in columns.values():
        if role not in (*NAMES, IGNORE):
            close = nearest(role, (*NAMES, IGNORE))
            hint = f"did you mean {close!r}? " if close else ""
            raise DataError(
                f"unknown role {role!r}", where="--column", fix=f"{hint}roles: {', '.join(NAMES)}, {IGNORE}"
            )
    rows = _Rows()
    known: dict[tuple[str, ...], dict[str, str]] = {}
    for file in _files(path):
        for where, row in _rows(file):
            names = tuple(row)
            if names not in known:
                known[names] = _roles(names, columns, where)
            rows.add(row, known[names], where)
    return rows.collection()


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


def first_row(file: Path) -> Mapping[str, Any]:
    """The first row of a table, which is empty where there is none. Raises DataError."""
    return next((row for _, row in _rows(file)), {})


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
            )
    for role, found in of_role.items():
        if len(found) > 1 and role != "negative":
            others = [f"{IGNORE}={name}" for name in found[1:]]
            raise DataError(f"several columns are the {role}: {listed(found)}", where=where, fix=_say(*others))
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


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row stands, and the row; the file's name says how it is written."""
    if file.name.endswith(_PARQUET):
        return _parquet_rows(file)
    if file.name.endswith((*_COMMAS, *_TABS)):
        return _separated_rows(file, "\t" if file.name.endswith(_TABS) else ",")
    return ((f"{file}:{number}", row) for number, row in read_json_lines(file))


def _separated_rows(file: Path, separator: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # the standard library's 128 KiB are less than a long document
    header: list[str] = []
    with open_text(file) as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        while True:
            where = f"{file}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(
                    f"a row that cannot be read ({error})",
                    where=where,
                    fix='put a text with quotes or separators in it into quotes, and write each quote in it as ""',
                ) from None
            if cells is None:
                return
            if not cells:
                continue
            if not header:
                header = _distinct(cells, where)
            elif len(cells) != len(header):
                raise DataError(
                    f"{len(cells)} cells for {len(header)} columns, from {excerpt(cells[0])}",
                    where=where,
                    fix="put a text that holds the separator into quotes",
                )
            else:
                yield where, dict(zip(header, cells, strict=True))


def _parquet_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            _distinct(table.schema_arrow.names, str(file))
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}: row {number}", row
    except (OSError, ValueError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"not a sound Parquet file ({first_line})", where=file, fix="download or write it again"
        ) from None


def _distinct(names: list[str], where: str) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the column {name!r} stands twice", where=where, fix="give each column a name of its own")
    return names


@dataclass
class _Rows:
    """What the rows read so far say. A negative has no id before all rows are read: another row may name it."""

    queries: dict[str, Query] = field(default_factory=dict)
    passages: dict[str, Passage] = field(default_factory=dict)
    positives: dict[tuple[str, str], None] = field(default_factory=dict)
    negatives: dict[tuple[str, str], None] = field(default_factory=dict)  # query id, text

    def add(self, row: Mapping[str, Any], role_of: Mapping[str, str], where: str) -> None:
        cells = {role: (name, row[name]) for name, role in role_of.items() if role != "negative"}
        text = _text(*cells["query"], where)
        (query_id,) = _ids(cells.get("query_id"), [text], where)
        positives = _texts(*cells["positive"], where)
        if not positives:
            name, value = cells["positive"]
            raise DataError(f"{name!r} is empty: {excerpt(value)}", where=where, fix="give a positive or drop the row")
        negatives = [
            text for name, role in role_of.items() if role == "negative" for text in _texts(name, row[name], where)
        ]
        both = set(positives) & set(negatives)
        if both:
            raise DataError(
                f"a text is both positive and negative: {excerpt(min(both))}",
                where=where,
                fix="remove it from the one where it does not belong",
            )
        titles = _titles(cells.get("title"), len(positives), where)
        ids = _ids(
            cells.get("positive_id"),
            [f"{title}\x1f{text}" if title else text for title, text in zip(titles, positives, strict=True)],
            where,
        )
        add_record(self.queries, Query(query_id, text), where)
        for id_, text, title in zip(ids, positives, titles, strict=True):
            add_record(self.passages, Passage(id_, text, title), where)
            self.positives[query_id, id_] = None
        self.negatives.update(dict.fromkeys((query_id, text) for text in negatives))

    def collection(self) -> Collection:
        id_of_text: dict[str, str] = {}
        for passage in self.passages.values():
            id_of_text.setdefault(passage.text, passage.id)
        relevant = {(query_id, self.passages[passage_id].text) for query_id, passage_id in self.positives}
        negatives: list[Negative] = []
        for query_id, text in self.negatives:
            if (query_id, text) not in relevant:
                id_ = id_of_text.setdefault(text, text_hash(text))
                add_record(self.passages, self.passages.get(id_, Passage(id_, text)), "a negative")
                negatives.append(Negative(query_id, id_))
        judgments = tuple(Judgment(*pair) for pair in self.positives)
        return Collection(self.queries, self.passages, judgments, tuple(negatives))


def _text(name: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not a text: {excerpt(value)}", where=where, fix="write a text")
    if not value.strip():
        raise DataError(f"{name!r} is empty: {value!r}", where=where, fix="write a text or drop the row")
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
        )
    return values
