"""Keys of `[select]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from m3tune.config.table import Share, Table


class SelectConfig(Table):
    """What is chosen between the base model, the best checkpoint and merges of the two."""

    rule: Literal["guarded", "last"] = Field(
        "guarded",
        description="guarded: the nearest to the base that beats it on development data, and the base where that turns "
        "out worse on the test. last: the last step of training, whatever it is worth, as other tools deliver it.",
    )
    alphas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.3, 0.5, 0.7, 0.85),
        description="Merges base + alpha (checkpoint - base) that are tried beside the checkpoint itself; [] for none.",
    )
    noise: float = Field(
        0.32,
        gt=0,
        le=1,
        description="A difference on development data is more than noise where its two-sided p is at most this; 0.32 "
        "is one standard error, 1 takes any difference.",
    )
    retention: str = Field(
        "auto",
        description="Data that the chosen model must not get worse on, in any format; auto: questions held out of the "
        "corpus, about texts that training does not touch and the base is good at; none: not measured.",
    )
    retention_tolerance: Share = Field(0.02, description="Share of the base's metric there that may be lost.")
    retention_queries: int = Field(200, ge=1, description="At most this many of its queries.")
    retention_passages: int = Field(
        5000, ge=1, description="At most this many of its passages, those judged for the queries always among them."
    )
