"""FlagEmbedding's native rows: `query`, `pos`, `neg` and what may stand beside them, as JSON lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection, text_hash
from m3tune.data.files import excerpt, missing_key, read_json_lines, string_at
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query

EXTENSIONS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


def read_flagembedding(path: Path) -> Collection:
    """The collection in a JSON lines file, or in all those of a folder, in the order of their names.

    A passage's id is the hash of its text, a query's that of its prompt and text, so equal texts are stored once and
    rows with one query unite. A passage that one of these rows calls positive and another negative is kept as positive.

    Raises DataError with file and line: a wrong type, no or an empty positive, scores that do not match, a text that
    is positive and negative in one row.
    """
    rows = _Rows()
    for file in row_files(path):
        for number, row in read_json_lines(file):
            rows.add(row, f"{file}:{number}")
    return rows.collection()


def row_files(path: Path) -> list[Path]:
    """The file itself, or the JSON lines files of a folder by name. Raises DataError when a folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(EXTENSIONS) and file.is_file())
    if not files:
        raise DataError("no .jsonl or .json file is here", where=path, fix="name the folder that holds them")
    return files


@dataclass
class _Rows:
    """What the rows read so far say; a pair's value is the teacher's score, where there is one."""

    queries: dict[str, Query] = field(default_factory=dict)
    passages: dict[str, Passage] = field(default_factory=dict)
    positives: dict[tuple[str, str], float | None] = field(default_factory=dict)
    negatives: dict[tuple[str, str], float | None] = field(default_factory=dict)

    def add(self, row: dict[str, Any], where: str) -> None:
        query = _query(row, where)
        positives = list(_scored_texts(row, "pos", where))
        negatives = list(_scored_texts(row, "neg", where))
        if not positives:
            raise DataError(f"'pos' is empty for the query {excerpt(query.text)}", where=where, fix="give a positive")
        both = {text for text, _ in positives} & {text for text, _ in negatives}
        if both:
            raise DataError(
                f"a text is both in 'pos' and in 'neg': {excerpt(min(both))}",
                where=where,
                fix="remove it from the one where it does not belong",
            )
        self.queries.setdefault(query.id, query)
        for known, scored_texts in ((self.positives, positives), (self.negatives, negatives)):
            for text, score in scored_texts:
                passage = Passage(text_hash(text), text)
                self.passages.setdefault(passage.id, passage)
                pair = (query.id, passage.id)
                if known.get(pair) is None:
                    known[pair] = score

    def collection(self) -> Collection:
        judgments = tuple(Judgment(*pair, score=score) for pair, score in self.positives.items())
        negatives = tuple(
            Negative(*pair, score=score) for pair, score in self.negatives.items() if pair not in self.positives
        )
        return Collection(self.queries, self.passages, judgments, negatives)


def _query(row: dict[str, Any], where: str) -> Query:
    text = string_at(row, "query", where)
    if not text.strip():
        raise DataError(f"'query' is empty: {text!r}", where=where, fix="write the question or drop the row")
    if row.get("prompt") is None:
        return Query(text_hash(text), text)
    prompt = string_at(row, "prompt", where)
    return Query(text_hash(f"{prompt}\x1f{text}"), text, prompt)


def _scored_texts(row: dict[str, Any], key: str, where: str) -> Iterator[tuple[str, float | None]]:
    """The texts of `pos` or `neg`, each with its score. A null is what a table writes for a missing cell."""
    texts = row.get(key)
    if texts is None and key == "pos":
        raise missing_key(row, key, where)
    if texts is None:
        texts = []
    if not isinstance(texts, list):
        raise DataError(
            f"{key!r} is not a list: {excerpt(texts)}", where=where, fix=f'write a list of texts: "{key}": ["…"]'
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{key!r} holds {excerpt(text)}, which is not a passage", where=where, fix="write a text or remove it"
            )
    return zip(texts, _scores(row, f"{key}_scores", len(texts), where), strict=True)


def _scores(row: dict[str, Any], key: str, length: int, where: str) -> list[float] | list[None]:
    scores = row.get(key)
    if scores is None:
        return [None] * length
    fix = f"write one number for each text, or leave {key!r} out"
    if not isinstance(scores, list):
        raise DataError(f"{key!r} is not a list: {excerpt(scores)}", where=where, fix=fix)
    if len(scores) != length:
        raise DataError(f"{key!r} has {len(scores)} scores for {length} texts", where=where, fix=fix)
    for score in scores:
        if not _is_finite_number(score):
            raise DataError(f"{key!r} holds {excerpt(score)}, which is not a finite number", where=where, fix=fix)
    return [float(score) for score in scores]


def _is_finite_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False
