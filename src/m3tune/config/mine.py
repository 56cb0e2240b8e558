"""Keys of `[mine]` and of `[mine.sources.NAME]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from m3tune.config.table import Table


class SourceConfig(Table):
    """Which ranks of a source are candidates, `[mine.sources.NAME]`."""

    first: int = Field(1, ge=1, description="Candidates begin at this rank; 10 skips the nine best.")
    last: int = Field(100, ge=1, description="And end at this one.")
    run: str | None = Field(None, description="A TREC run file to take the ranking from, for a NAME of your own.")

    @model_validator(mode="after")
    def _in_order(self) -> SourceConfig:
        if self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class MineConfig(Table):
    """How hard negatives are found for the training queries, and which may not be negatives."""

    model: str | None = Field(None, description="The model that searches and scores; None: the one that is tuned.")
    head: Literal["auto", "dense", "sparse", "multi", "hybrid"] = Field(
        "auto", description="Whose scores decide: a head's or the hybrid's; auto: hybrid, or the only head."
    )
    sources: dict[str, SourceConfig] = Field(
        {"model": SourceConfig()},
        description="A table for each place that candidates come from. NAME is model (what mine.head names), dense, "
        "sparse, multi, hybrid, bm25, document (other passages of a positive's document), given (the data's own "
        "negatives), or your own with a run file.",
    )
    pool: str | None = Field(None, description="A file with a passage id a line to search in; None: the whole corpus.")
    threshold: Literal["auto", "none"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="A candidate whose score exceeds this times its lowest positive's is removed, e.g. 0.95; auto: "
        "calibrated on the data, by the teacher's scores where there is one; none: never.",
    )
    risk: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="auto removes from the score on at which there is a known positive for every 1 / risk candidates.",
    )
    margin: float | None = Field(
        None, description="A candidate whose score exceeds its lowest positive's minus this is removed; None: never."
    )
    min_score: float | None = Field(None, description="A candidate with a lower score is removed.")
    max_score: float | None = Field(None, description="A candidate with a higher score is removed.")
    same_document: bool = Field(False, description="Remove other passages of a positive's document.")
    verdicts: str | None = Field(
        None,
        description="Verdicts on pairs, JSON lines: what is relevant is removed; what a person calls not relevant is "
        "never suspected.",
    )
    promote: bool = Field(True, description="Whether what a person calls relevant there trains as a positive.")
    teacher: str | None = Field(
        None, description="A cross-encoder with one output that scores candidates and positives: a folder or Hub id."
    )
    teacher_threshold: Annotated[float, Field(gt=0)] | None = Field(
        None, description="As threshold, by the teacher's scores; None: never."
    )
    teacher_margin: float | None = Field(None, description="As margin, by the teacher's scores; None: never.")
    teacher_max_tokens: int = Field(512, ge=8, description="Longer pairs of query and passage are cut.")
    suspects: Literal["drop", "soft"] = Field(
        "drop",
        description="What becomes of candidates removed for a high score: drop, or soft: they are sampled as others "
        "are, but never negatives; only their teacher's scores are learned (needs mine.teacher and train.distill).",
    )
    negatives_per_query: int = Field(8, ge=0, description="Negatives mined for a query, random ones aside.")
    random_per_query: int = Field(0, ge=0, description="Random passages of the pool beside them.")
    sample: Literal["top", "uniform", "around"] = Field(
        "uniform",
        description="Which of the candidates that are left: the best, any, or those that score most like the lowest "
        "positive (SimANS).",
    )
    around_offset: float = Field(0.0, description="SimANS's b: around this much above the positive's score.")
    around_decay: Annotated[float, Field(gt=0)] | None = Field(
        None, description="SimANS's a; None: one over twice the variance of what candidates score below the positive."
    )
    fill: Literal["nothing", "random"] = Field(
        "nothing", description="What takes the place of negatives that are missing."
    )
    keep_given: bool = Field(
        True, description="Whether the data's own negatives train beside the mined ones, where they are no source."
    )
    seed: int = Field(0, ge=0, description="Seed of the samples; each query has its own.")
    rounds: int = Field(
        1,
        ge=1,
        description="Rounds of mining and training at most: from the second on the newly tuned model mines, and the "
        "base is tuned anew, until development data stops improving.",
    )
