"""What a format can hold comes back equal."""

import dataclasses
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import FILES, IDS, NAMES, SCORES, SPOKEN, TEXTS, convert, lost

from m3tune.data.collection import Collection, text_hash
from m3tune.data.read import FORMATS, read_collection
from m3tune.data.write import WRITERS, write_collection
from m3tune.types import Judgment, Negative, Passage, Query
from reading import strictly


@st.composite
def llamaindex_collections(draw):
    """Every query with relevant passages, together; no titles, grades, scores, prompts, negatives or splits."""
    passages = draw(st.dictionaries(TEXTS, TEXTS, max_size=5))
    queries = draw(st.dictionaries(TEXTS, TEXTS, max_size=4)) if passages else {}
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
    passages = draw(st.dictionaries(IDS, st.tuples(TEXTS, TEXTS), max_size=5))
    queries = draw(st.dictionaries(IDS, TEXTS, max_size=5))
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
    for text, prompt in draw(st.lists(st.tuples(SPOKEN, st.none() | TEXTS), max_size=4, unique=True)):
        query = Query(text_hash(text if prompt is None else f"{prompt}\x1f{text}"), text, prompt)
        queries[query.id] = query
        texts = draw(
            st.lists(SPOKEN.filter(lambda other, text=text: other != text), min_size=1, max_size=5, unique=True)
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
    made = draw(st.dictionaries(ids, st.tuples(SPOKEN, TEXTS), min_size=2, max_size=6))
    passages = {id_: Passage(id_, *texts) for id_, texts in made.items()}
    queries, judgments, negatives = {}, [], []
    for id_, text, prompt in draw(st.lists(st.tuples(ids, SPOKEN, st.none() | SPOKEN), max_size=3, unique_by=first)):
        chosen = draw(st.lists(st.sampled_from(list(passages.values())), min_size=1, unique=True))
        chosen = [passage for passage in chosen if passage.full_text != text]
        sides = draw(st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
        positives = [p for p, is_negative in zip(chosen, sides, strict=True) if not is_negative]
        contrary = {text for passage in positives for text in (passage.text, passage.full_text)}
        if positives:
            queries[id_] = Query(id_, text, prompt)
            judgments += [Judgment(id_, passage.id, score=draw(SCORES)) for passage in positives]
            negatives += [
                Negative(id_, passage.id, score=draw(SCORES))
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


def test_every_format_that_is_written_is_read():
    assert set(WRITERS) <= set(FORMATS)
    assert set(WRITERS) == set(NAMES) == set(HOLDABLE), "a format to write has names and collections of its own here"
