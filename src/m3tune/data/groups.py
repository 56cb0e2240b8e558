"""Groups of queries that stand or fall together because they share a relevant passage.

Such queries must lie on the same side of a split, and they are no independent witnesses in a test of significance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def shared_passage_groups(
    query_ids: Iterable[str],
    positives: Mapping[str, Sequence[str]],
    canonical: Mapping[str, str],
    extra_keys: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Query id -> number of its connected component, numbered from 0 in the order of each one's first query.

    Two queries are connected when they share a relevant passage, copies counting as one (`canonical`: passage id -> id
    of the first copy; an absent id is its own first copy), or an entry of `extra_keys` (such as the document's name, or
    the first query with the same text). A query without either is a group of its own.
    """
    parent: dict[str, str] = {}
    first_with: dict[tuple[str, str], str] = {}
    for query_id in query_ids:
        parent.setdefault(query_id, query_id)
        keys = [("passage", canonical.get(passage_id, passage_id)) for passage_id in positives.get(query_id, ())]
        if extra_keys is not None and query_id in extra_keys:
            keys.append(("extra", extra_keys[query_id]))
        for key in keys:
            earlier = first_with.setdefault(key, query_id)
            parent[_root(parent, query_id)] = _root(parent, earlier)
    numbers: dict[str, int] = {}
    return {query_id: numbers.setdefault(_root(parent, query_id), len(numbers)) for query_id in parent}


def _root(parent: dict[str, str], query_id: str) -> str:
    """The representative of a query's component; halves the path on the way."""
    while parent[query_id] != query_id:
        parent[query_id] = parent[parent[query_id]]
        query_id = parent[query_id]
    return query_id
