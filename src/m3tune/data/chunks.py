"""A document cut into passages: at its headings, then by size, at the ends of paragraphs and sentences.

Sizes are in words. Chinese, Japanese and Korean write no blanks between words, so each of their characters is a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from m3tune.data.headings import Block, blocks_of

WORDS = 200
"""How long a passage is to be; about 300 tokens."""
FEWEST_WORDS = 40
"""A passage that is shorter is joined to the next under its heading, if there is one."""

_WIDE = (
    "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# A run of characters without a blank, such as a link or Thai, is more than one word.
_WORD = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]{{1,16}}")
_CLOSING = r"[\"'”’»)\]）】」』]*"
# A full stop ends a sentence where a blank follows; a Chinese one always does.
_SENTENCE = re.compile(rf".+?(?:[.!?…]{_CLOSING}(?=\s)|[。！？；]{_CLOSING}|\Z)\s*", re.DOTALL)
_LINE = re.compile(r".*\n|.+")


class Chunk(NamedTuple):
    """A passage in the making: the path of headings that it stands under, and its text."""

    headings: tuple[str, ...]
    text: str


def chunks_of(text: str, kind: str, *, words: int = WORDS, fewest_words: int = FEWEST_WORDS) -> Iterator[Chunk]:
    """The passages of a document whose `kind` is `markdown`, `rst` or `text`, in order; each has text.

    Paragraphs and code blocks are packed up to `words` words, never across a heading. A longer paragraph is cut at the
    ends of sentences, a longer code block at line ends, and only a longer sentence or line between words. A passage of
    fewer than `fewest_words` words takes the next paragraph too, or joins the one before where it is the last.
    """
    for headings, blocks in blocks_of(text, kind):
        for packed in _packed(blocks, words, fewest_words):
            yield Chunk(headings, packed)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each with the blanks that follow it.

    >>> sentences_of("One. Two? 三。四")
    ['One. ', 'Two? ', '三。', '四']
    """
    return _SENTENCE.findall(text)


def count_words(text: str) -> int:
    """Words of a text, as sizes are counted here.

    >>> count_words("two words"), count_words("五個中文字")
    (2, 5)
    """
    return sum(1 for _ in _WORD.finditer(text))


def _packed(blocks: Iterable[Block], words: int, fewest_words: int) -> Iterator[str]:
    ready: list[tuple[str, int]] = []  # text and words of each passage
    for block in blocks:
        for piece, is_whole in _pieces(block, words):
            size = count_words(piece)
            text, before = ready[-1] if ready else ("", 0)
            if ready and is_whole and (before + size <= words or before < fewest_words):
                ready[-1] = (f"{text}\n\n{piece}", before + size)
            else:
                ready.append((piece, size))
    if len(ready) > 1 and ready[-1][1] < fewest_words:
        last, _ = ready.pop()
        ready[-1] = (f"{ready[-1][0]}\n\n{last}", 0)
    return (text for text, _ in ready)


def _pieces(block: Block, words: int) -> Iterator[tuple[str, bool]]:
    """A block in pieces of at most `words` words, and whether a piece may follow other text in one passage.

    Only the first piece may: what is cut because it is long stays cut where it was.
    """
    if count_words(block.text) <= words:
        yield block.text, True
        return
    sentences = _LINE.findall(block.text) if block.is_code else sentences_of(block.text)
    is_first = True
    gathered, size = "", 0
    for part in (short for sentence in sentences for short in _cut(sentence, words)):
        of_part = count_words(part)
        if gathered.strip() and size + of_part > words:
            yield gathered.strip("\n") if block.is_code else gathered.strip(), is_first
            gathered, size, is_first = "", 0, False
        gathered, size = gathered + part, size + of_part
    if gathered.strip():
        yield gathered.strip("\n") if block.is_code else gathered.strip(), is_first


def _cut(part: str, words: int) -> Iterator[str]:
    """A sentence or line itself, or its pieces of `words` words where it is longer."""
    starts = [match.start() for match in _WORD.finditer(part)][::words]
    if len(starts) < 2:
        yield part
        return
    for start, end in itertools.pairwise([0, *starts[1:], len(part)]):
        yield part[start:end]
