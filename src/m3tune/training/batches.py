"""From examples to batches, by id: who is in which batch, and what is known about each pair in it.

examples -> EpochBatches (which queries, which of their positives and negatives) -> collate -> TrainBatch

Q queries of the batch, P distinct passages of the batch
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from m3tune.data.collection import Collection
from m3tune.data.tokens import TokenTable
from m3tune.model.packing import Packed, pack
from m3tune.recipe import TrainConfig
from m3tune.types import Example, Judgment, Negative


def make_examples(collection: Collection, query_ids: Sequence[str]) -> list[Example]:
    """One example a query, with all of its positives and all of its given negatives."""
    return [
        Example(query_id, collection.positives[query_id], collection.given_negatives.get(query_id, ()))
        for query_id in query_ids
    ]


@dataclass(frozen=True, slots=True)
class Draw:
    """What the batch sampler asks the dataset for: one example as it looks in one epoch."""

    index: int
    epoch: int


class Examples(Dataset):
    """Examples as they look in an epoch: some of the positives in turn, some of the negatives at random."""

    def __init__(self, examples: Sequence[Example], config: TrainConfig) -> None:
        self.examples = examples
        self.config = config

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> Example:
        """The example with the positives and negatives of this epoch. The same draw gives the same example."""
        query_id, positives, negatives = self.examples[draw.index]
        generator = np.random.default_rng((self.config.seed, draw.epoch, draw.index))
        wanted_positives = self.config.positives_per_query or len(positives)
        first = draw.epoch * wanted_positives
        taken = dict.fromkeys(positives[(first + i) % len(positives)] for i in range(wanted_positives))
        num_negatives = min(self.config.negatives_per_query, len(negatives))
        chosen = generator.permutation(len(negatives))[:num_negatives]
        return Example(query_id, tuple(taken), tuple(negatives[i] for i in chosen))


class EpochBatches(Sampler[list[Draw]]):
    """Shuffled batches of at most `batch_queries` queries, as even as they come; every query once an epoch.

    Even sizes, because a small last batch has few negatives and a loss of another scale.
    """

    def __init__(self, num_examples: int, config: TrainConfig) -> None:
        self.num_examples = num_examples
        self.config = config
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_examples // self.config.batch_queries)

    def __iter__(self) -> Iterator[list[Draw]]:
        generator = np.random.default_rng((self.config.seed, self.epoch))
        order = generator.permutation(self.num_examples)
        for batch in np.array_split(order, len(self)):
            yield [Draw(int(index), self.epoch) for index in batch]


@dataclass(frozen=True)
class TrainBatch:
    """One step's texts, queries first, and what is known about each (query, passage) pair."""

    packed: Packed
    num_queries: int
    positive: Tensor  # (Q, P) bool
    negative: Tensor  # (Q, P) bool
    teacher: Tensor  # (Q, P) float32, not a number where no teacher scored the pair

    def to(self, device: torch.device | str) -> TrainBatch:
        """The same batch on another device."""
        return replace(
            self,
            packed=self.packed.to(device),
            positive=self.positive.to(device, non_blocking=True),
            negative=self.negative.to(device, non_blocking=True),
            teacher=self.teacher.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Collator:
    """Turns the examples of a batch into a TrainBatch. Holds token tables and judgments, no text."""

    query_tokens: TokenTable
    query_rows: Mapping[str, int]
    passage_tokens: TokenTable
    passage_rows: Mapping[str, int]
    relevant: Mapping[str, frozenset[str]]  # query -> canonical passages known to be relevant to it
    canonical_passage: Mapping[str, str]
    in_batch_negatives: bool
    teacher_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # query -> canonical passage

    def __call__(self, examples: Sequence[Example]) -> TrainBatch:
        """Pack the batch; a passage (or copies of it) that several queries bring is encoded once."""
        own = [self._own_passages(example) for example in examples]
        columns = {passage: i for i, passage in enumerate(dict.fromkeys(p for passages in own for p in passages))}
        positive = torch.zeros(len(examples), len(columns), dtype=torch.bool)
        negative = torch.full_like(positive, self.in_batch_negatives)
        teacher = torch.full(positive.shape, torch.nan)
        for row, (example, passages) in enumerate(zip(examples, own, strict=True)):
            negative[row, [columns[passage] for passage in passages]] = True
            known = self.relevant[example.query_id]
            negative[row, [column for passage, column in columns.items() if passage in known]] = False
            positive[row, [columns[self.canonical_passage[p]] for p in example.positive_ids]] = True
            scored = self.teacher_scores.get(example.query_id, {})
            for passage in scored.keys() & columns.keys():
                teacher[row, columns[passage]] = scored[passage]
        texts = [self.query_tokens[self.query_rows[example.query_id]] for example in examples]
        texts += [self.passage_tokens[self.passage_rows[passage]] for passage in columns]
        return TrainBatch(pack(texts), len(examples), positive, negative, teacher)

    def _own_passages(self, example: Example) -> list[str]:
        return [self.canonical_passage[p] for p in (*example.positive_ids, *example.negative_ids)]


def known_relevant(collection: Collection) -> dict[str, frozenset[str]]:
    """Query id -> canonical ids of every passage judged relevant to it, or to a query of the very same text."""
    by_text: dict[str, set[str]] = {}
    for query_id, passages in collection.positives.items():
        known = by_text.setdefault(collection.canonical_query[query_id], set())
        known.update(collection.canonical_passage[p] for p in passages)
    return {q: frozenset(by_text[collection.canonical_query[q]]) for q in collection.positives}


def teacher_scores(collection: Collection, query_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Query id -> canonical passage id -> the teacher's score, for the pairs of these queries that bring one.

    A negative's score is a teacher's where the data gave the negative; a mined one's is the miner's.
    """
    scores: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
    given = (pair for pair in collection.negatives if pair.source == "given")
    for pair in itertools.chain[Judgment | Negative](given, collection.judgments):
        if pair.score is not None and math.isfinite(pair.score) and pair.query_id in scores:
            scores[pair.query_id][collection.canonical_passage[pair.passage_id]] = pair.score
    return scores


class EpochLoader(DataLoader):
    """A DataLoader whose batches depend on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the batch sampler; the Trainer calls it."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
