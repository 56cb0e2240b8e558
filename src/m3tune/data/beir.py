"""The BEIR layout: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv, each plain, `.gz` or `.zst`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.files import find_file, read_lines
from m3tune.data.intake import Intake, Row
from m3tune.data.qrels import (
    SPLIT_OF_NAME,
    SPLITS,
    QrelsBuilder,
    check_ids,
    lost_beside_qrels,
    splits_to_write,
    write_qrels,
)
from m3tune.data.rows import missing_key, read_json_lines, string_at, write_json_lines
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv, each plain, .gz or .zst"
_QUERY_KEYS = frozenset(("_id", "text"))
_PASSAGE_KEYS = frozenset(("_id", "text", "title"))
HEADER = ["query-id", "corpus-id", "score"]
# What would end a field or a line of a qrels file.
_SEPARATOR = re.compile(r"[\t\r\n]")


def signs(folder: Path) -> list[str]:
    """Names in a folder that make it BEIR's."""
    found = [file.name for name in ("corpus.jsonl", "queries.jsonl") if (file := find_file(folder, name))]
    qrels = folder / "qrels"
    has_qrels = qrels.is_dir() and (found or any(".tsv" in file.name for file in qrels.iterdir()))
    return [*found, "qrels/"] if has_qrels else found


def read_beir(folder: Path, intake: Intake) -> Collection:
    """The collection in a BEIR folder, with its splits; queries without a judgment are kept.

    Bad records go to `intake`: an id with two texts, an unknown id, a score that is none. Raises DataError for a
    missing file.
    """
    queries, corpus = _file(folder, "queries.jsonl"), _file(folder, "corpus.jsonl")
    judged = {split: _qrels_lines(file) for split, file in _qrels_files(folder).items()}
    return collect_beir(read_json_lines(queries), read_json_lines(corpus), judged, intake)


def collect_beir(
    queries: Iterable[Row], corpus: Iterable[Row], qrels: Mapping[str, Iterable[Row]], intake: Intake
) -> Collection:
    """The collection of BEIR's tables; the rows of qrels, by split, hold the three fields of `HEADER`."""
    builder = QrelsBuilder("queries.jsonl", "corpus.jsonl")

    def add_query(row: dict[str, Any], where: str) -> bool:
        is_new = builder.queries.add(Query(_id(row, where), string_at(row, "text", where)), where)
        if not row.keys() <= _QUERY_KEYS:
            intake.ignore(f"key {key!r} of a query" for key in row if key not in _QUERY_KEYS)
        return is_new

    def add_passage(row: dict[str, Any], where: str) -> bool:
        title = "" if row.get("title") is None else string_at(row, "title", where)
        is_new = builder.passages.add(Passage(_id(row, where), string_at(row, "text", where), title), where)
        if not row.keys() <= _PASSAGE_KEYS:
            intake.ignore(f"key {key!r} of a passage" for key in row if key not in _PASSAGE_KEYS)
        return is_new

    intake.take("query", queries, add_query)
    intake.take("passage", corpus, add_passage)
    intake.finish()  # what names a bad text would only be bad because of it
    for split, rows in qrels.items():
        builder.open_split(split)

        def add_judgment(fields: tuple[str, str, str], where: str, split: str = split) -> bool:
            query_id, passage_id, score = fields
            return builder.judge(query_id, passage_id, score, where, split)

        intake.take("judgment", rows, add_judgment)
    return builder.collection()


def write_beir(collection: Collection, folder: Path) -> dict[str, int]:
    """Write a new BEIR folder; returns what was written and, as `lost_…`, what the format cannot hold.

    Judgments of queries in no split go to `train.tsv`, unless the data has a train split of its own.
    Raises DataError for an id with a tab or a line break, and for a split that is none of train, dev and test.
    """
    splits = splits_to_write(collection)
    check_ids(collection, _SEPARATOR, "a tab or a line break")
    (folder / "qrels").mkdir(parents=True)
    write_json_lines(folder / "queries.jsonl", ({"_id": q.id, "text": q.text} for q in collection.queries.values()))
    write_json_lines(
        folder / "corpus.jsonl",
        ({"_id": p.id, "title": p.title, "text": p.text} for p in collection.passages.values()),
    )
    files = {folder / "qrels" / f"{split}.tsv": members for split, members in splits.items()}
    judged = write_qrels(collection, files, "{query}\t{passage}\t{grade}", "\t".join(HEADER) + "\n")
    texts = {"queries": len(collection.queries), "passages": len(collection.passages), "splits": len(splits)}
    return texts | judged | lost_beside_qrels(collection)


def _file(folder: Path, name: str) -> Path:
    file = find_file(folder, name)
    if file is None:
        raise DataError(f"{name} is missing", where=folder, fix=LAYOUT)
    return file


def _id(row: Mapping[str, Any], where: str) -> str:
    """The row's `_id`; a whole number counts as its digits, which is what the qrels hold."""
    if "_id" not in row:
        raise missing_key(row, "_id", where)
    if isinstance(row["_id"], int) and not isinstance(row["_id"], bool):
        return str(row["_id"])
    return string_at(row, "_id", where)


def _qrels_files(folder: Path) -> dict[str, Path]:
    """Split name -> its file, in the order train, dev, test."""
    qrels = folder / "qrels"
    files = sorted(path for path in qrels.iterdir() if not path.name.startswith(".")) if qrels.is_dir() else []
    if not files:
        raise DataError("qrels/ is missing or empty", where=folder, fix=LAYOUT)
    found: dict[str, Path] = {}
    for file in files:
        name, _, extension = file.name.partition(".")
        split = SPLIT_OF_NAME.get(name)
        if split is None or extension not in ("tsv", "tsv.gz", "tsv.zst"):
            raise DataError(
                f"{file.name!r} is not the name of a split",
                where=file,
                fix=f"name it {', '.join(SPLIT_OF_NAME)} with .tsv, .tsv.gz or .tsv.zst, or move it away",
            )
        if split in found:
            raise DataError(
                f"{found[split].name} and {file.name} are both the {split} split", where=qrels, fix="keep one of them"
            )
        found[split] = file
    return {split: found[split] for split in SPLITS if split in found}


def _qrels_lines(file: Path) -> Iterator[Row]:
    """The three fields of each line that is neither blank nor the header."""
    for number, line, error in read_lines(file):
        where = f"{file}:{number}"
        fields = line.split("\t")
        is_header = number == 1 and [field.strip().lower().replace("_", "-") for field in fields] == HEADER
        if not line.strip() or is_header:
            continue
        if not error and len(fields) != len(HEADER):
            error = DataError(
                f"{len(fields)} tab-separated columns and not 3: {excerpt(line.strip())}",
                where=where,
                fix="write query id, passage id and score, with a tab between them",
                reason="columns",
            )
        yield Row(where, tuple(fields), error, line)
