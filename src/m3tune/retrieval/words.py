"""Lexical weights as words that a person can read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from m3tune.retrieval.bm25 import CJK
from m3tune.vectors import Sparse

JOINED = "…"
"""In front of a piece that is written together with the piece before it."""

Spell = Callable[[int], str]

_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's sign for a space
_BYTE_SPACE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"  # byte-level BPE's
_NO_SPACES = re.compile(f"[{CJK}]")


class Word(NamedTuple):
    """A token of the vocabulary and its weight in a text."""

    word: str
    weight: float


class Shared(NamedTuple):
    """A token that a query and a passage share; the products of all of them are the sparse score."""

    word: str
    query_weight: float
    passage_weight: float

    @property
    def product(self) -> float:
        """What it adds to the score."""
        return self.query_weight * self.passage_weight


def speller(tokenizer: PreTrainedTokenizerBase) -> Spell:
    """Token id -> the piece of text it stands for; pieces inside a word begin with `JOINED`.

    Knows WordPiece (`##ing`), SentencePiece and byte-level BPE by the signs in their vocabularies. In scripts without
    spaces nothing is marked, because every piece is written together with the one before.
    """
    vocabulary = tokenizer.get_vocab()
    sign = next((s for s in (_WORD_START, _BYTE_SPACE) if any(token.startswith(s) for token in vocabulary)), None)

    def spell(token_id: int) -> str:
        token = str(tokenizer.convert_ids_to_tokens(token_id))
        if sign is None:
            inside, text = token.startswith("##"), token.removeprefix("##")
        else:
            inside = not token.startswith(sign)
            text = tokenizer.convert_tokens_to_string([token]).strip() if sign == _BYTE_SPACE else token.lstrip(sign)
        text = text or "(space)"
        return f"{JOINED}{text}" if inside and not _NO_SPACES.match(text) else text

    return spell


def lexical_words(sparse: Sparse, text: int, spell: Spell) -> list[Word]:
    """The words of one text that weigh something, the heaviest first."""
    words = [Word(spell(token_id), weight) for token_id, weight in _weights(sparse, text).items() if weight > 0]
    return sorted(words, key=lambda word: -word.weight)


def shared_words(queries: Sparse, query: int, passages: Sparse, passage: int, spell: Spell) -> list[Shared]:
    """What a query and a passage share, the largest part of the score first."""
    of_query, of_passage = _weights(queries, query), _weights(passages, passage)
    shared = [Shared(spell(i), weight, of_passage[i]) for i, weight in of_query.items() if i in of_passage]
    return sorted((word for word in shared if word.product > 0), key=lambda word: -word.product)


def _weights(sparse: Sparse, text: int) -> dict[int, float]:
    first, last = sparse.offsets[text : text + 2].tolist()
    return dict(zip(sparse.token_ids[first:last].tolist(), sparse.weights[first:last].tolist(), strict=True))
