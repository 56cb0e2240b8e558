import dataclasses
import gzip
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import Collection, text_hash
from m3tune.data.intake import Intake
from m3tune.data.read import FORMATS, read_collection
from m3tune.data.rows import read_json
from m3tune.data.write import LOST, WRITERS, write_collection
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query
from reading import strictly

# How a file of each format is called; the first name is the one for tests that need only one.
NAMES = {
    "beir": ["data"],
    "llamaindex": ["data.json", "data.json.zst"],
    "flagembedding": ["data.jsonl", "data.json.zst"],
    "pairs": ["data.jsonl", "data.jsonl.gz", "data.csv", "data.csv.zst", "data.tsv", "data.tsv.gz", "data.parquet"],
    "trec": ["data"],
    "datasets": ["data"],
}
FILES = [(format, name) for format, names in NAMES.items() for name in names]
FULL = Collection(
    queries={"q2": Query("q2", "b\n"), "q1": Query("q1", "a", ""), "q3": Query("q3", "", "Find 🙂:")},
    passages={
        "p1": Passage("p1", "text", "title"),
        "p0": Passage("p0", "\u2028é"),
        "p2": Passage("p2", "title text"),
        "p3": Passage("p3", " "),
        "p4": Passage("p4", "alone"),
    },
    judgments=(
        Judgment("q2", "p1", 2, 0.5),
        Judgment("q1", "p0", 0),
        Judgment("q1", "p1", -1),
        Judgment("q1", "p1", 1),
        Judgment("q1", "p2", 1),
        Judgment("q1", "p3", 1),
        Judgment("q3", "p0", 1, 0.25),
    ),
    negatives=(Negative("q2", "p0", "bm25", 0.1), Negative("q2", "p2"), Negative("q1", "p4", score=math.nan)),
    splits={"test": ("q1",), "dev": ("q3",)},
)


