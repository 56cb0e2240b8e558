"""Records of TREC's marked-up text files: topics (`<top>`) and passages (`<DOC>`), whose tags are often left open."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from m3tune.data.files import read_lines
from m3tune.data.intake import Row
from m3tune.errors import DataError, excerpt

TOPICS = ("top", "topic")
DOCUMENTS = ("doc",)

_TAG = re.compile(r"</?([a-z][\w.-]*)(\s[^<>]*)?/?>", re.IGNORECASE)
# What a file may hold around its records: a declaration, a comment, an element about all of them.
_AROUND = re.compile(r"(<[?!][^<>]*>|</?[a-z][\w.-]*(\s[^<>]*)?>|\s)*", re.IGNORECASE)
_STRAY_CHARACTERS = 1000


def marked_records(file: Path, elements: tuple[str, ...]) -> Iterator[Row]:
    """The source of each element of these names; one without an end tag ends where the next begins.

    What stands between them, and is more than tags, is a row with an error. Raises DataError where the file cannot be
    read.
    """
    start = re.compile(rf"(?=<(?:{'|'.join(elements)})[\s>])", re.IGNORECASE)
    end = re.compile(rf"</(?:{'|'.join(elements)})>", re.IGNORECASE)
    where, lines, problem = f"{file}:1", list[str](), None
    for number, line, error in read_lines(file):
        for piece in start.split(line + "\n"):
            if start.match(piece):
                yield from _record(where, lines, problem, start)
                where, lines, problem = f"{file}:{number}", [], None
            problem = problem or error
            ended = end.search(piece)
            lines.append(piece[: ended.end()] if ended else piece)
            if ended:
                yield from _record(where, lines, problem, start)
                where, lines, problem = f"{file}:{number}", [piece[ended.end() :]], None
    yield from _record(where, lines, problem, start)


def fields_of(source: str, names: tuple[str, ...], until: str | None = None) -> list[str]:
    """What stands in each element of these names, without markup: to its end tag or to the tag `until`.

    Where `until` is None any tag ends it.
    """
    ends = rf"</?(?:{until})[\s>]" if until else "<"
    found = re.finditer(
        rf"<({'|'.join(names)})(?:\s[^<>]*)?>(.*?)(?=</\1>|{ends}|\Z)", source, re.IGNORECASE | re.DOTALL
    )
    return [plain for match in found if (plain := html.unescape(_TAG.sub(" ", match[2])).strip())]


def tags_in(source: str) -> set[str]:
    """Names of the elements, in lower case."""
    return {match[1].lower() for match in _TAG.finditer(source)}


def _record(where: str, lines: list[str], problem: DataError | None, start: re.Pattern[str]) -> Iterator[Row]:
    """The row of what was gathered; none where it is but white space and tags around the records."""
    source = "".join(lines)
    if start.match(source):
        yield Row(where, source, problem, source)
    elif not _AROUND.fullmatch(source):
        stray = source.strip()[:_STRAY_CHARACTERS]
        problem = problem or DataError(
            f"text outside of every record: {excerpt(stray)}",
            where=where,
            fix="begin each record with its tag, such as <DOC> or <top>",
            reason="outside-of-records",
        )
        yield Row(where, None, problem, stray)
