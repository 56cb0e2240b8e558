"""A Collection on disk: one Parquet table a noun and `splits.json`. What is loaded equals what was saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.artifact import read_json, write_json
from m3tune.data.collection import Collection
from m3tune.data.table import BLOCK_RECORDS, Table, schema_of
from m3tune.errors import ArtifactError
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

_TEXT, _GRADE, _SCORE = pa.large_string(), pa.int64(), pa.float64()
# Column names are the field names of the record, in the order of its constructor.
_QUERIES, _PASSAGES = schema_of(Query), schema_of(Passage)
_JUDGMENTS = pa.schema([("query_id", _TEXT), ("passage_id", _TEXT), ("grade", _GRADE), ("score", _SCORE)])
_NEGATIVES = pa.schema([("query_id", _TEXT), ("passage_id", _TEXT), ("source", _TEXT), ("score", _SCORE)])


def save_collection(collection: Collection, folder: Path) -> None:
    """Write the collection into an existing or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "queries.parquet", _QUERIES, collection.queries.values())
    _write(folder / "passages.parquet", _PASSAGES, collection.passages.values())
    _write(folder / "judgments.parquet", _JUDGMENTS, collection.judgments)
    _write(folder / "negatives.parquet", _NEGATIVES, collection.negatives)
    write_json(folder / "splits.json", {name: list(query_ids) for name, query_ids in collection.splits.items()})
    write_json(folder / "sets.json", {name: asdict(of_set) for name, of_set in collection.sets.items()})


def load_collection(folder: Path) -> Collection:
    """The collection that `save_collection` wrote: equal, with an equal fingerprint. Raises ArtifactError."""
    return Collection(
        queries=Table(Query, (Query(*row) for row in _read(folder / "queries.parquet", _QUERIES))),
        passages=Table(Passage, (Passage(*row) for row in _read(folder / "passages.parquet", _PASSAGES))),
        judgments=tuple(Judgment(*row) for row in _read(folder / "judgments.parquet", _JUDGMENTS)),
        negatives=tuple(Negative(*row) for row in _read(folder / "negatives.parquet", _NEGATIVES)),
        splits={name: tuple(query_ids) for name, query_ids in read_json(folder / "splits.json").items()},
        sets={
            name: QuerySet(tuple(stored["query_ids"]), stored["in_batch_negatives"], stored["options"])
            for name, stored in read_json(folder / "sets.json").items()
        },
    )


def _write(file: Path, schema: pa.Schema, records: Iterable[Query | Passage | Judgment | Negative]) -> None:
    cells = attrgetter(*schema.names)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = iter(records)
        while block := [cells(record) for record in itertools.islice(rows, BLOCK_RECORDS)]:
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*block, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _read(file: Path, schema: pa.Schema) -> Iterator[tuple]:
    """The rows of a table, in the order of the schema's columns."""
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not table.schema_arrow.equals(schema):
                raise ArtifactError(
                    f"the columns are {', '.join(names)} and not {', '.join(schema.names)}",
                    where=file,
                    fix="another version of m3tune wrote it: delete the directory and run again",
                )
            for batch in table.iter_batches(BLOCK_RECORDS):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"this table is missing or broken ({error})", where=file, fix="delete the directory and run again"
        ) from None
