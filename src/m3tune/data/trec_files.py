"""Which file of a TREC folder holds what: its name says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from m3tune.data.files import PACKED
from m3tune.data.qrels import SPLIT_OF_NAME, SPLITS
from m3tune.errors import DataError

# Role -> the words in a file's name that say it; the first word that says one decides.
WORDS: Mapping[str, tuple[str, ...]] = {
    "qrels": ("qrels", "qrel"),
    "run": ("run", "runs"),
    "topics": ("topics", "topic", "queries"),
    "corpus": ("collection", "corpus", "docs", "documents", "passages"),
}
_ROLE_OF_WORD = {word: role for role, words in WORDS.items() for word in words}
_EXTENSIONS = ("tsv", "txt", "trec", "xml", "sgml")
_OTHER_EXTENSIONS = ("json", "jsonl", "csv", "parquet", "md")


def files_by_role(folder: Path) -> dict[str, list[Path]]:
    """Role -> the files of a folder that have it, by name."""
    files: dict[str, list[Path]] = {role: [] for role in WORDS}
    for file in sorted(folder.iterdir()):
        role = role_of(file.name)
        if role and file.is_file():
            files[role].append(file)
    return files


def role_of(name: str) -> str | None:
    """What a file of this name holds, such as `qrels`; None where the name does not say it."""
    words = _words(name)
    role = next((role for word in words if (role := _ROLE_OF_WORD.get(word))), None)
    # Qrels and runs may end in anything, such as a tag, but queries.jsonl is no file of topics.
    fits = words[-1] not in _OTHER_EXTENSIONS if role in ("qrels", "run") else words[-1] in _EXTENSIONS
    return role if fits else None


def qrels_by_split(files: list[Path]) -> dict[str | None, Path]:
    """Split -> its file, in the order train, dev, test; None -> the one whose name says no split."""
    found: dict[str | None, Path] = {}
    for file in files:
        split = next((split for word in _words(file.name) if (split := SPLIT_OF_NAME.get(word))), None)
        if split in found:
            raise DataError(
                f"{found[split].name} and {file.name} are both the {split or 'only'} qrels",
                where=file.parent,
                fix="keep one of them, or name them qrels.train, qrels.dev and qrels.test",
            )
        found[split] = file
    return {split: found[split] for split in (*SPLITS, None) if split in found}


def _words(name: str) -> list[str]:
    """The words of a file's name in lower case; the last one is its extension, compression left out."""
    plain = next(name.lower().removesuffix(ending) for ending in reversed(PACKED) if name.lower().endswith(ending))
    return [word.rstrip("0123456789") if word not in _EXTENSIONS else word for word in re.split(r"[\s._-]+", plain)]
