"""Folders that Hugging Face `datasets` saved with `save_to_disk`: pairs in named columns, or BEIR's tables."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.artifact import write_json
from m3tune.data.beir import HEADER, collect_beir
from m3tune.data.builder import Builder
from m3tune.data.collection import Collection
from m3tune.data.intake import Intake, Row
from m3tune.data.pairs import take_pairs
from m3tune.data.pairs_writer import PairRows, arrow_schema, arrow_tables
from m3tune.data.qrels import SPLIT_OF_NAME, SPLITS, splits_to_write
from m3tune.data.rows import missing_key, read_json
from m3tune.errors import DataError, excerpt, listed

LAYOUT = (
    "a folder of Hugging Face datasets, as save_to_disk writes it, holds dataset_dict.json or state.json; or such "
    "folders named corpus, queries and default"
)
Splits = Mapping[str, Iterator[Row]]
"""Name of a split, empty for a data set without splits -> its rows."""

QRELS_TABLES = ("default", "qrels")
"""What the table of judgments is called, beside `corpus` and `queries`."""

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_ARROW = "data-00000-of-00001.arrow"


def signs(folder: Path) -> list[str]:
    """Names in a folder that say it was saved by `datasets`."""
    found = [name for name in (_DICT, _STATE, _INFO) if (folder / name).is_file()]
    return found if _DICT in found or _STATE in found else [f"{name}/" for name in _tables(folder)]


def read_saved(folder: Path, intake: Intake, columns: Mapping[str, str] | None = None) -> Collection:
    """The collection in a folder that `save_to_disk` wrote, or in several of them named corpus, queries and default.

    Rows of one folder are pairs, known by their columns as `pairs.read_pairs` says; `columns` says for others what they
    are. The splits train, validation and test are the collection's, unless there is but one of another name. Several
    folders are BEIR's tables.

    Bad rows go to `intake`. Raises DataError where a file is missing or broken, and for splits of other names.
    """
    tables = _tables(folder)
    if tables and not columns:
        return collect_tables({name: _splits(folder / name) for name in tables}, intake)
    return collect_splits(_splits(folder), str(folder), intake, columns or {})


def collect_splits(splits: Splits, where: str, intake: Intake, columns: Mapping[str, str]) -> Collection:
    """The collection of pairs in the rows of a data set, with its splits."""
    if len(splits) == 1 and not (splits.keys() & SPLIT_OF_NAME.keys()):
        splits = {"": next(iter(splits.values()))}
    builder = Builder(intake)
    members: dict[str, dict[str, None]] = {}
    for name, rows in splits.items():
        split = SPLIT_OF_NAME.get(name, name)
        if name and (split not in SPLITS or split in members):
            what = f"two splits are the {split} split" if split in members else f"the split {excerpt(name)} is unknown"
            raise DataError(
                f"{what}; here are {listed(splits)}",
                where=where,
                fix=f"name the splits {', '.join(SPLIT_OF_NAME)}, or save one alone",
            )
        take_pairs(builder, rows, intake, columns, members.setdefault(split, {}))
    given = {split: tuple(members[split]) for split in SPLITS if split in members}
    return dataclasses.replace(builder.collection(), splits=given)


def collect_tables(tables: Mapping[str, Splits], intake: Intake) -> Collection:
    """The collection of data sets named corpus, queries and default, with BEIR's columns."""
    qrels = next(tables[name] for name in QRELS_TABLES if name in tables)
    return collect_beir(
        itertools.chain.from_iterable(tables["queries"].values()),
        itertools.chain.from_iterable(tables["corpus"].values()),
        {SPLIT_OF_NAME.get(name, name) or "train": _judgments(rows) for name, rows in qrels.items()},
        intake,
    )


