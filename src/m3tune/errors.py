"""What goes wrong because of what a person gave us: always where, what and how to mend.

Everything in this file ends a command with exit code 2 and a readable message. Any other exception is a bug of ours
(exit code 3).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


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
    """A file or folder of data that cannot be read as what it says it is."""


class RecipeError(M3TuneError):
    """A recipe, or a `--set`, with an unknown key, a wrong type or a value out of range."""


class ModelError(M3TuneError):
    """A model folder that cannot be loaded, or an architecture that cannot run without padding."""


class TrainingError(M3TuneError):
    """Training that must not go on, such as a loss that is not finite."""


class ArtifactError(M3TuneError):
    """A run or stage directory that is not what its manifest says."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def existing_path(path: str | Path, what: str) -> Path:
    """`path` expanded and absolute.

    Raises DataError naming the nearest existing neighbour when nothing is there.
    """
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
