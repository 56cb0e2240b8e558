"""Texts side by side in one row of tokens, without padding.

    N texts, T tokens in all of them together, L tokens of one text

Texts lie sorted by length, so that texts of one length form a *run* that attention can treat as one small dense batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LengthRun:
    """`count` texts of `length` tokens each, the first token at `start` of the packed row."""

    start: int
    count: int
    length: int


@dataclass(frozen=True)
class Packed:
    """A packed row. The i-th text given to `pack` lies at slot `slots[i]`; slots are sorted by length."""

    input_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64, from 0 in each text
    starts: Tensor  # (N,) int64, first token of each slot
    lengths: Tensor  # (N,) int64, tokens of each slot
    slots: Tensor  # (N,) int64, text -> slot
    runs: tuple[LengthRun, ...]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def num_tokens(self) -> int:
        """T, all of them real."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> Packed:
        """The same row on another device; runs stay Python numbers."""
        names = ("input_ids", "positions", "starts", "lengths", "slots")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def text_of_token(self) -> Tensor:
        """(T,) int64: the slot each token belongs to."""
        return torch.repeat_interleave(self.lengths, output_size=self.num_tokens)


def pack(texts: Sequence[np.ndarray]) -> Packed:
    """Pack token id arrays, each (L,), none empty, into one row."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    if not len(lengths) or lengths.min() == 0:
        raise ValueError("pack needs at least one text, and no text without tokens")
    order = np.argsort(lengths, kind="stable")
    slots = np.empty_like(order)
    slots[order] = np.arange(len(order))
    lengths = lengths[order]
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    input_ids = np.concatenate([texts[i] for i in order]).astype(np.int64)
    return Packed(
        input_ids=torch.from_numpy(input_ids),
        positions=torch.from_numpy(positions),
        starts=torch.from_numpy(starts),
        lengths=torch.from_numpy(lengths),
        slots=torch.from_numpy(slots),
        runs=tuple(_runs(lengths.tolist())),
    )


def _runs(lengths: Sequence[int]) -> Iterator[LengthRun]:
    start = 0
    for length, group in groupby(lengths):
        count = sum(1 for _ in group)
        yield LengthRun(start, count, length)
        start += count * length


def token_budget_batches(lengths: np.ndarray, budget_tokens: int) -> Iterator[np.ndarray]:
    """Indices of texts, longest first, in groups of at most `budget_tokens` tokens (one text at least).

    Longest first, so that what does not fit in memory shows at once and not after an hour.
    """
    order = np.argsort(-lengths, kind="stable")
    begin, used = 0, 0
    for end, index in enumerate(order):
        if used and used + lengths[index] > budget_tokens:
            yield order[begin:end]
            begin, used = end, 0
        used += int(lengths[index])
    if begin < len(order):
        yield order[begin:]
