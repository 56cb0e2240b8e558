"""Where a model gained and where it lost: the queries in groups, each against the rest.

N queries, M groups. Whoever looks at many groups finds one that stands out by chance. So each group is tested against
the queries outside it, not against zero, and the p-values are corrected for all groups together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3tune.data.balance import Features
from m3tune.evaluation.compare import paired_differences
from m3tune.evaluation.significance import Floats, Integers, joint_randomisation, paired_bootstrap

LEVEL = 0.05
"""The chance that any group is said to differ where none does."""
FEWEST_QUERIES, FEWEST_WITNESSES = 20, 10
"""Under so many queries, or groups of queries that share passages, a slice is too small to tell anything."""

_MOST_PARTS = 4  # of a number
_MOST_LABELS = 8  # the rest are one group
_RESAMPLES = 2000  # enough for a p of 0.05 over all groups; thousands of queries take seconds


class Dimension(NamedTuple):
    """One way to put the queries into groups."""

    name: str
    group_of: NDArray[np.int64]  # (N,) the number of each query's group
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """One group of queries: means, tuned minus base with its own 95 % interval, and how much that is above the rest's.

    `p_value` and `p_corrected` are of `against_rest`. All three and the interval are None where the group, or what is
    outside it, is too small.
    """

    dimension: str
    group: str
    queries: int
    base: float
    tuned: float
    difference: float
    ci95: tuple[float, float] | None = None
    against_rest: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None

    @property
    def differs(self) -> bool:
        """Whether it gained or lost more than the rest, beyond what looking at all groups brings by chance."""
        return self.p_corrected is not None and self.p_corrected <= LEVEL


def by_number(name: str, values: Floats) -> Dimension:
    """Groups of about equal size, two to four as the number of queries allows; equal values stay together.

    Values are rounded to whole numbers. Groups are named by the least and largest value in them.
    """
    values = np.round(values)
    parts = min(_MOST_PARTS, max(2, len(values) // FEWEST_QUERIES))
    cuts = np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf")
    below = values[values < values.max()].max(initial=values.min())  # where many have the largest, they are a group
    cuts = np.unique(np.minimum(cuts, below))
    found, index = np.unique(np.searchsorted(cuts, values, side="left"), return_inverse=True)
    ends = [(values[index == group].min(), values[index == group].max()) for group in range(len(found))]
    names = (f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}" for low, high in ends)
    return Dimension(name, index.astype(np.int64), tuple(names))


def by_label(name: str, index: NDArray[np.int64], labels: Sequence[str]) -> Dimension:
    """A group for each of the most frequent labels, and one for all others."""
    order = np.argsort(-np.bincount(index, minlength=len(labels)), kind="stable")
    kept = order if len(order) <= _MOST_LABELS else order[: _MOST_LABELS - 1]
    names = [labels[label] for label in kept] + ["all others"] * (len(kept) < len(order))
    place = np.full(len(labels), len(kept))
    place[kept] = np.arange(len(kept))
    return Dimension(name, place[index], tuple(names))


def dimensions_of(features: Features, rarest: Floats, shared: Floats, cut: NDArray[np.bool_] | None) -> list[Dimension]:
    """Every way to divide queries that puts them into more than one group.

    `features` are lengths, positives, script and set; `rarest` (N,) passages with a query's rarest word, `shared` (N,)
    the share of its words that a relevant passage has, `cut` (N,) whether all its relevant passages are too long.
    """
    numbers, labels = features.numbers, dict(features.labels)
    if cut is not None:
        labels["relevant passage"] = (cut.astype(np.int64), ("read whole", "cut"))
    dimensions = [
        by_number("Characters of the query", numbers["query length"]),
        by_number("Characters of its relevant passages", numbers["passage length"]),
        by_number("Number of its relevant passages", numbers["positives"]),
        by_number("Passages that have its rarest word", rarest),
        by_number("Percent of its words that a relevant passage has", 100 * shared),
        *(by_label(name.capitalize(), *of) for name, of in labels.items()),
    ]
    return [dimension for dimension in dimensions if len(np.unique(dimension.group_of)) > 1]


def slices_of(
    dimensions: Sequence[Dimension],
    base: Mapping[str, float],
    tuned: Mapping[str, float],
    clusters: Mapping[str, int],
    seed: int,
) -> list[Slice]:
    """Every group of every dimension, in their order. Dimensions number the queries in the order of `base`.

    A group against the rest is the slope of a regression of the differences on membership, tested by the wild cluster
    bootstrap with the null imposed (Cameron, Gelbach & Miller 2008): what is flipped are residuals from the common
    mean. Corrected by `joint_randomisation` over all groups that are large enough.
    """
    differences, groups = paired_differences(base, tuned, clusters)
    before, after = (np.array([of[query_id] for query_id in base]) for of in (base, tuned))
    found: list[Slice] = []
    contrasts: list[Floats] = []
    tested: list[int] = []
    for name, group_of, names in dimensions:
        for number, group in enumerate(names):
            inside = group_of == number
            if not inside.any():
                continue
            means = [float(of[inside].mean()) for of in (before, after, differences)]
            ci95 = against = None
            if _is_enough(inside, groups) and _is_enough(~inside, groups):
                ci95 = paired_bootstrap(differences[inside], groups[inside], _RESAMPLES, seed)
                weights = inside / inside.mean() - ~inside / (~inside).mean()
                contrasts.append(weights * (differences - differences.mean()))
                against = float(contrasts[-1].mean())
                tested.append(len(found))
            found.append(Slice(name, group, int(inside.sum()), means[0], means[1], means[2], ci95, against))
    if tested:
        p_values, corrected = joint_randomisation(np.stack(contrasts, axis=1), groups, _RESAMPLES, seed)
        for at, p_value, p_corrected in zip(tested, p_values.tolist(), corrected.tolist(), strict=True):
            found[at] = replace(found[at], p_value=p_value, p_corrected=p_corrected)
    return found


def _is_enough(inside: NDArray[np.bool_], groups: Integers) -> bool:
    return bool(inside.sum() >= FEWEST_QUERIES and len(np.unique(groups[inside])) >= FEWEST_WITNESSES)
