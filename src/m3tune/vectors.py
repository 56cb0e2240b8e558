"""What an encoder says of texts: one vector a text, a weight per token id, one vector a token.

    N texts, D dimension of a vector, M entries of all texts together

Texts have different numbers of entries, so these lie one after another, and text i owns `offsets[i]:offsets[i + 1]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor


class Sparse(NamedTuple):
    """Lexical weights. Within a text token ids ascend and none stands twice; a weight may be zero."""

    token_ids: Tensor  # (M,) int64
    weights: Tensor  # (M,) float32, not negative
    offsets: Tensor  # (N + 1,) int64


class MultiVector(NamedTuple):
    """One vector a token, in the order of the text."""

    vectors: Tensor  # (M, D) float32
    offsets: Tensor  # (N + 1,) int64


class Embeddings(NamedTuple):
    """What the heads of an encoder say of N texts, in the order they were given to `pack`; None where not computed."""

    dense: Tensor | None = None  # (N, D) float32
    sparse: Sparse | None = None
    multi: MultiVector | None = None


Ragged = TypeVar("Ragged", Sparse, MultiVector)


def ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... start + length - 1 of each pair, one after another: (sum of lengths,) int64.

    >>> ranges(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    ends = lengths.cumsum(0)
    shifts = starts - (ends - lengths)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total, device=starts.device) + torch.repeat_interleave(shifts, lengths, output_size=total)


def offsets_of(lengths: Tensor) -> Tensor:
    """(N,) lengths -> (N + 1,) int64 offsets."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def owners(offsets: Tensor) -> Tensor:
    """The text that each entry belongs to: (M,) int64."""
    return torch.repeat_interleave(offsets.diff())


def take(ragged: Ragged, texts: Tensor) -> Ragged:
    """The entries of some texts, (n,) int64, in that order; a text may be taken twice.

    What re-ranking needs: the scores of one query with its candidates are those of `take(queries, row)` with
    `take(passages, candidates)`.
    """
    lengths = ragged.offsets.diff()[texts]
    rows = ranges(ragged.offsets[:-1][texts], lengths)
    *values, _ = ragged
    return type(ragged)(*(value[rows] for value in values), offsets_of(lengths))  # type: ignore[call-arg]


def on_device(embeddings: Embeddings, device: torch.device) -> Embeddings:
    """The same on another device."""
    return Embeddings(*(_moved(part, device) for part in embeddings))


def split_at(embeddings: Embeddings, count: int) -> tuple[Embeddings, Embeddings]:
    """The first `count` texts and the rest, such as queries and passages of a batch."""
    parts = [(None, None) if part is None else _split(part, count) for part in embeddings]
    first, rest = zip(*parts, strict=True)
    return Embeddings(*first), Embeddings(*rest)


def without_zeros(sparse: Sparse) -> Sparse:
    """The same weights without those that are zero, as FlagEmbedding lists them. What is stored keeps them."""
    kept = sparse.weights > 0
    lengths = torch.zeros_like(sparse.offsets[1:]).index_add_(0, owners(sparse.offsets), kept.long())
    return Sparse(sparse.token_ids[kept], sparse.weights[kept], offsets_of(lengths))


def _moved(part: Any, device: torch.device) -> Any:
    if part is None:
        return None
    if isinstance(part, Tensor):
        return part.to(device, non_blocking=True)
    return type(part)(*(value.to(device, non_blocking=True) for value in part))


def _split(part: Tensor | Sparse | MultiVector, count: int) -> tuple:
    """One split, not two slices: the gradient of a slice is as large as the whole."""
    if isinstance(part, Tensor):
        return part.split([count, len(part) - count])
    *values, offsets = part
    at = int(offsets[count])
    halves = zip(*(value.split([at, len(value) - at]) for value in values), strict=True)
    each_offsets = (offsets[: count + 1], offsets[count:] - at)
    return tuple(type(part)(*half, own) for half, own in zip(halves, each_offsets, strict=True))  # type: ignore[call-arg]
