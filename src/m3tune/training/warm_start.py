"""A start for a new sparse head: weigh each token by how rare its word is, as far as its state tells.

T tokens, H hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from m3tune.data.tokens import TokenTable
from m3tune.machine import autocast
from m3tune.model.backbone import run_packed
from m3tune.model.encoder import Encoder
from m3tune.model.packing import pack, token_budget_batches

_BUDGET_TOKENS = 4096
_FIT_TOKENS = 65_536
_RIDGE = 1e-3


@torch.no_grad()
def warm_start_sparse(encoder: Encoder, passages: TokenTable, dtype: torch.dtype) -> float:
    """Set the sparse head to the ridge regression of token states to inverse document frequency; returns its R squared.

    The frequency is BM25's, log(1 + (N - n + 0.5) / (n + 0.5)), over all of `passages`, scaled so that a passage's
    score with itself is one on average, which is the scale of the dense score. Fitted on about 65,536 tokens, every
    n-th passage of the table. An untrained head weighs tokens at random, and half of them zero, where no gradient
    reaches; docs/log.md has what the start is worth.
    """
    targets = _inverse_document_frequency(passages, encoder.weightless.cpu().numpy())
    every = -(-passages.num_tokens // _FIT_TOKENS)
    chosen = np.arange(0, len(passages), every)
    hidden = encoder.dimension
    moments = torch.zeros(hidden + 2, hidden + 2, dtype=torch.float64)  # of states, one and target
    was_training = encoder.training
    encoder.eval()
    with autocast(encoder.device, dtype):
        for batch in token_budget_batches(passages.lengths[chosen], _BUDGET_TOKENS):
            moments += _moments(encoder, [passages[i] for i in chosen[batch]], targets)
    encoder.train(was_training)
    inputs, towards = moments[:-1, :-1], moments[:-1, -1]
    count = moments[-2, -2]
    ridge = torch.full((hidden + 1,), _RIDGE * float(inputs.diagonal()[:-1].mean()), dtype=torch.float64)
    ridge[-1] = 0  # the bias is not drawn to zero
    solution = torch.linalg.solve(inputs + ridge.diag(), towards)
    linear = encoder.linear("sparse")
    linear.weight.copy_(solution[None, :-1])
    linear.bias.copy_(solution[-1:])
    spread = moments[-1, -1] - moments[-1, -2] ** 2 / count
    unexplained = moments[-1, -1] - 2 * solution @ towards + solution @ inputs @ solution
    return 1 - float(unexplained / spread.clamp_min(1e-12))


def _inverse_document_frequency(passages: TokenTable, weightless: np.ndarray) -> Tensor:
    """(largest id + 1,) float64 targets, zero for ids without a weight."""
    texts = np.repeat(np.arange(len(passages)), passages.lengths)
    ids = passages.flat(0, len(passages)).astype(np.int64)
    distinct = np.unique(np.stack([texts, ids]), axis=1)[1]  # ids, once a text each
    distinct = distinct[~np.isin(distinct, weightless)]
    frequency = np.bincount(distinct, minlength=int(max(ids.max(), weightless.max())) + 1)
    idf = np.log1p((len(passages) - frequency + 0.5) / (frequency + 0.5))
    idf[weightless] = 0
    self_scores = np.square(idf[distinct]).sum() / len(passages)
    return torch.from_numpy(idf / np.sqrt(self_scores))


def _moments(encoder: Encoder, texts: Sequence[np.ndarray], targets: Tensor) -> Tensor:
    """The outer products of (state, 1, target) summed over the tokens that get a weight: (H + 2, H + 2) float64."""
    packed = pack(texts)
    states = run_packed(encoder.backbone, packed.to(encoder.device)).float().cpu()
    kept = torch.isin(packed.input_ids, encoder.weightless.cpu(), invert=True)
    target = targets[packed.input_ids[kept]]
    rows = torch.cat([states[kept].double(), torch.ones(len(target), 1), target[:, None]], dim=1)
    return rows.T @ rows
