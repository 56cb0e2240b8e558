"""Which format a file or folder is, by what is in it; the guess says why, and none is made where two fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m3tune.data import beir, columns, documents, flagembedding, llamaindex, pairs, prepared, saved, trec
from m3tune.data.files import read_lines
from m3tune.data.intake import first_value
from m3tune.data.rows import read_json, read_json_lines
from m3tune.data.tables import TABLES, table_rows
from m3tune.data.trec_files import role_of
from m3tune.errors import DataError, listed

# Format -> the names in a folder that make the folder this format, none where it is not.
_FOLDERS: Mapping[str, Callable[[Path], list[str]]] = {
    "beir": beir.signs,
    "trec": trec.signs,
    "datasets": saved.signs,
    "documents": documents.signs,
}
# Format -> whether the keys of a first row make a file this format. The first that fits decides.
_FILES: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "flagembedding": flagembedding.fits,
    "llamaindex": llamaindex.fits,
    "pairs": columns.fits,
}
_OF_MANY_FILES = ("flagembedding", "pairs")  # a folder of such files is read as one
_CHOOSE = "say which one with --from FORMAT (--format of m3tune init), or data.format in a recipe"

_OTHER_SEPARATORS = (";", "\t", "|", ",")  # spreadsheets of many countries write the first into .csv
_EXPORTED = {
    (".xlsx", ".xls", ".ods"): "save it as CSV in UTF-8",
    (".pdf", ".docx", ".doc", ".html", ".htm"): "save its text as .txt or .md",
    (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"): "unpack it, and name what is in it",
}
_NAME_COLUMNS = (
    "say what its columns are: --column query=NAME --column positive=NAME, and --column ignore=NAME for those to leave "
    "out; docs/guide/data.md has the names that need no saying"
)

UNDERSTOOD = (
    f"{beir.LAYOUT}; a LlamaIndex file is one JSON object with 'queries', 'corpus' and 'relevant_docs'; "
    "a FlagEmbedding file or folder holds JSON lines with 'query' and 'pos'; pairs are JSON lines, CSV, TSV or Parquet "
    "with a column for the query and one for the positive, known by their names; --column positive=NAME "
    f"says what another is; {trec.LAYOUT}; {saved.LAYOUT}; {documents.LAYOUT}"
)


def detect_format(path: Path) -> tuple[str, str]:
    """The format of a file or folder, and a sentence that says why.

    Documents are the last resort: a folder with data of another format may well hold a README, too. Raises DataError,
    naming what it saw, when no format fits or several do.
    """
    if path.is_dir() and prepared.is_prepared(path):
        return "prepared", f"Read as prepared data: {path.name} is what m3tune prepare wrote."
    return _format_of_folder(path) if path.is_dir() else _format_of_file(path)


def _format_of_file(file: Path) -> tuple[str, str]:
    if documents.is_document(file):
        return "documents", f"Read as documents: {file.name} is one by the end of its name."
    role = role_of(file.name)
    if role and not file.name.endswith(pairs.EXTENSIONS):
        raise DataError(f"by its name this is the {role} of a TREC folder: no data alone", where=file, fix=trec.LAYOUT)
    for endings, fix in _EXPORTED.items():
        if file.name.lower().endswith(endings):
            raise DataError("this kind of file is not read", where=file, fix=fix)
    keys = _keys(file)
    format = _format_of_keys(keys)
    if format is None:
        raise _unknown(file, keys)
    return format, f"Read as {format}: {file.name} has the keys {listed(keys)}."


def _unknown(file: Path, keys: Mapping[str, Any]) -> DataError:
    """The error for a file that is sound, and of no known format."""
    if not keys:
        return DataError("there is no record in this file", where=file, fix="bring one with records; was it cut off?")
    what, table = f"no known format has the keys {listed(keys)}", file.name.endswith(TABLES)
    other = next((mark for mark in _OTHER_SEPARATORS if mark in next(iter(keys))), None)
    if table and len(keys) == 1 and other:
        return DataError(
            what, where=file, fix=f"its columns are divided by {other!r}: save it with commas, or with tabs as .tsv"
        )
    return DataError(what, where=file, fix=_NAME_COLUMNS if table else UNDERSTOOD)


def _format_of_folder(folder: Path) -> tuple[str, str]:
    found = {format: names for format, look in _FOLDERS.items() if (names := look(folder))}
    spoken_for = {name for names in found.values() for name in names}
    others = [file for file in _data_files(folder) if file.name not in spoken_for]
    formats = {file.name: _format_beside(file) for file in others}
    for format in (*_OF_MANY_FILES, "llamaindex"):
        if names := [name for name, of_file in formats.items() if of_file == format]:
            found[format] = names
    if len(found) > 1:
        names = [name for names in found.values() for name in names]
        raise DataError(
            f"several formats fit ({', '.join(found)}); the folder holds {listed(names)}",
            where=folder,
            fix=f"{_CHOOSE}; or name the file",
        )
    if not found and (texts := documents.first_documents(folder)):
        _check_sound(others)
        return "documents", f"Read as documents: the folder holds texts such as {listed(texts)}, and no other data."
    if not found:
        _check_sound(others)
        seen = listed(sorted(path.name for path in folder.iterdir()))
        raise DataError(f"no known format; the folder holds {seen}", where=folder, fix=UNDERSTOOD)
    ((format, names),) = found.items()
    if format in _FILES and format not in _OF_MANY_FILES:
        raise DataError(
            f"the folder holds files of the format {format}: {listed(names)}",
            where=folder,
            fix=f"name the file {names[0]}",
        )
    if format in _FILES:
        return format, f"Read as {format}: such rows stand in {listed(names)}."
    return format, f"Read as {format}: the folder holds {listed(names)}."


def _check_sound(files: list[Path]) -> None:
    """Raises DataError where a file is broken, which may be why nothing was recognised."""
    for file in files:
        _keys(file)


def _format_beside(file: Path) -> str | None:
    """The format of one file among others, None where it is broken: it may be no data at all."""
    try:
        return _format_of_keys(_keys(file))
    except DataError:
        return None


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name.endswith(pairs.EXTENSIONS) and file.is_file())


def _format_of_keys(keys: Mapping[str, Any]) -> str | None:
    return next((format for format, fits in _FILES.items() if fits(keys)), None)


def _keys(file: Path) -> Mapping[str, Any]:
    """The first row of a table or line's object, or the one that an indented `.json` file is. Raises DataError."""
    if file.name.endswith(TABLES):
        return first_value(table_rows(file))
    first = next((line.text.strip() for line in read_lines(file) if line.text.strip()), "")
    if ".json" in file.suffixes and first.startswith("{") and not first.endswith("}"):
        return read_json(file)
    return first_value(read_json_lines(file))
