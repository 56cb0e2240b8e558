"""Train, dev and test without leaks: queries that share a relevant passage, or a text, go to one side together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from m3tune.config import DataConfig
from m3tune.data.balance import features_of
from m3tune.data.carve import carve
from m3tune.data.collection import Collection
from m3tune.data.documents import NEXT
from m3tune.data.groups import connected_groups
from m3tune.data.similar import Similar
from m3tune.errors import DataError, listed
from m3tune.types import SIDE_PAIRS, SIDES, Protocol, Split

_FEWEST_GROUPS = 3  # one for each side
_SHARED_BY_CHANCE = 0.05  # share of test queries with a passage of train below which the test is of new documents
# What queries of one group share, in words.
_SHARED: Mapping[Protocol, str] = {
    "new documents": "relevant passages",
    "new questions": "a text that is nearly the same",
}

_Sides = dict[str, set[str]]


def split_queries(collection: Collection, similar: Similar, config: DataConfig) -> tuple[Split, dict[str, int]]:
    """The split of the queries that have a relevant passage, and counts for the manifest.

    Splits that the data brings are kept; a query in several of them belongs to test before dev before train. A missing
    test or dev split is carved from train by whole groups, seeded (see `carve`): queries of nearly the same text, and
    under the protocol "new documents" queries whose relevant passages are the same, nearly the same or of one document;
    groups that reach into a split that the data brings are taken last. "auto" is "new documents", unless the given test
    split shares passages with the given train split: development queries have to be like the test queries that they
    stand for. A share of 0 carves nothing.

    The counts balance: queries = train + dev + test + without_positive + in_no_given_split. `A_also_in_B` counts
    queries taken out of the given split A; `A_sharing_a_passage_with_B` queries of A whose group reaches into B, and
    `A_with_a_query_of_B` queries of A of which B has nearly the same.

    Raises DataError when a given split is unknown or has no query with a relevant passage, and when there are too few
    groups to carve from, or one is too large.
    """
    judged = [query_id for query_id in collection.queries if query_id in collection.positives]
    if not judged:
        raise DataError(
            f"no query has a relevant passage ({len(collection.queries):,} queries, {len(collection.passages):,} "
            "passages)",
            where="data",
            fix=NEXT
            if not collection.queries
            else "give each query the passages that answer it, with a grade above zero",
        )
    sides, counts = _given_sides(collection, judged)
    documents = connected_groups({q: list(_shared_keys(collection, similar, q)) for q in judged})
    questions = connected_groups({q: [similar.queries.first_of(q)] for q in judged})
    protocol = _protocol_of(collection, similar, sides, config)
    group_of = documents if protocol == "new documents" else questions
    _carve_missing(sides, collection, judged, group_of, protocol, config)
    counts |= _sharing_counts(sides, documents, "sharing_a_passage_with")
    counts |= _sharing_counts(sides, questions, "with_a_query_of")
    counts |= {side: len(sides[side]) for side in SIDES}
    train_ids, dev_ids, test_ids = (tuple(query_id for query_id in judged if query_id in sides[s]) for s in SIDES)
    return Split(train_ids, dev_ids, test_ids, protocol), counts


def _carve_missing(
    sides: _Sides,
    collection: Collection,
    judged: Sequence[str],
    group_of: Mapping[str, int],
    protocol: Protocol,
    config: DataConfig,
) -> None:
    """Move whole groups of train to the test and dev splits that the data does not bring. Raises DataError."""
    shares = {"test": config.test, "dev": config.dev}
    missing = [side for side, share in shares.items() if share > 0 and side not in collection.splits]
    if missing:
        _check_enough_groups(sides["train"], group_of, missing, protocol)
    generator = np.random.default_rng(config.seed)
    for index, side in enumerate(missing):
        base = len(judged) if side == "test" else len(sides["train"])
        ceiling = config.max_dev_queries if side == "dev" else base
        target = min(max(1, round(shares[side] * base)), ceiling)
        train = features_of(collection, [query_id for query_id in judged if query_id in sides["train"]])
        reaching = {group_of[query_id] for other in ("dev", "test") for query_id in sides[other]}
        # Train and every side still to carve need a group each.
        spared = len(missing) - index
        carved = carve(train, group_of, target, ceiling, spared, reaching, generator)
        if carved is None:
            raise _impossible(side, target, sides["train"], group_of, protocol)
        sides[side] = carved
        sides["train"] -= carved


def _shared_keys(collection: Collection, similar: Similar, query_id: str) -> Iterator[tuple[str, str]]:
    """What a query must not share with one of another side under the protocol "new documents"."""
    yield "query", similar.queries.first_of(query_id)
    for passage_id in collection.positives[query_id]:
        yield "passage", similar.passages.first_of(passage_id)
        document = collection.passages[passage_id].document
        if document:
            yield "document", document


def _protocol_of(collection: Collection, similar: Similar, sides: _Sides, config: DataConfig) -> Protocol:
    """The protocol of the recipe, or for auto that of the splits the data brings."""
    if config.protocol != "auto":
        return config.protocol
    seen = {similar.passages.first_of(p) for query_id in sides["train"] for p in collection.positives[query_id]}
    shared = sum(any(similar.passages.first_of(p) in seen for p in collection.positives[q]) for q in sides["test"])
    return "new questions" if shared > _SHARED_BY_CHANCE * len(sides["test"]) else "new documents"


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
        if name not in SIDES:
            raise DataError(f"the split {name!r} is unknown", where="data", fix=f"known splits: {listed(SIDES)}")
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


def _check_enough_groups(
    train: AbstractSet[str], group_of: Mapping[str, int], missing: list[str], protocol: Protocol
) -> None:
    groups = len({group_of[query_id] for query_id in train})
    if groups < _FEWEST_GROUPS:
        raise DataError(
            f"too little to carve {' and '.join(missing)} from: groups by shared {_SHARED[protocol]}: {groups}, "
            f"queries: {len(train)}",
            where=f"data.{missing[0]}",
            fix=_fix_of_few(len(train), missing[0], protocol),
        )


def _fix_of_few(queries: int, side: str, protocol: Protocol) -> str:
    if queries < _FEWEST_GROUPS:  # no other way to divide them would help
        return f"bring at least {_FEWEST_GROUPS} queries with a relevant passage that are in no split of the data"
    return f"bring at least {_FEWEST_GROUPS} groups, or a {side} split of your own{_other_ways(side, protocol)}"


def _impossible(
    side: str, target: int, train: AbstractSet[str], group_of: Mapping[str, int], protocol: Protocol
) -> DataError:
    largest = Counter(group_of[query_id] for query_id in train).most_common(1)[0][1]
    return DataError(
        f"no {side} split of about {target} queries can be carved without a leak: {largest} of {len(train)} queries "
        f"hang together in one group, because they share {_SHARED[protocol]}",
        where=f"data.{side}",
        fix=f"bring a {side} split of your own{_other_ways(side, protocol)}",
    )


def _other_ways(side: str, protocol: Protocol) -> str:
    ways = f"; for m3tune prepare and mine, which need none, set data.{side} to 0"
    if protocol == "new questions":
        return ways
    return '; or ask new questions about the same documents: data.protocol = "new questions" (--protocol)' + ways


def _sharing_counts(sides: _Sides, group_of: Mapping[str, int], how: str) -> dict[str, int]:
    """How many queries of one side belong to a group that reaches into another."""
    groups = {side: {group_of[query_id] for query_id in members} for side, members in sides.items()}
    return {
        f"{side}_{how}_{other}": sum(group_of[query_id] in groups[other] for query_id in sides[side])
        for side, other in SIDE_PAIRS
    }
