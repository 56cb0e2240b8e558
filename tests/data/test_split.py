from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from m3tune.config import DataConfig
from m3tune.data.collection import Collection
from m3tune.data.read import read_collection
from m3tune.data.similar import exact_copies
from m3tune.data.split import split_queries
from m3tune.errors import DataError
from m3tune.types import Judgment, Passage, Query, Split

SIDES = ("train", "dev", "test")


def config(**settings_: object) -> DataConfig:
    return DataConfig.model_validate({"path": "unused"} | settings_)


def build(relevant: list[set[int]], splits: dict | None = None, copies: dict[int, int] | None = None) -> Collection:
    """Query i is relevant to passages `relevant[i]`; passage copies[p] has the same text as passage p."""
    numbers = sorted(set().union(*relevant) | {0})
    text = {number: (copies or {}).get(number, number) for number in numbers}
    return Collection(
        queries={f"q{i}": Query(f"q{i}", f"question {i}") for i in range(len(relevant))},
        passages={f"p{number}": Passage(f"p{number}", f"text {text[number]}") for number in numbers},
        judgments=tuple(Judgment(f"q{i}", f"p{n}") for i, ns in enumerate(relevant) for n in sorted(ns)),
        splits=splits or {},
    )


def carved(collection: Collection, **settings_: object) -> tuple[Split, dict[str, int]]:
    """The split where only texts that are the very same are copies."""
    return split_queries(collection, exact_copies(collection), config(**settings_))


def share_text(collection: Collection, first: str, second: str) -> bool:
    """Whether two queries are the same text or share the text of a relevant passage: by the texts alone."""
    texts = [
        {collection.passages[j.passage_id].full_text for j in collection.judgments if j.query_id == q and j.grade > 0}
        for q in (first, second)
    ]
    same_query = collection.queries[first].text == collection.queries[second].text
    return same_query or bool(texts[0] & texts[1])


def balanced(counts: dict[str, int]) -> bool:
    return counts["queries"] == sum(counts[key] for key in (*SIDES, "without_positive", "in_no_given_split"))


@settings(max_examples=200, deadline=None)
@given(
    relevant=st.lists(st.sets(st.integers(0, 25), max_size=2), min_size=1, max_size=25),
    copies=st.dictionaries(st.integers(0, 25), st.integers(0, 25), max_size=3),
    given_names=st.sampled_from([(), ("train", "test"), ("train", "dev"), ("test",), ("train",), SIDES]),
    members=st.data(),
    dev=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.2, 0.4]),
    seed=st.integers(0, 5),
)
def test_no_shared_passage_leaks_and_the_counts_balance(relevant, copies, given_names, members, dev, test, seed):
    ids = [f"q{i}" for i in range(len(relevant))]
    splits = {name: tuple(members.draw(st.lists(st.sampled_from(ids), unique=True))) for name in given_names}
    collection = build(relevant, splits, copies)
    settings_ = config(dev=dev, test=test, seed=seed, max_dev_queries=3, protocol="new documents")
    try:
        split, counts = split_queries(collection, exact_copies(collection), settings_)
    except DataError:
        assume(False)
    assert split_queries(collection, exact_copies(collection), settings_) == (split, counts)
    sides = {side: getattr(split, side) for side in SIDES}
    assert counts == counts | {side: len(members_) for side, members_ in sides.items()}
    assert balanced(counts)
    assert len(set(split.train + split.dev + split.test)) == len(split.train + split.dev + split.test)
    assert all(list(members_) == sorted(members_, key=ids.index) for members_ in sides.values())
    assert all(relevant[ids.index(query_id)] for members_ in sides.values() for query_id in members_)
    for side, other in combinations(SIDES, 2):
        leaks = sum(any(share_text(collection, a, b) for b in sides[other]) for a in sides[side])
        # Group counts go through third queries, so they are never below the direct ones.
        assert leaks <= counts[f"{side}_sharing_a_passage_with_{other}"]
        carved_from_train = side == "train" and other not in splits
        if carved_from_train or not splits:
            assert leaks == counts[f"{side}_sharing_a_passage_with_{other}"] == 0
    if "dev" not in splits:
        assert len(split.dev) <= 3


