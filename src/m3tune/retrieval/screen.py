"""Which passages may be among a query's best, told by products in bfloat16, where those are faster; their exact scores.

q, p queries and passages of a block; D numbers a vector; k results a query

Of vectors a and b rounded to a' and b', |ab - a'b'| = |(a - a')b + a'(b - b')| <= |a - a'||b| + |a'||b - b'| by Cauchy
and Schwarz. So whoever scores lower by that much in bfloat16 than the k-th best does exactly is not among the best k,
and few are left to be scored in float32: the ranking is that of float32, but for its own rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from m3tune.machine import pick_precision
from m3tune.retrieval.room import Room

_PASSAGES_OF_K = 16  # with fewer passages than this for each result too many may be best
_MOST, _MOST_OF_K = 512, 4  # and where more than this may be for one query, as where all are the same, it does not pay
_PAIRS_AT_ONCE = 2048  # pairs that are scored exactly at a time, so that they stay in a processor's cache
_UNIT = 2.0**-8  # unit roundoff of bfloat16
_UNIT32 = 2.0**-24  # of float32, in which products are summed
_ZERO = 1e-30  # what is smaller a processor may take for zero in bfloat16


class Rounded(NamedTuple):
    """Vectors of a block, the same in bfloat16, and what bounds the error of their products."""

    exact: Tensor  # (n, D) float32
    rounded: Tensor  # (n, D) bfloat16
    norms: Tensor  # (n,), the larger one of the vector's and its rounded one's
    errors: Tensor  # (n,), the norm of their difference, and what summing D products, twice, may add


def pays(passages: int, k: int, device: torch.device) -> bool:
    """Whether so many passages are screened: bfloat16 is faster on this processor, and most will be left out."""
    if device.type != "cpu" or passages < _PASSAGES_OF_K * k:
        return False
    return pick_precision("auto", device) == torch.bfloat16


def in_bfloat16(vectors: Tensor, room: Room) -> Rounded:
    """`vectors`, (n, D) float32, ready to be screened; the room is free again."""
    rounded = vectors.bfloat16()
    back = room.of(*vectors.shape).copy_(rounded)
    norms = torch.maximum(vectors.norm(dim=1), back.norm(dim=1))
    summing = 2 * vectors.shape[1] * _UNIT32 * norms
    return Rounded(vectors, rounded, norms, back.sub_(vectors).norm(dim=1) + summing)


def largest_errors(queries: Rounded, passages: Rounded) -> Tensor:
    """(q,) by how much, at most, a query's product in bfloat16 is off from the exact one, over all passages."""
    return queries.errors * passages.norms.max() + queries.norms * passages.errors.max() + _ZERO


def screened(
    queries: Rounded, passages: Rounded, k: int, least: Tensor | None, room: Room
) -> tuple[Tensor, Tensor] | None:
    """The passages that may be among each query's best `k`: (q, m) exact scores and columns, others there as -inf.

    `least` (q,) is the k-th best score so far, where there are as many. None where too many may be, or where numbers
    are not finite.
    """
    error, count = largest_errors(queries, passages), (len(queries.exact), len(passages.exact))
    if not bool(error.isfinite().all()) or (least is None and count[1] < k):
        return None
    found = torch.mm(queries.rounded, passages.rounded.T, out=room.of(*count, torch.bfloat16))
    if least is None:
        # k passages score at least this, less what rounding the sum to bfloat16 added and less the error.
        kth = found.topk(k, dim=1).values[:, -1].float()
        least = kth - 2 * _UNIT * kth.abs() - error
    # Rounding keeps the order, so what is at least this before it is at least this rounded after it.
    threshold = (least - error).bfloat16()
    may = torch.ge(found, threshold[:, None], out=room.of(*count, torch.bool))
    pairs = np.flatnonzero(may.numpy())
    owner, column = np.divmod(pairs, count[1])
    counts = np.bincount(owner, minlength=count[0])
    if counts.max(initial=0) > _MOST + _MOST_OF_K * k:
        return None
    rows, columns = torch.from_numpy(owner), torch.from_numpy(column)
    place = torch.from_numpy(np.arange(len(pairs)) - np.repeat(counts.cumsum() - counts, counts))
    shape = (count[0], int(counts.max(initial=0)))
    scores, where = torch.full(shape, -torch.inf), torch.zeros(shape, dtype=torch.int64)
    scores[rows, place] = scores_of_pairs(queries.exact, passages.exact, rows, columns)
    where[rows, place] = columns
    return scores, where


def scores_of_pairs(queries: Tensor, passages: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n,) inner products of queries and passages in float32: the same for the same vectors, wherever they stand."""
    scores = torch.empty(len(rows))
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        scores[some] = (queries[rows[some]] * passages[columns[some]]).sum(dim=1)
    return scores
