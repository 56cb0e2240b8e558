import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune import scoring
from m3tune.scoring import hybrid, multi_scores, sparse_scores
from m3tune.vectors import MultiVector, Sparse, offsets_of, owners, take

VOCABULARY = 20


def plain_multi(queries, passages):
    """M3's formula, pair by pair."""

    def texts(of):
        return [of.vectors[a:b] for a, b in zip(of.offsets[:-1], of.offsets[1:], strict=True)]

    nothing = (queries.vectors.sum() + passages.vectors.sum()) * 0
    rows = [
        torch.stack([(q @ p.T).max(dim=1).values.mean() if len(q) and len(p) else nothing for p in texts(passages)])
        for q in texts(queries)
    ]
    return torch.stack(rows)


def table(sparse):
    """(N, V)"""
    empty = torch.zeros(len(sparse.offsets) - 1, VOCABULARY)
    return empty.index_put((owners(sparse.offsets), sparse.token_ids), sparse.weights)


def plain_sparse(queries, passages):
    return table(queries) @ table(passages).T


def random_multi(lengths, seed, dim=5):
    count = sum(lengths)
    vectors = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return MultiVector(vectors.requires_grad_(), offsets_of(torch.tensor(lengths)))


def random_sparse(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randperm(VOCABULARY, generator=generator)[:n].sort().values for n in lengths]
    weights = torch.rand(sum(lengths), generator=generator).requires_grad_()
    return Sparse(torch.cat(ids), weights, offsets_of(torch.tensor(lengths)))


def assert_equal_with_gradients(fast, plain, inputs):
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(plain.shape, generator=torch.Generator().manual_seed(9))
    ours, expected = (torch.autograd.grad(scores, inputs, upstream) for scores in (fast, plain))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    return expected


LENGTHS = [
    ([3], [4]),
    ([1, 5, 2], [7, 1, 3, 3, 16, 2, 9]),
    ([0, 3, 1], [0, 5, 0, 2]),
    ([4, 4, 4], [6, 6, 6, 6, 6]),
    ([2, 3], [0, 0]),
]
BLOCKS = [1, 13, 100, 8 * 2**20]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_multi_scores_equal_the_formula_with_gradients(monkeypatch, lengths, block):
    monkeypatch.setattr(scoring, "_BLOCK_NUMBERS", block)
    queries, passages = (random_multi(side, seed) for seed, side in enumerate(lengths))
    expected = assert_equal_with_gradients(
        multi_scores(queries, passages), plain_multi(queries, passages), (queries.vectors, passages.vectors)
    )
    assert sum(lengths[1]) == 0 or all(gradient.abs().max() > 0.01 for gradient in expected)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_sparse_scores_equal_the_formula_with_gradients(monkeypatch, lengths, block):
    monkeypatch.setattr(scoring, "_BLOCK_NUMBERS", block)
    queries, passages = (random_sparse(side, seed) for seed, side in enumerate(lengths))
    expected = assert_equal_with_gradients(
        sparse_scores(queries, passages), plain_sparse(queries, passages), (queries.weights, passages.weights)
    )
    assert sum(lengths[1]) < 20 or all(gradient.abs().max() > 0.1 for gradient in expected)


def test_the_block_size_decides_how_many_blocks_there_are():
    # The tests above would be vacuous if every size of block were one block.
    assert len(list(scoring._blocks(10, 1_000))) == 1
    assert list(scoring._blocks(10, scoring._BLOCK_NUMBERS // 4)) == [(0, 4), (4, 8), (8, 10)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_lengths(query_lengths, passage_lengths):
    for make, fast, plain in (
        (random_multi, multi_scores, plain_multi),
        (random_sparse, sparse_scores, plain_sparse),
    ):
        queries, passages = make(query_lengths, 0), make(passage_lengths, 1)
        assert_equal_with_gradients(fast(queries, passages), plain(queries, passages), (queries[-2], passages[-2]))


def test_groups_of_like_length_cover_every_text_once_within_the_budget():
    ascending = [1, 1, 2, 3, 3, 5, 8, 8, 8, 9, 20, 41, 500]
    groups = list(scoring._groups_of_like_length(ascending, budget_tokens=24))
    assert [i for group in groups for i in range(len(ascending))[group]] == list(range(len(ascending)))
    assert len(groups) > 3
    for group in groups:
        members = ascending[group]
        assert len(members) == 1 or (members[-1] <= 2 * members[0] and len(members) * members[-1] <= 24)


def test_a_negative_best_match_counts_and_no_padding_takes_its_place():
    query = MultiVector(torch.tensor([[1.0, 0.0]]), torch.tensor([0, 1]))
    passages = MultiVector(torch.tensor([[-0.9, 0.1], [-0.8, 0.2], [-0.7, 0.0]]), torch.tensor([0, 1, 3]))
    torch.testing.assert_close(multi_scores(query, passages), torch.tensor([[-0.9, -0.7]]))


def test_re_ranking_a_few_candidates_gives_the_scores_of_the_whole_table():
    queries, passages = random_multi([3, 1, 4], 0), random_multi([2, 8, 5, 3, 6], 1)
    whole = multi_scores(queries, passages)
    candidates = torch.tensor([4, 1, 2])
    torch.testing.assert_close(
        multi_scores(take(queries, torch.tensor([2])), take(passages, candidates)), whole[2:3, candidates]
    )
    sparse_queries, sparse_passages = random_sparse([3, 1, 4], 0), random_sparse([2, 8, 5, 3, 6], 1)
    torch.testing.assert_close(
        sparse_scores(take(sparse_queries, torch.tensor([2])), take(sparse_passages, candidates)),
        sparse_scores(sparse_queries, sparse_passages)[2:3, candidates],
    )


def test_the_hybrid_is_the_weighted_sum_of_what_is_there():
    dense, sparse = torch.rand(2, 3), torch.rand(2, 3)
    weights = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}
    torch.testing.assert_close(hybrid({"dense": dense, "sparse": sparse}, weights), dense + 0.3 * sparse)
    assert torch.equal(hybrid({"dense": dense, "sparse": sparse}, {"dense": 1.0}), dense)
