"""What the figures of a line of the training log say of the model's health. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.types import Finding

MOST_EMPTY = 0.1  # share of sparse vectors
MOST_ALIKE = 0.99  # mean cosine of different passages; encoders that learn well from scratch pass 0.98 for some steps
LEAST_RANK = 0.1  # effective rank over the most that is possible


def health_findings(line: Mapping[str, Any]) -> list[Finding]:
    """A warning for each illness that a line shows; a line without the figures, or a healthy one, shows none."""
    where = f"train, step {line['step']}" if "step" in line else "train"
    empty, cosine, rank = (line.get(name, healthy) for name, healthy in _HEALTHY.items())
    findings = []
    if empty > MOST_EMPTY:
        findings.append(
            Finding(
                "sparse-vectors-die",
                "warning",
                where,
                f"{empty:.0%} of the sparse vectors of a batch are empty: words cannot find these texts, and no "
                "gradient brings them back",
                "lower train.head_learning_rate or the sparse loss's weight (train.loss_weights), or start the head "
                "again with model.new_heads",
                evidence={"sparse_empty": empty},
            )
        )
    if cosine > MOST_ALIKE or rank < LEAST_RANK:
        how = (
            f"their mean cosine is {cosine:.3f}"
            if cosine > MOST_ALIKE
            else f"they use {rank:.0%} of the dimensions they could"
        )
        findings.append(
            Finding(
                "dense-vectors-collapse",
                "warning",
                where,
                f"the dense vectors of a batch's passages hardly differ: {how}",
                "lower train.learning_rate, raise train.batch_queries, and look at whether the loss still falls",
                evidence={"dense_cosine": cosine, "dense_rank_share": rank},
            )
        )
    return findings


_HEALTHY = {"sparse_empty": 0.0, "dense_cosine": 0.0, "dense_rank_share": 1.0}
