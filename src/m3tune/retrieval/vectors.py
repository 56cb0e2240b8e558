"""Vectors of many texts as arrays, in memory or memory-mapped; what is loaded of them is float32.

    N texts, D dimension, M entries of all texts together

Where a text's entries lie is told by its start and its length, so that some of the texts are a view of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch

from m3tune.types import Head
from m3tune.vectors import Embeddings, MultiVector, Sparse, offsets_of, ranges

Rows = slice | np.ndarray
HEADS: tuple[Head, ...] = get_args(Head)


class Spans(NamedTuple):
    """Where each text's entries lie."""

    starts: np.ndarray  # (N,) int64
    lengths: np.ndarray  # (N,) int64

    def entries(self, rows: Rows) -> Rows:
        """The entries of some texts, one text after the other; a slice where they lie so already."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        total = int(lengths.sum())
        if isinstance(rows, slice) and len(starts) and (np.diff(starts) == lengths[:-1]).all():
            return slice(int(starts[0]), int(starts[0]) + total)
        return ranges(torch.from_numpy(starts), torch.from_numpy(lengths)).numpy()


class SparseRows(NamedTuple):
    """Lexical weights; within a text token ids ascend, and a weight may be zero."""

    token_ids: np.ndarray  # (M,) int32
    weights: np.ndarray  # (M,) float32
    spans: Spans


class MultiRows(NamedTuple):
    """One vector a token, in the order of the text."""

    vectors: np.ndarray  # (M, D) float32 or float16
    spans: Spans


@dataclass(frozen=True)
class Vectors:
    """What the heads of an encoder say of N texts; None where a head was not asked."""

    dense: np.ndarray | None = None  # (N, D) float32 or float16
    sparse: SparseRows | None = None
    multi: MultiRows | None = None

    def __len__(self) -> int:
        if self.dense is not None:
            return len(self.dense)
        part = self.sparse or self.multi
        return len(part.spans.starts) if part else 0

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that are there."""
        return tuple(head for head in HEADS if getattr(self, head) is not None)

    def subset(self, rows: np.ndarray) -> Vectors:
        """Some of the texts, (n,) int64, in that order; entries are not copied, dense vectors are."""
        return Vectors(
            None if self.dense is None else self.dense[rows],
            self.sparse and self.sparse._replace(spans=_spans_of(self.sparse.spans, rows)),
            self.multi and self.multi._replace(spans=_spans_of(self.multi.spans, rows)),
        )

    def only(self, heads: Sequence[Head]) -> Vectors:
        """The same texts by some of the heads."""
        return Vectors(*(getattr(self, head) if head in heads else None for head in HEADS))

    def load(self, rows: Rows, heads: Sequence[Head] | None = None) -> Embeddings:
        """Some of the texts as tensors in memory, float32 whatever they are stored in; all heads unless named."""
        wanted = self.heads if heads is None else heads
        dense = sparse = multi = None
        if "dense" in wanted and self.dense is not None:
            dense = _float32(self.dense[rows])
        if "sparse" in wanted and self.sparse is not None:
            token_ids, weights, spans = self.sparse
            entries = spans.entries(rows)
            ids = torch.from_numpy(token_ids[entries].astype(np.int64))
            sparse = Sparse(ids, _float32(weights[entries]), offsets_of(torch.from_numpy(spans.lengths[rows])))
        if "multi" in wanted and self.multi is not None:
            vectors, spans = self.multi
            own = offsets_of(torch.from_numpy(spans.lengths[rows]))
            multi = MultiVector(_float32(vectors[spans.entries(rows)]), own)
        return Embeddings(dense, sparse, multi)


def spans_of(lengths: np.ndarray) -> Spans:
    """Texts of (N,) lengths one after another."""
    return Spans(np.cumsum(lengths) - lengths, lengths)


def _spans_of(spans: Spans, rows: np.ndarray) -> Spans:
    return Spans(spans.starts[rows], spans.lengths[rows])


def _float32(array: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own where the array is a view of a file, which torch must not write to."""
    own = np.array(array) if isinstance(array, np.memmap) or not array.flags.writeable else np.ascontiguousarray(array)
    return torch.from_numpy(own).float()  # from float16 much faster than numpy
