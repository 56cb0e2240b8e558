"""What the stages of a run share: the untuned model, what they depend on, where vectors lie meanwhile."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune import __version__
from m3tune.artifact import StageKey, read_json, stage_fingerprint
from m3tune.config import ModelConfig, Recipe
from m3tune.data.prepared import Prepared
from m3tune.evaluation.measure import DevCorpus
from m3tune.model.weights import model_fingerprint


def without_new_heads(model: ModelConfig) -> ModelConfig:
    """The model as it was before training: without heads that nobody has taught, dense where no other is left."""
    if not model.new_heads:
        return model
    heads = None if model.heads is None else tuple(h for h in model.heads if h not in model.new_heads) or ("dense",)
    return model.model_copy(update={"new_heads": (), "multi_dim": None, "heads": heads})


def model_key(stage: str, recipe: Recipe, prepared: Prepared, config: Mapping[str, Any]) -> StageKey:
    """The key of a stage that depends on the untuned model, the data and `config`."""
    return StageKey(
        stage,
        {"model": recipe.model.model_dump(), **config},
        {"data": prepared.fingerprint, "model": model_fingerprint(recipe.model), "m3tune": __version__},
    )


def as_input(folder: Path, stage: str) -> dict[str, str]:
    """A finished stage as the input of another."""
    return {stage: stage_fingerprint(folder / stage)}


def read_dev_corpus(folder: Path) -> DevCorpus:
    """The passages that development queries are searched among, chosen when the base was measured."""
    return tuple(read_json(folder / "base" / "dev_corpus.json"))


@contextlib.contextmanager
def vectors_place(folder: Path, name: str) -> Iterator[Path]:
    """A place for passages' vectors that do not fit in memory: gone when the stage is done, kept when it is cut off."""
    place = folder / "vectors" / name
    yield place
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or the place of another stage
        place.parent.rmdir()
