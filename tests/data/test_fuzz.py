"""Whatever the bytes, a reader gives a collection that has everything, or says where, what and how to mend.

`M3TUNE_NIGHTLY=1` (make nightly) tries 10,000 files a reader.
"""

import contextlib
import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz_formats import MORE_CASES
from fuzzing import (
    Case,
    Files,
    Watching,
    as_json_lines,
    changed_bytes,
    changed_rows,
    lines_with_content,
    packed,
    place_of,
)
from m3tune.data.columns import columns_of
from m3tune.data.read import FORMATS, read_collection
from m3tune.errors import DataError

EXAMPLES = 10_000 if os.environ.get("M3TUNE_NIGHTLY") == "1" else 60  # of each case
QUERIES = [{"_id": f"q{n}", "text": f"question {n}"} for n in range(3)]
PASSAGES = [{"_id": f"p{n}", "title": f"Title {n}", "text": f"passage {n}"} for n in range(4)]
QRELS = [("query-id", "corpus-id", "score"), ("q0", "p0", "1"), ("q1", "p1", "2"), ("q2", "p2", "0"), ("q2", "p3", "1")]


# --- BEIR


def make_beir(draw):
    queries = as_json_lines(draw, changed_rows(draw, QUERIES, ("_id", "text")))
    corpus = as_json_lines(draw, changed_rows(draw, PASSAGES, ("_id", "text", "title")))
    lines = [list(line) for line in QRELS]
    if draw(st.booleans()):
        cell = st.sampled_from(["", "q0", "p0", "nan", "1e3", "-1", "9" * 30, "\x00", "\u202e", "0.0", "q9", "1\t1"])
        lines[draw(st.integers(0, 4))][draw(st.integers(0, 2))] = draw(cell)
    qrels = "".join("\t".join(line) + "\n" for line in lines).encode()
    parts = {"queries.jsonl": queries, "corpus.jsonl": corpus, "qrels/train.tsv": qrels, "qrels/test.tsv": qrels}
    broken = draw(st.sampled_from([*parts, *parts, "queries.jsonl"]))
    parts[broken] = changed_bytes(draw, parts[broken])
    files = packed(draw, parts)
    if files.sound:
        headers = sum(is_header(parts[name]) for name in ("qrels/train.tsv", "qrels/test.tsv"))
        files.records = sum(map(lines_with_content, parts.values())) - headers
    return files


def is_header(data):
    fields = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].split(b"\t")
    return [field.strip().lower().replace(b"_", b"-") for field in fields] == [b"query-id", b"corpus-id", b"score"]


def beir_holds(collection, kind, value):
    if kind == "query":
        return collection.queries[str(value["_id"])].text == value["text"]
    if kind == "passage":
        passage = collection.passages[str(value["_id"])]
        return (passage.text, passage.title) == (value["text"], value.get("title") or "")
    query_id, passage_id, grade = value
    return any(j[:3] == (query_id, passage_id, int(float(grade))) for j in collection.judgments) and any(
        query_id in members for members in collection.splits.values()
    )


# --- LlamaIndex


