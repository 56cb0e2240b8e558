"""Several systems with several seeds on the same queries: every difference, corrected for how many there are.

A system's value of a query is its mean over the seeds, so that a lucky seed is no second witness. Each difference is
tested over groups of queries as two models are (see `significance`). Of m differences at confidence 1 - a:

* p is corrected by Holm's procedure: the chance that any difference is called real where there is none is at most a
  (Holm 1979, "A simple sequentially rejective multiple test procedure").
* Intervals hold all at once: each is made at 1 - a / m, Bonferroni's inequality (Dunn 1961, "Multiple comparisons among
  means"). An interval leaves out zero exactly where p <= a / m, so Holm's p may be below a where the interval holds
  zero, never the other way round.

Both hold whatever the differences have to do with one another. Seeds are taken as they are: an interval speaks of these
models and other queries, and the spread over seeds stands beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from m3tune.evaluation.compare import paired_differences
from m3tune.evaluation.significance import paired_bootstrap, paired_randomisation

PerSeed = Sequence[Mapping[str, float]]
"""For every seed, query id -> a metric."""


class Difference(NamedTuple):
    """The mean of `first` minus that of `second`: its interval among all, p alone and corrected, and by seed."""

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float
    by_seed: tuple[float, ...]


def contest(
    systems: Mapping[str, PerSeed],
    base: str,
    clusters: Mapping[str, int],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> list[Difference]:
    """Every other system against `base`, then every pair of the others, in their order.

    `clusters` numbers the group of every query. A system with fewer seeds than another, as a base that was measured
    once, has its last one for the rest. Raises KeyError where the queries differ.
    """
    others = [name for name in systems if name != base]
    pairs = [*((name, base) for name in others), *itertools.combinations(others, 2)]
    means = {name: over_seeds(of) for name, of in systems.items()}
    tests = [paired_differences(means[second], means[first], clusters) for first, second in pairs]
    p_values = [paired_randomisation(*test, resamples, seed) for test in tests]
    each = 1 - (1 - level) / len(pairs)
    return [
        Difference(
            first,
            second,
            float(test[0].mean()),
            paired_bootstrap(*test, resamples, seed, each),
            p_value,
            corrected,
            _by_seed(systems[first], systems[second]),
        )
        for (first, second), test, p_value, corrected in zip(pairs, tests, p_values, holm(p_values), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p of each of m tests: the largest of (m - i) p over those as small, i from 0; at most 1."""
    corrected, least = [1.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        least = max(least, (len(p_values) - place) * p_values[number])
        corrected[number] = min(1.0, least)
    return corrected


def over_seeds(per_seed: PerSeed) -> dict[str, float]:
    """Query id -> its mean over the seeds. Raises KeyError where a seed lacks a query."""
    return {query_id: float(np.mean([values[query_id] for values in per_seed])) for query_id in per_seed[0]}


def _by_seed(first: PerSeed, second: PerSeed) -> tuple[float, ...]:
    """The difference of the means of each seed."""
    ours, theirs = ([float(np.mean(list(values.values()))) for values in of] for of in (first, second))
    seeds = max(len(ours), len(theirs))
    return tuple(ours[min(at, len(ours) - 1)] - theirs[min(at, len(theirs) - 1)] for at in range(seeds))
