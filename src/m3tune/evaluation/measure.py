"""One model over one collection: encode, search by every head and by their mixtures, measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from m3tune.config import EvaluateConfig
from m3tune.data.collection import Collection
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation
from m3tune.machine import Precision, pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.retrieval.bm25 import bm25_run
from m3tune.retrieval.corpus import corpus_vectors
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.retrieval.search import Found, SearchPlan, as_run, search
from m3tune.retrieval.vectors import Vectors
from m3tune.types import HYBRID, RRF, Head, Run

DevCorpus = tuple[str, ...]
"""Passage ids that development queries are searched among while training goes on."""


@dataclass(frozen=True)
class Searched:
    """What the heads of a model found for some queries among some passages."""

    name: str
    collection: Collection
    config: EvaluateConfig
    query_ids: Sequence[str]
    passage_ids: Sequence[str]
    found: Found

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that can be measured: the model's own and, where it has several, their mixtures."""
        return (*self.found.by_head, *((HYBRID, RRF) if self.found.candidates else ()))

    def run(self, head: str, weights: Mapping[Head, float]) -> Run:
        """The ranking by one head or mixture; `weights` are the hybrid's."""
        if head == HYBRID:
            ranked = self.found.by_weights(weights)
        else:
            ranked = self.found.by_ranks() if head == RRF else self.found.by_head[head]  # type: ignore[index]
        return as_run(ranked, self.query_ids, self.passage_ids)

    def evaluation(self, head: str, weights: Mapping[Head, float]) -> Evaluation:
        """One head or mixture, measured."""
        return _evaluation(self.name, head, self.run(head, weights), self.collection, self.query_ids, self.config)

    def evaluations(self, weights: Mapping[Head, float]) -> list[Evaluation]:
        """Every head and mixture, measured."""
        return [self.evaluation(head, weights) for head in self.heads]


@dataclass(frozen=True)
class Measured:
    """An encoder's vectors over a corpus, and what was found for every set of queries."""

    name: str
    collection: Collection
    config: EvaluateConfig
    passage_ids: Sequence[str]
    passages: Vectors
    queries: Mapping[str, Vectors]
    searched: Mapping[str, Searched]
    counts: Mapping[str, int]

    def on_subset(self, queries: str, passage_ids: Sequence[str]) -> Searched:
        """One set of queries searched among some of the passages, without encoding anything again."""
        row_of = {passage_id: row for row, passage_id in enumerate(self.passage_ids)}
        rows = torch.tensor([row_of[passage_id] for passage_id in passage_ids], dtype=torch.int64).numpy()
        found = search(self.queries[queries], self.passages.subset(rows), plan_of(self.config))
        query_ids = self.searched[queries].query_ids
        return Searched(self.name, self.collection, self.config, query_ids, passage_ids, found)


def measure_encoder(
    encoder: Encoder,
    name: str,
    collection: Collection,
    passage_ids: Sequence[str],
    query_sets: Mapping[str, Sequence[str]],
    config: EvaluateConfig,
    precision: Precision,
    heads: Sequence[Head] | None = None,
    place: Path | None = None,
    *,
    keep: bool = False,
) -> Measured:
    """Search every set of queries among the passages by `heads`, all that the encoder has unless fewer are named.

    Passages' vectors are float32 in memory. Where they would take over 256 MiB and `place` is given they go there,
    multi-vectors as float16, and an interrupted attempt goes on; the caller deletes the folder when it is done. What
    others will ask for again is to `keep`, see `retrieval.corpus`.
    """
    device = pick_device()
    dtype = pick_precision(precision, device)
    encoder.to(device)
    wanted = encoder.settings.heads if heads is None else heads
    tokens = tokenize_passages(encoder, collection, passage_ids)
    passages = corpus_vectors(encoder, tokens, dtype, wanted, f"encode passages ({name})", place, keep=keep)
    counts = {"passages": len(tokens), "passages_cut": tokens.num_truncated}
    queries, searched = {}, {}
    for set_name, query_ids in query_sets.items():
        tokens = tokenize_queries(encoder, collection, query_ids)
        queries[set_name] = encode_tokens(encoder, tokens, dtype, wanted, f"encode {set_name} queries ({name})")
        found = search(queries[set_name], passages, plan_of(config), device)
        searched[set_name] = Searched(name, collection, config, query_ids, passage_ids, found)
        counts |= {f"{set_name}_queries": len(tokens), f"{set_name}_queries_cut": tokens.num_truncated}
    return Measured(name, collection, config, passage_ids, passages, queries, searched, counts)


def plan_of(config: EvaluateConfig) -> SearchPlan:
    """How deep a recipe looks."""
    return SearchPlan(config.depth, config.candidates, config.first_stage, config.exact_passages)


def deciding_head(choice: str, heads: Sequence[str]) -> str:
    """The head or mixture that `evaluate.head` means for a model with these heads.

    With several heads "auto" is the hybrid: it is what the unified loss trains, what `m3tune search` answers with, and
    a verdict by one head would not see what the others cost. A model that does not have what is asked for, such as a
    base without the new heads, is measured by its dense head.
    """
    mixed = choice in ("auto", HYBRID, RRF)
    if len(heads) > 1 and mixed:
        return RRF if choice == RRF else HYBRID
    if choice in heads:
        return choice
    return "dense" if "dense" in heads else heads[0]


def measure_bm25(
    collection: Collection, query_sets: Mapping[str, Sequence[str]], config: EvaluateConfig
) -> dict[str, Evaluation]:
    """BM25 over the whole collection for every set of queries."""
    run = bm25_run(collection, [q for query_ids in query_sets.values() for q in query_ids], config.depth)
    return {
        name: _evaluation("bm25", "bm25", {q: run[q] for q in query_ids}, collection, query_ids, config)
        for name, query_ids in query_sets.items()
    }


def dev_corpus(collection: Collection, query_ids: Sequence[str], runs: Sequence[Run], depth: int) -> DevCorpus:
    """Every judged passage of the queries and the first `depth` of each run, in the collection's order.

    Small enough to be encoded at every evaluation of a training run, and as hard as the whole corpus where it matters:
    what is left out, neither the base model nor BM25 came near. The verdict is measured on the whole corpus.
    """
    kept = {passage_id for query_id in query_ids for passage_id in collection.grades[query_id]}
    for run in runs:
        kept.update(hit.passage_id for query_id in query_ids for hit in run.get(query_id, ())[:depth])
    return tuple(passage_id for passage_id in collection.passages if passage_id in kept)


def _evaluation(
    name: str, head: str, run: Run, collection: Collection, query_ids: Sequence[str], config: EvaluateConfig
) -> Evaluation:
    metrics = tuple(dict.fromkeys((*config.metrics, config.main_metric)))
    return Evaluation(name, head, run, evaluate_run(run, collection.qrels(query_ids), metrics))
