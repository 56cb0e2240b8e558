"""The script that a text is written in, which tells languages apart roughly and needs no model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

_READ_CHARACTERS = 400
# Japanese mixes these with Han, so they decide.
_KANA = ("HIRAGANA", "KATAKANA")


def script_of(text: str) -> str:
    """The script of most letters at the start of a text, such as Latin, Han, Kana or Cyrillic; "none" without letters.

    >>> [script_of(text) for text in ("What is it?", "這是什麼", "これは何ですか", "42")]
    ['Latin', 'Han', 'Kana', 'none']
    """
    counts = Counter(_script(character) for character in text[:_READ_CHARACTERS] if character.isalpha())
    if any(kana in counts for kana in _KANA):
        return "Kana"
    if not counts:
        return "none"
    name = counts.most_common(1)[0][0]
    return "Han" if name == "CJK" else name.capitalize()


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name is its script's."""
    return unicodedata.name(letter, "unknown").split()[0].split("-")[0]
