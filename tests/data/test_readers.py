import gzip
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import text_hash
from m3tune.data.files import find_file, open_text
from m3tune.data.intake import Row
from m3tune.data.read import FORMATS, detect_format, read_collection
from m3tune.data.rows import read_json_lines
from m3tune.errors import DataError
from m3tune.paths import resolve_path
from m3tune.types import Judgment, Negative, Query
from reading import strictly

CORPUS = '{"_id": "p1", "title": "T", "text": "one"}\n{"_id": "p2", "text": "two"}\n'
QUERIES = '{"_id": "q1", "text": "first?"}\n{"_id": "q2", "text": "second?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq2\tp2\t2\n"
BEIR = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/train.tsv": QRELS}
LLAMAINDEX = {"queries": {"q1": "first?"}, "corpus": {"p1": "one", "p2": "two"}, "relevant_docs": {"q1": ["p1"]}}


def write(folder: Path, files: dict) -> Path:
    """Write texts, bytes or JSON values; None leaves a file out; a name in .gz is compressed."""
    for name, content in files.items():
        if content is None:
            continue
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        data = content.encode() if isinstance(content, str) else content
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") and not data.startswith(b"!") else data)
    return folder


def rows(*values: dict) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def values(file: Path) -> list:
    """The objects of JSON lines; the first bad line raises its error."""
    found = []
    for row in read_json_lines(file):
        if row.error:
            raise row.error
        found.append(row.value)
    return found


def assert_error(error: DataError, where: str, value: str, fix: str) -> None:
    assert error.where is not None
    assert error.where.endswith(where), error.where
    assert value in error.what, error.what
    assert error.fix is not None
    assert fix in error.fix, error.fix


# --- files


def test_open_text_reads_plain_gzip_and_a_byte_order_mark(tmp_path):
    write(tmp_path, {"plain.txt": "é\n", "packed.txt.gz": "é\n", "marked.txt": b"\xef\xbb\xbf\xc3\xa9\n"})
    for name in ("plain.txt", "packed.txt.gz", "marked.txt"):
        with open_text(tmp_path / name) as file:
            assert file.read() == "é\n"


def test_find_file(tmp_path):
    write(tmp_path, {"a.tsv": "", "b.tsv.gz": "", "c.tsv": "", "c.tsv.gz": ""})
    assert find_file(tmp_path, "a.tsv") == tmp_path / "a.tsv"
    assert find_file(tmp_path, "b.tsv") == tmp_path / "b.tsv.gz"
    assert find_file(tmp_path, "d.tsv") is None
    with pytest.raises(DataError) as caught:
        find_file(tmp_path, "c.tsv")
    assert_error(caught.value, tmp_path.name, "c.tsv.gz", "remove")


def test_json_lines_keep_their_line_numbers_over_blank_lines(tmp_path):
    file = write(tmp_path, {"a.jsonl": '\n{"a": 1}\r\n  \n{"a": "x\u2028y"}'}) / "a.jsonl"
    assert list(read_json_lines(file)) == [Row(f"{file}:2", {"a": 1}), Row(f"{file}:4", {"a": "x\u2028y"})]


LONG = '{"a": "' + "x" * 200


