"""Vectors of whole data sets to disk.

folder/passages, folder/queries    a vector store each (see `retrieval.store`), with ids and texts in texts.parquet
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.artifact import MANIFEST, read_json
from m3tune.data.collection import Collection
from m3tune.data.files import open_text
from m3tune.data.read import read_collection
from m3tune.data.token_store import tokens_kept
from m3tune.errors import DataError
from m3tune.machine import Precision, pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.paths import resolve_path
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.retrieval.layout import Storage
from m3tune.retrieval.store import is_vectors, store_vectors
from m3tune.types import Head, Passage, Query

What = Literal["both", "passages", "queries"]
TEXTS = "texts.parquet"
_Row = tuple[str, str, str]  # id, title, text
_KINDS: tuple[Literal["passages", "queries"], ...] = ("passages", "queries")


def read_texts(
    data: str, what: What, source: str = "auto", columns: Mapping[str, str] | None = None
) -> tuple[Collection, str]:
    """Any data that m3tune reads, or a text file with one text a line, and how it was read. Raises DataError.

    Lines are passages unless `what` is queries; their ids are line numbers, and empty lines are left out.
    """
    if source != "auto" or columns or not data.removesuffix(".gz").endswith(".txt"):
        return read_collection(data, source, columns)
    file = resolve_path(data, "the data")
    with open_text(file) as stream:
        lines = {str(number): line.strip() for number, line in enumerate(stream, start=1) if line.strip()}
    if not lines:
        raise DataError("no line with a text", where=file, fix="put one text on each line")
    if what == "queries":
        return Collection({i: Query(i, text) for i, text in lines.items()}, {}, ()), "Read as lines, one query each."
    return Collection({}, {i: Passage(i, text) for i, text in lines.items()}, ()), "Read as lines, one passage each."


def encode_collection(
    encoder: Encoder,
    collection: Collection,
    folder: Path,
    what: What = "both",
    heads: Sequence[Head] | None = None,
    dense: Storage = "float32",
    multi: Storage = "float16",
    precision: Precision = "auto",
) -> list[dict[str, Any]]:
    """Encode passages, queries or both into `folder`, going on with what was cut off; what is there, part by part."""
    wanted = heads or encoder.settings.heads
    encoder.check(wanted)
    encoder.to(pick_device())
    dtype = pick_precision(precision, encoder.device)
    written = []
    with tokens_kept(folder / "tokens"):
        for kind in _KINDS:
            rows = _rows(collection, kind) if what in ("both", kind) else []
            if not rows:
                continue
            tokenize = tokenize_passages if kind == "passages" else tokenize_queries
            store_vectors(
                encoder, tokenize(encoder, collection, [row[0] for row in rows]), dtype, folder / kind,
                heads=wanted, dense=dense, multi=multi, label=f"encode {kind}",
                about={"texts": _fingerprint(rows)}, beside=partial(_write_texts, rows),
            )  # fmt: skip
            counts = read_json(folder / kind / MANIFEST)["counts"]
            written.append({"folder": str(folder / kind), "kind": kind, "heads": list(wanted), **counts})
    if not written:
        raise DataError(f"there are no {'texts' if what == 'both' else what} here", fix="name data that has some")
    return written


def holds_vectors(folder: Path) -> bool:
    """Whether `folder` is what `encode_collection` wrote."""
    return is_vectors(folder / "passages")


def _rows(collection: Collection, kind: Literal["passages", "queries"]) -> list[_Row]:
    if kind == "passages":
        return [(passage.id, passage.title, passage.text) for passage in collection.passages.values()]
    return [(query.id, "", query.text) for query in collection.queries.values()]


def _fingerprint(rows: Sequence[_Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _write_texts(rows: Sequence[_Row], folder: Path) -> None:
    columns = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(dict(zip(("id", "title", "text"), columns, strict=True))), folder / TEXTS)
