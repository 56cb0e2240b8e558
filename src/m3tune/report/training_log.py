"""The training log as curves, and what was ill in it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from m3tune.training.findings import health_findings

_HEALTH = ("loss_", "score_", "sparse_", "dense_", "negatives_")


def training_curves(folder: Path, selection: Mapping[str, Any]) -> dict[str, Any]:
    """Curves as [step, value] pairs; the development curve begins with the base model at step 0."""
    file = folder / "log.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    speeds = sorted(speed for _, speed in _curve(lines, "tokens_per_s"))
    return {
        "metric": selection["metric"],
        "steps": selection["steps"],
        "best_step": selection["checkpoint"],
        "base": selection["base"],
        "best": selection["best_checkpoint"],
        "loss": _curve(lines, "loss"),
        "learning_rate": _curve(lines, "learning_rate"),
        "dev": [[0, selection["base"]], *_curve(lines, f"eval_{selection['metric']}")],
        "tokens_per_s": speeds[len(speeds) // 2] if speeds else None,
        "health": {name: _curve(lines, name) for name in _health_names(lines)},
        "findings": _first_findings(lines),
    }


def _health_names(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """The figures of single losses, scores and vectors that the log has, in its order."""
    return [name for name in dict.fromkeys(itertools.chain(*lines)) if name.startswith(_HEALTH)]


def _first_findings(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each illness of the log, as the first line that shows it has it."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        for finding in health_findings(line):
            found.setdefault(
                finding.code, {"code": finding.code, "where": finding.where, "what": finding.what, "fix": finding.fix}
            )
    return list(found.values())


def _curve(lines: Iterable[Mapping[str, Any]], name: str) -> list[list[float]]:
    """The finite values of one name in the log."""
    return [[line["step"], line[name]] for line in lines if name in line and math.isfinite(line[name])]
