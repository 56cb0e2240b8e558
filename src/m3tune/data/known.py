"""What the data knows of (query, passage) pairs, by id: which are relevant, and what a teacher said of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.types import MINED, Judgment, Negative


@dataclass(frozen=True)
class KnownRelevant:
    """Which passages are relevant to a query for all we know, by groups of passages that are nearly the same."""

    of_query: Mapping[str, frozenset[str]]  # query -> groups
    canonical_passage: Mapping[str, str]
    similar: Similar

    def group(self, passage_id: str) -> str:
        """The passage that stands for all that are nearly the same as this one."""
        return self.similar.passages.first_of(self.canonical_passage[passage_id])

    def holds(self, query_id: str, passage_id: str) -> bool:
        """Whether the passage is known to be relevant to the query."""
        return self.group(passage_id) in self.of_query[query_id]


def known_relevant(collection: Collection, similar: Similar) -> KnownRelevant:
    """What is relevant to each judged query: what is nearly the same as a passage judged so, for it or one like it."""
    known = KnownRelevant({}, collection.canonical_passage, similar)
    asked = {q: similar.queries.first_of(collection.canonical_query[q]) for q in collection.positives}
    by_question: dict[str, set[str]] = {}
    for query_id, passages in collection.positives.items():
        by_question.setdefault(asked[query_id], set()).update(map(known.group, passages))
    groups = {question: frozenset(passages) for question, passages in by_question.items()}
    return KnownRelevant({q: groups[question] for q, question in asked.items()}, known.canonical_passage, similar)


def teacher_scores(collection: Collection, query_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Query id -> canonical passage id -> the teacher's score, for the pairs of these queries that bring one.

    The score of a negative that is `mined` is the miner's, and no teacher's.
    """
    scores: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
    taught = (pair for pair in collection.negatives if pair.source != MINED)
    for pair in itertools.chain[Judgment | Negative](taught, collection.judgments):
        if pair.score is not None and math.isfinite(pair.score) and pair.query_id in scores:
            scores[pair.query_id][collection.canonical_passage[pair.passage_id]] = pair.score
    return scores