@pytest.mark.parametrize(
    "name, content, where, value, fix",
    [
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "a.jsonl:2", "'{\"a\": }'", "one whole JSON object on each line"),
        ("a.jsonl", LONG, "a.jsonl:1", repr(LONG[:80]) + "…", "one whole JSON object"),
        ("a.jsonl", "[1, 2]", "a.jsonl:1", "not a JSON object: [1, 2]", "jq -c '.[]'"),
        ("a.jsonl", "{\n}", "a.jsonl:1", "'{'", "jq -c ."),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "a.jsonl:1", "version", "git lfs pull"),
        ("a.jsonl", '{"a": 1, "a": 2}', "a.jsonl:1", "'a' stands twice", "one whole JSON object"),
        ("a.jsonl", '{"a": "\\ud83d"}', "a.jsonl:1", "'\\ud83d'", "emoji"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1", "nested too deeply", "JSON object"),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", "a.jsonl:1", "4300", "JSON object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', "a.jsonl:2", "byte 8 of the line", "iconv"),
        ("a.jsonl", b"x" * 200_000 + b"\xc3", "a.jsonl:1", "byte 200001 of", "iconv"),
        ("a.jsonl.gz", b"x" + b"\xc3\xa9" * 100_000 + b"\xff", "a.jsonl.gz:1", "byte 200002 of", "iconv"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "a.jsonl:1", "byte 1 of", "-f UTF-16"),
        ("a.jsonl", gzip.compress(b"{}"), "a.jsonl:1", "byte 2 of", "a.jsonl.gz"),
        ("a.jsonl.gz", b"!not gzip", "a.jsonl.gz", "not a sound gzip file", "drop .gz"),
    ],
)
def test_broken_json_lines(tmp_path, name, content, where, value, fix):
    with pytest.raises(DataError) as caught:
        values(write(tmp_path, {name: content}) / name)
    assert_error(caught.value, where, value, fix)


def test_truncated_gzip(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(rows(*({"a": i} for i in range(1000))).encode())[:-200])
    with pytest.raises(DataError) as caught:
        list(read_json_lines(file))
    assert_error(caught.value, "a.jsonl.gz", "cut off", "again")


def test_a_folder_is_not_a_text_file(tmp_path):
    with pytest.raises(DataError) as caught:
        list(read_json_lines(tmp_path))
    assert_error(caught.value, tmp_path.name, "cannot be read", "file")


# --- BEIR


def test_the_shipped_scifact():
    collection, why = read_collection("package:m3tune/demo/scifact")
    assert "beir" in why
    assert len(collection.passages) == 5183
    assert {name: len(query_ids) for name, query_ids in collection.splits.items()} == {"train": 809, "test": 300}
    split_of = {query_id: name for name, query_ids in collection.splits.items() for query_id in query_ids}
    assert Counter(split_of[judgment.query_id] for judgment in collection.judgments) == {"train": 919, "test": 339}
    assert collection.passages["4983"].full_text.startswith("Microstructural development of human newborn")


def test_beir_keeps_queries_titles_grades_and_the_order_of_splits(tmp_path):
    qrels = "q2\tp2\t2\nq1\tp1\t0\nq2\tp1\t1.0\n"  # without a header
    files = {"corpus.jsonl.gz": CORPUS, "queries.jsonl": QUERIES + '{"_id": 3, "text": "unjudged?"}\n'}
    collection = strictly("beir", write(tmp_path, files | {"qrels/test.tsv": QRELS, "qrels/valid.tsv.gz": qrels}))
    assert collection.splits == {"dev": ("q2", "q1"), "test": ("q1", "q2")}
    assert list(collection.splits) == ["dev", "test"]
    assert collection.queries["3"] == Query("3", "unjudged?")
    assert collection.passages["p1"].full_text == "T one"
    assert collection.judgments[:3] == (Judgment("q2", "p2", 2), Judgment("q1", "p1", 0), Judgment("q2", "p1", 1))


def test_beir_allows_the_same_row_twice(tmp_path):
    assert len(strictly("beir", write(tmp_path, BEIR | {"corpus.jsonl": CORPUS + CORPUS})).passages) == 2


