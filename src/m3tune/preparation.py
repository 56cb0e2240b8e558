"""The data stage: files in, and out a directory with the collection, its near-duplicates and a split without leaks.

The directory is what every later stage reads. It is made anew when a byte of the files or a setting changes.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3tune import __version__
from m3tune.artifact import MANIFEST, StageKey, is_complete, read_json, stage_fingerprint, write_json, writing
from m3tune.config import DataConfig
from m3tune.data.collection import Collection
from m3tune.data.hub import is_hub_id
from m3tune.data.intake import Intake, in_words
from m3tune.data.prepared import FINDINGS, REJECTED, STAGE, Prepared, is_prepared, load_prepared, save_prepared
from m3tune.data.read import read_collection
from m3tune.data.similar import Similar, exact_copies, find_similar
from m3tune.data.split import split_queries
from m3tune.diagnose.check import context_of
from m3tune.diagnose.registry import findings_of
from m3tune.errors import DataError
from m3tune.paths import lies_inside, resolve_path
from m3tune.report.data_page import write_data_page
from m3tune.report.findings import summary
from m3tune.types import Split

Say = Callable[[str], None]


def silent(_: str) -> None:
    """The `say` of a caller who wants to hear nothing."""


def prepare(config: DataConfig, directory: Path, say: Say) -> Prepared:
    """Read, compare and split the data of `config` into `directory`, unless it is there already.

    Raises what `source_of` does.
    """
    place, on_hub = source_of(config, directory)
    # What a Hub id names is taken to stay what it is: the cache keeps it.
    source = config.path if on_hub else source_fingerprint(place)
    key = StageKey(STAGE, config.preparing(), {"source": source, "m3tune": __version__})
    if is_complete(directory, key):
        prepared = load_prepared(directory)
    elif is_prepared(place):
        prepared = _taken_over(place, directory, key)
        say(f"{place} is prepared data; its own split holds")
    else:
        prepared = _made(config, directory, key, say)
    collection, split = prepared.collection, prepared.split
    say(
        f"{len(collection.passages):,} passages; {len(split.train):,} train, {len(split.dev):,} dev and "
        f"{len(split.test):,} test queries ({split.protocol})"
    )
    return prepared


def source_of(config: DataConfig, directory: Path) -> tuple[Path, bool]:
    """Where the data lies that is to be prepared into `directory`, and whether that is an id on the Hub.

    Raises DataError where `directory` lies inside the data: what is written there would be read as data the next time.
    """
    if is_hub_id(config.path, asked_for=config.format == "datasets"):
        return Path(config.path), True
    place = resolve_path(config.path, "the data")
    if lies_inside(directory, place) and not is_prepared(place):
        raise DataError(
            f"this would be written into the folder of the data, {place}, and be read as data the next time",
            where=directory,
            fix="name an output outside of that folder",
        )
    return place, False


def check_sides(split: Split) -> None:
    """Raises DataError where a side of the split has no query: nothing could be trained, chosen or judged."""
    for side, queries in (("train", split.train), ("dev", split.dev), ("test", split.test)):
        if not queries:
            raise DataError(
                f"the split has no {side} queries, and a run needs some to train, to choose and to judge",
                where="data.path" if side == "train" else f"data.{side}",
                fix="bring questions that are not in dev or test"
                if side == "train"
                else f"set data.{side} above 0, or bring a {side} split of your own",
            )


def source_fingerprint(place: Path) -> str:
    """A content hash of a file, or of every file in a folder with its name; of prepared data, that of its stage."""
    if is_prepared(place):
        return stage_fingerprint(place)
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            digest.update(file.relative_to(place).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _made(config: DataConfig, directory: Path, key: StageKey, say: Say) -> Prepared:
    intake = Intake(skip_bad=config.skip_bad)
    collection, why = read_collection(config.path, config.format, config.columns, intake)
    say(why)
    for line in in_words(intake.counts()):
        say(line)
    similar = find_similar(collection) if config.near_duplicates else exact_copies(collection)
    split, split_counts = split_queries(collection, similar, config)
    with writing(directory, key) as (partial, counts):
        save_prepared(partial, collection, similar, split)
        intake.save_rejected(partial / REJECTED)
        findings = findings_of(collection, context_of(collection, intake, similar))
        write_json(partial / FINDINGS, [asdict(finding) for finding in findings])
        counts |= {"records": intake.counts(), "ignored": dict(intake.ignored)}
        counts |= _sizes(collection, similar) | split_counts
    write_data_page(directory)
    say(f"checked: {summary(findings)}" + (f"; m3tune check {shlex.quote(config.path)} says more" if findings else ""))
    return Prepared(collection, similar, split, key.fingerprint)


def _taken_over(place: Path, directory: Path, key: StageKey) -> Prepared:
    """Prepared data of another directory, copied so that a run holds all that it depends on."""
    source = load_prepared(place)
    with writing(directory, key) as (partial, counts):
        save_prepared(partial, source.collection, source.similar, source.split)
        for name in (FINDINGS, REJECTED):
            if (place / name).is_file():
                shutil.copyfile(place / name, partial / name)
        counts |= read_json(place / MANIFEST)["counts"]
    write_data_page(directory)
    return Prepared(source.collection, source.similar, source.split, key.fingerprint)


def _sizes(collection: Collection, similar: Similar) -> dict[str, Any]:
    return {
        "passages": len(collection.passages),
        "judgments": len(collection.judgments),
        "negatives": len(collection.negatives),
        "passages_nearly_the_same_as_another": len(similar.passages.first),
        "queries_nearly_the_same_as_another": len(similar.queries.first),
    }
