"""The account of a reading: every record that comes in is kept, merged into an equal one, or rejected with a reason."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from m3tune.data.files import temporary_folder
from m3tune.errors import DataError

_SKIP = "m3tune convert or prepare with --skip-bad, or data.skip_bad = true in a recipe"
_SHOWN = 10
_REJECTED_CHARACTERS = 1_000_000  # a longer bad record is cut in rejected.jsonl: it is no text that anybody reads


class Row(NamedTuple):
    """One record as a file holds it: where it stands, and its value or what is wrong with it.

    `source` is the record's own text where it has no value.
    """

    where: str
    value: Any
    error: DataError | None = None
    source: str = ""


def first_value(rows: Iterable[Row]) -> Any:
    """The value of the first sound row, an empty object where there is no row. Raises the first error of bad ones."""
    first_error: DataError | None = None
    for row in rows:
        if row.error is None:
            return row.value
        first_error = first_error or row.error
    if first_error:
        raise first_error
    return {}


class Intake:
    """Counts records by kind (such as row, query, passage, judgment).

    Without `skip_bad`, `finish` raises the bad records; with it, they are left out, and kept on disk to be saved. The
    errors name the setting that leaves them out, if the file is `skippable`: read as data, which has such a setting.
    """

    def __init__(self, *, skip_bad: bool = False, skippable: bool = True) -> None:
        self.skip_bad = skip_bad
        self._or_skip = f"; or leave {{}} out: {_SKIP}" if skippable else ""
        self.kept: Counter[str] = Counter()
        self.merged: Counter[str] = Counter()
        self.rejected: dict[str, Counter[str]] = {}
        self.ignored: Counter[str] = Counter()
        self.shown: list[DataError] = []
        self._rejected: Path | None = None

    def take(self, kind: str, rows: Iterable[Row], add: Callable[[Any, str], bool]) -> None:
        """Give each row's value and place to `add`, which says whether it brought anything new.

        `add` raises DataError for a bad record, and must then have added nothing of it.
        """
        kept = merged = 0
        for row in rows:
            try:
                if row.error is not None:
                    raise row.error
                if add(row.value, row.where):
                    kept += 1
                else:
                    merged += 1
            except DataError as error:
                self._reject(kind, row, error)
        self.kept[kind] += kept
        self.merged[kind] += merged

    def ignore(self, names: Iterable[str]) -> None:
        """Count what a sound record holds beside what is read, such as an unknown key."""
        self.ignored.update(names)

    def finish(self) -> None:
        """Raises DataError with the first bad records and their number, unless they are to be skipped."""
        if self.skip_bad or not self.shown:
            return
        total = sum(map(Counter.total, self.rejected.values()))
        first = self.shown[0]
        if total == 1:
            fix = f"{first.fix}{self._or_skip.format('it')}"
            raise DataError(first.what, where=first.where, fix=fix, reason=first.reason)
        by_reason = Counter[str]()
        for reasons in self.rejected.values():
            by_reason.update(reasons)
        reasons_in_words = ", ".join(f"{count:,} {reason}" for reason, count in by_reason.most_common())
        more = f"\n… and {total - _SHOWN:,} more" if total > _SHOWN else ""
        raise DataError(
            "\n".join(str(error) for error in self.shown) + f"{more}\n{total:,} bad records: {reasons_in_words}",
            fix=f"mend them{self._or_skip.format('them')}",
            reason=first.reason,
        )

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each kind: read = kept + merged + the sum of rejected."""
        kinds = dict.fromkeys((*self.kept, *self.rejected))
        return {
            kind: {
                "read": self.kept[kind] + self.merged[kind] + self.rejected.get(kind, Counter()).total(),
                "kept": self.kept[kind],
                "merged": self.merged[kind],
                "rejected": dict(self.rejected.get(kind, {})),
            }
            for kind in kinds
        }

    def save_rejected(self, file: Path) -> bool:
        """Write the rejected records as JSON lines with their reason; False, and no file, where there are none."""
        if self._rejected is None:
            return False
        shutil.copyfile(self._rejected, file)
        return True

    def _reject(self, kind: str, row: Row, error: DataError) -> None:
        self.rejected.setdefault(kind, Counter())[error.reason] += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(error)
        if not self.skip_bad:
            return
        if self._rejected is None:
            self._rejected = temporary_folder(self) / "rejected.jsonl"
        record = row.source or row.value
        if len(row.source) > _REJECTED_CHARACTERS:
            record = f"{row.source[:_REJECTED_CHARACTERS]}… (cut; {len(row.source):,} characters)"
        line = {"where": row.where, "kind": kind, "reason": error.reason, "what": error.what, "fix": error.fix}
        with self._rejected.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line | {"record": record}, ensure_ascii=False, default=str) + "\n")


def in_words(counts: dict[str, dict[str, Any]]) -> list[str]:
    """`Intake.counts` as lines for a person."""
    lines = []
    for kind, of_kind in counts.items():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in of_kind["rejected"].items())
        parts = [f"{of_kind['kept']:,} kept"]
        parts += [f"{of_kind['merged']:,} merged (nothing new in them)"] * bool(of_kind["merged"])
        parts += [f"{sum(of_kind['rejected'].values()):,} rejected ({reasons})"] * bool(reasons)
        lines.append(f"{kind}: {of_kind['read']:,} read = {' + '.join(parts)}")
    return lines
