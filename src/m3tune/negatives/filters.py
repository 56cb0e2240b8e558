"""Which candidates may not be negatives: each filter is a mask and a reason, and the first that applies is recorded.

M candidates, N known positives, P passages
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from m3tune.negatives.candidates import Pairs
from m3tune.negatives.ground import Ground, check_known, columns
from m3tune.negatives.sources import document_rows, documents_of
from m3tune.negatives.verdicts import read_verdicts
from m3tune.types import PairVerdict

Masks = Mapping[str, np.ndarray]
"""Reason -> (M,) bool, in the order in which reasons are recorded."""

KNOWN, LIKE_QUERY = "known relevant", "relevant to a query like it"
COPY, NEARLY, ITSELF = "copy of a positive", "nearly the same as a positive", "the query itself"
DOCUMENT, VERDICT, REPEATED = "same document", "relevant by review", "copy of another candidate"
THRESHOLD, MARGIN, TEACHER = "score near the positive's", "within the margin", "the teacher's score"
LOW, HIGH = "score too low", "score too high"
EARLIER = "suspected a round before"
SUSPECTS = frozenset({EARLIER, THRESHOLD, MARGIN, TEACHER, HIGH})  # reasons to suspect that a candidate is relevant


def known_masks(pairs: Pairs, ground: Ground) -> Masks:
    """What judgments and copies say: relevant to the query or one like it, nearly a positive, the query's own text."""
    query, passage = ground.positives
    copy, (group, number_of) = ground.copies, ground.groups
    of_query = columns(
        (row, number_of[name])
        for row, query_id in enumerate(ground.query_ids)
        for name in ground.known.of_query[query_id]
        if name in number_of
    )
    return {
        KNOWN: _among(ground, pairs, (query, passage), ground.own_numbers),
        COPY: _among(ground, pairs, (query, copy[passage]), copy),
        NEARLY: _among(ground, pairs, (query, group[passage]), group),
        LIKE_QUERY: _among(ground, pairs, of_query, group),
        ITSELF: _own_text(pairs, ground),
    }


def document_mask(pairs: Pairs, ground: Ground) -> np.ndarray:
    """(M,) whether a candidate is of the document of one of the query's positives."""
    members = document_rows(ground)
    listed = columns(
        (row, other)
        for row, query_id in enumerate(ground.query_ids)
        for name in documents_of(ground, query_id)
        for other in members.get(name, ())
    )
    return _among(ground, pairs, listed, ground.own_numbers)


def repeated_mask(pairs: Pairs, ground: Ground, score: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(M,) whether a candidate that is left is nearly the same as one with a better score, or an earlier one."""
    group = ground.groups.numbers
    rows = np.flatnonzero(~removed)
    order = rows[np.argsort(-score[rows], kind="stable")]
    _, first = np.unique(ground.codes(pairs.query[order], group[pairs.passage[order]]), return_index=True)
    repeated = np.zeros(len(pairs), dtype=bool)
    repeated[order] = True
    repeated[order[first]] = False
    return repeated


def reviewed(pairs: Pairs, ground: Ground, verdicts: Sequence[PairVerdict]) -> tuple[np.ndarray, np.ndarray]:
    """(M,) relevant by review and (M,) judged not relevant by a person, or by the data's grade of zero.

    A person's word holds against a model's, and where people disagree, that of who found it relevant.
    """
    said: dict[str, dict[tuple[str, str], None]] = {"relevant": {}, "not relevant": {}, "model": {}}
    for verdict in verdicts:
        pair = (verdict.query_id, verdict.passage_id)
        if verdict.kind == "person" and verdict.judged != "unsure":
            said[verdict.judged][pair] = None
        elif verdict.judged == "relevant":
            said["model"][pair] = None
    graded = ((q, p) for q, grades in ground.collection.grades.items() for p, grade in grades.items() if grade <= 0)
    by_person, by_model, wrong, zero = (
        among(ground, pairs, of) for of in (said["relevant"], said["model"], said["not relevant"], graded)
    )
    cleared = (wrong | zero) & ~by_person
    return by_person | (by_model & ~cleared), cleared


def among(ground: Ground, pairs: Pairs, listed: Iterable[tuple[str, str]]) -> np.ndarray:
    """(M,) whether a candidate is one of the listed pairs of query id and passage id."""
    return _among(ground, pairs, ground.rows(listed), ground.own_numbers)


def load_verdicts(file: Path, ground: Ground) -> list[PairVerdict]:
    """The verdicts of a file. Raises DataError where one names an id that the data does not have."""
    verdicts = read_verdicts(file)
    check_known((verdict.query_id for verdict in verdicts), ground.collection.queries, "query", file)
    check_known((verdict.passage_id for verdict in verdicts), ground.collection.passages, "passage", file)
    return verdicts


def first_reasons(masks: Masks) -> np.ndarray:
    """(M,) int64: 1 + the place in `masks` of the first reason that applies, 0 where none does."""
    table = np.stack([np.zeros_like(next(iter(masks.values()))), *masks.values()])
    return table.argmax(axis=0)


def _among(ground: Ground, pairs: Pairs, listed: tuple[np.ndarray, np.ndarray], number: np.ndarray) -> np.ndarray:
    """(M,) whether a candidate's query and its passage's number are among the listed pairs of both."""
    return np.isin(ground.codes(pairs.query, number[pairs.passage]), ground.codes(*listed))


def _own_text(pairs: Pairs, ground: Ground) -> np.ndarray:
    """(M,) whether the passage is the query's own text."""
    row_of: dict[str, list[int]] = {ground.collection.queries[q].text: [] for q in ground.query_ids}
    for passage_id, passage in ground.collection.passages.items():
        if passage.full_text in row_of and passage_id in ground.passage_row:
            row_of[passage.full_text].append(ground.passage_row[passage_id])
    same = columns(
        (row, other)
        for row, query_id in enumerate(ground.query_ids)
        for other in row_of[ground.collection.queries[query_id].text]
    )
    return _among(ground, pairs, same, ground.own_numbers)
