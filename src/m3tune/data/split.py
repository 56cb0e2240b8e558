"""Train, dev and test without leaks: queries that share a relevant passage, or a text, go to one side together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from m3tune.data.collection import Collection
from m3tune.data.groups import connected_groups
from m3tune.errors import DataError, listed
from m3tune.recipe import DataConfig
from m3tune.types import Protocol, Split

_SIDES = ("train", "dev", "test")
_FEWEST_GROUPS = 3  # one for each side
_TOLERANCE = 0.5  # groups stay whole, so a carved side may miss its target by this share of it

_SHARED_BY_CHANCE = 0.05  # share of test queries with a passage of train below which the test is of new documents

_Sides = dict[str, set[str]]


def split_queries(collection: Collection, config: DataConfig) -> tuple[Split, dict[str, int]]:
    """The split of the queries that have a relevant passage, and counts for the manifest.

    Splits that the data brings are kept; a query in several of them belongs to test before dev before train. A missing
    test or dev split is carved from train by whole groups, seeded: queries of the same text, and under the protocol
    "new documents" queries that share a relevant passage; groups that reach into a split that the data brings are taken
    last. "auto" is "new documents", unless the given test split shares passages with the given train split: development
    queries have to be like the test queries that they stand for. A share of 0 carves nothing.

    The counts balance: queries = train + dev + test + without_positive + in_no_given_split. `A_also_in_B` counts
    queries taken out of the given split A; `A_sharing_a_passage_with_B` queries of A whose group reaches into B.

    Raises DataError when a given split is unknown or has no query with a relevant passage, and when there are too few
    groups to carve from, or one is too large.
    """
    judged = [query_id for query_id in collection.queries if query_id in collection.positives]
    sides, counts = _given_sides(collection, judged)
    documents = connected_groups(
        {
            query_id: [
                ("query", collection.canonical_query[query_id]),
                *(collection.canonical_passage[passage_id] for passage_id in collection.positives[query_id]),
            ]
            for query_id in judged
        }
    )
    protocol = _protocol_of(collection, sides, config)
    group_of = documents if protocol == "new documents" else _same_text_groups(collection, judged)
    shares = {"test": config.test, "dev": config.dev}
    missing = [side for side, share in shares.items() if share > 0 and side not in collection.splits]
    if missing:
        _check_enough_groups(sides["train"], group_of, missing)
    generator = np.random.default_rng(config.seed)
    for index, side in enumerate(missing):
        base = len(judged) if side == "test" else len(sides["train"])
        ceiling = config.max_dev_queries if side == "dev" else base
        target = min(max(1, round(shares[side] * base)), ceiling)
        # Train and every side still to carve need a group each.
        _carve(side, sides, group_of, target, ceiling, len(missing) - index, generator)

    counts |= _sharing_counts(sides, documents)
    counts |= {side: len(sides[side]) for side in _SIDES}
    train, dev, test = (tuple(query_id for query_id in judged if query_id in sides[side]) for side in _SIDES)
    return Split(train, dev, test, protocol), counts


def _protocol_of(collection: Collection, sides: _Sides, config: DataConfig) -> Protocol:
    """The protocol of the recipe, or for auto that of the splits the data brings."""
    if config.protocol != "auto":
        return config.protocol
    seen = {collection.canonical_passage[p] for query_id in sides["train"] for p in collection.positives[query_id]}
    shared = sum(
        any(collection.canonical_passage[p] in seen for p in collection.positives[query_id])
        for query_id in sides["test"]
    )
    return "new questions" if shared > _SHARED_BY_CHANCE * len(sides["test"]) else "new documents"


def _same_text_groups(collection: Collection, query_ids: list[str]) -> dict[str, int]:
    return connected_groups({query_id: [collection.canonical_query[query_id]] for query_id in query_ids})


def queries_of(collection: Collection, split: str) -> tuple[str, ...]:
    """The queries with a relevant passage in a split that the data brings, or in `all` of it. Raises DataError."""
    if split != "all" and split not in collection.splits:
        fix = (
            f"it brings {listed(collection.splits)}" if collection.splits else "it brings no splits; leave --split out"
        )
        raise DataError(f"the data has no split {split!r}", where="--split", fix=fix)
    members = collection.queries if split == "all" else collection.splits[split]
    judged = tuple(query_id for query_id in members if query_id in collection.positives)
    if not judged:
        raise DataError("no query has a relevant passage", where=f"split {split}", fix="add judgments")
    return judged


def _given_sides(collection: Collection, judged: list[str]) -> tuple[_Sides, dict[str, int]]:
    """The splits of the data with each query in one of them at most; without a train split, train is all the rest."""
    for name in collection.splits:
        if name not in _SIDES:
            raise DataError(f"the split {name!r} is unknown", where="data", fix=f"known splits: {listed(_SIDES)}")
    given: _Sides = {name: set(query_ids) & set(judged) for name, query_ids in collection.splits.items()}
    for name, members in given.items():
        if not members:
            raise DataError(
                f"the {name} split of the data has no query with a relevant passage",
                where=f"data.{name}",
                fix="judge at least one passage of its queries as relevant, or remove the split",
            )
    test, dev = given.get("test", set()), given.get("dev", set())
    train = given.get("train", set(judged) - test - dev)
    counts = {
        "queries": len(collection.queries),
        "without_positive": len(collection.queries) - len(judged),
        "in_no_given_split": len(set(judged) - train - dev - test),
        "train_also_in_test": len(train & test),
        "train_also_in_dev": len(train & (dev - test)),
        "dev_also_in_test": len(dev & test),
    }
    return {"train": train - dev - test, "dev": dev - test, "test": test}, counts


def _check_enough_groups(train: AbstractSet[str], group_of: Mapping[str, int], missing: list[str]) -> None:
    groups = len({group_of[query_id] for query_id in train})
    if groups < _FEWEST_GROUPS:
        raise DataError(
            f"too little to carve {' and '.join(missing)} from: groups by shared relevant passages: {groups}, "
            f"queries: {len(train)}",
            where=f"data.{missing[0]}",
            fix=f"bring at least {_FEWEST_GROUPS} groups, or a {missing[0]} split of your own, or set it to 0",
        )


def _carve(
    side: str,
    sides: _Sides,
    group_of: Mapping[str, int],
    target: int,
    ceiling: int,
    spared_groups: int,
    generator: np.random.Generator,
) -> None:
    """Move whole groups from train to `side` until it has about `target` queries, never more than `ceiling`."""
    sizes = Counter(group_of[query_id] for query_id in sides["train"])
    at_most = min(int(target * (1 + _TOLERANCE)), ceiling)
    reaching = {group_of[query_id] for other in ("dev", "test") for query_id in sides[other]}
    shuffled = generator.permutation(sorted(sizes)).tolist()
    carved: set[int] = set()
    taken = 0
    for group in sorted(shuffled, key=reaching.__contains__):
        if taken >= target or len(carved) == len(sizes) - spared_groups:
            break
        if taken + sizes[group] <= at_most:
            carved.add(group)
            taken += sizes[group]
    if taken < target * (1 - _TOLERANCE):
        raise DataError(
            f"no {side} split of about {target} queries can be carved without a leak: {max(sizes.values())} of "
            f"{sizes.total()} queries hang together in one group, because they share relevant passages",
            where=f"data.{side}",
            fix=f"bring a {side} split of your own, or set data.{side} to 0",
        )
    sides[side] = {query_id for query_id in sides["train"] if group_of[query_id] in carved}
    sides["train"] -= sides[side]


def _sharing_counts(sides: _Sides, group_of: Mapping[str, int]) -> dict[str, int]:
    """How many queries of one side belong to a group that reaches into another, which only given splits can cause."""
    groups = {side: {group_of[query_id] for query_id in members} for side, members in sides.items()}
    return {
        f"{side}_sharing_a_passage_with_{other}": sum(group_of[query_id] in groups[other] for query_id in sides[side])
        for side, other in (("train", "test"), ("train", "dev"), ("dev", "test"))
    }
