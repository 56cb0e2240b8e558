"""Hostile files of TREC, saved data sets and documents, for tests/data/test_fuzz.py."""

import io
import json

import pyarrow as pa
from hypothesis import strategies as st

from fuzzing import Case, changed_bytes, changed_rows, packed
from m3tune.data.collection import text_hash

TEXTS = [
    "one",
    "two words.",
    "三個字。",
    "a < b & c",
    "",
    " ",
    "Number: 1",
    "<p>x</p>",
    "&amp;",
    "</DOC>",
    "<top>",
    "id",
    "\x00",
    "\u2028",
    "x" * 300,
]
IDS = ["q0", "q1", "p0", "p1", "", " ", "id", "<", "q 0", "\ufeff"]
GRADES = ["1", "0", "2", "-1", "nan", "1e3", "", "9" * 30]
MARKDOWN = [
    "# One",
    "## Two",
    "===",
    "---",
    "```",
    "~~~~",
    "text.",
    "字。" * 30,
    "",
    "",
    "- item",
    "    code",
    "| a | b |",
    "word " * 90,
]


def breaks_one(draw, parts):
    broken = draw(st.sampled_from(list(parts)))
    parts[broken] = changed_bytes(draw, parts[broken])
    return packed(draw, parts)


def make_trec(draw):
    ids, texts = st.sampled_from(IDS), st.sampled_from(TEXTS)
    records = st.lists(st.tuples(ids, texts), max_size=4).map(lambda some: [("q0", "one"), ("p0", "two"), *some])
    topics, passages = draw(records), draw(records)
    if draw(st.booleans()):
        lines = "".join(f"<top>\n<num> Number: {id_}\n<title> {text}\n" for id_, text in topics)
        closing = draw(st.sampled_from(["</TEXT></DOC>", "</DOC>", ""]))
        corpus = "".join(f"<DOC><DOCNO>{id_}</DOCNO>\n<TEXT>{text}{closing}\n" for id_, text in passages)
    else:
        lines, corpus = ("".join(f"{id_}\t{text}\n" for id_, text in some) for some in (topics, passages))
    judged = draw(st.lists(st.tuples(ids, ids, st.sampled_from(GRADES)), max_size=3))
    qrels = "".join(f"{q} 0 {p} {grade}\n" for q, p, grade in [("q0", "p0", "1"), *judged])
    return breaks_one(
        draw, {"topics.txt": lines.encode(), "corpus.txt": corpus.encode(), "qrels.train.txt": qrels.encode()}
    )


def trec_holds(collection, kind, value):
    if kind == "query":
        return collection.queries[value[0]].text == value[1]
    if kind == "passage":
        passage = collection.passages[value[0]]
        return (passage.text, passage.title) == value[1:]
    query_id, _, passage_id, grade = value
    return any(
        (j.query_id, j.passage_id, j.grade) == (query_id, passage_id, int(float(grade))) for j in collection.judgments
    )


PAIRS = [
    {"query": f"question {n}", "positive": f"answer {n}", "negative": ["wrong", f"worse {n}"], "query_id": f"q{n}"}
    for n in range(3)
]


def make_saved(draw):
    rows = changed_rows(draw, PAIRS, ("query", "positive", "negative", "query_id"))
    columns, names = [], list(dict.fromkeys(key for row in rows for key in row))
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns.append(pa.array(values))
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            columns.append(pa.array([str(value).encode("utf-8", "replace") for value in values]))
    table, sink = pa.table(columns, names), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=draw(st.integers(1, 3)))
    files = {
        "dataset_dict.json": json.dumps(
            {"splits": draw(st.sampled_from([["train"], ["dev", "train"], [""], [3], "x"]))}
        ),
        "train/state.json": json.dumps({"_data_files": [{"filename": draw(st.sampled_from(["a", "a", "b", ""]))}]}),
    }
    parts = {name: text.encode() for name, text in files.items()} | {"train/a": sink.getvalue()}
    broken = draw(st.sampled_from(list(parts)))
    parts[broken] = changed_bytes(draw, parts[broken])
    return packed(draw, parts, may_pack=False)


def saved_holds(collection, kind, row):
    texts = {passage.text for passage in collection.passages.values()}
    return any(query.text == row["query"] for query in collection.queries.values()) and (
        row["positive"] in texts if isinstance(row["positive"], str) else texts.issuperset(row["positive"])
    )


def make_documents(draw):
    lines = st.lists(st.sampled_from(MARKDOWN), max_size=12)
    questions = [{"query": "q", "document": "a.md"}, {"query": "r", "document": "b/c.txt", "quote": "text."}]
    rows = changed_rows(draw, questions, ("query", "document", "quote"))
    parts = {
        "a.md": "\n".join(["text.", *draw(lines)]).encode(),
        "b/c.txt": "\n".join(draw(lines)).encode(),
        "questions.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    }
    if draw(st.booleans()):
        del parts["questions.jsonl"]
    return breaks_one(draw, parts)


def documents_hold(collection, kind, value):
    if kind == "document":
        return any(value.as_posix().endswith(p.document) and p.text.strip() for p in collection.passages.values())
    asked = value.get("query", value.get("question"))
    return text_hash(asked) in collection.positives


MORE_CASES = {
    "trec": [Case(make_trec, trec_holds)],
    "datasets": [Case(make_saved, saved_holds)],
    "documents": [Case(make_documents, documents_hold)],
}
