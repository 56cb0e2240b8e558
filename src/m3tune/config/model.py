"""Keys of `[model]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from m3tune.config.table import Table
from m3tune.types import Head


class ModelConfig(Table):
    """The encoder and how its vectors are made. What is left out is taken from the model's own folder."""

    path: str = Field(description="A folder, a Hub id, or package:NAME/FOLDER for a model inside a Python package.")
    pooling: Literal["cls", "mean", "last"] | None = Field(None, description="Which token states make the vector.")
    normalize: bool | None = Field(None, description="Whether vectors have length one.")
    query_prompt: str | None = Field(None, description="Text put before every query.")
    passage_prompt: str | None = Field(None, description="Text put before every passage.")
    query_max_tokens: int | None = Field(None, ge=4, description="Longer queries are cut, special tokens included.")
    passage_max_tokens: int | None = Field(None, ge=4, description="Longer passages are cut, special tokens included.")
    heads: Annotated[tuple[Head, ...], Field(min_length=1)] | None = Field(
        None, description='Which of "dense", "sparse" and "multi" to load; None: all that the folder has.'
    )
    new_heads: tuple[Literal["sparse", "multi"], ...] = Field(
        (), description="Heads to start fresh, whether or not the folder has one; training must then teach them."
    )
    multi_dim: int | None = Field(
        None, ge=1, description="Length of a new multi-vector head's vectors; None: the encoder's hidden size."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
