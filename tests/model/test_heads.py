import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model import heads as heads_module
from m3tune.model.heads import new_head, project, sparse_weights, token_vectors, weightless_ids
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder
from m3tune.vectors import Embeddings, MultiVector, Sparse, offsets_of, owners, ranges, split_at, take, without_zeros
from tiny import tiny_tokenizer

WEIGHTLESS = torch.tensor([0, 1, 2, 3])
MIXES = {
    "one text": [[0, 9, 8, 9, 2]],
    "repeats": [[0, 7, 7, 7, 2], [0, 2], [0, 5, 6, 5, 6, 5, 2], [0, 7, 2]],
    "unsorted with unknown": [[0, 9, 3, 8, 4, 9, 2], [0, 4, 2], [0, 30, 31, 4, 2, 2], [0, 4, 2], [0, 1, 3, 2]],
}


def packed_and_states(texts, hidden=6, seed=0):
    """The packed row with random states, and each text's own states in the order given."""
    packed = pack([np.array(text) for text in texts])
    states = torch.randn(packed.num_tokens, hidden, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    starts, lengths = packed.starts[packed.slots].tolist(), packed.lengths[packed.slots].tolist()
    return packed, states, [states[s : s + n] for s, n in zip(starts, lengths, strict=True)]


def plain_sparse(texts, each, linear, vocabulary=64):
    """(N, V): M3's definition, text by text and token by token."""
    table = torch.zeros(len(texts), vocabulary)
    for row, (text, states) in enumerate(zip(texts, each, strict=True)):
        weights = torch.relu(linear(states)).squeeze(1)
        for token in set(text) - set(WEIGHTLESS.tolist()):
            table[row, token] = torch.stack([w for w, t in zip(weights, text, strict=True) if t == token]).max()
    return table


def as_table(sparse, vocabulary=64):
    table = torch.zeros(len(sparse.offsets) - 1, vocabulary)
    return table.index_put((owners(sparse.offsets), sparse.token_ids), sparse.weights)


def gradients(output, upstream, inputs):
    return torch.autograd.grad(output, inputs, upstream, retain_graph=True)


# --- the heads equal their definitions


@pytest.mark.parametrize("chunk", [1, 3, 4096])
@pytest.mark.parametrize("texts", MIXES.values(), ids=MIXES)
def test_sparse_weights_and_gradients_equal_the_definition(monkeypatch, texts, chunk):
    monkeypatch.setattr(heads_module, "_CHUNK_TOKENS", chunk)
    packed, states, each = packed_and_states(texts)
    linear = new_head("sparse", 6)
    ours, plain = as_table(sparse_weights(states, packed, linear, WEIGHTLESS)), plain_sparse(texts, each, linear)
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)
    upstream = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1))
    inputs = (states, linear.weight, linear.bias)
    for mine, expected in zip(gradients(ours, upstream, inputs), gradients(plain, upstream, inputs), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)
        assert expected.abs().max() > 0.1


def test_sparse_entries_are_ordered_distinct_and_hold_no_special_token():
    texts = MIXES["unsorted with unknown"]
    packed, states, _ = packed_and_states(texts)
    sparse = sparse_weights(states, packed, new_head("sparse", 6), WEIGHTLESS)
    ids = [sparse.token_ids[a:b].tolist() for a, b in zip(sparse.offsets[:-1], sparse.offsets[1:], strict=True)]
    assert ids == [[4, 8, 9], [4], [4, 30, 31], [4], []]
    assert sparse.weights.dtype == torch.float32
    assert (sparse.weights == 0).any(), "weights of zero stay while training"
    stored = without_zeros(sparse)
    assert torch.equal(as_table(stored), as_table(sparse))
    assert (stored.weights > 0).all()
    assert 0 < len(stored.weights) < len(sparse.weights)


def test_two_places_of_an_id_that_tie_share_the_gradient():
    packed = pack([np.array([0, 7, 7, 2])])
    states = torch.ones(4, 3, requires_grad=True)
    linear = nn.Linear(3, 1)
    nn.init.ones_(linear.weight)
    sparse_weights(states, packed, linear, WEIGHTLESS).weights.sum().backward()
    assert states.grad[:, 0].tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("chunk", [1, 3, 4096])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("texts", MIXES.values(), ids=MIXES)
