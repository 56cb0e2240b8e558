"""How many tokens' activations a step may hold, and what becomes of that when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from m3tune.memory import clear_cache, is_out_of_memory


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


def longest_that_fits(attempt: Callable[[int], object], most: int) -> int:
    """The most tokens, to about a sixteenth, for which `attempt` does not run out of memory; 0 where none does."""
    if _fits(attempt, most):
        return most
    low, high = 0, most
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        if _fits(attempt, middle):
            low = middle
        else:
            high = middle
    return low


def _fits(attempt: Callable[[int], object], tokens: int) -> bool:
    try:
        attempt(tokens)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        clear_cache()
    return True
