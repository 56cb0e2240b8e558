"""TREC's and MS MARCO's layout: a folder with topics, passages and qrels, whose names say which file is what.

Topics and passages are lines `id<TAB>text`, or marked up as `<top>` and `<DOC>`; qrels `query 0 passage grade`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from m3tune.data.collection import Collection
from m3tune.data.files import create_text
from m3tune.data.intake import Intake
from m3tune.data.qrels import QrelsBuilder, check_ids, check_splits, lost_beside_qrels, write_qrels
from m3tune.data.trec_files import WORDS, files_by_role, qrels_by_split
from m3tune.data.trec_records import passages, spaced_fields, topics
from m3tune.errors import DataError
from m3tune.types import Passage, Query

LAYOUT = (
    "a TREC folder holds topics*, qrels* and collection* (or queries*; corpus*, docs*, documents*, passages*) "
    "as .tsv, .txt, .trec or .xml, each plain, .gz or .zst"
)

_NEEDED = ("topics", "corpus", "qrels")
_BREAKS = re.compile(r"[\t\r\n]")
_SPACE_OR_EMPTY = re.compile(r"\s|\A\Z")


def signs(folder: Path) -> list[str]:
    """Names of the files in a folder that make it TREC's, runs left out; none where qrels stand alone."""
    files = files_by_role(folder)
    present = [role for role in _NEEDED if files[role]]
    return [file.name for role in present for file in files[role]] if files["qrels"] and len(present) > 1 else []


def read_trec(folder: Path, intake: Intake) -> Collection:
    """The collection in a TREC folder. Qrels whose name says train, dev or test are that split.

    Of a topic the title is the query, or its description where it has no title. Runs in the folder are not read.

    Bad records go to `intake`: an id with two texts, an unknown id, a grade that is none, a record without id. Raises
    DataError where a file is missing, or two are the same split.
    """
    if not folder.is_dir():
        raise DataError("this is a file; topics, passages and qrels lie in one folder", where=folder, fix=LAYOUT)
    files = files_by_role(folder)
    for role in _NEEDED:
        if not files[role]:
            words = "* or ".join(WORDS[role])
            raise DataError(f"no file with the {role} is here: {words}*", where=folder, fix=LAYOUT)
    intake.ignore(f"the run {file.name!r}" for file in files["run"])
    qrels = qrels_by_split(files["qrels"])
    builder = QrelsBuilder(_named(files["topics"]), _named(files["corpus"]))

    def add_query(record: tuple[str, str, str], where: str) -> bool:
        return builder.queries.add(Query(record[0], record[1]), where)

    def add_passage(record: tuple[str, str, str], where: str) -> bool:
        return builder.passages.add(Passage(*record), where)

    for file in files["topics"]:
        intake.take("query", topics(file, intake), add_query)
    for file in files["corpus"]:
        intake.take("passage", passages(file, intake), add_passage)
    intake.finish()  # what names a bad text would only be bad because of it
    for split, file in qrels.items():
        _take_qrels(file, split, builder, intake)
    return builder.collection()


def _take_qrels(file: Path, split: str | None, builder: QrelsBuilder, intake: Intake) -> None:
    """Read one file of qrels, whose queries are that split."""
    if split is not None:
        builder.open_split(split)

    def judge(fields: list[str], where: str) -> bool:
        query_id, _, passage_id, grade = fields
        return builder.judge(query_id, passage_id, grade, where, split)

    intake.take("judgment", spaced_fields(file, "query 0 passage grade"), judge)


def write_trec(collection: Collection, folder: Path) -> dict[str, int]:
    """Write a new folder with `queries.tsv`, `collection.tsv` and `qrels.SPLIT.txt`, or `qrels.txt` without splits.

    Returns what was written and, as `lost_…`, what the format cannot hold. A title is joined into its passage's text,
    as the encoder reads it; tabs and line breaks in texts become blanks. Judgments of queries in no split go to
    `qrels.txt`.

    Raises DataError for an id that is empty or holds white space, and for a split that is none of train, dev and test.
    """
    check_splits(collection.splits)
    check_ids(collection, _SPACE_OR_EMPTY, "white space, or nothing")
    folder.mkdir(parents=True)
    changed = _write_texts(folder / "queries.tsv", ((q.id, q.text) for q in collection.queries.values()))
    changed += _write_texts(folder / "collection.tsv", ((p.id, p.full_text) for p in collection.passages.values()))
    files = {folder / f"qrels.{split}.txt": set(members) for split, members in collection.splits.items()}
    rest = set(collection.grades).difference(*files.values())
    if rest or not files:
        files[folder / "qrels.txt"] = rest
    return {
        "queries": len(collection.queries),
        "passages": len(collection.passages),
        "splits": len(collection.splits),
        **write_qrels(collection, files, "{query} 0 {passage} {grade}"),
        "titles_joined_into_texts": sum(bool(passage.title) for passage in collection.passages.values()),
        "lost_tabs_and_line_breaks_of_texts": changed,
        **lost_beside_qrels(collection),
    }


def _named(files: list[Path]) -> str:
    return " or ".join(file.name for file in files)


def _write_texts(file: Path, texts: Iterator[tuple[str, str]]) -> int:
    """Write lines `id<TAB>text`; returns in how many texts tabs or line breaks became blanks."""
    changed = 0
    with create_text(file) as out:
        for id_, text in texts:
            plain = _BREAKS.sub(" ", text)
            changed += plain != text
            out.write(f"{id_}\t{plain}\n")
    return changed
