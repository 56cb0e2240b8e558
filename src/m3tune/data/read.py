"""Any data that m3tune reads, into a Collection; what it is taken for is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m3tune.data import beir, flagembedding, llamaindex
from m3tune.data.collection import Collection
from m3tune.data.files import find_file, listed, open_text, read_json, read_json_lines
from m3tune.errors import DataError, nearest
from m3tune.paths import resolve_path

FORMATS: Mapping[str, Callable[[Path], Collection]] = {
    "beir": beir.read_beir,
    "llamaindex": llamaindex.read_llamaindex,
    "flagembedding": flagembedding.read_flagembedding,
}

_UNDERSTOOD = (
    f"{beir.LAYOUT}; a LlamaIndex file is one JSON object with 'queries', 'corpus' and 'relevant_docs'; "
    "a FlagEmbedding file or folder holds JSON lines with 'query' and 'pos'"
)


def read_collection(path: str, format: str = "auto") -> tuple[Collection, str]:
    """The collection at a path or `package:IMPORTNAME/FOLDER`, and a sentence that says how it was read.

    Raises DataError when nothing is there, when the format is not known, or as the format's reader does.
    """
    if format != "auto" and format not in FORMATS:
        close = nearest(format, FORMATS)
        hint = f"did you mean {close!r}? " if close else ""
        raise DataError(f"unknown format {format!r}", fix=f"{hint}known formats: auto, {', '.join(FORMATS)}")
    place = resolve_path(path, "the data")
    format, why = detect_format(place) if format == "auto" else (format, f"Read as {format}, as asked for.")
    return FORMATS[format](place), why


def detect_format(path: Path) -> tuple[str, str]:
    """The format of a file or folder, and a sentence that says why.

    Raises DataError, naming what it saw, when no format fits or several do.
    """
    return _format_of_folder(path) if path.is_dir() else _format_of_file(path)


def _format_of_file(file: Path) -> tuple[str, str]:
    keys = _keys(file)
    format = _format_of_keys(keys)
    if format is None:
        what = f"no known format has the keys {listed(keys)}" if keys else "the file holds no JSON object"
        raise DataError(what, where=file, fix=_UNDERSTOOD)
    return format, f"Read as {format}: {file.name} has the keys {listed(keys)}."


def _format_of_folder(folder: Path) -> tuple[str, str]:
    signs = [file.name for name in ("corpus.jsonl", "queries.jsonl") if (file := find_file(folder, name))]
    if (folder / "qrels").is_dir():
        signs.append("qrels/")
    others = [file for file in _json_files(folder) if file.name not in signs]
    formats = {file.name: _format_beside(file) for file in others}
    rows = [name for name, format in formats.items() if format == "flagembedding"]
    documents = [name for name, format in formats.items() if format == "llamaindex"]
    if signs and not rows:
        return "beir", f"Read as beir: the folder holds {listed(signs)}."
    if rows and not signs and not documents:
        return "flagembedding", f"Read as flagembedding: rows with 'query' and 'pos' stand in {listed(rows)}."
    if rows:
        raise DataError(
            f"several formats fit; the folder holds {listed([*signs, *rows, *documents])}",
            where=folder,
            fix=f"say which one with data.format ({', '.join(FORMATS)}), or name the file",
        )
    if documents:
        raise DataError(
            f"the folder holds LlamaIndex files: {listed(documents)}", where=folder, fix=f"name the file {documents[0]}"
        )
    for file in others:
        _keys(file)  # says what is wrong with a broken file, which is why nothing was recognised
    seen = listed(sorted(path.name for path in folder.iterdir()))
    raise DataError(f"no known format; the folder holds {seen}", where=folder, fix=_UNDERSTOOD)


def _format_beside(file: Path) -> str | None:
    """The format of one file among others, None where it is broken: it may be no data at all."""
    try:
        return _format_of_keys(_keys(file))
    except DataError:
        return None


def _json_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.endswith(flagembedding.EXTENSIONS) and file.is_file())


def _format_of_keys(keys: Mapping[str, Any]) -> str | None:
    if "query" in keys and "pos" in keys:
        return "flagembedding"
    return "llamaindex" if all(key in keys for key in llamaindex.KEYS) else None


def _keys(file: Path) -> Mapping[str, Any]:
    """The first line's object, or the one that an indented `.json` file is as a whole. Raises DataError."""
    with open_text(file) as lines:
        first = next((line.strip() for line in lines if line.strip()), "")
    if ".json" in file.suffixes and first.startswith("{") and not first.endswith("}"):
        return read_json(file)
    return next((row for _, row in read_json_lines(file)), {})
