"""What a run will take, before it starts: memory and time of its training, and of encoding the corpus around it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.config import Recipe, SelectConfig
from m3tune.data.collection import Collection
from m3tune.data.prepared import Prepared
from m3tune.evaluation.select import LAST
from m3tune.memory import GIB
from m3tune.model.encoder import Encoder
from m3tune.model.weights import load_encoder
from m3tune.preparation import Say, prepare
from m3tune.retaining import HELD_OUT, most_texts, names_data
from m3tune.retrieval.encode import tokenize_passages
from m3tune.training.plan import Plan
from m3tune.training.train import plan_training
from m3tune.types import Negative

_SAMPLE_PASSAGES = 1000


@dataclass(frozen=True)
class RunPlan:
    """The plan of the training, and tokens of what is encoded before, within and after it, questions left out."""

    train: Plan
    corpus_tokens: int  # encoded by the base and by the chosen model
    dev_tokens: int  # at most, at each evaluation
    evaluations: int
    selection_tokens: int  # at most, of all merges, the checkpoint and the base

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage. Searching and reading, which take little beside encoding, are left out."""
        encode = self.corpus_tokens * self.train.forward_s
        evaluate = self.dev_tokens * self.train.forward_s * self.evaluations
        return {
            "base": encode,
            "training steps": self.train.total_s,
            "development": evaluate,
            "selection": self.selection_tokens * self.train.forward_s,
            "tuned": encode,
        }

    @property
    def gib(self) -> dict[str, float]:
        """What the peak of training is made of."""
        names = ("in_use", "gradients", "optimizer_state", "activations", "loss", "peak", "limit")
        return {name: getattr(self.train, name) / GIB for name in names}

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **asdict(self.train) | {"budget": self.train.budget._asdict()},
            "gib": self.gib,
            "seconds": self.seconds,
            "corpus_tokens": self.corpus_tokens,
            "dev_tokens": self.dev_tokens,
            "selection_tokens": self.selection_tokens,
        }


def plan_run(recipe: Recipe, say: Say) -> RunPlan:
    """Prepare the run's data, load its model and measure; the run itself goes on from the same data.

    Raises TrainingError where the recipe does not fit into memory.
    """
    prepared = prepare(recipe.data, Path(recipe.output).expanduser() / "data", say)
    encoder, why = load_encoder(recipe.model)
    say(f"{recipe.model.path}: {why}")
    collection = _with_stand_ins(prepared, recipe) if recipe.mine else prepared.collection
    train = plan_training(encoder, collection, prepared.similar, prepared.split.train, recipe.train, say)
    tokens_a_passage = _tokens_a_passage(encoder, prepared)
    passages, split = len(prepared.collection.passages), prepared.split
    in_dev = sum(len(prepared.collection.grades[query_id]) for query_id in split.dev)
    in_dev += len(split.dev) * recipe.data.dev_depth * (2 if recipe.evaluate.bm25 else 1)
    dev_tokens = round(tokens_a_passage * min(passages, in_dev))
    return RunPlan(
        train,
        corpus_tokens=round(tokens_a_passage * passages),
        dev_tokens=dev_tokens,
        evaluations=recipe.train.evaluations,
        selection_tokens=_selection_tokens(recipe.select, dev_tokens, tokens_a_passage, passages),
    )


def _selection_tokens(config: SelectConfig, dev_tokens: int, tokens_a_passage: float, passages: int) -> int:
    """Of the checkpoint and each merge on development and retention data, and of the base on the latter.

    Passages of retention data that the recipe names are taken to be as long as the corpus'. Half of a text that a
    question is held out of is encoded for each model, and the other half once more for the base, to choose the texts.
    """
    tuned = 1 + (len(config.alphas) if config.rule != LAST else 0)
    retained = 0.0
    if names_data(config):
        retained = config.retention_passages * tokens_a_passage * (tuned + 1)
    elif config.retention == HELD_OUT and config.rule != LAST:
        retained = min(most_texts(config), passages) * tokens_a_passage / 2 * (tuned + 2)
    return round(dev_tokens * tuned + retained)


def _with_stand_ins(prepared: Prepared, recipe: Recipe) -> Collection:
    """The data with passages drawn at random in the place of negatives that are still to be mined."""
    collection, generator = prepared.collection, np.random.default_rng(recipe.data.seed)
    ids, wanted = list(collection.passages), recipe.train.negatives_per_query
    drawn = generator.integers(len(ids), size=(len(prepared.split.train), wanted))
    stand_ins = tuple(
        Negative(query_id, ids[row])
        for query_id, rows in zip(prepared.split.train, drawn.tolist(), strict=True)
        for row in rows
    )
    return replace(collection, negatives=(*collection.negatives, *stand_ins))


def _tokens_a_passage(encoder: Encoder, prepared: Prepared) -> float:
    """The mean, of at most a thousand passages evenly spaced."""
    ids = list(prepared.collection.passages)
    chosen = np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLE_PASSAGES)).astype(int)
    return float(tokenize_passages(encoder, prepared.collection, [ids[row] for row in chosen]).lengths.mean())
