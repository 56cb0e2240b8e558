"""From examples to batches, by id: who is in which batch, and what is known about each pair in it.

examples -> EpochBatches (which queries, which of their positives and negatives) -> collate -> TrainBatch

Q queries of the batch, P distinct passages of the batch
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from m3tune.config import TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.known import KnownRelevant
from m3tune.data.tokens import TokenTable
from m3tune.training.guide import Guide
from m3tune.training.sets import TrainSet
from m3tune.types import Example


def make_examples(collection: Collection, query_ids: Sequence[str], known: KnownRelevant) -> list[Example]:
    """One example a query, with all of its positives and those of its given negatives that are not known relevant."""

    def negatives(query_id: str) -> tuple[str, ...]:
        given = collection.given_negatives.get(query_id, ())
        return tuple(passage_id for passage_id in given if not known.holds(query_id, passage_id))

    return [Example(query_id, collection.positives[query_id], negatives(query_id)) for query_id in query_ids]


@dataclass(frozen=True, slots=True)
class Draw:
    """What the batch sampler asks the dataset for: one example as it looks the n-th time that it is drawn."""

    index: int
    time: int


class Examples(Dataset):
    """The examples of all sets, set after set, as they are drawn: some positives in turn, some negatives at random."""

    def __init__(self, sets: Sequence[TrainSet], examples: Mapping[str, Example], config: TrainConfig) -> None:
        self.drawn_from = [(examples[query_id], of_set) for of_set in sets for query_id in of_set.query_ids]
        self.config = config

    def __len__(self) -> int:
        return len(self.drawn_from)

    def __getitem__(self, draw: Draw) -> Example:
        """The example with this time's positives and negatives. The same draw gives the same example."""
        (query_id, positives, negatives), of_set = self.drawn_from[draw.index]
        generator = np.random.default_rng((self.config.seed, draw.time, draw.index))
        wanted_positives = self.config.positives_per_query or len(positives)
        first = draw.time * wanted_positives
        taken = dict.fromkeys(positives[(first + i) % len(positives)] for i in range(wanted_positives))
        num_negatives = min(of_set.negatives_per_query, len(negatives))
        chosen = generator.permutation(len(negatives))[:num_negatives]
        return Example(query_id, tuple(taken), tuple(negatives[i] for i in chosen))


