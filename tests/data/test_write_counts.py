"""What a format cannot hold is counted."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import FILES, FULL, NAMES, SCORES, convert, lost

from m3tune.data.collection import Collection, text_hash
from m3tune.data.intake import Intake
from m3tune.data.read import FORMATS
from m3tune.data.write import LOST, write_collection
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query
from reading import strictly


def test_llamaindex_counts_what_it_cannot_hold():
    read, counts = convert(FULL, "llamaindex")
    assert read == Collection(
        {id_: Query(id_, query.text) for id_, query in FULL.queries.items()},
        {id_: Passage(id_, passage.full_text) for id_, passage in FULL.passages.items()},
        tuple(Judgment(q, p) for q, p in [("q2", "p1"), ("q1", "p1"), ("q1", "p2"), ("q1", "p3"), ("q3", "p0")]),
    )
    assert counts["titles_joined_into_texts"] == 1
    assert lost(counts) == {
        "repeated_judgments": 1,
        "judgments_of_not_relevant": 1,
        "grades_above_1": 1,
        "scores": 4,
        "negatives": 3,
        "prompts": 2,
        "splits": 2,
    }


def test_llamaindex_leaves_out_and_counts_a_query_without_a_relevant_passage():
    collection = Collection(FULL.queries, FULL.passages, FULL.judgments[:2])
    read, counts = convert(collection, "llamaindex")
    assert list(read.queries) == ["q2"]
    assert lost(counts)["queries_without_a_relevant_passage"] == 2


def test_flagembedding_counts_what_it_cannot_hold():
    read, counts = convert(FULL, "flagembedding")
    first, second = (text_hash("b\n"), text_hash("\x1fa"))
    titled, other, alone = map(text_hash, ("title text", "\u2028é", "alone"))
    assert read.queries == {first: Query(first, "b\n"), second: Query(second, "a", "")}
    assert read.judgments == (Judgment(first, titled, 1, 0.5), Judgment(second, titled))
    assert read.negatives == (Negative(first, other, "given", 0.1), Negative(second, alone))
    written = {name: count for name, count in counts.items() if not name.startswith(LOST)}
    assert written == {
        "queries": 2,
        "passages": 3,
        "judgments": 2,
        "negatives": 2,
        "scores": 2,
        "titles_joined_into_texts": 1,
    }
    assert lost(counts) == {
        "queries_empty_or_without_a_relevant_passage": 1,  # q3
        "pairs_of_these_queries": 1,  # q3 p0
        "pairs_with_an_empty_passage": 1,  # q1 p3
        "pairs_with_a_text_of_the_same_row": 2,  # p2 is p1: q2 p2, q1 p2
        "passages_in_no_row": 1,  # p3
        "copies_of_a_passage": 1,  # p2
        "ids": 6,
        "repeated_pairs": 1,  # q1 p1
        "judgments_of_not_relevant": 1,  # q1 p0
        "grades_above_1": 1,
        "scores": 2,  # q3 p0, and one that is no number
        "sources_of_negatives": 1,
        "splits": 2,
    }


def test_flagembedding_writes_scores_only_for_a_whole_list():
    query, passages = Query("q", "a"), {id_: Passage(id_, id_) for id_ in ("x", "y")}
    judgments = (Judgment("q", "x", 1, 0.5), Judgment("q", "y"))
    read, counts = convert(Collection({"q": query}, passages, judgments), "flagembedding")
    assert [judgment.score for judgment in read.judgments] == [None, None]
    assert (counts["scores"], lost(counts)["scores"]) == (0, 1)


@pytest.mark.parametrize("name", NAMES["pairs"])
def test_pairs_count_what_they_cannot_hold(name):
    changed = FULL.passages | {
        "p5": Passage("p5", "a", document="d"),
        "p6": Passage("p6", "six", document="d"),
    }
    more = (Judgment("q1", "p5"), Judgment("q2", "p6", score=0.0))
    queries = {id_: query if id_ != "q2" else Query("q2", "b\r\n") for id_, query in FULL.queries.items()}
    collection = Collection(queries, changed, (*FULL.judgments, *more), FULL.negatives, FULL.splits)
    read, counts = convert(collection, "pairs", name)
    assert read.queries == {"q2": queries["q2"], "q1": Query("q1", "a")}
    assert read.judgments == (
        Judgment("q2", "p1", 1, 0.5),
        Judgment("q2", "p6", 1, 0.0),
        Judgment("q1", "p1"),
        Judgment("q1", "p2"),
    )
    # q2 has p2 as a negative, which is p1 with the title in the text: it stands in the row of p6 alone.
    assert read.negatives == (Negative("q2", "p0", score=0.1), Negative("q2", "p2"), Negative("q1", "p4"))
    assert {id_: passage.full_text for id_, passage in read.passages.items()} == {
        id_: changed[id_].full_text for id_ in ("p1", "p6", "p0", "p2", "p4")
    }
    written = {name: count for name, count in counts.items() if not name.startswith(LOST)}
    assert written == {"queries": 2, "passages": 5, "judgments": 4, "negatives": 3, "scores": 3}
    assert lost(counts) == {
        "queries_empty_or_without_a_relevant_passage": 1,  # q3
        "pairs_of_these_queries": 1,  # q3 p0
        "pairs_with_an_empty_passage": 1,  # q1 p3
        "pairs_of_a_query_with_itself": 1,  # q1 p5
        "passages_in_no_row": 2,  # p3, p5
        "repeated_pairs": 1,  # q1 p1
        "judgments_of_not_relevant": 1,  # q1 p0
        "grades_above_1": 1,
        "scores": 2,  # q3 p0, and one that is no number
        "sources_of_negatives": 1,
        "empty_prompts": 1,
        "splits": 2,
        "documents": 1,  # p6
    }


def test_a_negative_with_the_text_of_the_only_positive_is_counted():
    passages = {"p": Passage("p", "x"), "n": Passage("n", "x"), "m": Passage("m", "y")}
    negatives = (Negative("q", "n"), Negative("q", "m"))
    read, counts = convert(Collection({"q": Query("q", "a")}, passages, (Judgment("q", "p"),), negatives), "pairs")
    assert read.negatives == negatives[1:]
    assert lost(counts) == {"negatives_with_the_text_of_the_positive": 1, "passages_in_no_row": 1}


@pytest.mark.parametrize("kind", ["queries", "passages"])
def test_pairs_cannot_name_a_blank_id(tmp_path, kind):
    queries, passages = {"q": Query("q", "a")}, {"p": Passage("p", "x")}
    blank = {"queries": Query, "passages": Passage}[kind]("", "b")
    id_of = {"queries": "q", "passages": "p"} | {kind: ""}
    collection = Collection(
        queries | {"": blank} if kind == "queries" else queries,
        passages | {"": blank} if kind == "passages" else passages,
        (Judgment(id_of["queries"], id_of["passages"]),),
    )
    with pytest.raises(DataError, match="the id '' is blank"):
        write_collection(collection, tmp_path / "a.csv", "pairs")
    assert not list(tmp_path.iterdir())


def test_a_query_that_is_its_own_positive_is_counted_in_flagembedding():
    passages = {"p": Passage("p", "a"), "r": Passage("r", "b")}
    collection = Collection({"q": Query("q", "a")}, passages, (Judgment("q", "p"), Judgment("q", "r")))
    read, counts = convert(collection, "flagembedding")
    assert [passage.text for passage in read.passages.values()] == ["b"]
    assert lost(counts)["pairs_of_a_query_with_itself"] == 1


def test_scores_and_prompts_of_flagembedding_survive_pairs(tmp_path):
    rows = [
        {"query": "a", "pos": ["one", "two"], "neg": ["three"], "pos_scores": [3, 2.5], "neg_scores": [-1.0]},
        {"query": "b", "pos": ["three"], "neg": ["one", "four"], "prompt": "Find it"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = strictly("flagembedding", tmp_path / "a.jsonl")
    for name in NAMES["pairs"]:
        read, counts = convert(collection, "pairs", name)
        assert read == collection
        assert lost(counts) == {}


def test_beir_counts_what_it_cannot_hold():
    read, counts = convert(FULL, "beir")
    assert read.queries == {id_: Query(id_, query.text) for id_, query in FULL.queries.items()}
    assert read.passages == FULL.passages
    assert read.grades == FULL.grades
    assert read.splits == {"train": ("q2",), "dev": ("q3",), "test": ("q1",)}
    assert counts["splits"] == 3
    assert lost(counts) == {"repeated_judgments": 1, "negatives": 3, "scores": 4, "prompts": 2}


def test_beir_keeps_a_train_split_as_it_is_and_counts_the_rest():
    splits = {"train": ("q2", "q3"), "test": ("q1", "q2")}
    queries = FULL.queries | {"q4": Query("q4", "d"), "q5": Query("q5", "e")}
    judgments = (*FULL.judgments[:4], Judgment("q4", "p0"))
    read, counts = convert(Collection(queries, FULL.passages, judgments, splits=splits), "beir")
    assert read.splits == {"train": ("q2",), "test": ("q2", "q1")}
    assert counts["judgments"] == 3
    assert counts["judgments_in_several_splits"] == 1
    expected = {"judgments_in_no_split": 1, "members_of_a_split_without_a_judgment": 1}
    assert {reason: lost(counts)[reason] for reason in expected} == expected


def test_beir_without_splits_is_all_train():
    read, _ = convert(Collection(FULL.queries, FULL.passages, FULL.judgments), "beir")
    assert read.splits == {"train": ("q2", "q1", "q3")}
    empty, _ = convert(Collection({}, {}, ()), "beir")
    assert empty.splits == {"train": ()}


@st.composite
def any_collections(draw):
    """Few ids and few texts, so that copies, repetitions, contradictions and gaps abound."""
    words = st.sampled_from(["", " ", "a", "b", "a b", "é"])
    queries = draw(st.dictionaries(st.sampled_from("qrst"), st.tuples(words, st.none() | words), min_size=1))
    passages = draw(st.dictionaries(st.sampled_from("wxyz"), st.tuples(words, words), min_size=1))
    pair = st.tuples(st.sampled_from(list(queries)), st.sampled_from(list(passages)))
    return Collection(
        {id_: Query(id_, *value) for id_, value in queries.items()},
        {id_: Passage(id_, *value) for id_, value in passages.items()},
        tuple(Judgment(*ids, *rest) for ids, *rest in draw(st.lists(st.tuples(pair, st.integers(-1, 2), SCORES)))),
        tuple(Negative(*ids, *rest) for ids, *rest in draw(st.lists(st.tuples(pair, st.just("given"), SCORES)))),
        draw(st.dictionaries(st.sampled_from(["train", "dev", "test"]), st.lists(st.sampled_from(list(queries))))),
    )


@pytest.mark.parametrize("format, name", FILES)
@settings(max_examples=60, deadline=None)
@given(collection=any_collections())
def test_counts_balance_and_whatever_is_written_can_be_read(format, name, collection):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        counts = write_collection(collection, path, format)
        read = FORMATS[format](path, Intake())
    assert min(counts.values()) >= 0
    assert len(read.passages) == counts["passages"]
    assert len(read.judgments) == counts["judgments"] or format == "flagembedding"  # where queries of one text unite
    without_query = [name for name in counts if "lost_queries" in name]
    assert counts["queries"] + sum(counts[name] for name in without_query) == len(collection.queries)
    pairs = [name for name in counts if "judgments" in name or "pairs" in name or "negatives" in name]
    uncounted = {"judgments_in_several_splits", "lost_sources_of_negatives"}
    total = sum(counts[name] for name in pairs if name not in uncounted)
    assert total == len(collection.judgments) + len(collection.negatives)
    scored = sum(pair.score is not None for pair in (*collection.judgments, *collection.negatives))
    assert counts.get("scores", 0) + counts["lost_scores"] == scored
