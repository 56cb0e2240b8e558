"""Keys of `[evaluate]`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from m3tune.config.table import Table


class EvaluateConfig(Table):
    """How models are measured and compared."""

    metrics: tuple[str, ...] = Field(
        ("nDCG@10", "RR@10", "AP@100", "Success@1", "Recall@10", "Recall@100"), description="ir-measures' names."
    )
    main_metric: str = Field("nDCG@10", description="The metric that chooses the checkpoint and decides the verdict.")
    head: Literal["auto", "dense", "sparse", "multi", "hybrid", "rrf"] = Field(
        "auto",
        description="What chooses the checkpoint and decides the verdict: a head, hybrid (all heads by weights) or rrf "
        "(by ranks). auto: hybrid, or the only head. A base model without it is measured by its dense head.",
    )
    depth: int = Field(100, ge=1, description="Passages kept for each query.")
    first_stage: Literal["all", "dense", "sparse"] = Field(
        "all", description="Heads that bring candidates for multi-vector and hybrid scores; all: dense and sparse."
    )
    candidates: int = Field(
        200, ge=1, description="Candidates of a query from each of these heads; every head scores all of them exactly."
    )
    exact_passages: int = Field(
        1000, ge=0, description="Among no more passages than this, every passage is a candidate."
    )
    tune_weights: bool = Field(
        True, description="Choose the hybrid's weights on development data; otherwise the model's or the recipe's hold."
    )
    bm25: bool = Field(True, description="Whether BM25 is measured as a baseline.")
    no_worse_margin: float = Field(0.01, ge=0, description="A loss of the main metric below this counts as none.")
    resamples: int = Field(10_000, ge=100, description="Bootstrap and randomisation resamples.")
    seed: int = Field(0, ge=0, description="Seed of the resamples.")

    def measuring(self) -> dict[str, Any]:
        """What changes a measurement, as opposed to the comparison of two."""
        names = {"metrics", "main_metric", "depth", "first_stage", "candidates", "exact_passages"}
        return self.model_dump(include=names)
