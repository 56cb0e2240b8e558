"""Versions that do not go together: by what the packages themselves require, and by a table of what is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from m3tune.types import Severity

# Packages whose versions are looked at, m3tune's own requirements first.
WATCHED = (
    "m3tune", "torch", "transformers", "tokenizers", "accelerate", "safetensors", "huggingface-hub", "numpy", "scipy",
    "pyarrow", "sentence-transformers", "flagembedding", "peft", "datasets", "faiss-cpu", "optuna", "fastapi",
)  # fmt: skip


class Clash(NamedTuple):
    """Two packages in ranges of versions that do not work together, though neither says so."""

    package: str
    versions: str
    other: str
    others: str
    severity: Severity
    why: str
    fix: str


CLASHES = (
    Clash(
        "flagembedding", "<1.4.2", "transformers", ">=5", "warning",
        "FlagEmbedding before 1.4.2 calls the Trainer and tokenizers as transformers 4 had them",
        "pip install 'FlagEmbedding>=1.4.2'",
    ),
    Clash(
        "flagembedding", "<=1.4.2", "transformers", ">=5.23", "note",
        "its published commands name --overwrite_output_dir and --warmup_ratio, which transformers refuses now",
        "leave both out of FlagEmbedding's commands; m3tune does not use them",
    ),
)  # fmt: skip


def known_clashes(versions: Mapping[str, str], table: Sequence[Clash] = CLASHES) -> Iterator[Clash]:
    """The rows of the table that these versions, package -> version, are in."""
    for clash in table:
        if _within(versions.get(clash.package), clash.versions) and _within(versions.get(clash.other), clash.others):
            yield clash


def unmet(versions: Mapping[str, str], requires: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str]]:
    """(package, what it requires, the version that is there) for each requirement that an installed version breaks.

    `requires` has each package's requirements as its metadata has them; those of extras, of other systems and of
    packages that are not there are passed over.
    """
    for package, lines in requires.items():
        for line in lines:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = versions.get(canonicalize_name(requirement.name))
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                yield package, f"{requirement.name}{requirement.specifier}", version


def _within(version: str | None, versions: str) -> bool:
    return version is not None and SpecifierSet(versions).contains(version, prereleases=True)
