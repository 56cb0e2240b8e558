"""Each kind of bad data: the message names file, line, value and fix."""

import gzip
import json
import time

import pyarrow as pa
import pytest

from m3tune.data import files
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.errors import DataError

FINE = '{"query": "fine", "pos": ["good"], "neg": ["bad"]}\n'
BEIR = {
    "corpus.jsonl": '{"_id": "p1", "text": "one"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "first?"}\n',
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\tp1\t1\n",
}


def save(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def one_row(**row):
    return FINE + json.dumps(row) + "\n"


@pytest.mark.parametrize(
    "format, name, content, line, value, fix, reason",
    [
        ("flagembedding", "a.jsonl", one_row(query="q", pos="one"), 2, "'one'", "write a list of texts", "wrong-type"),
        ("flagembedding", "a.jsonl", one_row(query="q", pos=["x"], neg=[""]), 2, "''", "remove it", "empty-text"),
        ("pairs", "a.jsonl", '{"query": "q", "pos": "p", "neg": ["\\t"]}', 1, "'\\t'", "write a text", "empty-text"),
        (
            "flagembedding",
            "a.jsonl",
            one_row(query="q", pos=["q"]),
            2,
            "'q'",
            "the passage that answers",
            "query-is-positive",
        ),
        ("pairs", "a.csv", "query,positive\nq,q\n", 2, "'q'", "the passage that answers", "query-is-positive"),
        (
            "flagembedding",
            "a.jsonl",
            one_row(query="q", pos=["x"], neg=["x"]),
            2,
            "'x'",
            "remove it",
            "positive-among-negatives",
        ),
        ("pairs", "a.tsv", "query\tpositive\tneg\nq\tx\tx\n", 2, "'x'", "remove it", "positive-among-negatives"),
        (
            "flagembedding",
            "a.jsonl",
            one_row(query="q", pos=["x"], pos_scores=[float("nan")]),
            2,
            "nan",
            "one number",
            "bad-score",
        ),
        ("pairs", "a.csv", "query,positive,positive_score\nq,x,nan\n", 2, "'nan'", "write a number", "bad-score"),
        ("pairs", "a.jsonl", '{"query": "q", "pos": "x", "pos_score": NaN}', 1, "nan", "write a number", "bad-score"),
        (
            "flagembedding",
            "a.jsonl",
            FINE + '{"query": "q", "pos": ["x"\n',
            2,
            '\'{"query"',
            "one whole JSON object",
            "broken-json",
        ),
        (
            "pairs",
            "a.csv",
            "qid,query,positive\n7,a,x\n7,b,x\n",
            3,
            "'7' has two texts: 'a' and 'b'",
            "an id of its own",
            "two-texts-for-one-id",
        ),
        ("pairs", "a.csv", "query,body\na,x\n", 2, "no column is the positive", "--column positive=body", "columns"),
        (
            "flagembedding",
            "a.jsonl",
            one_row(query="q", pas=["x"]),
            2,
            "'pos' is missing",
            "rename 'pas' to 'pos'",
            "missing-key",
        ),
        ("flagembedding", "a.jsonl", one_row(query="q", pos=["x", 3]), 2, "3", "write a text", "wrong-type"),
        ("pairs", "a.jsonl", '{"query": 3, "pos": "x"}', 1, "'query' is not a text: 3", "write a text", "wrong-type"),
        ("flagembedding", "a.jsonl", FINE.encode() + b"\x00\xff\xfe\x81\n", 2, "byte 2", "UTF-8", "not-utf8"),
        ("pairs", "a.csv", b"query,positive\nq,x\n\x89PNG,x\n", 3, "byte 1", "UTF-8", "not-utf8"),
    ],
)
def test_a_bad_row(tmp_path, format, name, content, line, value, fix, reason):
    save(tmp_path, {name: content})
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path / name), format)
    assert caught.value.where == f"{tmp_path / name}:{line}"
    assert value in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "changes, where, value, fix, reason",
    [
        ({"qrels/train.tsv": "q1\tp1\t1\nq1\tp7\t1\n"}, "qrels/train.tsv:2", "'p7'", "corpus.jsonl", "unknown-id"),
        ({"qrels/train.tsv": "q1\tp1\tNaN\n"}, "qrels/train.tsv:1", "'NaN'", "1 for relevant", "bad-score"),
        (
            {"corpus.jsonl": BEIR["corpus.jsonl"] + '{"_id": "p1", "text": "two"}\n'},
            "corpus.jsonl:2",
            "'one' and 'two'",
            "id of its own",
            "two-texts-for-one-id",
        ),
    ],
)
def test_bad_beir(tmp_path, changes, where, value, fix, reason):
    save(tmp_path, BEIR | changes)
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path))
    assert caught.value.where == str(tmp_path / where)
    assert value in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "name, pack, value",
    [
        ("a.jsonl.gz", lambda data: gzip.compress(data), "cut off"),
        ("a.jsonl.zst", lambda data: pa.compress(data, "zstd", asbytes=True), "Truncated"),
    ],
)
def test_a_truncated_file(tmp_path, name, pack, value):
    many = "".join(one_row(query=f"q{n}", pos=[f"x{n}"]) for n in range(500)).encode()
    save(tmp_path, {name: pack(many)[:-100]})
    for skip_bad in (False, True):  # how much is missing nobody can say, so it is never left out in silence
        with pytest.raises(DataError) as caught:
            read_collection(str(tmp_path / name), intake=Intake(skip_bad=skip_bad))
        assert caught.value.where == str(tmp_path / name)
        assert value in caught.value.what
        assert "again" in caught.value.fix


