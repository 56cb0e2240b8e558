import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.scoring import dense_scores
from m3tune.training.losses import contrastive, distillation, margin_mse, ordered_distillation, suspects


def vectors(count, dimension=8, seed=0):
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def one_positive_each(num_queries, num_passages):
    """Query i's positive is passage i, everything else is negative."""
    positive = torch.eye(num_queries, num_passages, dtype=torch.bool)
    return positive, ~positive


def written_out(scores, positive, negative, temperature):
    """The formula of the docstring, in Python's own floats."""
    losses = []
    for row, positives, negatives in zip(scores.tolist(), positive.tolist(), negative.tolist(), strict=True):
        rest = sum(math.exp(s / temperature) for s, counts in zip(row, negatives, strict=True) if counts)
        own = [math.exp(s / temperature) for s, counts in zip(row, positives, strict=True) if counts]
        losses.append(sum(-math.log(e / (e + rest)) for e in own) / len(own))
    return sum(losses) / len(losses)


# --- equal to sentence-transformers


@pytest.mark.peers
@pytest.mark.parametrize("hard_negatives", [0, 1, 3])
@pytest.mark.parametrize("scale", [20.0, 50.0])
def test_equals_multiple_negatives_ranking_loss_with_its_gradients(scale, hard_negatives):
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    size = 6
    queries, passages = vectors(size), vectors(size * (1 + hard_negatives), seed=1)
    theirs_in = [x.detach().clone().requires_grad_() for x in (queries, passages)]
    theirs = losses.MultipleNegativesRankingLoss(model=None, scale=scale).compute_loss_from_embeddings(
        [theirs_in[0], *theirs_in[1].split(size)], torch.arange(size)
    )
    theirs.backward()
    positive, negative = one_positive_each(size, len(passages))
    scores = dense_scores(F.normalize(queries, dim=1), F.normalize(passages, dim=1))  # as their cos_sim does inside
    ours = contrastive(scores, positive, negative, temperature=1 / scale)
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    for mine, their in zip((queries, passages), theirs_in, strict=True):
        torch.testing.assert_close(mine.grad, their.grad, atol=1e-5, rtol=1e-4)
        assert their.grad.abs().max() > 0.1
    assert theirs > 0.5


# --- equal to the formula


def test_a_batch_of_two_worked_out_by_hand():
    scores = torch.tensor([[0.5, 0.2, -0.1], [0.0, 0.4, 0.3]])
    positive = torch.tensor([[True, False, False], [False, True, True]])
    negative = torch.tensor([[False, True, True], [True, False, False]])
    e = math.exp
    first = -math.log(e(1.0) / (e(1.0) + e(0.4) + e(-0.2)))
    second = (-math.log(e(0.8) / (e(0.8) + 1)) - math.log(e(0.6) / (e(0.6) + 1))) / 2
    loss = contrastive(scores, positive, negative, temperature=0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)


@st.composite
def batches(draw):
    """(scores, positive, negative) with at least one positive a row, and pairs that are neither."""
    queries, passages = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    kinds = draw(
        st.lists(st.lists(st.sampled_from("pn-"), min_size=passages, max_size=passages), min_size=queries,
                 max_size=queries)
    )  # fmt: skip
    for row in kinds:
        row[draw(st.integers(0, passages - 1))] = "p"
    rows = [[draw(st.floats(-1, 1, width=32)) for _ in range(passages)] for _ in range(queries)]
    masks = [torch.tensor([[kind == wanted for kind in row] for row in kinds]) for wanted in "pn"]
    return torch.tensor(rows), *masks


@given(batches())
@settings(max_examples=100, deadline=None)
def test_equals_the_written_out_formula_for_any_positives_and_negatives(batch):
    scores, positive, negative = batch
    loss = contrastive(scores, positive, negative, temperature=0.1)
    assert loss.item() == pytest.approx(written_out(scores, positive, negative, 0.1), rel=1e-4, abs=1e-5)


@given(batches(), st.sampled_from([0.005, 0.02, 0.05, 1.0]))
@settings(max_examples=100, deadline=None)
def test_value_and_gradient_are_finite_at_every_temperature(batch, temperature):
    scores, positive, negative = batch
    scores.requires_grad_()
    loss = contrastive(scores, positive, negative, temperature)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss >= 0
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[positive] <= 0).all(), "a higher score of a positive never raises the loss"
    assert (scores.grad[negative] >= 0).all()
    assert (scores.grad[~positive & ~negative] == 0).all()


