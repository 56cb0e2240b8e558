"""Reading in tests, as a person reads: every bad record is an error."""

from collections.abc import Mapping
from pathlib import Path

from m3tune.data.collection import Collection
from m3tune.data.read import read_collection


def strictly(format: str, path: Path, columns: Mapping[str, str] | None = None) -> Collection:
    """The collection at `path`, read as `format`."""
    return read_collection(str(path), format, columns)[0]
