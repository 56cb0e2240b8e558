from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.config import TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant, teacher_scores
from m3tune.data.similar import NearCopies, Similar
from m3tune.data.tokens import TokenTable
from m3tune.training.batches import Collator, Draw, EpochBatches, EpochLoader, Examples, make_examples
from m3tune.training.sets import TrainSet
from m3tune.types import Example, Judgment, Negative, Passage, Query

# --- the order of examples


def sets_of(*sizes, weights=None, names="abcdefgh", **how):
    """A set of each size, with numbered query ids."""
    return [
        TrainSet(name, tuple(f"{name}{i}" for i in range(size)), weight, **how)
        for name, size, weight in zip(names, sizes, weights or [1.0] * len(sizes), strict=False)
    ]


def drawn_batches(sets, epoch=0, **config):
    batches = EpochBatches(sets, TrainConfig(**config))
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    return found


def batches_of(num_examples, epoch=0, **config):
    return [[draw.index for draw in batch] for batch in drawn_batches(sets_of(num_examples), epoch, **config)]


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_an_epoch_holds_every_example_once_in_even_batches(num_examples, batch_queries, epoch, seed):
    batches = batches_of(num_examples, epoch, batch_queries=batch_queries, seed=seed)
    assert Counter(index for batch in batches for index in batch) == Counter(range(num_examples))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_queries
    assert len(batches) == -(-num_examples // batch_queries)


def test_the_order_depends_on_seed_and_epoch_alone():
    first = batches_of(50, epoch=1, batch_queries=8, seed=3)
    assert first == batches_of(50, epoch=1, batch_queries=8, seed=3)
    assert first != batches_of(50, epoch=2, batch_queries=8, seed=3)
    assert first != batches_of(50, epoch=1, batch_queries=8, seed=4)
    assert first != [list(range(i, min(i + 8, 50))) for i in range(0, 50, 8)]


def test_the_loader_hands_the_epoch_on_to_order_and_examples():
    config = TrainConfig(batch_queries=2)
    sets = sets_of(6)
    examples = Examples(sets, {q: Example(q, ("a", "b")) for q in sets[0].query_ids}, config)
    loader = EpochLoader(examples, batch_sampler=EpochBatches(sets, config), collate_fn=list)
    seen = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert {example.positive_ids for batch in batches for example in batch} == {(("a", "b")[epoch],)}
        seen.append([example.query_id for batch in batches for example in batch])
    assert sorted(seen[0]) == sorted(seen[1])
    assert seen[0] != seen[1]


# --- sets


@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.1, 0.5, 1.0, 1.7, 3.0])), min_size=1, max_size=4),
    st.integers(1, 12), st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_sets_never_mix_and_are_drawn_by_their_weights(sized, batch_queries, epoch):
    sets = sets_of(*(size for size, _ in sized), weights=[weight for _, weight in sized])
    batches = drawn_batches(sets, epoch, batch_queries=batch_queries)
    set_of_row = [number for number, (size, _) in enumerate(sized) for _ in range(size)]
    sizes = {number: [] for number in range(len(sized))}
    for batch in batches:
        (number,) = {set_of_row[draw.index] for draw in batch}
        sizes[number].append(len(batch))
    for number, (size, weight) in enumerate(sized):
        assert sum(sizes[number]) == max(1, round(weight * size))
        assert max(sizes[number]) <= min(batch_queries, size)
        assert max(sizes[number]) - min(sizes[number]) <= 1


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0, 2.5])
def test_over_the_epochs_every_query_is_drawn_as_often_as_every_other(weight):
    sets = sets_of(20, 7, weights=[weight, 1.0])
    draws = [draw for epoch in range(12) for batch in drawn_batches(sets, epoch, batch_queries=4) for draw in batch]
    times = Counter(draw.index for draw in draws if draw.index < 20)
    assert len(times) == 20
    assert sum(times.values()) == 12 * round(20 * weight)
    assert max(times.values()) - min(times.values()) <= 1
    for index, count in times.items():
        assert sorted(draw.time for draw in draws if draw.index == index) == list(range(count)), "its turns are counted"


def test_batches_of_several_sets_are_shuffled_and_depend_on_seed_and_epoch_alone():
    def names(epoch, **config):
        return [batch[0].index < 24 for batch in drawn_batches(sets_of(24, 24), epoch, batch_queries=4, **config)]

    assert names(0) == names(0)
    assert names(0) != sorted(names(0), reverse=True)
    assert len({tuple(names(epoch)) for epoch in range(5)} | {tuple(names(0, seed=1))}) > 3


def test_data_without_sets_keeps_its_order():
    order = [index for batch in batches_of(50, epoch=3, batch_queries=8, seed=2) for index in batch]
    assert order == np.random.default_rng((2, 3)).permutation(50).tolist()


