"""Checks of the machine: what would stop a run, slow it down or make it unlike the same run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from m3tune.diagnose.doctor import devices, folders, packages
from m3tune.diagnose.doctor.environment import Machine
from m3tune.types import Finding

MACHINE_RULES: Mapping[str, Callable[[Machine], Iterable[Finding]]] = {
    "old-python": packages.old_python,
    "unmet-requirements": packages.unmet_requirements,
    "clashing-versions": packages.clashing_versions,
    "cuda-mismatch": devices.cuda_mismatch,
    "no-permission": folders.no_permission,
    "awkward-path": folders.awkward_path,
    "text-encoding": folders.text_encoding,
    "low-disk": folders.low_disk,
    "low-memory": devices.low_memory,
    "small-device": devices.small_device,
    "offline-without-cache": folders.offline_without_cache,
    "wrong-threads": devices.wrong_threads,
    "no-accelerator": devices.no_accelerator,
    "slow-bfloat16": devices.slow_bfloat16,
    "missing-extras": packages.missing_extras,
}


def machine_findings(machine: Machine) -> tuple[Finding, ...]:
    """What every check finds: what stops a run first, notes last."""
    every = [finding for rule in MACHINE_RULES.values() for finding in rule(machine)]
    return tuple(sorted(every, key=lambda finding: finding.severity == "note"))
