"""Near-duplicates of a collection, as the rules see them: the one place that knows the detector."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m3tune.data.collection import Collection
from m3tune.diagnose.context import NearCopies
from m3tune.types import Passage, Query

_EXAMPLE_PAIRS = 1000
_DETECTOR = "m3tune.data.duplicates"
_LIKENESS = "m3tune.data.likeness"

_Records = Mapping[str, Query] | Mapping[str, Passage]


def near_copies(collection: Collection) -> tuple[NearCopies, NearCopies] | None:
    """Groups of queries and of passages; None where the detector is not installed."""
    if importlib.util.find_spec(_DETECTOR) is None:
        return None
    detect = importlib.import_module(_DETECTOR).near_duplicates
    likeness = importlib.import_module(_LIKENESS)
    queries = detect(Texts(collection.queries), likeness.QUERIES)
    passages = detect(Texts(collection.passages), likeness.PASSAGES)
    return grouped(collection.queries, queries), grouped(collection.passages, passages)


def grouped(records: _Records, duplicates: Any) -> NearCopies:
    """What the detector found, by id: `duplicates` has `groups` (N,), `pairs` (M, 2) and `similarity` (M,)."""
    ids = list(records)
    grouped_rows = np.flatnonzero(duplicates.groups != np.arange(len(ids))).tolist()
    first = {ids[row]: ids[duplicates.groups[row]] for row in grouped_rows}
    # The least alike make the best examples: whoever doubts the finding doubts those.
    order = np.argsort(duplicates.similarity, kind="stable")[:_EXAMPLE_PAIRS].tolist()
    pairs = ((*duplicates.pairs[row].tolist(), float(duplicates.similarity[row])) for row in order)
    return NearCopies(first, tuple((ids[a], ids[b], similarity) for a, b, similarity in pairs))


class Texts(Sequence[str]):
    """The texts of queries or passages in their order, read from where they lie."""

    def __init__(self, records: _Records) -> None:
        self._records = records
        self._ids = list(records)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: Any) -> Any:
        return _text(self._records[self._ids[row]])

    def __iter__(self) -> Iterator[str]:
        return map(_text, self._records.values())


def _text(record: Query | Passage) -> str:
    return record.full_text if isinstance(record, Passage) else record.text
