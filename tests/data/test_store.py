from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import Collection
from m3tune.data.read import read_collection
from m3tune.data.store import load_collection, save_collection
from m3tune.errors import ArtifactError
from m3tune.types import Judgment, Negative, Passage, Query

FULL = Collection(
    queries={"q2": Query("q2", "b\n", None), "q1": Query("q1", "a", ""), "q3": Query("q3", "", "Find 🙂:")},
    passages={"p1": Passage("p1", "text", "title"), "p0": Passage("p0", "\x00\u2028")},
    judgments=(Judgment("q2", "p1", 2, 0.1), Judgment("q1", "p0", 0), Judgment("q1", "p0", -1, 1e-300)),
    negatives=(Negative("q2", "p0"), Negative("q1", "p1", "bm25", -0.0)),
    splits={"test": ("q1",), "train": ("q3", "q2")},
)


@pytest.mark.parametrize("collection", [FULL, Collection({}, {}, ())], ids=["full", "empty"])
def test_round_trip(tmp_path, collection):
    save_collection(collection, tmp_path / "new" / "folder")
    loaded = load_collection(tmp_path / "new" / "folder")
    assert loaded == collection
    assert loaded.fingerprint == collection.fingerprint
    assert list(loaded.queries) == list(collection.queries)


def test_round_trip_of_real_data(tmp_path):
    collection, _ = read_collection("package:m3tune/demo/scifact")
    save_collection(collection, tmp_path)
    assert load_collection(tmp_path).fingerprint == collection.fingerprint


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5), score=st.floats())
def test_round_trip_of_any_text_and_score(tmp_path_factory, texts, score):
    queries = {text: Query(text, text, text) for text in texts}
    passages = {text: Passage(text, text, text) for text in texts}
    judgments = tuple(Judgment(text, texts[0], 1, score) for text in texts)
    collection = Collection(queries, passages, judgments, splits={"train": tuple(queries)})
    folder = tmp_path_factory.mktemp("store")
    save_collection(collection, folder)
    assert load_collection(folder).fingerprint == collection.fingerprint


def test_files_are_compressed_tables(tmp_path):
    save_collection(FULL, tmp_path)
    assert Counter(file.suffix for file in tmp_path.iterdir()) == {".parquet": 4, ".json": 2}
    assert pq.read_metadata(tmp_path / "queries.parquet").row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("content, what", [(None, "missing or broken"), (b"PAR1 rubbish", "missing or broken")])
def test_missing_or_broken_table(tmp_path, content, what):
    save_collection(FULL, tmp_path)
    table = tmp_path / "passages.parquet"
    table.unlink() if content is None else table.write_bytes(content)
    with pytest.raises(ArtifactError, match=what) as caught:
        load_collection(tmp_path)
    assert caught.value.where == str(table)
    assert "run again" in caught.value.fix


def test_table_with_other_columns(tmp_path):
    save_collection(FULL, tmp_path)
    pq.write_table(pq.read_table(tmp_path / "queries.parquet"), tmp_path / "passages.parquet")
    with pytest.raises(ArtifactError, match="id, text, prompt and not id, text, title"):
        load_collection(tmp_path)
