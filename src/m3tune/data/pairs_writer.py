"""A collection as pairs: a row for each query and one of its positives, with all negatives of the query."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3tune.data.builder import texts_of
from m3tune.data.collection import Collection
from m3tune.data.files import PACKED, create_text
from m3tune.data.rows import write_json_lines
from m3tune.data.scores import first_scores
from m3tune.data.table import BLOCK_RECORDS
from m3tune.data.tables import TABLES
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

if TYPE_CHECKING:
    import pyarrow as pa

WRITTEN = (*(f".jsonl{packed}" for packed in PACKED), *TABLES)

_Scored = dict[str, float | None]  # passage id -> score
_NEGATIVES = ("negative", "negative_id", "negative_title", "negative_score")  # lists in a row
_OPTIONAL = ("prompt", "title", "positive_score", *_NEGATIVES)
_LOST = (
    "lost_queries_empty_or_without_a_relevant_passage",
    "lost_pairs_of_these_queries",
    "lost_pairs_with_an_empty_passage",
    "lost_pairs_of_a_query_with_itself",
    "lost_negatives_with_the_text_of_the_positive",
)


def write_pairs(collection: Collection, file: Path) -> dict[str, int]:
    """Write a new file as its name says: JSON lines, CSV, TSV or Parquet.

    Returns what was written and, as `lost_…`, what the format cannot hold. The negatives of a query stand in each of
    its rows, but for one with the text of the row's positive: as a list, or in CSV and TSV as columns `negative_1`,
    `negative_2`, ….

    Raises DataError for an id that is blank.
    """
    rows = PairRows(collection)
    columns = rows.columns()
    if file.name.endswith(".parquet"):
        _write_parquet(file, columns, rows)
    elif file.name.endswith(TABLES):
        _write_table(file, columns, rows)
    else:
        write_json_lines(file, ({name: row[name] for name in columns} for row in rows))
    return rows.counts()


class PairRows:
    """The rows of a collection, with every column there is; each pass over them counts anew."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._scores = (first_scores(collection.judgments), first_scores(collection.negatives))
        self.most_negatives = 0
        self.seen: dict[str, bool] = {}  # column -> whether a row says anything in it

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._written: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._passages: set[str] = set()
        for query in self._collection.queries.values():
            positives = self._sound(query, self._collection.positives.get(query.id, ()), 0)
            negatives = self._sound(query, self._collection.given_negatives.get(query.id, ()), 1)
            if query.text.strip() and positives:
                yield from self._rows_of(query, positives, negatives)
            else:
                self._lost["lost_queries_empty_or_without_a_relevant_passage"] += 1
                self._lost["lost_pairs_of_these_queries"] += len(positives) + len(negatives)

    def _sound(self, query: Query, passage_ids: Iterable[str], side: int) -> list[tuple[Passage, float | None]]:
        """The passages of one side, 0 for positives, that a row can hold, with their scores."""
        sound = []
        for passage_id in passage_ids:
            passage = self._collection.passages[passage_id]
            if not passage.text.strip():
                self._lost["lost_pairs_with_an_empty_passage"] += 1
            elif side == 0 and passage.full_text == query.text:
                self._lost["lost_pairs_of_a_query_with_itself"] += 1
            else:
                sound.append((passage, self._scores[side][query.id, passage_id]))
        return sound

    def _rows_of(
        self,
        query: Query,
        positives: list[tuple[Passage, float | None]],
        negatives: list[tuple[Passage, float | None]],
    ) -> Iterator[dict[str, Any]]:
        held: _Scored = {}
        for passage, score in positives:
            others = [(n, s) for n, s in negatives if n.full_text not in texts_of(passage)]
            held |= {negative.id: score for negative, score in others}
            self._passages.update((passage.id, *(negative.id for negative, _ in others)))
            row: dict[str, Any] = {
                "query_id": _written_id(query.id),
                "query": query.text,
                "prompt": query.prompt or None,
                "positive_id": _written_id(passage.id),
                "title": passage.title,
                "positive": passage.text,
                "positive_score": score,
                "negative_id": [_written_id(negative.id) for negative, _ in others],
                "negative_title": [negative.title for negative, _ in others],
                "negative": [negative.text for negative, _ in others],
                "negative_score": [score for _, score in others],
            }
            self.most_negatives = max(self.most_negatives, len(others))
            for name in _OPTIONAL:
                values = row[name] if name in _NEGATIVES else [row[name]]
                self.seen[name] = self.seen.get(name, False) or any(value not in ("", None) for value in values)
            yield row
        self._written["queries"] += 1
        self._written["judgments"] += len(positives)
        self._written["negatives"] += len(held)
        self._written["scores"] += sum(score is not None for score in (*(s for _, s in positives), *held.values()))
        self._lost["lost_negatives_with_the_text_of_the_positive"] += len(negatives) - len(held)
        self._lost["lost_empty_prompts"] += query.prompt == ""

    def columns(self) -> list[str]:
        """The columns that say anything, which only a pass over all rows can tell."""
        row: dict[str, Any] = {}
        for row in self:  # noqa: B007
            pass
        return [name for name in row if self.seen.get(name, True)]

    def counts(self) -> dict[str, int]:
        """What the last pass wrote, and what was lost by reason. Pairs are judgments and negatives."""
        collection = self._collection
        grades = [grade for graded in collection.grades.values() for grade in graded.values()]
        distinct_pairs = len(grades) + sum(map(len, collection.given_negatives.values()))
        return {
            "queries": self._written["queries"],
            "passages": len(self._passages),
            "judgments": self._written["judgments"],
            "negatives": self._written["negatives"],
            "scores": self._written["scores"],
            **{reason: self._lost[reason] for reason in _LOST},
            "lost_passages_in_no_row": len(collection.passages) - len(self._passages),
            "lost_repeated_pairs": len(collection.pairs) - distinct_pairs,
            "lost_judgments_of_not_relevant": sum(grade <= 0 for grade in grades),
            "lost_grades_above_1": sum(grade > 1 for grade in grades),
            "lost_scores": sum(pair.score is not None for pair in collection.pairs) - self._written["scores"],
            "lost_sources_of_negatives": sum(pair.source != "given" for pair in collection.negatives),
            "lost_empty_prompts": self._lost["lost_empty_prompts"],
            "lost_splits": len(collection.splits),
            "lost_sets": len(collection.sets),
            "lost_documents": sum(bool(collection.passages[id_].document) for id_ in self._passages),
        }