def test_a_small_set_of_large_weight_fills_no_batch_with_copies():
    batches = drawn_batches(sets_of(5, weights=[4.0]), batch_queries=32)
    assert [sorted(draw.index for draw in batch) for batch in batches] == [[0, 1, 2, 3, 4]] * 4
    assert [{draw.time for draw in batch} for batch in batches] == [{0}, {1}, {2}, {3}]


def test_each_set_has_its_own_number_of_negatives():
    many, one = sets_of(1, 1, negatives_per_query=3)[0], sets_of(1, names="z", negatives_per_query=1)[0]
    of_query = {q: Example(q, ("p",), ("n1", "n2", "n3", "n4")) for q in ("a0", "z0")}
    examples = Examples([many, one], of_query, TrainConfig(negatives_per_query=3))
    assert [examples[Draw(row, 0)].query_id for row in range(len(examples))] == ["a0", "z0"]
    assert [len(examples[Draw(row, 0)].negative_ids) for row in range(2)] == [3, 1]


# --- one example as it looks in an epoch

POSITIVES = ("a", "b", "c")
NEGATIVES = tuple(f"n{i}" for i in range(10))


def drawn(epochs, positives=POSITIVES, negatives=NEGATIVES, **config):
    of_set = TrainSet("all", ("q",), negatives_per_query=config.get("negatives_per_query", 0))
    examples = Examples([of_set], {"q": Example("q", positives, negatives)}, TrainConfig(**config))
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
    return TokenTable(ids, np.arange(count), np.ones(count, np.int64), np.zeros(count, bool))


def laid_out(ids, *lengths):
    """Texts of these lengths one after another."""
    lengths = np.array(lengths)
    return TokenTable(ids, np.cumsum(lengths) - lengths, lengths, lengths > 9)


PASSAGE_TOKEN = {"p1": 20, "p2": 21, "p3": 22, "p4": 23}


def collator(collection=None, similar=None, **fields):
    """Over four queries and four passages, each one token long."""
    how = {
        "query_tokens": table(4, base=10),
        "query_rows": {f"q{i}": i - 1 for i in range(1, 5)},
        "passage_tokens": table(4, base=20),
        "passage_rows": {"": {f"p{i}": i - 1 for i in range(1, 5)}},
        "known": known_relevant(collection or made_by_hand(), similar or Similar()),
        "passage_prompt": "",
    }
    return Collator(**how | fields)


def collate(*examples, without_in_batch=(), collection=None, similar=None):
    """The batch, its passages by id in the order of the columns, and both masks as ids."""
    batch = collator(collection, similar, without_in_batch=frozenset(without_in_batch))(examples)
    names = {token: passage for passage, token in PASSAGE_TOKEN.items()}
    tokens = np.concatenate(batch.texts).tolist()
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
    known = known_relevant(made_by_hand(), Similar()).of_query
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
    _, positive, negative = collate(*examples, without_in_batch=("q2", "q4"))
    assert positive == [{"p1"}, {"p4"}]
    assert negative == [{"p2"}, {"p3"}]
    assert collate(*examples, without_in_batch=("q4",))[2] == [{"p2", "p3", "p4"}, {"p3"}]


@pytest.mark.parametrize("without", [(), ("q1",)])
def test_a_given_negative_that_is_known_to_be_relevant_is_not_punished(without):
    _, positive, negative = collate(Example("q1", ("p1",), ("p2", "p3", "p4")), without_in_batch=without)
    assert positive == [{"p1"}]
    assert negative == [{"p4"}], "p2 is judged relevant, p3 is relevant to the same question"


def test_what_is_nearly_the_same_as_a_relevant_passage_is_not_punished_and_not_positive_either():
    examples = (Example("q4", ("p4",), ("p2",)), Example("q2", ("p1",)), Example("q1", ("p3",)))
    assert collate(*examples)[2][0] == {"p1", "p2", "p3"}
    columns, positive, negative = collate(*examples, similar=Similar(passages=NearCopies({"p4": "p2", "p3": "p2"})))
    assert columns == ["p4", "p2", "p1", "p3"], "each text has its own column"
    assert positive[0] == {"p4"}
    assert negative[0] == {"p1"}, "p2, a given negative, and p3, in the batch, are nearly p4"
    assert negative[1] == {"p4", "p2", "p3"}


def test_a_soft_label_is_neither_positive_nor_negative_and_nor_is_what_is_nearly_the_same():
    examples = (Example("q4", ("p4",), ("p2",)), Example("q2", ("p1",), ("p3",)))
    similar = Similar(passages=NearCopies({"p3": "p2"}))
    soft = collator(soft_groups={"q4": frozenset({"p2"})}, similar=similar)(examples)
    plain = collator(similar=similar)(examples)
    assert not plain.soft.any()
    row, columns = [token[0] for token in soft.texts[:2]].index(13), [token[0] for token in soft.texts[2:]]
    assert {columns[i] for i in soft.soft[row].nonzero().flatten().tolist()} == {21, 22}, "p2 and, nearly the same, p3"
    assert not soft.soft[1 - row].any()
    assert torch.equal(soft.negative, plain.negative & ~soft.soft)
    assert torch.equal(soft.positive, plain.positive)
    assert plain.negative[row].sum() > soft.negative[row].sum() > 0


