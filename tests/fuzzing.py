"""Hostile files: sound data of a format, changed as real data is broken, and what must still hold of its reading."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from m3tune.data.collection import Collection
from m3tune.data.intake import Intake, Row

Rows = list[dict[str, Any]]

VALUES = (
    *(
        "",
        " ",
        "\t",
        "\u2028",
        "\x00",
        "\x1b[31m",
        "\u202egnp.exe",
        "\ufeff",
        "a\r\nb",
        "a\rb",
        'say "x"',
        "a,b\tc",
        "é🙂",
    ),
    *("é🙂", "\ud800", "x" * 3000, "1", "0.5", "nan", "q0", "p0", "q1", "p1", "fine 0"),
    *(0, 1, -1, 10**18, 10**400, 0.5, -0.0, float("nan"), float("inf"), True, False, None),
    *([], [""], ["a"], ["a", "b"], ["a", None], [1.5], [[]], {}, {"a": {"b": []}}),
)
"""What may stand where something else should."""

_BYTES = (
    b"\xff",
    b"\xed\xa0\x80",
    b"\x00",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b'"',
    b"\xef\xbb\xbf",
    b"\t",
    b",",
    b"{",
    b"}",
    b"\\",
)


class Watching(Intake):
    """An intake that remembers how many records it was given, and those that it took."""

    def __init__(self, *, skip_bad: bool) -> None:
        super().__init__(skip_bad=skip_bad)
        self.given: Counter[str] = Counter()
        self.taken: list[tuple[str, Any]] = []

    def take(self, kind, rows, add):
        def counted() -> Iterator[Row]:
            for row in rows:
                self.given[kind] += 1
                yield row

        def watched(value: Any, where: str) -> bool:
            is_new = add(value, where)
            self.taken.append((kind, value))
            return is_new

        super().take(kind, counted(), watched)


@dataclass
class Files:
    """Files of one case, and how many records they hold, where that is known from how they were made."""

    contents: dict[str, bytes]
    records: int | None = None
    sound: bool = True
    """Whether the packing is whole, so that the records can be counted from outside."""
    names: dict[str, str] = field(default_factory=dict)
    """Name -> the name under which it was written, with .gz or .zst."""


def changed_rows(draw: Callable, rows: Rows, keys: tuple[str, ...]) -> Rows:
    """Rows of which some have another value, a key less or more, or stand twice."""
    rows = [dict(row) for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        if not rows:
            break
        at = draw(st.integers(0, len(rows) - 1))
        change = draw(st.sampled_from(["value", "value", "value", "no key", "other key", "again", "away"]))
        key = draw(st.sampled_from(keys))
        if change == "value":
            rows[at][key] = draw(st.sampled_from(VALUES))
        elif change == "no key":
            rows[at].pop(key, None)
        elif change == "other key":
            rows[at][draw(st.sampled_from(["", "text_id", key.upper(), "\x00", "x"]))] = "more"
        elif change == "again":
            rows.insert(draw(st.integers(0, len(rows))), dict(rows[at]))
        else:
            del rows[at]
    return rows


def as_json_lines(draw: Callable, rows: Rows) -> bytes:
    """One object a line; a lone surrogate is escaped or, as some programs do, written as it is."""
    escaped = draw(st.booleans())
    return b"".join(json.dumps(row, ensure_ascii=escaped).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


def changed_bytes(draw: Callable, data: bytes) -> bytes:
    """Bytes that were cut, flipped, mixed with others, or given other line ends."""
    change = draw(
        st.sampled_from(["nothing", "nothing", "cut", "flip", "insert", "insert", "crlf", "bom", "blank", "end"])
    )
    at = draw(st.integers(0, len(data)))
    if change == "cut":
        return data[:at]
    if change == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    if change == "insert":
        return data[:at] + draw(st.sampled_from(_BYTES)) + data[at:]
    if change == "crlf":
        return data.replace(b"\n", b"\r\n")
    if change == "bom":
        return b"\xef\xbb\xbf" + data
    if change == "blank":
        return b"\n" + data.replace(b"\n", b"\n \n")
    return data.rstrip(b"\n") if change == "end" else data


def packed(draw: Callable, files: Mapping[str, bytes], may_pack: bool = True) -> Files:
    """The files, some of them packed, and a packed one perhaps broken."""
    made = Files({})
    for name, data in files.items():
        ending = draw(st.sampled_from(["", "", ".gz", ".zst"])) if may_pack else ""
        if ending:
            data = (
                gzip.compress(data, 1, mtime=0) if ending == ".gz" else bytes(pa.compress(data, "zstd", asbytes=True))
            )
            if draw(st.integers(0, 3)) == 0:
                data = changed_bytes(draw, data)
                made.sound = False
        made.contents[name + ending] = data
        made.names[name] = name + ending
    return made


def lines_with_content(data: bytes) -> int:
    """How many lines of a text file are not blank, counted in one go and by other means than the reader's."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(bool(line.decode("utf-8", "backslashreplace").strip()) for line in lines)


@dataclass
class Case:
    """A format in one of its shapes."""

    make: Callable[[Callable], Files]
    """Files from hypothesis' `draw`."""
    holds: Callable[[Collection, str, Any], bool]
    """Whether a collection holds all texts and pairs of a record that was taken, given its kind and value."""
    place: str = ""
    """The file to read, by its name before packing; the folder where it is empty."""


def place_of(case: Case, files: Files, folder: Path) -> Path:
    """Write the files and return what to read."""
    for name, data in files.contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / files.names[case.place] if case.place else folder
