import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from m3tune.model.backbone import load_backbone, longest_text_tokens, position_offset, run_packed
from m3tune.model.encoder import Encoder, pool, set_dropout
from m3tune.model.packing import LengthRun, pack, token_budget_batches
from m3tune.model.settings import EncoderSettings
from tiny import KINDS, MAX_TOKENS, tiny_model, tiny_tokenizer

MIXES = {
    "one text": [9],
    "one token": [1],
    "one and two tokens": [2, 1, 2],
    "all equal": [6, 6, 6, 6],
    "sorted": [1, 2, 3, 3, 10],
    "unsorted": [7, 3, 48, 3, 1, 20, 7, 2],
    "longest first": [30, 12, 12, 5, 4],
}
POOLINGS = ("cls", "mean", "last")


def random_texts(lengths, vocabulary=64, seed=0):
    """Token ids from 4 on: none is a padding token of any kind."""
    generator = np.random.default_rng(seed)
    return [generator.integers(4, vocabulary, size=length).astype(np.int32) for length in lengths]


def padded(texts, padding_id):
    """Input ids and attention mask, (N, L) each, as a tokenizer pads them."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), padding_id)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    return ids, mask


def padded_vectors(model, texts, pooling):
    """The plain way, by transformers alone: (N, D)."""
    ids, mask = padded(texts, model.config.pad_token_id)
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(texts)), mask.sum(1) - 1]
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@pytest.fixture(scope="module")
def both_ways(tiny_folders):
    """kind -> (our backbone on packed rows, the same weights in plain transformers with padding)."""
    return {
        kind: (load_backbone(folder), AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval())
        for kind, folder in tiny_folders.items()
    }


def packed_vectors(backbone, texts, pooling):
    packed = pack(texts)
    return pool(run_packed(backbone, packed), packed, pooling)[packed.slots]


# --- the packed forward equals the padded one


@pytest.mark.parametrize("lengths", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_token_states_equal_the_padded_forward_of_plain_transformers(both_ways, kind, lengths):
    backbone, plain = both_ways[kind]
    texts = random_texts(lengths)
    packed = pack(texts)
    ids, mask = padded(texts, plain.config.pad_token_id)
    with torch.no_grad():
        states = run_packed(backbone, packed)
        expected = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    for row, slot in enumerate(packed.slots.tolist()):
        start, length = int(packed.starts[slot]), int(packed.lengths[slot])
        assert length == len(texts[row])
        torch.testing.assert_close(states[start : start + length], expected[row, :length], atol=1e-5, rtol=1e-5)
    assert expected[mask.bool()].std() > 0.1, "states all alike would prove nothing"


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_gradients_equal_the_padded_way_for_every_pooling(both_ways, kind, pooling):
    backbone, plain = both_ways[kind]
    texts = random_texts(MIXES["unsorted"])
    weights = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    vectors = []
    for model, way in ((backbone, packed_vectors), (plain, padded_vectors)):
        model.zero_grad()
        vector = way(model, texts, pooling)
        (vector * weights).sum().backward()
        vectors.append(vector.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-5, rtol=1e-5)
    ours, expected = gradients
    encoder_parameters = {name for name, _ in plain.named_parameters() if not name.startswith("pooler.")}
    assert set(ours) == set(expected) == encoder_parameters
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    # Which is no triviality: biases of keys cancel in a softmax, every other gradient is far above the tolerance.
    silent = {name for name, gradient in expected.items() if gradient.abs().max() < 1e-2}
    assert silent == {name for name in expected if name.endswith("key.bias")}


@pytest.mark.parametrize("kind", KINDS)
def test_changing_one_text_changes_its_own_vector_and_no_other(both_ways, kind):
    backbone, _ = both_ways[kind]
    texts = random_texts(MIXES["unsorted"])
    changed = [text.copy() for text in texts]
    changed[3][1] = 4 if changed[3][1] != 4 else 5  # one token inside a run of two texts
    with torch.no_grad():
        before, after = packed_vectors(backbone, texts, "mean"), packed_vectors(backbone, changed, "mean")
    differs = (before != after).any(dim=1)
    assert differs.tolist() == [False, False, False, True, False, False, False, False]


def test_the_order_of_tokens_in_a_text_matters(both_ways):
    backbone, _ = both_ways["bert"]
    text = np.array([4, 9, 20, 31])
    with torch.no_grad():
        forward, backward = packed_vectors(backbone, [text, text[::-1].copy()], "mean")
    assert (forward - backward).abs().max() > 1e-2


# --- positions


@pytest.mark.parametrize(("kind", "first"), [("bert", 0), ("roberta", 2), ("xlm-roberta", 2)])
def test_roberta_kinds_count_positions_from_the_padding_index_plus_one(both_ways, kind, first):
    backbone, _ = both_ways[kind]
    seen = []
    hook = backbone.embeddings.position_embeddings.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    run_packed(backbone, pack(random_texts([3, 2])))
    hook.remove()
    assert position_offset(backbone) == first
    assert seen[0].flatten().tolist()[:5] == [first, first + 1, first, first + 1, first + 2]


def test_the_offset_follows_the_padding_index_of_the_model():
    assert position_offset(tiny_model("xlm-roberta", pad_token_id=3, max_position_embeddings=60)) == 4
    assert position_offset(tiny_model("bert", pad_token_id=3)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_as_long_as_the_limit_runs_and_a_longer_one_cannot(both_ways, kind):
    backbone, _ = both_ways[kind]
    tokenizer = tiny_tokenizer(kind)
    tokenizer.model_max_length = 10**30  # as tokenizers say that know no limit
    longest = longest_text_tokens(backbone, tokenizer)
    assert longest == MAX_TOKENS
    run_packed(backbone, pack(random_texts([longest])))
    with pytest.raises((IndexError, RuntimeError), match="out of "):
        run_packed(backbone, pack(random_texts([longest + 1])))


# --- the encoder on top


def test_the_encoder_gives_vectors_of_length_one_in_the_order_of_the_texts(both_ways):
    backbone, _ = both_ways["bert"]
    texts = random_texts(MIXES["unsorted"])
    vectors = {}
    for normalize in (True, False):
        encoder = Encoder(backbone, tiny_tokenizer(), EncoderSettings("mean", normalize, "", "", 48, 48))
        with torch.no_grad():
            vectors[normalize] = encoder(pack(texts)).dense
            alone = torch.cat([encoder(pack([text])).dense for text in texts])
        torch.testing.assert_close(vectors[normalize], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vectors[True].norm(dim=1), torch.ones(len(texts)))
    torch.testing.assert_close(vectors[True], torch.nn.functional.normalize(vectors[False], dim=1))
    assert (vectors[False].norm(dim=1) - 1).abs().min() > 0.1


def test_setting_dropout_reaches_every_layer_and_makes_training_passes_random(tiny_folders):
    encoder = Encoder(
        load_backbone(tiny_folders["bert"]), tiny_tokenizer(), EncoderSettings("cls", True, "", "", 48, 48)
    ).train()
    packed = pack(random_texts([5, 9]))
    assert not torch.equal(encoder(packed).dense, encoder(packed).dense), "this encoder comes with dropout 0.1"
    set_dropout(encoder, 0.0)
    assert torch.equal(encoder(packed).dense, encoder(packed).dense)
    set_dropout(encoder, 0.3)
    assert {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    attention = encoder.backbone.encoder.layer[0].attention.self
    attention.dropout.p = 0.9
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout) and module is not attention.dropout:
            module.p = 0.0
    assert not torch.equal(encoder(packed).dense, encoder(packed).dense), "dropout of attention is passed to the kernel"


# --- properties of pack and of batches by token budget

lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=30)


@given(lengths_lists, st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_pack_keeps_every_text_whole_and_findable(lengths, seed):
    texts = random_texts(lengths, seed=seed)
    packed = pack(texts)
    assert packed.num_tokens == sum(lengths)
    assert len(packed) == len(texts)
    assert sorted(packed.slots.tolist()) == list(range(len(texts)))
    for text, slot in zip(texts, packed.slots.tolist(), strict=True):
        start, length = int(packed.starts[slot]), int(packed.lengths[slot])
        assert packed.input_ids[start : start + length].tolist() == text.tolist()
        assert packed.positions[start : start + length].tolist() == list(range(len(text)))
        assert packed.text_of_token()[start : start + length].tolist() == [slot] * length


@given(lengths_lists)
@settings(max_examples=50, deadline=None)
def test_runs_cover_the_row_without_gaps_and_grow_in_length(lengths):
    packed = pack(random_texts(lengths))
    ends = [run.start + run.count * run.length for run in packed.runs]
    assert [run.start for run in packed.runs] == [0, *ends[:-1]]
    assert ends[-1] == packed.num_tokens
    assert [run.length for run in packed.runs] == sorted(set(lengths))
    assert [run.count for run in packed.runs] == [lengths.count(length) for length in sorted(set(lengths))]


def test_a_row_worked_out_by_hand():
    packed = pack([np.array([7, 8, 9]), np.array([4]), np.array([5, 6, 7])])
    assert packed.input_ids.tolist() == [4, 7, 8, 9, 5, 6, 7]
    assert packed.positions.tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert packed.slots.tolist() == [1, 0, 2]
    assert packed.starts.tolist() == [0, 1, 4]
    assert packed.lengths.tolist() == [1, 3, 3]
    assert packed.runs == (LengthRun(0, 1, 1), LengthRun(1, 2, 3))


@pytest.mark.parametrize("texts", [[], [np.array([4]), np.array([], dtype=np.int64)]], ids=["no text", "empty text"])
def test_pack_refuses_texts_without_tokens(texts):
    with pytest.raises(ValueError, match="without tokens"):
        pack(texts)


@given(lengths_lists, st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_token_budget_batches_hold_every_text_once_longest_first_within_the_budget(lengths, budget):
    lengths = np.array(lengths)
    batches = list(token_budget_batches(lengths, budget))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].sum() <= budget
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget, "no batch is smaller than it must be"


def test_no_texts_make_no_batches():
    assert list(token_budget_batches(np.zeros(0, dtype=np.int64), 10)) == []


def test_rows_come_to_the_backbone_in_few_sizes():
    """A text that nobody reads fills them up; what is read of the others is the same to rounding."""
    backbone, seen = tiny_model(), []
    backbone.register_forward_pre_hook(lambda _, args, named: seen.append(named["input_ids"].shape), with_kwargs=True)
    for lengths in ([9], [40, 3], [16, 16], [20, 11, 2], [40] * 52, [40] * 103, [40] * 206):
        packed = pack(random_texts(lengths))
        assert run_packed(backbone, packed).shape[0] == packed.num_tokens == sum(lengths)
    assert seen == [(1, 32), (1, 64), (1, 32), (1, 64), (1, 2112), (1, 4224), (1, 8320)]
