"""Where data was read from, kept beside what was made of it, so that it can be read again without being named."""

from __future__ import annotations

from pathlib import Path

from m3tune.artifact import read_json, write_json
from m3tune.config import DataConfig
from m3tune.data.collection import Collection
from m3tune.data.read import read_collection
from m3tune.errors import ArtifactError

FILE = "source.json"


def keep_source(directory: Path, config: DataConfig, collection: Collection) -> None:
    """Write into a directory from where, and how, a collection was read; a path here as one from everywhere."""
    place = Path(config.path).expanduser()
    path = str(place.resolve()) if place.exists() else config.path
    how = {"path": path, "format": config.format, "columns": config.columns}
    write_json(directory / FILE, {**how, "fingerprint": collection.fingerprint})


def read_source(directory: Path) -> Collection:
    """The collection that `keep_source` wrote of. Raises ArtifactError where it reads otherwise now, or DataError."""
    kept = read_json(directory / FILE)
    collection, _ = read_collection(kept["path"], kept["format"], kept["columns"])
    if collection.fingerprint != kept["fingerprint"]:
        raise ArtifactError(
            f"{kept['path']} has changed since this was made from it",
            where=directory,
            fix="make it again, or name the data as it was with --data",
        )
    return collection
