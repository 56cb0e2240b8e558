import pytest

from m3tune.data.builder import Builder, Sets
from m3tune.data.collection import text_hash
from m3tune.data.intake import Intake
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

Q = Query("q", "a")
X, Y, TITLED = Passage("x", "X"), Passage("y", "Y"), Passage("t", "body", "T")


@pytest.fixture
def builder():
    return Builder(Intake())


def test_rows_with_one_query_unite(builder):
    assert builder.add(Q, [(X, None)], [("n", 0.5)], "1")
    assert not builder.add(Q, [(X, None)], [("n", None)], "2")
    assert builder.add(Q, [(Y, 2.0)], [], "3")
    assert builder.add(Q, [(X, 1.0)], [], "4"), "a score where there was none is news"
    n = text_hash("n")
    collection = builder.collection()
    assert collection.judgments == (Judgment("q", "x", score=1.0), Judgment("q", "y", score=2.0))
    assert collection.negatives == (Negative("q", n, score=0.5),)
    assert list(collection.passages) == ["x", "y", n]


def test_a_negative_without_an_id_is_the_passage_that_another_row_names(builder):
    builder.add(Q, [(X, None)], [("Y", None), ("body", None)], "1")
    builder.add(Query("r", "b"), [(Y, None), (TITLED, None)], [(X, None)], "2")
    collection = builder.collection()
    assert collection.given_negatives == {"q": ("y", "t"), "r": ("x",)}
    assert list(collection.passages) == ["x", "y", "t"]


def test_one_negative_by_its_id_and_by_its_text_is_one(builder):
    builder.add(Q, [(X, None)], [(Y, None), ("Y", 0.25)], "1")
    assert builder.collection().negatives == (Negative("q", "y", score=0.25),)


def test_a_contradiction_of_two_rows_is_kept(builder):
    builder.add(Q, [(X, None)], [("Y", None)], "1")
    builder.add(Q, [(Y, None)], [], "2")
    collection = builder.collection()
    assert collection.positives == {"q": ("x", "y")}
    assert collection.given_negatives == {"q": ("y",)}


@pytest.mark.parametrize(
    "query, positives, negatives, reason, what",
    [
        (Q, [X, Y], ["Y"], "positive-among-negatives", "'Y'"),
        (Q, [X], [Passage("other", "X")], "positive-among-negatives", "'X'"),
        (Q, [TITLED], ["body"], "positive-among-negatives", "'body'"),
        (Q, [TITLED], ["T body"], "positive-among-negatives", "'T body'"),
        (Q, [Passage("p", "a")], [], "query-is-positive", "'a'"),
        (Query("q", "T body"), [TITLED], [], "query-is-positive", "'T body'"),
        (Query("known", "b"), [X], ["n"], "two-texts-for-one-id", "'known'"),
        (Q, [X, Passage("known", "b")], ["n"], "two-texts-for-one-id", "'known'"),
        (Q, [X], [Passage("known", "b")], "two-texts-for-one-id", "'known'"),
        (Q, [Passage("p", "1"), Passage("p", "2")], [], "two-texts-for-one-id", "'1' and '2'"),
        (Q, [Passage("p", "1")], [Passage("p", "2")], "two-texts-for-one-id", "'1' and '2'"),
    ],
)
def test_a_bad_row_is_an_error_and_adds_nothing(builder, query, positives, negatives, reason, what):
    builder.add(Query("known", "K"), [(Passage("known", "known"), None)], [], "1")
    with pytest.raises(DataError) as caught:
        builder.add(query, [(p, None) for p in positives], [(n, None) for n in negatives], "a:2")
    assert (caught.value.where, caught.value.reason) == ("a:2", reason)
    assert what in caught.value.what
    assert caught.value.fix
    collection = builder.collection()
    assert (list(collection.queries), list(collection.passages)) == (["known"], ["known"])
    assert len(collection.pairs) == 1


def test_a_title_tells_texts_apart(builder):
    other = Passage("u", "body", "U")
    assert builder.add(Q, [(TITLED, None)], [(other, None)], "1")
    assert builder.collection().given_negatives == {"q": ("u",)}


def test_sets_are_told_apart_by_their_options():
    sets = Sets()
    assert sets.put("q", "a", True, {})
    assert not sets.put("q", "a", True, {})
    assert sets.put("r", "a", False, {"type": "x"})
    assert sets.put("q", "a", False, {"type": "x"})
    assert sets.put("s", "a-2", True, {})
    assert sets.by_name() == {
        "a": QuerySet(("q",)),
        "a-2": QuerySet(("r", "q"), False, {"type": "x"}),
        "a-2-2": QuerySet(("s",)),
    }