def write_saved(collection: Collection, folder: Path) -> dict[str, int]:
    """Write a folder that `datasets.load_from_disk` reads: a row for each query and one of its positives.

    The columns are those of pairs; data with splits becomes a folder for each of them. Returns what was written and, as
    `lost_…`, what the format cannot hold. Raises DataError for an id that is blank, and for a split that is none of
    train, dev and test.
    """
    splits = splits_to_write(collection) if collection.splits else {}
    held = set().union(*splits.values()) if splits else set(collection.queries)
    in_a_split = dataclasses.replace(
        collection,
        queries={query_id: query for query_id, query in collection.queries.items() if query_id in held},
        judgments=tuple(pair for pair in collection.judgments if pair.query_id in held),
        negatives=tuple(pair for pair in collection.negatives if pair.query_id in held),
        splits={},
    )
    rows = PairRows(in_a_split)
    columns = rows.columns()
    folder.mkdir(parents=True)
    names = {split: "validation" if split == "dev" else split for split in splits}
    if splits:
        write_json(folder / _DICT, {"splits": list(names.values())})
    for split, members in (splits or {"": held}).items():
        of_split = (row for row in rows if row["query_id"] in members)
        _write_split(folder / names.get(split, ""), columns, of_split, collection.fingerprint)
    counts = rows.counts()
    return counts | {
        "splits": len(splits),
        "lost_splits": 0,
        "lost_scores": sum(pair.score is not None for pair in collection.pairs) - counts["scores"],
        "lost_queries_in_no_split": len(collection.queries) - len(in_a_split.queries),
        "lost_pairs_of_queries_in_no_split": len(collection.pairs) - len(in_a_split.pairs),
    }


def rows_of_tables(batches: Iterable[Any], where: str) -> Iterator[Row]:
    """The rows of Arrow batches or tables, numbered from 1."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Row(f"{where}: row {number}", row)


def _tables(folder: Path) -> list[str]:
    """The folders that are BEIR's tables, none unless all three are there."""
    present = [name for name in ("corpus", "queries", *QRELS_TABLES) if signs_of_one(folder / name)]
    return present if len(present) == 3 and {"corpus", "queries"} <= set(present) else []


def signs_of_one(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this very folder."""
    return (folder / _DICT).is_file() or (folder / _STATE).is_file()


def _splits(folder: Path) -> Splits:
    """The rows of each split that `save_to_disk` wrote."""
    if not (folder / _DICT).is_file():
        return {"": _rows(folder)}
    names = _json(folder / _DICT, "splits")
    if not names:
        raise DataError("it names no split", where=folder / _DICT, fix="save the data set again")
    return {str(name): _rows(folder / str(name)) for name in names}


def _rows(folder: Path) -> Iterator[Row]:
    """The rows of the Arrow files that `state.json` names."""
    for entry in _json(folder / _STATE, "_data_files"):
        file = folder / str(entry.get("filename") if isinstance(entry, dict) else entry)
        yield from rows_of_tables(_batches(file), str(file))


def _batches(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batch.validate(full=True)  # what is read from a broken one may be any memory
                yield batch
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"not a sound Arrow file ({first_line})", where=file, fix="save the data set again with save_to_disk"
        ) from None


def _json(file: Path, key: str) -> list[Any]:
    """The list under a key of a file that `save_to_disk` wrote."""
    if not file.is_file():
        raise DataError(f"{file.name} is missing", where=file.parent, fix="save the data set again with save_to_disk")
    value = read_json(file)
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise DataError(
            f"{key!r} is not a list: {excerpt(value)}", where=file, fix="save the data set again with save_to_disk"
        )
    return value[key]


def _judgments(rows: Iterator[Row]) -> Iterator[Row]:
    """Rows of qrels as the three fields of a line."""
    for row in rows:
        cells = {str(name).replace("_", "-"): value for name, value in row.value.items()}
        missing = next((name for name in HEADER if name not in cells), None)
        if missing:
            yield row._replace(value=None, error=missing_key(row.value, missing, row.where), source=str(row.value))
        else:
            yield row._replace(value=tuple(str(cells[name]) for name in HEADER))


def _write_split(folder: Path, columns: list[str], rows: Iterable[dict[str, Any]], fingerprint: str) -> None:
    """Write what `Dataset.save_to_disk` writes."""
    import pyarrow as pa

    folder.mkdir(exist_ok=True)
    # Without features here datasets takes them from the Arrow schema, whatever its version.
    write_json(folder / _INFO, {"citation": "", "description": "", "features": None, "homepage": "", "license": ""})
    files = [{"filename": _ARROW}]
    how: dict[str, Any] = {
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
    }
    write_json(folder / _STATE, {"_data_files": files, "_fingerprint": fingerprint, **how, "_split": None})
    schema = arrow_schema(columns)
    with pa.OSFile(str(folder / _ARROW), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for table in arrow_tables(rows, schema):
            writer.write_table(table)
