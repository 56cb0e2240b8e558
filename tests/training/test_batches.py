from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import Collection
from m3tune.data.tokens import TokenTable
from m3tune.recipe import TrainConfig
from m3tune.training.batches import (
    Collator,
    Draw,
    EpochBatches,
    EpochLoader,
    Examples,
    known_relevant,
    make_examples,
    teacher_scores,
)
from m3tune.types import Example, Judgment, Negative, Passage, Query

# --- the order of examples


def batches_of(num_examples, epoch=0, **config):
    batches = EpochBatches(num_examples, TrainConfig(**config))
    batches.set_epoch(epoch)
    return [[draw.index for draw in batch] for batch in batches]


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_an_epoch_holds_every_example_once_in_even_batches(num_examples, batch_queries, epoch, seed):
    batches = batches_of(num_examples, epoch, batch_queries=batch_queries, seed=seed)
    sampler = EpochBatches(num_examples, TrainConfig(batch_queries=batch_queries))
    assert Counter(index for batch in batches for index in batch) == Counter(range(num_examples))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_queries
    assert len(batches) == len(sampler) == -(-num_examples // batch_queries)


def test_the_order_depends_on_seed_and_epoch_alone():
    first = batches_of(50, epoch=1, batch_queries=8, seed=3)
    assert first == batches_of(50, epoch=1, batch_queries=8, seed=3)
    assert first != batches_of(50, epoch=2, batch_queries=8, seed=3)
    assert first != batches_of(50, epoch=1, batch_queries=8, seed=4)
    assert first != [list(range(i, min(i + 8, 50))) for i in range(0, 50, 8)]


def test_the_loader_hands_the_epoch_on_to_order_and_examples():
    config = TrainConfig(batch_queries=2)
    examples = Examples([Example(f"q{i}", ("a", "b")) for i in range(6)], config)
    loader = EpochLoader(examples, batch_sampler=EpochBatches(6, config), collate_fn=list)
    seen = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert {example.positive_ids for batch in batches for example in batch} == {(("a", "b")[epoch],)}
        seen.append([example.query_id for batch in batches for example in batch])
    assert sorted(seen[0]) == sorted(seen[1])
    assert seen[0] != seen[1]


# --- one example as it looks in an epoch

POSITIVES = ("a", "b", "c")
NEGATIVES = tuple(f"n{i}" for i in range(10))


def drawn(epochs, positives=POSITIVES, negatives=NEGATIVES, **config):
    examples = Examples([Example("q", positives, negatives)], TrainConfig(**config))
    assert len(examples) == 1
    return [examples[Draw(0, epoch)] for epoch in range(epochs)]


def test_positives_take_turns():
    assert [example.positive_ids for example in drawn(4)] == [("a",), ("b",), ("c",), ("a",)]
    assert [example.positive_ids for example in drawn(3, positives_per_query=2)] == [("a", "b"), ("c", "a"), ("b", "c")]


@pytest.mark.parametrize("wanted", [0, 3, 5])
def test_all_positives_are_there_once_when_all_or_more_are_asked_for(wanted):
    for example in drawn(3, positives_per_query=wanted):
        assert sorted(example.positive_ids) == ["a", "b", "c"]


def test_negatives_never_repeat_inside_an_example_and_change_over_the_epochs():
    examples = drawn(20, negatives_per_query=4)
    for example in examples:
        assert len(set(example.negative_ids)) == 4
        assert set(example.negative_ids) <= set(NEGATIVES)
    assert len({example.negative_ids for example in examples}) > 10
    assert {n for example in examples for n in example.negative_ids} == set(NEGATIVES)
    assert examples == drawn(20, negatives_per_query=4)
    assert examples != drawn(20, negatives_per_query=4, seed=1)


def test_with_too_few_negatives_there_are_fewer_and_not_repeated_ones():
    assert sorted(drawn(1, negatives=("x", "y"), negatives_per_query=7)[0].negative_ids) == ["x", "y"]
    assert drawn(1, negatives=(), negatives_per_query=7)[0].negative_ids == ()
    assert drawn(1)[0].negative_ids == (), "none unless asked for"


# --- what a batch knows, on a collection made by hand

TEXTS = {"p1": "one", "p2": "two", "p3": "three", "p4": "four", "copy of p1": "one"}


def made_by_hand():
    """q1 and q2 share p1; q3 asks what q1 asks; q4 stands alone."""
    queries = {id_: Query(id_, text) for id_, text in {"q1": "x?", "q2": "y?", "q3": "x?", "q4": "z?"}.items()}
    passages = {id_: Passage(id_, text) for id_, text in TEXTS.items()}
    judged = [("q1", "p1"), ("q1", "p2"), ("q2", "p1"), ("q3", "p3"), ("q4", "p4")]
    return Collection(queries, passages, tuple(Judgment(*pair) for pair in judged))


def table(count, base):
    """Text i is the one token base + i."""
    ids = np.arange(base, base + count, dtype=np.int32)
    return TokenTable(ids, np.arange(count + 1), 0)


PASSAGE_TOKEN = {"p1": 20, "p2": 21, "p3": 22, "p4": 23}


def collate(*examples, in_batch_negatives=True, collection=None):
    """The batch, its passages by id in the order of the columns, and both masks as ids."""
    collection = collection or made_by_hand()
    collator = Collator(
        query_tokens=table(4, base=10),
        query_rows={f"q{i}": i - 1 for i in range(1, 5)},
        passage_tokens=table(4, base=20),
        passage_rows={f"p{i}": i - 1 for i in range(1, 5)},
        relevant=known_relevant(collection),
        canonical_passage=collection.canonical_passage,
        in_batch_negatives=in_batch_negatives,
    )
    batch = collator(examples)
    names = {token: passage for passage, token in PASSAGE_TOKEN.items()}
    tokens = batch.packed.input_ids[batch.packed.slots].tolist()
    assert tokens[: batch.num_queries] == [9 + int(example.query_id[1]) for example in examples]
    columns = [names[token] for token in tokens[batch.num_queries :]]
    assert batch.positive.shape == batch.negative.shape == (len(examples), len(columns))
    assert not (batch.positive & batch.negative).any()
    assert batch.positive.any(dim=1).all()

    def ids(mask):
        return [{columns[i] for i in row.nonzero().flatten().tolist()} for row in mask]

    return columns, ids(batch.positive), ids(batch.negative)


def test_other_queries_passages_are_negatives():
    columns, positive, negative = collate(Example("q2", ("p1",)), Example("q4", ("p4",)))
    assert columns == ["p1", "p4"]
    assert positive == [{"p1"}, {"p4"}]
    assert negative == [{"p4"}, {"p1"}]


def test_a_passage_that_two_queries_bring_is_there_once_and_positive_for_both():
    columns, positive, negative = collate(Example("q1", ("p1",)), Example("q2", ("p1",)), Example("q4", ("p4",)))
    assert columns == ["p1", "p4"]
    assert positive == [{"p1"}, {"p1"}, {"p4"}]
    assert negative == [{"p4"}, {"p4"}, {"p1"}]


def test_a_known_relevant_passage_that_another_query_brings_is_not_punished():
    # p2 is relevant to q1 too, which brings only p1 this time; p1 is relevant to q2.
    _, positive, negative = collate(Example("q1", ("p2",)), Example("q2", ("p1",)), Example("q4", ("p4",)))
    assert positive == [{"p2"}, {"p1"}, {"p4"}]
    assert negative[0] == {"p4"}
    assert negative[1] == {"p2", "p4"}
    assert negative[2] == {"p1", "p2"}


def test_a_copy_of_a_passage_counts_as_the_passage():
    columns, positive, negative = collate(
        Example("q1", ("copy of p1",)), Example("q2", ("p1",)), Example("q4", ("p4",))
    )
    assert columns == ["p1", "p4"]
    assert positive[:2] == [{"p1"}, {"p1"}]
    assert negative == [{"p4"}, {"p4"}, {"p1"}]


def test_queries_of_one_text_share_what_is_known():
    known = known_relevant(made_by_hand())
    assert known == {"q1": {"p1", "p2", "p3"}, "q3": {"p1", "p2", "p3"}, "q2": {"p1"}, "q4": {"p4"}}
    _, positive, negative = collate(Example("q1", ("p1",)), Example("q3", ("p3",)), Example("q4", ("p4",)))
    assert positive == [{"p1"}, {"p3"}, {"p4"}]
    assert negative == [{"p4"}, {"p4"}, {"p1", "p3"}]


def test_a_judgment_of_grade_zero_makes_nothing_relevant():
    collection = made_by_hand()
    judged = (*collection.judgments, Judgment("q4", "p1", 0))
    collection = Collection(collection.queries, collection.passages, judged)
    _, _, negative = collate(Example("q4", ("p4",)), Example("q2", ("p1",)), collection=collection)
    assert negative[0] == {"p1"}


def test_given_negatives_are_everyones_unless_in_batch_negatives_are_off():
    examples = (Example("q2", ("p1",), ("p2",)), Example("q4", ("p4",), ("p3",)))
    columns, _, negative = collate(*examples)
    assert columns == ["p1", "p2", "p4", "p3"]
    assert negative == [{"p2", "p3", "p4"}, {"p1", "p2", "p3"}]
    _, positive, negative = collate(*examples, in_batch_negatives=False)
    assert positive == [{"p1"}, {"p4"}]
    assert negative == [{"p2"}, {"p3"}]


@pytest.mark.parametrize("in_batch_negatives", [True, False])
def test_a_given_negative_that_is_known_to_be_relevant_is_not_punished(in_batch_negatives):
    _, positive, negative = collate(
        Example("q1", ("p1",), ("p2", "p3", "p4")), in_batch_negatives=in_batch_negatives
    )  # fmt: skip
    assert positive == [{"p1"}]
    assert negative == [{"p4"}], "p2 is judged relevant, p3 is relevant to the same question"


def test_texts_are_packed_queries_first_and_found_by_slot():
    collection = made_by_hand()
    ids = np.array([10, 10, 10, 11, 12, 12, 13], dtype=np.int32)
    collator = Collator(
        query_tokens=TokenTable(ids, np.array([0, 3, 4, 6, 7]), 0),
        query_rows={f"q{i}": i - 1 for i in range(1, 5)},
        passage_tokens=table(4, base=20),
        passage_rows={f"p{i}": i - 1 for i in range(1, 5)},
        relevant=known_relevant(collection),
        canonical_passage=collection.canonical_passage,
        in_batch_negatives=True,
    )
    batch = collator([Example("q1", ("p1",)), Example("q4", ("p4",))]).to("cpu")
    starts, lengths = batch.packed.starts[batch.packed.slots], batch.packed.lengths[batch.packed.slots]
    texts = [batch.packed.input_ids[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]
    assert texts == [[10, 10, 10], [13], [20], [23]]
    assert batch.positive.dtype == batch.negative.dtype == torch.bool


# --- examples from a collection


def test_examples_bring_all_positives_and_given_negatives_of_the_named_queries():
    plain = made_by_hand()
    negatives = (Negative("q1", "p4"), Negative("q1", "p4"), Negative("q2", "p3"))
    collection = Collection(plain.queries, plain.passages, plain.judgments, negatives)
    assert make_examples(collection, ["q4", "q1"]) == [Example("q4", ("p4",)), Example("q1", ("p1", "p2"), ("p4",))]


# --- teacher scores


def test_teacher_scores_are_found_by_canonical_passage_and_only_where_someone_gave_them():
    plain = made_by_hand()
    judgments = (Judgment("q1", "p1", 1, 0.9), Judgment("q1", "p2"), Judgment("q2", "p3", 0, 0.2), Judgment("q4", "p4"))
    negatives = (
        Negative("q1", "p4", score=-1.5),
        Negative("q2", "copy of p1", score=0.4),
        Negative("q2", "p2", source="mined", score=0.8),
        Negative("q4", "p1", score=float("nan")),
    )
    collection = Collection(plain.queries, plain.passages, judgments, negatives)
    expected = {"q1": {"p1": 0.9, "p4": -1.5}, "q2": {"p1": 0.4, "p3": 0.2}, "q4": {}}
    assert teacher_scores(collection, ["q1", "q2", "q4"]) == expected
    assert teacher_scores(collection, ["q4"]) == {"q4": {}}


def test_teacher_scores_stand_in_the_columns_of_their_passages():
    collator = Collator(
        query_tokens=table(4, base=10),
        query_rows={f"q{i}": i - 1 for i in range(1, 5)},
        passage_tokens=table(4, base=20),
        passage_rows={f"p{i}": i - 1 for i in range(1, 5)},
        relevant=known_relevant(made_by_hand()),
        canonical_passage=made_by_hand().canonical_passage,
        in_batch_negatives=True,
        teacher_scores={"q2": {"p1": 0.5, "p4": -2.0, "p3": 7.0}, "q1": {"p2": 0.25}},
    )
    batch = collator([Example("q2", ("p1",), ("p2",)), Example("q4", ("p4",))])  # columns p1, p2, p4
    assert batch.teacher[0, 0] == 0.5
    assert batch.teacher[0, 2] == -2.0, "a score of a passage that another query brings is known too"
    assert batch.teacher.isnan().tolist() == [[False, True, False], [True, True, True]]
    assert torch.equal(batch.to("cpu").teacher.isnan(), batch.teacher.isnan())
