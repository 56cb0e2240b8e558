"""Rows of tables: CSV, TSV and Parquet. A table's columns have names, and nothing is known by its position."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from m3tune.data.files import MAX_LINE_BYTES, PACKED, encoding_fix, not_utf8, raw_lines
from m3tune.data.intake import Row
from m3tune.errors import DataError, excerpt

_COMMAS = tuple(f".csv{packed}" for packed in PACKED)
_TABS = tuple(f".tsv{packed}" for packed in PACKED)
_PARQUET = (".parquet",)
TABLES = (*_COMMAS, *_TABS, *_PARQUET)
"""How the names of tables end."""


def table_rows(file: Path) -> Iterator[Row]:
    """Each row as column -> value, or what is wrong with it. Raises DataError where the file cannot be read."""
    if file.name.endswith(_PARQUET):
        return _parquet_rows(file)
    return _separated_rows(file, "\t" if file.name.endswith(_TABS) else ",")


def _separated_rows(file: Path, separator: str) -> Iterator[Row]:
    # The standard library's 128 KiB are less than a long document; a quote that nothing closes must still end.
    csv.field_size_limit(MAX_LINE_BYTES)
    header: list[str] = []
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        where = f"{file}:{lines.next_number}"
        lines.text.clear()
        cells, problem = _next_cells(reader, where)
        if cells is None:
            return
        problem = lines.take_error() or problem
        if header and cells and not problem and len(cells) != len(header):
            problem = DataError(
                f"{len(cells)} cells for {len(header)} columns, from {excerpt(cells[0])}",
                where=where,
                fix="put a text that holds the separator into quotes",
                reason="columns",
            )
        if problem and not header:
            raise problem
        if problem:
            yield Row(where, None, problem, "".join(lines.text).rstrip("\r\n"))
        elif cells and header:
            yield Row(where, dict(zip(header, cells, strict=True)))
        elif cells:
            header = _distinct(cells, where)


def _next_cells(reader: Iterator[list[str]], where: str) -> tuple[list[str] | None, DataError | None]:
    """The next row, None at the end, or what is wrong with it."""
    try:
        return next(reader, None), None
    except csv.Error as error:
        return [], DataError(
            f"a row that cannot be read ({error})",
            where=where,
            fix='put a text with quotes or separators in it into quotes, and write each quote in it as ""',
            reason="broken-row",
        )


class _Lines:
    """The lines of a file for the csv module, which itself can only stop at one that is broken.

    A line that is no text comes as blank, and its error waits to be taken. `text` is what came since it was cleared.
    """

    def __init__(self, file: Path) -> None:
        self.next_number = 1
        self.text: list[str] = []
        self._file = file
        self._lines = self._pieces()
        self._error: DataError | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._lines)

    def take_error(self) -> DataError | None:
        """The first error since this was asked."""
        error, self._error = self._error, None
        return error

    def _pieces(self) -> Iterator[str]:
        fix = ""
        for number, data, error in raw_lines(self._file):
            self.next_number = number + 1
            try:
                text = data.decode()
            except UnicodeDecodeError as wrong:
                fix = fix or encoding_fix(self._file)
                error = error or not_utf8(f"{self._file}:{number}", wrong, fix)
                text = data.decode("utf-8", "backslashreplace")
            self.text.append(text)
            if error:
                self._error = self._error or error
                yield "\n"
            elif "\r" in text:
                yield from _ENDS.findall(text)  # old spreadsheets end a row so
            else:
                yield text


_ENDS = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def _parquet_rows(file: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            _distinct(table.schema_arrow.names, str(file))
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Row(f"{file}: row {number}", row)
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"not a sound Parquet file ({first_line})", where=file, fix="download or write it again"
        ) from None


def _distinct(names: list[str], where: str) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the column {name!r} stands twice", where=where, fix="give each column a name of its own")
    return names
