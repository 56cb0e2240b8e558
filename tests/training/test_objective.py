import pytest
import torch
import torch.nn.functional as F

from m3tune.config import TrainConfig
from m3tune.scoring import dense_scores, head_scores
from m3tune.training.losses import contrastive, distillation, margin_mse, ordered_distillation
from m3tune.training.objective import Known, Objective, compared_loss, matryoshka_scores, unified
from m3tune.vectors import Embeddings, MultiVector, Sparse, offsets_of, split_at

ALL = ("dense", "sparse", "multi")
QUERIES, PASSAGES = 4, 7


def embeddings(heads=ALL, seed=0):
    """Random queries and passages, with the heads named."""
    generator = torch.Generator().manual_seed(seed)
    count = QUERIES + PASSAGES
    dense = F.normalize(torch.randn(count, 8, generator=generator), dim=1)
    ids = torch.arange(12).repeat(count)
    sparse = Sparse(ids, torch.rand(len(ids), generator=generator), offsets_of(torch.full((count,), 12)))
    vectors = F.normalize(torch.randn(count * 3, 8, generator=generator), dim=1)
    multi = MultiVector(vectors, offsets_of(torch.full((count,), 3)))
    whole = Embeddings(
        *(part if head in heads else None for head, part in zip(ALL, (dense, sparse, multi), strict=True))
    )
    return split_at(whole, QUERIES)


def known(taught_rows=()):
    """Query i's positive is passage i; some queries' first four passages are scored by a teacher."""
    positive = torch.eye(QUERIES, PASSAGES, dtype=torch.bool)
    teacher = torch.full((QUERIES, PASSAGES), torch.nan)
    for row in taught_rows:
        teacher[row, :4] = torch.randn(4, generator=torch.Generator().manual_seed(row))
    return Known(positive, ~positive, torch.zeros_like(positive), teacher)


def objective(**config):
    return Objective.of(TrainConfig(**config))


def info_nce(scores):
    return contrastive(scores, known().positive, known().negative, 0.05)


def test_the_three_heads_of_m3_are_weighed_as_published():
    sides = embeddings()
    dense, sparse, multi = head_scores(*sides).values()
    total, parts, *_ = unified(objective(), *sides, known(), self_distill=False)
    mixed = dense + 0.3 * sparse + multi
    expected = (info_nce(dense) + info_nce(mixed) + 0.1 * info_nce(sparse) + info_nce(multi)) / 4
    torch.testing.assert_close(total, expected)
    assert list(parts) == ["dense", "sparse", "multi", "hybrid"]
    torch.testing.assert_close(parts["hybrid"], info_nce(mixed))


def test_self_distillation_is_averaged_in_and_its_teacher_gets_no_gradient():
    sides = embeddings()
    scores = list(head_scores(*sides).values())
    total, parts, *_ = unified(objective(), *sides, known(), self_distill=True)
    plain, _, *_ = unified(objective(), *sides, known(), self_distill=False)
    mixed = (scores[0] + 0.3 * scores[1] + scores[2]).detach()
    seen = torch.ones(QUERIES, PASSAGES, dtype=torch.bool)
    dense, sparse, multi = (distillation(score, mixed, seen, 0.05, 0.05) for score in scores)
    torch.testing.assert_close(total, (plain + (dense + 0.1 * sparse + multi) / 3) / 2)
    assert [name for name in parts if name.startswith("self_")] == ["self_dense", "self_sparse", "self_multi"]
    # With nothing but the sparse loss weighed, the dense vectors only teach.
    queries, passages = sides
    queries.dense.requires_grad_()
    queries.sparse.weights.requires_grad_()
    only_sparse = objective(loss_weights=(0, 1, 0, 1e-30))
    unified(only_sparse, queries, passages, known(), self_distill=True)[0].backward()
    assert queries.dense.grad.abs().max() < 1e-20
    assert queries.sparse.weights.grad.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("present", "parts"),
    [
        (("dense",), ["dense"]),
        (("sparse",), ["sparse"]),
        (("dense", "sparse"), ["dense", "sparse", "hybrid"]),
        (("sparse", "multi"), ["sparse", "multi", "hybrid"]),
    ],
    ids=str,
)
def test_heads_that_are_not_there_take_no_part(present, parts):
    total, found, *_ = unified(objective(), *embeddings(present), known(), self_distill=False)
    assert list(found) == parts
    weights = {"dense": 1, "sparse": 0.1, "multi": 1, "hybrid": 1}
    torch.testing.assert_close(total, sum(weights[name] * loss for name, loss in found.items()) / len(found))


