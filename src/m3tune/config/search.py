"""Keys of `[search]`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from m3tune.config.table import Positive, Range, Table, Weight

Setting = Literal["learning_rate", "temperature", "epochs", "negatives_per_query", "false_negative_margin"]


class SearchConfig(Table):
    """What `m3tune run --search` tries on development data before it trains; the recipe's own values always."""

    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Search for so long; --search 20m sets it. None: train with the recipe's own values."
    )
    settings: Annotated[tuple[Setting, ...], Field(min_length=1)] = Field(
        get_args(Setting),
        description="Keys of [train] that are searched. epochs stays where train.max_steps is set, negatives_per_query "
        "where there are no negatives.",
    )
    learning_rate: Range = Field(
        (0.25, 4.0), description="Lowest and highest, as factors of what auto means for the model."
    )
    temperature: Range = Field((0.01, 0.1), description="Lowest and highest.")
    epochs: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (1.0, 2.0, 3.0, 5.0), description="What is tried."
    )
    negatives_per_query: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        (1, 2, 4, 8), description="What is tried, of it what the data has."
    )
    false_negative_margin: Annotated[tuple[Literal["never"] | Weight, ...], Field(min_length=1)] = Field(
        ("never", 0.05, 0.1, 0.2), description="What is tried; never leaves no negative out."
    )
    trials: int | None = Field(None, ge=1, description="At most so many trainings, the first with the recipe's values.")
    seed: int = Field(0, ge=0, description="Seed of the values that are tried.")

    @model_validator(mode="after")
    def _low_before_high(self) -> SearchConfig:
        for name in ("learning_rate", "temperature"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name}: {low:g} is not below {high:g}")
        return self
