"""Stage directories: written beside, renamed when whole, skipped when nothing they depend on has changed.

A stage's key is its name, its config and the fingerprints of its inputs. `manifest.json` inside the directory holds the
key, so a directory says by itself what it was made from; one without a manifest is never taken for a whole one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from m3tune.errors import ArtifactError
from m3tune.processes import alone_in

MANIFEST = "manifest.json"
_BEGUN = "begun.json"
_RECORDED_PACKAGES = (
    "m3tune",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "peft",
    "optuna",
    "numpy",
    "ir-measures",
    "bm25s",
)


def fingerprint(value: Any) -> str:
    """A short content hash of any JSON-like value."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            "this file is missing", where=path, fix="is this the directory of a finished run?"
        ) from None
    except json.JSONDecodeError as error:
        raise ArtifactError(f"broken JSON ({error})", where=path, fix="delete the directory and run again") from None


@dataclass(frozen=True)
class StageKey:
    """What a stage's result depends on."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Equal for equal name, config and inputs."""
        return fingerprint({"stage": self.stage, "config": self.config, "inputs": self.inputs})


def stage_fingerprint(directory: Path) -> str:
    """The fingerprint of the finished stage in `directory`. Raises ArtifactError where there is none."""
    return str(read_json(directory / MANIFEST)["fingerprint"])


def is_complete(directory: Path, key: StageKey) -> bool:
    """Whether `directory` holds the finished result of exactly this stage, config and inputs."""
    manifest = directory / MANIFEST
    return manifest.is_file() and read_json(manifest).get("fingerprint") == key.fingerprint


@contextlib.contextmanager
def writing(directory: Path, key: StageKey, *, keep_partial: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write a stage: yields (a directory beside the final one, a dict of counts for the manifest); renames at the end.

    What stood there before is replaced, if it was a stage of ours. With `keep_partial` what an interrupted attempt left
    is kept and handed out again, for stages that can resume; it is thrown away when it was begun with another key.
    Raises ArtifactError where something that is not ours is in the way, or another process writes the same.
    """
    partial = directory.with_name(directory.name + ".partial")
    begun = partial / _BEGUN
    _check_ours(directory, MANIFEST)
    _check_ours(partial, _BEGUN)
    with alone_in(partial):
        resumable = keep_partial and begun.is_file() and read_json(begun).get("fingerprint") == key.fingerprint
        if not resumable:
            _empty(partial)
        write_json(begun, {"fingerprint": key.fingerprint})
        counts: dict[str, Any] = {}
        start = time.monotonic()
        try:
            yield partial, counts
        except BaseException:
            if not keep_partial:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        write_json(partial / MANIFEST, _manifest(key, counts, time.monotonic() - start))
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)
        (directory / _BEGUN).unlink()


def _manifest(key: StageKey, counts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "stage": key.stage,
        "fingerprint": key.fingerprint,
        "config": dict(key.config),
        "inputs": dict(key.inputs),
        "counts": counts,
        "versions": installed_versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 2),
    }


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def share_stage(source: Path, directory: Path) -> None:
    """Let `directory` be the finished stage that `source` is, in the same files where the file system can link them.

    Raises ArtifactError where something that is not ours is in the way.
    """
    if (directory / MANIFEST).is_file() and read_json(directory / MANIFEST) == read_json(source / MANIFEST):
        return
    _check_ours(directory, MANIFEST)
    beside = directory.with_name(directory.name + ".shared")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, copy_function=_link)
    shutil.rmtree(directory, ignore_errors=True)
    beside.rename(directory)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copy2(source, target)


def _check_ours(directory: Path, mark: str) -> None:
    """Refuse to replace a person's own files: a folder of ours holds `mark`, or nothing yet."""
    is_empty = directory.is_dir() and not any(directory.iterdir())
    if directory.exists() and not is_empty and not (directory / mark).is_file():
        raise ArtifactError(
            "something that is not m3tune's is in the way", where=directory, fix="name another output, or move it away"
        )
