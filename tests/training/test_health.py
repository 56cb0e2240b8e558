"""The figures of a batch against written-out formulas, and illness that was put there."""

import math

import pytest
import torch
import torch.nn.functional as F

from m3tune.training.findings import health_findings
from m3tune.training.health import (
    dense_figures,
    effective_rank,
    health,
    mean_cosine,
    score_figures,
    sparse_figures,
    uniformity,
)
from m3tune.vectors import Embeddings, MultiVector, Sparse, offsets_of

TEXTS, WIDTH = 64, 32


def noise(count=TEXTS, width=WIDTH, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def sparse_of(*texts):
    """A text is its list of weights."""
    weights = torch.tensor([weight for text in texts for weight in text])
    return Sparse(torch.arange(len(weights)), weights, offsets_of(torch.tensor([len(text) for text in texts])))


def codes(figures):
    return [finding.code for finding in health_findings({"step": 5} | figures)]


def test_scores_of_positives_and_negatives_are_told_apart():
    scores = torch.tensor([[1.0, 3.0, 9.0], [2.0, 5.0, 4.0]])
    positive = torch.tensor([[True, False, False], [False, True, False]])
    negative = torch.tensor([[False, True, False], [True, False, True]])  # the 9 is neither
    figures = score_figures("dense", scores, positive, negative)
    assert figures == pytest.approx(
        {
            "score_dense_positive": 3.0, "score_dense_positive_sd": 2.0,
            "score_dense_negative": 3.0, "score_dense_negative_sd": math.sqrt(2 / 3),
        }
    )  # fmt: skip
    assert list(score_figures("multi", scores, positive, torch.zeros_like(negative))) == [
        "score_multi_positive", "score_multi_positive_sd",
    ]  # fmt: skip


def test_empty_sparse_vectors_and_tokens_are_counted_by_weights_above_zero():
    figures = sparse_figures(sparse_of([0.5, 0.0], []), sparse_of([0.0, 0.0, 0.0], [1.0, 2.0, 0.1], [3.0]))
    assert figures == pytest.approx({"sparse_tokens_query": 0.5, "sparse_tokens_passage": 4 / 3, "sparse_empty": 2 / 5})


def test_dense_figures_are_their_formulas():
    vectors = noise() * torch.rand(TEXTS, 1, generator=torch.Generator().manual_seed(1))
    directions = F.normalize(vectors.double(), dim=1)
    pairs = [(i, j) for i in range(TEXTS) for j in range(i)]
    cosines = torch.stack([directions[i] @ directions[j] for i, j in pairs])
    shares = torch.linalg.svd(directions).S
    shares = shares / shares.sum()
    figures = dense_figures(vectors)
    norms = vectors.double().square().sum(dim=1).sqrt()
    expected = {
        "dense_norm": norms.mean(),
        "dense_norm_sd": norms.std(correction=0),
        "dense_cosine": cosines.mean(),
        "dense_uniformity": (-2 * (2 - 2 * cosines)).exp().mean().log(),
        "dense_rank": (-(shares * shares.log()).sum()).exp(),
        "dense_rank_share": (-(shares * shares.log()).sum()).exp() / WIDTH,
    }
    assert figures == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-6)


def test_bounds_of_the_formulas():
    same, apart = torch.ones(8, 4).double() / 2, torch.eye(4).double()
    assert (mean_cosine(same), uniformity(same), effective_rank(same)) == pytest.approx((1, 0, 1), abs=1e-6)
    assert (mean_cosine(apart), uniformity(apart), effective_rank(apart)) == pytest.approx((0, -4, 4), abs=1e-6)
    assert list(dense_figures(torch.ones(1, 4))) == ["dense_norm", "dense_norm_sd"], "one text has no spread"
    assert all(math.isfinite(value) for value in dense_figures(torch.zeros(5, 4)).values())


def test_healthy_vectors_are_given_no_warning():
    close = noise() + 3 * noise(1, seed=1)  # a common direction, as encoders have: mean cosine 0.9
    assert 0.8 < dense_figures(close)["dense_cosine"] < 0.95
    for vectors in (noise(), close, noise(8), noise(2)):
        assert codes(dense_figures(vectors)) == []
    assert codes(sparse_figures(sparse_of(*[[1.0]] * 10), sparse_of(*[[0.5]] * 9, [0.0]))) == []
    assert codes({"loss": 1.0}) == []


@pytest.mark.parametrize(
    "vectors",
    [noise() * 0.01 + noise(1, seed=1), noise(TEXTS, 2) @ noise(2, WIDTH, seed=1), torch.ones(TEXTS, WIDTH)],
    ids=["a point", "a plane", "one vector"],
)
def test_a_collapse_is_found(vectors):
    assert codes(dense_figures(vectors)) == ["dense-vectors-collapse"]


def test_dying_sparse_vectors_are_found():
    figures = sparse_figures(sparse_of([], [1.0]), sparse_of(*[[1.0]] * 6, [0.0]))
    (finding,) = health_findings({"step": 40} | figures)
    assert (finding.code, finding.severity, finding.where) == ("sparse-vectors-die", "warning", "train, step 40")
    assert finding.what.startswith("22% of the sparse vectors of a batch are empty")
    assert "train.loss_weights" in finding.fix


def test_heads_that_are_not_there_have_no_figures_and_gradients_stay_untouched():
    dense = noise().requires_grad_()
    queries, passages = Embeddings(dense=dense[:4]), Embeddings(dense=dense[4:])
    positive = torch.eye(4, TEXTS - 4, dtype=torch.bool)
    figures = health(queries, passages, {"dense": queries.dense @ passages.dense.T}, positive, ~positive)
    assert {name.split("_")[0] for name in figures} == {"score", "dense"}
    assert all(isinstance(value, float) for value in figures.values())
    assert dense.grad is None
    multi = MultiVector(noise(3), torch.tensor([0, 1, 3]))
    assert health(Embeddings(multi=multi), Embeddings(multi=multi), {}, positive, ~positive) == {}
