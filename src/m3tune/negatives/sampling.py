"""Which of the candidates that are left become negatives.

Q queries, M candidates of all queries

Each way of sampling gives every candidate a key, and the largest keys of a query win. Randomness comes from a
generator of the query's own, so it depends neither on the other queries nor on the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from m3tune.config import MineConfig


def query_generator(seed: int, query_id: str, purpose: str) -> np.random.Generator:
    """The generator of one query for one purpose."""
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{query_id}".encode("utf-8", "surrogatepass"), digest_size=16)
    return np.random.default_rng(int.from_bytes(digest.digest(), "big"))


def uniform_numbers(seed: int, query_ids: Sequence[str], query: np.ndarray, purpose: str) -> np.ndarray:
    """(M,) numbers in [0, 1), by the generator of each candidate's query; `query` (M,) ascends."""
    counts = np.bincount(query, minlength=len(query_ids)).tolist()
    pieces = (query_generator(seed, q, purpose).random(n) for q, n in zip(query_ids, counts, strict=True) if n)
    return np.concatenate([np.zeros(0), *pieces])


def best_keys(query: np.ndarray, key: np.ndarray, eligible: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(M,) bool: of each query the `wanted` (Q,) eligible candidates with the largest keys; equal ones in their order.

    >>> query, key = np.array([0, 0, 0, 1]), np.array([1.0, 3.0, 2.0, 5.0])
    >>> best_keys(query, key, np.array([True, False, True, True]), np.array([1, 2])).tolist()
    [False, False, True, True]
    """
    rows = np.flatnonzero(eligible)
    order = rows[np.lexsort((-key[rows], query[rows]))]
    counts = np.bincount(query[order], minlength=len(wanted))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(query), dtype=bool)
    chosen[order[place < wanted[query[order]]]] = True
    return chosen


def keys(
    config: MineConfig, score: np.ndarray, positive: np.ndarray, numbers: np.ndarray, eligible: np.ndarray
) -> np.ndarray:
    """(M,) keys of `config.sample` from scores, the positive's, and numbers in [0, 1).

    around: drawn without replacement with p proportional to exp(-a (score - positive - b)^2), SimANS (Zhou et al.,
    2022), by adding Gumbel noise to the exponent (Efraimidis and Spirakis, 2006).
    """
    if config.sample == "top":
        return score
    if config.sample == "uniform":
        return numbers
    above = score - positive
    decay = config.around_decay
    if decay is None:
        variance = float(np.var(above[eligible])) if eligible.any() else 0.0
        decay = 1 / (2 * variance) if variance else 1.0
    return -decay * (above - config.around_offset) ** 2 - np.log(-np.log(np.clip(numbers, 1e-300, 1 - 1e-16)))
