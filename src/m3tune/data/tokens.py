"""Texts as token ids: tokenised once, kept flat, cut at a stated length with the cuts counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

_CHUNK_TEXTS = 2048


@dataclass(frozen=True)
class TokenTable:
    """N texts' token ids in one array: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (N + 1,) int64
    num_truncated: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Token ids of one text: (L,) int32."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special tokens included: (N,) int64."""
        return np.diff(self.offsets)


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenTable:
    """Token ids of `texts` with special tokens, cut to `max_tokens` in all."""
    rows: list[np.ndarray] = []
    truncated = 0
    for start in range(0, len(texts), _CHUNK_TEXTS):
        encoded = tokenizer(
            list(texts[start : start + _CHUNK_TEXTS]),
            truncation=True,
            max_length=max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        for encoding in encoded.encodings:
            rows.append(np.asarray(encoding.ids, dtype=np.int32))
            truncated += bool(encoding.overflowing)
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return TokenTable(np.concatenate(rows) if rows else np.zeros(0, np.int32), offsets, truncated)
