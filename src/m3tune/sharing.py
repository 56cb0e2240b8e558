"""Finished stages of one run for another: what several runs have in common is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m3tune.artifact import MANIFEST, share_stage


def share_stages(source: Path, target: Path, names: Sequence[str]) -> None:
    """Give the run folder `target` the finished stages `names` of `source`, as hard links, copies on another disk.

    What is not finished in `source` is left out, and what `target` has stays. Whether a stage is what `target` needs
    its own key says: `pipeline.run` makes anew what does not fit. Links are safe because stages are written beside and
    renamed, never changed in place.
    """
    for name in names:
        if (source / name / MANIFEST).is_file() and not (target / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            share_stage(source / name, target / name)