@given(batches(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_passages_and_of_queries_does_not_matter(batch, random):
    scores, positive, negative = batch
    columns, rows = list(range(scores.shape[1])), list(range(scores.shape[0]))
    random.shuffle(columns)
    random.shuffle(rows)
    loss = contrastive(scores, positive, negative, 0.05)
    moved = contrastive(*(x[rows][:, columns] for x in (scores, positive, negative)), 0.05)
    torch.testing.assert_close(loss, moved, atol=1e-5, rtol=1e-5)


# --- what the masks mean


def test_a_masked_pair_influences_neither_value_nor_gradient():
    positive, negative = one_positive_each(3, 5)
    negative[0, 3] = False
    losses, gradients = [], []
    for value in (-1.0, 0.0, 1.0):
        scores = torch.linspace(-0.5, 0.5, 15).reshape(3, 5).clone()
        scores[0, 3] = value
        scores.requires_grad_()
        loss = contrastive(scores, positive, negative, 0.05)
        loss.backward()
        losses.append(loss.item())
        gradients.append(scores.grad.clone())
        assert scores.grad[0, 3] == 0
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    # Were it a negative, it would count.
    negative[0, 3] = True
    scores = torch.linspace(-0.5, 0.5, 15).reshape(3, 5).clone()
    scores[0, 3] = 1.0
    assert contrastive(scores, positive, negative, 0.05).item() > losses[0] + 1


def test_masking_is_the_same_as_the_passage_not_being_there():
    scores = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    positive, negative = one_positive_each(2, 4)
    negative[:, 3] = False
    expected = contrastive(scores[:, :3], positive[:, :3], negative[:, :3], 0.5)
    assert torch.equal(contrastive(scores, positive, negative, 0.5), expected)


def test_a_query_without_negatives_costs_nothing_and_disturbs_no_gradient():
    scores = torch.tensor([[0.3, -0.2], [0.1, 0.9]], requires_grad=True)
    positive = torch.eye(2, dtype=torch.bool)
    negative = torch.tensor([[False, False], [True, False]])
    loss = contrastive(scores, positive, negative, 0.05)
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp((0.1 - 0.9) / 0.05)) / 2, rel=1e-4)
    assert scores.grad[0].tolist() == [0.0, 0.0]
    assert torch.isfinite(scores.grad).all()
    alone = torch.tensor([[0.3]], requires_grad=True)
    only = contrastive(alone, torch.tensor([[True]]), torch.tensor([[False]]), 0.05)
    only.backward()
    assert (only.item(), alone.grad.item()) == (0.0, 0.0)


def test_half_precision_scores_are_summed_in_float32():
    scores = torch.linspace(-1, 1, 24).reshape(4, 6)
    positive, negative = one_positive_each(4, 6)
    for dtype in (torch.bfloat16, torch.float16):
        loss = contrastive(scores.to(dtype), positive, negative, 0.005)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, contrastive(scores.to(dtype).float(), positive, negative, 0.005))


# --- losses from a teacher


def softmax(values):
    top = max(values)
    exponents = [math.exp(value - top) for value in values]
    return [exponent / sum(exponents) for exponent in exponents]


def rows_of(*tables):
    return zip(*(table.tolist() for table in tables), strict=True)


def mean_where(losses):
    counted = [loss for loss in losses if loss is not None]
    return sum(counted) / len(counted) if counted else 0.0


def distillation_written_out(scores, teacher, visible, temperature, teacher_temperature):
    def of_row(row, taught, seen):
        columns = [p for p, here in enumerate(seen) if here]
        if not columns:
            return None
        student = softmax([row[p] / temperature for p in columns])
        targets = softmax([taught[p] / teacher_temperature for p in columns])
        return -sum(t * math.log(s) for t, s in zip(targets, student, strict=True))

    return mean_where([of_row(*row) for row in rows_of(scores, teacher, visible)])


def ordered_written_out(scores, teacher, scored, visible, temperature, teacher_temperature):
    def of_row(row, taught, known, seen):
        ranked = sorted((p for p, here in enumerate(known) if here), key=lambda p: -taught[p])
        if not ranked:
            return None
        targets = softmax([taught[p] / teacher_temperature for p in ranked])
        loss = 0.0
        for rank, target in enumerate(targets):
            rest = [p for p, here in enumerate(seen) if here and p not in ranked[:rank]]
            probabilities = softmax([row[p] / temperature for p in rest])
            loss -= target * math.log(probabilities[rest.index(ranked[rank])])
        return loss

    return mean_where([of_row(*row) for row in rows_of(scores, teacher, scored, visible)])


def margin_written_out(scores, teacher, positive, negative, teacher_temperature):
    def of_row(row, taught, positives, negatives):
        pairs = [(p, n) for p in range(len(row)) for n in range(len(row)) if positives[p] and negatives[n]]
        if not pairs:
            return None
        errors = [(row[p] - row[n] - (taught[p] - taught[n]) / teacher_temperature) ** 2 for p, n in pairs]
        return sum(errors) / len(errors)

    return mean_where([of_row(*row) for row in rows_of(scores, teacher, positive, negative)])