@pytest.mark.parametrize(
    "files, where, value, fix",
    [
        ({"corpus.jsonl": None}, "", "corpus.jsonl is missing", "queries.jsonl and qrels/{train,dev,test}.tsv"),
        ({"queries.jsonl": None}, "", "queries.jsonl is missing", "corpus.jsonl"),
        ({"qrels/train.tsv": None}, "", "qrels/ is missing", "qrels/{train,dev,test}.tsv"),
        ({"corpus.jsonl.gz": CORPUS}, "", "corpus.jsonl.gz", "remove"),
        ({"qrels/eval.tsv": QRELS}, "qrels/eval.tsv", "'eval.tsv'", "train, dev, val, valid, validation, test"),
        ({"qrels/test.txt": QRELS}, "qrels/test.txt", "'test.txt'", ".tsv.gz"),
        ({"qrels/dev.tsv": QRELS, "qrels/val.tsv": QRELS}, "qrels", "dev.tsv and val.tsv", "keep one"),
        (
            {"corpus.jsonl": CORPUS + '{"_id": "p1", "text": "1"}'},
            "corpus.jsonl:3",
            "'p1' has two texts",
            "id of its own",
        ),
        ({"queries.jsonl": QUERIES + '{"_id": "q1", "text": "x"}'}, "queries.jsonl:3", "'x'", "id of its own"),
        ({"corpus.jsonl": '{"id": "p1", "text": "one"}'}, "corpus.jsonl:1", "'_id' is missing", "rename 'id' to '_id'"),
        ({"corpus.jsonl": '{"_id": "p1", "body": 1}'}, "corpus.jsonl:1", "'text' is missing", "'text'"),
        ({"corpus.jsonl": '{"_id": "p1", "text": null}'}, "corpus.jsonl:1", "None", "JSON string"),
        ({"corpus.jsonl": '{"_id": "p", "text": "", "title": 7}'}, "corpus.jsonl:1", "7", "'title' as a JSON string"),
        ({"corpus.jsonl": '{"_id": true, "text": "one"}'}, "corpus.jsonl:1", "True", "JSON string"),
        ({"qrels/train.tsv": QRELS + "q9\tp1\t1"}, "train.tsv:4", "query 'q9' is unknown", "queries.jsonl"),
        ({"qrels/train.tsv": QRELS + "q1\tp9\t1"}, "train.tsv:4", "passage 'p9' is unknown", "corpus.jsonl"),
        ({"qrels/train.tsv": QRELS + "q1\tp1\t0.5"}, "train.tsv:4", "'0.5'", "1 for relevant"),
        ({"qrels/train.tsv": QRELS + "q1\tp1\tnan"}, "train.tsv:4", "'nan'", "1 for relevant"),
        ({"qrels/train.tsv": QRELS + "q1\tp1\tinf"}, "train.tsv:4", "'inf'", "1 for relevant"),
        ({"qrels/train.tsv": QRELS + "q1 0 p1 1"}, "train.tsv:4", "'q1 0 p1 1'", "with a tab between"),
        ({"qrels/train.tsv": "q1\tp1\t1\n" + QRELS}, "train.tsv:2", "'query-id'", "queries.jsonl"),
    ],
)
def test_broken_beir(tmp_path, files, where, value, fix):
    with pytest.raises(DataError) as caught:
        strictly("beir", write(tmp_path, BEIR | files))
    assert_error(caught.value, where or tmp_path.name, value, fix)


# --- LlamaIndex


def test_llamaindex_keeps_every_relevant_passage(tmp_path):
    value = LLAMAINDEX | {"relevant_docs": {"q1": ["p2", "p1", "p2"]}, "mode": "text"}
    collection = strictly("llamaindex", write(tmp_path, {"a.json.gz": value}) / "a.json.gz")
    assert collection.positives == {"q1": ("p2", "p1")}
    assert collection.passages["p2"].full_text == "two"
    assert collection.splits == {}


