"""What a finished run depended on, and where it ran: `run.json`, and how two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3tune.artifact import MANIFEST, fingerprint, installed_versions, read_json, write_json
from m3tune.config import Recipe
from m3tune.machine import machine_facts, pick_device, pick_precision

RUN = "run.json"
RESULTS = ("base/metrics.json", "bm25/metrics.json", "tuned/metrics.json", "comparison.json", "verdict.json")
"""Where a run's figures are."""

_STAGES = ("data", "bm25", "base", "negatives", "search", "train", "select", "tuned", "model")
_OF_STAGE = ("fingerprint", "finished", "seconds", "versions")
_DEPENDS = ("recipe", "data", "model", "precision", "machine", "versions")


class Difference(NamedTuple):
    """One value that two runs do not share; None where a run does not have it."""

    where: str
    first: Any
    second: Any


def record_run(folder: Path, recipe: Recipe) -> None:
    """Write `run.json` of a finished run, unless it tells of these very stages already.

    `recipe` (without output and precision), `data` and `model` are content fingerprints, but a Hub data set's is its
    id; `precision` is that of matrix products, `machine` where the last stage was made, `stages` what their manifests
    say.
    """
    manifests = {name: read_json(folder / name / MANIFEST) for name in _STAGES if (folder / name / MANIFEST).is_file()}
    stages = {name: {key: manifest[key] for key in _OF_STAGE} for name, manifest in manifests.items()}
    file = folder / RUN
    if file.is_file() and read_json(file)["stages"] == stages:
        return
    record = {
        "recipe": fingerprint(recipe.model_dump(exclude={"output": True, "train": {"precision"}})),
        "data": manifests["data"]["inputs"]["source"],
        "model": manifests["base"]["inputs"]["model"],
        "precision": str(pick_precision(recipe.train.precision, pick_device())).removeprefix("torch."),
        "machine": machine_facts(),
        "versions": installed_versions(),
        "stages": stages,
    }
    write_json(file, record)


def different_results(first: Path, second: Path) -> tuple[int, list[Difference]]:
    """How many figures two runs have, and those that differ. Raises ArtifactError where a run is not finished."""
    ours, theirs = (
        {
            f"{name}: {key}": value
            for name in RESULTS
            if name == "verdict.json" or (folder / name).is_file()
            for key, value in _leaves(read_json(folder / name))
        }
        for folder in (first, second)
    )
    return len(ours.keys() | theirs.keys()), _different(ours, theirs)


def different_origins(first: Path, second: Path) -> list[Difference]:
    """What the records of two runs do not share: recipe, data, model, precision, machine, versions."""
    ours, theirs = (
        dict(_leaves({key: value for key, value in read_json(folder / RUN).items() if key in _DEPENDS}))
        for folder in (first, second)
    )
    return _different(ours, theirs)


def _different(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(key, ours.get(key), theirs.get(key))
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def _leaves(value: Any, path: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON tree by the keys that lead to it; rows of a table by their metric."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            name = inner["metric"] if isinstance(inner, Mapping) and "metric" in inner else str(number)
            yield from _leaves(inner, (*path, name))
    else:
        yield " ".join(path), value
