"""Questions that nobody had to ask: a sentence taken out of a text is to find what is left of it.

Known-item search made by the inverse cloze task (Lee, Chang & Toutanova 2019, "Latent retrieval for weakly supervised
open domain question answering"). Every text gives two such questions from two texts that share no word of their
source, its halves: one may say which texts a model is good at, and the other, on which luck was not spent yet, how good
it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m3tune.data.chunks import count_words, sentences_of
from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.types import Judgment, Passage, Query, Split

FIRST, SECOND = "first", "second"
_FEWEST_WORDS = 5  # of a sentence that is to find its text, and of what is left to be found


class KnownItems(NamedTuple):
    """`collection` has the questions about either half as its splits `first` and `second`, in one order.

    `untouched` texts were there to draw from; of those that were looked at, `too_short` gave no question.
    """

    collection: Collection
    untouched: int
    too_short: int

    def __len__(self) -> int:
        return len(self.collection.splits[FIRST])


def known_items(
    collection: Collection, similar: Similar, split: Split, at_most: int, generator: np.random.Generator
) -> KnownItems:
    """Questions about texts that training does not touch, of `at_most` texts drawn by `generator`.

    A text is left out where it, a near copy or another part of its document is judged for, or a given negative of, a
    query that is not a development query; test queries' texts stay unseen as well. Titles are left out: both halves
    would share them.
    """
    untouched = _untouched(collection, similar, split)
    made: dict[str, tuple[_Item, _Item]] = {}
    too_short = 0
    for row in generator.permutation(len(untouched)).tolist():
        if len(made) == at_most:
            break
        halves = _halves(collection.passages[untouched[row]].text, generator)
        if halves:
            made[untouched[row]] = halves
        else:
            too_short += 1
    return KnownItems(_as_collection(made), len(untouched), too_short)


class _Item(NamedTuple):
    sentence: str
    rest: str


def _untouched(collection: Collection, similar: Similar, split: Split) -> list[str]:
    """The first of each group of near copies, where training and test touch none of it and nothing of its documents."""
    dev, first_of = set(split.dev), similar.passages.first_of
    used = {pair.passage_id for pair in collection.pairs if pair.query_id not in dev}
    groups = {first_of(passage_id) for passage_id in used}
    documents = {collection.passages[passage_id].document for passage_id in used} - {""}
    of_documents = {first_of(p.id) for p in collection.passages.values() if p.document in documents}
    return [p for p in collection.passages if first_of(p) == p and p not in groups and p not in of_documents]


def _halves(text: str, generator: np.random.Generator) -> tuple[_Item, _Item] | None:
    """A question about each half, by sentences; None where a half is too short for one."""
    sentences = [stripped for sentence in sentences_of(text) if (stripped := sentence.strip())]
    middle = len(sentences) // 2
    first, second = _item(sentences[:middle], generator), _item(sentences[middle:], generator)
    return (first, second) if first and second else None


def _item(sentences: Sequence[str], generator: np.random.Generator) -> _Item | None:
    """A sentence, drawn from those that are long enough, and the others."""
    items = [item for item in _splits_off(sentences) if min(map(count_words, item)) >= _FEWEST_WORDS]
    return items[int(generator.integers(len(items)))] if items else None


def _splits_off(sentences: Sequence[str]) -> Iterator[_Item]:
    for number, sentence in enumerate(sentences):
        yield _Item(sentence, " ".join([*sentences[:number], *sentences[number + 1 :]]))


def _as_collection(made: dict[str, tuple[_Item, _Item]]) -> Collection:
    queries: dict[str, Query] = {}
    passages: dict[str, Passage] = {}
    splits = {}
    for number, half in enumerate((FIRST, SECOND)):
        ids = {passage_id: f"{passage_id} {half}" for passage_id in made}
        queries |= {ids[p]: Query(ids[p], items[number].sentence) for p, items in made.items()}
        passages |= {ids[p]: Passage(ids[p], items[number].rest) for p, items in made.items()}
        splits[half] = tuple(ids.values())
    return Collection(queries, passages, tuple(Judgment(id_, id_) for id_ in queries), splits=splits)
