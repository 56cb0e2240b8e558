"""Heads, scores and folders against FlagEmbedding."""

import shutil

import numpy as np
import pytest
import torch

from flag import flag_bge, flag_model, padded, random_texts
from m3tune.config import ModelConfig
from m3tune.data.tokens import tokenize
from m3tune.model.heads import HEAD_FILES
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.scoring import head_scores, hybrid
from m3tune.vectors import split_at, without_zeros
from tiny import MAX_TOKENS

pytestmark = pytest.mark.peers

TEXTS = [
    "c01 r02",
    "r05 c03 c03 r17 unknown r05",
    "c00",
    "r01 r02 r03 r04 c05 c06 c07 c08 r09",
    " ".join(f"r{i % 40:02d}" for i in range(70)),  # more than the encoder can take
]
SENTENCES = [
    "How do vaccines train the immune system?",
    "Naïve T cells — not B cells — respond first, and T cells last.",
    "0-dimensional biomaterials show inductive properties.",
    "A long passage, and then the passage goes on. " * 30,
    "x",
]


def load(folder, **settings):
    return load_encoder(ModelConfig(path=str(folder), **settings))[0]


@torch.no_grad()
def ours_of(encoder, texts, max_tokens):
    table = tokenize(texts, encoder.tokenizer, max_tokens)
    return encoder(pack([table[i] for i in range(len(table))]))


def assert_same_vectors(ours, theirs):
    np.testing.assert_allclose(ours.dense.numpy(), theirs["dense_vecs"], atol=1e-5)
    sparse = without_zeros(ours.sparse)
    bounds = zip(sparse.offsets[:-1].tolist(), sparse.offsets[1:].tolist(), strict=True)
    for (begin, end), expected in zip(bounds, theirs["lexical_weights"], strict=True):
        found = dict(zip(sparse.token_ids[begin:end].tolist(), sparse.weights[begin:end].tolist(), strict=True))
        assert found == pytest.approx({int(token): float(weight) for token, weight in expected.items()}, abs=1e-5)
    bounds = zip(ours.multi.offsets[:-1].tolist(), ours.multi.offsets[1:].tolist(), strict=True)
    for (begin, end), expected in zip(bounds, theirs["colbert_vecs"], strict=True):
        np.testing.assert_allclose(ours.multi.vectors[begin:end].numpy(), expected, atol=1e-5)
    assert sum(map(len, theirs["lexical_weights"])) > 5, "no weights would be equal too"


def all_heads(bge, texts, max_tokens):
    return bge.encode(texts, max_length=max_tokens, return_dense=True, return_sparse=True, return_colbert_vecs=True)


@pytest.fixture(scope="module", params=["xlm-roberta", "MiniLM with new heads"])
def both(request):
    """(our encoder, FlagEmbedding's, texts, most tokens)"""
    if request.param == "xlm-roberta":
        folder = request.getfixturevalue("m3_folder")
        return load(folder), flag_bge(folder), TEXTS, MAX_TOKENS
    folder = request.getfixturevalue("minilm_m3_folder")
    return load(folder), flag_bge(folder, pooling_method="mean"), SENTENCES, 128


def test_the_three_kinds_of_vector_are_flagembeddings(both):
    encoder, bge, texts, max_tokens = both
    assert_same_vectors(ours_of(encoder, texts, max_tokens), all_heads(bge, texts, max_tokens))


def test_compute_score_gives_our_scores(both):
    encoder, bge, texts, max_tokens = both
    pairs = [(texts[i], texts[j]) for i in range(len(texts)) for j in range(len(texts))]
    # One pair a batch: FlagEmbedding's multi-vector scores change with the padding of other pairs.
    theirs = bge.compute_score(
        pairs, batch_size=1, max_query_length=max_tokens, max_passage_length=max_tokens,
        weights_for_different_modes=[1, 0.3, 1],
    )  # fmt: skip
    ours = ours_of(encoder, [*texts, *texts], max_tokens)
    scores = head_scores(*split_at(ours, len(texts)))
    mixed = hybrid(scores, {"dense": 1, "sparse": 0.3, "multi": 1}) / 2.3
    for name, mine in (("dense", scores["dense"]), ("sparse", scores["sparse"]), ("colbert", scores["multi"]),
                       ("colbert+sparse+dense", mixed)):  # fmt: skip
        np.testing.assert_allclose(mine.flatten().numpy(), theirs[name], atol=1e-5, rtol=1e-5, err_msg=name)
        assert np.std(theirs[name]) > 1e-2


