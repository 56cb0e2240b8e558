"""FlagEmbedding's native rows: `query`, `pos`, `neg` and what may stand beside them, as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.builder import Builder
from m3tune.data.collection import Collection, text_hash
from m3tune.data.files import PACKED
from m3tune.data.intake import Intake
from m3tune.data.rows import missing_key, read_json_lines, string_at
from m3tune.data.scores import is_finite_number
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

EXTENSIONS = tuple(f".{name}{packed}" for name in ("jsonl", "json") for packed in PACKED)
KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type", "batch_size", "train_group_size")
OPTIONS = {"type": str, "batch_size": int, "train_group_size": int}
NO_IN_BATCH = "no_in_batch_neg"  # how names end, of a folder or of a file without its extension
_LONE_SET = "data"


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a row is FlagEmbedding's: a single text under `pos` is a pair, there it is a list."""
    return "query" in keys and "pos" in keys and not isinstance(keys["pos"], str)


def read_flagembedding(path: Path, intake: Intake) -> Collection:
    """The collection in a JSON lines file, or in all those of a folder, in the order of their names.

    A passage's id is the hash of its text, a query's that of its prompt and text, so equal texts are stored once and
    rows with one query unite. The files of a folder are sets by their names, and so is a file whose rows say how they
    train (`type`, `batch_size`, `train_group_size`) or whose name ends in `no_in_batch_neg`, which becomes the set's
    setting.

    Bad rows go to `intake`: a wrong type, no or an empty positive, scores that do not match, a text that is positive
    and negative in one row.
    """
    builder = Builder(intake)
    files = row_files(path)
    for file in files:
        set_name, in_batch_negatives = set_of(path, file)

        def add(row: dict[str, Any], where: str, name: str = set_name, in_batch: bool = in_batch_negatives) -> bool:
            query, options = _query(row, where), _options(row, where)
            positives = list(_scored_passages(row, "pos", where))
            if not positives:
                raise DataError(
                    f"'pos' is empty for the query {excerpt(query.text)}",
                    where=where,
                    fix="give a positive",
                    reason="no-positive",
                )
            is_new = builder.add(query, positives, list(_scored_passages(row, "neg", where)), where)
            if is_a_set(len(files), in_batch, options):
                is_new |= builder.put_into_set(query.id, name, in_batch, options)
            intake.ignore(f"key {key!r}" for key in row if key not in KEYS)
            return is_new

        intake.take("row", read_json_lines(file), add)
    return builder.collection()


def is_a_set(files: int, in_batch_negatives: bool, options: Mapping[str, Any]) -> bool:
    """Whether a row of one of so many files belongs to a set, and not just to the data."""
    return files > 1 or bool(options) or not in_batch_negatives


def set_of(path: Path, file: Path) -> tuple[str, bool]:
    """Name of the set that a file is, and whether it has in-batch negatives, which its name or the folder's says.

    A file that was named itself is called by one name, whatever it is: copying it changes nothing.
    """
    stem = next((file.name.removesuffix(ending) for ending in EXTENSIONS if file.name.endswith(ending)), file.name)
    in_batch = not (stem.endswith(NO_IN_BATCH) or (path.is_dir() and path.name.endswith(NO_IN_BATCH)))
    return (stem.removesuffix(NO_IN_BATCH).rstrip("-_") if path.is_dir() else _LONE_SET) or _LONE_SET, in_batch


def _options(row: dict[str, Any], where: str) -> dict[str, str | int]:
    """What a row says of how it trains."""
    options = {key: row[key] for key in OPTIONS if row.get(key) is not None}
    for key, value in options.items():
        if not isinstance(value, OPTIONS[key]) or isinstance(value, bool):
            kind = "a text" if OPTIONS[key] is str else "a whole number"
            raise DataError(
                f"{key!r} is not {kind}: {excerpt(value)}", where=where, fix=f"write {kind}", reason="wrong-type"
            )
    return options


def row_files(path: Path) -> list[Path]:
    """The file itself, or the JSON lines files of a folder by name. Raises DataError when a folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(EXTENSIONS) and file.is_file())
    if not files:
        raise DataError("no .jsonl or .json file is here", where=path, fix="name the folder that holds them")
    return files


def _query(row: dict[str, Any], where: str) -> Query:
    text = string_at(row, "query", where)
    if not text.strip():
        raise DataError(
            f"'query' is empty: {text!r}", where=where, fix="write the question or drop the row", reason="empty-text"
        )
    prompt = None if row.get("prompt") is None else string_at(row, "prompt", where)
    return Query(query_id_of(text, prompt), text, prompt)


def query_id_of(text: str, prompt: str | None) -> str:
    """A query's id, which a row does not have."""
    return text_hash(text if prompt is None else f"{prompt}\x1f{text}")


def _scored_passages(row: dict[str, Any], key: str, where: str) -> Iterator[tuple[Passage, float | None]]:
    """The passages of `pos` or `neg`, each with its score. A null is what a table writes for a missing cell."""
    texts = row.get(key)
    if texts is None and key == "pos":
        raise missing_key(row, key, where)
    if texts is None:
        texts = []
    if not isinstance(texts, list):
        raise DataError(
            f"{key!r} is not a list: {excerpt(texts)}",
            where=where,
            fix=f'write a list of texts: "{key}": ["…"]',
            reason="wrong-type",
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{key!r} holds {excerpt(text)}, which is not a passage",
                where=where,
                fix="write a text or remove it",
                reason="empty-text" if isinstance(text, str) else "wrong-type",
            )
    passages = (Passage(text_hash(text), text) for text in texts)
    return zip(passages, _scores(row, f"{key}_scores", len(texts), where), strict=True)


def _scores(row: dict[str, Any], key: str, length: int, where: str) -> list[float] | list[None]:
    scores = row.get(key)
    if scores is None:
        return [None] * length
    fix = f"write one number for each text, or leave {key!r} out"
    if not isinstance(scores, list):
        raise DataError(f"{key!r} is not a list: {excerpt(scores)}", where=where, fix=fix, reason="bad-score")
    if len(scores) != length:
        raise DataError(
            f"{key!r} has {len(scores)} scores for {length} texts", where=where, fix=fix, reason="bad-score"
        )
    for score in scores:
        if not is_finite_number(score):
            raise DataError(
                f"{key!r} holds {excerpt(score)}, which is not a finite number",
                where=where,
                fix=fix,
                reason="bad-score",
            )
    return [float(score) for score in scores]
