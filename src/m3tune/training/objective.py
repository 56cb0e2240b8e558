"""What is minimised: which losses of which heads, and how they are weighed. Data, and one function of it.

Q queries, P passages of the batch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from m3tune.config import TrainConfig
from m3tune.scoring import dense_scores, head_scores, hybrid
from m3tune.training.losses import contrastive, distillation, margin_mse, ordered_distillation, suspects
from m3tune.types import HYBRID, Head
from m3tune.vectors import Embeddings

Distillation = Literal["none", "kl", "ordered", "margin"]


class Known(NamedTuple):
    """What is known of each (query, passage) pair of a batch."""

    positive: Tensor  # (Q, P) bool
    negative: Tensor  # (Q, P) bool
    soft: Tensor  # (Q, P) bool, of which only the teacher's score is learned; the three are disjoint
    teacher: Tensor  # (Q, P) float, not a number where the teacher said nothing
    guide: Tensor | None = None  # (Q, P) float, another model's scores, which then say who is suspected


class Outcome(NamedTuple):
    """What `unified` computes of a batch; all but the loss detached."""

    loss: Tensor
    parts: dict[str, Tensor]  # loss of each head and of the hybrid, and of self-distillation
    scores: dict[str, Tensor]  # (Q, P) of each head and of the hybrid
    known: Known  # without the suspects
    share_suspected: Tensor | None  # of the negatives; None where nobody is suspected


@dataclass(frozen=True)
class Objective:
    """Weights and temperatures of a loss over any heads; see `unified` for what it computes.

    With three heads and the defaults it is M3's: (L_dense + 0.1 L_sparse + L_multi + L_hybrid) / 4.
    """

    temperature: float
    loss_weights: Mapping[str, float]  # of dense, sparse, multi and the hybrid
    hybrid_weights: Mapping[Head, float]
    distill: Distillation = "none"
    distill_weight: float = 1.0
    teacher_temperature: float = 1.0
    matryoshka_dims: tuple[int, ...] = ()
    false_negative_margin: float | None = None
    heads_apart: bool = False  # the hybrid teaches the other heads to add to dense, and dense nothing; see `_weighed`

    @classmethod
    def of(cls, config: TrainConfig) -> Objective:
        """The objective that a recipe describes."""
        dense, sparse, multi, mixed = config.loss_weights
        return cls(
            temperature=config.temperature,
            loss_weights={"dense": dense, "sparse": sparse, "multi": multi, HYBRID: mixed},
            hybrid_weights=dict(zip(("dense", "sparse", "multi"), config.hybrid_weights, strict=True)),
            distill=config.distill,
            distill_weight=config.distill_weight,
            teacher_temperature=config.teacher_temperature,
            matryoshka_dims=config.matryoshka_dims,
            false_negative_margin=config.false_negative_margin,
            heads_apart=config.heads_apart,
        )

    def heads(self, present: Sequence[Head]) -> tuple[Head, ...]:
        """Those of the heads present that the loss looks at."""
        mixed = self.mixed(present)
        return tuple(head for head in present if self.loss_weights[head] or head in mixed)

    def mixed(self, present: Sequence[Head]) -> tuple[Head, ...]:
        """The heads of the hybrid: none where fewer than two have a weight."""
        weighed = tuple(head for head in present if self.hybrid_weights[head])
        return weighed if self.loss_weights[HYBRID] and len(weighed) > 1 else ()


def unified(
    objective: Objective, queries: Embeddings, passages: Embeddings, known: Known, *, self_distill: bool
) -> Outcome:
    """The loss of a batch, and what it was made of.

    The loss of each head and of the hybrid (the weighted sum of the heads' scores) is times its weight, and the sum is
    divided by how many of them there are; with heads apart, dense is not in that mean but added to it. Heads that are
    not there or weigh nothing do not take part. Where `self_distill`, the same sum over heads, but of the cross entropy
    from the detached hybrid's distribution, is averaged with it. M3 (Chen et al., 2024, section 3.3), with the weights
    of FlagEmbedding 1.4.2. With a margin, suspected negatives are left out of all of it, for all heads: by the guide's
    scores (GISTEmbed, Solatorio, 2024), or without one by the hybrid's over the sum of its weights, or where there is
    no hybrid by the first head that has a loss.
    """
    scores = head_scores(queries, passages)
    mixed = objective.mixed(tuple(scores))
    compared: dict[str, Tensor] = {head: score for head, score in scores.items() if objective.loss_weights[head]}
    if mixed:
        apart = objective.heads_apart
        of_heads = {head: scores[head].detach() if apart and head == "dense" else scores[head] for head in mixed}
        compared[HYBRID] = hybrid(of_heads, objective.hybrid_weights)
    share_suspected = None
    if objective.false_negative_margin is not None:
        deciding = _own_scores(objective, compared, mixed) if known.guide is None else known.guide
        known, share_suspected = without_suspects(deciding.detach(), known, objective.false_negative_margin)
    parts = {name: compared_loss(objective, score, known) for name, score in compared.items()}
    if "dense" in parts and objective.matryoshka_dims:
        short = matryoshka_scores(queries.dense, passages.dense, objective.matryoshka_dims)  # type: ignore[arg-type]
        losses = [parts["dense"], *(compared_loss(objective, score, known) for score in short)]
        parts["dense"] = torch.stack(losses).mean()
    total = _weighed(objective, parts)
    if self_distill and mixed:
        teacher, temperature = compared[HYBRID].detach(), objective.temperature
        visible = known.positive | known.negative
        learned = {
            head: distillation(score, teacher, visible, temperature, temperature)
            for head, score in compared.items()
            if head != HYBRID
        }
        total = (total + _weighed(objective, learned)) / 2
        parts |= {f"self_{head}": loss for head, loss in learned.items()}
    detached = {name: loss.detach() for name, loss in parts.items()}
    return Outcome(total, detached, {name: score.detach() for name, score in compared.items()}, known, share_suspected)


def without_suspects(scores: Tensor, known: Known, margin: float) -> tuple[Known, Tensor]:
    """`known` without the negatives that `suspects` finds in these (Q, P) scores, and their share of the negatives.

    A pair that a teacher scored is not suspected: how relevant it is, is known.
    """
    found = suspects(scores, known.positive, known.negative, margin) & known.teacher.isnan()
    share = found.sum() / known.negative.sum().clamp_min(1)
    return known._replace(negative=known.negative & ~found), share


def compared_loss(objective: Objective, scores: Tensor, known: Known) -> Tensor:
    """The contrastive loss of one (Q, P) table of scores, with the teacher's where it has one.

    `kl` and `margin` are added; `ordered`, which already sets each passage against the others, replaces the contrastive
    loss of the queries that the teacher scored. Soft labels take part in the teacher's losses alone.
    """
    positive, negative, soft, teacher, _ = known
    scored = (positive | negative | soft) & ~teacher.isnan()
    visible = positive | negative | scored
    if objective.distill == "none" or not scored.any():
        return contrastive(scores, positive, negative, objective.temperature)
    if objective.distill == "ordered":
        rows = scored.any(dim=1)
        taught = ordered_distillation(
            scores, teacher, scored, visible, objective.temperature, objective.teacher_temperature
        )
        share = rows.float().mean()
        if rows.all():
            return objective.distill_weight * taught
        rest = contrastive(scores[~rows], positive[~rows], negative[~rows], objective.temperature)
        return objective.distill_weight * share * taught + (1 - share) * rest
    if objective.distill == "kl":
        taught = distillation(scores, teacher, scored, objective.temperature, objective.teacher_temperature)
    else:
        taught = margin_mse(scores, teacher, scored & positive, scored & ~positive, objective.teacher_temperature)
    return contrastive(scores, positive, negative, objective.temperature) + objective.distill_weight * taught


def matryoshka_scores(queries: Tensor, passages: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """Scores by the first dimensions alone, brought to length one: (Q, D), (P, D) -> a (Q, P) for each of `dims`.

    Kusupati et al., 2022.
    """
    return [dense_scores(*(F.normalize(vectors[:, :dim], dim=1) for vectors in (queries, passages))) for dim in dims]


def _own_scores(objective: Objective, compared: Mapping[str, Tensor], mixed: Sequence[Head]) -> Tensor:
    """The scores by which the model itself suspects negatives, on the scale of one head.

    So a margin means the same for a hybrid.
    """
    weight = sum(objective.hybrid_weights[head] for head in mixed)
    return compared[HYBRID] / weight if mixed else next(iter(compared.values()))


def _weighed(objective: Objective, parts: Mapping[str, Tensor]) -> Tensor:
    """The mean of the weighed losses; with heads apart that of dense stands beside the mean of the others.

    So the encoder's gradient is as large as where dense is trained alone, and clipping does the same to it.
    """
    weighed = {name: objective.loss_weights[name] * loss for name, loss in parts.items()}
    alone = weighed.pop("dense") if objective.heads_apart and "dense" in weighed and len(weighed) > 1 else None
    mean = torch.stack(list(weighed.values())).mean()
    return mean if alone is None else alone + mean
