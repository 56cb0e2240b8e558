import inspect
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from m3tune.errors import ModelError
from m3tune.model import attention
from m3tune.model.attention import _blocks, blocked_attention, packed_attention
from m3tune.model.packing import LengthRun

SHAPES = [(1, 1, 1, 4), (1, 2, 7, 8), (5, 2, 3, 4), (7, 3, 10, 8), (4, 4, 16, 16), (13, 1, 5, 6)]  # (n, H, L, E)
BIG_BLOCK = 2 * 2**20


def math_attention(query, key, value, scale):
    """The formula, term by term."""
    scores = torch.einsum("nhqe,nhke->nhqk", query, key) * scale
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("nhqk,nhke->nhqe", weights, value)


def random_heads(shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def values_and_gradients(attend, inputs, seed=1):
    """The output and the gradients of query, key and value for one random gradient of the output."""
    copies = [x.detach().clone().requires_grad_() for x in inputs]
    output = attend(*copies, 0.4)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
    output.backward(upstream.to(output.dtype))
    return [output.detach(), *(x.grad for x in copies)]


def row_of(inputs):
    """(n, H, L, E) -> (1, H, n * L, E), as transformers hands a packed row of one run over."""
    return [x.detach().transpose(0, 1).flatten(1, 2)[None] for x in inputs]


# --- blocked attention equals the formula


@pytest.mark.parametrize("texts_a_block", [1, 2, 3, None], ids=lambda n: f"{n or 'all'} texts a block")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocked_attention_equals_the_formula_with_all_gradients(monkeypatch, shape, texts_a_block):
    n, heads, length, _ = shape
    # One byte short of another text: block sizes that divide neither n nor the budget.
    budget = BIG_BLOCK if texts_a_block is None else (texts_a_block + 1) * heads * length * length * 4 - 1
    monkeypatch.setattr(attention, "_BLOCK_BYTES", budget)
    inputs = random_heads(shape)
    sizes = [block.stop - block.start for block in _blocks(inputs[0])]
    assert sum(sizes) == n
    assert max(sizes) <= (texts_a_block or n)
    assert set(sizes) <= {1, 4, 16}
    ours = values_and_gradients(blocked_attention, inputs)
    expected = values_and_gradients(math_attention, inputs)
    for name, mine, plain in zip(("output", "query", "key", "value"), ours, expected, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-5, msg=lambda text, what=name: f"{what}: {text}")
    assert expected[0].abs().max() > 0.1


def test_a_text_larger_than_the_budget_is_a_block_of_its_own(monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK_BYTES", 1)
    inputs = random_heads((3, 2, 6, 4))
    assert [block.stop - block.start for block in _blocks(inputs[0])] == [1, 1, 1]
    torch.testing.assert_close(blocked_attention(*inputs, 0.4), math_attention(*inputs, 0.4), atol=1e-5, rtol=1e-5)


def test_without_gradients_the_result_is_the_same_and_nothing_is_kept():
    inputs = random_heads((5, 2, 6, 8))
    with torch.no_grad():
        plain = blocked_attention(*inputs, 0.4)
    with_graph = blocked_attention(*inputs, 0.4)
    assert torch.equal(plain, with_graph)
    assert plain.grad_fn is None
    assert with_graph.grad_fn is not None


def test_the_gradient_is_that_of_finite_differences():
    inputs = [x.detach().double().requires_grad_() for x in random_heads((3, 2, 4, 3))]
    assert torch.autograd.gradcheck(lambda q, k, v: blocked_attention(q, k, v, 0.7), inputs)


@pytest.mark.parametrize("shape", [(7, 3, 10, 8), (4, 2, 33, 16), (2, 4, 128, 32)], ids=str)
def test_bfloat16_is_nearly_as_near_to_float32_as_torchs_own_kernel(monkeypatch, shape):
    _, heads, length, _ = shape
    monkeypatch.setattr(attention, "_BLOCK_BYTES", 2 * heads * length * length * 2)
    rounded = random_heads(shape, dtype=torch.bfloat16)
    exact = values_and_gradients(math_attention, [x.float() for x in rounded])

    def sdpa(query, key, value, scale):
        return F.scaled_dot_product_attention(query, key, value, scale=scale)

    ours = values_and_gradients(blocked_attention, rounded)
    theirs = values_and_gradients(sdpa, rounded)
    for mine, torchs, right in zip(ours, theirs, exact, strict=True):
        error = (mine.float() - right).norm() / right.norm()
        their_error = (torchs.float() - right).norm() / right.norm()
        assert 0 < error < 0.01  # bfloat16 has 8 bits
        assert error < 5 * their_error  # torch keeps the probabilities in float32, we do not


# --- the function that transformers calls


class Layer(nn.Module):
    """Stands for the attention layer that transformers passes; nothing of it is read."""


def attend_row(inputs, runs, **options):
    return packed_attention(Layer(), *inputs, None, packed_runs=runs, **options)


def test_each_text_of_a_row_attends_to_itself_alone():
    runs = (LengthRun(0, 3, 2), LengthRun(6, 1, 5), LengthRun(11, 2, 7))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 25, 8, generator=generator) for _ in range(3))
    output, weights = attend_row((query, key, value), runs)
    assert weights is None
    assert output.shape == (1, 25, 2, 8)
    lengths = [2, 2, 2, 5, 7, 7]
    start = 0
    for length in lengths:
        text = slice(start, start + length)
        alone = math_attention(query[:, :, text], key[:, :, text], value[:, :, text], 8**-0.5)
        torch.testing.assert_close(output[:, text], alone.transpose(1, 2), atol=1e-5, rtol=1e-5)
        start += length
    assert start == 25