@pytest.mark.parametrize(
    "value, where, what, fix",
    [
        ([1], "a.json", "[1]", "save_json"),
        ({"queries": {}, "corpus": {}, "relevant": {}}, "a.json", "'relevant_docs' is missing", "rename 'relevant'"),
        (LLAMAINDEX | {"mode": "image"}, "a.json: mode", "'image'", "'text'"),
        (LLAMAINDEX | {"queries": ["first?"]}, "a.json: queries", "['first?']", "keyed by id"),
        (LLAMAINDEX | {"corpus": {"p1": 5}}, "a.json: corpus['p1']", "5", "JSON string"),
        (LLAMAINDEX | {"relevant_docs": []}, "a.json: relevant_docs", "[]", "keyed by id"),
        (LLAMAINDEX | {"relevant_docs": {}}, "a.json: relevant_docs", "'q1' has no entry", "drop it"),
        (LLAMAINDEX | {"relevant_docs": {"q1": []}}, "relevant_docs['q1']", "[]", "at least one"),
        (LLAMAINDEX | {"relevant_docs": {"q1": "p1"}}, "relevant_docs['q1']", "'p1'", "write a list"),
        (LLAMAINDEX | {"relevant_docs": {"q1": ["p9"]}}, "relevant_docs['q1']", "'p9' is unknown", "'corpus'"),
        (LLAMAINDEX | {"relevant_docs": {"q1": [1]}}, "relevant_docs['q1']", "1 is unknown", "ids are strings"),
        (LLAMAINDEX | {"relevant_docs": {"q1": ["p1"], "q9": ["p1"]}}, "docs['q9']", "'q9' is unknown", "'queries'"),
        ('{"queries":\n{"q1": "first?"},\n', "a.json:3", "broken JSON", "cut off"),
    ],
)
def test_broken_llamaindex(tmp_path, value, where, what, fix):
    with pytest.raises(DataError) as caught:
        strictly("llamaindex", write(tmp_path, {"a.json": value}) / "a.json")
    assert_error(caught.value, where, what, fix)


# --- FlagEmbedding


def test_flagembedding_keeps_scores_and_prompts_and_stores_each_text_once(tmp_path):
    text = rows(
        {"query": "a", "pos": ["one", "two"], "neg": ["three"], "pos_scores": [3, 2.5], "neg_scores": [-1.0]},
        {"query": "b", "pos": ["three"], "prompt": "Find it", "neg": None, "neg_scores": None, "type": "x", "id": 4},
        {"query": "b", "pos": ["four"], "neg": [], "neg_scores": []},
    )
    collection = strictly("flagembedding", write(tmp_path, {"a.jsonl": text}) / "a.jsonl")
    one, two, three, four = map(text_hash, ("one", "two", "three", "four"))
    first, prompted, plain = collection.queries
    assert [query.prompt for query in collection.queries.values()] == [None, "Find it", None]
    assert set(collection.passages) == {one, two, three, four}
    assert collection.judgments == (
        Judgment(first, one, 1, 3.0),
        Judgment(first, two, 1, 2.5),
        Judgment(prompted, three),
        Judgment(plain, four),
    )
    assert collection.negatives == (Negative(first, three, "given", -1.0),)


def test_flagembedding_rows_with_one_query_unite_and_contradictions_are_kept_for_a_check(tmp_path):
    files = {
        "1.jsonl": rows({"query": "a", "pos": ["one"], "neg": ["two", "three"]}),
        "2.json.gz": rows({"query": "a", "pos": ["two", "one"], "pos_scores": [1.0, 2.0], "neg": ["three", "four"]}),
        "notes.txt": "not data",
    }
    collection = strictly("flagembedding", write(tmp_path, files))
    (query_id,) = collection.queries
    one, two, three, four = map(text_hash, ("one", "two", "three", "four"))
    assert collection.judgments == (Judgment(query_id, one, 1, 2.0), Judgment(query_id, two, 1, 1.0))
    assert collection.given_negatives == {query_id: (two, three, four)}
    assert {name: of_set.query_ids for name, of_set in collection.sets.items()} == {"1": (query_id,), "2": (query_id,)}


def row(**changes: object) -> str:
    value = {"query": "a", "pos": ["one"], "neg": ["two"]} | changes
    return rows({"query": "fine", "pos": ["x"]}, {key: item for key, item in value.items() if item != "absent"})


