"""One model over one collection: encode, search, measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3tune.data.collection import Collection
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation
from m3tune.machine import Precision, pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.recipe import EvaluateConfig
from m3tune.retrieval.bm25 import bm25_run
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.retrieval.exact import search
from m3tune.types import Run

DevCorpus = tuple[str, ...]
"""Passage ids that development queries are searched among while training goes on."""


@dataclass(frozen=True)
class Measured:
    """An encoder's vectors over a corpus, and an evaluation for every set of queries."""

    name: str
    collection: Collection
    config: EvaluateConfig
    passage_ids: Sequence[str]
    passage_vectors: np.ndarray  # (P, D) float32
    query_vectors: Mapping[str, np.ndarray]  # set -> (Q, D) float32
    evaluations: Mapping[str, Evaluation]
    counts: Mapping[str, int]

    def on_subset(self, queries: str, query_ids: Sequence[str], passage_ids: Sequence[str]) -> Evaluation:
        """The evaluation of one set of queries among some of the passages, without encoding anything again."""
        row_of = {passage_id: row for row, passage_id in enumerate(self.passage_ids)}
        vectors = self.passage_vectors[[row_of[passage_id] for passage_id in passage_ids]]
        run = search(self.query_vectors[queries], query_ids, vectors, passage_ids, self.config.depth)
        return _evaluation(self.name, "dense", run, self.collection, query_ids, self.config)


def measure_encoder(
    encoder: Encoder,
    name: str,
    collection: Collection,
    passage_ids: Sequence[str],
    query_sets: Mapping[str, Sequence[str]],
    config: EvaluateConfig,
    precision: Precision,
) -> Measured:
    """Search every set of queries among the passages by the encoder's dense vectors."""
    device = pick_device()
    dtype = pick_precision(precision, device)
    encoder.to(device)
    passages = tokenize_passages(encoder, collection, passage_ids)
    passage_vectors = encode_tokens(encoder, passages, dtype, label=f"encode passages ({name})")
    counts = {"passages": len(passages), "passages_cut": passages.num_truncated}
    query_vectors, evaluations = {}, {}
    for set_name, query_ids in query_sets.items():
        queries = tokenize_queries(encoder, collection, query_ids)
        vectors = encode_tokens(encoder, queries, dtype, label=f"encode {set_name} queries ({name})")
        run = search(vectors, query_ids, passage_vectors, passage_ids, config.depth)
        query_vectors[set_name] = vectors
        evaluations[set_name] = _evaluation(name, "dense", run, collection, query_ids, config)
        counts |= {f"{set_name}_queries": len(queries), f"{set_name}_queries_cut": queries.num_truncated}
    return Measured(name, collection, config, passage_ids, passage_vectors, query_vectors, evaluations, counts)


def measure_bm25(
    collection: Collection, query_sets: Mapping[str, Sequence[str]], config: EvaluateConfig
) -> dict[str, Evaluation]:
    """BM25 over the whole collection for every set of queries."""
    run = bm25_run(collection, [q for query_ids in query_sets.values() for q in query_ids], config.depth)
    return {
        name: _evaluation("bm25", "bm25", {q: run[q] for q in query_ids}, collection, query_ids, config)
        for name, query_ids in query_sets.items()
    }


def dev_corpus(
    collection: Collection, query_ids: Sequence[str], evaluations: Sequence[Evaluation], depth: int
) -> DevCorpus:
    """Every judged passage of the queries and the first `depth` of each evaluation's run, in the collection's order.

    Small enough to be encoded at every evaluation of a training run, and as hard as the whole corpus where it matters:
    what is left out, neither the base model nor BM25 came near. The verdict is measured on the whole corpus.
    """
    kept = {passage_id for query_id in query_ids for passage_id in collection.grades[query_id]}
    for evaluation in evaluations:
        kept.update(hit.passage_id for query_id in query_ids for hit in evaluation.run[query_id][:depth])
    return tuple(passage_id for passage_id in collection.passages if passage_id in kept)


def _evaluation(
    name: str, head: str, run: Run, collection: Collection, query_ids: Sequence[str], config: EvaluateConfig
) -> Evaluation:
    metrics = tuple(dict.fromkeys((*config.metrics, config.main_metric)))
    return Evaluation(name, head, run, evaluate_run(run, collection.qrels(query_ids), metrics))
