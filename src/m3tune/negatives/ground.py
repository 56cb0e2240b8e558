"""Whom negatives are sought for, among what, and what is known to be relevant: ids as rows.

Q queries, P passages, N known positives
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from m3tune.data.collection import Collection
from m3tune.data.files import open_text
from m3tune.data.known import KnownRelevant
from m3tune.errors import DataError, excerpt, listed


class Numbered(NamedTuple):
    """What stands for each passage as a number, (P,) int64, and the number of each name of such a thing."""

    numbers: np.ndarray
    of_name: Mapping[str, int]


@dataclass(frozen=True)
class Ground:
    """Queries that have positives, and the passages of the pool with, after them, the positives that it lacks."""

    collection: Collection
    known: KnownRelevant
    query_ids: Sequence[str]
    passage_ids: Sequence[str]
    pool_size: int  # the first so many passages are searched

    @cached_property
    def query_row(self) -> Mapping[str, int]:
        """Query id -> row."""
        return {query_id: row for row, query_id in enumerate(self.query_ids)}

    @cached_property
    def passage_row(self) -> Mapping[str, int]:
        """Passage id -> row."""
        return {passage_id: row for row, passage_id in enumerate(self.passage_ids)}

    @cached_property
    def positives(self) -> tuple[np.ndarray, np.ndarray]:
        """Query rows, ascending, and passage rows of the known positives: (N,) int64 each."""
        return self.rows((q, p) for q in self.query_ids for p in self.collection.positives[q])

    @cached_property
    def own_numbers(self) -> np.ndarray:
        """(P,) the row of each passage: what stands for it where copies are told apart."""
        return np.arange(len(self.passage_ids))

    @cached_property
    def copies(self) -> np.ndarray:
        """(P,) the same number for passages with the very same text."""
        return numbered(self.collection.canonical_passage[id_] for id_ in self.passage_ids).numbers

    @cached_property
    def groups(self) -> Numbered:
        """The same number for passages that are nearly the same."""
        return numbered(map(self.known.group, self.passage_ids))

    def rows(self, pairs: Iterable[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Query rows and passage rows, (n,) int64 each, of those of the pairs whose query and passage are here."""
        query_row, passage_row = self.query_row, self.passage_row
        return columns((query_row[q], passage_row[p]) for q, p in pairs if q in query_row and p in passage_row)

    def codes(self, query: np.ndarray, value: np.ndarray) -> np.ndarray:
        """One int64 for each pair of a query row and a passage row, or what stands for the passage."""
        return query * max(len(self.passage_ids), 1) + value


def numbered(names: Iterable[str]) -> Numbered:
    """Names as numbers, in the order of their first appearance."""
    of_name: dict[str, int] = {}
    numbers = np.fromiter((of_name.setdefault(name, len(of_name)) for name in names), np.int64)
    return Numbered(numbers, of_name)


def columns(pairs: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows as two columns, (n,) int64 each."""
    table = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def make_ground(
    collection: Collection, known: KnownRelevant, query_ids: Sequence[str], pool: Sequence[str] | None
) -> Ground:
    """The ground of those of `query_ids` that have positives; the pool is the whole corpus unless it is named."""
    asked = [query_id for query_id in query_ids if query_id in collection.positives]
    passages = dict.fromkeys(collection.passages if pool is None else pool)
    size = len(passages)
    passages |= dict.fromkeys(p for q in asked for p in collection.positives[q])
    return Ground(collection, known, asked, list(passages), size)


def read_pool(file: Path, collection: Collection) -> list[str]:
    """The passage ids of a text file, one a line. Raises DataError where one is unknown, and where there is none."""
    with open_text(file) as stream:
        ids = [line.strip() for line in stream if line.strip()]
    check_known(ids, collection.passages, "passage", file)
    if not ids:
        raise DataError("the pool is empty", where=file, fix="write one passage id a line, or leave mine.pool out")
    return ids


def check_known(ids: Iterable[str], known: Mapping[str, object], noun: str, where: Path) -> None:
    """Raises DataError where one of the ids is not known."""
    unknown = list(dict.fromkeys(id_ for id_ in ids if id_ not in known))
    if unknown:
        raise DataError(
            f"{len(unknown):,} unknown {noun} ids: {listed(unknown, 3)}",
            where=where,
            fix=f"they must be ids of the data, such as {excerpt(next(iter(known), ''))}",
        )