@pytest.mark.parametrize(
    "text, value, fix",
    [
        (row(query="absent"), "'query' is missing", "add 'query'"),
        (row(query=["a"]), "['a']", "JSON string"),
        (row(query=" "), "' '", "write the question"),
        (row(pos="absent", positives=["one"]), "'pos' is missing", "rename 'positives'"),
        (row(pos="one"), "'pos' is not a list: 'one'", '"pos": ["…"]'),
        (row(neg="two"), "'neg' is not a list: 'two'", '"neg": ["…"]'),
        (row(pos=[]), "'pos' is empty for the query 'a'", "give a positive"),
        (row(pos=["one", ""]), "'pos' holds ''", "remove it"),
        (row(neg=[None]), "'neg' holds None", "remove it"),
        (row(neg=["two", "one"]), "a text is both positive and negative: 'one'", "remove it from the one"),
        (row(prompt=3), "'prompt' is not a text: 3", "JSON string"),
        (row(pos_scores=0.5), "'pos_scores' is not a list: 0.5", "leave 'pos_scores' out"),
        (row(neg_scores=[1, 2]), "2 scores for 1 texts", "one number for each text"),
        (row(neg_scores=[math.nan]), "'neg_scores' holds nan", "leave 'neg_scores' out"),
        (row(neg_scores=[math.inf]), "'neg_scores' holds inf", "leave 'neg_scores' out"),
        (row(neg_scores=[10**400]), "'neg_scores' holds 1000", "leave 'neg_scores' out"),
        (row(pos_scores=["1"]), "'pos_scores' holds '1'", "leave 'pos_scores' out"),
        (row(pos_scores=[True]), "'pos_scores' holds True", "leave 'pos_scores' out"),
    ],
)
def test_broken_flagembedding(tmp_path, text, value, fix):
    with pytest.raises(DataError) as caught:
        strictly("flagembedding", write(tmp_path, {"a.jsonl": text}) / "a.jsonl")
    assert_error(caught.value, "a.jsonl:2", value, fix)


def test_flagembedding_folder_without_rows(tmp_path):
    with pytest.raises(DataError) as caught:
        strictly("flagembedding", write(tmp_path, {"a.csv": ""}))
    assert_error(caught.value, tmp_path.name, ".jsonl", "folder")


# --- which format


@pytest.mark.parametrize(
    "files, name, format, why",
    [
        (BEIR, "", "beir", "'corpus.jsonl', 'queries.jsonl', 'qrels/'"),
        (BEIR | {"notes.json": "[1"}, "", "beir", "qrels/"),
        ({"queries.jsonl": QUERIES, "qrels/test.tsv": QRELS}, "", "beir", "qrels/"),  # its reader says what is missing
        ({"a.json": LLAMAINDEX}, "a.json", "llamaindex", "'relevant_docs'"),
        ({"a.json": json.dumps(LLAMAINDEX, indent=4)}, "a.json", "llamaindex", "a.json"),
        ({"a.jsonl": row()}, "a.jsonl", "flagembedding", "'query', 'pos'"),
        ({"a.json": row()}, "a.json", "flagembedding", "'query', 'pos'"),
        ({"a.jsonl": row(), "b.json.gz": row(), "c.txt": ""}, "", "flagembedding", "'a.jsonl', 'b.json.gz'"),
    ],
)
def test_detect_format(tmp_path, files, name, format, why):
    found, sentence = detect_format(write(tmp_path, files) / name)
    assert found == format
    assert why in sentence


@pytest.mark.parametrize(
    "files, name, where, value, fix",
    [
        (BEIR | {"a.jsonl": row()}, "", "", "'corpus.jsonl', 'queries.jsonl', 'qrels/', 'a.jsonl'", "data.format"),
        ({"a.json": LLAMAINDEX, "b.jsonl": row()}, "", "", "'b.jsonl', 'a.json'", "name the file"),
        ({"a.json": LLAMAINDEX}, "", "", "'a.json'", "name the file a.json"),
        ({"a.csv": "x", "b.csv": "y"}, "", "", "'a.csv', 'b.csv'", "BEIR folder"),
        ({"a.jsonl": "{}\n"}, "", "", "'a.jsonl'", "BEIR folder"),
        ({"a.jsonl": '{"query'}, "", "a.jsonl:1", "broken JSON", "JSON object"),
        ({"a.jsonl": CORPUS}, "a.jsonl", "a.jsonl", "'_id', 'title', 'text'", "BEIR folder"),
        ({"a.jsonl": "\n"}, "a.jsonl", "a.jsonl", "no record", "bring one with records"),
        ({"a.json": "[\n{}]"}, "a.json", "a.json:1", "'['", "jq"),
    ],
)
def test_undetected_format(tmp_path, files, name, where, value, fix):
    with pytest.raises(DataError) as caught:
        detect_format(write(tmp_path, files) / name)
    assert_error(caught.value, where or tmp_path.name, value, fix)


