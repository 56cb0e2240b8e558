"""Which texts of a collection are nearly the same, so that copies fall on one side and are not taken for negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from m3tune.data.collection import Collection
from m3tune.data.duplicates import Duplicates, near_duplicates
from m3tune.data.likeness import PASSAGES, QUERIES
from m3tune.types import Passage, Query

_EXAMPLE_PAIRS = 1000

_Records = Mapping[str, Query] | Mapping[str, Passage]


@dataclass(frozen=True)
class NearCopies:
    """Groups of near-duplicates, exact copies included, and some pairs of them as examples with their similarity."""

    first: Mapping[str, str] = field(default_factory=dict)  # id -> first id of its group, for ids that are not first
    pairs: tuple[tuple[str, str, float], ...] = ()

    def first_of(self, id_: str) -> str:
        """The first id of its group: its own where it is first or alone."""
        return self.first.get(id_, id_)


@dataclass(frozen=True)
class Similar:
    """The near-duplicates among the passages and among the queries of a collection."""

    passages: NearCopies = field(default_factory=NearCopies)
    queries: NearCopies = field(default_factory=NearCopies)


def exact_copies(collection: Collection) -> Similar:
    """Only texts that are the very same."""
    passages, queries = collection.canonical_passage, collection.canonical_query
    return Similar(
        NearCopies({p: passages[p] for p in collection.passages if passages[p] != p}),
        NearCopies({q: queries[q] for q in collection.queries if queries[q] != q}),
    )


def find_similar(collection: Collection) -> Similar:
    """Exact copies and near-duplicates; see `near_duplicates` for what counts as one."""
    passages = near_duplicates(_Texts(collection.passages), PASSAGES)
    queries = near_duplicates(_Texts(collection.queries), QUERIES)
    return Similar(_by_id(collection.passages, passages), _by_id(collection.queries, queries))


def _by_id(records: _Records, duplicates: Duplicates) -> NearCopies:
    ids = list(records)
    grouped = np.flatnonzero(duplicates.groups != np.arange(len(ids))).tolist()
    first = {ids[row]: ids[duplicates.groups[row]] for row in grouped}
    # The least alike make the best examples: whoever doubts the finding doubts those.
    order = np.argsort(duplicates.similarity, kind="stable")[:_EXAMPLE_PAIRS].tolist()
    pairs = ((*duplicates.pairs[row].tolist(), float(duplicates.similarity[row])) for row in order)
    return NearCopies(first, tuple((ids[a], ids[b], similarity) for a, b, similarity in pairs))


class _Texts(Sequence[str]):
    """The texts of a table in its order, read when they are asked for: a large table lies on disk."""

    def __init__(self, table: _Records) -> None:
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
