"""Candidates as arrays: every (query, passage) pair that a source brought up, once, whatever found it.

Q queries, P passages, S sources, M candidates of all queries; queries and passages are rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from m3tune.retrieval.exact import Ranked


class Ranking(NamedTuple):
    """What one source found for all queries."""

    source: str
    query: np.ndarray  # (m,) int64
    passage: np.ndarray  # (m,) int64
    rank: np.ndarray  # (m,) int64, from 1


@dataclass(frozen=True)
class Pairs:
    """Candidates, ascending by query and within a query by passage."""

    sources: tuple[str, ...]
    query: np.ndarray  # (M,) int64
    passage: np.ndarray  # (M,) int64
    ranks: np.ndarray  # (S, M) int32, 0 where the source did not find the candidate

    def __len__(self) -> int:
        return len(self.query)

    def found_by(self, sources: Sequence[str]) -> np.ndarray:
        """(M,) bool, whether one of these sources found it."""
        rows = [row for row, source in enumerate(self.sources) if source in sources]
        return np.asarray((self.ranks[rows] > 0).any(axis=0))

    @cached_property
    def rank(self) -> np.ndarray:
        """(M,) int32, the best rank by any source."""
        return np.where(self.ranks > 0, self.ranks, np.iinfo(np.int32).max).min(axis=0, initial=np.iinfo(np.int32).max)


def as_ranking(source: str, ranked: Sequence[Ranked], first: int, last: int) -> Ranking:
    """Ranks `first` to `last`, from 1, of each query's ranking."""
    kept = [of_query.rows[first - 1 : last] for of_query in ranked]
    return as_lists(source, kept, first)


def as_lists(source: str, rows: Sequence[np.ndarray], first: int = 1) -> Ranking:
    """Passages of each query, best first, the best of them at rank `first`."""
    lengths = np.array([len(of_query) for of_query in rows], dtype=np.int64)
    rank = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first
    passage = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
    return Ranking(source, np.repeat(np.arange(len(rows)), lengths), passage, rank)


def unite(rankings: Sequence[Ranking], num_passages: int) -> Pairs:
    """Every pair of these rankings once, with its rank in each."""
    codes = np.concatenate([np.zeros(0, np.int64), *(of.query * num_passages + of.passage for of in rankings)])
    distinct, place = np.unique(codes, return_inverse=True)
    ranks = np.zeros((len(rankings), len(distinct)), dtype=np.int32)
    begin = 0
    for row, ranking in enumerate(rankings):
        ranks[row, place[begin : begin + len(ranking.query)]] = ranking.rank
        begin += len(ranking.query)
    query, passage = np.divmod(distinct, max(num_passages, 1))
    return Pairs(tuple(of.source for of in rankings), query, passage, ranks)
