"""Rows of tables: CSV, TSV and Parquet. A table's columns have names, and nothing is known by its position."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from m3tune.data.files import PACKED, open_text
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
    csv.field_size_limit(sys.maxsize)  # the standard library's 128 KiB are less than a long document
    header: list[str] = []
    with open_text(file) as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        while True:
            where = f"{file}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                problem = DataError(
                    f"a row that cannot be read ({error})",
                    where=where,
                    fix='put a text with quotes or separators in it into quotes, and write each quote in it as ""',
                    reason="broken-row",
                )
                if not header:
                    raise problem from None
                yield Row(where, None, problem, f"(line {reader.line_num} of the file)")
                continue
            if cells is None:
                return
            if not cells:
                continue
            if not header:
                header = _distinct(cells, where)
            elif len(cells) != len(header):
                problem = DataError(
                    f"{len(cells)} cells for {len(header)} columns, from {excerpt(cells[0])}",
                    where=where,
                    fix="put a text that holds the separator into quotes",
                    reason="columns",
                )
                yield Row(where, None, problem, separator.join(cells))
            else:
                yield Row(where, dict(zip(header, cells, strict=True)))


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
