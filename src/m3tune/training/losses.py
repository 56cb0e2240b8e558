"""Losses: pure functions of scores.

Q queries, P passages of the batch (each passage stands once, whoever brought it)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive(scores: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al., 2018), with any number of positives a query.

    For query i with positives P_i and negatives N_i, with s the score divided by the temperature:

        loss_i = mean over p in P_i of  -log( exp(s_ip) / (exp(s_ip) + sum over n in N_i of exp(s_in)) )

    and the result is the mean over queries. A passage that is neither positive nor negative for a query does not enter
    its sum: that is how known relevant passages are kept from being punished. With one positive each and everything
    else negative this is sentence-transformers' MultipleNegativesRankingLoss with scale 1 / temperature.

    scores: (Q, P) float; positive, negative: (Q, P) bool, disjoint, at least one positive a row. Returns a scalar.

    >>> scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> round(contrastive(scores, eye, ~eye, temperature=1.0).item(), 4)
    0.4043
    """
    logits = scores.float() / temperature
    # A finite stand-in for -inf: the gradient of logsumexp over a row of -inf is not a number.
    out_of_sum = torch.finfo(logits.dtype).min / 2
    all_negatives = logits.masked_fill(~negative, out_of_sum).logsumexp(dim=1, keepdim=True)  # (Q, 1)
    pair_losses = F.softplus(all_negatives - logits)  # -log(e^s / (e^s + e^n)) = log(1 + e^(n - s))
    per_query = (pair_losses * positive).sum(dim=1) / positive.sum(dim=1)
    return per_query.mean()
