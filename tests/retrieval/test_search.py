"""Search by each head and by mixtures, against brute force."""

import itertools

import numpy as np
import pytest
import torch

from m3tune.config import ModelConfig
from m3tune.errors import DoesNotFitError
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder
from m3tune.retrieval import exact
from m3tune.retrieval import search as search_module
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.retrieval.exact import all_scores, rank, sparse_products
from m3tune.retrieval.search import Candidates, SearchPlan, as_run, reciprocal_ranks, search
from m3tune.retrieval.store import store_vectors
from m3tune.retrieval.vectors import Vectors
from m3tune.scoring import head_scores, sparse_scores
from m3tune.types import Hit
from m3tune.vectors import Sparse, split_at

HEADS = ("dense", "sparse", "multi")
WEIGHTS = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}


@pytest.fixture(scope="module")
def sides(m3_folder, collection, tmp_path_factory):
    """(queries in memory, passages on disk, the (Q, P) scores of one forward pass)."""
    encoder, _ = load_encoder(ModelConfig(path=str(m3_folder)))
    queries = tokenize_queries(encoder, collection, list(collection.queries)[:20])
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    texts = [*(queries[i] for i in range(len(queries))), *(passages[i] for i in range(len(passages)))]
    with torch.no_grad():
        scores = head_scores(*split_at(encoder(pack(texts)), len(queries)))
    folder = tmp_path_factory.mktemp("vectors") / "v"
    stored = store_vectors(encoder, passages, torch.float32, folder, heads=HEADS, multi="float32")
    return encode_tokens(encoder, queries, torch.float32, HEADS), stored, scores


@pytest.fixture(params=["whole", "in blocks"])
def blocks(request, monkeypatch):
    """With one block of everything, and with blocks that divide nothing evenly."""
    if request.param == "in blocks":
        for name, size in (("_BLOCK_QUERIES", 7), ("_BLOCK_PASSAGES", 11), ("_BLOCK_TOKENS", 50)):
            monkeypatch.setattr(exact, name, size)
        monkeypatch.setattr(search_module, "_BLOCK_TOKENS", 50)


def brute(scores, depth):
    """Rows by falling score, ties by row, from rounded scores, so that two ways to add up agree."""
    return [np.argsort(-of.numpy().round(5), kind="stable")[:depth].tolist() for of in scores]


def agree(ranked, scores, depth):
    """The same passages in the same order, but for scores that are equal to five digits."""
    for of, row in zip(ranked, scores, strict=True):
        best = row.sort(descending=True).values[:depth]
        np.testing.assert_allclose(of.scores, best.numpy(), atol=2e-5)
        np.testing.assert_allclose(row[torch.from_numpy(of.rows)].numpy(), of.scores, atol=2e-5)
        assert len(set(of.rows.tolist())) == len(of.rows) == min(depth, len(row))


def runs_out(monkeypatch, head, most, module=exact):
    """Scores of more than `most` passages are refused, after the first block of queries where there are several."""
    refused, calls = [], itertools.count()

    def refusing(original):
        def score(queries, passages, *rest):
            found = original(queries, passages, *rest)
            scores = found if isinstance(found, torch.Tensor) else found[head]
            if max(scores.shape) > most and next(calls) % 2:
                refused.append(max(scores.shape))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return found

        return score

    if module is exact:
        monkeypatch.setitem(exact.SCORES, head, refusing(exact.SCORES[head]))
        monkeypatch.setattr(exact, "_BLOCK_QUERIES", 7)
    else:
        monkeypatch.setattr(search_module, "head_scores", refusing(head_scores))
    return refused


@pytest.mark.parametrize("head", HEADS)
def test_a_search_that_runs_out_of_memory_goes_on_with_fewer_passages_at_once(sides, monkeypatch, head):
    queries, passages, scores = sides
    expected = rank(queries, passages, head, 10)
    refused = runs_out(monkeypatch, head, most=12)
    for of, plain in zip(rank(queries, passages, head, 10), expected, strict=True):
        np.testing.assert_allclose(of.scores, plain.scores, atol=2e-5)
        assert len(set(of.rows.tolist())) == len(of.rows), "no passage of a stretch that came again counts twice"
    assert len(refused) >= 3, "and halved more than once"
    assert refused == sorted(refused, reverse=True)
    refused.clear()
    torch.testing.assert_close(all_scores(queries, passages, head), scores[head], atol=2e-5, rtol=0)
    assert refused


@pytest.mark.parametrize("head", HEADS)
def test_candidates_that_do_not_fit_are_scored_in_smaller_blocks(sides, monkeypatch, head):
    queries, passages, scores = sides
    query_of, rows = np.repeat(np.arange(3), 40), np.tile(np.arange(40) * 2, 3)
    refused = runs_out(monkeypatch, head, most=9, module=search_module)
    found = search_module.pair_scores(queries, passages, head, query_of, rows)
    torch.testing.assert_close(found, scores[head][query_of, rows], atol=2e-5, rtol=0)
    assert refused


