import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import text_hash
from m3tune.data.columns import NAMES, fits, parse_columns
from m3tune.data.files import find_file, open_text
from m3tune.data.read import detect_format, read_collection
from m3tune.data.rows import read_json_lines
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query
from reading import strictly

ROWS = [
    {"question": "a", "Answer": "one, or 1", "negative_1": 'say "two"', "negative-2": "three\nlines"},
    {"question": "b", "Answer": "zwölf\t12", "negative_1": "", "negative-2": "one, or 1"},
]
FILES = ["a.jsonl", "a.json.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.zst", "a.parquet"]


def as_json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_table(rows, separator):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def save(file: Path, content) -> Path:
    """Write rows in the file's own format, or a text or bytes as they are, compressed by the file's name."""
    if isinstance(content, list):
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), file)
            return file
        separator = {".csv": ",", ".tsv": "\t"}.get(next(s for s in file.suffixes if s not in (".gz", ".zst")))
        content = as_table(content, separator) if separator else as_json_lines(content)
    data = content.encode() if isinstance(content, str) else content
    if file.suffix == ".zst":
        with pa.CompressedOutputStream(str(file), "zstd") as stream:
            stream.write(data)
    else:
        file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def assert_error(error: DataError, where: str, value: str, fix: str) -> None:
    assert error.where is not None
    assert error.where.endswith(where), error.where
    assert value in error.what, error.what
    assert fix in error.fix, error.fix


# --- what is read


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_in_every_kind_of_file(tmp_path, name):
    collection, why = read_collection(str(save(tmp_path / name, ROWS)))
    assert why.startswith("Read as pairs: ")
    a, b = text_hash("a"), text_hash("b")
    one, two, three, twelve = map(text_hash, ("one, or 1", 'say "two"', "three\nlines", "zwölf\t12"))
    assert collection.queries == {a: Query(a, "a"), b: Query(b, "b")}
    assert collection.judgments == (Judgment(a, one), Judgment(b, twelve))
    assert collection.negatives == (Negative(a, two), Negative(a, three), Negative(b, one))
    assert {id_: text_hash(passage.text) for id_, passage in collection.passages.items()} == {
        id_: id_ for id_ in (one, two, three, twelve)
    }


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_ids_and_titles(tmp_path, name):
    rows = [
        {"qid": 7, "query": "a", "pos": ["x", "y"], "doc_id": ["p1", "p2"], "title": ["T", None], "neg": ["z", "w"]},
        {"qid": 8, "query": "a", "pos": ["z"], "doc_id": ["p3"], "title": [""], "neg": None},
    ]
    collection = strictly("pairs", save(tmp_path / name, rows))
    assert collection.queries == {"7": Query("7", "a"), "8": Query("8", "a")}
    assert collection.passages == {
        "p1": Passage("p1", "x", "T"),
        "p2": Passage("p2", "y"),
        "p3": Passage("p3", "z"),
        text_hash("w"): Passage(text_hash("w"), "w"),
    }
    assert collection.positives == {"7": ("p1", "p2"), "8": ("p3",)}
    assert collection.given_negatives == {"7": ("p3", text_hash("w"))}, "a negative that a row names has its id"


def test_rows_with_one_query_unite_and_contradictions_are_kept_for_a_check(tmp_path):
    save(tmp_path / "1.csv", "query,positive,negative\na,one,two\n")
    save(tmp_path / "2.jsonl", [{"query": "a", "positive": "two"}, {"query": "a", "positive": "one", "neg": "three"}])
    save(tmp_path / "notes.txt", "not data")
    collection, why = read_collection(str(tmp_path))
    assert "'1.csv', '2.jsonl'" in why
    (query_id,) = collection.queries
    assert collection.positives == {query_id: (text_hash("one"), text_hash("two"))}
    assert collection.given_negatives == {query_id: (text_hash("two"), text_hash("three"))}


def test_columns_can_be_named(tmp_path):
    file = save(tmp_path / "a.csv", "body,ask,url,n2\nP,Q,http://x,N\n")
    columns = parse_columns(["positive=body", "query=ask", "ignore=url", "negative=n2"])
    collection, why = read_collection(str(file), columns=columns)
    assert why == "Read as pairs: the column 'body', 'ask', 'url', 'n2' is named."
    assert collection.judgments == (Judgment(text_hash("Q"), text_hash("P")),)
    assert collection.negatives == (Negative(text_hash("Q"), text_hash("N")),)
    with pytest.raises(DataError, match="llamaindex data has no columns"):
        read_collection(str(file), "llamaindex", columns)


