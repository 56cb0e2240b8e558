"""The BEIR layout: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv, each plain, `.gz` or `.zst`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.files import create_text, find_file, read_lines
from m3tune.data.intake import Intake, Row
from m3tune.data.rows import missing_key, read_json_lines, string_at, write_json_lines
from m3tune.data.table import Table
from m3tune.errors import DataError, excerpt, listed
from m3tune.types import Judgment, Passage, Query

LAYOUT = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv, each plain, .gz or .zst"
_SPLIT_OF_FILE = {"train": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "test": "test"}
_SPLITS = ("train", "dev", "test")
_QUERY_KEYS = frozenset(("_id", "text"))
_PASSAGE_KEYS = frozenset(("_id", "text", "title"))
_HEADER = ["query-id", "corpus-id", "score"]
# Nine digits fit every integer type that a grade is stored in; ".0" is what pandas writes.
_GRADE = re.compile(r"[+-]?[0-9]{1,9}(\.0+)?")
# What would end a field or a line of a qrels file.
_SEPARATOR = re.compile(r"[\t\r\n]")


def read_beir(folder: Path, intake: Intake) -> Collection:
    """The collection in a BEIR folder, with its splits; queries without a judgment are kept.

    Bad records go to `intake`: an id with two texts, an unknown id, a score that is none. Raises DataError for a
    missing file.
    """
    queries, passages = Table(Query), Table(Passage)

    def add_query(row: dict[str, Any], where: str) -> bool:
        is_new = queries.add(Query(_id(row, where), string_at(row, "text", where)), where)
        if not row.keys() <= _QUERY_KEYS:
            intake.ignore(f"key {key!r} of a query" for key in row if key not in _QUERY_KEYS)
        return is_new

    def add_passage(row: dict[str, Any], where: str) -> bool:
        title = "" if row.get("title") is None else string_at(row, "title", where)
        is_new = passages.add(Passage(_id(row, where), string_at(row, "text", where), title), where)
        if not row.keys() <= _PASSAGE_KEYS:
            intake.ignore(f"key {key!r} of a passage" for key in row if key not in _PASSAGE_KEYS)
        return is_new

    intake.take("query", read_json_lines(_file(folder, "queries.jsonl")), add_query)
    intake.take("passage", read_json_lines(_file(folder, "corpus.jsonl")), add_passage)
    intake.finish()  # what names a bad text would only be bad because of it

    judgments: dict[Judgment, None] = {}
    splits: dict[str, tuple[str, ...]] = {}
    for split, file in _qrels_files(folder).items():
        members: dict[str, None] = {}

        def add_judgment(line: str, where: str, members: dict[str, None] = members) -> bool:
            judgment = _judgment(line, where, queries, passages)
            is_new = judgment not in judgments or judgment.query_id not in members
            judgments[judgment] = members[judgment.query_id] = None
            return is_new

        intake.take("judgment", _qrels_lines(file), add_judgment)
        splits[split] = tuple(members)
    return Collection(queries, passages, tuple(judgments), splits=splits)


def write_beir(collection: Collection, folder: Path) -> dict[str, int]:
    """Write a new BEIR folder; returns what was written and, as `lost_…`, what the format cannot hold.

    Judgments of queries in no split go to `train.tsv`, unless the data has a train split of its own.
    Raises DataError for an id with a tab or a line break, and for a split that is none of train, dev and test.
    """
    splits = _splits_to_write(collection)
    for id_ in (*collection.queries, *collection.passages):
        if _SEPARATOR.search(id_):
            raise DataError(f"the id {excerpt(id_)} holds a tab or a line break", fix="give it another id")
    (folder / "qrels").mkdir(parents=True)
    write_json_lines(folder / "queries.jsonl", ({"_id": q.id, "text": q.text} for q in collection.queries.values()))
    write_json_lines(
        folder / "corpus.jsonl",
        ({"_id": p.id, "title": p.title, "text": p.text} for p in collection.passages.values()),
    )
    pairs = dict.fromkeys((judgment.query_id, judgment.passage_id) for judgment in collection.judgments)
    lines = 0
    for split, members in splits.items():
        with create_text(folder / "qrels" / f"{split}.tsv") as file:
            file.write("\t".join(_HEADER) + "\n")
            for query_id, passage_id in pairs:
                if query_id in members:
                    file.write(f"{query_id}\t{passage_id}\t{collection.grades[query_id][passage_id]}\n")
                    lines += 1
    in_a_split = set[str]().union(*splits.values())
    held = sum(query_id in in_a_split for query_id, _ in pairs)
    return {
        "queries": len(collection.queries),
        "passages": len(collection.passages),
        "judgments": held,
        "splits": len(splits),
        "judgments_in_several_splits": lines - held,
        "lost_repeated_judgments": len(collection.judgments) - len(pairs),
        "lost_judgments_in_no_split": len(pairs) - held,
        "lost_members_of_a_split_without_a_judgment": sum(
            query_id not in collection.grades for members in splits.values() for query_id in members
        ),
        "lost_negatives": len(collection.negatives),
        "lost_scores": sum(pair.score is not None for pair in collection.pairs),
        "lost_prompts": sum(query.prompt is not None for query in collection.queries.values()),
        "lost_sets": len(collection.sets),
        "lost_documents": sum(bool(passage.document) for passage in collection.passages.values()),
    }


def _splits_to_write(collection: Collection) -> dict[str, set[str]]:
    """Split name -> its queries; what is in no split is the train split, where the data has none."""
    for split in collection.splits:
        if split not in _SPLITS:
            raise DataError(f"the split {split!r} is unknown", where="data", fix=f"known splits: {listed(_SPLITS)}")
    splits = {split: set(collection.splits[split]) for split in _SPLITS if split in collection.splits}
    rest = set(collection.grades).difference(*splits.values())
    return splits if "train" in splits or (splits and not rest) else {"train": rest} | splits


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
        split = _SPLIT_OF_FILE.get(name)
        if split is None or extension not in ("tsv", "tsv.gz", "tsv.zst"):
            raise DataError(
                f"{file.name!r} is not the name of a split",
                where=file,
                fix=f"name it {', '.join(_SPLIT_OF_FILE)} with .tsv, .tsv.gz or .tsv.zst, or move it away",
            )
        if split in found:
            raise DataError(
                f"{found[split].name} and {file.name} are both the {split} split", where=qrels, fix="keep one of them"
            )
        found[split] = file
    return {split: found[split] for split in _SPLITS if split in found}


def _qrels_lines(file: Path) -> Iterator[Row]:
    """Each line that is neither blank nor the header."""
    for number, line, error in read_lines(file):
        is_header = number == 1 and [field.strip().lower().replace("_", "-") for field in line.split("\t")] == _HEADER
        if line.strip() and not is_header:
            yield Row(f"{file}:{number}", line, error, line)


def _judgment(line: str, where: str, queries: Container[str], passages: Container[str]) -> Judgment:
    fields = line.split("\t")
    if len(fields) != len(_HEADER):
        raise DataError(
            f"{len(fields)} tab-separated columns and not 3: {excerpt(line.strip())}",
            where=where,
            fix="write query id, passage id and score, with a tab between them",
            reason="columns",
        )
    query_id, passage_id, score = fields
    for kind, name, known in (("query", query_id, queries), ("passage", passage_id, passages)):
        if name not in known:
            raise DataError(
                f"the {kind} {excerpt(name)} is unknown",
                where=where,
                fix=f"add it to {'queries' if kind == 'query' else 'corpus'}.jsonl or drop this line",
                reason="unknown-id",
            )
    return Judgment(query_id, passage_id, parse_grade(score, where))


def parse_grade(score: str, where: str) -> int:
    """A relevance grade as qrels write it. Raises DataError."""
    if not _GRADE.fullmatch(score.strip()):
        raise DataError(
            f"the score {excerpt(score)} is not a whole number",
            where=where,
            fix="write 1 for relevant, 0 for judged and not relevant, or a higher grade",
            reason="bad-score",
        )
    return int(score.strip().partition(".")[0])
