"""Verdicts on pairs as JSON lines: one `PairVerdict` a line, by its field names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from m3tune.errors import DataError, excerpt
from m3tune.types import Judged, PairVerdict


def write_verdicts(verdicts: Iterable[PairVerdict], file: Path) -> None:
    """Write one line a verdict, in their order."""
    lines = (json.dumps(verdict._asdict(), ensure_ascii=False) + "\n" for verdict in verdicts)
    file.write_text("".join(lines), encoding="utf-8")


def read_verdicts(file: Path) -> list[PairVerdict]:
    """What `write_verdicts` wrote; of the fields all but query, passage and word may be missing. Raises DataError."""
    verdicts = []
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                verdicts.append(_verdict(line, f"{file}:{number}"))
    return verdicts


def _verdict(line: str, where: str) -> PairVerdict:
    try:
        row = json.loads(line)
        verdict = PairVerdict(**{"reviewer": "", **row})
    except (ValueError, TypeError) as error:
        raise DataError(f"no verdict: {error}", where=where, fix=f"write {', '.join(PairVerdict._fields)}") from None
    if verdict.judged not in get_args(Judged) or verdict.kind not in ("person", "model"):
        raise DataError(
            f"judged {excerpt(verdict.judged)} by {excerpt(verdict.kind)}",
            where=where,
            fix=f"judged is one of {', '.join(get_args(Judged))}; kind is person or model",
        )
    return verdict
