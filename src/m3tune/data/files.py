"""Opening files that people bring, plain, gzip or zstd; whatever is wrong with them is a DataError with the file."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, TextIO, cast

from m3tune.errors import DataError

PACKED = ("", ".gz", ".zst")
"""What may follow an extension."""
MAX_LINE_BYTES = 1 << 26  # a line of 64 MiB holds no text that anybody reads

_BLOCK_BYTES = 1 << 16
_SHOWN_BYTES = 1000  # of a line that is too long


def find_file(folder: Path, name: str) -> Path | None:
    """The file `name`, `name.gz` or `name.zst` in `folder`, or None. Raises DataError when several are there."""
    present = [path for ending in PACKED if (path := folder / f"{name}{ending}").is_file()]
    if len(present) > 1:
        names = " and ".join(path.name for path in present)
        raise DataError(f"{names} are all here", where=folder, fix="remove those that are out of date")
    return present[0] if present else None


class Line(NamedTuple):
    """A line of a file without its end, counted from 1, or what is wrong with it."""

    number: int
    text: str
    error: DataError | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """Each line of a UTF-8 file. A line that is not UTF-8, or too long, is an error of its own; the rest is read.

    Raises DataError where the file cannot be read, such as a gzip file that was cut off.
    """
    fix = ""
    for number, data, error in raw_lines(path):
        if error:
            yield Line(number, data.decode("utf-8", "backslashreplace"), error)
            continue
        try:
            text = data.decode().rstrip("\r\n")
        except UnicodeDecodeError as wrong:
            fix = fix or encoding_fix(path)
            problem = not_utf8(f"{path}:{number}", wrong, fix)
            yield Line(number, data.decode("utf-8", "backslashreplace").rstrip("\r\n"), problem)
        else:
            yield Line(number, text)


class RawLine(NamedTuple):
    """The bytes of a line with its end, or the start of one that is too long and the error for it."""

    number: int
    data: bytes
    error: DataError | None = None


def raw_lines(path: Path) -> Iterator[RawLine]:
    """Each line of a file, counted from 1, without a byte order mark. Raises DataError where it cannot be read."""
    with readable(path), open_binary(path) as file:
        number = 0
        while data := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
                size = len(data) + _skip_line(file)
                yield RawLine(number, data[:_SHOWN_BYTES], _too_long(size, f"{path}:{number}"))
                continue
            yield RawLine(number, data.removeprefix(codecs.BOM_UTF8) if number == 1 else data)


def not_utf8(where: str, error: UnicodeDecodeError, fix: str) -> DataError:
    """The error for a line that is no UTF-8; `encoding_fix` says what to do about it."""
    return DataError(
        f"not UTF-8 text: byte {error.start + 1} of the line is wrong", where=where, fix=fix, reason="not-utf8"
    )


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file to read, with or without a byte order mark; its name says gzip (`.gz`) or zstd (`.zst`).

    Raises DataError, also while the block reads: not UTF-8 (with the byte position), broken compression, unreadable.
    """
    with readable(path):
        try:
            with io.TextIOWrapper(open_binary(path), encoding="utf-8-sig") as file:
                yield file
        except UnicodeDecodeError:
            raise DataError(
                f"not UTF-8 text: the byte at position {_first_bad_byte(path)} is wrong",
                where=path,
                fix=encoding_fix(path),
                reason="not-utf8",
            ) from None


@contextlib.contextmanager
def create_text(path: Path) -> Iterator[TextIO]:
    """Create a UTF-8 text file, packed as its name says. The same text gives the same bytes."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(path.open("xb"))
        packed: IO[bytes] = plain
        if path.suffix == ".gz":
            packed = cast(IO[bytes], stack.enter_context(gzip.GzipFile(path.stem, "wb", fileobj=plain, mtime=0)))
        elif path.suffix == ".zst":
            import pyarrow as pa

            packed = cast(IO[bytes], stack.enter_context(pa.CompressedOutputStream(plain, "zstd")))
        yield stack.enter_context(io.TextIOWrapper(packed, encoding="utf-8", newline="\n"))


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked."""
    if path.suffix == ".zst":
        import pyarrow as pa

        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(str(path), "zstd")))
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def temporary_folder(owner: object) -> Path:
    """A new folder that is deleted when its owner is."""
    folder = Path(tempfile.mkdtemp(prefix="m3tune-"))
    weakref.finalize(owner, _remove, folder, os.getpid())
    return folder


def _remove(folder: Path, process: int) -> None:
    # A forked process, such as a loader's worker, has a copy of the owner, but the files are not its own.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
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


def _skip_line(file: IO[bytes]) -> int:
    """Bytes from here to the end of the line, which are passed over."""
    skipped = 0
    while data := file.readline(_BLOCK_BYTES):
        skipped += len(data)
        if data.endswith(b"\n"):
            break
    return skipped


def _too_long(size: int, where: str) -> DataError:
    return DataError(
        f"a line of {size:,} bytes; more than {MAX_LINE_BYTES:,} are not read",
        where=where,
        fix="cut the text into passages, or write each record on a line of its own",
        reason="line-too-long",
    )


def encoding_fix(path: Path) -> str:
    """What to do about bytes that are no UTF-8, with a guess at what they are."""
    with open_binary(path) as file:
        start = file.read(4)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "this looks like UTF-16: save it as UTF-8, for example with: iconv -f UTF-16 -t UTF-8"
    if start.startswith(b"\x1f\x8b"):
        return f"this is a gzip file: name it {path.name}.gz"
    if start == b"\x28\xb5\x2f\xfd":
        return f"this is a zstd file: name it {path.name}.zst"
    return (
        "save it as UTF-8, for example with: iconv -f ENCODING -t UTF-8, where ENCODING is often WINDOWS-1252 in the "
        "West, GB18030 for Chinese, SHIFT_JIS for Japanese"
    )


def _first_bad_byte(path: Path) -> int:
    """Position, from 0 and after decompression, of the first byte that is no UTF-8.

    The position in a UnicodeDecodeError of a stream counts from the decoder's last block, so the file is read again.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    decoded_bytes = 0  # before the bytes that the decoder still holds
    with open_binary(path) as file:
        while block := file.read(_BLOCK_BYTES):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return decoded_bytes + error.start
            decoded_bytes += held + len(block) - len(decoder.getstate()[0])
    return decoded_bytes
