"""Scores of queries against passages: pure functions of tensors.

Q queries, P passages, D dimension

Memory grows with the tokens of the texts, never with Q x P x tokens x tokens or with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from m3tune.types import Head
from m3tune.vectors import Embeddings, MultiVector, Sparse, owners

_BLOCK_NUMBERS = 8 * 2**20  # of a temporary block: 32 MiB of float32


def dense_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """Inner products, the cosine where vectors have length one: (Q, D), (P, D) -> (Q, P).

    >>> import torch
    >>> dense_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])).tolist()
    [[0.6000000238418579, 0.0]]
    """
    return queries @ passages.T


def sparse_scores(queries: Sparse, passages: Sparse) -> Tensor:
    """The sum over shared token ids of the product of both weights, (Q, P): M3's lexical score.

    Only ids that occur in the queries have a column (U of them). A block of passages is laid out as a (U, p) table, and
    each query adds up its own rows of it; the backward pass lays the table out again.

    >>> ids, offsets = torch.tensor([3, 8, 8, 9]), torch.tensor([0, 2, 4])
    >>> texts = Sparse(ids, torch.tensor([1.0, 2.0, 3.0, 4.0]), offsets)
    >>> sparse_scores(texts, texts).tolist()
    [[5.0, 6.0], [6.0, 25.0]]
    """
    known, columns = queries.token_ids.unique(return_inverse=True)  # (U,), (M of the queries,)
    if not len(known):
        known = queries.token_ids.new_tensor([-1])  # no id, so that nothing below is empty
    found = torch.searchsorted(known, passages.token_ids).clamp_max(len(known) - 1)
    shared = known[found] == passages.token_ids
    passage_of_entry = owners(passages.offsets)[shared]
    blocks = []
    for first, last in _blocks(len(passages.offsets) - 1, len(known)):
        at = torch.searchsorted(passage_of_entry, torch.tensor([first, last], device=found.device)).tolist()
        cells = (found[shared][slice(*at)], passage_of_entry[slice(*at)] - first)
        block = partial(_table_scores, columns, queries.offsets, cells, (len(known), last - first))
        weights = passages.weights[shared][slice(*at)]
        blocks.append(checkpoint(block, queries.weights, weights, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(blocks, dim=1) if blocks else queries.weights.new_zeros(len(queries.offsets) - 1, 0)


def _table_scores(
    columns: Tensor, offsets: Tensor, cells: tuple[Tensor, Tensor], shape: tuple[int, int],
    query_weights: Tensor, passage_weights: Tensor,
) -> Tensor:  # fmt: skip
    """(Q, p) scores of a block: a product of a sparse (Q, U) with a dense (U, p) matrix."""
    table = passage_weights.new_zeros(shape).index_put(cells, passage_weights)
    return F.embedding_bag(
        columns, table, offsets, mode="sum", per_sample_weights=query_weights, include_last_offset=True
    )


def multi_scores(queries: MultiVector, passages: MultiVector) -> Tensor:
    """The mean over a query's tokens of the largest inner product with a token of the passage, (Q, P).

    Late interaction (Khattab and Zaharia, 2020), divided by the query's tokens as M3 does. A text without vectors
    scores zero. Kept for the backward pass, beside the vectors, is the place of each maximum alone.

    >>> both = MultiVector(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([0, 2, 3]))
    >>> [[round(score, 2) for score in row] for row in multi_scores(both, both).tolist()]
    [[1.0, 0.7], [0.8, 1.0]]
    """
    return _LateInteraction.apply(queries.vectors, queries.offsets, passages.vectors, passages.offsets)


class _LateInteraction(torch.autograd.Function):
    """A tokens of all queries, B tokens of all passages."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, query_offsets: Tensor, passage: Tensor, passage_offsets: Tensor) -> Tensor:
        """Passages of like length are padded together, which alone costs little; padding never wins a maximum."""
        num_tokens, num_passages = len(query), len(passage_offsets) - 1
        best = query.new_zeros(num_tokens, num_passages)
        place = torch.zeros(num_tokens, num_passages, dtype=torch.int32, device=query.device)  # row of `passage`
        lengths = passage_offsets.diff()
        order = lengths.argsort()
        order = order[lengths[order] > 0]
        for group in _groups_of_like_length(lengths[order].tolist()):
            members = order[group]
            width = torch.arange(int(lengths[members[-1]]), device=query.device)
            rows = passage_offsets[members, None] + width  # (n, L), beyond a passage's end where it is shorter
            outside = width >= lengths[members, None]
            vectors = passage[rows.clamp_max(len(passage) - 1).flatten()]
            for first, last in _blocks(num_tokens, rows.numel()):
                products = (query[first:last] @ vectors.T).unflatten(1, rows.shape)  # (a, n, L)
                value, index = products.masked_fill_(outside, -torch.inf).max(dim=2)
                best[first:last, members] = value
                place[first:last, members] = (passage_offsets[members] + index).int()
        ctx.save_for_backward(query, query_offsets, passage, passage_offsets, place)
        return _mean_over_tokens(best, query_offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:
        """Each (query token, passage) pair passes its share on to two vectors, the token's and the best match's."""
        query, query_offsets, passage, passage_offsets, place = ctx.saved_tensors
        text_of_token = owners(query_offsets)
        share = grad / query_offsets.diff().clamp_min(1)[:, None] * (passage_offsets.diff() > 0)  # (Q, P)
        grad_query, grad_passage = torch.zeros_like(query), torch.zeros_like(passage)
        for first, last in _blocks(place.shape[1], 4 * max(1, len(query))):
            begin, end = passage_offsets[[first, last]].tolist()
            if begin == end or not len(query):
                continue
            local = (place[:, first:last].long() - begin).clamp_(0, end - begin - 1)  # (A, p)
            shares = share[text_of_token, first:last]
            grad_query += F.embedding_bag(local, passage[begin:end], mode="sum", per_sample_weights=shares)
            by_place, pair = local.flatten().sort(stable=True)
            starts = torch.searchsorted(by_place, torch.arange(end - begin, device=query.device))
            grad_passage[begin:end] = F.embedding_bag(
                pair // (last - first), query, starts, mode="sum", per_sample_weights=shares.flatten()[pair]
            )
        return grad_query, None, grad_passage, None


def head_scores(queries: Embeddings, passages: Embeddings) -> dict[Head, Tensor]:
    """The (Q, P) scores of each head that is there."""
    scores: dict[Head, Tensor] = {}
    if queries.dense is not None and passages.dense is not None:
        scores["dense"] = dense_scores(queries.dense, passages.dense)
    if queries.sparse is not None and passages.sparse is not None:
        scores["sparse"] = sparse_scores(queries.sparse, passages.sparse)
    if queries.multi is not None and passages.multi is not None:
        scores["multi"] = multi_scores(queries.multi, passages.multi)
    return scores


def hybrid(scores: Mapping[Head, Tensor], weights: Mapping[Head, float]) -> Tensor:
    """The weighted sum of the scores that are there, (Q, P). A head that `weights` does not name counts nothing.

    >>> dense, sparse = torch.tensor([[0.5]]), torch.tensor([[2.0]])
    >>> round(hybrid({"dense": dense, "sparse": sparse}, {"dense": 1.0, "sparse": 0.3, "multi": 1.0}).item(), 4)
    1.1
    """
    weighed = [weights[head] * score for head, score in scores.items() if weights.get(head)]
    return torch.stack(weighed).sum(dim=0)


def _mean_over_tokens(best: Tensor, offsets: Tensor) -> Tensor:
    """(A, P) of tokens -> (Q, P) of texts."""
    lengths = offsets.diff()
    sums = best.new_zeros(len(lengths), best.shape[1]).index_add_(0, owners(offsets), best)
    return sums / lengths.clamp_min(1)[:, None]


def _blocks(count: int, width: int) -> Iterator[tuple[int, int]]:
    """(first, last) of stretches of `count` rows, as many at once as a block of `width` numbers a row may hold."""
    step = max(1, _BLOCK_NUMBERS // max(1, width))
    return ((first, min(first + step, count)) for first in range(0, count, step))


def _groups_of_like_length(ascending: list[int], budget_tokens: int = 8192) -> Iterator[slice]:
    """Slices of texts whose longest has at most twice the tokens of its shortest, padded to at most `budget_tokens`."""
    begin = 0
    for end in range(1, len(ascending) + 1):
        if end == len(ascending) or (
            ascending[end] > 2 * ascending[begin] or (end + 1 - begin) * ascending[end] > budget_tokens
        ):
            yield slice(begin, end)
            begin = end