def test_dense_alone_is_the_contrastive_loss():
    queries, passages = embeddings(("dense",))
    total, _, *_ = unified(objective(), queries, passages, known(), self_distill=False)
    assert torch.equal(total, info_nce(dense_scores(queries.dense, passages.dense)))


@pytest.mark.parametrize(
    ("weights", "hybrid_weights", "looked_at"),
    [
        ((1, 0.1, 1, 1), (1, 0.3, 1), ALL),
        ((1, 0, 0, 0), (1, 0.3, 1), ("dense",)),
        ((1, 0, 0, 1), (1, 0.3, 0), ("dense", "sparse")),
        ((1, 0, 0, 1), (1, 0, 0), ("dense",)),
        ((0, 1, 0, 0), (1, 1, 1), ("sparse",)),
    ],
)
def test_only_heads_that_the_loss_looks_at_are_asked_for(weights, hybrid_weights, looked_at):
    config = objective(loss_weights=weights, hybrid_weights=hybrid_weights)
    assert config.heads(ALL) == looked_at
    assert config.heads(("dense",)) == (("dense",) if weights[0] else ())
    total, _, *_ = unified(config, *embeddings(looked_at), known(), self_distill=False)
    assert torch.equal(total, unified(config, *embeddings(looked_at), known(), self_distill=False)[0])


# --- teachers


@pytest.mark.parametrize("distill", ["kl", "margin"])
def test_a_teachers_loss_is_added_to_the_contrastive_one(distill):
    scores, of_batch = head_scores(*embeddings())["dense"], known((0, 2))
    config = objective(distill=distill, distill_weight=0.5, teacher_temperature=2.0)
    scored = ~of_batch.teacher.isnan()
    if distill == "kl":
        taught = distillation(scores, of_batch.teacher, scored, 0.05, 2.0)
    else:
        taught = margin_mse(
            scores, of_batch.teacher, scored & of_batch.positive, scored & of_batch.negative, 2.0
        )  # fmt: skip
    torch.testing.assert_close(compared_loss(config, scores, of_batch), info_nce(scores) + 0.5 * taught)
    assert taught > 0.1


def test_an_order_replaces_the_contrastive_loss_of_the_queries_that_have_one():
    scores, of_batch = head_scores(*embeddings())["dense"], known((0, 2))
    config = objective(distill="ordered")
    scored, seen = ~of_batch.teacher.isnan(), of_batch.positive | of_batch.negative
    taught, rest = [0, 2], [1, 3]
    ordered = ordered_distillation(scores[taught], of_batch.teacher[taught], scored[taught], seen[taught], 0.05, 1.0)
    plain = contrastive(scores[rest], of_batch.positive[rest], of_batch.negative[rest], 0.05)
    torch.testing.assert_close(compared_loss(config, scores, of_batch), (ordered + plain) / 2)
    whole = known(range(QUERIES))
    expected = ordered_distillation(scores, whole.teacher, ~whole.teacher.isnan(), seen, 0.05, 1.0)
    torch.testing.assert_close(compared_loss(config, scores, whole), expected)


@pytest.mark.parametrize("distill", ["kl", "ordered", "margin"])
def test_a_batch_without_teacher_scores_is_contrastive(distill):
    scores = head_scores(*embeddings())["dense"]
    assert torch.equal(compared_loss(objective(distill=distill), scores, known()), info_nce(scores))


@pytest.mark.parametrize("distill", ["kl", "margin", "ordered"])
def test_a_soft_label_is_learned_from_the_teacher_alone(distill):
    scores, of_batch = head_scores(*embeddings())["dense"], known((0, 2))
    soft = torch.zeros_like(of_batch.positive)
    soft[0, 1] = soft[1, 0] = soft[2, 3] = True  # of query 1 no teacher says anything
    softened = of_batch._replace(negative=of_batch.negative & ~soft, soft=soft)
    config = objective(distill=distill, distill_weight=0.5)
    found = compared_loss(config, scores, softened)
    scored = ~of_batch.teacher.isnan()
    plain = contrastive(scores, softened.positive, softened.negative, 0.05)
    if distill == "kl":
        expected = plain + 0.5 * distillation(scores, of_batch.teacher, scored, 0.05, 1.0)
    elif distill == "margin":
        against = scored & ~of_batch.positive
        expected = plain + 0.5 * margin_mse(scores, of_batch.teacher, scored & of_batch.positive, against, 1.0)
    else:
        taught, rest = [0, 2], [1, 3]
        everything = torch.ones(2, PASSAGES, dtype=torch.bool)
        ordered = ordered_distillation(scores[taught], of_batch.teacher[taught], scored[taught], everything, 0.05, 1.0)
        expected = (
            0.5 * ordered + contrastive(scores[rest], softened.positive[rest], softened.negative[rest], 0.05)
        ) / 2
    torch.testing.assert_close(found, expected)
    assert abs(found - compared_loss(config, scores, of_batch)) > 5e-4
    # Without a teacher's loss, or its score, a soft label is not there at all.
    moved = scores + torch.where(soft, 5.0, 0.0)
    assert compared_loss(objective(), moved, softened) == compared_loss(objective(), scores, softened)


