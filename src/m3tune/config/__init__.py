"""Every key that a recipe may hold, with its unit and its default: one frozen config for each stage, a file for each.

Nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from m3tune.config.data import DataConfig
from m3tune.config.evaluate import EvaluateConfig
from m3tune.config.mine import MineConfig, SourceConfig
from m3tune.config.model import ModelConfig
from m3tune.config.search import SearchConfig
from m3tune.config.select import SelectConfig
from m3tune.config.table import Table
from m3tune.config.train import SetConfig, TrainConfig

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "MineConfig",
    "ModelConfig",
    "Recipe",
    "SearchConfig",
    "SelectConfig",
    "SetConfig",
    "SourceConfig",
    "TrainConfig",
]


class Recipe(Table):
    """Everything one `m3tune run` needs to know."""

    output: str = Field("runs/m3tune", min_length=1, description="The run directory.")
    data: DataConfig
    model: ModelConfig
    mine: MineConfig | None = Field(
        None, description="Mine hard negatives before training; without it, and with mine = false, none are."
    )
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    select: SelectConfig = SelectConfig()
    search: SearchConfig = SearchConfig()

    @field_validator("mine", mode="before")
    @classmethod
    def _false_is_none(cls, mine: Any) -> Any:
        return None if mine is False else mine
