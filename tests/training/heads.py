"""Training of a tiny encoder with several heads, for the tests of it."""

import torch

from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.scoring import hybrid, multi_scores, sparse_scores
from m3tune.training.train import train
from m3tune.vectors import split_at

METRIC = "nDCG@10"
TRAIN_QUERIES = tuple(f"q{i}" for i in range(40))
DEV_QUERIES = tuple(f"q{i}" for i in range(40, 60))
BASE = {"epochs": 8, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}
UNIFIED = ["loss_dense", "loss_sparse", "loss_multi", "loss_hybrid"]
SELF = ["loss_self_dense", "loss_self_sparse", "loss_self_multi"]


def fresh(tiny_folders, **settings):
    config = {"new_heads": ("sparse", "multi"), "multi_dim": 16} | settings
    return load_encoder(ModelConfig(path=str(tiny_folders["bert"]), **config))[0]


def scores_of_heads(encoder, collection, query_ids=DEV_QUERIES):
    """The (Q, P) scores of each head and of the hybrid over the whole collection."""
    queries = tokenize_queries(encoder, collection, query_ids)
    passages = tokenize_passages(encoder, collection, list(collection.passages))
    texts = [*(queries[i] for i in range(len(queries))), *(passages[i] for i in range(len(passages)))]
    with torch.no_grad():
        q, p = split_at(encoder.eval()(pack(texts)), len(queries))
    scores = {"dense": q.dense @ p.dense.T, "sparse": sparse_scores(q.sparse, p.sparse)}
    scores["multi"] = multi_scores(q.multi, p.multi)
    return scores | {"hybrid": hybrid(scores, {"dense": 1.0, "sparse": 0.3, "multi": 1.0})}


def found_first(scores, collection, query_ids=DEV_QUERIES):
    """Share of queries whose best passage is the relevant one."""
    passages = list(collection.passages)
    right = [passages[row] in collection.positives[q] for q, row in zip(query_ids, scores.argmax(dim=1), strict=True)]
    return sum(right) / len(right)


def first_by_hybrid(encoder, collection):
    return {METRIC: found_first(scores_of_heads(encoder, collection)["hybrid"], collection)}


def tuned(encoder, collection, folder, evaluate_dev=None, similar=None, **config):
    folder.mkdir(exist_ok=True)
    said = []
    result = train(
        encoder, collection, similar or Similar(), TRAIN_QUERIES, TrainConfig(**BASE | config), METRIC,
        evaluate_dev or (lambda current: first_by_hybrid(current, collection)),
        folder, said.append,
    )  # fmt: skip
    return result, said


def constant(_):
    return {METRIC: 0.5}


def weights_of(encoder):
    return {name: weight.clone() for name, weight in encoder.state_dict().items()}


def moved(before, after):
    """Names of the weights that changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}
