"""A collection in the making from queries, passages and judgments that name both by id, as BEIR and TREC have them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from m3tune.data.collection import Collection
from m3tune.data.files import create_text
from m3tune.data.table import Table
from m3tune.errors import DataError, excerpt, listed
from m3tune.types import Judgment, Passage, Query

SPLITS = ("train", "dev", "test")
SPLIT_OF_NAME: Mapping[str, str] = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
"""What files and data sets call their splits -> the split."""

# Nine digits fit every integer type that a grade is stored in; ".0" is what pandas writes.
_GRADE = re.compile(r"[+-]?[0-9]{1,9}(\.0+)?")


class QrelsBuilder:
    """Collects queries, passages, and then the judgments of one split after another.

    `queries_place` and `passages_place` say where an unknown id would have to be added.
    """

    def __init__(self, queries_place: str, passages_place: str) -> None:
        self.queries = Table(Query)
        self.passages = Table(Passage)
        self._judgments: dict[Judgment, None] = {}
        self._splits: dict[str, dict[str, None]] = {}
        self._places = {"query": queries_place, "passage": passages_place}

    def open_split(self, name: str) -> None:
        """Have a split of this name, even where it gets no judgment."""
        self._splits.setdefault(name, {})

    def judge(self, query_id: str, passage_id: str, score: str, where: str, split: str | None = None) -> bool:
        """Add a judgment with its grade as the file writes it; False where the same one is there, in this split.

        Raises DataError for an unknown id and for a score that is no grade.
        """
        self._check_known("query", query_id, self.queries, where)
        self._check_known("passage", passage_id, self.passages, where)
        judgment = Judgment(query_id, passage_id, parse_grade(score, where))
        members = {query_id: None} if split is None else self._splits[split]
        is_new = judgment not in self._judgments or query_id not in members
        self._judgments[judgment] = members[query_id] = None
        return is_new

    def collection(self) -> Collection:
        """Everything added so far; the splits in the order train, dev, test."""
        splits = {name: tuple(self._splits[name]) for name in SPLITS if name in self._splits}
        return Collection(self.queries, self.passages, tuple(self._judgments), splits=splits)

    def _check_known(self, kind: str, id_: str, known: Table, where: str) -> None:
        if id_ not in known:
            raise DataError(
                f"the {kind} {excerpt(id_)} is unknown",
                where=where,
                fix=f"add it to {self._places[kind]} or drop this line",
                reason="unknown-id",
            )


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


def check_splits(names: Iterable[str]) -> None:
    """Raises DataError for a split that is none of train, dev and test."""
    for name in names:
        if name not in SPLITS:
            raise DataError(f"the split {name!r} is unknown", where="data", fix=f"known splits: {listed(SPLITS)}")


def splits_to_write(collection: Collection) -> dict[str, set[str]]:
    """Split name -> its queries, in the order train, dev, test.

    Judged queries in no split are the train split, where the data has none. Raises DataError for a split that is none
    of these three.
    """
    check_splits(collection.splits)
    splits = {split: set(collection.splits[split]) for split in SPLITS if split in collection.splits}
    rest = set(collection.grades).difference(*splits.values())
    return splits if "train" in splits or (splits and not rest) else {"train": rest} | splits


def write_qrels(
    collection: Collection, files: Mapping[Path, Container[str]], template: str, header: str = ""
) -> dict[str, int]:
    """Write each file's judgments, which are those of its queries; returns counts of what is and what is not in them.

    `template` makes a line from `query`, `passage` and `grade`. A pair that is judged twice has the highest grade.
    """
    pairs = dict.fromkeys((judgment.query_id, judgment.passage_id) for judgment in collection.judgments)
    lines = 0
    for path, members in files.items():
        with create_text(path) as file:
            file.write(header)
            for query_id, passage_id in pairs:
                if query_id in members:
                    grade = collection.grades[query_id][passage_id]
                    file.write(template.format(query=query_id, passage=passage_id, grade=grade) + "\n")
                    lines += 1
    held = sum(any(query_id in members for members in files.values()) for query_id, _ in pairs)
    return {
        "judgments": held,
        "judgments_in_several_splits": lines - held,
        "lost_repeated_judgments": len(collection.judgments) - len(pairs),
        "lost_judgments_in_no_split": len(pairs) - held,
        "lost_members_of_a_split_without_a_judgment": sum(
            query_id not in collection.grades for members in collection.splits.values() for query_id in set(members)
        ),
    }


def lost_beside_qrels(collection: Collection) -> dict[str, int]:
    """Counts of what neither texts by id nor qrels can hold."""
    return {
        "lost_negatives": len(collection.negatives),
        "lost_scores": sum(pair.score is not None for pair in collection.pairs),
        "lost_prompts": sum(query.prompt is not None for query in collection.queries.values()),
        "lost_sets": len(collection.sets),
        "lost_documents": sum(bool(passage.document) for passage in collection.passages.values()),
    }


def check_ids(collection: Collection, forbidden: re.Pattern[str], what: str) -> None:
    """Raises DataError for an id that holds what no id of the format can."""
    for id_ in (*collection.queries, *collection.passages):
        if forbidden.search(id_):
            raise DataError(f"the id {excerpt(id_)} holds {what}", fix="give it another id")
