"""A Collection on disk: one Parquet table a noun and `splits.json`. What is loaded equals what was saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.artifact import read_json, write_json
from m3tune.data.collection import Collection
from m3tune.errors import ArtifactError
from m3tune.types import Judgment, Negative, Passage, Query

# large_string: the texts of one column may exceed the 2 GiB that 32-bit offsets reach.
_TEXT, _GRADE, _SCORE = pa.large_string(), pa.int64(), pa.float64()
# Column names are the field names of the record, in the order of its constructor.
_QUERIES = pa.schema([("id", _TEXT), ("text", _TEXT), ("prompt", _TEXT)])
_PASSAGES = pa.schema([("id", _TEXT), ("text", _TEXT), ("title", _TEXT)])
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


def load_collection(folder: Path) -> Collection:
    """The collection that `save_collection` wrote: equal, with an equal fingerprint. Raises ArtifactError."""
    queries = [Query(*row) for row in _read(folder / "queries.parquet", _QUERIES)]
    passages = [Passage(*row) for row in _read(folder / "passages.parquet", _PASSAGES)]
    return Collection(
        queries={query.id: query for query in queries},
        passages={passage.id: passage for passage in passages},
        judgments=tuple(Judgment(*row) for row in _read(folder / "judgments.parquet", _JUDGMENTS)),
        negatives=tuple(Negative(*row) for row in _read(folder / "negatives.parquet", _NEGATIVES)),
        splits={name: tuple(query_ids) for name, query_ids in read_json(folder / "splits.json").items()},
    )


def _write(file: Path, schema: pa.Schema, records: Iterable[Query | Passage | Judgment | Negative]) -> None:
    rows = list(records)
    columns = [pa.array(map(attrgetter(field.name), rows), field.type, size=len(rows)) for field in schema]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")


def _read(file: Path, schema: pa.Schema) -> Iterator[tuple]:
    """The rows of a table, in the order of the schema's columns."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"this table is missing or broken ({error})", where=file, fix="delete the directory and run again"
        ) from None
    if not table.schema.equals(schema):
        raise ArtifactError(
            f"the columns are {', '.join(table.column_names)} and not {', '.join(schema.names)}",
            where=file,
            fix="another version of m3tune wrote it: delete the directory and run again",
        )
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
