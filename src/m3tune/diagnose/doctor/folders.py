"""Checks of the folders that runs and models lie in, and of how files are read."""

from __future__ import annotations

from collections.abc import Iterator

from m3tune.diagnose.doctor.environment import Machine
from m3tune.diagnose.wording import found
from m3tune.types import Finding

_DISK_GIB = 10  # BGE-M3 is 2.3 GB; a checkpoint with AdamW's moments is three times that
_PURPOSE = {"work": "runs are written", "cache": "models from the Hub are kept"}
_ELSEWHERE = {"work": "work in another folder", "cache": "set HF_HOME to a folder elsewhere"}


def no_permission(machine: Machine) -> Iterator[Finding]:
    """A folder that cannot be written to."""
    for name, place in machine.places.items():
        if not place.writable:
            yield found(
                "no-permission",
                "error" if name == "work" else "warning",
                place.path,
                f"no permission to write where {_PURPOSE[name]}",
                f"check who owns it, or {_ELSEWHERE[name]}",
                count=1,
            )


def low_disk(machine: Machine) -> Iterator[Finding]:
    """Too little room for a model and a checkpoint."""
    for name, place in machine.places.items():
        if place.free_gib < _DISK_GIB:
            yield found(
                "low-disk",
                "warning",
                place.path,
                f"{place.free_gib:.1f} GiB free where {_PURPOSE[name]}; BGE-M3 and a checkpoint take about {_DISK_GIB}",
                f"free space, or {_ELSEWHERE[name]}",
                count=1,
            )


def awkward_path(machine: Machine) -> Iterator[Finding]:
    """Folders whose name a tool on the way cannot take."""
    for place in machine.places.values():
        if any("\ud800" <= character <= "\udfff" for character in place.path):
            yield found(
                "awkward-path",
                "error",
                repr(place.path),
                "the name is no UTF-8, so no JSON or TOML file can hold it",
                "rename the folder",
                count=1,
            )
        elif " " in place.path:
            yield found(
                "awkward-path",
                "note",
                place.path,
                "a blank in the name: m3tune takes it, make does not",
                "call m3tune itself, or rename the folder before you use make",
                count=1,
            )


def offline_without_cache(machine: Machine) -> Iterator[Finding]:
    """Offline, and nothing in the cache: only folders can be named."""
    if machine.is_offline and not machine.cached_models:
        yield found(
            "offline-without-cache",
            "warning",
            machine.places["cache"].path,
            "offline mode is on, and this cache holds no model"
            + ("" if machine.places["cache"].exists else ": it is not there"),
            "name models by folder or package:NAME/FOLDER; or set HF_HOME to the cache that has them; or unset "
            "HF_HUB_OFFLINE",
            count=1,
        )


def text_encoding(machine: Machine) -> Iterator[Finding]:
    """A default encoding that is not UTF-8: m3tune names its own, other tools read your files with it."""
    if machine.encoding.lower().replace("-", "").replace("_", "") != "utf8":
        yield found(
            "text-encoding",
            "warning",
            "locale",
            f"files are read as {machine.encoding} by programs that do not say otherwise, LlamaIndex among them",
            "set PYTHONUTF8=1",
            count=1,
        )
