"""LlamaIndex' `EmbeddingQAFinetuneDataset` as its `save_json` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.files import excerpt, missing_key, read_json
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
