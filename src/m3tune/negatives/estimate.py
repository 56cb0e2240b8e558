"""How many negatives are false, and how many that filters removed are not: a stratified sample, judged, and counted.

A stratum is a band of ranks, a band of scores against the positive's, and whether a filter removed the candidate. Every
stratum is sampled by itself without replacement, so each weighs in the whole what its size says, however the sample
was shared out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import beta, gamma

from m3tune.errors import M3TuneError
from m3tune.negatives.agreement import Pair
from m3tune.negatives.suspicion import excess
from m3tune.types import Candidate, Judged

RANK_BANDS = ((10, "1 to 10"), (30, "11 to 30"), (100, "31 to 100"), (float("inf"), "over 100"))
"""(last rank, name)."""
SCORE_BANDS = ((0.0, "positive or above"), (-0.05, "within 5 %"), (-0.2, "5 to 20 % below"), (float("-inf"), "lower"))
"""(least excess over the positive's score, name)."""


class Stratum(NamedTuple):
    """Candidates that are sampled together."""

    rank: str
    score: str
    removed: bool


@dataclass(frozen=True)
class Sample:
    """What was drawn: the size of each stratum, and each pair's stratum, in the order in which pairs are judged."""

    sizes: Mapping[Stratum, int]
    pairs: Mapping[Pair, Stratum]


class Rate(NamedTuple):
    """A share of candidates with its 95 % interval; `value` is None as long as nothing is judged."""

    value: float | None
    low: float
    high: float


class Band(NamedTuple):
    """What a stratum holds, how much of it was drawn, what was said of that, and the share that is relevant."""

    stratum: Stratum
    size: int
    drawn: int
    relevant: int
    not_relevant: int
    unsure: int
    rate: Rate


@dataclass(frozen=True)
class Estimate:
    """Rates among all candidates of the data, as the verdicts on a sample of them tell.

    `before` and `after` are the shares of relevant passages among all candidates and among those that the filters kept;
    `wrongly_removed` is the share of those removed that are not relevant.
    """

    before: Rate
    after: Rate
    wrongly_removed: Rate
    bands: tuple[Band, ...]


def stratum_of(candidate: Candidate) -> Stratum:
    """The stratum that a candidate falls into."""
    rank = next(name for last, name in RANK_BANDS if candidate.rank <= last)
    score = next(name for least, name in SCORE_BANDS if excess(candidate) >= least)
    return Stratum(rank, score, bool(candidate.removed))


def draw_sample(candidates: Iterable[Candidate], count: int, seed: int) -> Sample:
    """`count` candidates at random, or all where there are no more; the same for the same candidates and seed.

    Each stratum has at least one, and beyond that strata share by the square root of their size: in proportion, the top
    ranks, where false negatives are, would hardly be looked at; evenly, the whole would be known badly (power
    allocation with exponent 1/2; Bankier 1988). The pairs come in rounds over the strata, so that whoever stops early
    knows a little of each. Raises M3TuneError where `count` is less than there are strata.
    """
    members: dict[Stratum, list[Pair]] = defaultdict(list)
    for candidate in candidates:
        members[stratum_of(candidate)].append((candidate.query_id, candidate.passage_id))
    if not members:
        raise M3TuneError("there are no candidates to draw from", fix="mine some first")
    if count < len(members):
        raise M3TuneError(
            f"{count} pairs cannot cover {len(members)} bands of rank and score", fix=f"draw at least {len(members)}"
        )
    sizes = {stratum: len(members[stratum]) for stratum in sorted(members, key=_place)}
    drawn = {}
    for stratum, share in allocate(sizes, count).items():
        drawn[stratum] = random.Random(f"{seed} {stratum}").sample(sorted(members[stratum]), share)
    rounds = max(map(len, drawn.values()))
    pairs = [(of[i], stratum) for i in range(rounds) for stratum, of in drawn.items() if i < len(of)]
    return Sample(sizes, dict(pairs))


def allocate(sizes: Mapping[Stratum, int], count: int) -> dict[Stratum, int]:
    """How many of each stratum to draw: `count` in all, or all there are; see `draw_sample`.

    Each next one goes to the stratum that has least for the square root of its size, and is not exhausted.
    """
    shares = dict.fromkeys(sizes, 1)
    for _ in range(min(count, sum(sizes.values())) - len(sizes)):
        open_strata = [stratum for stratum, size in sizes.items() if shares[stratum] < size]
        shares[min(open_strata, key=lambda stratum: shares[stratum] / sizes[stratum] ** 0.5)] += 1
    return shares


def estimate(sample: Sample, words: Mapping[Pair, Judged]) -> Estimate:
    """What the verdicts (pair -> word) on a sample say of all candidates. Pairs outside the sample count nothing.

    Unsure is no answer: such pairs are counted and left out of the rates, as those not yet judged are.
    """
    said: dict[Stratum, list[Judged]] = {stratum: [] for stratum in sample.sizes}
    drawn = dict.fromkeys(sample.sizes, 0)
    for pair, stratum in sample.pairs.items():
        drawn[stratum] += 1
        if pair in words:
            said[stratum].append(words[pair])
    bands = tuple(_band(stratum, size, drawn[stratum], said[stratum]) for stratum, size in sample.sizes.items())
    kept, removed = ([band for band in bands if band.stratum.removed == which] for which in (False, True))
    return Estimate(
        before=stratified_rate([(b.size, b.relevant, b.relevant + b.not_relevant) for b in bands]),
        after=stratified_rate([(b.size, b.relevant, b.relevant + b.not_relevant) for b in kept]),
        wrongly_removed=stratified_rate([(b.size, b.not_relevant, b.relevant + b.not_relevant) for b in removed]),
        bands=bands,
    )


def exact_rate(hits: int, count: int) -> Rate:
    """A binomial share with its exact 95 % interval; 0 to 1 where `count` is zero.

    Source: Clopper and Pearson 1934, by quantiles of the beta distribution.
    """
    if not count:
        return Rate(None, 0.0, 1.0)
    low = float(beta.ppf(0.025, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0
    return Rate(hits / count, low, high)


def stratified_rate(strata: Sequence[tuple[int, int, int]]) -> Rate:
    """The share in a whole of strata (size, hits, judged), with a 95 % interval that holds for rare hits too.

    A stratum that was judged whole is known and adds its hits. For the others the interval is that of a weighted sum of
    Poisson counts, which is wider than that of binomial ones, and therefore safe, the more so the higher the rate. Its
    upper end allows for one more hit where it would weigh most: an interval from the observed variance alone has no
    width where nothing was found. A stratum without a judged pair may have any rate, and widens it by its share.

    Source: Fay and Feuer 1997, "Confidence intervals for directly standardized rates".
    """
    whole = sum(size for size, _, _ in strata)
    if not any(judged for _, _, judged in strata):
        return Rate(None, 0.0, 1.0)
    known = sum(hits for size, hits, judged in strata if judged == size)
    unseen = sum(size for size, _, judged in strata if not judged)
    sampled = [stratum for stratum in strata if 0 < stratum[2] < stratum[0]]
    at_risk = sum(size for size, _, _ in sampled)
    found = sum(size * hits / judged for size, hits, judged in sampled)
    if found <= at_risk / 2:
        low, high = _poisson_interval(sampled)
    else:  # misses are the rarer ones, and an interval of theirs the narrower
        misses = [(size, judged - hits, judged) for size, hits, judged in sampled]
        low, high = (at_risk - end for end in reversed(_poisson_interval(misses)))
    return Rate((known + found) / (whole - unseen), (known + low) / whole, (known + high + unseen) / whole)


def _poisson_interval(strata: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """Of how many hits there are in all strata (size, hits, judged) together; from 0 to all of them at the widest."""
    if not strata:
        return 0.0, 0.0
    mean = sum(size * hits / judged for size, hits, judged in strata)
    variance = sum(size**2 * hits / judged**2 for size, hits, judged in strata)
    largest = max(size / judged for size, _, judged in strata)
    low = _gamma_quantile(0.025, mean, variance) if mean else 0.0
    high = _gamma_quantile(0.975, mean + largest, variance + largest**2)
    return low, min(high, sum(size for size, _, _ in strata))


def _gamma_quantile(at: float, mean: float, variance: float) -> float:
    return float(gamma.ppf(at, mean**2 / variance, scale=variance / mean))


def _place(stratum: Stratum) -> tuple[int, int, bool]:
    """Where a stratum stands in a table: by rank, by score, kept before removed."""
    ranks, scores = ([name for _, name in bands] for bands in (RANK_BANDS, SCORE_BANDS))
    return ranks.index(stratum.rank), scores.index(stratum.score), stratum.removed


def _band(stratum: Stratum, size: int, drawn: int, said: Sequence[Judged]) -> Band:
    relevant, other, unsure = (said.count(word) for word in ("relevant", "not relevant", "unsure"))
    rate = exact_rate(relevant, relevant + other)
    if relevant + other == size:  # all of it was judged: nothing is left to chance
        rate = Rate(relevant / size, relevant / size, relevant / size)
    return Band(stratum, size, drawn, relevant, other, unsure, rate)
