"""LlamaIndex' `EmbeddingQAFinetuneDataset` as its `save_json` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.files import create_text, excerpt, missing_key, read_json
from m3tune.errors import DataError
from m3tune.types import Judgment, Passage, Query

KEYS = ("queries", "corpus", "relevant_docs")


def read_llamaindex(file: Path) -> Collection:
    """The collection in a LlamaIndex JSON file; every relevant passage of a question is a judgment.

    Raises DataError naming the key: missing, of a wrong type, an unknown id, a question without a relevant passage.
    """
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
    queries = {id_: Query(id_, text) for id_, text in _texts(document, "queries", file).items()}
    passages = {id_: Passage(id_, text) for id_, text in _texts(document, "corpus", file).items()}
    return Collection(queries, passages, tuple(_judgments(document, queries, passages, file)))


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
    }


def _object(document: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = document[key]
    if not isinstance(value, dict):
        raise DataError(
            f"{key!r} is not an object: {excerpt(value)}", where=f"{file}: {key}", fix="write an object keyed by id"
        )
    return value


def _texts(document: dict[str, Any], key: str, file: Path) -> dict[str, str]:
    texts = _object(document, key, file)
    for id_, text in texts.items():
        if not isinstance(text, str):
            raise DataError(
                f"not a text: {excerpt(text)}", where=f"{file}: {key}[{id_!r}]", fix="write a JSON string for each id"
            )
    return texts


def _judgments(
    document: dict[str, Any], queries: dict[str, Query], passages: dict[str, Passage], file: Path
) -> list[Judgment]:
    relevant = _object(document, "relevant_docs", file)
    for query_id in queries:
        if query_id not in relevant:
            raise DataError(
                f"the query {query_id!r} has no entry",
                where=f"{file}: relevant_docs",
                fix="name its relevant passages, or drop it from 'queries'",
            )
    judgments: list[Judgment] = []
    for query_id, passage_ids in relevant.items():
        where = f"{file}: relevant_docs[{query_id!r}]"
        if query_id not in queries:
            raise DataError(
                f"the query {query_id!r} is unknown", where=where, fix="add it to 'queries' or drop it here"
            )
        if not isinstance(passage_ids, list) or not passage_ids:
            raise DataError(
                f"not a list of passage ids: {excerpt(passage_ids)}",
                where=where,
                fix="write a list of at least one passage id, or drop the query",
            )
        for passage_id in passage_ids:
            if not isinstance(passage_id, str) or passage_id not in passages:
                raise DataError(
                    f"the passage {excerpt(passage_id)} is unknown",
                    where=where,
                    fix="add it to 'corpus' or drop it here; ids are strings",
                )
        judgments += [Judgment(query_id, passage_id) for passage_id in dict.fromkeys(passage_ids)]
    return judgments
