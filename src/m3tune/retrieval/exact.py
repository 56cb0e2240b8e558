"""Exact search: every query against every passage, in float32, block by block.

Q queries, P passages, D dimension, K results
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from m3tune.scoring import dense_scores
from m3tune.types import Hit, Run

_BLOCK_PASSAGES = 65_536
_BLOCK_QUERIES = 256


def top_k(queries: np.ndarray, passages: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and passage rows of the best `k` for each query: (Q, K) float32 and (Q, K) int64, best first.

    Equal scores are ordered by passage row. K is smaller than `k` where there are fewer passages.
    """
    k = min(k, len(passages))
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK_QUERIES):
        block = slice(start, start + _BLOCK_QUERIES)
        best, index = _top_k_block(torch.from_numpy(np.ascontiguousarray(queries[block])), passages, k)
        scores[block], rows[block] = best.numpy(), index.numpy()
    return scores, rows


def _top_k_block(queries: Tensor, passages: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    """A running top k over blocks of passages."""
    best = torch.empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(passages), _BLOCK_PASSAGES):
        block = torch.from_numpy(np.ascontiguousarray(passages[start : start + _BLOCK_PASSAGES]))
        scores, rows = dense_scores(queries, block).topk(min(k, len(block)), dim=1)
        best, index = torch.cat([best, scores], dim=1), torch.cat([index, rows + start], dim=1)
        by_row = index.argsort(dim=1)
        best, index = best.gather(1, by_row), index.gather(1, by_row)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :k]
        best, index = best.gather(1, order), index.gather(1, order)
    return best, index


def search(
    query_vectors: np.ndarray,
    query_ids: Sequence[str],
    passage_vectors: np.ndarray,
    passage_ids: Sequence[str],
    depth: int,
) -> Run:
    """The run of the best `depth` passages for each query by inner product."""
    scores, rows = top_k(query_vectors, passage_vectors, depth)
    return {
        query_id: [Hit(passage_ids[row], float(score)) for row, score in zip(rows[i], scores[i], strict=True)]
        for i, query_id in enumerate(query_ids)
    }
