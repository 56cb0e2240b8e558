"""Candidates with their provenance as one Parquet file: what mining writes, and review and the report read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.errors import ArtifactError
from m3tune.types import Candidate

CANDIDATES = "candidates.parquet"

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
