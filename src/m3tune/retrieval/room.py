"""Memory that the scores of one block after another go to."""

from __future__ import annotations

import torch
from torch import Tensor


class Room:
    """The same memory for every block, for each kind of number: new pages for each take a CPU a sixth longer."""

    def __init__(self, device: torch.device) -> None:
        """None is taken before the first block."""
        self._device = device
        self._numbers: dict[torch.dtype, Tensor] = {}

    def of(self, queries: int, passages: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(queries, passages) of the same memory as the last time, whatever is in it."""
        size = queries * passages
        if dtype not in self._numbers or len(self._numbers[dtype]) < size:
            self._numbers[dtype] = torch.empty(size, dtype=dtype, device=self._device)
        return self._numbers[dtype][:size].view(queries, passages)
