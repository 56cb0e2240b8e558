"""Losses, and what is left out of them: pure functions of scores.

Q queries, P passages of the batch (each passage stands once, whoever brought it)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_OUT = torch.finfo(torch.float32).min / 2
"""Stands for -inf outside a sum: the gradient of logsumexp over a row of -inf is not a number."""


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
    all_negatives = logits.masked_fill(~negative, _OUT).logsumexp(dim=1, keepdim=True)  # (Q, 1)
    pair_losses = F.softplus(all_negatives - logits)  # -log(e^s / (e^s + e^n)) = log(1 + e^(n - s))
    per_query = (pair_losses * positive).sum(dim=1) / positive.sum(dim=1)
    return per_query.mean()


def distillation(
    scores: Tensor, teacher: Tensor, visible: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross entropy from the teacher's distribution over the visible passages to the student's.

        loss_i = - sum over p of softmax(teacher_i / teacher_temperature)_p * log softmax(scores_i / temperature)_p

    with both softmaxes over the visible passages of query i, and the mean over the queries that see any. Its gradient
    is that of the Kullback-Leibler divergence, from which it differs by the teacher's entropy, a constant. With the
    detached hybrid scores as teacher and all known passages visible it is M3's self-distillation (Chen et al., 2024,
    section 3.3); with a re-ranker's scores over a query's own group it is FlagEmbedding's `kl_div`.

    scores, teacher: (Q, P), the teacher's read only where visible; visible: (Q, P) bool. Returns a scalar, zero where
    no query sees a passage.
    """
    log_student = _over_visible(scores, visible, temperature).log_softmax(dim=1)
    targets = _over_visible(teacher, visible, teacher_temperature).softmax(dim=1) * visible
    return _mean_of_rows(-(targets * log_student).sum(dim=1), visible.any(dim=1))


def ordered_distillation(
    scores: Tensor, teacher: Tensor, scored: Tensor, visible: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """M3's distillation of an order: each passage the teacher scored must win against all that it puts below.

    With the scored passages of query i ranked by the teacher, best first, p_1, p_2, ... and s the student's score
    divided by the temperature:

        loss_i = sum over k of softmax(teacher_i / teacher_temperature)_k * -log( exp(s_k) / sum over n of exp(s_n) )

    where n runs over the visible passages but p_1 ... p_(k-1), so negatives that the teacher did not score count at
    each rank. The mean is over the queries with a scored passage. FlagEmbedding's `m3_kd_loss` is this where a group's
    passages lie in the teacher's order; it takes them in the order of the data.

    scores, teacher: (Q, P), the teacher's read only where scored; scored, visible: (Q, P) bool, scored within visible.
    """
    logits = _over_visible(scores, visible, temperature)
    teacher = _over_visible(teacher, scored, teacher_temperature)
    targets = teacher.softmax(dim=1) * scored
    order = teacher.argsort(dim=1, descending=True, stable=True)
    unscored = logits.masked_fill(scored, _OUT).logsumexp(dim=1, keepdim=True)  # (Q, 1)
    ranked = logits.masked_fill(~scored, _OUT).gather(1, order)
    from_here_down = torch.logaddexp(ranked.flip(1).logcumsumexp(dim=1).flip(1), unscored)
    per_query = (targets.gather(1, order) * (from_here_down - ranked)).sum(dim=1)
    return _mean_of_rows(per_query, scored.any(dim=1))


def margin_mse(
    scores: Tensor, teacher: Tensor, positive: Tensor, negative: Tensor, teacher_temperature: float
) -> Tensor:
    """MarginMSE (Hofstaetter et al., 2020): the student's margins between positives and negatives are the teacher's.

        loss_i = mean over p in P_i, n in N_i of ((s_ip - s_in) - (t_ip - t_in) / teacher_temperature)^2

    and the mean over queries that have such pairs. The student's scores are taken as they are, without a temperature.

    scores, teacher: (Q, P), the teacher's read only where a mask is set; positive, negative: (Q, P) bool, the pairs
    the teacher scored.
    """
    either = positive | negative
    error = (scores.float() - teacher.float() / teacher_temperature).masked_fill(~either, 0)
    # Margins do not change when all errors of a row shift; near zero their squares lose no digits.
    error = (error - (error.sum(dim=1) / either.sum(dim=1).clamp_min(1)).detach()[:, None]) * either
    p, n = positive.sum(dim=1), negative.sum(dim=1)
    at_p, at_n = error * positive, error * negative
    squares = n * at_p.square().sum(dim=1) + p * at_n.square().sum(dim=1) - 2 * at_p.sum(dim=1) * at_n.sum(dim=1)
    return _mean_of_rows(squares / (p * n).clamp_min(1), (p * n) > 0)


def suspects(scores: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """The negatives that are likely relevant: those that score above the query's best positive by more than `margin`.

        suspected_in = n in N_i and s_in > max over p in P_i of s_ip + margin

    Qwen3-Embedding's rule (Zhang et al., 2025), whose margin is 0.1. Of several positives the best one counts: a hard
    positive may well score below true negatives. A query without a positive suspects nobody.

    scores: (Q, P), without a temperature; positive, negative: (Q, P) bool. Returns (Q, P) bool.
    """
    best = scores.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)  # (Q, 1)
    return negative & (scores > best + margin) & positive.any(dim=1, keepdim=True)


def _over_visible(scores: Tensor, visible: Tensor, temperature: float) -> Tensor:
    """Logits with a finite stand-in for -inf where not visible: there the gradient of -inf is not a number."""
    return (scores.float() / temperature).masked_fill(~visible, _OUT)


def _mean_of_rows(per_row: Tensor, rows: Tensor) -> Tensor:
    return (per_row * rows).sum() / rows.sum().clamp_min(1)