def test_prompts_scores_and_negatives_by_id_in_lists(tmp_path):
    rows = [
        {
            "query": "a",
            "prompt": "Find it",
            "positive": ["x", "y"],
            "positive_score": [0.5, None],
            "negative": ["n", "m"],
            "negative_id": ["p1", None],
            "negative_title": ["T", ""],
            "negative_score": [-1, 2],
        },
        {"query": "a", "positive": "x", "prompt": None, "negative": None, "negative_id": None, "negative_score": []},
    ]
    collection = strictly("pairs", save(tmp_path / "a.jsonl", rows))
    prompted, plain = text_hash("Find it\x1fa"), text_hash("a")
    assert collection.queries == {prompted: Query(prompted, "a", "Find it"), plain: Query(plain, "a")}
    x, y, m = map(text_hash, "xym")
    assert collection.judgments == (Judgment(prompted, x, 1, 0.5), Judgment(prompted, y), Judgment(plain, x))
    assert collection.negatives == (Negative(prompted, "p1", score=-1.0), Negative(prompted, m, score=2.0))
    assert collection.passages["p1"] == Passage("p1", "n", "T")


def test_numbered_columns_of_one_negative_belong_together(tmp_path):
    header = "query,positive,neg_1,negative_2,negative_id_02,hard-neg-id 1,negative_score_2,positive_score,prompt"
    collection = strictly("pairs", save(tmp_path / "a.csv", f"{header}\na,x,n,m,p2,p1,1e-3,7,\na,x,,m,p2,,,,\n"))
    a, x = text_hash("a"), text_hash("x")
    assert collection.queries == {a: Query(a, "a")}
    assert collection.judgments == (Judgment(a, x, 1, 7.0),)
    assert collection.negatives == (Negative(a, "p1"), Negative(a, "p2", score=0.001))


@pytest.mark.parametrize(
    "header, value",
    [
        ("query,answer,neg_1,neg_id_2", "'neg_id_2' belongs to no negative"),
        ("query,answer,neg_1,neg_2,neg_id", "'neg_id' belongs to no negative"),
        ("query,answer,neg_id", "the columns of negatives are none"),
        ("query,answer,neg_1,negative_1,neg_id_1", "'neg_id_1' belongs to no negative, or to several"),
        ("query,answer,neg,neg_id,negative_id", "'negative_id' belongs to no negative, or to several"),
    ],
)
def test_a_column_that_belongs_to_no_negative(tmp_path, header, value):
    with pytest.raises(DataError) as caught:
        strictly("pairs", save(tmp_path / "a.csv", f"{header}\n{header}\n"))
    assert_error(caught.value, "a.csv:2", value, "number them alike")


@pytest.mark.parametrize(
    "more, value, fix",
    [
        ({"positive_score": True}, "'positive_score' is not a finite number: True", "write a number"),
        ({"positive_score": "high"}, "'positive_score' is not a finite number: 'high'", "write a number"),
        ({"positive_score": 10**400}, "'positive_score' is not a finite number: 1000", "write a number"),
        ({"negative": ["n"], "negative_score": [1, 2]}, "'negative_score' has 2 values for 1 texts", "for each text"),
        ({"negative": [], "negative_id": ["p"]}, "'negative_id' has 1 values for 0 texts", "for each text"),
        ({"negative": "n", "negative_id": 1.5}, "'negative_id' is not a text: 1.5", "write a text"),
        ({"prompt": ["Find"]}, "'prompt' is not a text: ['Find']", "write a text"),
    ],
)
def test_what_is_said_of_a_passage_must_fit(tmp_path, more, value, fix):
    with pytest.raises(DataError) as caught:
        strictly("pairs", save(tmp_path / "a.jsonl", [{"query": "a", "positive": "x", **more}]))
    assert_error(caught.value, "a.jsonl:1", value, fix)


def test_line_ends_inside_and_between_rows_of_a_table(tmp_path):
    inside = save(tmp_path / "a.csv", 'query,positive\r\n"a\r\nb","x\ry\n"\r\n')
    collection = strictly("pairs", inside)
    assert [query.text for query in collection.queries.values()] == ["a\r\nb"], "a text is never changed"
    assert [passage.text for passage in collection.passages.values()] == ["x\ry\n"]
    old = save(tmp_path / "b.csv", "query,positive\ra,x\rb,y")
    assert len(strictly("pairs", old).judgments) == 2


def test_a_document_may_be_longer_than_the_csv_module_expects(tmp_path):
    collection = strictly("pairs", save(tmp_path / "a.csv", [{"query": "a", "positive": "x" * 300_000}]))
    assert [len(passage.text) for passage in collection.passages.values()] == [300_000]


