"""How many tokens' activations a step may hold, and what becomes of that when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Budget(NamedTuple):
    """`tokens` whose activations are held at once; with `recompute_layers` only each layer's input of them is."""

    tokens: int
    recompute_layers: bool = False

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + (", layers recomputed" if self.recompute_layers else "")


def smaller(budget: Budget, texts: Sequence[np.ndarray]) -> Budget | None:
    """The next budget to try for a batch that did not fit: half, down to its longest text, then layer by layer.

    None where nothing smaller is left. The objective is the same under each of them.
    """
    lengths = [len(text) for text in texts]
    held, longest = min(budget.tokens, sum(lengths)), max(lengths)
    if held > longest:
        return budget._replace(tokens=max(longest, held // 2))
    return None if budget.recompute_layers else Budget(longest, recompute_layers=True)