def test_what_is_relevant_to_a_query_nearly_the_same_is_not_punished():
    examples = (Example("q4", ("p4",)), Example("q2", ("p1",)))
    assert collate(*examples)[2] == [{"p1"}, {"p4"}]
    assert collate(*examples, similar=Similar(queries=NearCopies({"q4": "q2"})))[2] == [set(), set()]
    both = Similar(
        passages=NearCopies({"p4": "p3"}), queries=NearCopies({"q2": "q1"})
    )  # q2 asks what q1 and q3 ask; p3 is q3's
    assert collate(*examples, similar=both)[2] == [{"p1"}, set()]


def test_passages_of_a_symmetric_set_stand_after_the_querys_prompt():
    rows = {"": {f"p{i}": i - 1 for i in range(1, 5)}, "same: ": {"p1": 3, "p4": 2}}
    own = {"q1": "same: ", "q4": "same: "}
    for examples, tokens in (
        ((Example("q1", ("p1",), ("p4",)), Example("q4", ("p4",))), [23, 22]),
        ((Example("q2", ("p1",), ("p2",)),), [20, 21]),
    ):
        batch = collator(passage_rows=rows, own_passage_prompt=own)(examples)
        assert np.concatenate(batch.texts).tolist()[batch.num_queries :] == tokens


def test_queries_come_first_and_each_side_lies_by_length():
    ids = np.array([10, 10, 10, 11, 12, 12, 13], dtype=np.int32)
    passages = np.array([20, 20, 21, 22, 22, 22, 23], dtype=np.int32)
    collate_long = collator(query_tokens=laid_out(ids, 3, 1, 2, 1), passage_tokens=laid_out(passages, 2, 1, 3, 1))
    examples = [Example("q1", ("p1",), ("p3",)), Example("q4", ("p4",)), Example("q2", ("p1",), ("p4",))]
    batch = collate_long(examples).to("cpu")
    assert [text.tolist() for text in batch.texts] == [[13], [11], [10, 10, 10], [23], [20, 20], [22, 22, 22]]
    assert batch.num_queries == 3
    assert batch.num_tokens == 11
    assert batch.positive.tolist() == [[True, False, False], [False, True, False], [False, True, False]]
    # p1 is relevant to q2 and q1, and p3 to q1 by the same question.
    assert batch.negative.tolist() == [[False, True, True], [True, False, True], [True, False, False]]
    assert batch.positive.dtype == batch.negative.dtype == torch.bool


# --- examples from a collection


def test_examples_bring_all_positives_and_given_negatives_of_the_named_queries():
    plain = made_by_hand()
    negatives = (Negative("q1", "p4"), Negative("q1", "p4"), Negative("q2", "p3"))
    collection = Collection(plain.queries, plain.passages, plain.judgments, negatives)
    made = make_examples(collection, ["q4", "q1"], known_relevant(collection, Similar()))
    assert made == [Example("q4", ("p4",)), Example("q1", ("p1", "p2"), ("p4",))]


def test_given_negatives_that_are_known_to_be_relevant_take_no_place():
    plain = made_by_hand()
    pairs = [("q1", "copy of p1"), ("q1", "p3"), ("q1", "p4"), ("q2", "p4"), ("q2", "p2")]
    collection = Collection(
        plain.queries, plain.passages, plain.judgments, tuple(Negative(*pair) for pair in pairs)
    )  # fmt: skip

    def negatives(similar):
        made = make_examples(collection, ["q1", "q2"], known_relevant(collection, similar))
        return [example.negative_ids for example in made]

    assert negatives(Similar()) == [("p4",), ("p4", "p2")], "a copy of its positive; the positive of the same question"
    assert negatives(Similar(passages=NearCopies({"p4": "p1"}))) == [(), ("p2",)]
    assert negatives(Similar(queries=NearCopies({"q2": "q1"}))) == [("p4",), ("p4",)]


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
    scores = {"q2": {"p1": 0.5, "p4": -2.0, "p3": 7.0}, "q1": {"p2": 0.25}}
    batch = collator(teacher_scores=scores)(
        [Example("q2", ("p1",), ("p2",)), Example("q4", ("p4",))]
    )  # columns p1, p2, p4
    assert batch.teacher[0, 0] == 0.5
    assert batch.teacher[0, 2] == -2.0, "a score of a passage that another query brings is known too"
    assert batch.teacher.isnan().tolist() == [[False, True, False], [True, True, True]]
    assert torch.equal(batch.to("cpu").teacher.isnan(), batch.teacher.isnan())
