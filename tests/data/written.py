"""Collections, and what comes back of them through a format."""

import math
import tempfile
from pathlib import Path

from hypothesis import strategies as st

from m3tune.data.collection import Collection
from m3tune.data.intake import Intake
from m3tune.data.read import FORMATS, read_collection
from m3tune.data.write import LOST, write_collection
from m3tune.types import Judgment, Negative, Passage, Query

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SPOKEN = TEXTS.filter(str.strip)
IDS = TEXTS.filter(lambda id_: not set(id_) & set("\t\r\n"))
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)

# How a file of each format is called; the first name is the one for tests that need only one.
NAMES = {
    "beir": ["data"],
    "llamaindex": ["data.json", "data.json.zst"],
    "flagembedding": ["data.jsonl", "data.json.zst"],
    "pairs": ["data.jsonl", "data.jsonl.gz", "data.csv", "data.csv.zst", "data.tsv", "data.tsv.gz", "data.parquet"],
    "trec": ["data"],
    "datasets": ["data"],
}
FILES = [(format, name) for format, names in NAMES.items() for name in names]
FULL = Collection(
    queries={"q2": Query("q2", "b\n"), "q1": Query("q1", "a", ""), "q3": Query("q3", "", "Find 🙂:")},
    passages={
        "p1": Passage("p1", "text", "title"),
        "p0": Passage("p0", "\u2028é"),
        "p2": Passage("p2", "title text"),
        "p3": Passage("p3", " "),
        "p4": Passage("p4", "alone"),
    },
    judgments=(
        Judgment("q2", "p1", 2, 0.5),
        Judgment("q1", "p0", 0),
        Judgment("q1", "p1", -1),
        Judgment("q1", "p1", 1),
        Judgment("q1", "p2", 1),
        Judgment("q1", "p3", 1),
        Judgment("q3", "p0", 1, 0.25),
    ),
    negatives=(Negative("q2", "p0", "bm25", 0.1), Negative("q2", "p2"), Negative("q1", "p4", score=math.nan)),
    splits={"test": ("q1",), "dev": ("q3",)},
)


def convert(collection: Collection, format: str, name: str | None = None) -> tuple[Collection, dict[str, int]]:
    """What is read again after writing, and the counts of the writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (name or NAMES[format][0])
        counts = write_collection(collection, path, format)
        assert [place.name for place in Path(folder).iterdir()] == [path.name]
        read, _ = read_collection(str(path))
        assert FORMATS[format](path, Intake()) == read
    return read, counts


def lost(counts: dict[str, int]) -> dict[str, int]:
    return {reason.removeprefix(LOST): count for reason, count in counts.items() if reason.startswith(LOST) and count}