@st.composite
def taught_batches(draw):
    """(scores, teacher, scored, positive, negative): pairs of no known kind, and pairs that no teacher scored."""
    scores, positive, negative = draw(batches())
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(scores.shape, generator=generator) * 3
    scored = (torch.rand(scores.shape, generator=generator) < 0.7) & (positive | negative)
    return scores, teacher.masked_fill(~scored, torch.nan), scored, positive, negative


TAUGHT = {
    "distillation": lambda s, t, scored, p, n: (
        distillation(s, t, scored, 0.5, 2.0), distillation_written_out(s, t, scored, 0.5, 2.0)
    ),
    "ordered": lambda s, t, scored, p, n: (
        ordered_distillation(s, t, scored, p | n, 0.5, 2.0), ordered_written_out(s, t, scored, p | n, 0.5, 2.0)
    ),
    "margin": lambda s, t, scored, p, n: (
        margin_mse(s, t, scored & p, scored & n, 2.0), margin_written_out(s, t, scored & p, scored & n, 2.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("both", TAUGHT.values(), ids=TAUGHT)
@given(batch=taught_batches())
@settings(max_examples=100, deadline=None)
def test_losses_from_a_teacher_equal_the_written_out_formulas(both, batch):
    scores, teacher, scored, positive, negative = batch
    scores.requires_grad_()
    loss, expected = both(scores, teacher, scored, positive, negative)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[~positive & ~negative] == 0).all()


@pytest.mark.parametrize("both", TAUGHT.values(), ids=TAUGHT)
def test_gradients_of_losses_from_a_teacher_are_those_of_finite_differences(both):
    generator = torch.Generator().manual_seed(0)
    scores, teacher = torch.randn(4, 7, generator=generator), torch.randn(4, 7, generator=generator)
    scored = torch.rand(4, 7, generator=generator) < 0.6
    scored[3] = False
    positive = torch.zeros(4, 7, dtype=torch.bool)
    positive[:, :2] = True
    negative = ~positive
    negative[1, 5:] = False
    scored &= positive | negative
    scores.requires_grad_()
    both(scores, teacher, scored, positive, negative)[0].backward()
    assert scores.grad.abs().max() > 0.1
    for row, column in ((0, 0), (0, 3), (1, 2), (1, 6), (2, 1), (3, 4)):
        ends = []
        for step in (0.01, -0.01):
            moved = scores.detach().clone()
            moved[row, column] += step
            ends.append(both(moved, teacher, scored, positive, negative)[1])
        assert scores.grad[row, column].item() == pytest.approx((ends[0] - ends[1]) / 0.02, abs=1e-3)


@pytest.mark.parametrize("both", TAUGHT.values(), ids=TAUGHT)
def test_a_batch_that_no_teacher_scored_costs_nothing(both):
    scores = torch.randn(2, 3).requires_grad_()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss, _ = both(scores, torch.full((2, 3), torch.nan), nothing, ~nothing, nothing)
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


def test_a_student_that_agrees_with_its_teacher_gets_no_gradient():
    teacher = torch.tensor([[3.0, 1.0, -2.0]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    scores = (teacher * 0.05).requires_grad_()
    distillation(scores, teacher, everything, 0.05, 1.0).backward()
    torch.testing.assert_close(scores.grad, torch.zeros(1, 3), atol=1e-5, rtol=0)


def test_margins_keep_their_digits_for_large_scores():
    scores, teacher = torch.tensor([[1000.25, 1000.0]]), torch.tensor([[5000.5, 5000.0]])
    positive = torch.tensor([[True, False]])
    assert margin_mse(scores, teacher, positive, ~positive, 1.0).item() == pytest.approx(0.0625, rel=1e-3)


# --- suspected negatives


@pytest.mark.parametrize("seed", range(5))
def test_suspects_are_those_of_the_written_out_rule(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(6, 11, generator=generator)
    kinds = torch.rand(6, 11, generator=generator)
    positive, negative = kinds < 0.2, kinds > 0.4
    found = suspects(scores, positive, negative, margin=0.1)
    expected = torch.zeros_like(found)
    for i in range(6):
        best = [scores[i, p] for p in range(11) if positive[i, p]]
        for n in range(11):
            expected[i, n] = bool(best) and negative[i, n] and scores[i, n] > max(best) + 0.1
    assert torch.equal(found, expected)
    assert 0 < found.sum() < negative.sum() / 2


def test_the_margin_is_exceeded_and_not_met_and_the_best_positive_counts():
    scores = torch.tensor([[0.5, 0.625, 0.75, 0.0]])
    positive = torch.tensor([[True, False, False, False]])
    assert suspects(scores, positive, ~positive, 0.125).tolist() == [[False, False, True, False]]
    with_a_hard_one = torch.tensor([[True, False, False, True]])
    assert suspects(scores, with_a_hard_one, ~with_a_hard_one, 0.125).tolist() == [[False, False, True, False]]
