"""The hybrid's weights, chosen on development data: a grid over shares, never a look at test data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from m3tune.evaluation.measure import Searched
from m3tune.evaluation.metrics import evaluate_run, mean
from m3tune.types import HYBRID, Head

_STEPS = {2: 20, 3: 10}  # heads -> steps from a share of none to a share of all


class Point(NamedTuple):
    """The development metric at some weights, and the shares that these give the heads."""

    shares: dict[Head, float]
    weights: dict[Head, float]
    value: float


class Tuning(NamedTuple):
    """What a grid found. `default` is the point of the weights that would have held without it."""

    metric: str
    default: Point
    best: Point
    grid: tuple[Point, ...]

    def as_json(self) -> dict[str, Any]:
        """For hybrid.json."""
        return {
            "metric": self.metric,
            "default": self.default._asdict(),
            "best": self.best._asdict(),
            "grid": [point._asdict() for point in self.grid],
        }


def tune_weights(searched: Searched, metric: str, default: Mapping[Head, float]) -> Tuning:
    """The weights of the best point of a grid over all shares of the heads, or `default` where no point is better.

    Heads' scores have different scales, so a share is what a head's weighted scores spread within a query (standard
    deviation, averaged over queries) over the sum of all heads' spreads: half and half means that either head moves the
    ranking as much as the other. Weights sum to one. Of equal points the nearest to `default` is taken.
    """
    candidates = searched.found.candidates
    assert candidates is not None, "a hybrid needs several heads"
    spreads = {head: max(spread, 1e-12) for head, spread in candidates.spreads.items()}
    qrels = searched.collection.qrels(searched.query_ids)

    def point(weights: Mapping[Head, float]) -> Point:
        total, spread = sum(weights.values()), sum(weights[head] * spreads[head] for head in spreads)
        value = mean(evaluate_run(searched.run(HYBRID, weights), qrels, (metric,)))[metric]
        return Point(
            {head: round(weights[head] * spreads[head] / spread, 4) for head in spreads},
            {head: float(f"{weights[head] / total:.4g}") for head in spreads},
            round(value, 6),
        )

    given = {head: default.get(head, 0.0) for head in spreads}
    start = point(given if any(given.values()) else dict.fromkeys(spreads, 1.0))
    grid = tuple(
        point({head: share / spreads[head] for head, share in shares.items()}) for shares in _shares(tuple(spreads))
    )

    def far(of: Point) -> float:
        return sum(abs(of.shares[head] - start.shares[head]) for head in spreads)

    best = max((start, *grid), key=lambda of: (of.value, -far(of)))
    return Tuning(metric, start, best, grid)


def _shares(heads: tuple[Head, ...]) -> Iterator[dict[Head, float]]:
    """Every way to divide a whole among the heads in equal steps."""
    steps = _STEPS[len(heads)]
    for parts in itertools.product(range(steps + 1), repeat=len(heads) - 1):
        if sum(parts) <= steps:
            yield dict(zip(heads, (part / steps for part in (*parts, steps - sum(parts))), strict=True))
