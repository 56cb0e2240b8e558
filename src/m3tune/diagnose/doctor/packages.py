"""Checks of Python and of what is installed."""

from __future__ import annotations

from collections.abc import Iterator

from m3tune.diagnose.doctor.clashes import known_clashes, unmet
from m3tune.diagnose.doctor.environment import EXTRAS, Machine
from m3tune.diagnose.wording import found
from m3tune.types import Finding

_OLDEST_PYTHON = (3, 11)


def old_python(machine: Machine) -> Iterator[Finding]:
    """A Python that m3tune does not run on."""
    if tuple(int(part) for part in machine.python.split(".")[:2]) < _OLDEST_PYTHON:
        yield found(
            "old-python", "error", "python", f"this is Python {machine.python}", "install Python 3.11 or newer", count=1
        )


def unmet_requirements(machine: Machine) -> Iterator[Finding]:
    """Packages in versions that another package here refuses."""
    broken = list(unmet(machine.versions, machine.requires))
    if broken:
        package, wanted, version = broken[0]
        yield found(
            "unmet-requirements",
            "error" if any(package == "m3tune" for package, *_ in broken) else "warning",
            ", ".join(dict.fromkeys(package for package, *_ in broken)),
            f"{package} requires {wanted}, here is {version}",
            f"pip install '{wanted}'",
            (f"{package} requires {wanted}, here is {version}" for package, wanted, version in broken),
            count=len(broken),
        )


def clashing_versions(machine: Machine) -> Iterator[Finding]:
    """Packages that are known not to work together, though neither says so."""
    for clash in known_clashes(machine.versions):
        both = f"{clash.package} {machine.versions[clash.package]}, {clash.other} {machine.versions[clash.other]}"
        yield found("clashing-versions", clash.severity, both, clash.why, clash.fix, count=1)


def missing_extras(machine: Machine) -> Iterator[Finding]:
    """Optional packages that are not there."""
    missing = {package: extra for package, extra in EXTRAS.items() if package not in machine.versions}
    if missing:
        yield found(
            "missing-extras",
            "note",
            ", ".join(missing),
            f"{len(missing)} optional packages are not there; what needs them says so when it is asked",
            f"pip install 'm3tune[{','.join(missing.values())}]', where you want them",
            count=len(missing),
        )
