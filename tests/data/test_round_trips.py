"""Real data through every format and back: excerpts always, whole files where M3TUNE_SHARED_DATA names their folder.

That folder holds `scifact/` (BEIR), `llamaindex-drcd/dev.json` and `flagembedding/*.jsonl`. The figures are printed by:
M3TUNE_SHARED_DATA=FOLDER python -m pytest -s tests/data/test_round_trips.py
"""

import os
import sys
from pathlib import Path

import pytest

from m3tune.data.collection import Collection
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.data.write import LOST, write_collection

EXCERPTS = Path(__file__).with_name("excerpts")
SHARED = Path(os.environ.get("M3TUNE_SHARED_DATA", "absent"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="M3TUNE_SHARED_DATA names no folder")

TARGETS = [
    ("beir", "d"),
    ("llamaindex", "d.json.zst"),
    ("flagembedding", "d.jsonl.gz"),
    ("flagembedding", "d"),
    ("pairs", "d.jsonl"),
    ("pairs", "d.csv"),
    ("pairs", "d.tsv.gz"),
    ("pairs", "d.parquet"),
    ("trec", "d"),
    ("datasets", "d"),
]
WITH_SCORES = ("flagembedding", "pairs", "datasets")
IN_SHARED = ["scifact", "llamaindex-drcd/dev.json", "flagembedding"] + [
    f"flagembedding/{name}.jsonl" for name in ("msmarco", "nli", "nq", "sts", "Banking77Classification")
]


def plain(text: str) -> str:
    """A text as TREC's lines can hold it."""
    return text.replace("\t", " ").replace("\r", " ").replace("\n", " ")


def relevant(collection: Collection) -> set:
    """Every query with a relevant passage, as texts that a model reads; without ids, equal queries are one."""
    return {
        (plain(collection.queries[q].text), plain(collection.passages[p].full_text))
        for q, ps in collection.positives.items()
        for p in ps
    }


def scored(collection: Collection) -> set:
    """All that a FlagEmbedding row says of each pair."""
    return {
        (
            type(pair).__name__,
            collection.queries[pair.query_id].text,
            collection.queries[pair.query_id].prompt,
            collection.passages[pair.passage_id].text,
            pair.score,
        )
        for pair in collection.pairs
    }


def there_and_back(collection: Collection, format: str, path: Path) -> tuple[Collection, dict[str, int], Intake]:
    counts = write_collection(collection, path, format)
    intake = Intake()
    read, why = read_collection(str(path), intake=intake)
    assert why.startswith(f"Read as {format}: ")
    return read, counts, intake


def check(source: str, format: str, path: Path) -> None:
    collection, _ = read_collection(source)
    read, counts, intake = there_and_back(collection, format, path)
    lost = {name.removeprefix(LOST): n for name, n in counts.items() if n and name.startswith(LOST)}
    held = {name: n for name, n in counts.items() if n and not name.startswith(LOST)}
    sys.stdout.write(f"\n{Path(source).name} -> {format} ({path.name}): {held}; lost: {lost or 'nothing'}\n")
    assert not intake.rejected
    assert relevant(read) == relevant(collection)
    if format in WITH_SCORES and "flagembedding" in source:
        assert scored(read) == scored(collection)
        assert scored(collection)
    if format == "beir":
        assert read.grades == collection.grades
    if not lost and not held.get("titles_joined_into_texts"):
        assert dict(read.queries) == dict(collection.queries)
        assert dict(read.passages) == dict(collection.passages)
        assert set(read.pairs) == set(collection.pairs)
        if collection.splits or format != "beir":  # where data without splits is training data
            assert {n: set(ids) for n, ids in read.splits.items()} == {
                n: set(ids) for n, ids in collection.splits.items()
            }
    again, _, _ = there_and_back(read, format, path.with_name("again" + path.name[1:]))
    assert again.fingerprint == read.fingerprint, "what was written by m3tune comes back the same"


@pytest.mark.parametrize("format, name", TARGETS)
@pytest.mark.parametrize("source", ["drcd.json", "flagembedding", "flagembedding/msmarco.jsonl"])
def test_an_excerpt_through_every_format(source, format, name, tmp_path):
    check(str(EXCERPTS / source), format, tmp_path / name)


def test_the_excerpts_have_scores_and_prompts():
    collection, _ = read_collection(str(EXCERPTS / "flagembedding"))
    assert sum(pair.score is not None for pair in collection.pairs) >= 15
    assert any(query.prompt for query in collection.queries.values())


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("format, name", TARGETS)
@pytest.mark.parametrize("source", IN_SHARED)
def test_a_whole_file_through_every_format(source, format, name, tmp_path):
    check(str(SHARED / source), format, tmp_path / name)
