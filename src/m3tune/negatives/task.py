"""What is mined, for whom and with what; and which tables of a recipe contradict themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3tune import __version__
from m3tune.artifact import StageKey, fingerprint, stage_fingerprint
from m3tune.config import MineConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.errors import RecipeError
from m3tune.machine import Precision
from m3tune.model.weights import model_fingerprint
from m3tune.negatives.sources import check_sources
from m3tune.paths import resolve_path
from m3tune.preparation import source_fingerprint

STAGE = "mine"


@dataclass(frozen=True)
class Task:
    """For whom negatives are mined, and with what."""

    config: MineConfig
    model: ModelConfig
    collection: Collection
    similar: Similar
    query_ids: Sequence[str]
    data_fingerprint: str
    precision: Precision = "auto"
    before: Path | None = None  # what a round before mined: whom it suspected is suspected still

    @property
    def key(self) -> StageKey:
        """What the mined negatives depend on, the contents of every file that the recipe names among it."""
        config = self.config
        named = {"pool": config.pool, "verdicts": config.verdicts}
        named |= {f"run {name}": source.run for name, source in config.sources.items()}
        files = {name: source_fingerprint(resolve_path(file, name)) for name, file in named.items() if file}
        teacher = {"teacher": model_fingerprint(ModelConfig(path=config.teacher))} if config.teacher else {}
        inputs = {"data": self.data_fingerprint, "model": model_fingerprint(self.model), "m3tune": __version__}
        if self.before is not None:
            inputs["before"] = stage_fingerprint(self.before)
        settings = {
            "mine": config.model_dump(exclude={"rounds"}),
            "model": self.model.model_dump(exclude={"path"}),  # its contents are among the inputs
            "queries": fingerprint(self.query_ids),
        }
        return StageKey(STAGE, settings | {"precision": self.precision}, inputs | files | teacher)


def check_mining(config: MineConfig) -> None:
    """Raises RecipeError for a [mine] table that contradicts itself."""
    check_sources(config.sources)
    if not config.negatives_per_query + config.random_per_query:
        raise RecipeError(
            "nothing is to be mined", where="mine.negatives_per_query", fix="set it, or random_per_query, above zero"
        )
    if config.teacher is None and not (config.teacher_threshold is None and config.teacher_margin is None):
        raise RecipeError(
            "there is no teacher", where="mine.teacher", fix="name a cross-encoder, or leave its keys out"
        )
    if config.suspects == "soft" and config.teacher is None:
        raise RecipeError(
            "suspects are learned by a teacher's score, and there is no teacher",
            where="mine.suspects",
            fix='name a cross-encoder in mine.teacher, or set it to "drop"',
        )


def check_use(recipe: Recipe) -> None:
    """Raises RecipeError where a recipe mines what it would not train on."""
    if recipe.mine is None:
        return
    check_mining(recipe.mine)
    if not recipe.train.negatives_per_query:
        raise RecipeError(
            "[mine] finds negatives, and training would use none of them",
            where="train.negatives_per_query",
            fix="set it, e.g. to 2, or mine = false instead of [mine]",
        )
    if recipe.mine.suspects == "soft" and recipe.train.distill == "none":
        raise RecipeError(
            "suspects would be sampled, and nothing learned of them",
            where="train.distill",
            fix='set it, e.g. to "kl", or mine.suspects to "drop"',
        )


def task_of(
    recipe: Recipe, collection: Collection, similar: Similar, query_ids: Sequence[str], data: str, model: ModelConfig
) -> Task:
    """What a recipe's [mine] table asks for. Raises RecipeError where it contradicts itself."""
    config = recipe.mine or MineConfig()
    check_mining(config)
    if config.model is not None:
        model = ModelConfig(path=config.model, trust_remote_code=recipe.model.trust_remote_code)
    return Task(config, model, collection, similar, query_ids, data, recipe.train.precision)
