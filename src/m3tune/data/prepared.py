"""Prepared data on disk: the collection, which texts are nearly the same, and the split. All that follows reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from m3tune.artifact import MANIFEST, read_json, stage_fingerprint, write_json
from m3tune.data.balance import balance_table, features_of
from m3tune.data.collection import Collection
from m3tune.data.intake import Intake
from m3tune.data.lengths import histogram
from m3tune.data.similar import NearCopies, Similar
from m3tune.data.store import load_collection, save_collection
from m3tune.types import SIDES, Split

STAGE = "prepare"
REJECTED = "rejected.jsonl"
BALANCE = "balance.json"
FINDINGS = "findings.json"
LENGTHS = "lengths.json"


@dataclass(frozen=True)
class Prepared:
    """The data stage's result; `fingerprint` is that of the stage."""

    collection: Collection
    similar: Similar
    split: Split
    fingerprint: str


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds prepared data."""
    manifest = folder / MANIFEST
    return manifest.is_file() and read_json(manifest).get("stage") == STAGE


def read_prepared(folder: Path, intake: Intake) -> Collection:
    """The collection of prepared data, with its split as the splits that it brings. Raises ArtifactError."""
    collection, split = load_collection(folder), load_split(folder)
    for kind in ("queries", "passages", "judgments", "negatives"):
        intake.kept[kind] += len(getattr(collection, kind))
    members = {side: getattr(split, side) for side in SIDES}
    return replace(collection, splits={side: query_ids for side, query_ids in members.items() if query_ids})


def save_prepared(folder: Path, collection: Collection, similar: Similar, split: Split) -> None:
    """Write everything but the manifest, with what compares the sides of the split and how long texts are."""
    save_collection(collection, folder)
    write_json(folder / "similar.json", asdict(similar))
    write_json(folder / "split.json", asdict(split))
    sides = {side: frozenset(getattr(split, side)) for side in SIDES}
    features = features_of(collection, [*split.train, *split.dev, *split.test])
    write_json(folder / BALANCE, balance_table(features, sides))
    lengths = {
        "queries": histogram(len(query.text) for query in collection.queries.values()),
        "passages": histogram(len(passage.full_text) for passage in collection.passages.values()),
    }
    write_json(folder / LENGTHS, lengths)


def load_prepared(folder: Path) -> Prepared:
    """What `save_prepared` wrote. Raises ArtifactError."""
    return Prepared(
        load_collection(folder),
        load_similar(folder),
        load_split(folder),
        stage_fingerprint(folder),
    )


def load_similar(folder: Path) -> Similar:
    """The near-duplicates alone. Raises ArtifactError."""
    similar = read_json(folder / "similar.json")
    return Similar(*(NearCopies(of["first"], tuple(map(tuple, of["pairs"]))) for of in similar.values()))


def load_split(folder: Path) -> Split:
    """The split alone. Raises ArtifactError."""
    stored = read_json(folder / "split.json")
    train, dev, test = (tuple(stored[side]) for side in SIDES)
    return Split(train, dev, test, stored["protocol"])
