"""Groups of queries that stand or fall together because they share something, such as a relevant passage.

Such queries must lie on the same side of a split, and they are no independent witnesses in a test of significance.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping


def connected_groups(keys: Mapping[str, Iterable[Hashable]]) -> dict[str, int]:
    """Query id -> number of its connected component, numbered from 0 in the order of each one's first query.

    Two queries are connected when they share a key. A query without keys is a group of its own.

    >>> connected_groups({"a": ["p1"], "b": [], "c": ["p1", "p2"], "d": ["p2"]})
    {'a': 0, 'b': 1, 'c': 0, 'd': 0}
    """
    parent = {query_id: query_id for query_id in keys}
    first_with: dict[Hashable, str] = {}
    for query_id, of_query in keys.items():
        for key in of_query:
            parent[_root(parent, query_id)] = _root(parent, first_with.setdefault(key, query_id))
    numbers: dict[str, int] = {}
    return {query_id: numbers.setdefault(_root(parent, query_id), len(numbers)) for query_id in parent}


def _root(parent: dict[str, str], query_id: str) -> str:
    """The representative of a query's component; halves the path on the way."""
    while parent[query_id] != query_id:
        parent[query_id] = parent[parent[query_id]]
        query_id = parent[query_id]
    return query_id