def test_a_list_under_pos_is_flagembedding_and_a_text_a_pair(tmp_path):
    assert detect_format(save(tmp_path / "a.jsonl", [{"query": "a", "pos": ["x"], "neg": "n"}]))[0] == "flagembedding"
    assert detect_format(save(tmp_path / "b.jsonl", [{"query": "a", "pos": "x", "neg": "n"}]))[0] == "pairs"
    with pytest.raises(DataError) as caught:
        detect_format(tmp_path)
    assert_error(caught.value, tmp_path.name, "'a.jsonl', 'b.jsonl'", "name the file")


def test_every_known_name_is_a_name_of_one_role():
    names = [name for names in NAMES.values() for name in names]
    assert len(set(names)) == len(names)
    for query in NAMES["query"]:
        assert all(fits([query, positive]) for positive in NAMES["positive"])
    assert not fits(["text", "title", "_id"])


# --- what is wrong


def table(header, *lines):
    return "\n".join([header, "fine" + ",x" * header.count(","), *lines])


@pytest.mark.parametrize(
    "name, content, where, value, fix",
    [
        ("a.csv", "query,body\na,b", "a.csv:2", "no column is the positive; here are 'query', 'body'", "positive=body"),
        ("a.csv", "sentence,answer\na,b", "a.csv:2", "no column is the query", "--column query=sentence"),
        ("a.csv", "query,my text\na,b", "a.csv:2", "no column is the positive", "--column 'positive=my text'"),
        ("a.csv", "query\na", "a.csv:2", "no column is the positive", "--column positive=NAME"),
        ("a.csv", "query,answer,context\na,b,c", "a.csv:2", "are the positive: 'answer', 'context'", "ignore=context"),
        ("a.csv", "query,answer,label\na,b,0", "a.csv:2", "no known name for a column: 'label'", "ignore=label"),
        ("a.csv", "query,answer,answer\na,b,c", "a.csv:1", "'answer' stands twice", "name of its own"),
        ("a.csv", table("query,answer", "a,b,c"), "a.csv:3", "3 cells for 2 columns, from 'a'", "quotes"),
        ("a.csv", table("query,answer", "", "a, "), "a.csv:4", "'answer' is empty: ' '", "drop the row"),
        ("a.csv", table("query,answer", ",b"), "a.csv:3", "'query' is empty: ''", "drop the row"),
        ("a.csv", table("query,answer", '"a\nb",c', "a,"), "a.csv:5", "'answer' is empty", "drop the row"),
        ("a.csv", table("query,answer", '"a"b,c'), "a.csv:3", "expected after", "into quotes"),
        ("a.csv", table("query,answer", '"a,c'), "a.csv:3", "unexpected end of data", "into quotes"),
        ("a.csv", "query,answer,neg\na,b,b", "a.csv:2", "positive and negative: 'b'", "remove it"),
        ("a.csv", table("query,answer,qid", "a,b,"), "a.csv:3", "'qid' is empty", "write a text"),
        ("a.csv", table("query,answer,pid", "a,b,x"), "a.csv:3", "'x' has two texts: 'x' and 'b'", "id of its own"),
        ("a.csv", b"query,answer\nok,b\n\xff,b", "a.csv:3", "byte 1 of the line", "iconv"),
        ("a.csv", b"query\xff,answer\na,b", "a.csv:1", "byte 6 of the line", "iconv"),
        ("a.jsonl", [{"query": "a", "positive": 3}], "a.jsonl:1", "'positive' is not a text: 3", "write a text"),
        ("a.jsonl", [{"query": ["a"], "positive": "b"}], "a.jsonl:1", "'query' is not a text: ['a']", "write a text"),
        ("a.jsonl", [{"query": "a", "positive": []}], "a.jsonl:1", "'positive' is empty: []", "give a positive"),
        ("a.jsonl", [{"query": "a", "positive": "b", "neg": [""]}], "a.jsonl:1", "'neg' is empty", "write a text"),
        (
            "a.jsonl",
            [{"query": "a", "positive": ["b", "c"], "pid": "x"}],
            "a.jsonl:1",
            "1 values for 2",
            "each text",
        ),
        ("a.jsonl", [{"query": "a", "positive": "b", "pid": True}], "a.jsonl:1", "'pid' is not a text", "write a text"),
        (
            "a.jsonl",
            [{"query": "a", "positive": "b", "title": 3}],
            "a.jsonl:1",
            "'title' is not a text",
            "write a text",
        ),
        ("a.parquet", [{"query": "a", "positive": "b"}, {"query": None}], "a.parquet: row 2", "None", "write a text"),
        ("a.parquet", b"PAR1 rubbish", "a.parquet", "not a sound Parquet file", "again"),
    ],
)
def test_broken_pairs(tmp_path, name, content, where, value, fix):
    with pytest.raises(DataError) as caught:
        strictly("pairs", save(tmp_path / name, content))
    assert_error(caught.value, where, value, fix)


