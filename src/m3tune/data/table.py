"""Queries or passages by id, in the order they came, in memory as long as they are few and on disk beyond.

A table of millions of passages would not fit in memory as Python objects; what stays there is one id and one row number
for each.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa

from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

Record = TypeVar("Record", Query, Passage)

BLOCK_RECORDS = 65_536


class Table(Mapping[str, Record], Generic[Record]):
    """An append-only mapping from id to record. The newest records, `block` at most, are in memory."""

    def __init__(self, kind: type[Record], records: Iterable[Record] = (), *, block: int = BLOCK_RECORDS) -> None:
        self._kind: type[Record] = kind
        self._block = block
        self._rows: dict[str, int] = {}
        self._newest: list[Record] = []
        self._files: list[Path] = []
        self._blocks: list[pa.RecordBatch] = []  # of these files, mapped and not in memory
        self._folder: Path | None = None
        for record in records:
            self.add(record, "")

    def add(self, record: Record, where: str) -> bool:
        """Add a record; False where the very same one is there. Raises DataError where its id has another text."""
        if not self.is_new(record, where):
            return False
        self._rows[record.id] = len(self._rows)
        self._newest.append(record)
        if len(self._newest) == self._block:
            self._spill()
        return True

    def is_new(self, record: Record, where: str) -> bool:
        """What `add` would return or raise, adding nothing."""
        if record.id not in self._rows:
            return True
        first = self[record.id]
        if first != record:
            raise two_texts(first, record, where)
        return False

    def __getitem__(self, id_: str) -> Record:
        return self._at(self._rows[id_])

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def values(self) -> Iterator[Record]:  # type: ignore[override]
        """Every record, reading each block of the disk once."""
        for file in self._files:
            # Read and not mapped: a pass over everything must not leave everything in memory.
            with pa.OSFile(str(file)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
            yield from (self._kind(*cells) for cells in zip(*(c.to_pylist() for c in batch.columns), strict=True))
        yield from self._newest

    def items(self) -> Iterator[tuple[str, Record]]:  # type: ignore[override]
        """Every id with its record, as `values` reads them."""
        return ((record.id, record) for record in self.values())

    def _at(self, row: int) -> Record:
        block, offset = divmod(row, self._block)
        if block == len(self._blocks):
            return self._newest[offset]
        return self._kind(*(column[offset].as_py() for column in self._blocks[block].columns))

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="m3tune-table-"))
            weakref.finalize(self, _remove, self._folder, os.getpid())
        file = self._folder / f"{len(self._files)}.arrow"
        schema = schema_of(self._kind)
        columns = [pa.array(map(attrgetter(name), self._newest), pa.large_string()) for name in schema.names]
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        self._files.append(file)
        self._blocks.append(pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0))
        self._newest = []


def two_texts(first: Query | Passage, second: Query | Passage, where: str) -> DataError:
    """The error for two records that have one id and are not the same; shows the first field in which they differ."""
    names = [field.name for field in fields(first) if field.name != "text"]
    name = next((n for n in ("text", *names) if getattr(first, n) != getattr(second, n)), "text")
    shown = [excerpt(getattr(record, name)) for record in (first, second)]
    return DataError(
        f"the id {excerpt(first.id)} has two {name}s: {shown[0]} and {shown[1]}",
        where=where,
        fix="give every text an id of its own",
        reason="two-texts-for-one-id",
    )


def schema_of(kind: type[Query] | type[Passage]) -> pa.Schema:
    """A column a field, in the order of the constructor; all of them are texts."""
    # large_string: the texts of one column may exceed the 2 GiB that 32-bit offsets reach.
    return pa.schema([(field.name, pa.large_string()) for field in fields(kind)])


def _remove(folder: Path, owner: int) -> None:
    # A forked process, such as a loader's worker, has a copy of the table but does not own its files.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