def test_shares_are_near_what_was_asked_for():
    collection = build([{i // 3} for i in range(600)])
    split, counts = carved(collection, test=0.2, dev=0.15)
    assert (len(split.test), len(split.dev), len(split.train)) == (120, 72, 408)
    assert set(split.test) != set(carved(collection, test=0.2, dev=0.15, seed=1)[0].test)
    assert balanced(counts)


def test_dev_is_capped():
    split, _ = carved(build([{i} for i in range(100)]), test=0.2, dev=0.5, max_dev_queries=7)
    assert len(split.dev) == 7
    # A fifth group of three would make 15, within the tolerance but over the cap.
    split, _ = carved(build([{i // 3} for i in range(90)]), test=0.2, dev=0.5, max_dev_queries=13)
    assert len(split.dev) == 12


def test_a_share_of_zero_carves_nothing():
    split, _ = carved(build([{0}, {0}]), test=0, dev=0)
    assert (split.train, split.dev, split.test) == (("q0", "q1"), (), ())


def test_copies_of_a_passage_and_of_a_query_stay_together():
    collection = build([{i} for i in range(40)], copies={i: i - 1 for i in range(1, 40, 2)})
    split, _ = carved(collection)
    sides = {query_id: side for side in SIDES for query_id in getattr(split, side)}
    assert all(sides[f"q{i}"] == sides[f"q{i - 1}"] for i in range(1, 40, 2))

    collection = build([{i} for i in range(40)])
    twins = {f"q{i}": Query(f"q{i}", f"question {i // 2}") for i in range(40)}
    collection = Collection(twins, collection.passages, collection.judgments)
    split, _ = carved(collection, seed=3)
    sides = {query_id: side for side in SIDES for query_id in getattr(split, side)}
    assert all(sides[f"q{i}"] == sides[f"q{i - 1}"] for i in range(1, 40, 2))


def test_queries_without_a_positive_take_no_part():
    collection = build([{i} for i in range(10)] + [set(), set()])
    collection = Collection(
        collection.queries, collection.passages, (*collection.judgments, Judgment("q10", "p0", grade=0))
    )
    split, counts = carved(collection)
    assert counts["without_positive"] == 2
    assert not {"q10", "q11"} & {*split.train, *split.dev, *split.test}
    assert balanced(counts)


def test_given_splits_are_kept_and_a_query_in_two_belongs_to_the_later():
    splits = {"train": ("q0", "q1", "q2", "q3"), "dev": ("q2", "q3", "q4"), "test": ("q3", "q5")}
    split, counts = carved(build([{0}, {1}, {2}, {3}, {4}, {0, 4}, {6}], splits))
    assert (split.train, split.dev, split.test) == (("q0", "q1"), ("q2", "q4"), ("q3", "q5"))
    assert counts["train_also_in_test"] == counts["train_also_in_dev"] == counts["dev_also_in_test"] == 1
    assert counts["train_sharing_a_passage_with_test"] == 1  # q0, through passage 0
    assert counts["dev_sharing_a_passage_with_test"] == 1  # q4, through passage 4
    assert counts["in_no_given_split"] == 1  # q6
    assert balanced(counts)


def test_only_test_given_leaves_the_rest_to_train():
    split, _ = carved(build([{i} for i in range(20)], {"test": ("q0", "q1")}), dev=0.2)
    assert split.test == ("q0", "q1")
    assert (len(split.train), len(split.dev)) == (14, 4)


def test_groups_that_reach_into_a_given_split_are_carved_last():
    collection = build(
        [{i % 10} for i in range(30)], {"train": tuple(f"q{i}" for i in range(20)), "test": ("q20", "q21")}
    )
    for seed in range(10):
        split, counts = split_queries(
            collection, exact_copies(collection), config(dev=0.3, seed=seed, protocol="new documents")
        )
        assert len(split.dev) == 6
        assert counts["dev_sharing_a_passage_with_test"] == 0
        assert counts["train_sharing_a_passage_with_test"] == 4


def test_a_random_split_by_question_is_still_usable():
    # Every passage has a question in test, so no group is untouched: dev is carved all the same, and counted.
    train = tuple(f"q{i}" for i in range(20))
    collection = build([{i % 10} for i in range(30)], {"train": train, "test": tuple(f"q{i}" for i in range(20, 30))})
    split, counts = carved(collection, dev=0.2)
    assert len(split.dev) == counts["dev_sharing_a_passage_with_test"] == 4
    assert counts["train_sharing_a_passage_with_test"] == 16


def test_scifact():
    collection, _ = read_collection("package:m3tune/demo/scifact")
    split, counts = carved(collection)
    # 196 of its 300 test claims share an abstract with a training claim, so development claims may as well.
    assert split.protocol == "new questions"
    assert set(split.test) == set(collection.splits["test"])
    assert (len(split.train), len(split.dev), len(split.test)) == (688, 121, 300)
    assert counts["train_sharing_a_passage_with_dev"] > 0
    assert balanced(counts)


def test_scifact_about_new_documents():
    collection, _ = read_collection("package:m3tune/demo/scifact")
    split, counts = carved(collection, protocol="new documents")
    assert (len(split.train), len(split.dev), len(split.test)) == (688, 121, 300)
    assert counts["train_sharing_a_passage_with_dev"] == counts["dev_sharing_a_passage_with_test"] == 0
    assert balanced(counts)


def test_without_a_given_test_the_protocol_is_new_documents():
    split, counts = carved(build([{i // 2} for i in range(40)]))
    assert split.protocol == "new documents"
    assert not any(count for name, count in counts.items() if "_sharing_" in name)


def test_new_questions_ignore_shared_passages_but_keep_queries_of_one_text_together():
    collection = build([{i % 2} for i in range(60)])
    twins = {f"q{i}": Query(f"q{i}", f"question {i // 2}") for i in range(60)}
    collection = Collection(twins, collection.passages, collection.judgments)
    split, _ = carved(collection, protocol="new questions")
    assert split.dev
    assert split.test
    side_of = {q: side for side in SIDES for q in getattr(split, side)}
    assert all(side_of[f"q{i}"] == side_of[f"q{i + 1}"] for i in range(0, 60, 2))


GIANT = [{0, i} for i in range(1, 30)] + [{40}, {41}, {42}]


@pytest.mark.parametrize(
    "collection, settings_, where, value, fix",
    [
        (build(GIANT), {}, "data.test", "29 of 32 queries hang together", "test split of your own"),
        (build(GIANT), {"test": 0, "dev": 0.3}, "data.dev", "share relevant passages", "data.dev to 0"),
        (build([{0}, {1}]), {}, "data.test", "groups by shared relevant passages: 2", "at least 3 queries"),
        (build([{0}, {0}, {0}]), {}, "data.test", "passages: 1, queries: 3", "data.test to 0"),
        (build([{0}], {"test": ("q0",)}), {}, "data.dev", "passages: 0, queries: 0", "in no split of the data"),
        (build([set(), set()]), {}, "data", "2 queries", "a grade above zero"),
        (build([]), {}, "data", "0 queries", "questions"),
        (build([{0}, {0}, {0}]), {}, "data.test", "share", 'data.protocol = "new questions"'),
        (build([{0}, set()], {"test": ("q1",)}), {}, "data.test", "the test split", "remove the split"),
        (build([{0}], {"evaluation": ("q0",)}), {}, "data", "'evaluation'", "'train', 'dev', 'test'"),
    ],
)
def test_what_cannot_be_split(collection, settings_, where, value, fix):
    with pytest.raises(DataError) as caught:
        carved(collection, **settings_)
    assert caught.value.where == where
    assert value in caught.value.what
    assert fix in caught.value.fix
