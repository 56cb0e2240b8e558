"""Scores of queries against passages: pure functions of tensors.

Q queries, P passages, D dimension
"""

from __future__ import annotations

from torch import Tensor


def dense_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """Inner products, the cosine where vectors have length one: (Q, D), (P, D) -> (Q, P).

    >>> import torch
    >>> dense_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])).tolist()
    [[0.6000000238418579, 0.0]]
    """
    return queries @ passages.T
