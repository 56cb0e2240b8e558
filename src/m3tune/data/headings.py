"""What stands under which heading in Markdown, reStructuredText and plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """A paragraph, or a code block, as the document has it."""

    text: str
    is_code: bool


class Section(NamedTuple):
    """The headings from the outermost to the innermost, and what stands under the last before the next heading."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
# A line of dashes under one of these is a rule or a table, and no heading.
_NO_TITLE = re.compile(r"\s*([-*+>|]|\d+[.)])\s|.*\|| {4}|\t")
_ADORNMENT = re.compile(r"""([=\-`:.'"~^_*+#<>])\1{2,}\s*""")
_FRONT_MATTER = re.compile(r"\A(---[ \t]*\n.*?\n(?:---|\.\.\.)|\+\+\+[ \t]*\n.*?\n\+\+\+)[ \t]*(?:\n|\Z)", re.DOTALL)


def blocks_of(text: str, kind: str) -> Iterator[Section]:
    """The sections of a document whose `kind` is `markdown`, `rst` or `text`, without those that hold nothing.

    A heading inside a code fence is none. Front matter at the start of Markdown is left out.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    if kind == "markdown":
        lines = _FRONT_MATTER.sub("", lines)
    reader = _Reader(kind)
    for line in lines.split("\n"):
        yield from reader.read(line)
    yield from reader.end()


class _Reader:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._headings: list[tuple[int, str]] = []  # level and title
        self._blocks: list[Block] = []
        self._lines: list[str] = []
        self._fence = ""
        self._adornments: list[str] = []  # of reStructuredText, by level

    def read(self, line: str) -> Iterator[Section]:
        if self._fence:
            self._lines.append(line)
            if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._close(is_code=True)
        elif self._kind == "markdown" and (fence := _FENCE.match(line)):
            self._close()
            self._fence = fence[1]
            self._lines.append(line)
        elif heading := self._heading(line):
            yield from self._section()
            level, title = heading
            self._headings = [outer for outer in self._headings if outer[0] < level]
            if title:
                self._headings.append(heading)
        elif line.strip():
            self._lines.append(line.rstrip())
        else:
            self._close()

    def end(self) -> Iterator[Section]:
        self._close(is_code=bool(self._fence))
        yield from self._section()

    def _heading(self, line: str) -> tuple[int, str] | None:
        """Level and title where the line, with the paragraph before it, is a heading, which is then used up."""
        if self._kind == "markdown" and (atx := _ATX.fullmatch(line)):
            self._close()
            return len(atx[1]), (atx[2] or "").strip()
        if self._kind == "markdown" and self._lines and (rule := _SETEXT.fullmatch(line)):
            if any(_NO_TITLE.match(before) for before in self._lines):
                return None
            return 1 if rule[1][0] == "=" else 2, self._take_title()
        if self._kind == "rst" and len(self._lines) in (1, 2) and (adornment := _ADORNMENT.fullmatch(line)):
            over = len(self._lines) == 2
            if (over and self._lines[0] != line.rstrip()) or len(self._lines[-1].strip()) > len(line.rstrip()):
                return None
            style = adornment[1] * (2 if over else 1)
            if style not in self._adornments:
                self._adornments.append(style)
            self._lines = self._lines[-1:]
            return self._adornments.index(style) + 1, self._take_title()
        return None

    def _take_title(self) -> str:
        title = " ".join(" ".join(self._lines).split())
        self._lines = []
        return title

    def _close(self, is_code: bool = False) -> None:
        """End the block that is being read."""
        text = "\n".join(self._lines).strip("\n")
        if text.strip():
            self._blocks.append(Block(text if is_code else text.strip(), is_code))
        self._lines, self._fence = [], ""

    def _section(self) -> Iterator[Section]:
        if self._blocks:
            yield Section(tuple(title for _, title in self._headings), tuple(self._blocks))
        self._blocks = []
