"""Verdicts on pairs as JSON lines: one `PairVerdict` a line, by its field names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from m3tune.data.intake import Row
from m3tune.data.rows import read_json_lines
from m3tune.errors import DataError, excerpt, listed
from m3tune.types import Judged, PairVerdict


def write_verdicts(verdicts: Iterable[PairVerdict], file: Path) -> None:
    """Write one line a verdict, in their order."""
    lines = (json.dumps(verdict._asdict(), ensure_ascii=False) + "\n" for verdict in verdicts)
    file.write_text("".join(lines), encoding="utf-8")


def read_verdicts(file: Path) -> list[PairVerdict]:
    """What `write_verdicts` wrote; of the fields all but query, passage and word may be missing. Raises DataError."""
    return [_verdict(row) for row in read_json_lines(file)]


def _verdict(row: Row) -> PairVerdict:
    if row.error:
        raise row.error
    wrong = [key for key in row.value if key not in PairVerdict._fields]
    wrong += [key for key in ("query_id", "passage_id", "judged") if not isinstance(row.value.get(key), str)]
    if wrong:
        fix = f"write {', '.join(PairVerdict._fields)}, texts all of them; the last three may be left out"
        raise DataError(f"no verdict: {listed(wrong)} unknown, missing or no text", where=row.where, fix=fix)
    verdict, where = PairVerdict(**{"reviewer": "", **row.value}), row.where
    if verdict.judged not in get_args(Judged) or verdict.kind not in ("person", "model"):
        raise DataError(
            f"judged {excerpt(verdict.judged)} by {excerpt(verdict.kind)}",
            where=where,
            fix=f"judged is one of {', '.join(get_args(Judged))}; kind is person or model",
        )
    return verdict
