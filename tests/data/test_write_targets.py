"""Where a conversion goes to, and that it is written whole or not at all."""

import json

import pytest
from written import FILES, FULL

from m3tune.data.collection import Collection
from m3tune.data.rows import read_json
from m3tune.data.write import WRITERS, write_collection
from m3tune.errors import DataError
from m3tune.types import Passage, Query


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
