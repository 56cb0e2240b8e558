"""Samples and what verdicts on them say: formulas against plain references, intervals against simulation."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from m3tune.errors import M3TuneError
from m3tune.negatives.estimate import (
    RANK_BANDS,
    SCORE_BANDS,
    Rate,
    Sample,
    Stratum,
    allocate,
    draw_sample,
    estimate,
    exact_rate,
    stratified_rate,
    stratum_of,
)
from m3tune.types import Candidate


def candidate(number, rank=1, score=0.5, removed="", query="q"):
    return Candidate(query, f"p{number}", ("dense",), rank, score, 1.0, removed=removed)


@pytest.fixture
def candidates():
    """1,000 of 20 queries over all ranks; the best-ranked are above the positive, and removed for it."""
    made = []
    for query in range(20):
        for rank in range(1, 51):
            score = 1.1 - 0.02 * rank
            made.append(candidate(rank, rank * 3, score, "above" if score > 0.95 else "", f"q{query}"))
    return made


# --- strata


@pytest.mark.parametrize(
    ("rank", "score", "bands"),
    [
        (1, 1.2, ("1 to 10", "positive or above")),
        (10, 1.0, ("1 to 10", "positive or above")),
        (11, 0.999, ("11 to 30", "within 5 %")),
        (31, 0.949, ("31 to 100", "5 to 20 % below")),
        (5000, -3.0, ("over 100", "lower")),
    ],
)
def test_a_candidate_has_a_band_of_rank_and_of_score(rank, score, bands):
    assert stratum_of(candidate(0, rank, score)) == (*bands, False)
    assert stratum_of(candidate(0, rank, score, "copy")) == (*bands, True)


def test_bands_meet_and_leave_nothing_out():
    assert RANK_BANDS[-1][0] == math.inf
    assert SCORE_BANDS[-1][0] == -math.inf
    assert all(a[0] < b[0] for a, b in pairwise(RANK_BANDS))
    assert all(a[0] > b[0] for a, b in pairwise(SCORE_BANDS))


# --- drawing


def test_sample_is_the_same_whatever_the_order_and_another_for_another_seed(candidates):
    sample = draw_sample(candidates, 60, seed=3)
    assert sample == draw_sample(candidates[::-1], 60, seed=3)
    assert list(sample.pairs) == list(draw_sample(candidates[::-1], 60, seed=3).pairs)
    assert set(sample.pairs) != set(draw_sample(candidates, 60, seed=4).pairs)
    assert len(sample.pairs) == 60
    assert sum(sample.sizes.values()) == len(candidates)


def test_sample_draws_from_each_stratum_and_from_kept_and_removed(candidates):
    sample = draw_sample(candidates, 60, seed=0)
    drawn = Counter(sample.pairs.values())
    assert set(drawn) == set(sample.sizes) == set(map(stratum_of, candidates))
    assert {stratum.removed for stratum in drawn} == {True, False}
    strata = {(c.query_id, c.passage_id): stratum_of(c) for c in candidates}
    assert all(strata[pair] == stratum for pair, stratum in sample.pairs.items())


def test_any_beginning_of_a_sample_is_spread_over_the_strata(candidates):
    sample = draw_sample(candidates, 60, seed=0)
    first = list(sample.pairs.values())[: len(sample.sizes)]
    assert len(set(first)) == len(first)


def test_each_member_of_a_stratum_is_as_likely_as_another():
    made = [candidate(i) for i in range(10)]
    drawn = Counter(pair for seed in range(2000) for pair in draw_sample(made, 3, seed).pairs)
    assert len(drawn) == 10
    assert stats.chisquare(list(drawn.values())).pvalue > 0.001


def test_shares_follow_the_square_root_of_the_size():
    sizes = {Stratum("a", "a", False): 10_000, Stratum("b", "b", False): 100, Stratum("c", "c", False): 2}
    assert list(allocate(sizes, 112).values()) == [100, 10, 2]
    assert list(allocate(sizes, 99_999).values()) == list(sizes.values())
    assert list(allocate(sizes, 3).values()) == [1, 1, 1]


def test_too_small_a_sample_and_none_to_draw_from_are_refused(candidates):
    strata = len(set(map(stratum_of, candidates)))
    with pytest.raises(M3TuneError, match=f"draw at least {strata}"):
        draw_sample(candidates, strata - 1, seed=0)
    with pytest.raises(M3TuneError, match="no candidates"):
        draw_sample([], 10, seed=0)


# --- rates


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (1, 7), (3, 50), (49, 50), (50, 50)])
def test_exact_rate_is_scipys_exact_interval(hits, count):
    interval = stats.binomtest(hits, count).proportion_ci(method="exact")
    assert exact_rate(hits, count) == pytest.approx((hits / count, interval.low, interval.high))


def test_no_verdict_is_no_rate():
    assert exact_rate(0, 0) == stratified_rate([(9, 0, 0)]) == stratified_rate([]) == Rate(None, 0.0, 1.0)


def test_stratified_rate_weighs_strata_by_their_size():
    rate = stratified_rate([(900, 1, 30), (100, 10, 20)])
    assert rate.value == pytest.approx(0.9 * 1 / 30 + 0.1 * 10 / 20)
    assert 0 < rate.low < rate.value < rate.high < 0.25


def test_interval_is_fay_and_feuers_by_their_chi_squared_form():
    strata = [(900, 1, 30), (80, 10, 20), (20, 0, 5)]
    weights = [size / 1000 / judged for size, _, judged in strata]
    y = sum(w * hits for w, (_, hits, _) in zip(weights, strata, strict=True))
    v = sum(w * w * hits for w, (_, hits, _) in zip(weights, strata, strict=True))
    most = max(weights)
    low = v / (2 * y) * stats.chi2.ppf(0.025, 2 * y * y / v)
    high = (v + most**2) / (2 * (y + most)) * stats.chi2.ppf(0.975, 2 * (y + most) ** 2 / (v + most**2))
    assert stratified_rate(strata) == pytest.approx((y, low, high))


def test_misses_are_as_good_as_hits():
    strata = [(900, 1, 30), (100, 10, 20)]
    rate = stratified_rate(strata)
    turned = stratified_rate([(size, judged - hits, judged) for size, hits, judged in strata])
    assert turned == pytest.approx((1 - rate.value, 1 - rate.high, 1 - rate.low))


def test_what_is_judged_whole_is_known():
    assert stratified_rate([(30, 6, 30), (10, 0, 10)]) == pytest.approx((0.15, 0.15, 0.15))
    part = stratified_rate([(50, 25, 50), (50, 0, 10)])
    assert part.value == part.low == pytest.approx(0.25)
    assert 0.25 < part.high <= 0.75


def test_a_stratum_nobody_looked_at_may_hold_anything():
    seen, both = stratified_rate([(50, 2, 20)]), stratified_rate([(50, 2, 20), (50, 0, 0)])
    assert both.value == seen.value
    assert both.low == pytest.approx(seen.low / 2)
    assert both.high == pytest.approx(seen.high / 2 + 0.5)


@pytest.mark.parametrize(
    "rates",
    [
        (0.3, 0.1, 0.02, 0.001),
        (0.002, 0.002, 0.002, 0.002),
        (0.0, 0.0, 0.0, 0.02),
        (0.7, 0.4, 0.2, 0.05),
        (0.9, 0.95, 0.99, 0.8),
    ],
    ids=str,
)
def test_interval_holds_the_true_rate_in_19_of_20_samples(rates):
    sizes, judged = (200, 600, 2000, 6000), (8, 16, 25, 50)
    hits = [round(rate * size) for rate, size in zip(rates, sizes, strict=True)]
    truth = sum(hits) / sum(sizes)
    generator = np.random.default_rng(5)
    rounds, held = 600, 0
    for found in zip(
        *(generator.hypergeometric(h, s - h, n, rounds) for h, s, n in zip(hits, sizes, judged, strict=True)),
        strict=True,
    ):
        rate = stratified_rate(list(zip(sizes, map(int, found), judged, strict=True)))
        held += rate.low <= truth <= rate.high
    assert held / rounds >= 0.94


# --- the whole way


def test_estimate_from_a_sample_that_is_everything_is_the_truth(candidates):
    sample = draw_sample(candidates, 10**6, seed=0)
    words = {(c.query_id, c.passage_id): "relevant" if c.rank <= 9 else "not relevant" for c in candidates}
    found = estimate(sample, words)
    kept = [c for c in candidates if not c.removed]
    removed = [c for c in candidates if c.removed]
    truths = (
        sum(c.rank <= 9 for c in candidates) / len(candidates),
        sum(c.rank <= 9 for c in kept) / len(kept),
        sum(c.rank > 9 for c in removed) / len(removed),
    )
    assert truths[1] == 0 < truths[2] < truths[0] + 1
    for rate, truth in zip((found.before, found.after, found.wrongly_removed), truths, strict=True):
        assert rate == pytest.approx((truth, truth, truth))
    assert sum(band.relevant for band in found.bands) == sum(word == "relevant" for word in words.values())


def test_unsure_pairs_and_pairs_outside_the_sample_are_no_answers(candidates):
    sample = draw_sample(candidates, 60, seed=0)
    said = dict.fromkeys(sample.pairs, "not relevant")
    unsure = list(said)[5]
    said[unsure] = "unsure"
    found = estimate(sample, said | {("q", "elsewhere"): "relevant"})
    assert found.before.value == found.after.value == 0
    assert found.wrongly_removed.value == 1
    assert sum(band.unsure for band in found.bands) == 1
    assert sum(band.not_relevant for band in found.bands) == 59
    assert sum(band.drawn for band in found.bands) == 60


def test_estimate_covers_the_truth_of_a_plausible_corpus():
    generator = np.random.default_rng(1)
    made = [
        candidate(rank, rank, 1.05 - 0.01 * rank, "above" if rank < 8 else "", f"q{query}")
        for query in range(60)
        for rank in range(1, 121)
    ]
    words = {
        (c.query_id, c.passage_id): "relevant" if generator.random() < 0.5 / c.rank else "not relevant" for c in made
    }
    kept = [words[c.query_id, c.passage_id] == "relevant" for c in made if not c.removed]
    truth, held = sum(kept) / len(kept), 0
    for seed in range(20):
        after = estimate(draw_sample(made, 150, seed), words).after
        held += after.low <= truth <= after.high
    assert held >= 18


def test_a_sample_nobody_judged_says_nothing(candidates):
    found = estimate(draw_sample(candidates, 60, seed=0), {})
    assert found.before == found.after == found.wrongly_removed == Rate(None, 0.0, 1.0)
    assert isinstance(draw_sample(candidates, 60, 0), Sample)