def make_llamaindex(draw):
    document = {
        "queries": {row["_id"]: row["text"] for row in QUERIES},
        "corpus": {row["_id"]: row["text"] for row in PASSAGES},
        "relevant_docs": {f"q{n}": [f"p{n}", "p3"] for n in range(3)},
        "mode": "text",
    }
    records = sum(len(part) for part in list(document.values())[:3])
    for key in ("queries", "corpus", "relevant_docs"):
        before = len(document[key])
        (document[key],) = changed_rows(draw, [document[key]], ("q0", "p1", "q2", "x"))[:1] or [{}]
        records += len(document[key]) - before
    (document,) = changed_rows(draw, [document], tuple(document))[:1] or [{}]
    indent = draw(st.sampled_from([None, 4]))
    whole = json.dumps(document, indent=indent, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    data = changed_bytes(draw, whole)
    files = packed(draw, {"a.json": data})
    kept = all(isinstance(document.get(key), dict) for key in ("queries", "corpus", "relevant_docs"))
    if files.sound and data == whole and kept:
        files.records = sum(len(document[key]) for key in ("queries", "corpus", "relevant_docs"))
    return files


def llamaindex_holds(collection, kind, value):
    id_, content = value
    if kind == "query":
        return collection.queries[id_].text == content
    if kind == "passage":
        return collection.passages[id_].text == content
    return set(content) <= set(collection.positives[id_])


# --- FlagEmbedding

FLAG_ROWS = [
    {"query": "question 0", "pos": ["fine 0"], "neg": ["passage 1", "passage 2"], "neg_scores": [0.5, -1], "type": "x"},
    {"query": "question 1", "pos": ["passage 1", "fine 1"], "pos_scores": [1, 2.5], "neg": [], "prompt": "Find"},
    {"query": "question 2", "pos": ["passage 3"], "neg": ["fine 0"], "batch_size": 4, "id": 7},
]
FLAG_KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type", "batch_size", "x")


def make_flagembedding(draw):
    data = changed_bytes(draw, as_json_lines(draw, changed_rows(draw, FLAG_ROWS, FLAG_KEYS)))
    files = packed(draw, {"a.jsonl": data})
    files.records = lines_with_content(data) if files.sound else None
    return files


def make_flagembedding_folder(draw):
    parts = {}
    for name in ("a.jsonl", "b-no_in_batch_neg.jsonl"):
        parts[name] = changed_bytes(draw, as_json_lines(draw, changed_rows(draw, FLAG_ROWS, FLAG_KEYS)))
    files = packed(draw, parts)
    files.records = sum(map(lines_with_content, parts.values())) if files.sound else None
    return files


def flagembedding_holds(collection, kind, row):
    found = pairs_of(collection)
    query = (row["query"], row.get("prompt"))
    return all((*query, text, "", True) in found for text in row["pos"]) and all(
        (*query, text, "", False) in found for text in row.get("neg") or []
    )


def pairs_of(collection):
    """(query, prompt, passage, title, whether it is relevant) of every pair."""
    found = set()
    for is_positive, pairs in ((True, collection.judgments), (False, collection.negatives)):
        for query_id, passage_id, *_ in pairs:
            query, passage = collection.queries[query_id], collection.passages[passage_id]
            found.add((query.text, query.prompt, passage.text, passage.title, is_positive))
    return found


# --- pairs

PAIR_ROWS = [
    {"query_id": "a", "query": "question 0", "positive": "fine 0", "negative": "passage 1", "title": "T"},
    {"query_id": "b", "query": "question 1", "positive": "passage 1", "negative": "passage 2", "title": ""},
    {"query_id": "c", "query": "question 2", "positive": "passage 3", "negative": "fine 0", "title": "T"},
]
PAIR_KEYS = ("query_id", "query", "positive", "negative", "title", "negative_id", "positive_score", "x")


def make_json_pairs(draw):
    data = changed_bytes(draw, as_json_lines(draw, changed_rows(draw, PAIR_ROWS, PAIR_KEYS)))
    files = packed(draw, {"a.jsonl": data})
    files.records = lines_with_content(data) if files.sound else None
    return files


def make_separated_pairs(separator, name):
    def make(draw):
        rows = changed_rows(draw, PAIR_ROWS, PAIR_KEYS)
        text = io.StringIO()
        names = list(dict.fromkeys(key for row in rows for key in row)) or ["query", "positive"]
        writer = csv.writer(text, delimiter=separator, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
        writer.writerow(names)
        for row in rows:
            writer.writerow([row.get(key) for key in names])
        whole = text.getvalue().encode("utf-8", "surrogatepass")
        data = changed_bytes(draw, whole)
        files = packed(draw, {name: data})
        # A bare carriage return is not quoted where rows end otherwise, so it is in nobody's power to count these rows.
        lone = b"\r" in whole.replace(b"\r\n", b"")
        files.records = len(rows) if files.sound and data == whole and not lone else None
        return files

    return make


def make_parquet_pairs(draw):
    rows = changed_rows(draw, PAIR_ROWS, PAIR_KEYS)
    columns, names = [], list(dict.fromkeys(key for row in rows for key in row))
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            if {} in values:  # which Parquet has no type for
                raise OverflowError
            columns.append(pa.array(values))
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            columns.append(pa.array([str(value).encode("utf-8", "replace") for value in values]))
    sink = io.BytesIO()
    kinds = [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.timestamp("ns")]
    if columns and draw(st.booleans()):
        at = draw(st.integers(0, len(columns) - 1))
        with contextlib.suppress(pa.ArrowException):
            columns[at] = columns[at].cast(draw(st.sampled_from(kinds)), safe=False)
    pq.write_table(pa.table(columns, names), sink, compression=draw(st.sampled_from(["none", "snappy", "zstd"])))
    data = sink.getvalue()
    if draw(st.integers(0, 2)) == 0:
        return packed(draw, {"a.parquet": changed_bytes(draw, data)}, may_pack=False)
    files = packed(draw, {"a.parquet": data}, may_pack=False)
    files.records = len(rows)
    return files


def pairs_hold(collection, kind, row):
    columns = columns_of(tuple(row), {}, "")
    query = (row[columns.query], row[columns.prompt] or None if columns.prompt else None)
    found = {record[:3] + record[4:] for record in pairs_of(collection)}
    sides = [(columns.positive, True), *((names, False) for names in columns.negatives)]
    return all((*query, text, side) in found for names, side in sides for text in texts_in(row[names["text"]]))


def texts_in(cell):
    texts = cell if isinstance(cell, list) else [cell]
    return [text for text in texts if text is not None and text.strip()]


CASES = {
    "beir": [Case(make_beir, beir_holds)],
    "llamaindex": [Case(make_llamaindex, llamaindex_holds, "a.json")],
    "flagembedding": [
        Case(make_flagembedding, flagembedding_holds, "a.jsonl"),
        Case(make_flagembedding_folder, flagembedding_holds),
    ],
    "pairs": [
        Case(make_json_pairs, pairs_hold, "a.jsonl"),
        Case(make_separated_pairs(",", "a.csv"), pairs_hold, "a.csv"),
        Case(make_separated_pairs("\t", "a.tsv"), pairs_hold, "a.tsv"),
        Case(make_parquet_pairs, pairs_hold, "a.parquet"),
    ],
    **MORE_CASES,
}


def test_every_format_is_fuzzed():
    missing = set(FORMATS) - set(CASES)
    assert not missing, f"add cases for {missing} to CASES: hostile files, and what of a record a collection must hold"


@pytest.mark.parametrize(
    "format, case",
    [pytest.param(f, case, id=f"{f}-{case.place or 'folder'}") for f, cases in CASES.items() for case in cases],
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(data=st.data())
def test_a_reader_takes_everything_or_says_what_is_wrong(format, case, data):
    files = case.make(data.draw)
    with tempfile.TemporaryDirectory() as name:
        place = place_of(case, files, Path(name))
        strict = read(place, format, Watching(skip_bad=False))
        intake = Watching(skip_bad=True)
        lenient = read(place, format, intake)
        rejected = Path(name) / "rejected.jsonl"
        assert intake.save_rejected(rejected) == rejected.exists()
        lines = rejected.read_text("utf-8").split("\n")[:-1] if rejected.exists() else []
    bad = sum(sum(reasons.values()) for reasons in intake.rejected.values())
    if not isinstance(lenient, DataError):
        account(files, intake, bad)
        for kind, value in intake.taken:
            assert case.holds(lenient, kind, value), (kind, value)
        for record in (*lenient.queries.values(), *lenient.passages.values()):
            f"{record.id}{record.text}".encode()
        assert isinstance(strict, DataError) == bool(bad)
        if not bad:
            assert strict.fingerprint == lenient.fingerprint
    else:
        assert isinstance(strict, DataError)
    assert len(lines) == bad
    for line in map(json.loads, lines):
        assert line["where"].startswith(name)
        assert line["reason"]
        assert line["what"]
        assert line["fix"]


def read(place, format, intake):
    """The collection, or the error that says where, what and how to mend."""
    try:
        return read_collection(str(place), format, intake=intake)[0]
    except DataError as error:
        answer = error
    assert answer.what
    assert answer.fix
    assert str(place) in str(answer), "it names the place"
    return answer


def account(files: Files, intake, bad):
    counts = intake.counts()
    assert {kind: of_kind["read"] for kind, of_kind in counts.items() if of_kind["read"]} == dict(intake.given)
    assert sum(of_kind["kept"] + of_kind["merged"] for of_kind in counts.values()) == len(intake.taken)
    if files.records is not None:
        assert sum(intake.given.values()) == files.records