def convert(collection: Collection, format: str, name: str | None = None) -> tuple[Collection, dict[str, int]]:
    """What is read again after writing, and the counts of the writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (name or NAMES[format][0])
        counts = write_collection(collection, path, format)
        assert [place.name for place in Path(folder).iterdir()] == [path.name]
        read, _ = read_collection(str(path))
        assert FORMATS[format](path, Intake()) == read
    return read, counts


def lost(counts: dict[str, int]) -> dict[str, int]:
    return {reason.removeprefix(LOST): count for reason, count in counts.items() if reason.startswith(LOST) and count}


# --- what a format can hold comes back equal

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_spoken = _texts.filter(str.strip)
_ids = _texts.filter(lambda id_: not set(id_) & set("\t\r\n"))
_scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def llamaindex_collections(draw):
    """Every query with relevant passages, together; no titles, grades, scores, prompts, negatives or splits."""
    passages = draw(st.dictionaries(_texts, _texts, max_size=5))
    queries = draw(st.dictionaries(_texts, _texts, max_size=4)) if passages else {}
    relevant = {
        query_id: draw(st.lists(st.sampled_from(list(passages)), min_size=1, unique=True)) for query_id in queries
    }
    return Collection(
        {id_: Query(id_, text) for id_, text in queries.items()},
        {id_: Passage(id_, text) for id_, text in passages.items()},
        tuple(Judgment(query_id, passage_id) for query_id, ids in relevant.items() for passage_id in ids),
    )


@st.composite
def beir_collections(draw):
    """Splits that are made of judged queries, each query in one of them at most."""
    passages = draw(st.dictionaries(_ids, st.tuples(_texts, _texts), max_size=5))
    queries = draw(st.dictionaries(_ids, _texts, max_size=5))
    pairs = st.lists(st.tuples(st.sampled_from(list(passages)), st.integers(-3, 3)), unique_by=lambda pair: pair[0])
    sides = {query_id: draw(st.sampled_from(["train", "dev", "test", None])) for query_id in queries}
    graded = {query_id: draw(pairs) if passages else [] for query_id in queries}
    judgments, splits = [], {}
    for split in ("train", "dev", "test"):
        members = tuple(query_id for query_id, side in sides.items() if side == split and graded[query_id])
        if members or split == "train":
            splits[split] = members
            judgments += [Judgment(query_id, *pair) for query_id in members for pair in graded[query_id]]
    return Collection(
        {id_: Query(id_, text) for id_, text in queries.items()},
        {id_: Passage(id_, text, title) for id_, (text, title) in passages.items()},
        tuple(judgments),
        splits=splits,
    )


@st.composite
def flagembedding_collections(draw):
    """Ids are hashes; passages stand in the order of the rows; a list has all of its scores or none."""
    queries, passages, judgments, negatives = {}, {}, [], []
    for text, prompt in draw(st.lists(st.tuples(_spoken, st.none() | _texts), max_size=4, unique=True)):
        query = Query(text_hash(text if prompt is None else f"{prompt}\x1f{text}"), text, prompt)
        queries[query.id] = query
        texts = draw(
            st.lists(_spoken.filter(lambda other, text=text: other != text), min_size=1, max_size=5, unique=True)
        )
        positives = draw(st.integers(1, len(texts)))
        for kind, into, part in ((Judgment, judgments, texts[:positives]), (Negative, negatives, texts[positives:])):
            scored = draw(st.booleans())
            for passage_text in part:
                passage = Passage(text_hash(passage_text), passage_text)
                passages.setdefault(passage.id, passage)
                score = draw(st.floats(allow_nan=False, allow_infinity=False)) if scored else None
                into.append(kind(query.id, passage.id, score=score))
    return Collection(queries, passages, tuple(judgments), tuple(negatives))


@st.composite
def pairs_collections(draw):
    """Ids that are not blank; every text is, under its id, in a row; positives of a query and its negatives differ."""
    ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(str.strip)
    made = draw(st.dictionaries(ids, st.tuples(_spoken, _texts), min_size=2, max_size=6))
    passages = {id_: Passage(id_, *texts) for id_, texts in made.items()}
    queries, judgments, negatives = {}, [], []
    for id_, text, prompt in draw(st.lists(st.tuples(ids, _spoken, st.none() | _spoken), max_size=3, unique_by=first)):
        chosen = draw(st.lists(st.sampled_from(list(passages.values())), min_size=1, unique=True))
        chosen = [passage for passage in chosen if passage.full_text != text]
        sides = draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
        positives = [p for p, is_negative in zip(chosen, sides, strict=True) if not is_negative]
        contrary = {text for passage in positives for text in (passage.text, passage.full_text)}
        if positives:
            queries[id_] = Query(id_, text, prompt)
            judgments += [Judgment(id_, passage.id, score=draw(_scores)) for passage in positives]
            negatives += [
                Negative(id_, passage.id, score=draw(_scores))
                for passage, is_negative in zip(chosen, sides, strict=True)
                if is_negative and passage.full_text not in contrary
            ]
    used = {passage_id for _, passage_id, *_ in (*judgments, *negatives)}
    return Collection(
        queries, {id_: p for id_, p in passages.items() if id_ in used}, tuple(judgments), tuple(negatives)
    )


def first(values: tuple) -> object:
    return values[0]


@st.composite
def trec_collections(draw):
    """BEIR's, where ids and texts fit into lines with blanks between the ids, and no passage has a title."""
    collection = draw(beir_collections())
    if any(id_.split() != [id_] for id_ in (*collection.queries, *collection.passages)):
        return Collection({}, {}, ())
    return dataclasses.replace(
        collection,
        queries={id_: Query(id_, " ".join(query.text.split())) for id_, query in collection.queries.items()},
        passages={id_: Passage(id_, " ".join(p.text.split())) for id_, p in collection.passages.items()},
    )


HOLDABLE = {
    "trec": trec_collections(),
    "datasets": pairs_collections(),
    "pairs": pairs_collections(),
    "llamaindex": llamaindex_collections(),
    "beir": beir_collections(),
    "flagembedding": flagembedding_collections(),
}


