"""How the vectors and scores of a batch are: figures for the log, from tensors that the step has anyway.

N texts, Q queries, P passages, D dimension
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from m3tune.vectors import Embeddings, Sparse, owners

_MOST_TEXTS = 512  # of a batch, for what grows with the square of the texts


@torch.no_grad()
def health(
    queries: Embeddings, passages: Embeddings, scores: Mapping[str, Tensor], positive: Tensor, negative: Tensor
) -> dict[str, float]:
    """Every figure by the name that it has in the log; a head that is not there has none.

    scores: (Q, P) of each head and of the hybrid; positive, negative: (Q, P) bool.
    """
    figures: dict[str, float] = {}
    for name, of_head in scores.items():
        figures |= score_figures(name, of_head, positive, negative)
    if passages.dense is not None:
        figures |= dense_figures(passages.dense)
    if queries.sparse is not None and passages.sparse is not None:
        figures |= sparse_figures(queries.sparse, passages.sparse)
    return {name: round(value, 6) for name, value in figures.items()}


def score_figures(name: str, scores: Tensor, positive: Tensor, negative: Tensor) -> dict[str, float]:
    """Mean and standard deviation (`_sd`) of the scores of positives and of negatives, where there are any."""
    figures: dict[str, float] = {}
    for kind, mask in (("positive", positive), ("negative", negative)):
        if mask.any():
            of_kind = scores[mask].double() if scores.device.type == "cpu" else scores[mask].float()
            figures[f"score_{name}_{kind}"] = float(of_kind.mean())
            figures[f"score_{name}_{kind}_sd"] = float(of_kind.std(correction=0))
    return figures


def sparse_figures(queries: Sparse, passages: Sparse) -> dict[str, float]:
    """The share of texts without any weight above zero, and the mean number of such weights a text of each side."""
    used = {"query": tokens_of(queries), "passage": tokens_of(passages)}
    figures = {f"sparse_tokens_{side}": float(counts.double().mean()) for side, counts in used.items()}
    return figures | {"sparse_empty": float((torch.cat([*used.values()]) == 0).double().mean())}


def dense_figures(vectors: Tensor) -> dict[str, float]:
    """Norms of (N, D) vectors, mean and standard deviation, and how they fill the sphere; see the functions below."""
    vectors = vectors[:_MOST_TEXTS].detach().cpu().double()
    norms = vectors.norm(dim=1)
    figures = {"dense_norm": float(norms.mean()), "dense_norm_sd": float(norms.std(correction=0))}
    if len(vectors) < 2:
        return figures
    directions = F.normalize(vectors, dim=1)
    rank = effective_rank(directions)
    return figures | {
        "dense_cosine": mean_cosine(directions),
        "dense_uniformity": uniformity(directions),
        "dense_rank": rank,
        "dense_rank_share": rank / min(directions.shape),
    }


def tokens_of(sparse: Sparse) -> Tensor:
    """How many weights above zero each text has: (N,) int64."""
    counts = torch.zeros_like(sparse.offsets[1:])
    return counts.index_add_(0, owners(sparse.offsets), (sparse.weights > 0).long())


def mean_cosine(directions: Tensor) -> float:
    """The mean cosine of two different texts, from (N, D) vectors of length one; 1 where all are the same.

    >>> round(mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])), 4)
    0.3333
    """
    count = len(directions)
    return float((directions.sum(dim=0).square().sum() - directions.square().sum()) / (count * (count - 1)))


def uniformity(directions: Tensor) -> float:
    """The log of the mean of exp(-2 |x - y|^2) over pairs of texts: 0 where all are the same, lower where they spread.

    Wang and Isola, 2020, with t = 2; about -4 for directions drawn at random in many dimensions.

    >>> round(uniformity(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), 4)
    -4.0
    """
    first, second = torch.triu_indices(len(directions), len(directions), offset=1)
    cosines = (directions @ directions.T)[first, second]
    return float((4 * cosines - 4).logsumexp(dim=0)) - math.log(len(cosines))  # |x - y|^2 = 2 - 2 cos


def effective_rank(vectors: Tensor) -> float:
    """The exponential of the entropy of the singular values over their sum: how many dimensions (N, D) vectors use.

    Roy and Vetterli, 2007. Between 1, where all point one way, and the smaller of N and D.

    >>> round(effective_rank(torch.eye(4)), 4)
    4.0
    """
    wide = vectors.shape[0] < vectors.shape[1]
    products = vectors @ vectors.T if wide else vectors.T @ vectors  # far quicker than of the vectors themselves
    values = torch.linalg.eigvalsh(products.double()).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())
