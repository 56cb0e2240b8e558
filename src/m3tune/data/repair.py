"""Repairs of a collection: each is a pure function that says what it took out and why.

Everything that goes in comes out or is counted: in = out + removed, for queries, passages, judgments and negatives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from m3tune.data.collection import Collection
from m3tune.data.table import Table
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

Removed = Mapping[str, Mapping[str, int]]
"""Kind of record -> reason -> how many were taken out for it."""

KINDS = ("queries", "passages", "judgments", "negatives")


def repair(
    collection: Collection, first_of_passage: Callable[[str], str]
) -> tuple[Collection, dict[str, dict[str, int]]]:
    """Every repair below, one after the other; `first_of_passage` is as in `drop_near_positives`."""
    total: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    steps: tuple[Callable[[Collection], tuple[Collection, Removed]], ...] = (
        drop_empty_texts,
        unite_copies,
        unite_judgments,
        drop_contradictions,
        lambda repaired: drop_near_positives(repaired, first_of_passage),
        drop_queries_without_positive,
    )
    for step in steps:
        collection, removed = step(collection)
        for kind, reasons in removed.items():
            total[kind].update(reasons)
    return collection, {kind: dict(+reasons) for kind, reasons in total.items()}


def drop_empty_texts(collection: Collection) -> tuple[Collection, Removed]:
    """Without queries and passages that have neither a letter nor a digit, and without what refers to them."""
    queries = {query.id for query in collection.queries.values() if not any(map(str.isalnum, query.text))}
    passages = {passage.id for passage in collection.passages.values() if not any(map(str.isalnum, passage.full_text))}
    return _without(collection, queries, passages, "empty text")


def drop_queries_without_positive(collection: Collection) -> tuple[Collection, Removed]:
    """Without queries that have no relevant passage; all stay where none has one: something else is wrong."""
    queries = {query_id for query_id in collection.queries if query_id not in collection.positives}
    if len(queries) == len(collection.queries):
        return collection, {}
    return _without(collection, queries, (), "query without a relevant passage")


def unite_copies(collection: Collection) -> tuple[Collection, Removed]:
    """Passages with the very same title and text as one, under the first id, with the judgments and negatives of all.

    A negative that is then given twice for one query is kept once.
    """
    first = collection.canonical_passage
    passages = Table(Passage, (passage for passage in collection.passages.values() if first[passage.id] == passage.id))
    judgments = tuple(judgment._replace(passage_id=first[judgment.passage_id]) for judgment in collection.judgments)
    negatives: dict[tuple[str, str], Negative] = {}
    for negative in collection.negatives:
        moved = negative._replace(passage_id=first[negative.passage_id])
        negatives.setdefault((moved.query_id, moved.passage_id), moved)
    united = replace(collection, passages=passages, judgments=judgments, negatives=tuple(negatives.values()))
    return united, {
        "passages": {"copy of another passage": len(collection.passages) - len(passages)},
        "negatives": {"repeated": len(collection.negatives) - len(negatives)},
    }


def unite_judgments(collection: Collection) -> tuple[Collection, Removed]:
    """One judgment for each query and passage: the highest grade, with the first score."""
    best: dict[tuple[str, str], Judgment] = {}
    for judgment in collection.judgments:
        pair = (judgment.query_id, judgment.passage_id)
        earlier = best.setdefault(pair, judgment)
        best[pair] = earlier._replace(
            grade=max(earlier.grade, judgment.grade), score=judgment.score if earlier.score is None else earlier.score
        )
    removed = {"judgments": {"repeated": len(collection.judgments) - len(best)}}
    return replace(collection, judgments=tuple(best.values())), removed


def drop_contradictions(collection: Collection) -> tuple[Collection, Removed]:
    """Without negatives that are relevant to the same query, whatever the ids of their copies."""
    query_of, passage_of = collection.canonical_query, collection.canonical_passage
    relevant = {(query_of[q], passage_of[p]) for q, p, grade, _ in collection.judgments if grade > 0}
    kept = tuple(n for n in collection.negatives if (query_of[n.query_id], passage_of[n.passage_id]) not in relevant)
    return _with_negatives(collection, kept, "positive of the same query")


def drop_near_positives(collection: Collection, first_of_passage: Callable[[str], str]) -> tuple[Collection, Removed]:
    """Without negatives that are near-duplicates of a positive of the same query.

    `first_of_passage` gives the first id of a passage's group of near-duplicates, its own where it is alone.
    """
    query_of = collection.canonical_query
    relevant = {(query_of[q], first_of_passage(p)) for q, p, grade, _ in collection.judgments if grade > 0}
    kept = tuple(
        n for n in collection.negatives if (query_of[n.query_id], first_of_passage(n.passage_id)) not in relevant
    )
    return _with_negatives(collection, kept, "near-duplicate of a positive")


def balance(before: Collection, after: Collection, removed: Removed) -> dict[str, dict[str, int]]:
    """Kind -> in, out, and each reason; in = out + the reasons."""
    return {
        kind: {"in": len(getattr(before, kind)), "out": len(getattr(after, kind)), **removed.get(kind, {})}
        for kind in KINDS
    }


def _with_negatives(collection: Collection, kept: tuple[Negative, ...], reason: str) -> tuple[Collection, Removed]:
    removed = {"negatives": {reason: len(collection.negatives) - len(kept)}}
    return replace(collection, negatives=kept), removed


def _without(
    collection: Collection, queries: Container[str], passages: Container[str], reason: str
) -> tuple[Collection, Removed]:
    """Without these queries and passages and everything that names them."""
    repaired = replace(
        collection,
        queries=Table(Query, (query for query in collection.queries.values() if query.id not in queries)),
        passages=Table(Passage, (passage for passage in collection.passages.values() if passage.id not in passages)),
        judgments=tuple(j for j in collection.judgments if j.query_id not in queries and j.passage_id not in passages),
        negatives=tuple(n for n in collection.negatives if n.query_id not in queries and n.passage_id not in passages),
        splits={name: tuple(q for q in members if q not in queries) for name, members in collection.splits.items()},
        sets={name: _set_without(of_set, queries) for name, of_set in collection.sets.items()},
    )
    removed = {kind: {reason: len(getattr(collection, kind)) - len(getattr(repaired, kind))} for kind in KINDS}
    return repaired, removed


def _set_without(of_set: QuerySet, queries: Container[str]) -> QuerySet:
    return replace(of_set, query_ids=tuple(query_id for query_id in of_set.query_ids if query_id not in queries))
