"""The warm start of a new sparse head."""

import pytest
import torch
from heads import (
    found_first,
    fresh,
    scores_of_heads,
)

from m3tune.model.packing import pack
from m3tune.retrieval.encode import tokenize_passages
from m3tune.scoring import sparse_scores
from m3tune.training.warm_start import warm_start_sparse


def test_the_warm_start_weighs_rare_words_more_and_ranks_before_any_training(tiny_folders, collection):
    encoder = fresh(tiny_folders)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    before = found_first(scores_of_heads(encoder, collection)["sparse"], collection)
    explained = warm_start_sparse(encoder, passages, torch.float32)
    assert explained > 0.4
    after = found_first(scores_of_heads(encoder, collection)["sparse"], collection)
    assert after > before + 0.3
    with torch.no_grad():
        sparse = encoder(pack([passages[i] for i in range(len(passages))]), heads=("sparse",)).sparse
    words = encoder.tokenizer.convert_ids_to_tokens(sparse.token_ids.tolist())
    rare = torch.tensor([word.startswith("r") for word in words])
    assert sparse.weights[rare].mean() > 1.4 * sparse.weights[~rare].mean()
    self_scores = sparse_scores(sparse, sparse).diagonal()
    assert self_scores.mean().item() == pytest.approx(1, abs=0.25)


def test_the_warm_start_is_the_ridge_regression(tiny_folders, collection, monkeypatch):
    """Against torch's least squares on all token states at once, with a row for each penalised weight.

    A layer norm's states add up to nothing, so without a ridge of some size the solution would be one of many.
    """
    from m3tune.model.backbone import run_packed
    from m3tune.training import warm_start

    encoder = fresh(tiny_folders)
    monkeypatch.setattr(warm_start, "_RIDGE", 1e-5)
    monkeypatch.setattr(warm_start, "_BUDGET_TOKENS", 100)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    warm_start.warm_start_sparse(encoder, passages, torch.float32)
    packed = pack([passages[i] for i in range(len(passages))])
    kept = torch.isin(packed.input_ids, encoder.weightless, invert=True)
    with torch.no_grad():
        states = run_packed(encoder.backbone, packed)[kept].double()
    texts_with = torch.zeros(64)
    for i in range(len(passages)):
        texts_with[sorted(set(passages[i].tolist()))] += 1
    idf = torch.log1p((len(passages) - texts_with + 0.5) / (texts_with + 0.5)).double()
    square = sum(idf[[t for t in set(passages[i].tolist()) if t > 3]].square().sum() for i in range(len(passages)))
    target = idf[packed.input_ids[kept]] / (square / len(passages)).sqrt()
    inputs = torch.cat([states, torch.ones(len(states), 1)], dim=1)
    penalty = torch.eye(inputs.shape[1]).double() * (1e-5 * states.square().sum(dim=0).mean()).sqrt()
    penalty[-1] = 0  # of the bias
    rows, towards = torch.cat([inputs, penalty]), torch.cat([target, torch.zeros(len(penalty)).double()])
    expected = torch.linalg.lstsq(rows, towards[:, None], driver="gelsd").solution.squeeze(1)
    head = encoder.linear("sparse")
    ours = torch.cat([head.weight[0], head.bias]).double()
    torch.testing.assert_close(inputs @ ours, inputs @ expected, atol=1e-3, rtol=0)
    assert target.std() > 0.05
