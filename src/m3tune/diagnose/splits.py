"""Rules about the splits that the data brings: what one side knows of another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from m3tune.data.collection import Collection
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import found, share, shown
from m3tune.types import Finding


def leaked_queries(collection: Collection, _: Context) -> Iterator[Finding]:
    """The very same question in two splits."""
    query_of = collection.canonical_query
    for first, second in itertools.combinations(collection.splits, 2):
        pairs = _meeting(collection, first, second, query_of.__getitem__)
        if pairs:
            total = len(collection.splits[second])
            yield found(
                "leaked-query",
                "error",
                f"splits {first}, {second}",
                f"{share(len(pairs), total)} queries of {second} are in {first} too",
                f"remove them from {first}: what {second} measures is otherwise partly learned by heart",
                (_both(collection, *pair) for pair in pairs.items()),
                count=len(pairs),
                of=total,
            )


def near_leaked_queries(collection: Collection, context: Context) -> Iterator[Finding]:
    """Nearly the same question in two splits."""
    query_of = collection.canonical_query
    for first, second in itertools.combinations(collection.splits, 2):
        exact = _meeting(collection, first, second, query_of.__getitem__)
        near = _meeting(collection, first, second, lambda q: context.near_queries.first_of(query_of[q]))
        pairs = {there: here for there, here in near.items() if there not in exact}
        if pairs:
            total = len(collection.splits[second])
            yield found(
                "near-leaked-query",
                "warning",
                f"splits {first}, {second}",
                f"{share(len(pairs), total)} queries of {second} nearly repeat one of {first}",
                f"remove the likes of them from {first}, or say in the result that they are shared",
                (_both(collection, *pair) for pair in pairs.items()),
                count=len(pairs),
                of=total,
            )


def shared_passages(collection: Collection, context: Context) -> Iterator[Finding]:
    """Relevant passages that two splits have in common: legitimate for new questions over the same corpus."""
    query_of, passage_of = collection.canonical_query, collection.canonical_passage
    first_of = context.near_passages.first_of
    relevant = {
        split: {q: {first_of(passage_of[p]) for p in collection.positives.get(q, ())} for q in members}
        for split, members in collection.splits.items()
    }
    for first, second in itertools.combinations(collection.splits, 2):
        seen = set[str]().union(*relevant[first].values())
        leaked = {query_of[query_id] for query_id in relevant[first]}  # these have a finding of their own
        sharing = [q for q, passages in relevant[second].items() if passages & seen and query_of[q] not in leaked]
        if sharing:
            total = len(relevant[second])
            yield found(
                "shared-passages",
                "note",
                f"splits {first}, {second}",
                f"{share(len(sharing), total)} queries of {second} have a relevant passage, or nearly it, of {first}",
                f"nothing where {second} asks new questions over the same corpus, but say so with the result; to "
                "measure new documents, split again by passage",
                (shown(collection.queries[query_id]) for query_id in sharing),
                count=len(sharing),
                of=total,
            )


def _meeting(collection: Collection, first: str, second: str, key: Callable[[str], str]) -> Mapping[str, str]:
    """Query of the second split -> a query of the first with the same key."""
    known: dict[str, str] = {}
    for query_id in collection.splits[first]:
        known.setdefault(key(query_id), query_id)
    keys = ((query_id, key(query_id)) for query_id in collection.splits[second])
    return {query_id: known[of_query] for query_id, of_query in keys if of_query in known}


def _both(collection: Collection, here: str, there: str) -> str:
    text = shown(collection.queries[here])
    return text if here == there else f"{text} | {shown(collection.queries[there])}"