@pytest.mark.parametrize(
    "name, start, middle, end",
    [
        ("a.jsonl", '{"query": "q", "pos": ["', "x", '"]}\n' + FINE),
        ("a.csv", "query,positive\nq,", "x", "\nfine,good\n"),
    ],
)
def test_a_line_that_is_too_long(tmp_path, monkeypatch, name, start, middle, end):
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("m3tune.data.tables.MAX_LINE_BYTES", 1000)
    save(tmp_path, {name: start + middle * 3000 + end})
    intake = Intake(skip_bad=True)
    collection, _ = read_collection(str(tmp_path / name), intake=intake)
    assert [query.text for query in collection.queries.values()][-1:] == ["fine"]
    assert sum(intake.counts()["row"]["rejected"].values()) >= 1
    assert "x" * 3000 not in {passage.text for passage in collection.passages.values()}


def test_a_quote_that_nothing_closes_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("m3tune.data.tables.MAX_LINE_BYTES", 1000)
    save(tmp_path, {"a.csv": 'query,positive\nfine,good\nq,"' + "x\n" * 3000})
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path / "a.csv"))
    assert f"{tmp_path / 'a.csv'}:3: a row that cannot be read (field larger than field limit (1000))" in str(
        caught.value
    )
    assert "into quotes" in caught.value.what


def test_a_line_of_100_megabytes_is_named_and_passed_over(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(FINE.encode())
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + FINE.replace("fine", "after").encode())
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path / "a.jsonl"))
    assert caught.value.where == f"{tmp_path / 'a.jsonl'}:2"
    assert "a line of 100,000,001 bytes; more than 67,108,864 are not read" in caught.value.what
    assert "cut the text into passages" in caught.value.fix
    intake = Intake(skip_bad=True)
    collection, _ = read_collection(str(tmp_path / "a.jsonl"), intake=intake)
    assert len(collection.queries) == 2
    assert intake.rejected == {"row": {"line-too-long": 1}}
    assert intake.save_rejected(tmp_path / "rejected.jsonl")
    assert (tmp_path / "rejected.jsonl").stat().st_size < 10_000
    assert time.perf_counter() - start < 10, "it takes a fraction of a second"


def test_a_missing_column_of_a_parquet_file(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"query": ["a"], "text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path / "a.parquet"), "pairs")
    assert caught.value.where == f"{tmp_path / 'a.parquet'}: row 1"
    assert "no column is the positive; here are 'query', 'text'" in caught.value.what
    assert "--column positive=text" in caught.value.fix


def test_bad_rows_do_not_hide_a_format(tmp_path):
    """Detection looks at the first sound row: what is bad before or after it is for the reader to say."""
    save(tmp_path, {"a.jsonl": b"\xff\n" + FINE.encode() + b"\xff\n", "b.csv": b"query,answer\nq,x\n\xff,x\n"})
    for name, format in (("a.jsonl", "flagembedding"), ("b.csv", "pairs")):
        intake = Intake(skip_bad=True)
        collection, why = read_collection(str(tmp_path / name), intake=intake)
        assert why.startswith(f"Read as {format}")
        assert len(collection.queries) == 1
        assert set(intake.rejected["row"]) == {"not-utf8"}