# --- folders


def test_a_saved_folder_gives_the_same_vectors_in_flagembedding_and_sentence_transformers(m3_folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load(m3_folder)
    save_encoder(encoder, tmp_path)
    ours = ours_of(load(tmp_path), TEXTS, MAX_TOKENS)
    assert_same_vectors(ours, all_heads(flag_bge(tmp_path), TEXTS, MAX_TOKENS))
    dense = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours.dense.numpy(), dense, atol=1e-5)


def test_a_folder_that_flagembedding_saved_loads_with_the_same_vectors(m3_folder, tmp_path):
    theirs = flag_model(m3_folder)
    with torch.no_grad():
        theirs.sparse_linear.weight.mul_(2)
    theirs.save(str(tmp_path))
    theirs.tokenizer.save_pretrained(tmp_path)
    encoder, why = load_encoder(ModelConfig(path=str(tmp_path)))
    assert "CLS pooling" in why
    assert "dense, sparse, multi" in why
    assert_same_vectors(ours_of(encoder, TEXTS, MAX_TOKENS), all_heads(flag_bge(tmp_path), TEXTS, MAX_TOKENS))


def test_multi_vectors_shorter_than_the_hidden_size(m3_folder, tmp_path):
    encoder = load(m3_folder, new_heads=("multi",), multi_dim=8)
    save_encoder(encoder, tmp_path)
    ours = ours_of(load(tmp_path), TEXTS, MAX_TOKENS)
    assert ours.multi.vectors.shape[1] == 8
    assert_same_vectors(ours, all_heads(flag_bge(tmp_path, colbert_dim=8), TEXTS, MAX_TOKENS))


# --- where FlagEmbedding is otherwise


def test_without_one_head_file_flagembedding_draws_both_heads_at_random_and_we_load_the_one(m3_folder, tmp_path):
    folder = shutil.copytree(m3_folder, tmp_path / "one")
    (folder / HEAD_FILES["multi"]).unlink()
    encoder, why = load_encoder(ModelConfig(path=str(folder)))
    assert encoder.settings.heads == ("dense", "sparse")
    assert "of the two head files only sparse_linear.pt is there" in why
    saved = torch.load(folder / HEAD_FILES["sparse"], weights_only=True)["weight"].float()
    assert torch.equal(encoder.linear("sparse").weight, saved)
    assert not torch.equal(flag_model(folder).sparse_linear.weight, saved)


@torch.no_grad()
def test_a_padded_passage_scores_zero_in_flagembedding_where_all_its_tokens_disagree(m3_folder):
    theirs = flag_model(m3_folder)
    with torch.no_grad():
        theirs.colbert_linear.weight.zero_()
        theirs.colbert_linear.bias.fill_(1.0)
    queries, short, long = random_texts(1, 6), random_texts(1, 5, seed=1), random_texts(1, 9, seed=2)
    query, alone, in_company = (theirs.encode(padded(texts))[2] for texts in (queries, short, short + long))
    mask = padded(queries)["attention_mask"]
    score = theirs.compute_colbert_score(-query, alone, q_mask=mask)[0, 0] * theirs.temperature
    with_padding = theirs.compute_colbert_score(-query, in_company, q_mask=mask)[0, 0] * theirs.temperature
    assert score.item() == pytest.approx(-1, abs=1e-5)
    assert with_padding.item() == 0

    encoder = load(m3_folder)
    encoder.linear("multi").weight.zero_()
    encoder.linear("multi").bias.fill_(1.0)
    ours, passages = split_at(encoder(pack([*queries, *short, *long])), 1)
    opposite = ours._replace(multi=ours.multi._replace(vectors=-ours.multi.vectors))
    scores = head_scores(opposite, passages)["multi"]
    torch.testing.assert_close(scores, torch.full((1, 2), -1.0), atol=1e-5, rtol=0)
