"""The Collection: the only place that holds text. Everything later speaks of queries and passages by id."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Qrels, Query, QuerySet


def text_hash(text: str) -> str:
    """A content hash of a text, used as id where the data brings none and to find exact duplicates."""
    return _digest(text).hex()


def text_digest(text: str) -> int:
    """The same as a number of 64 bits."""
    return int.from_bytes(_digest(text), "big")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(frozen=True)
class Collection:
    """Queries, passages and what is known about their pairs.

    `splits` holds the splits that the data itself brings (name -> query ids), `sets` the sources that its queries come
    from; both are empty where it brings none.
    Raises DataError when a judgment or negative names an unknown id.
    """

    queries: Mapping[str, Query]
    passages: Mapping[str, Passage]
    judgments: tuple[Judgment, ...]
    negatives: tuple[Negative, ...] = ()
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, QuerySet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for query_id, passage_id, *_ in itertools.chain[Judgment | Negative](self.judgments, self.negatives):
            if query_id not in self.queries:
                raise DataError(f"a pair names the unknown query {query_id!r}", fix="add the query or drop the row")
            if passage_id not in self.passages:
                raise DataError(
                    f"query {query_id!r} refers to the unknown passage {passage_id!r}",
                    fix="add the passage to the corpus or drop the row",
                )

    @property
    def pairs(self) -> tuple[Judgment | Negative, ...]:
        """The judgments, then the negatives."""
        return (*self.judgments, *self.negatives)

    @cached_property
    def fingerprint(self) -> str:
        """A content hash over every text, pair and split, in order."""
        digest = hashlib.sha256()
        parts: tuple[Iterable[object], ...] = (
            ((q.id, q.text, q.prompt) for q in self.queries.values()),
            ((p.id, p.title, p.text, p.document) for p in self.passages.values()),
            self.judgments,
            self.negatives,
            self.splits.items(),
            self.sets.items(),
        )
        for part in parts:
            digest.update(b"\x1e")
            for record in part:
                digest.update(repr(record).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    @cached_property
    def grades(self) -> Qrels:
        """Every judgment as query id -> passage id -> grade; of repeated judgments the highest grade holds."""
        grades: dict[str, dict[str, int]] = defaultdict(dict)
        for query_id, passage_id, grade, _ in self.judgments:
            grades[query_id][passage_id] = max(grade, grades[query_id].get(passage_id, grade))
        return dict(grades)

    def qrels(self, query_ids: Iterable[str]) -> Qrels:
        """The judgments of the given queries."""
        return {query_id: self.grades[query_id] for query_id in query_ids if query_id in self.grades}

    @cached_property
    def positives(self) -> Mapping[str, tuple[str, ...]]:
        """Query id -> ids of its relevant passages (grade above zero), in the order of the data."""
        positives = {q: tuple(p for p, grade in graded.items() if grade > 0) for q, graded in self.grades.items()}
        return {q: passage_ids for q, passage_ids in positives.items() if passage_ids}

    @cached_property
    def given_negatives(self) -> Mapping[str, tuple[str, ...]]:
        """Query id -> ids of the passages given as its negatives, in the order of the data, each once."""
        by_query: dict[str, dict[str, None]] = defaultdict(dict)
        for pair in self.negatives:
            by_query[pair.query_id][pair.passage_id] = None
        return {query_id: tuple(passage_ids) for query_id, passage_ids in by_query.items()}

    @cached_property
    def canonical_passage(self) -> Mapping[str, str]:
        """Passage id -> the first passage id with the very same text, so that copies count as one."""
        return first_copies((p.id, p.full_text) for p in self.passages.values())

    @cached_property
    def canonical_query(self) -> Mapping[str, str]:
        """Query id -> the first query id with the very same prompt and text."""
        return first_copies((q.id, f"{q.prompt}\x1f{q.text}") for q in self.queries.values())


class _Copies(dict[str, str]):
    """Copy -> first copy. Only what differs is stored: nearly every text of a large corpus is its own first copy."""

    def __missing__(self, id_: str) -> str:
        return id_


def first_copies(texts: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Id -> the first id with the very same text, from (id, text) pairs; eight bytes a text while it looks."""
    ids: list[str] = []
    digests = array("Q")
    for id_, text in texts:
        ids.append(id_)
        digests.append(text_digest(text))
    values = np.frombuffer(digests, dtype=np.uint64) if ids else np.zeros(0, np.uint64)
    order = np.argsort(values, kind="stable")
    begins = np.append(True, values[order][1:] != values[order][:-1])[: len(ids)]
    firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(ids)), 0))]
    first_of = dict(zip(order[~begins].tolist(), firsts[~begins].tolist(), strict=True))
    return _Copies({ids[row]: ids[first_of[row]] for row in sorted(first_of)})