def test_scores_that_never_fit_are_an_error_for_people(sides, monkeypatch):
    def none_left(*_):
        raise MemoryError

    monkeypatch.setitem(exact.SCORES, "dense", none_left)
    with pytest.raises(DoesNotFitError, match="single text"):
        rank(sides[0], sides[1], "dense", 10)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("depth", [1, 10, 1000])
def test_each_head_alone_is_brute_force(sides, blocks, head, depth):
    queries, passages, scores = sides
    ranked = rank(queries, passages, head, depth)
    if head == "sparse":
        found = [row > 0 for row in scores["sparse"]]
        assert not all(of.all() for of in found), "some share no token"
        for of, row, kept in zip(ranked, scores["sparse"], found, strict=True):
            assert len(of.rows) == min(depth, int(kept.sum()))
            np.testing.assert_allclose(of.scores, row.sort(descending=True).values[: len(of.scores)], atol=2e-5)
            np.testing.assert_allclose(row[torch.from_numpy(of.rows)], of.scores, atol=2e-5)
    else:
        agree(ranked, scores[head], depth)


@pytest.mark.parametrize("head", HEADS)
def test_all_scores_are_those_of_one_forward_pass(sides, blocks, head):
    queries, passages, scores = sides
    torch.testing.assert_close(all_scores(queries, passages, head), scores[head], atol=2e-5, rtol=0)


def test_equal_scores_keep_the_order_of_the_passages_across_blocks(blocks):
    vectors = Vectors(dense=np.ones((40, 4), np.float32))
    queries = Vectors(dense=np.ones((9, 4), np.float32))
    assert [of.rows.tolist() for of in rank(queries, vectors, "dense", 15)] == [list(range(15))] * 9


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize("depth", [1, 6, 23, 70])
def test_ties_of_every_kind_are_a_stable_sort_in_float64(blocks, depth, device):
    generator = np.random.default_rng(depth)
    passages = generator.integers(-1, 2, (67, 5)).astype(np.float32)
    queries = generator.integers(-1, 2, (16, 5)).astype(np.float32)
    scores = queries.astype(np.float64) @ passages.T.astype(np.float64)
    expected = [np.argsort(-of, kind="stable")[:depth] for of in scores]
    ranked = rank(Vectors(dense=queries), Vectors(dense=passages), "dense", depth, torch.device(device))
    assert [of.rows.tolist() for of in ranked] == [rows.tolist() for rows in expected]
    assert [of.scores.tolist() for of in ranked] == [s[r].tolist() for s, r in zip(scores, expected, strict=True)]
    at_the_end = [np.count_nonzero(of == of[rows[-1]]) for of, rows in zip(scores, expected, strict=True)]
    assert max(at_the_end) > 1, "some tie with the last place"


def test_a_corpus_on_disk_is_read_once_and_never_all_there(tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "_BLOCK_PASSAGES", 11)
    monkeypatch.setattr(exact, "_BLOCK_QUERIES", 7)
    generator = np.random.default_rng(0)
    np.save(tmp_path / "p.npy", generator.normal(size=(90, 6)).astype(np.float16))
    stored = np.load(tmp_path / "p.npy", mmap_mode="r")
    loaded = []
    load = Vectors.load

    def spied(self, rows, heads=None):
        if self.dense is stored:
            loaded.append((rows.start, rows.stop))
        return load(self, rows, heads)

    monkeypatch.setattr(Vectors, "load", spied)
    queries = generator.normal(size=(30, 6)).astype(np.float32)
    ranked = rank(Vectors(dense=queries), Vectors(dense=stored), "dense", 13)
    assert loaded == [(first, min(first + 11, 90)) for first in range(0, 90, 11)]
    whole = queries.astype(np.float64) @ np.asarray(stored, np.float64).T
    assert [of.rows.tolist() for of in ranked] == [np.argsort(-of, kind="stable")[:13].tolist() for of in whole]


def test_no_passages_and_no_shared_token_find_nothing():
    queries = Vectors(dense=np.ones((2, 4), np.float32))
    assert [len(of.rows) for of in rank(queries, Vectors(dense=np.ones((0, 4), np.float32)), "dense", 5)] == [0, 0]