@pytest.mark.parametrize("format, name", FILES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_a_format_can_hold_comes_back_equal(format, name, data):
    collection = data.draw(HOLDABLE[format])
    if not collection.queries and format != "beir":
        return  # a file without a row, or without keys, is of no format
    read, counts = convert(collection, format, name)
    assert read == collection
    if format not in ("pairs", "datasets"):  # where passages come in the order of the rows
        assert read.fingerprint == collection.fingerprint
    assert (counts["queries"], counts["passages"]) == (len(collection.queries), len(collection.passages))
    assert counts["judgments"] == len(collection.judgments)
    assert counts.get("negatives", 0) == len(collection.negatives)
    unheld = lost(counts)
    assert unheld == {}, unheld


def test_scifact_through_beir_is_equal():
    collection, _ = read_collection("package:m3tune/demo/scifact")
    read, counts = convert(collection, "beir")
    assert read.fingerprint == collection.fingerprint
    assert counts["judgments"] == 1258
    assert lost(counts) == {}


def test_scifact_through_llamaindex_keeps_queries_pairs_and_what_the_encoder_reads():
    collection, _ = read_collection("package:m3tune/demo/scifact")
    read, counts = convert(collection, "llamaindex")
    assert read.positives == collection.positives
    assert {p.id: p.full_text for p in read.passages.values()} == {
        p.id: p.full_text for p in collection.passages.values()
    }
    assert counts["titles_joined_into_texts"] == 5183
    assert lost(counts) == {"splits": 2}


def test_scores_and_prompts_stay_in_flagembedding_rows(tmp_path):
    rows = [
        {"query": "a", "pos": ["one", "two"], "neg": ["three"], "pos_scores": [3, 2.5], "neg_scores": [-1.0]},
        {"query": "b", "pos": ["three"], "neg": [], "prompt": "Find it"},
        {"query": "b", "pos": ["é"], "neg": ["one"], "neg_scores": [0.1]},
    ]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    collection = strictly("flagembedding", source)
    counts = write_collection(collection, tmp_path / "new" / "folder" / "b.jsonl.gz", "flagembedding")
    with gzip.open(tmp_path / "new" / "folder" / "b.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == rows
    assert (counts["scores"], lost(counts)) == (4, {})
    assert strictly("flagembedding", tmp_path / "new" / "folder" / "b.jsonl.gz").fingerprint == collection.fingerprint


# --- what it cannot hold is counted


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
        tuple(Judgment(*ids, *rest) for ids, *rest in draw(st.lists(st.tuples(pair, st.integers(-1, 2), _scores)))),
        tuple(Negative(*ids, *rest) for ids, *rest in draw(st.lists(st.tuples(pair, st.just("given"), _scores)))),
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


# --- where to


def test_a_llamaindex_file_is_what_save_json_writes(tmp_path):
    write_collection(FULL, tmp_path / "a.json", "llamaindex")
    text = (tmp_path / "a.json").read_bytes().decode("ascii")
    value = json.loads(text)
    assert text == json.dumps(value, indent=4)
    assert list(value) == ["queries", "corpus", "relevant_docs", "mode"]
    write_collection(FULL, tmp_path / "b.json.gz", "llamaindex")
    assert read_json(tmp_path / "b.json.gz") == value


def test_the_same_collection_gives_the_same_bytes(tmp_path):
    for format, name in (file for file in FILES if "." in file[1]):
        for folder in ("a", "b"):
            write_collection(FULL, tmp_path / folder / format / name, format)
        assert (tmp_path / "a" / format / name).read_bytes() == (tmp_path / "b" / format / name).read_bytes()


@pytest.mark.parametrize(
    "name, format, value, fix",
    [
        ("a.json", "llama", "unknown format 'llama'", "did you mean 'llamaindex'?"),
        ("a.json", "xyz", "unknown format 'xyz'", "beir, llamaindex, flagembedding, pairs"),
        ("there", "beir", "exists already", "another path"),
        ("link", "beir", "exists already", "another path"),
        ("a.jsonl", "llamaindex", "'a.jsonl'", "'.json', '.json.gz', '.json.zst'"),
        ("a.json", "pairs", "'a.json'", "'.jsonl', '.jsonl.gz', '.jsonl.zst', '.csv'"),
        ("a.txt", "flagembedding", "'a.txt'", "'.jsonl', '.jsonl.gz'"),
    ],
)
def test_a_target_that_cannot_be_written(tmp_path, name, format, value, fix):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        write_collection(FULL, tmp_path / name, format)
    assert value in caught.value.what
    assert fix in caught.value.fix
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


@pytest.mark.parametrize(
    "changes, value",
    [
        ({"queries": FULL.queries | {"a\tb": Query("a\tb", "c")}}, "'a\\tb'"),
        ({"passages": FULL.passages | {"a\nb": Passage("a\nb", "c")}}, "'a\\nb'"),
        ({"splits": {"eval": ("q1",)}}, "'eval'"),
    ],
)
def test_what_beir_cannot_name_is_refused_and_nothing_is_left(tmp_path, changes, value):
    parts = {name: getattr(FULL, name) for name in ("queries", "passages", "judgments")} | changes
    with pytest.raises(DataError) as caught:
        write_collection(Collection(**parts), tmp_path / "out", "beir")
    assert value in caught.value.what
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_is_cut_off_leaves_nothing(tmp_path, monkeypatch):
    def cut_off(collection, path):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("m3tune.data.write.WRITERS", WRITERS | {"llamaindex": cut_off})
    with pytest.raises(KeyboardInterrupt):
        write_collection(FULL, tmp_path / "a.json", "llamaindex")
    assert not list(tmp_path.iterdir())


def test_every_format_that_is_written_is_read():
    assert set(WRITERS) <= set(FORMATS)
    assert set(WRITERS) == set(NAMES) == set(HOLDABLE), "a format to write has names and collections of its own here"
