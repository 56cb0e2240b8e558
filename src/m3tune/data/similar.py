"""Which texts of a collection are nearly the same, so that copies fall on one side and are not taken for negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from m3tune.data.collection import Collection
from m3tune.data.duplicates import Duplicates, near_duplicates
from m3tune.data.likeness import PASSAGES, QUERIES
from m3tune.types import Passage, Query


@dataclass(frozen=True)
class Similar:
    """Id -> the first id of its group of near-duplicates, for texts that have company; others stand alone."""

    passages: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, str] = field(default_factory=dict)

    def passage(self, passage_id: str) -> str:
        """The passage that stands for this one's group."""
        return self.passages.get(passage_id, passage_id)

    def query(self, query_id: str) -> str:
        """The query that stands for this one's group."""
        return self.queries.get(query_id, query_id)


def exact_copies(collection: Collection) -> Similar:
    """Only texts that are the very same."""
    return Similar(
        {p: collection.canonical_passage[p] for p in collection.passages if p in collection.canonical_passage},
        {q: collection.canonical_query[q] for q in collection.queries if q in collection.canonical_query},
    )


def find_similar(collection: Collection) -> Similar:
    """Exact copies and near-duplicates; see `near_duplicates` for what counts as one."""
    passages = near_duplicates(_Texts(collection.passages), PASSAGES)
    queries = near_duplicates(_Texts(collection.queries), QUERIES)
    return Similar(_by_id(list(collection.passages), passages), _by_id(list(collection.queries), queries))


def _by_id(ids: Sequence[str], duplicates: Duplicates) -> dict[str, str]:
    return {ids[row]: ids[first] for row, first in enumerate(duplicates.groups.tolist()) if row != first}


class _Texts(Sequence[str]):
    """The texts of a table in its order, read when they are asked for: a large table lies on disk."""

    def __init__(self, table: Mapping[str, Query] | Mapping[str, Passage]) -> None:
        self._table = table
        self._ids = list(table)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return map(_text, self._table.values())

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [_text(self._table[id_]) for id_ in self._ids[row]]
        return _text(self._table[self._ids[row]])


def _text(record: Query | Passage) -> str:
    return record.full_text if isinstance(record, Passage) else record.text
