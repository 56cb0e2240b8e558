"""Any data that m3tune reads, into a Collection; what it is taken for is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m3tune.data import beir, flagembedding, llamaindex, pairs
from m3tune.data.collection import Collection
from m3tune.data.columns import fits
from m3tune.data.files import find_file, read_lines
from m3tune.data.intake import Intake, first_value
from m3tune.data.rows import read_json, read_json_lines
from m3tune.data.tables import TABLES, table_rows
from m3tune.errors import DataError, listed, nearest
from m3tune.paths import resolve_path

FORMATS: Mapping[str, Callable[[Path, Intake], Collection]] = {
    "beir": beir.read_beir,
    "llamaindex": llamaindex.read_llamaindex,
    "flagembedding": flagembedding.read_flagembedding,
    "pairs": pairs.read_pairs,
}

_UNDERSTOOD = (
    f"{beir.LAYOUT}; a LlamaIndex file is one JSON object with 'queries', 'corpus' and 'relevant_docs'; "
    "a FlagEmbedding file or folder holds JSON lines with 'query' and 'pos'; pairs are JSON lines, CSV, TSV or Parquet "
    "with a column for the query and one for the positive, known by their names; m3tune convert --column positive=NAME "
    "says what another is"
)


def read_collection(
    path: str, format: str = "auto", columns: Mapping[str, str] | None = None, intake: Intake | None = None
) -> tuple[Collection, str]:
    """The collection at a path or `package:IMPORTNAME/FOLDER`, and a sentence that says how it was read.

    `columns` says what columns of pairs are (column -> role), which makes the data pairs where `format` is auto. The
    account of every record goes to `intake`, which also says whether bad ones are left out; without one they are not.

    Raises DataError when nothing is there, when the format is not known or has no columns, for bad records, or as the
    format's reader does.
    """
    intake = intake or Intake()
    if format != "auto" and format not in FORMATS:
        close = nearest(format, FORMATS)
        hint = f"did you mean {close!r}? " if close else ""
        raise DataError(f"unknown format {format!r}", fix=f"{hint}known formats: auto, {', '.join(FORMATS)}")
    place = resolve_path(path, "the data")
    if columns:
        if format not in ("auto", "pairs"):
            raise DataError(f"{format} data has no columns to name", fix="leave the columns out, or read it as pairs")
        collection = pairs.read_pairs(place, intake, columns)
        why = f"Read as pairs: the column {listed(columns)} is named."
    else:
        format, why = detect_format(place) if format == "auto" else (format, f"Read as {format}, as asked for.")
        collection = FORMATS[format](place, intake)
    intake.finish()
    return collection, why


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
    others = [file for file in _data_files(folder) if file.name not in signs]
    formats = {file.name: _format_beside(file) for file in others}
    rows = [name for name, format in formats.items() if format == "flagembedding"]
    tables = [name for name, format in formats.items() if format == "pairs"]
    documents = [name for name, format in formats.items() if format == "llamaindex"]
    if signs and not rows and not tables:
        return "beir", f"Read as beir: the folder holds {listed(signs)}."
    if rows and not signs and not tables and not documents:
        return "flagembedding", f"Read as flagembedding: rows with 'query' and 'pos' stand in {listed(rows)}."
    if tables and not signs and not rows and not documents:
        return "pairs", f"Read as pairs: rows with a query and a positive stand in {listed(tables)}."
    if rows or tables:
        raise DataError(
            f"several formats fit; the folder holds {listed([*signs, *rows, *tables, *documents])}",
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


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.endswith(pairs.EXTENSIONS) and file.is_file())


def _format_of_keys(keys: Mapping[str, Any]) -> str | None:
    # A single text under 'pos' is a pair; FlagEmbedding's is a list.
    if "query" in keys and "pos" in keys and not isinstance(keys["pos"], str):
        return "flagembedding"
    if all(key in keys for key in llamaindex.KEYS):
        return "llamaindex"
    return "pairs" if fits(keys) else None


def _keys(file: Path) -> Mapping[str, Any]:
    """The first row of a table or line's object, or the one that an indented `.json` file is. Raises DataError."""
    if file.name.endswith(TABLES):
        return first_value(table_rows(file))
    first = next((line.text.strip() for line in read_lines(file) if line.text.strip()), "")
    if ".json" in file.suffixes and first.startswith("{") and not first.endswith("}"):
        return read_json(file)
    return first_value(read_json_lines(file))