def _write_table(file: Path, columns: list[str], rows: PairRows) -> None:
    header = [name for name in columns if name not in _NEGATIVES]
    lists = [name for name in columns if name in _NEGATIVES]
    numbered = [f"{name}_{number}" for number in range(1, rows.most_negatives + 1) for name in lists]
    with create_text(file) as text:
        # Both line ends, so that a text with either is put into quotes.
        writer = csv.writer(text, delimiter="\t" if ".tsv" in file.suffixes else ",", lineterminator="\r\n")
        writer.writerow([*header, *numbered] if columns else ["query", "positive"])
        for row in rows:
            cells = [row[name] for name in header]
            for at in range(rows.most_negatives):
                cells += [row[name][at] if at < len(row[name]) else None for name in lists]
            writer.writerow(cells)


def _write_parquet(file: Path, columns: list[str], rows: PairRows) -> None:
    import pyarrow.parquet as pq

    schema = arrow_schema(columns)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in arrow_tables(rows, schema):
            writer.write_table(table)


def arrow_schema(columns: list[str]) -> pa.Schema:
    """The columns of `PairRows` with their types; where there are none, those that a table of pairs must have."""
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        of_one = pa.float64() if name.endswith("_score") else pa.large_string()
        return pa.list_(of_one) if name in _NEGATIVES else of_one

    return pa.schema([(name, kind(name)) for name in columns or ("query", "positive")])


def arrow_tables(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in blocks, the last of which may be empty."""
    import pyarrow as pa

    block: list[dict[str, Any]] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK_RECORDS:
            yield pa.Table.from_pylist(block, schema)
            block = []
    yield pa.Table.from_pylist(block, schema)


def _written_id(id_: str) -> str:
    if not id_.strip():
        raise DataError(f"the id {excerpt(id_)} is blank", fix="give it another id")
    return id_
