"""A Collection into any format that m3tune writes; what the format cannot hold is counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from m3tune.data import beir, documents, flagembedding, flagembedding_writer, llamaindex, pairs_writer, saved, trec
from m3tune.data.collection import Collection
from m3tune.data.files import PACKED
from m3tune.errors import DataError, listed, nearest

WRITERS: Mapping[str, Callable[[Collection, Path], dict[str, int]]] = {
    "beir": beir.write_beir,
    "llamaindex": llamaindex.write_llamaindex,
    "flagembedding": flagembedding_writer.write_flagembedding,
    "pairs": pairs_writer.write_pairs,
    "trec": trec.write_trec,
    "datasets": saved.write_saved,
}
LOST = "lost_"
"""How the names of those counts begin that say what a format cannot hold."""

# Names by which the readers find a format's file again; a format without an entry is a folder.
_EXTENSIONS = {
    "llamaindex": tuple(f".json{packed}" for packed in PACKED),
    "flagembedding": flagembedding.EXTENSIONS,
    "pairs": pairs_writer.WRITTEN,
}
_OF_QUESTIONS = ("flagembedding", "pairs", "datasets")  # a row is a question with its passages
_FILE_OR_FOLDER = ("flagembedding",)  # a folder's name has no dot


def write_collection(collection: Collection, path: Path, format: str) -> dict[str, int]:
    """Write a new file or folder, whole or not at all; a file is gzip or zstd where its name ends in `.gz` or `.zst`.

    Returns counts: what was written, and by reason, as `lost_…`, what the format cannot hold; zeros are included.
    Raises DataError when the format is not known, when something is at `path` or its name does not suit the format, or
    as the format's writer does.
    """
    check_target(path, format)
    if format in _OF_QUESTIONS and collection.passages and not collection.queries:
        raise DataError(
            f"{format} holds questions with their passages, and the data has no question", fix=documents.NEXT
        )
    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as beside:
        counts = WRITERS[format](collection, Path(beside) / path.name)
        os.rename(Path(beside) / path.name, path)
    return counts


def in_words(counts: Mapping[str, int], path: Path, format: str) -> list[str]:
    """The counts of `write_collection` as lines for a person, without the zeros."""
    written = [name for name, count in counts.items() if count and not name.startswith(LOST)]
    lost = [name for name, count in counts.items() if count and name.startswith(LOST)]
    lines = [f"wrote {path} as {format}", *(f"  {counts[name]:,} {name.replace('_', ' ')}" for name in written)]
    if lost:
        lines.append(f"not in it, because {format} cannot hold it")
        lines += [f"  {counts[name]:,} {name.removeprefix(LOST).replace('_', ' ')}" for name in lost]
    return lines


def check_target(path: Path, format: str) -> None:
    """Raises DataError when `format` is not known, or cannot be written to `path`."""
    if format not in WRITERS:
        close = nearest(format, WRITERS)
        hint = f"did you mean {close!r}? " if close else ""
        raise DataError(f"unknown format {format!r}", fix=f"{hint}formats to write: {', '.join(WRITERS)}")
    check_absent(path)
    extensions = _EXTENSIONS.get(format)
    is_folder = format in _FILE_OR_FOLDER and not path.suffix
    if extensions and not is_folder and not path.name.endswith(extensions):
        raise DataError(
            f"{path.name!r} is no name for a {format} file", where=path, fix=f"end it in one of {listed(extensions)}"
        )


def check_absent(path: Path) -> None:
    """Raises DataError where anything is at `path`: nothing is ever overwritten."""
    if os.path.lexists(path.expanduser()):
        raise DataError("this exists already", where=path, fix="name another path, or delete it")
