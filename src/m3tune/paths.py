"""Where a person's path leads: a file, a folder, or a folder inside an installed Python package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from m3tune.errors import DataError, existing_path

PACKAGE_PREFIX = "package:"


def looks_like_path(spec: str) -> bool:
    """Whether `spec` can only be a path: a Hub id is `name` or `owner/name`, with neither dots in front nor a drive."""
    return spec.startswith((".", "/", "~", PACKAGE_PREFIX)) or "\\" in spec or spec.count("/") > 1 or spec.endswith("/")


def resolve_path(spec: str | Path, what: str) -> Path:
    """The absolute path that `spec` names: a path, or `package:IMPORTNAME/FOLDER` inside an installed package.

    The package is found, not imported. Raises DataError when the package or the path is missing.
    """
    text = str(spec)
    if not text.startswith(PACKAGE_PREFIX):
        return existing_path(spec, what)
    name, _, inside = text.removeprefix(PACKAGE_PREFIX).partition("/")
    places = _package_folders(name, text)
    present = [place / inside for place in places if (place / inside).exists()]
    return existing_path(present[0] if present else places[0] / inside, f"{what} ({text})")


def lies_inside(output: Path, data: Path) -> bool:
    """Whether a path to write is the folder of the data, or in it."""
    return data.is_dir() and output.expanduser().resolve().is_relative_to(data.resolve())


def _package_folders(name: str, where: str) -> list[Path]:
    """The folders of the package imported as `name`: one, or several where it is a namespace package."""
    # A dotted name is refused because find_spec would import the parent package to look it up.
    if not name.isidentifier():
        raise DataError(
            f"{name!r} is not the import name of a package", where=where, fix="write package:IMPORTNAME/FOLDER"
        )
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    if spec is None:
        raise DataError(
            f"the Python package {name!r} is not installed",
            where=where,
            fix=f"pip install {name.replace('_', '-')}, or check the name: it is the one that Python imports",
        )
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not folders:
        raise DataError(f"{name!r} is a single module without a folder", where=where, fix="name a package")
    return folders
