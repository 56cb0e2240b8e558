"""One side of a split carved out of the training queries, by whole groups and like what remains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from m3tune.data.balance import Features, imbalance

_TOLERANCE = 0.5  # groups stay whole, so a carved side may miss its target by this share of it
_CANDIDATES = 16


def carve(
    features: Features,
    group_of: Mapping[str, int],
    target: int,
    ceiling: int,
    spared_groups: int,
    last: AbstractSet[int],
    generator: np.random.Generator,
) -> set[str] | None:
    """About `target` of the queries in `features`, never more than `ceiling`; None where no whole groups make them up.

    Several random choices are made, and the one whose lengths, number of positives, script and set are most like those
    of the remaining queries is taken (rerandomisation; Morgan and Rubin 2012). The groups in `last` are taken last, and
    `spared_groups` are left in any case.
    """
    sizes = Counter(group_of[query_id] for query_id in features.query_ids)
    groups = np.array([group_of[query_id] for query_id in features.query_ids])
    best: tuple[float, set[str]] | None = None
    for _ in range(_CANDIDATES):
        chosen = _choose(sizes, target, ceiling, spared_groups, last, generator)
        if sum(sizes[group] for group in chosen) < target * (1 - _TOLERANCE):
            continue
        inside = np.isin(groups, list(chosen))
        distance = imbalance(features, inside)
        if best is None or distance < best[0]:
            best = distance, {query_id for query_id, taken in zip(features.query_ids, inside, strict=True) if taken}
    return best[1] if best else None


def _choose(
    sizes: Mapping[int, int],
    target: int,
    ceiling: int,
    spared_groups: int,
    last: AbstractSet[int],
    generator: np.random.Generator,
) -> set[int]:
    """Whole groups in random order until there are about `target` queries; too large ones are passed over."""
    at_most = min(int(target * (1 + _TOLERANCE)), ceiling)
    shuffled = generator.permutation(sorted(sizes)).tolist()
    chosen: set[int] = set()
    taken = 0
    for group in sorted(shuffled, key=last.__contains__):
        if taken >= target or len(chosen) == len(sizes) - spared_groups:
            break
        if taken + sizes[group] <= at_most:
            chosen.add(group)
            taken += sizes[group]
    return chosen
