"""Finished stages of one run for another: what several runs have in common is computed once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from m3tune.artifact import MANIFEST


def share_stages(source: Path, target: Path, names: Sequence[str]) -> None:
    """Give the run folder `target` the finished stages `names` of `source`, as hard links, copies on another disk.

    What is not finished in `source` is left out, and what `target` has stays. Whether a stage is what `target` needs
    its own key says: `pipeline.run` makes anew what does not fit. Links are safe because stages are written beside and
    renamed, never changed in place.
    """
    for name in names:
        if not (source / name / MANIFEST).is_file() or (target / name).exists():
            continue
        beside = target / f".{name}.shared"
        shutil.rmtree(beside, ignore_errors=True)  # what a killed process left
        target.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source / name, beside, copy_function=_link)
        beside.rename(target / name)


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none between these places."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
