"""Repairs do what they say, nothing else, and account for every record."""

import pytest

from m3tune.data import repair as repairs
from m3tune.data.collection import Collection
from m3tune.data.repair import KINDS, balance, repair
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet


def same(id_):
    return id_


def ill():
    texts = {"a": "one two", "b": "one two", "c": "three", "d": " ", "e": "three!", "f": "four"}
    return Collection(
        {id_: Query(id_, text) for id_, text in {"q": "first?", "r": "second?", "s": "?", "t": "none?"}.items()},
        {id_: Passage(id_, text) for id_, text in texts.items()},
        (
            Judgment("q", "a", 1, 0.5),
            Judgment("q", "b", 2, 0.9),
            Judgment("r", "c"),
            Judgment("s", "f"),
            Judgment("r", "d"),
        ),
        (
            Negative("q", "b"),
            Negative("q", "c"),
            Negative("r", "a"),
            Negative("r", "b"),
            Negative("r", "e"),
            Negative("t", "f"),
        ),
        splits={"train": ("q", "s"), "test": ("r", "t")},
        sets={"x": QuerySet(("q", "t"))},
    )


def test_everything_is_repaired_and_every_record_accounted_for():
    before = ill()
    after, removed = repair(before, lambda id_: "c" if id_ == "e" else id_)
    assert list(after.queries) == ["q", "r"]
    assert list(after.passages) == ["a", "c", "e", "f"]
    assert after.judgments == (Judgment("q", "a", 2, 0.5), Judgment("r", "c"))
    assert after.negatives == (Negative("q", "c"), Negative("r", "a"))
    assert after.splits == {"train": ("q",), "test": ("r",)}
    assert after.sets["x"].query_ids == ("q",)
    for kind, counts in balance(before, after, removed).items():
        assert counts["in"] == sum(n for reason, n in counts.items() if reason != "in"), kind
    assert removed["negatives"] == {
        "repeated": 1,
        "positive of the same query": 1,
        "near-duplicate of a positive": 1,
        "query without a relevant passage": 1,
    }
    assert ill() == before


def test_a_repaired_collection_is_left_as_it_is():
    after, _ = repair(ill(), same)
    again, removed = repair(after, same)
    assert (again.queries, again.passages) == (after.queries, after.passages)
    assert (again.judgments, again.negatives) == (after.judgments, after.negatives)
    assert not any(removed.values())


@pytest.mark.parametrize(
    "step",
    [
        repairs.drop_empty_texts,
        repairs.unite_copies,
        repairs.unite_judgments,
        repairs.drop_contradictions,
        lambda collection: repairs.drop_near_positives(collection, same),
        repairs.drop_queries_without_positive,
    ],
)
def test_each_repair_balances_by_itself(step):
    before = ill()
    after, removed = step(before)
    for kind in KINDS:
        assert len(getattr(before, kind)) == len(getattr(after, kind)) + sum(removed.get(kind, {}).values())


def test_where_no_query_has_a_positive_all_of_them_stay():
    collection = Collection({"q": Query("q", "why?")}, {"p": Passage("p", "so")}, ())
    assert repairs.drop_queries_without_positive(collection) == (collection, {})


def test_a_copy_is_a_positive_under_any_id():
    collection = Collection(
        {"q": Query("q", "why?"), "r": Query("r", "why?")},
        {"a": Passage("a", "so"), "b": Passage("b", "so"), "c": Passage("c", "no")},
        (Judgment("q", "a"), Judgment("r", "c")),
        (Negative("r", "b"), Negative("r", "c")),
    )
    assert repairs.drop_contradictions(collection)[0].negatives == ()
