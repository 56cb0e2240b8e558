"""SciFact with some of what is relevant hidden from training, so that it is known which mined negatives are false."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from m3tune.data.collection import Collection
from m3tune.types import Judgment, Passage

_SEED = 0


def smaller(collection: Collection, size: int) -> Collection:
    """The first passages after those that are relevant to the queries with several positives."""
    several = {p for passages in collection.positives.values() if len(passages) > 1 for p in passages}
    kept = set(list(dict.fromkeys([*sorted(several), *collection.passages]))[:size])
    judgments = tuple(j for j in collection.judgments if j.passage_id in kept)
    passages = {passage_id: passage for passage_id, passage in collection.passages.items() if passage_id in kept}
    return Collection(collection.queries, passages, judgments, splits=collection.splits)


def withhold(collection: Collection) -> tuple[Collection, set[tuple[str, str]]]:
    """The data without all but one judgment of its training queries, and the pairs taken out."""
    generator = random.Random(_SEED)
    gone: set[tuple[str, str]] = set()
    for query_id in collection.splits["train"]:
        positives = collection.positives.get(query_id, ())
        gone |= {(query_id, passage_id) for passage_id in generator.sample(positives, max(len(positives) - 1, 0))}
    judgments = tuple(j for j in collection.judgments if (j.query_id, j.passage_id) not in gone)
    return replace(collection, judgments=judgments), gone


def halved(collection: Collection) -> tuple[Collection, set[tuple[str, str]]]:
    """Every passage as two, and the pairs that training does not know.

    A training query keeps the half that has more of its words; all other queries keep both.
    """
    halves = {passage.id: list(_halves(passage)) for passage in collection.passages.values()}
    training = set(collection.splits["train"])
    judgments, gone = [], set()
    for judgment in collection.judgments:
        words = set(collection.queries[judgment.query_id].text.lower().split())
        of_passage = halves[judgment.passage_id]
        known = max(of_passage, key=lambda half: len(words & set(half.text.lower().split())))
        for half in of_passage:
            if half is known or judgment.query_id not in training:
                judgments.append(Judgment(judgment.query_id, half.id, judgment.grade))
            else:
                gone.add((judgment.query_id, half.id))
    passages = {half.id: half for of_passage in halves.values() for half in of_passage}
    return Collection(collection.queries, passages, tuple(judgments), splits=collection.splits), gone


def _halves(passage: Passage) -> Iterator[Passage]:
    """The first and the second half of its sentences, each with the title; one alone where there is one sentence."""
    sentences = passage.text.split(". ")
    middle = (len(sentences) + 1) // 2
    for number, part in enumerate((sentences[:middle], sentences[middle:]), start=1):
        if part:
            yield Passage(f"{passage.id}-{number}", ". ".join(part), passage.title)
