"""Opening and parsing files that people bring; whatever is wrong with them is a DataError with file and line."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import re
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TextIO, cast

from m3tune.errors import DataError, nearest

_EXCERPT_CHARACTERS = 80
_BLOCK_BYTES = 1 << 16
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def excerpt(value: object) -> str:
    """The start of a value as an error message shows it: on one line, cut at about 80 characters."""
    if isinstance(value, str):
        return repr(value[:_EXCERPT_CHARACTERS]) + ("…" if len(value) > _EXCERPT_CHARACTERS else "")
    text = reprlib.repr(value)  # bounded in depth and length, unlike repr
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + "…"


def find_file(folder: Path, name: str) -> Path | None:
    """The file `name`, `name.gz` or `name.zst` in `folder`, or None. Raises DataError when several are there."""
    present = [path for ending in ("", ".gz", ".zst") if (path := folder / f"{name}{ending}").is_file()]
    if len(present) > 1:
        names = " and ".join(path.name for path in present)
        raise DataError(f"{names} are all here", where=folder, fix="remove those that are out of date")
    return present[0] if present else None


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file to read, with or without a byte order mark; its name says gzip (`.gz`) or zstd (`.zst`).

    Raises DataError, also while the block reads: not UTF-8 (with the byte position), broken compression, unreadable.
    """
    with _readable(path):
        try:
            with io.TextIOWrapper(_open_binary(path), encoding="utf-8-sig") as file:
                yield file
        except UnicodeDecodeError:
            raise _not_utf8(path) from None


@contextlib.contextmanager
def create_text(path: Path) -> Iterator[TextIO]:
    """Create a UTF-8 text file; it is gzip where the name ends in `.gz`. The same text gives the same bytes."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(path.open("xb"))
        packed = path.suffix == ".gz"
        file = stack.enter_context(gzip.GzipFile(path.stem, "wb", fileobj=plain, mtime=0)) if packed else plain
        yield stack.enter_context(io.TextIOWrapper(cast(IO[bytes], file), encoding="utf-8", newline="\n"))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a new file with one object a line, which `read_json_lines` reads."""
    with create_text(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a file that is one JSON document. Raises DataError with file and line."""
    with open_text(path) as file:
        return _parse_json(file.read(), path, 1, "give a whole JSON document; was the file cut off?")


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's object with its line number, counted from 1; blank lines are skipped.

    Raises DataError with file and line for broken JSON and for anything but an object.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            value = _parse_json(line.rstrip(), path, number, _json_lines_fix(line))
            if not isinstance(value, dict):
                raise DataError(
                    f"this line is not a JSON object: {excerpt(value)}",
                    where=f"{path}:{number}",
                    fix=_json_lines_fix(line),
                )
            yield number, value


def string_at(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under `key` of a row. Raises DataError when it is missing or not a text."""
    if key not in row:
        raise missing_key(row, key, where)
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{key!r} is not a text: {excerpt(value)}", where=where, fix=f"write {key!r} as a JSON string")
    return value


def missing_key(row: Mapping[str, Any], key: str, where: str) -> DataError:
    """The error for a key that must be there; the fix names the nearest key that is."""
    close = nearest(key, row)
    return DataError(
        f"the key {key!r} is missing; here are {listed(row)}",
        where=where,
        fix=f"rename {close!r} to {key!r}" if close else f"add {key!r}",
    )


def listed(names: Iterable[str], at_most: int = 10) -> str:
    """Names for a message, comma-separated, cut after `at_most`."""
    known = list(names)
    more = f" and {len(known) - at_most} more" if len(known) > at_most else ""
    return ", ".join(excerpt(name) for name in known[:at_most]) + more if known else "none"


def _open_binary(path: Path) -> IO[bytes]:
    if path.suffix == ".zst":
        import pyarrow as pa

        return cast(IO[bytes], pa.CompressedInputStream(str(path), "zstd"))
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say what is wrong with the file itself."""
    try:
        yield
    except EOFError:
        raise DataError("the gzip file is cut off", where=path, fix="download or compress it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"not a sound gzip file ({error})", where=path, fix="compress it again, or drop .gz from its name"
        ) from None
    except OSError as error:
        if path.suffix == ".zst" and error.errno is None and path.is_file():
            raise DataError(
                f"not a sound zstd file ({error})", where=path, fix="download or compress it again, or drop .zst"
            ) from None
        raise DataError(
            f"cannot be read ({error.strerror or error})", where=path, fix="name a file that you may read"
        ) from None


def _not_utf8(path: Path) -> DataError:
    """The error for bytes that are no UTF-8, with a guess at what they are."""
    with _open_binary(path) as file:
        start = file.read(4)
    fix = "save it as UTF-8, for example with: iconv -f LATIN1 -t UTF-8"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        fix = "this looks like UTF-16: save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8"
    elif start.startswith(b"\x1f\x8b"):
        fix = f"this is a gzip file: name it {path.name}.gz"
    elif start == b"\x28\xb5\x2f\xfd":
        fix = f"this is a zstd file: name it {path.name}.zst"
    return DataError(f"not UTF-8 text: the byte at position {_first_bad_byte(path)} is wrong", where=path, fix=fix)


def _first_bad_byte(path: Path) -> int:
    """Position, from 0 and after decompression, of the first byte that is no UTF-8.

    The position in a UnicodeDecodeError of a stream counts from the decoder's last block, so the file is read again.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoded_bytes = 0  # before the bytes that the decoder still holds
    with _open_binary(path) as file:
        while block := file.read(_BLOCK_BYTES):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return decoded_bytes + error.start
            decoded_bytes += held + len(block) - len(decoder.getstate()[0])
    return decoded_bytes


def _parse_json(text: str, path: Path, first_line: int, fix: str) -> Any:
    """The value of a JSON text that begins at `first_line` of the file."""
    where = f"{path}:{first_line}"
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line = error.doc.split("\n")[error.lineno - 1].strip()
        raise DataError(
            f"broken JSON ({error.msg}, column {error.colno}) in {excerpt(line)}",
            where=f"{path}:{first_line + error.lineno - 1}",
            fix=fix,
        ) from None
    except UnicodeEncodeError as error:
        raise DataError(
            f"a text holds half a character: {error.object[error.start]!r} without its other half",
            where=where,
            fix="a text was cut inside an emoji or a rare character: remove that \\u escape",
        ) from None
    except RecursionError:
        raise DataError(f"JSON nested too deeply in {excerpt(text.strip())}", where=where, fix=fix) from None
    except ValueError as error:
        raise DataError(
            f"JSON that cannot be read ({error}) in {excerpt(text.strip())}", where=where, fix=fix
        ) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. json keeps the last of repeated keys, so a text would be lost in silence."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!r} stands twice in one object")
    return value


def _json_lines_fix(line: str) -> str:
    """What to do about a line that is not one JSON object."""
    start = line.lstrip()
    if start.startswith("version https://git-lfs"):
        return "this is a Git LFS pointer and not the file: run git lfs pull"
    if start.startswith("["):
        return "write one JSON object a line and no array around them, for example with: jq -c '.[]'"
    if start.strip() == "{":
        return "write each JSON object on one line, for example with: jq -c ."
    return "write one whole JSON object on each line"