def random_sparse(generator, texts, most=6, ids=50):
    lengths = generator.integers(0, most, texts)
    token_ids = [np.sort(generator.choice(ids, n, replace=False)) for n in lengths]
    weights = generator.random(lengths.sum()) * (generator.random(lengths.sum()) > 0.3)
    offsets = torch.from_numpy(np.cumsum([0, *lengths]))
    return Sparse(
        torch.from_numpy(np.concatenate(token_ids)).long(), torch.from_numpy(weights.astype(np.float32)), offsets
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_product_of_sparse_matrices_is_the_sparse_score(seed):
    generator = np.random.default_rng(seed)
    queries, passages = random_sparse(generator, 8), random_sparse(generator, 30)
    expected = sparse_scores(queries, passages)
    torch.testing.assert_close(sparse_products(queries, passages), expected, atol=1e-6, rtol=0)
    assert 0 < (expected > 0).sum() < expected.numel()
    empty = Sparse(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(3, dtype=torch.int64))
    assert sparse_products(empty, passages).tolist() == [[0.0] * 30] * 2
    assert sparse_products(queries, empty).tolist() == [[0.0] * 2] * 8


# --- mixtures


def ranks(scores, candidates):
    """Candidate -> rank from 1 by brute force."""
    order = sorted(candidates, key=lambda row: (-float(scores[row]), row))
    return {row: place for place, row in enumerate(order, start=1)}


@pytest.mark.parametrize("plan", [SearchPlan(20), SearchPlan(20, 5, "all", 0), SearchPlan(20, 9, "dense", 10)], ids=str)
def test_mixtures_are_brute_force_over_the_candidates(sides, blocks, plan):
    queries, passages, scores = sides
    found = search(queries, passages, plan)
    everything = plan.exact_passages >= len(passages)
    first = ("dense", "sparse") if plan.first_stage == "all" else (plan.first_stage,)
    hybrid = sum(weight * scores[head] for head, weight in WEIGHTS.items())
    by_weights, by_ranks = found.by_weights(WEIGHTS), found.by_ranks()
    for number in range(len(queries)):
        expected = set(range(len(passages)))
        if not everything:
            expected = {row for head in first for row in rank(queries, passages, head, plan.candidates)[number].rows}
        span = slice(*found.candidates.offsets[number : number + 2])
        assert found.candidates.rows[span].tolist() == sorted(expected)
        for head in HEADS:
            of_candidates = scores[head][number][sorted(expected)]
            torch.testing.assert_close(found.candidates.scores[head][span], of_candidates, atol=2e-5, rtol=0)
        mixed = hybrid[number][sorted(expected)].sort(descending=True).values[:20]
        np.testing.assert_allclose(by_weights[number].scores, mixed, atol=5e-5)
        places = {head: ranks(found.candidates.scores[head][span], range(len(expected))) for head in HEADS}
        zero = found.candidates.scores["sparse"][span] <= 0
        fused = [
            sum(1 / (60 + places[head][i]) for head in HEADS if head != "sparse" or not zero[i])
            for i in range(len(expected))
        ]
        np.testing.assert_allclose(by_ranks[number].scores, sorted(fused, reverse=True)[:20], atol=1e-9)
        best = sorted(expected)[int(np.argmax(fused))]
        assert by_ranks[number].rows[0] == best
    assert set(found.by_head) == set(HEADS)
    assert ("scored exactly" in found.how["multi"]) != everything
    assert found.how["dense"] == "every passage"


@pytest.mark.parametrize(("least", "by_passage"), [(1, True), (10**6, False)])
def test_multi_vectors_by_passage_are_those_by_query(sides, monkeypatch, least, by_passage):
    queries, passages, scores = sides
    loaded = []

    def scored(of_queries, of_passages):
        loaded.append(len(of_passages.multi.offsets) - 1)
        return head_scores(of_queries, of_passages)

    monkeypatch.setattr(search_module, "_QUERIES_A_PASSAGE", least)
    monkeypatch.setattr(search_module, "head_scores", scored)
    query_of, rows = np.array([0, 0, 3, 5, 5, 5]), np.array([4, 9, 4, 4, 9, 80])
    found = search_module.pair_scores(queries, passages, "multi", query_of, rows)
    torch.testing.assert_close(found, scores["multi"][query_of, rows], atol=2e-5, rtol=0)
    assert loaded == ([1, 1, 1] if by_passage else [2, 1, 3])


def test_one_head_has_no_mixture_and_multi_alone_searches_everything(sides):
    queries, passages, scores = sides
    dense = search(queries.only(("dense",)), passages, SearchPlan(10, 3, "all", 0))
    assert dense.candidates is None
    assert list(dense.by_head) == ["dense"]
    multi = search(queries.only(("multi",)), passages, SearchPlan(10, 3, "all", 0))
    agree(multi.by_head["multi"], scores["multi"], 10)
    assert multi.how == {"multi": "every passage"}


def test_re_ranking_beyond_the_first_stage_leaves_out_what_it_left_out(sides):
    queries, passages, _ = sides
    found = search(queries, passages, SearchPlan(50, 2, "dense", 0))
    assert all(len(of.rows) == 2 for of in found.by_head["multi"])
    assert all(len(of.rows) == 50 for of in found.by_head["dense"])


def test_reciprocal_ranks_by_hand():
    scores = {"dense": torch.tensor([0.9, 0.1, 0.5]), "sparse": torch.tensor([0.0, 2.0, 1.0])}
    candidates = Candidates(np.array([4, 7, 9]), np.array([0, 3]), scores)
    fused = reciprocal_ranks(candidates, k=60)
    np.testing.assert_allclose(fused, [1 / 61, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62])
    (ranked,) = candidates.ranked(fused, 2)
    assert ranked.rows.tolist() == [7, 9]
    assert as_run([ranked], ["q"], list("abcdefghij"))["q"][1] == Hit("j", pytest.approx(2 / 62))


def test_spreads_are_within_a_query():
    candidates = Candidates(np.arange(4), np.array([0, 2, 4]), {"dense": torch.tensor([0.0, 2.0, 10.0, 10.0])})
    assert candidates.spreads == {"dense": 0.5}
