"""A batch of any size in the memory of a small one: encoded in parts, one loss, one backward pass.

T tokens of the batch

The vectors of all parts are put together before the loss, so a batch has all of its negatives whatever the budget.
Parts beyond the budget keep no activations and are computed again in the backward pass (Chen et al., 2016), where
GradCache (Gao et al., 2021) takes gradients of the vectors first and needs a second pass of its own for it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from m3tune.memory import trim_heap
from m3tune.model.packing import Packed, pack
from m3tune.types import Head
from m3tune.vectors import Embeddings

_PART_TOKENS = {"cpu": 4096}


class Parts:
    """The texts of a batch in parts, and how many of them, at the end, keep their activations.

    The last, because the backward pass begins with them: they are gone before anything is computed again.
    """

    def __init__(self, texts: Sequence[np.ndarray], budget_tokens: int, device: torch.device) -> None:
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self.slices = cut(lengths, part_tokens(budget_tokens, device))
        self.texts = texts
        self.device = device
        tokens_to_end = np.cumsum([int(lengths[part].sum()) for part in reversed(self.slices)])
        self.kept = max(1, int((tokens_to_end <= budget_tokens).sum()))

    def packed(self) -> Iterator[tuple[Packed, bool]]:
        """Each part on the device, and whether it keeps its activations."""
        for number, part in enumerate(self.slices):
            yield pack(self.texts[part]).to(self.device), number >= len(self.slices) - self.kept


def part_tokens(budget_tokens: int, device: torch.device) -> int:
    """The most tokens of one part; on a CPU fewer than the budget where that is large."""
    return min(budget_tokens, _PART_TOKENS.get(device.type, budget_tokens))


def cut(lengths: np.ndarray, budget_tokens: int) -> list[slice]:
    """The fewest stretches of at most `budget_tokens` tokens, one text at least, and those of like sizes; (N,) lengths.

    Alike, because a small last one has another size in every batch, and the CPU's kernels are made and kept for each.

    >>> cut(np.array([4, 4, 4, 4, 4]), 16)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    fewest = len(_full(lengths, budget_tokens))
    if fewest < 2:
        return _full(lengths, budget_tokens)
    sizes = range(min(int(lengths.sum()) // fewest, budget_tokens), budget_tokens)
    smallest = bisect.bisect_left(sizes, True, key=lambda size: len(_full(lengths, size)) <= fewest)
    return _full(lengths, sizes.start + smallest)


def _full(lengths: np.ndarray, budget_tokens: int) -> list[slice]:
    """Stretches of at most `budget_tokens` tokens, one text at least, full from the end on."""
    parts: list[slice] = []
    end, used = len(lengths), 0
    for first in range(len(lengths) - 1, -1, -1):
        if used and used + lengths[first] > budget_tokens:
            parts.append(slice(first + 1, end))
            end, used = first + 1, 0
        used += int(lengths[first])
    return [*reversed([*parts, slice(0, end)])] if end else []


def encode_parts(model: torch.nn.Module, parts: Parts, heads: Sequence[Head], *, dropout: bool) -> Embeddings:
    """What `heads` say of the texts, in their order, as one pass over all of them would.

    With `dropout` the random numbers of each part are kept for when it is computed again.
    """
    found: list[Embeddings] = []
    tight = parts.device.type == "cpu" and parts.kept < len(parts.slices)

    def encode(packed: Packed) -> Embeddings:
        if tight:
            trim_heap()
        encoded: Embeddings = model(packed, heads=heads)
        return encoded

    for packed, kept in parts.packed():
        if kept:
            found.append(encode(packed))
        else:
            found.append(checkpoint(encode, packed, use_reentrant=False, preserve_rng_state=dropout))
    return joined(found)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The vectors of several groups of texts as those of one."""
    if len(parts) == 1:
        return parts[0]
    by_head = zip(*parts, strict=True)
    return Embeddings(*(None if of_head[0] is None else _cat(of_head) for of_head in by_head))


def _cat(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    *values, offsets = zip(*parts, strict=True)
    befores = np.cumsum([0, *(len(part[0]) for part in parts[:-1])]).tolist()
    shifted = [offsets[0], *(own[1:] + before for own, before in zip(offsets[1:], befores[1:], strict=True))]
    return type(parts[0])(*map(torch.cat, values), torch.cat(shifted))
