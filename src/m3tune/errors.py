"""What goes wrong because of what a person gave us: always where, what and how to mend.

Everything in this file ends a command with exit code 2 and a readable message. Any other exception is a bug of ours
(exit code 3).
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path

_EXCERPT_CHARACTERS = 80


class M3TuneError(Exception):
    """An error that the person in front of the machine can mend.

    `what` says what is wrong, `where` names the file and line, key or folder, `fix` says what to do.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class DataError(M3TuneError):
    """Data that cannot be read as what it says it is. `reason` is a short stable name to count such errors by."""

    def __init__(
        self, what: str, *, where: str | Path | None = None, fix: str | None = None, reason: str = "malformed"
    ) -> None:
        self.reason = reason
        super().__init__(what, where=where, fix=fix)


class RecipeError(M3TuneError):
    """A recipe, or a `--set`, with an unknown key, a wrong type or a value out of range."""


class ModelError(M3TuneError):
    """A model folder that cannot be loaded, or an architecture that cannot run without padding."""


class TrainingError(M3TuneError):
    """Training that must not go on, such as a loss that is not finite."""


class DoesNotFitError(M3TuneError):
    """Work that memory does not hold, however small its pieces."""


class ArtifactError(M3TuneError):
    """A run or stage directory that is not what its manifest says."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def excerpt(value: object) -> str:
    """The start of a value as an error message shows it: on one line, cut at about 80 characters."""
    if isinstance(value, str):
        return repr(value[:_EXCERPT_CHARACTERS]) + ("…" if len(value) > _EXCERPT_CHARACTERS else "")
    text = reprlib.repr(value)  # bounded in depth and length, unlike repr
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + "…"


def listed(names: Iterable[str], at_most: int = 10) -> str:
    """Names for a message, comma-separated, cut after `at_most`."""
    known = list(names)
    more = f" and {len(known) - at_most} more" if len(known) > at_most else ""
    return ", ".join(excerpt(name) for name in known[:at_most]) + more if known else "none"


def existing_path(path: str | Path, what: str) -> Path:
    """`path` expanded and absolute.

    Raises DataError naming the nearest existing neighbour when nothing is there.
    """
    if not str(path).strip():
        raise DataError(f"{what} has no name", where=repr(str(path)), fix="give a path")
    given = Path(path).expanduser()
    if given.exists():
        return given.resolve()
    ancestor = given.parent
    missing = given.name
    while not ancestor.exists() and ancestor != ancestor.parent:
        missing, ancestor = ancestor.name, ancestor.parent
    close = nearest(missing, (p.name for p in ancestor.iterdir())) if ancestor.is_dir() else None
    raise DataError(
        f"{what} does not exist",
        where=given,
        fix=f"did you mean {ancestor / close}?"
        if close
        else f"check the path; {ancestor} is the last part that exists",
    )
