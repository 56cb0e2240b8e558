"""Texts as token ids: kept flat, cut at a stated length with the cuts counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

_CHUNK_TEXTS = 2048
Item = TypeVar("Item")


@dataclass(frozen=True)
class TokenTable:
    """N texts' token ids: text i is `ids[starts[i] : starts[i] + lengths[i]]`. Equal texts may lie at one place."""

    ids: np.ndarray  # (M,) int32, in memory or memory-mapped; other texts' may lie there too
    starts: np.ndarray  # (N,) int64
    lengths: np.ndarray  # (N,) int64, special tokens included
    cut: np.ndarray  # (N,) bool, whether the text was longer

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        """Token ids of one text: (L,) int32."""
        return self.ids[self.starts[index] : self.starts[index] + self.lengths[index]]

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return int(self.lengths.sum())

    @property
    def num_truncated(self) -> int:
        """Texts that were longer than the limit."""
        return int(self.cut.sum())

    def flat(self, first: int, last: int) -> np.ndarray:
        """The ids of the texts from `first` to before `last`, one text after another; a view where they lie so."""
        starts, lengths = self.starts[first:last], self.lengths[first:last]
        if not len(starts):
            return self.ids[:0]
        if (starts[1:] == starts[:-1] + lengths[:-1]).all():
            return self.ids[starts[0] : starts[-1] + lengths[-1]]
        shifts = starts - (np.cumsum(lengths) - lengths)
        return self.ids[np.arange(lengths.sum()) + np.repeat(shifts, lengths)]


class Texts(Generic[Item]):
    """Texts made one at a time, each time that they are gone through: those of a large corpus are never all there."""

    def __init__(self, text_of: Callable[[Item], str], items: Sequence[Item]) -> None:
        self._text_of = text_of
        self._items = items

    def __iter__(self) -> Iterator[str]:
        return map(self._text_of, self._items)


Keep = Callable[[Iterable[str], PreTrainedTokenizerBase, int], TokenTable]
keeper: ContextVar[Keep | None] = ContextVar("keeper", default=None)
"""What tokenises in place of `tokenize` and keeps the result (see `data.token_store`)."""


def tokenize(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenTable:
    """Token ids of `texts` with special tokens, cut to `max_tokens` in all.

    In memory, or inside `token_store.tokens_kept` on disk, where `texts` is gone through twice.
    """
    keep = keeper.get()
    if keep is not None:
        return keep(texts, tokenizer, max_tokens)
    tables = list(in_chunks(texts, tokenizer, max_tokens))
    lengths = np.concatenate([np.zeros(0, np.int64), *(table.lengths for table in tables)])
    return TokenTable(
        np.concatenate([np.zeros(0, np.int32), *(table.ids for table in tables)]),
        np.cumsum(lengths) - lengths,
        lengths,
        np.concatenate([np.zeros(0, bool), *(table.cut for table in tables)]),
    )


def in_chunks(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Iterator[TokenTable]:
    """A table of its own for every 2,048 texts, in order. The tokenizer works on all cores."""
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, _CHUNK_TEXTS)):
        encodings = tokenizer(
            chunk, truncation=True, max_length=max_tokens, return_attention_mask=False, return_token_type_ids=False
        ).encodings
        rows = [encoding.ids for encoding in encodings]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
        cut = np.array([bool(encoding.overflowing) for encoding in encodings])
        yield TokenTable(ids, np.cumsum(lengths) - lengths, lengths, cut)
