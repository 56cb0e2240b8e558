"""`m3tune check --fix`: a repaired copy of the data, with an account of what was done and what is still wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3tune.config import ModelConfig
from m3tune.data.intake import Intake
from m3tune.data.read import detect_format
from m3tune.data.repair import balance, repair
from m3tune.data.similar import find_similar
from m3tune.data.write import WRITERS, check_target, write_collection
from m3tune.diagnose.check import Examination, context_of
from m3tune.diagnose.registry import findings_of
from m3tune.errors import DataError
from m3tune.paths import resolve_path
from m3tune.types import Finding


@dataclass(frozen=True)
class Fixed:
    """Where the repaired copy is and what became of every record. In `account`, in = out + the reasons."""

    path: Path
    format: str
    account: Mapping[str, Mapping[str, int]]
    written: Mapping[str, int]  # as `write_collection` counts it
    rejected: Path | None  # the file of rejected records, where there are any
    remaining: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything for programs."""
        return {
            "path": str(self.path),
            "format": self.format,
            "account": self.account,
            "written": self.written,
            "rejected": None if self.rejected is None else str(self.rejected),
            "remaining": [asdict(finding) for finding in self.remaining],
        }


def check_fix(path: str, format: str, has_columns: bool, out: Path, to: str | None) -> str:
    """The format that the repaired copy will have: `to`, else that of the data. Raises DataError where it cannot be."""
    if to is None:
        if format == "auto":
            to = "pairs" if has_columns else detect_format(resolve_path(path, "the data"))[0]
        else:
            to = format
        if to not in WRITERS:
            raise DataError(
                f"{to} data is read but not written", where="--fix", fix=f"say --to with one of {', '.join(WRITERS)}"
            )
    check_target(out, to)
    if _rejected_file(out).exists():
        raise DataError("this exists already", where=_rejected_file(out), fix="name another path, or delete it")
    return to


def fix(examination: Examination, out: Path, to: str, model: ModelConfig | None = None) -> Fixed:
    """Write a repaired copy to `out`, the rejected records beside it, and check the copy again. Raises DataError."""
    before = examination.collection
    after, removed = repair(before, examination.context.near_passages.first_of)
    written = write_collection(after, out, to)
    rejected = _rejected_file(out)
    has_rejected = examination.intake.save_rejected(rejected)
    remaining = findings_of(after, context_of(after, Intake(), find_similar(after), model))
    account = balance(before, after, removed)
    return Fixed(out, to, account, written, rejected if has_rejected else None, remaining)


def _rejected_file(out: Path) -> Path:
    out = out.expanduser()
    return out.with_name(f"{out.name}.rejected.jsonl")
