"""Candidates with their provenance as one Parquet file: what mining writes, and review and the report read.

Beside it stand the positives that they were measured against, with the same judges' scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.errors import ArtifactError
from m3tune.negatives.candidates import Pairs
from m3tune.negatives.filters import SUSPECTS, VERDICT
from m3tune.negatives.ground import Ground
from m3tune.negatives.scores import Scores
from m3tune.negatives.select import Selection
from m3tune.types import MINED, SOFT, TAUGHT, Candidate, Negative

CANDIDATES, POSITIVES = "candidates.parquet", "positives.parquet"

_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("positive_score", pa.float32(), nullable=False),
        pa.field("teacher", pa.float32()),
        pa.field("positive_teacher", pa.float32()),
        pa.field("removed", pa.string(), nullable=False),
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)


_POSITIVES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("passage_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("teacher", pa.float32()),
    ]
)


def write_mined(
    folder: Path, ground: Ground, pairs: Pairs, scores: Scores, teacher: Scores | None, selection: Selection
) -> None:
    """Write all candidates and all positives of a mining to `folder`, from arrays."""
    lowest = scores.lowest(ground)[pairs.query]
    reasons = pa.array(["", *selection.reasons])
    columns = [
        _names(ground.query_ids, pairs.query),
        _names(ground.passage_ids, pairs.passage),
        _sources(pairs),
        pa.array(pairs.rank),
        pa.array(scores.candidate),
        pa.array(lowest),
        _scored(teacher.candidate if teacher else None, len(pairs)),
        _scored(teacher.lowest(ground)[pairs.query] if teacher else None, len(pairs)),
        reasons.take(pa.array(selection.removed)),
        pa.array(selection.chosen),
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), folder / CANDIDATES, compression="zstd")
    query, passage = ground.positives
    columns = [
        _names(ground.query_ids, query),
        _names(ground.passage_ids, passage),
        pa.array(scores.positive),
        _scored(teacher.positive if teacher else None, len(query)),
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=_POSITIVES), folder / POSITIVES, compression="zstd")


def read_negatives(folder: Path) -> list[Negative]:
    """The candidates that `write_mined` wrote as chosen, with the teacher's score where there is one.

    Those that were removed are soft labels.
    """
    names = ["query_id", "passage_id", "score", "teacher", "removed"]
    rows = pq.read_table(folder / CANDIDATES, columns=names, filters=[("chosen", "=", True)]).to_pylist()
    return [
        Negative(row["query_id"], row["passage_id"], MINED, row["score"])
        if row["teacher"] is None
        else Negative(row["query_id"], row["passage_id"], SOFT if row["removed"] else TAUGHT, row["teacher"])
        for row in rows
    ]


def read_suspects(folder: Path) -> list[tuple[str, str]]:
    """Query id and passage id of the candidates that `write_mined` wrote as removed by suspicion."""
    rows = pq.read_table(
        folder / CANDIDATES, columns=["query_id", "passage_id"], filters=[("removed", "in", SUSPECTS)]
    ).to_pylist()
    return [(row["query_id"], row["passage_id"]) for row in rows]


def read_taught_positives(folder: Path) -> dict[tuple[str, str], float]:
    """The teacher's score of each positive, and of what review found relevant, by query id and passage id.

    Empty where there was no teacher.
    """
    names, taught = ["query_id", "passage_id", "teacher"], ("teacher", ">", float("-inf"))
    rows = pq.read_table(folder / POSITIVES, columns=names, filters=[taught]).to_pylist()
    rows += pq.read_table(folder / CANDIDATES, columns=names, filters=[taught, ("removed", "=", VERDICT)]).to_pylist()
    return {(row["query_id"], row["passage_id"]): row["teacher"] for row in rows}


def write_candidates(candidates: Iterable[Candidate], folder: Path) -> None:
    """Write the candidates of all queries, in their order, to `folder`."""
    rows = [candidate._asdict() for candidate in candidates]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / CANDIDATES, compression="zstd")


def read_candidates(folder: Path) -> list[Candidate]:
    """What `write_candidates` wrote. Raises ArtifactError."""
    file = folder / CANDIDATES
    try:
        table = pq.read_table(file)
    except FileNotFoundError:
        raise ArtifactError("no mined candidates here", where=file, fix="run m3tune mine first") from None
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"broken Parquet ({error})", where=file, fix="delete the folder and mine again") from None
    return [Candidate(**row | {"sources": tuple(row["sources"])}) for row in table.to_pylist()]


def _names(ids: Sequence[str], rows: np.ndarray) -> pa.Array:
    return pa.array(ids, pa.string()).take(pa.array(rows))


def _scored(values: np.ndarray | None, length: int) -> pa.Array:
    """Scores, null where there is none."""
    return pa.nulls(length, pa.float32()) if values is None else pa.array(values, pa.float32(), from_pandas=True)


def _sources(pairs: Pairs) -> pa.Array:
    """The sources of each candidate, best rank first."""
    found = pairs.ranks > 0
    order = np.where(found, pairs.ranks, np.iinfo(np.int32).max).argsort(axis=0, kind="stable")
    present = np.take_along_axis(found, order, axis=0).T
    names = _names(pairs.sources, order.T[present])
    return pa.ListArray.from_arrays(pa.array(np.append(0, found.sum(axis=0).cumsum()), pa.int32()), names)