class EpochBatches(Sampler[list[Draw]]):
    """Shuffled batches of at most `batch_queries` queries of one set, as even as they come.

    Even sizes, because a small last batch has few negatives and a loss of another scale. Each set is an endless row of
    shuffled passes over its queries, of which an epoch takes the next `draws`: at weight 1 one pass, so every query
    once. A batch is no larger than its set, so a query stands in it twice only where one pass ends and the next begins.
    """

    def __init__(self, sets: Sequence[TrainSet], config: TrainConfig) -> None:
        self.sets = sets
        self.config = config
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; called by the Trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(map(self._num_batches, self.sets))

    def __iter__(self) -> Iterator[list[Draw]]:
        starts = itertools.accumulate(map(len, self.sets), initial=0)
        batches = [
            [Draw(first + index, time) for index, time in batch]
            for number, (of_set, first) in enumerate(zip(self.sets, starts, strict=False))
            for batch in self._batches(number, of_set)
        ]
        if len(self.sets) > 1:
            generator = np.random.default_rng((self.config.seed, self.epoch, len(self.sets)))
            batches = [batches[i] for i in generator.permutation(len(batches))]
        yield from batches

    def _num_batches(self, of_set: TrainSet) -> int:
        return -(-of_set.draws // min(self.config.batch_queries, len(of_set)))

    def _batches(self, number: int, of_set: TrainSet) -> list[list[tuple[int, int]]]:
        """The batches of one set in this epoch: rows within the set, each with how often it was drawn before."""
        size, begin = len(of_set), self.epoch * of_set.draws
        passes = range(begin // size, -(-(begin + of_set.draws) // size))
        generators = (np.random.default_rng((self.config.seed, time, number)) for time in passes)
        order = np.concatenate([generator.permutation(size) for generator in generators])
        drawn = np.stack([order, np.repeat(passes, size)], axis=1)[begin % size :][: of_set.draws]  # (draws, 2)
        return [list(map(tuple, batch.tolist())) for batch in np.array_split(drawn, self._num_batches(of_set))]


@dataclass(frozen=True)
class TrainBatch:
    """One step's texts, queries first, and what is known about each (query, passage) pair.

    Queries and passages lie by length each, so that any stretch of them packs well.
    """

    texts: Sequence[np.ndarray]  # token ids, (L,) each
    num_queries: int
    positive: Tensor  # (Q, P) bool
    negative: Tensor  # (Q, P) bool
    soft: Tensor  # (Q, P) bool, neither: its teacher's score is all that is learned of the pair
    teacher: Tensor  # (Q, P) float32, not a number where no teacher scored the pair
    guide: Tensor | None = None  # (Q, P) float32, another model's scores

    @property
    def num_tokens(self) -> int:
        """T, of all texts together."""
        return sum(map(len, self.texts))

    def to(self, device: torch.device | str) -> TrainBatch:
        """The same batch with its masks on another device; texts go there part by part."""
        tables = {name: getattr(self, name) for name in ("positive", "negative", "soft", "teacher", "guide")}
        moved = {name: table.to(device, non_blocking=True) for name, table in tables.items() if table is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class Collator:
    """Turns the examples of a batch into a TrainBatch. Holds token tables and what is known of pairs, no text.

    A column is a text, whatever ids it has; a text nearly the same has a column of its own, and is as relevant.
    """

    query_tokens: TokenTable
    query_rows: Mapping[str, int]
    passage_tokens: TokenTable
    passage_rows: Mapping[str, Mapping[str, int]]  # prompt -> canonical passage -> row
    known: KnownRelevant
    passage_prompt: str
    own_passage_prompt: Mapping[str, str] = field(default_factory=dict)  # query of a symmetric set -> its passages'
    without_in_batch: frozenset[str] = frozenset()  # queries whose negatives are their own alone
    teacher_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # query -> canonical passage
    soft_groups: Mapping[str, frozenset[str]] = field(default_factory=dict)  # query -> groups that are soft labels
    guide: Guide | None = None

    def __call__(self, examples: Sequence[Example]) -> TrainBatch:
        """The batch; a passage (or copies of it) that several queries bring is encoded once."""
        examples = sorted(examples, key=lambda example: len(self._query(example)))
        token_rows = self._token_rows(examples)
        ordered = sorted(token_rows, key=lambda passage: len(self.passage_tokens[token_rows[passage]]))
        columns = {passage: i for i, passage in enumerate(ordered)}
        texts = [self._query(example) for example in examples]
        texts += [self.passage_tokens[token_rows[passage]] for passage in ordered]
        masks, teacher = self._masks(examples, columns), self._teacher_of(examples, columns)
        guide = self.guide and self.guide.scores([example.query_id for example in examples], ordered)
        return TrainBatch(texts, len(examples), *masks, teacher, guide)

    def _token_rows(self, examples: Sequence[Example]) -> dict[str, int]:
        """Every canonical passage that the examples bring, and the row of its tokens."""
        token_rows: dict[str, int] = {}
        for example in examples:
            rows = self.passage_rows[self.own_passage_prompt.get(example.query_id, self.passage_prompt)]
            for passage in self._own_passages(example):
                token_rows.setdefault(passage, rows[passage])
        return token_rows

    def _masks(self, examples: Sequence[Example], columns: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Which passages answer, which are negatives and which are soft labels: (Q, P) bool each."""
        of_group: dict[str, list[int]] = {}
        for passage, column in columns.items():
            of_group.setdefault(self.known.group(passage), []).append(column)
        in_batch = torch.tensor([example.query_id not in self.without_in_batch for example in examples])
        negative = in_batch[:, None].repeat(1, len(columns))
        brought: list[tuple[int, int]] = []  # pairs of row and column
        relevant: list[tuple[int, int]] = []
        softened: list[tuple[int, int]] = []
        answers: list[tuple[int, int]] = []
        for row, example in enumerate(examples):
            brought += [(row, columns[passage]) for passage in self._own_passages(example)]
            for pairs, groups in (
                (relevant, self.known.of_query[example.query_id]),
                (softened, self.soft_groups.get(example.query_id, ())),
            ):
                pairs += [(row, column) for group in groups for column in of_group.get(group, ())]
            answers += [(row, columns[self.known.canonical_passage[p]]) for p in example.positive_ids]
        negative[_places(brought)] = True
        negative[_places(relevant + softened)] = False
        positive, soft = torch.zeros_like(negative), torch.zeros_like(negative)
        positive[_places(answers)] = True
        soft[_places(softened)] = True
        return positive, negative, soft

    def _teacher_of(self, examples: Sequence[Example], columns: Mapping[str, int]) -> Tensor:
        """The teacher's scores, (Q, P); not a number where there is none."""
        teacher = torch.full((len(examples), len(columns)), torch.nan)
        for row, example in enumerate(examples):
            scored = self.teacher_scores.get(example.query_id, {})
            for passage in scored.keys() & columns.keys():
                teacher[row, columns[passage]] = scored[passage]
        return teacher

    def _query(self, example: Example) -> np.ndarray:
        return self.query_tokens[self.query_rows[example.query_id]]

    def _own_passages(self, example: Example) -> list[str]:
        return [self.known.canonical_passage[p] for p in (*example.positive_ids, *example.negative_ids)]


def _places(pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Pairs of row and column as an index."""
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)


class EpochLoader(DataLoader):
    """A DataLoader whose batches depend on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the batch sampler; the Trainer calls it."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
