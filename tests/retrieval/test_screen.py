"""Search screened in bfloat16 is search in float32: none of the best is left out, and scores are exact."""

import numpy as np
import pytest
import torch

from m3tune.retrieval import exact, screen
from m3tune.retrieval.exact import rank
from m3tune.retrieval.room import Room
from m3tune.retrieval.screen import largest_errors, screened
from m3tune.retrieval.vectors import Vectors

DEPTH = 5


def in_bfloat16(vectors):
    return screen.in_bfloat16(vectors, Room(exact.CPU))


@pytest.fixture
def in_blocks(monkeypatch):
    """Screening whatever the processor, in blocks that divide nothing evenly; counts blocks by how they were scored."""
    counts = {"screened": 0, "whole": 0}

    def counting(*arguments):
        found = screened(*arguments)
        counts["whole" if found is None else "screened"] += 1
        return found

    monkeypatch.setattr(screen, "pick_precision", lambda *_: torch.bfloat16)
    monkeypatch.setattr(exact, "screened", counting)
    monkeypatch.setattr(exact, "_BLOCK_QUERIES", 7)
    monkeypatch.setattr(exact, "_BLOCK_PASSAGES", 150)
    return counts


def unit(generator, count, dimension=24):
    vectors = generator.standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crowded(generator):
    """Passages that differ from one another by less than bfloat16 can tell."""
    centre = unit(generator, 1)
    return unit(generator, 20) + centre, centre + 1e-3 * unit(generator, 1000)


KINDS = {
    "of length one": lambda g: (unit(g, 20), unit(g, 1000)),
    "closer than bfloat16 tells": crowded,
    "of any length": lambda g: (1e4 * unit(g, 20), unit(g, 1000) * g.lognormal(0, 3, (1000, 1)).astype(np.float32)),
    "all scores below zero": lambda g: (abs(unit(g, 20)), -abs(unit(g, 1000))),
    "tiny": lambda g: (1e-20 * unit(g, 20), 1e-20 * unit(g, 1000)),
    "zero": lambda g: (np.zeros((20, 24), np.float32), unit(g, 1000)),
    "the best at the end": lambda g: (np.ones((20, 24), np.float32), np.sort(unit(g, 1000), axis=0)),
}
AS_A_WHOLE = ("tiny", "zero")  # nobody can be told from anybody


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_it_ranks_as_float64_does(in_blocks, monkeypatch, kind, seed):
    monkeypatch.setattr(screen, "_MOST", 50 if kind in AS_A_WHOLE else 512)
    queries, passages = (side.astype(np.float32) for side in KINDS[kind](np.random.default_rng(seed)))
    scores = queries.astype(np.float64) @ passages.astype(np.float64).T
    size = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(passages, axis=1).max()
    for of, row, unit_of in zip(rank(Vectors(queries), Vectors(passages), "dense", DEPTH), scores, size, strict=True):
        best = np.sort(row)[::-1][:DEPTH]
        np.testing.assert_allclose(of.scores, best, rtol=0, atol=2e-6 * float(unit_of[0]) + 1e-44)
        np.testing.assert_allclose(row[of.rows], of.scores, rtol=0, atol=2e-6 * float(unit_of[0]) + 1e-44)
        assert len(set(of.rows.tolist())) == DEPTH
    assert in_blocks == {"whole": 21, "screened": 0} if kind in AS_A_WHOLE else {"whole": 0, "screened": 21}


def test_equal_passages_keep_their_order_across_blocks(in_blocks):
    generator = np.random.default_rng(0)
    passages = np.tile(unit(generator, 100), (10, 1))
    for of in rank(Vectors(unit(generator, 20)), Vectors(passages), "dense", 8):
        assert of.rows.tolist() == [of.rows[0] + 100 * copy for copy in range(8)]
        assert len(set(of.scores.tolist())) == 1
    assert in_blocks["screened"] == 3 * 7


def test_a_corpus_of_one_text_is_scored_as_a_whole(in_blocks, monkeypatch):
    monkeypatch.setattr(screen, "_MOST", 0)
    generator = np.random.default_rng(0)
    passages = np.tile(unit(generator, 1), (1030, 1))
    for of in rank(Vectors(unit(generator, 20)), Vectors(passages), "dense", DEPTH):
        assert of.rows.tolist() == list(range(DEPTH))
    assert in_blocks == {"whole": 21, "screened": 0}


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_screened(wrong):
    vectors = torch.from_numpy(unit(np.random.default_rng(0), 100))
    broken = vectors.clone()
    broken[3, 3] = wrong
    whole = in_bfloat16(vectors)
    assert screened(whole, in_bfloat16(broken), DEPTH, None, Room(exact.CPU)) is None
    assert screened(whole, whole, DEPTH, None, Room(exact.CPU)) is not None


def off_by(queries, passages):
    """(q, p) how far products of the rounded vectors are from those of the vectors themselves, in float64."""
    rounded, exactly = (getattr(queries, of).double() @ getattr(passages, of).double().T for of in ("rounded", "exact"))
    return (rounded - exactly).abs()


def test_the_bound_holds_where_every_rounding_goes_the_same_way_and_is_not_much_too_wide():
    # 1 + 2^-8 lies half-way to the next number of bfloat16 and is rounded down to the even one.
    worst = in_bfloat16(torch.full((1, 384), 1 + 2.0**-8))
    bound = largest_errors(worst, worst)
    assert (off_by(worst, worst) <= bound).all()
    assert (bound < 1.1 * off_by(worst, worst)).all()
    generator = np.random.default_rng(0)
    queries, passages = (in_bfloat16(torch.from_numpy(unit(generator, n, 384))) for n in (50, 2000))
    assert (off_by(queries, passages).amax(dim=1) <= largest_errors(queries, passages)).all()


def test_few_are_left_to_be_scored_exactly():
    generator = np.random.default_rng(0)
    queries, passages = (torch.from_numpy(unit(generator, n, 384)) for n in (32, 20_000))
    exactly = (queries @ passages.T).topk(100, dim=1)
    sides = in_bfloat16(queries), in_bfloat16(passages)
    scores, columns = screened(*sides, 100, None, Room(exact.CPU))
    assert (scores.isfinite().sum(dim=1) < 400).all()
    later, _ = screened(*sides, 100, exactly.values[:, -1], Room(exact.CPU))
    assert (later.isfinite().sum(dim=1) < 250).all()
    top = scores.topk(100, dim=1)
    torch.testing.assert_close(top.values, exactly.values, rtol=0, atol=1e-6)
    assert (columns.gather(1, top.indices) == exactly.indices).float().mean() > 0.999


def test_it_is_used_where_bfloat16_is_faster_and_most_passages_are_left_out(monkeypatch):
    monkeypatch.setattr(screen, "pick_precision", lambda *_: torch.bfloat16)
    assert screen.pays(1600, 100, exact.CPU)
    assert not screen.pays(1599, 100, exact.CPU)
    assert not screen.pays(1600, 100, torch.device("cuda"))
    monkeypatch.setattr(screen, "pick_precision", lambda *_: torch.float32)
    assert not screen.pays(1600, 100, exact.CPU)