def test_the_variable_length_kernel_is_given_texts_as_it_wants_them(monkeypatch):
    """The kernel itself runs on a GPU alone; here one in plain torch stands for it, with its signature."""
    from torch.nn.attention import varlen

    def plain(q, k, v, ends_q, ends_k, longest_q, longest_k, *, scale):
        assert ends_q.dtype == ends_k.dtype == torch.int32
        assert longest_q == longest_k == ends_q.diff().max()
        texts = [slice(first, last) for first, last in pairwise(ends_q.tolist())]
        of_texts = [[x[text].transpose(0, 1)[None] for x in (q, k, v)] for text in texts]  # (1, H, L, E)
        return torch.cat([math_attention(*text, scale)[0].transpose(0, 1) for text in of_texts])

    positional = [
        name for name, one in inspect.signature(varlen.varlen_attn).parameters.items() if one.kind != one.KEYWORD_ONLY
    ]
    assert positional == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    monkeypatch.setattr(varlen, "varlen_attn", plain)
    runs = (LengthRun(0, 3, 2), LengthRun(6, 1, 5), LengthRun(11, 2, 7))
    row = [x.detach() for x in random_heads((1, 2, 25, 8))]
    expected, _ = attend_row(row, runs)
    ends = attention.text_ends(runs)
    assert ends.tolist() == [0, 2, 4, 6, 11, 18, 25]
    found = attention._varlen_attention(*row, ends, 7, 8**-0.5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_scaling_is_the_models_own_where_it_has_one():
    inputs = random_heads((1, 2, 6, 8))
    runs = (LengthRun(0, 1, 6),)
    default, _ = attend_row(row_of(inputs), runs)
    own, _ = attend_row(row_of(inputs), runs, scaling=1.0)
    torch.testing.assert_close(default.transpose(1, 2), math_attention(*inputs, 8**-0.5), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.transpose(1, 2), math_attention(*inputs, 1.0), atol=1e-5, rtol=1e-5)
    assert (default - own).abs().max() > 0.1


@pytest.fixture
def kernels(monkeypatch):
    """Names of the kernels that ran, and torch's dropout_p."""
    used = []
    ours, torchs = blocked_attention, F.scaled_dot_product_attention

    def blocked(*args):
        used.append("blocked")
        return ours(*args)

    def sdpa(*args, **options):
        used.append(("sdpa", options["dropout_p"]))
        return torchs(*args, **options)

    monkeypatch.setattr(attention, "blocked_attention", blocked)
    monkeypatch.setattr(F, "scaled_dot_product_attention", sdpa)
    return used


@pytest.mark.parametrize(
    ("dtype", "dropout", "kernel"),
    [
        (torch.float32, 0.0, ("sdpa", 0.0)),
        (torch.bfloat16, 0.0, "blocked"),
        (torch.bfloat16, 0.1, ("sdpa", 0.1)),
        (torch.float32, 0.1, ("sdpa", 0.1)),
    ],
)
def test_bfloat16_on_the_cpu_runs_blocked_unless_there_is_dropout(kernels, dtype, dropout, kernel):
    inputs = row_of(random_heads((2, 2, 6, 8), dtype=dtype))
    output, _ = attend_row(inputs, (LengthRun(0, 2, 6),), dropout=dropout)
    assert kernels == [kernel]
    assert output.dtype == dtype
    assert torch.isfinite(output).all()


def test_dropout_makes_two_passes_differ():
    inputs = row_of(random_heads((2, 2, 6, 8)))
    runs = (LengthRun(0, 2, 6),)
    assert not torch.equal(attend_row(inputs, runs, dropout=0.5)[0], attend_row(inputs, runs, dropout=0.5)[0])
    assert torch.equal(attend_row(inputs, runs)[0], attend_row(inputs, runs)[0])


def test_a_text_longer_than_the_sliding_window_is_refused_with_the_limit():
    inputs = row_of(random_heads((1, 2, 9, 8)))
    runs = (LengthRun(0, 1, 9),)
    with pytest.raises(ModelError, match="sliding window") as caught:
        attend_row(inputs, runs, sliding_window=8)
    assert caught.value.fix == "set model.passage_max_tokens to at most 8"
    full, _ = attend_row(inputs, runs)
    within, _ = attend_row(inputs, runs, sliding_window=9)
    assert torch.equal(full, within)


def test_products_come_in_few_sizes_whatever_the_lengths_and_the_number_of_texts(monkeypatch):
    """oneDNN keeps its kernels for every size; these texts of 33 to 48 tokens share theirs, forward and backward."""
    seen, real = set(), torch.matmul

    def spied(a, b):
        seen.add((tuple(a.shape), tuple(b.shape)))
        return real(a, b)

    monkeypatch.setattr(torch, "matmul", spied)
    for length in range(33, 49):
        texts = length - 32
        query, key, value = (torch.randn(texts, 3, length, 8, requires_grad=True) for _ in range(3))
        blocked_attention(query, key, value, 0.3).sum().backward()
    scores = {((n, 3, 48, 8), (n, 3, 8, 48)) for n in (1, 4, 16)}
    sums = {((n, 3, 48, 48), (n, 3, 48, 8)) for n in (1, 4, 16)}
    assert seen == scores | sums
