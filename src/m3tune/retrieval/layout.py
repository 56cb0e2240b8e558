"""Where the vectors of texts will lie, known from their tokens before anything is encoded.

That is why any batch can be written to its place at once, in memory or in a file, and a file that was begun can be gone
on with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from m3tune.data.tokens import TokenTable
from m3tune.model.encoder import Encoder
from m3tune.retrieval.vectors import MultiRows, Spans, SparseRows, Vectors, spans_of
from m3tune.types import Head

Storage = Literal["float32", "float16"]
Allocate = Callable[[str, tuple[int, ...], str], np.ndarray]
"""Name, shape and dtype of an array -> the array."""

_BLOCK_TEXTS = 16_384


@dataclass(frozen=True)
class Layout:
    """Shapes of the vectors of N texts; None where a head is not asked."""

    num_texts: int
    dense_dim: int | None
    sparse_ids: np.ndarray | None  # (M,) int32, ascending within a text
    sparse_spans: Spans | None
    multi_dim: int | None
    multi_spans: Spans | None

    def num_bytes(self, dense: Storage = "float32", multi: Storage = "float32") -> int:
        """What all arrays take."""
        return sum(math.prod(shape) * np.dtype(kind).itemsize for _, shape, kind in self._arrays(dense, multi))

    def allocate(self, new: Allocate, dense: Storage = "float32", multi: Storage = "float32") -> Vectors:
        """Arrays from `new` for everything that the encoder will fill in, and what is known already."""
        arrays = {name: new(name, shape, kind) for name, shape, kind in self._arrays(dense, multi)}
        sparse = multi_rows = None
        if self.sparse_ids is not None and self.sparse_spans is not None:
            arrays["sparse_token_ids"][:] = self.sparse_ids
            arrays["sparse_offsets"][:] = _offsets(self.sparse_spans)
            sparse = SparseRows(arrays["sparse_token_ids"], arrays["sparse_weights"], self.sparse_spans)
        if self.multi_spans is not None:
            arrays["multi_offsets"][:] = _offsets(self.multi_spans)
            multi_rows = MultiRows(arrays["multi"], self.multi_spans)
        return Vectors(arrays.get("dense"), sparse, multi_rows)

    def _arrays(self, dense: Storage, multi: Storage) -> list[tuple[str, tuple[int, ...], str]]:
        arrays: list[tuple[str, tuple[int, ...], str]] = []
        if self.dense_dim is not None:
            arrays.append(("dense", (self.num_texts, self.dense_dim), dense))
        if self.sparse_ids is not None:
            arrays.append(("sparse_token_ids", (len(self.sparse_ids),), "int32"))
            arrays.append(("sparse_weights", (len(self.sparse_ids),), "float32"))
            arrays.append(("sparse_offsets", (self.num_texts + 1,), "int64"))
        if self.multi_dim is not None and self.multi_spans is not None:
            arrays.append(("multi", (int(self.multi_spans.lengths.sum()), self.multi_dim), multi))
            arrays.append(("multi_offsets", (self.num_texts + 1,), "int64"))
        return arrays


def lay_out(encoder: Encoder, tokens: TokenTable, heads: Sequence[Head]) -> Layout:
    """What `heads` of the encoder will say of the texts, as to shape.

    The sparse head gives a weight to each distinct token id that is not weightless, the multi-vector head a vector to
    each token but the first (see `model.heads`).
    """
    sparse = _distinct_ids(tokens, encoder.weightless.cpu().numpy()) if "sparse" in heads else (None, None)
    return Layout(
        num_texts=len(tokens),
        dense_dim=encoder.dimension if "dense" in heads else None,
        sparse_ids=sparse[0],
        sparse_spans=sparse[1],
        multi_dim=encoder.linear("multi").out_features if "multi" in heads else None,
        multi_spans=spans_of(tokens.lengths - 1) if "multi" in heads else None,
    )


def _distinct_ids(tokens: TokenTable, weightless: np.ndarray) -> tuple[np.ndarray, Spans]:
    """The distinct token ids of each text that get a weight, ascending."""
    ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for first in range(0, len(tokens), _BLOCK_TEXTS):
        last = min(first + _BLOCK_TEXTS, len(tokens))
        block = tokens.flat(first, last)
        texts = np.repeat(np.arange(last - first, dtype=np.int64), tokens.lengths[first:last])
        kept = ~np.isin(block, weightless)
        entries = np.unique((texts[kept] << 32) | block[kept])
        ids.append((entries & 0xFFFFFFFF).astype(np.int32))
        lengths.append(np.bincount(entries >> 32, minlength=last - first).astype(np.int64))
    return np.concatenate(ids), spans_of(np.concatenate(lengths))


def _offsets(spans: Spans) -> np.ndarray:
    """(N + 1,) int64, of texts that lie one after another."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(spans.lengths)])
