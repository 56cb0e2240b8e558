"""Texts in the normal form in which they are compared: what case, spacing and punctuation do not change.

NFKC and case folding, then words of letters, marks, digits and symbols with one blank between them. A character of a
script that is written without blanks is a word of its own. Works on many texts at once, as arrays of code points.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BREAK, _LETTER, _WHOLE_WORD, _NOTHING = range(4)  # what a character is: between words, in one, one, not there at all
_BLANK = ord(" ")
_KEPT_PUNCTUATION = "#"  # C and C# are two languages; C++ is kept as it is because + is a symbol
# First and last code point of what is written without blanks, or with blanks that people set as they like: Thai and
# Lao, Burmese, Khmer, ideographic marks, kana, ideographs, Hangul syllables, compatibility and rarer ideographs.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_BASE = 0x9E3779B97F4A7C15  # odd: multiplying by it loses nothing


@dataclass(frozen=True)
class NormalTexts:
    """N texts: text i is `codes[offsets[i]:offsets[i + 1]]`, its words `words[word_offsets[i]:word_offsets[i + 1]]`."""

    codes: np.ndarray  # (C,) uint32, code points
    offsets: np.ndarray  # (N + 1,) int64
    words: np.ndarray  # (W,) uint64, a hash of each word
    word_offsets: np.ndarray  # (N + 1,) int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def strings(self) -> list[str]:
        """The normal forms as strings: words with one blank between them."""
        raw = self.codes.astype("<u4").tobytes()
        ends = (4 * self.offsets).tolist()
        return [raw[a:b].decode("utf-32-le", "surrogatepass") for a, b in itertools.pairwise(ends)]


def normalise(texts: Sequence[str]) -> NormalTexts:
    """The normal form of each text. Memory grows with the characters of `texts`: pass a few thousand at a time."""
    folded = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    # A line break after each text, so that no word reaches into the next one.
    codes = np.frombuffer("\n".join([*folded, ""]).encode("utf-32-le", "surrogatepass"), "<u4")
    ends = np.cumsum([len(text) + 1 for text in folded], dtype=np.int64)
    kinds = _kinds()[codes]
    there = kinds != _NOTHING
    ends = np.cumsum(there, dtype=np.int64)[ends - 1] if len(ends) else ends
    codes, kinds = codes[there], kinds[there]

    in_word = kinds != _BREAK
    starts = in_word.copy()  # whether a word begins at this character
    starts[1:] &= (kinds[1:] == _WHOLE_WORD) | (kinds[:-1] != _LETTER)
    text_of = np.repeat(np.arange(len(texts)), np.diff(ends, prepend=0))[in_word]
    codes, starts = codes[in_word], starts[in_word]
    first_characters = np.flatnonzero(starts)
    word_offsets = _offsets(text_of[first_characters], len(texts))
    words = _word_hashes(codes, first_characters)

    blank_before = starts.copy()
    first_of_text = first_characters[word_offsets[:-1][np.diff(word_offsets) > 0]]
    blank_before[first_of_text] = False
    places = np.arange(len(codes)) + np.cumsum(blank_before)
    spaced = np.full(len(codes) + np.count_nonzero(blank_before), _BLANK, np.uint32)
    spaced[places] = codes
    lengths = np.bincount(text_of, minlength=len(texts)) + np.maximum(np.diff(word_offsets) - 1, 0)
    return NormalTexts(spaced, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), words, word_offsets)


def shingles(units: np.ndarray, offsets: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of every run of `width` units (words or characters) within a text, in order: (S,) uint64, (N + 1,) int64.

    A text with fewer units is one shingle, one without any has none. Text i's are at `offsets[i]:offsets[i + 1]` of its
    units, and of its shingles in what is returned.
    """
    lengths = np.diff(offsets)
    text_of = np.repeat(np.arange(len(lengths)), lengths)
    ends = offsets[1:][text_of]
    places = np.arange(len(units))
    runs = np.zeros(len(units), np.uint64)
    for step in range(width):
        at = places + step
        here = np.where(at < ends, units[np.minimum(at, len(units) - 1)], 0) if len(units) else units
        runs = mix(runs * np.uint64(_BASE) + here.astype(np.uint64))
    whole = (places + width <= ends) | (places == offsets[:-1][text_of])
    return runs[whole], _offsets(text_of[whole], len(lengths))


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): uint64 to uint64, one to one, every bit on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word_hashes(codes: np.ndarray, first_characters: np.ndarray) -> np.ndarray:
    """A hash of each word from its characters and their places: (W,) uint64."""
    if not len(codes):
        return np.zeros(0, np.uint64)
    lengths = np.diff(first_characters, append=len(codes))
    place = np.arange(len(codes)) - np.repeat(first_characters, lengths)
    powers = np.cumprod(np.full(lengths.max(), _BASE, np.uint64))
    characters = mix(codes.astype(np.uint64) + np.uint64(_BASE)) * powers[place]
    return mix(np.add.reduceat(characters, first_characters))


def _offsets(text_of: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` texts begins and the last ends, from the sorted text numbers of its parts."""
    return np.concatenate([[0], np.cumsum(np.bincount(text_of, minlength=count))]).astype(np.int64)


@functools.cache
def _kinds() -> np.ndarray:
    """What each code point is: (0x110000,) uint8."""
    kinds = np.full(sys.maxunicode + 1, _BREAK, np.uint8)
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category[0] in "LMNS":
            kinds[code] = _LETTER
        elif category == "Cf":  # soft hyphens, joiners and marks of direction stand inside words and are not seen
            kinds[code] = _NOTHING
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == _LETTER] = _WHOLE_WORD
    kinds[[ord(mark) for mark in _KEPT_PUNCTUATION]] = _LETTER
    return kinds