# --- Matryoshka


def test_shorter_dense_vectors_are_trained_too_and_the_hybrid_stays_whole():
    queries, passages = embeddings()
    config = objective(matryoshka_dims=(4, 2))
    _, parts, *_ = unified(config, queries, passages, known(), self_distill=False)
    losses = []
    for dim in (8, 4, 2):
        short = [F.normalize(side.dense[:, :dim], dim=1) for side in (queries, passages)]
        losses.append(info_nce(short[0] @ short[1].T))
    torch.testing.assert_close(parts["dense"], sum(losses) / 3)
    assert len({round(loss.item(), 3) for loss in losses}) == 3
    _, whole, *_ = unified(objective(), queries, passages, known(), self_distill=False)
    assert torch.equal(parts["hybrid"], whole["hybrid"])
    assert [score.shape for score in matryoshka_scores(queries.dense, passages.dense, (4, 2))] == [(4, 7)] * 2


# --- suspected negatives


def test_without_a_margin_nobody_is_suspected():
    outcome = unified(objective(), *embeddings(), known(), self_distill=False)
    assert outcome.share_suspected is None
    assert torch.equal(outcome.known.negative, known().negative)


@pytest.mark.parametrize("present", [ALL, ("dense",), ("sparse", "multi"), ("multi",)])
def test_suspects_of_the_deciding_scores_are_left_out_of_every_loss(present):
    sides, margin = embeddings(present), 0.02
    scores = head_scores(*sides)
    weights = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}
    deciding = next(iter(scores.values()))
    if len(present) > 1:
        deciding = sum(weights[head] * scores[head] for head in present) / sum(weights[head] for head in present)
    best = deciding.diagonal()[:, None]
    expected = known()._replace(negative=known().negative & ~(deciding > best + margin))
    left_out = known().negative.sum() - expected.negative.sum()
    assert left_out > 2
    for distill in (False, len(present) > 1):
        outcome = unified(objective(false_negative_margin=margin), *sides, known(), self_distill=distill)
        assert torch.equal(outcome.known.negative, expected.negative)
        torch.testing.assert_close(outcome.share_suspected, left_out / known().negative.sum())
        torch.testing.assert_close(outcome.loss, unified(objective(), *sides, expected, self_distill=distill).loss)


def test_a_head_without_a_loss_of_its_own_still_decides_with_the_hybrid():
    config = objective(false_negative_margin=0.02, loss_weights=(0, 0.1, 1, 1))
    dense, sparse, multi = head_scores(*embeddings()).values()
    deciding = (dense + 0.3 * sparse + multi) / 2.3
    outcome = unified(config, *embeddings(), known(), self_distill=False)
    assert torch.equal(outcome.known.negative, known().negative & ~(deciding > deciding.diagonal()[:, None] + 0.02))


def test_a_pair_that_a_teacher_scored_is_not_suspected():
    config = objective(false_negative_margin=0.0, distill="kl")
    plain = unified(config, *embeddings(), known(), self_distill=False).known.negative
    taught = unified(config, *embeddings(), known((0, 1, 2, 3)), self_distill=False).known.negative
    assert not plain[:, :4][known().negative[:, :4]].all()
    assert torch.equal(taught[:, :4], known().negative[:, :4])
    assert torch.equal(taught[:, 4:], plain[:, 4:])


def test_no_gradient_flows_through_the_choice_and_a_query_may_lose_all_negatives():
    queries, passages = embeddings(("dense",))
    queries.dense.requires_grad_()
    outcome = unified(objective(false_negative_margin=0.0), queries, passages, known(), self_distill=False)
    outcome.loss.backward()
    assert queries.dense.grad.isfinite().all()
    alone = known()._replace(negative=torch.zeros_like(known().negative))
    assert unified(objective(), queries, passages, alone, self_distill=False).loss == 0
