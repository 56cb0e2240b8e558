"""FlagEmbedding's files as sets, in and out."""

import json

import pytest

from m3tune.data.collection import Collection, text_hash
from m3tune.data.read import read_collection
from m3tune.data.store import load_collection, save_collection
from m3tune.data.write import LOST, write_collection
from m3tune.errors import DataError
from m3tune.types import Judgment, Passage, Query, QuerySet
from reading import strictly


def rows(*queries, **more):
    return "".join(json.dumps({"query": query, "pos": [f"for {query}"], **more}) + "\n" for query in queries)


def ids(*queries):
    return tuple(map(text_hash, queries))


@pytest.fixture
def folder(tmp_path):
    """A folder with files of every kind of set."""
    place = tmp_path / "train data"
    place.mkdir()
    (place / "nli.jsonl").write_text(rows("a", "b", type="symmetric_sts"))
    (place / "class-no_in_batch_neg.jsonl").write_text(rows("c", "a"))
    (place / "mixed.json").write_text(rows("d") + rows("e", batch_size=8, train_group_size=4) + rows("f"))
    (place / "notes.txt").write_text("not data")
    return place


SETS = {
    "class": QuerySet(ids("c", "a"), in_batch_negatives=False),
    "mixed": QuerySet(ids("d", "f")),
    "mixed-2": QuerySet(ids("e"), options={"batch_size": 8, "train_group_size": 4}),
    "nli": QuerySet(ids("a", "b"), options={"type": "symmetric_sts"}),
}


def test_the_files_of_a_folder_are_sets(folder):
    assert strictly("flagembedding", folder).sets == SETS


@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_a_folders_name_may_say_that_other_positives_are_no_negatives(tmp_path, monkeypatch, ending):
    place = tmp_path / "all_no_in_batch_neg"
    place.mkdir()
    (place / "a.jsonl").write_text(rows("a"))
    monkeypatch.chdir(place)
    for path in (f"{place}{ending}", "."):
        collection, _ = read_collection(path, "flagembedding")
        assert collection.sets == {"a": QuerySet(ids("a"), in_batch_negatives=False)}


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.jsonl", rows("a"), {}),
        ("a_no_in_batch_neg.json.gz", rows("a"), {"data": QuerySet(ids("a"), False)}),
        ("no_in_batch_neg.jsonl", rows("a"), {"data": QuerySet(ids("a"), False)}),
        ("a.jsonl", rows("a") + rows("b", type="x"), {"data": QuerySet(ids("b"), options={"type": "x"})}),
        ("a.jsonl", rows("a", type=None), {}),
    ],
)
def test_a_file_is_a_set_where_it_says_something(tmp_path, name, content, expected):
    import gzip

    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert strictly("flagembedding", tmp_path / name).sets == expected


@pytest.mark.parametrize(
    "more, value, fix",
    [
        ({"type": 3}, "'type' is not a text: 3", "write a text"),
        ({"batch_size": "8"}, "'batch_size' is not a whole number: '8'", "write a whole number"),
        ({"train_group_size": 2.5}, "'train_group_size' is not a whole number: 2.5", "write a whole number"),
        ({"batch_size": True}, "'batch_size' is not a whole number: True", "write a whole number"),
    ],
)
def test_options_of_a_wrong_type(tmp_path, more, value, fix):
    (tmp_path / "a.jsonl").write_text(rows("a", **more))
    with pytest.raises(DataError) as caught:
        strictly("flagembedding", tmp_path / "a.jsonl")
    assert caught.value.where.endswith("a.jsonl:1")
    assert value in caught.value.what
    assert fix in caught.value.fix


def test_a_folder_comes_back_equal(folder, tmp_path):
    collection = strictly("flagembedding", folder)
    counts = write_collection(collection, tmp_path / "out", "flagembedding")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "class-no_in_batch_neg.jsonl",
        "mixed-2.jsonl",
        "mixed.jsonl",
        "nli.jsonl",
    ]
    read = strictly("flagembedding", tmp_path / "out")
    assert (read.sets, read.queries, read.passages) == (collection.sets, collection.queries, collection.passages)
    assert set(read.judgments) == set(collection.judgments), "rows with other options have a file of their own"
    assert not {name: count for name, count in counts.items() if count and name.startswith(LOST)}


def test_a_collection_with_sets_is_stored(folder, tmp_path):
    collection = strictly("flagembedding", folder)
    save_collection(collection, tmp_path / "store")
    loaded = load_collection(tmp_path / "store")
    assert loaded == collection
    assert loaded.fingerprint == collection.fingerprint


def test_a_file_says_how_many_sets_it_cannot_hold(folder, tmp_path):
    collection = strictly("flagembedding", folder)
    for name in ("a.jsonl", "a-no_in_batch_neg.jsonl"):
        counts = write_collection(collection, tmp_path / name, "flagembedding")
        assert counts["lost_sets"] == 4


def test_a_file_holds_the_sets_of_a_file(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows("a", "b", type="x") + rows("c", batch_size=2) + rows("d"))
    collection = strictly("flagembedding", tmp_path / "a.jsonl")
    assert list(collection.sets) == ["data", "data-2"]
    counts = write_collection(collection, tmp_path / "b.jsonl.zst", "flagembedding")
    assert counts["lost_sets"] == 0
    assert strictly("flagembedding", tmp_path / "b.jsonl.zst") == collection


def test_queries_in_no_set_have_a_file_of_their_own(tmp_path):
    queries = {id_: Query(id_, id_) for id_ in "abc"}
    passages = {"p": Passage("p", "x")}
    judgments = tuple(Judgment(id_, "p") for id_ in queries)
    sets = {"rest": QuerySet(("a",)), "empty": QuerySet(())}
    collection = Collection(queries, passages, judgments, sets=sets)
    counts = write_collection(collection, tmp_path / "out", "flagembedding")
    lines = {file.name: len(file.read_text().splitlines()) for file in (tmp_path / "out").iterdir()}
    assert lines == {"rest.jsonl": 1, "rest-2.jsonl": 2, "empty.jsonl": 0}
    assert counts["lost_sets"] == 1, "that without a row"
    write_collection(Collection(queries, passages, judgments), tmp_path / "all", "flagembedding")
    assert [file.name for file in (tmp_path / "all").iterdir()] == ["train.jsonl"]
    assert strictly("flagembedding", tmp_path / "all").sets == {}


@pytest.mark.parametrize("format, name", [("beir", "b"), ("llamaindex", "b.json"), ("pairs", "b.csv")])
def test_what_other_formats_lose_is_counted(folder, tmp_path, format, name):
    assert write_collection(strictly("flagembedding", folder), tmp_path / name, format)["lost_sets"] == 4
