"""Every verdict ever given in a project, in one SQLite file that several processes may write to at once.

Rows are only ever added, which triggers in the file itself enforce. A changed mind is a further row, and taking a
verdict back is a row that names the one taken back. What stands is, for each reviewer and pair, the newest verdict
that was not taken back.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from m3tune.errors import ArtifactError
from m3tune.types import PairVerdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    query_id TEXT NOT NULL,
    passage_id TEXT NOT NULL,
    judged TEXT CHECK (judged IN ('relevant', 'not relevant', 'unsure')),
    reviewer TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('person', 'model')),
    time TEXT NOT NULL,
    takes_back INTEGER UNIQUE REFERENCES history (id),
    CHECK ((judged IS NULL) = (takes_back IS NOT NULL))
);
CREATE INDEX IF NOT EXISTS of_reviewer ON history (kind, reviewer, query_id, passage_id);
CREATE TRIGGER IF NOT EXISTS no_change BEFORE UPDATE ON history
    BEGIN SELECT RAISE(ABORT, 'verdicts are only ever added'); END;
CREATE TRIGGER IF NOT EXISTS no_removal BEFORE DELETE ON history
    BEGIN SELECT RAISE(ABORT, 'verdicts are only ever added'); END;
CREATE VIEW IF NOT EXISTS given AS
    SELECT * FROM history AS verdict
    WHERE takes_back IS NULL AND NOT EXISTS (SELECT 1 FROM history WHERE takes_back = verdict.id);
"""
_COLUMNS = "query_id, passage_id, judged, reviewer, kind, time"  # in the order of PairVerdict's fields
_WAIT_S = 30.0  # for another process that is writing


class VerdictStore:
    """The verdicts of a project. A connection is opened for each call, so it may be called from any thread."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._connected() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ArtifactError(
                f"no verdicts can be kept here ({error})",
                where=file,
                fix="check who owns the folder, or move the file away",
            ) from None

    def add(self, verdict: PairVerdict) -> bool:
        """Record a verdict, on the disk when this returns; False where the reviewer has said the same already.

        An empty `time` becomes now.
        """
        with self._writing() as connection:
            _, standing = _standing(connection, verdict)
            if standing is not None and standing.judged == verdict.judged:
                return False
            _insert(connection, verdict)
        return True

    def take_back(self, verdict: PairVerdict) -> bool:
        """Take back a reviewer's standing verdict, so that what was said of the pair before, if anything, stands again.

        False where it does not stand any more, as after two presses of one key.
        """
        with self._writing() as connection:
            row, standing = _standing(connection, verdict)
            if standing != verdict:
                return False
            now = verdict._replace(time=_now())
            connection.execute(
                f"INSERT INTO history ({_COLUMNS}, takes_back) VALUES (?, ?, NULL, ?, ?, ?, ?)",
                (now.query_id, now.passage_id, now.reviewer, now.kind, now.time, row),
            )
        return True

    def standing(self) -> list[PairVerdict]:
        """Every verdict that stands, of persons and models, in the order in which they were given here."""
        with self._connected() as connection:
            newest = "SELECT max(id) FROM given GROUP BY kind, reviewer, query_id, passage_id"
            rows = connection.execute(f"SELECT {_COLUMNS} FROM given WHERE id IN ({newest}) ORDER BY id").fetchall()
        return [PairVerdict(*row) for row in rows]

    def take_in(self, verdicts: Iterable[PairVerdict]) -> dict[str, int]:
        """Add verdicts from elsewhere, all or none; returns how many were added, known, and older than what stands."""
        counts = Counter(added=0, known=0, older=0)
        with self._writing() as connection:
            for verdict in verdicts:
                _, standing = _standing(connection, verdict)
                if standing is not None and standing.judged == verdict.judged:
                    counts["known"] += 1
                elif standing is not None and verdict.time <= standing.time:
                    counts["older"] += 1
                else:
                    _insert(connection, verdict)
                    counts["added"] += 1
        return dict(counts)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.file, timeout=_WAIT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer is in: what is read inside still holds when it is written."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def of_one(verdicts: Iterable[PairVerdict], reviewer: str, kind: str) -> list[PairVerdict]:
    """The verdicts of one reviewer, in their order."""
    return [verdict for verdict in verdicts if (verdict.reviewer, verdict.kind) == (reviewer, kind)]


def last_within(verdicts: Iterable[PairVerdict], pairs: Collection[tuple[str, str]]) -> PairVerdict | None:
    """The last of the verdicts that is on one of `pairs`, None where there is none."""
    within = [verdict for verdict in verdicts if (verdict.query_id, verdict.passage_id) in pairs]
    return within[-1] if within else None


def _standing(connection: sqlite3.Connection, of: PairVerdict) -> tuple[int, PairVerdict | None]:
    """The row and the verdict that the same reviewer has on the same pair, (0, None) where there is none."""
    row = connection.execute(
        f"SELECT id, {_COLUMNS} FROM given WHERE (kind, reviewer, query_id, passage_id) = (?, ?, ?, ?) "
        "ORDER BY id DESC LIMIT 1",
        (of.kind, of.reviewer, of.query_id, of.passage_id),
    ).fetchone()
    return (0, None) if row is None else (row[0], PairVerdict(*row[1:]))


def _insert(connection: sqlite3.Connection, verdict: PairVerdict) -> None:
    row = verdict if verdict.time else verdict._replace(time=_now())
    connection.execute(f"INSERT INTO history ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