@pytest.mark.parametrize(
    "options, value, fix",
    [
        (["positive"], "'positive' has no '='", "positive=body"),
        (["query=a", "positive=a"], "'a' is both query and positive", "one of them"),
        (["postive=b"], "unknown role 'postive'", "did you mean 'positive'?"),
    ],
)
def test_a_column_option_that_cannot_be_read(tmp_path, options, value, fix):
    file = save(tmp_path / "a.csv", "a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        strictly("pairs", file, parse_columns(options))
    assert_error(caught.value, "--column", value, fix)


def test_a_folder_without_pairs(tmp_path):
    with pytest.raises(DataError) as caught:
        strictly("pairs", tmp_path)
    assert_error(caught.value, tmp_path.name, ".parquet", "folder")


# --- zstd


def test_zstd_is_read_like_gzip(tmp_path):
    save(tmp_path / "a.jsonl.zst", "\ufeff" + as_json_lines([{"a": "é" * 100_000}, {"a": 2}]))
    assert find_file(tmp_path, "a.jsonl") == tmp_path / "a.jsonl.zst"
    assert [row.value for row in read_json_lines(tmp_path / "a.jsonl.zst")] == [{"a": "é" * 100_000}, {"a": 2}]


@pytest.mark.parametrize(
    "change, value, fix",
    [
        (lambda data: data[:-5], "Truncated", "again"),
        (lambda data: b"not zstd", "not a sound zstd file", "drop .zst"),
    ],
)
def test_broken_zstd(tmp_path, change, value, fix):
    file = save(tmp_path / "a.jsonl.zst", as_json_lines([{"a": i} for i in range(100)]))
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError) as caught, open_text(file) as text:
        text.read()
    assert_error(caught.value, "a.jsonl.zst", value, fix)


def test_zstd_under_another_name_is_recognised(tmp_path):
    save(tmp_path / "a.zst", "x" * 1000).rename(tmp_path / "a.csv")
    with pytest.raises(DataError) as caught:
        strictly("pairs", tmp_path / "a.csv")
    assert_error(caught.value, "a.csv:1", "not UTF-8", "this is a zstd file: name it a.csv.zst")


# --- whatever the bytes, the reader returns a Collection or raises a DataError

_names = st.sampled_from(["query", "positive", "neg", "negative_2", "qid", "pid", "title", "body", "", "context"])
_words = st.sampled_from(["", " ", "a", "b", '"', "\n", "é"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
_cells = _words | st.lists(_words, max_size=3) | st.none() | st.integers() | st.booleans()
_rows = st.lists(
    st.fixed_dictionaries(
        {"query": _words, "positive": _cells}, optional={"neg": _cells, "pid": _cells, "title": _cells}
    )
    | st.dictionaries(_names, _cells, max_size=4),
    max_size=3,
)
_lines = st.lists(st.lists(_names | _words, max_size=4), max_size=3)
_separated = st.tuples(_lines, st.sampled_from(",\t")).map(
    lambda drawn: "\n".join(["query\tpositive", *(drawn[1].join(line) for line in drawn[0])]).encode()
)
_contents = st.binary(max_size=60) | _separated | _rows.map(lambda rows: as_json_lines(rows).encode())


@settings(max_examples=200, deadline=None)
@given(
    content=_contents, texts=st.lists(st.tuples(_words, _words), max_size=3), cut=st.integers(0, 2000), data=st.data()
)
def test_pairs_raise_nothing_but_data_errors(content, texts, cut, data):
    columns = data.draw(st.dictionaries(_names, st.sampled_from([*NAMES, "ignore", "other"]), max_size=2))
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / file for file in ("a.jsonl", "b.csv", "c.tsv", "d.parquet", "e.csv.zst", "f.parquet")]
        for file in files[:4]:
            file.write_bytes(content)
        files[4].write_bytes(content)
        pq.write_table(pa.table({"query": [q for q, _ in texts], "pos": [p for _, p in texts]}), files[5])
        files[5].write_bytes(files[5].read_bytes()[: cut or None])
        for place in (*files, Path(name)):
            for format, named in (("auto", None), ("pairs", None), ("auto", columns)):
                try:
                    collection, _ = read_collection(str(place), format, named)
                    assert collection.fingerprint
                except DataError:
                    pass