def test_read_collection_says_how_it_read(tmp_path):
    write(tmp_path, BEIR)
    assert "beir" in read_collection(str(tmp_path))[1]
    assert "as asked" in read_collection(str(tmp_path), "beir")[1]
    with pytest.raises(DataError, match=r"unknown format 'bier'.*\n.*did you mean 'beir'"):
        read_collection(str(tmp_path), "bier")
    with pytest.raises(DataError, match="the data does not exist"):
        read_collection(str(tmp_path / "absent"))


# --- paths


def test_a_path_into_a_package_does_not_import_it(tmp_path, monkeypatch):
    write(tmp_path, {"lazy_package/__init__.py": "raise RuntimeError", "lazy_package/inside/a.txt": ""})
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_path("package:lazy_package/inside", "the data") == (tmp_path / "lazy_package/inside").resolve()


@pytest.mark.parametrize(
    "spec, where, value, fix",
    [
        ("package:no_such_package/data", "no_such_package/data", "'no_such_package'", "pip install no-such-package"),
        ("package:m3tune.data/x", "m3tune.data/x", "'m3tune.data'", "package:IMPORTNAME/FOLDER"),
        ("package:", "package:", "''", "package:IMPORTNAME/FOLDER"),
        ("package:zipfile/x", "package:zipfile/x", "single module", "name a package"),
        ("package:__main__/x", "package:__main__/x", "__main__", ""),
        ("package:m3tune/demo/scifct", "demo/scifct", "the data (package:m3tune/demo/scifct)", "scifact"),
    ],
)
def test_broken_package_path(spec, where, value, fix):
    with pytest.raises(DataError) as caught:
        resolve_path(spec, "the data")
    assert_error(caught.value, where, value, fix)


# --- whatever the bytes, a reader returns a Collection or raises a DataError

_words = st.sampled_from(["query", "pos", "neg", "queries", "corpus", "relevant_docs", "_id", "text", "q1", "p1", ""])
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _words
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
_texts = st.lists(_words | _scalars, max_size=3)
_flag_rows = st.fixed_dictionaries(
    {"query": _words, "pos": _texts},
    optional={"neg": _texts, "pos_scores": _texts, "neg_scores": _json, "prompt": _json},
)
_llamaindex = st.fixed_dictionaries({key: st.dictionaries(_words, _words | _texts) for key in LLAMAINDEX})
_values = (_json | _flag_rows | _llamaindex).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
_contents = st.binary(max_size=60) | _values | st.lists(_values, max_size=3).map(b"\n".join)
_tsv = st.lists(st.lists(_words | st.text(max_size=3), max_size=4).map("\t".join), max_size=3).map(
    lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")
)


@settings(max_examples=200, deadline=None)
@given(content=_contents, other=_contents, qrels=_tsv | st.binary(max_size=20), suffix=st.sampled_from(["", ".gz"]))
def test_readers_raise_nothing_but_data_errors(content, other, qrels, suffix):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "beir", {"corpus.jsonl": content, f"queries.jsonl{suffix}": other, "qrels/test.tsv": qrels})
        write(folder / "valid", BEIR | {"qrels/dev.tsv": qrels})
        write(folder / "files", {f"a.json{suffix}": content, "b.jsonl": other})
        places = [folder / "beir", folder / "valid", folder / "files", *(folder / "files").iterdir()]
        for place in places:
            for format in ("auto", *FORMATS):
                try:
                    collection, _ = read_collection(str(place), format)
                    assert collection.fingerprint
                except DataError:
                    pass
