"""Any data that m3tune reads, into a Collection; what it is taken for is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from m3tune.data import beir, documents, flagembedding, hub, llamaindex, pairs, prepared, saved, trec
from m3tune.data.collection import Collection
from m3tune.data.detect import detect_format
from m3tune.data.intake import Intake
from m3tune.errors import DataError, listed, nearest
from m3tune.paths import resolve_path

FORMATS: Mapping[str, Callable[[Path, Intake], Collection]] = {
    "beir": beir.read_beir,
    "llamaindex": llamaindex.read_llamaindex,
    "flagembedding": flagembedding.read_flagembedding,
    "pairs": pairs.read_pairs,
    "trec": trec.read_trec,
    "datasets": saved.read_saved,
    "documents": documents.read_documents,
}
"""What people bring; prepared data, which is our own, is read as well."""
# Formats whose columns can be named, which is then done as the third argument.
_WITH_COLUMNS: Mapping[str, Callable[[Path, Intake, Mapping[str, str]], Collection]] = {
    "pairs": pairs.read_pairs,
    "datasets": saved.read_saved,
}


def read_collection(
    path: str, format: str = "auto", columns: Mapping[str, str] | None = None, intake: Intake | None = None
) -> tuple[Collection, str]:
    """The collection at a path, `package:IMPORTNAME/FOLDER` or Hub id, and a sentence that says how it was read.

    `columns` says what columns of pairs are (column -> role), which makes the data pairs where `format` is auto. The
    account of every record goes to `intake`, which also says whether bad ones are left out; without one they are not.

    Raises DataError when nothing is there, when the format is not known or has no columns, for bad records, or as the
    format's reader does.
    """
    intake, columns = intake or Intake(), columns or {}
    if format not in ("auto", "prepared", *FORMATS):
        close = nearest(format, FORMATS)
        hint = f"did you mean {close!r}? " if close else ""
        raise DataError(f"unknown format {format!r}", fix=f"{hint}known formats: auto, {', '.join(FORMATS)}")
    if columns and format not in ("auto", *_WITH_COLUMNS):
        raise DataError(f"{format} data has no columns to name", fix="leave the columns out, or read it as pairs")
    if format in ("auto", "datasets") and hub.is_hub_id(path, asked_for=format != "auto"):
        collection = hub.read_hub(path, intake, columns)
        why = f"Read as datasets: {path} is no path here, and names a data set of the Hub."
    else:
        place = resolve_path(path, "the data")
        format, why = _format_of(place, format, columns)
        if format == "prepared":
            collection = prepared.read_prepared(place, intake)
        else:
            collection = _WITH_COLUMNS[format](place, intake, columns) if columns else FORMATS[format](place, intake)
    intake.finish()
    if collection.passages and not collection.queries:
        why = f"{why} It holds no question. To train or measure, {documents.NEXT}."
    return collection, why


def _format_of(place: Path, format: str, columns: Mapping[str, str]) -> tuple[str, str]:
    """The format to read a place as, and a sentence that says why."""
    if format != "auto":
        return format, f"Read as {format}, as asked for."
    if columns:
        format = "datasets" if saved.signs(place) else "pairs"
        return format, f"Read as {format}: the column {listed(columns)} is named."
    return detect_format(place)