def test_token_vectors_and_gradients_equal_the_definition(monkeypatch, texts, normalize, chunk):
    monkeypatch.setattr(heads_module, "_CHUNK_TOKENS", chunk)
    packed, states, each = packed_and_states(texts)
    linear = new_head("multi", 6, 4)
    multi = token_vectors(states, packed, linear, normalize=normalize)
    assert multi.offsets.diff().tolist() == [len(text) - 1 for text in texts]
    plain = torch.cat([linear(of_text[1:]) for of_text in each])
    plain = F.normalize(plain, dim=1) if normalize else plain
    torch.testing.assert_close(multi.vectors, plain, atol=1e-6, rtol=1e-5)
    upstream = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1))
    inputs = (states, linear.weight, linear.bias)
    expected = gradients(plain, upstream, inputs)
    for mine, theirs in zip(gradients(multi.vectors, upstream, inputs), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        assert theirs.abs().max() > 0.1


def test_heads_compute_in_float32_from_states_of_half_precision():
    packed, states, _ = packed_and_states(MIXES["repeats"], hidden=32)
    half = states.detach().bfloat16().requires_grad_()
    exact = half.detach().float().requires_grad_()
    linear = new_head("multi", 32)
    rows = torch.arange(packed.num_tokens)
    ours, expected = project(half, rows, linear, normalize=True), project(exact, rows, linear, normalize=True)
    assert torch.equal(ours, expected)
    ours.square().sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_frozen_states_get_no_gradient_and_the_head_the_same_one():
    packed, states, _ = packed_and_states(MIXES["repeats"])
    linear = new_head("sparse", 6)
    found = []
    for given in (states, states.detach()):
        linear.zero_grad()
        as_table(sparse_weights(given, packed, linear, WEIGHTLESS)).sum().backward()
        found.append(linear.weight.grad.clone())
    assert torch.equal(*found)
    assert found[0].abs().max() > 0.1


# --- which ids, and new heads


def test_weightless_ids_are_cls_end_padding_and_unknown_but_not_a_mask():
    xlm = tiny_tokenizer("xlm-roberta")
    xlm.add_special_tokens({"mask_token": "<mask>"})
    xlm.eos_token = xlm.sep_token
    assert weightless_ids(xlm) == [0, 1, 2, 3]
    assert xlm.mask_token_id not in weightless_ids(xlm)
    bert = tiny_tokenizer("bert")
    assert bert.eos_token_id is None
    assert weightless_ids(bert) == sorted(bert.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]"]))


def test_a_new_head_is_the_same_each_time_and_leaves_torchs_random_numbers_alone():
    state = torch.get_rng_state()
    first = new_head("multi", 32, 8)
    torch.rand(3)
    again = new_head("multi", 32, 8)
    assert torch.equal(first.weight, again.weight)
    torch.set_rng_state(state)
    torch.testing.assert_close(first.weight @ first.weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert new_head("multi", 32).weight.shape == (32, 32)
    assert new_head("sparse", 32).weight.shape == (1, 32)


# --- the encoder


@pytest.fixture(scope="module")
def m3(m3_folder):
    return load_encoder(ModelConfig(path=str(m3_folder)))[0]


def test_an_encoder_computes_the_heads_that_are_asked_for(m3):
    packed = pack([np.array([0, 9, 8, 2]), np.array([0, 30, 2])])
    with torch.no_grad():
        everything = m3(packed)
        only = m3(packed, heads=("sparse",))
    assert everything.dense.shape == (2, 32)
    assert everything.multi.vectors.shape == (5, 32)
    assert only.dense is only.multi is None
    assert torch.equal(only.sparse.weights, everything.sparse.weights)
    for name in ("dense", "sparse", "multi"):
        assert sum(part is not None for part in m3(packed, heads=(name,))) == 1


def test_a_head_that_is_not_there_is_an_error_with_a_way_out(tiny_folders):
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    with pytest.raises(ModelError, match="has no sparse head, only dense") as caught:
        encoder(pack([np.array([4, 5])]), heads=("dense", "sparse"))
    assert "model.new_heads" in caught.value.fix


def test_heads_stay_in_float32_under_autocast(m3):
    packed = pack([np.array([0, 9, 8, 2]), np.array([0, 30, 2])])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = m3(packed)
    with torch.no_grad():
        full = m3(packed)
    assert {half.dense.dtype, half.sparse.weights.dtype, half.multi.vectors.dtype} == {torch.float32}
    torch.testing.assert_close(half.multi.vectors.norm(dim=1), torch.ones(5))
    assert 0 < (half.multi.vectors - full.multi.vectors).abs().max() < 0.1


# --- ragged tensors


def ragged(lengths, seed=0):
    offsets = offsets_of(torch.tensor(lengths))
    generator = torch.Generator().manual_seed(seed)
    count = int(offsets[-1])
    vectors = torch.randn(count, 3, generator=generator)
    return Sparse(torch.arange(count), vectors[:, 0], offsets), MultiVector(vectors, offsets)


def rows_of(multi):
    return [multi.vectors[a:b].tolist() for a, b in zip(multi.offsets[:-1], multi.offsets[1:], strict=True)]


def test_ranges_of_nothing():
    empty = torch.zeros(0, dtype=torch.int64)
    assert ranges(empty, empty).tolist() == []


def test_split_at_gives_queries_and_passages_and_one_whole_gradient():
    sparse, multi = ragged([2, 0, 3, 1])
    multi.vectors.requires_grad_()
    whole = Embeddings(torch.arange(8.0).reshape(4, 2), sparse, multi)
    for count in range(5):
        first, rest = split_at(whole, count)
        assert rows_of(first.multi) + rows_of(rest.multi) == rows_of(multi)
        assert first.dense.tolist() + rest.dense.tolist() == whole.dense.tolist()
        assert torch.equal(torch.cat([first.sparse.weights, rest.sparse.weights]), sparse.weights)
        assert len(first.sparse.offsets) == count + 1
    first, rest = split_at(whole, 2)
    (first.multi.vectors.sum() * 2 + rest.multi.vectors.sum() * 3).backward()
    assert multi.vectors.grad[:, 0].tolist() == [2, 2, 3, 3, 3, 3]
    assert split_at(Embeddings(dense=whole.dense), 1)[0].multi is None


def test_take_picks_texts_in_any_order_and_again():
    sparse, multi = ragged([2, 0, 3, 1])
    taken = take(multi, torch.tensor([3, 0, 1, 3]))
    assert rows_of(taken) == [rows_of(multi)[i] for i in (3, 0, 1, 3)]
    assert take(sparse, torch.tensor([2])).token_ids.tolist() == [2, 3, 4]
