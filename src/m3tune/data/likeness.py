"""How alike two texts are, exactly: what decides whether a pair are near-duplicates. Passages and queries differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from m3tune.data.normal import NormalTexts, shingles

_LEAST_JACCARD = 0.5
_SHORT = 96  # code points of the normal form: about 16 English words, or 48 characters of a script without blanks
_NEVER_LIKE_SHORT = 4 * _SHORT
_INFLECTED_LETTERS = 5  # a word with fewer letters has too many neighbours that are other words


@dataclass(frozen=True)
class Likeness:
    """A kind of near-duplicate: what MinHash sees of a text, and the measure and threshold that decide about a pair."""

    sketch: Callable[[NormalTexts], tuple[np.ndarray, np.ndarray]]  # hashes of shingles (S,) and offsets (N + 1,)
    parts: Callable[[NormalTexts], list[Any]]  # what `similarity` compares, for each text
    similarity: Callable[[Any, Any], float]  # from 0 to 1, the same both ways; 0 where a text has no word
    threshold: float  # the least similarity of near-duplicates


def _word_shingles(texts: NormalTexts) -> tuple[np.ndarray, np.ndarray]:
    return shingles(texts.words, texts.word_offsets, 3)


def _character_shingles(texts: NormalTexts) -> tuple[np.ndarray, np.ndarray]:
    return shingles(texts.codes, texts.offsets, 4)


class _Passage(NamedTuple):
    shingles: frozenset[int]
    is_short: bool
    words: list[str]  # empty where the passage is far too long to be alike with a short one


def _passages(texts: NormalTexts) -> list[_Passage]:
    hashes, offsets = _word_shingles(texts)
    sets = (frozenset(hashes[a:b].tolist()) for a, b in itertools.pairwise(offsets.tolist()))
    return [
        _Passage(shingles, len(text) < _SHORT, text.split(" ") if len(text) < _NEVER_LIKE_SHORT else [])
        for shingles, text in zip(sets, texts.strings(), strict=True)
    ]


def _word_lists(texts: NormalTexts) -> list[list[str]]:
    return [text.split(" ") if text else [] for text in texts.strings()]


def _same_passage(first: _Passage, second: _Passage) -> float:
    """The containment of the shingles; 0 where one is short and not a part of the other as questions have to be.

    A word replaced at the end of a sentence of ten is one shingle of eight, and the sentence may say something else.
    """
    similarity = containment(first.shingles, second.shingles)
    if similarity and (first.is_short or second.is_short) and not same_question(first.words, second.words):
        return 0.0
    return similarity


def containment(first: frozenset[int], second: frozenset[int]) -> float:
    """The share of the smaller set that the other has too (overlap coefficient); 0 where Jaccard is under a half.

    Containment does not fall when a header is added to a short passage, as Jaccard does. Jaccard's floor keeps a
    sentence and the chapter it stands in apart.
    """
    shared = len(first & second)
    if shared < _LEAST_JACCARD * (len(first) + len(second) - shared) or not shared:
        return 0.0
    return shared / min(len(first), len(second))


def same_question(first: list[str], second: list[str]) -> float:
    """The share of the longer text's words that the other has too, where it is the same question; else 0.

    It is where one is the other with words added before or after it ("please", "do you know"), but no number, and with
    one word spelt or inflected otherwise at most. A word replaced or put in between makes another question of it: it is
    mostly a name, a number, or "not".
    """
    short, long = sorted((first, second), key=lambda words: (len(words), words))
    for start in range(len(long) - len(short) + 1 if short else 0):
        differing = [(a, b) for a, b in zip(short, long[start:], strict=False) if a != b]
        added = long[:start] + long[start + len(short) :]
        if (
            len(differing) <= 1
            and all(itertools.starmap(_spelt_otherwise, differing))
            and not any(map(_has_digit, added))
        ):
            return (len(short) - len(differing)) / len(long)
    return 0.0


def _spelt_otherwise(first: str, second: str) -> bool:
    """Whether two words differ by one letter inserted, left out or changed, other than the first; numbers never."""
    if min(len(first), len(second)) < _INFLECTED_LETTERS or first[0] != second[0]:
        return False
    if _has_digit(first) or _has_digit(second) or abs(len(first) - len(second)) > 1:
        return False
    short, long = sorted((first, second), key=len)
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return short[at + (len(short) == len(long)) :] == long[at + 1 :]


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


# Thresholds: docs/decisions/0008-near-duplicates.md.
PASSAGES = Likeness(_word_shingles, _passages, _same_passage, threshold=0.75)
QUERIES = Likeness(_character_shingles, _word_lists, same_question, threshold=0.7)
