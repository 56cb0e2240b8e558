"""Texts as a reader of a page sees them: shared words marked, what is invisible made visible, what is long folded.

The parts of a text are plain data. Whoever shows them escapes them, so no text of the data becomes markup or a
terminal's command.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from m3tune.retrieval.bm25 import CJK, tokenize

FOLDED_CHARACTERS = 1_200
"""Of a text that are shown at once."""
SHOWN_CHARACTERS = 20_000
"""Of a text that are shown at all: more than any encoder here reads."""

_WORD = re.compile(rf"[{CJK}]+|(?:(?![{CJK}])\w){{2,}}")
_CJK_START = re.compile(f"[{CJK}]")
# Controls but tab and line feed, marks and overrides of direction, other invisible characters, lone surrogates, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMES = dict(
    zip(
        "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u00ad\u200b\ufeff",
        ("ALM", "LRM", "RLM", "LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI", "SHY", "ZWSP", "BOM"),
        strict=True,
    )
)


class Part(NamedTuple):
    """A stretch of text: as it is, a word that the other text has too, or the name of an invisible character."""

    text: str
    kind: Literal["plain", "shared", "sign"]


class Shown(NamedTuple):
    """A text cut up for showing: `start` at once, `rest` on demand; `left_out` characters more are not shown."""

    start: list[Part]
    rest: list[Part]
    left_out: int

    @property
    def folded(self) -> int:
        """Characters that are shown on demand."""
        return sum(1 if part.kind == "sign" else len(part.text) for part in self.rest)


def show(text: str, words: Collection[str]) -> Shown:
    """A text with its `words` marked. The fold comes after a space where one is near."""
    text = text.replace("\r\n", "\n")
    seen = text[:SHOWN_CHARACTERS]
    fold = len(seen)
    if len(seen) > FOLDED_CHARACTERS + FOLDED_CHARACTERS // 4:  # never to hide a line or two
        space = seen.find(" ", FOLDED_CHARACTERS, FOLDED_CHARACTERS + 40)
        fold = FOLDED_CHARACTERS if space < 0 else space + 1
    return Shown(list(_parts(seen[:fold], words)), list(_parts(seen[fold:], words)), len(text) - len(seen))


def marked(text: str, words: Collection[str]) -> list[Part]:
    """A short text, nothing of it folded, with its `words` marked."""
    return list(_parts(text, words))


def named(text: str) -> str:
    """A short text with its invisible characters by name."""
    return "".join(part.text for part in _visible(text))


def words_of(text: str) -> frozenset[str]:
    """The words of a text by which BM25 finds it: without English stop words, CJK as pairs of characters."""
    return frozenset(tokenize([text[:SHOWN_CHARACTERS]])[0])


def _parts(text: str, words: Collection[str]) -> Iterator[Part]:
    end = 0
    for first, last in _shared(text, words):
        yield from _visible(text[end:first])
        yield Part(text[first:last], "shared")
        end = last
    yield from _visible(text[end:])


def _shared(text: str, words: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where (first, last) the text has one of the words; overlapping pairs of characters are one stretch."""
    for match in _WORD.finditer(text):
        first, last = match.span()
        if not _CJK_START.match(text, first):
            if match[0].lower() in words:
                yield first, last
            continue
        width = min(2, last - first)
        hits = [at for at in range(first, last - width + 1) if text[at : at + width] in words]
        while hits:
            begin = end = hits[0]
            while hits and hits[0] <= end:
                end = hits.pop(0) + width
            yield begin, end


def _visible(text: str) -> Iterator[Part]:
    end = 0
    for match in _INVISIBLE.finditer(text):
        if match.start() > end:
            yield Part(text[end : match.start()], "plain")
        yield Part(_NAMES.get(match[0], f"U+{ord(match[0]):04X}"), "sign")
        end = match.end()
    if end < len(text):
        yield Part(text[end:], "plain")
