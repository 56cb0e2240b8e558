import itertools
import weakref

import numpy as np
import pytest
import torch

from m3tune.errors import DoesNotFitError
from m3tune.fitting import fits, in_stretches, longest_that_fits


@pytest.mark.parametrize(("limit", "most"), [(100, 100), (1000, 512), (7, 512), (1, 512), (0, 512), (511, 512)])
def test_the_longest_that_fits_is_found_to_a_sixteenth(limit, most):
    def attempt(tokens):
        if tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    found = longest_that_fits(attempt, most)
    assert found <= min(limit, most)
    assert found >= min(limit, most) * 15 // 16


def test_an_error_that_is_not_about_memory_is_not_taken_for_one():
    def attempt(tokens):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        longest_that_fits(attempt, 8)


def test_what_a_failed_attempt_held_is_free_when_fits_returns():
    class Held:
        pass

    alive = weakref.WeakSet()

    def attempt():
        held = Held()
        alive.add(held)
        raise MemoryError

    assert not fits(attempt)
    assert not alive
    assert fits(lambda: None)


@pytest.mark.parametrize("limit", [1000, 50, 21, 20])
def test_stretches_cover_every_item_once_within_the_limit_and_the_smaller_size_holds(limit):
    sizes, done, tried = np.random.default_rng(0).integers(1, 21, size=101), [], []

    def work(first, last):
        total = int(sizes[first:last].sum())
        tried.append(total)
        if total > limit:
            raise MemoryError
        done.append((first, last))

    held = in_stretches(sizes, 200, work, "items", lambda item: DoesNotFitError(f"item {item}"))
    assert [i for first, last in done for i in range(first, last)] == list(range(101))
    assert max(sizes[first:last].sum() for first, last in done) <= min(limit, 200)
    failed = [total for total in tried if total > limit]
    assert held == (200 if limit == 1000 else failed[-1] // 2)
    assert all(later <= earlier // 2 for earlier, later in itertools.pairwise(failed))


def test_one_item_that_does_not_fit_is_named():
    def work(first, last):
        if first <= 3 < last:
            raise MemoryError

    with pytest.raises(DoesNotFitError, match="item 3"):
        in_stretches(np.ones(9, int), 4, work, "items", lambda item: DoesNotFitError(f"item {item}"))
