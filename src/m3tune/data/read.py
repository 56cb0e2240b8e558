"""Any data that m3tune reads, into a Collection; what it is taken for is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m3tune.data import beir, flagembedding, llamaindex, pairs
from m3tune.data.collection import Collection
from m3tune.data.files import find_file, open_text
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
