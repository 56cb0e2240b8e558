"""Work done in pieces that fit: what to try again, and smaller, where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from m3tune.errors import M3TuneError
from m3tune.memory import clear_cache, is_out_of_memory
from m3tune.progress import remark


def fits(attempt: Callable[[], object]) -> bool:
    """Call `attempt`: whether it ended. False where memory ran out; what it held is given back then."""
    try:
        attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Here and not in the handler, where the error still holds on to what was made.
    clear_cache()
    return False


def longest_that_fits(attempt: Callable[[int], object], most: int) -> int:
    """The most tokens, to about a sixteenth, for which `attempt` does not run out of memory; 0 where none does."""
    if fits(partial(attempt, most)):
        return most
    low, high = 0, most
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        if fits(partial(attempt, middle)):
            low = middle
        else:
            high = middle
    return low


def in_stretches(
    sizes: np.ndarray,
    most: int,
    work: Callable[[int, int], object],
    what: str,
    one_too_large: Callable[[int], M3TuneError],
) -> int:
    """Call `work(first, last)` for stretches of items one after another, each of one item at least.

    sizes: (N,) above zero; those of a stretch add up to `most` at most. Where memory runs out, half of what the stretch
    was holds from there on and is returned, and a line says so, with `what` for the unit. Of a stretch that runs out
    half-way `work` must leave nothing that counts. Raises `one_too_large` of an item that does not fit by itself.

    >>> in_stretches(np.array([3, 1, 2, 2, 9]), 5, print, "pages", lambda item: M3TuneError(f"item {item}"))
    0 2
    2 4
    4 5
    5
    """
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        if fits(partial(work, first, last)):
            first = last
        elif last == first + 1:
            raise one_too_large(first)
        else:
            tried = int(ends[last - 1]) - before
            most = tried // 2
            remark(
                f"out of memory with {tried:,} {what} at once; goes on with {most:,}, which changes its time and not "
                "its result"
            )
    return most
