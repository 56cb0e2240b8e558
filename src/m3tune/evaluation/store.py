"""Evaluations on disk: `metrics.json` for people, two Parquet tables for everything else, and runs in TREC's format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.artifact import read_json, write_json
from m3tune.errors import ArtifactError, DataError
from m3tune.evaluation.metrics import PerQuery, mean
from m3tune.types import Hit, Run

METRICS = "metrics.json"
PER_QUERY = "per_query.parquet"
RUN = "run.parquet"
HOW = "search.json"

_PER_QUERY_SCHEMA = pa.schema(
    {"name": pa.string(), "head": pa.string(), "query_id": pa.string(), "metric": pa.string(), "value": pa.float64()}
)
_RUN_SCHEMA = pa.schema(
    {
        "head": pa.string(),
        "query_id": pa.string(),
        "passage_id": pa.string(),
        "rank": pa.int32(),
        "score": pa.float64(),
    }
)


@dataclass(frozen=True)
class Evaluation:
    """What one head of the model `name` found, and how good it was."""

    name: str
    head: str
    run: Run
    per_query: PerQuery


def save_evaluations(folder: Path, evaluations: Sequence[Evaluation], how: Mapping[str, Any] | None = None) -> None:
    """Write the evaluations of one model, one for each head, into `folder`.

    `metrics.json`: head -> metric -> mean, rounded to 6 digits. `per_query.parquet`: name, head, query_id, metric,
    value. `run.parquet`: head, query_id, passage_id, rank (from 1), score. `search.json`: head -> `how` its passages
    were searched. Raises ValueError when two share a head.
    """
    heads = [evaluation.head for evaluation in evaluations]
    if len(set(heads)) < len(heads):
        raise ValueError(f"two evaluations share a head: {heads}")
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / PER_QUERY, _PER_QUERY_SCHEMA, (row for item in evaluations for row in _per_query_rows(item)))
    _write_table(folder / RUN, _RUN_SCHEMA, (row for item in evaluations for row in _run_rows(item)))
    means = {item.head: {name: round(value, 6) for name, value in mean(item.per_query).items()} for item in evaluations}
    write_json(folder / METRICS, means)
    if how is not None:
        write_json(folder / HOW, dict(how))


def load_evaluations(folder: Path) -> list[Evaluation]:
    """What `save_evaluations` wrote; queries without results are absent from the runs. Raises ArtifactError."""
    runs: dict[str, dict[str, list[Hit]]] = defaultdict(lambda: defaultdict(list))
    for head, query_id, passage_id, _, score in _rows(folder / RUN, _RUN_SCHEMA):
        runs[head][query_id].append(Hit(passage_id, score))
    per_query: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for name, head, query_id, metric, value in _rows(folder / PER_QUERY, _PER_QUERY_SCHEMA):
        per_query[name, head][metric][query_id] = value
    return [Evaluation(name, head, dict(runs[head]), dict(values)) for (name, head), values in per_query.items()]


def measured_heads(folder: Path) -> tuple[str, ...]:
    """The heads and mixtures that `save_evaluations` was given. Raises ArtifactError."""
    return tuple(read_json(folder / METRICS))


def load_evaluation(folder: Path, head: str) -> Evaluation:
    """One head of what `save_evaluations` wrote. Raises ArtifactError where it was not measured."""
    evaluations = {evaluation.head: evaluation for evaluation in load_evaluations(folder)}
    if head not in evaluations:
        there = ", ".join(evaluations) or "nothing"
        raise ArtifactError(f"{head!r} was not measured", where=folder, fix=f"it has {there}")
    return evaluations[head]


def trec_run_lines(run: Run, tag: str) -> Iterator[str]:
    """Lines `query Q0 passage rank score tag` without line ends, ranks from 1. Raises DataError on ids with spaces.

    Scores are the run's own: trec_eval breaks their ties by passage id, m3tune by rank.
    """
    for query_id, hits in run.items():
        for rank, (passage_id, score) in enumerate(hits, start=1):
            fields = (query_id, "Q0", passage_id, str(rank), repr(float(score)), tag)
            spaced = next((field for field in fields if not field or field.split() != [field]), None)
            if spaced is not None:
                raise DataError(f"{spaced!r} cannot stand in a TREC file", fix="use ids without spaces")
            yield " ".join(fields)


def write_trec_run(path: Path, run: Run, tag: str) -> None:
    """Write `run` as a TREC run file. Raises DataError, before anything is written, on ids with spaces."""
    lines = [line + "\n" for line in trec_run_lines(run, tag)]
    path.write_text("".join(lines), encoding="utf-8")


def _per_query_rows(evaluation: Evaluation) -> Iterator[tuple[Any, ...]]:
    for metric, values in evaluation.per_query.items():
        for query_id, value in values.items():
            yield evaluation.name, evaluation.head, query_id, metric, value


def _run_rows(evaluation: Evaluation) -> Iterator[tuple[Any, ...]]:
    for query_id, hits in evaluation.run.items():
        for rank, hit in enumerate(hits, start=1):
            yield evaluation.head, query_id, hit.passage_id, rank, hit.score


def _write_table(path: Path, schema: pa.Schema, rows: Iterator[tuple[Any, ...]]) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    pq.write_table(pa.table([pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema=schema), path)


def _rows(path: Path, schema: pa.Schema) -> Iterator[tuple[Any, ...]]:
    """Rows of a table with the columns of `schema`."""
    if not path.is_file():
        raise ArtifactError("this file is missing", where=path, fix="is this the directory of a finished evaluation?")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"broken table ({error})", where=path, fix="delete the directory and run again") from None
    if table.schema.names != schema.names:
        raise ArtifactError(
            f"expected the columns {', '.join(schema.names)}, found {', '.join(table.schema.names)}",
            where=path,
            fix="delete the directory and run again",
        )
    yield from zip(*(column.to_pylist() for column in table.columns), strict=True)
