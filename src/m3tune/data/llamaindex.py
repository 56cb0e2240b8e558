"""LlamaIndex' `EmbeddingQAFinetuneDataset` as its `save_json` writes it."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.files import create_text
from m3tune.data.intake import Intake, Row
from m3tune.data.rows import missing_key, read_json
from m3tune.data.table import Table
from m3tune.errors import DataError, excerpt
from m3tune.types import Judgment, Passage, Query

KEYS = ("queries", "corpus", "relevant_docs")


def fits(keys: Container[str]) -> bool:
    """Whether a JSON object is LlamaIndex' by its keys."""
    return all(key in keys for key in KEYS)


def read_llamaindex(file: Path, intake: Intake) -> Collection:
    """The collection in a LlamaIndex JSON file; every relevant passage of a question is a judgment.

    Bad records go to `intake`: a text that is none, an unknown id, a question without a relevant passage. Raises
    DataError, naming the key, where the document itself is not what LlamaIndex writes.
    """
    document = _document(file)
    intake.ignore(f"key {key!r}" for key in document if key not in (*KEYS, "mode"))
    queries, passages = Table(Query), Table(Passage)
    relevant = _object(document, "relevant_docs", file)
    judgments: dict[Judgment, None] = {}

    def add_query(entry: tuple[str, Any], where: str) -> bool:
        query_id, text = _text(entry, where)
        if query_id not in relevant:
            raise DataError(
                f"the query {query_id!r} has no entry",
                where=f"{file}: relevant_docs",
                fix="name its relevant passages, or drop it from 'queries'",
                reason="no-positive",
            )
        return queries.add(Query(query_id, text), where)

    def add_judgments(entry: tuple[str, Any], where: str) -> bool:
        query_id, passage_ids = entry
        _check_relevant(query_id, passage_ids, queries, passages, where)
        new = [Judgment(query_id, p) for p in passage_ids if Judgment(query_id, p) not in judgments]
        judgments.update(dict.fromkeys(new))
        return bool(new)

    intake.take("query", _entries(document, "queries", file), add_query)
    intake.take("passage", _entries(document, "corpus", file), lambda e, w: passages.add(Passage(*_text(e, w)), w))
    intake.finish()  # what names a bad text would only be bad because of it
    intake.take("relevant_docs", _entries(document, "relevant_docs", file), add_judgments)
    return Collection(queries, passages, tuple(judgments))


def _document(file: Path) -> dict[str, Any]:
    """The JSON object of a file, with every key that LlamaIndex writes. Raises DataError."""
    document = read_json(file)
    if not isinstance(document, dict):
        raise DataError(
            f"not a JSON object: {excerpt(document)}",
            where=file,
            fix="save it with EmbeddingQAFinetuneDataset.save_json",
        )
    for key in KEYS:
        if key not in document:
            raise missing_key(document, key, str(file))
    if document.get("mode", "text") != "text":
        raise DataError(
            f"the mode is {excerpt(document['mode'])}",
            where=f"{file}: mode",
            fix="only data of mode 'text' can be read",
        )
    return document


def write_llamaindex(collection: Collection, file: Path) -> dict[str, int]:
    """Write a new LlamaIndex JSON file; returns what was written and, as `lost_…`, what the format cannot hold.

    A title is joined into its passage's text, as the encoder reads it. A query without a relevant passage is left out.
    """
    relevant = {query_id: list(passage_ids) for query_id, passage_ids in collection.positives.items()}
    queries = {query.id: query.text for query in collection.queries.values() if query.id in relevant}
    corpus = {passage.id: passage.full_text for passage in collection.passages.values()}
    with create_text(file) as text:
        # Escaped as save_json does: LlamaIndex reads the file in the machine's own encoding, which may not be UTF-8.
        document = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "mode": "text"}
        json.dump(document, text, indent=4)
    grades = [grade for graded in collection.grades.values() for grade in graded.values()]
    judgments = sum(len(passage_ids) for passage_ids in relevant.values())
    return {
        "queries": len(queries),
        "passages": len(corpus),
        "judgments": judgments,
        "titles_joined_into_texts": sum(bool(passage.title) for passage in collection.passages.values()),
        "lost_queries_without_a_relevant_passage": len(collection.queries) - len(queries),
        "lost_repeated_judgments": len(collection.judgments) - len(grades),
        "lost_judgments_of_not_relevant": len(grades) - judgments,
        "lost_grades_above_1": sum(grade > 1 for grade in grades),
        "lost_scores": sum(pair.score is not None for pair in collection.pairs),
        "lost_negatives": len(collection.negatives),
        "lost_prompts": sum(query.prompt is not None for query in collection.queries.values()),
        "lost_splits": len(collection.splits),
        "lost_sets": len(collection.sets),
        "lost_documents": sum(bool(passage.document) for passage in collection.passages.values()),
    }


def _object(document: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = document[key]
    if not isinstance(value, dict):
        raise DataError(
            f"{key!r} is not an object: {excerpt(value)}", where=f"{file}: {key}", fix="write an object keyed by id"
        )
    return value


def _entries(document: dict[str, Any], key: str, file: Path) -> Iterator[Row]:
    """Each entry of an object, as (id, value)."""
    for entry in _object(document, key, file).items():
        yield Row(f"{file}: {key}[{entry[0]!r}]", entry)


def _text(entry: tuple[str, Any], where: str) -> tuple[str, str]:
    id_, text = entry
    if not isinstance(text, str):
        raise DataError(
            f"not a text: {excerpt(text)}", where=where, fix="write a JSON string for each id", reason="wrong-type"
        )
    return id_, text


def _check_relevant(
    query_id: str, passage_ids: Any, queries: Container[str], passages: Container[str], where: str
) -> None:
    if query_id not in queries:
        raise DataError(
            f"the query {query_id!r} is unknown",
            where=where,
            fix="add it to 'queries' or drop it here",
            reason="unknown-id",
        )
    if not isinstance(passage_ids, list) or not passage_ids:
        raise DataError(
            f"not a list of passage ids: {excerpt(passage_ids)}",
            where=where,
            fix="write a list of at least one passage id, or drop the query",
            reason="wrong-type",
        )
    for passage_id in passage_ids:
        if not isinstance(passage_id, str) or passage_id not in passages:
            raise DataError(
                f"the passage {excerpt(passage_id)} is unknown",
                where=where,
                fix="add it to 'corpus' or drop it here; ids are strings",
                reason="unknown-id",
            )
