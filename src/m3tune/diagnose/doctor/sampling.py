"""A short pass of the untuned model and of BM25 over some queries and their passages, and how texts are read.

What is scored here was not learned from these labels, so it can say something about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant
from m3tune.data.tokens import TokenTable
from m3tune.diagnose.doctor.case import Case, Moved, Reading, Sample
from m3tune.diagnose.tokens import token_lengths
from m3tune.machine import pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.retrieval.bm25 import bm25_run
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.types import Judgment

_GIVEN = 4  # negatives of a query that are scored
_TEXTS_COMPARED = 64
_EXAMPLES = 3


def base_config(config: ModelConfig) -> ModelConfig:
    """The dense encoder of a recipe as it was before training."""
    return config.model_copy(update={"new_heads": (), "multi_dim": None, "heads": ("dense",)})


def take_sample(case: Case, encoder: Encoder, queries: int, seed: int = 0) -> Sample | None:
    """Scores of up to `queries` training queries and as many others, drawn at random; None without a judged query."""
    generator = np.random.default_rng(seed)
    positives = case.collection.positives
    sides = [_drawn([q for q in ids if q in positives], queries, generator) for ids in
             (case.split.train, (*case.split.dev, *case.split.test))]  # fmt: skip
    query_ids = (*sides[0], *sides[1])
    if not query_ids:
        return None
    given = _given(case, sides[0], generator)
    canonical = case.collection.canonical_passage
    passage_ids = tuple(dict.fromkeys(canonical[p] for q in query_ids for p in (*positives[q], *given.get(q, ()))))
    column = {passage_id: i for i, passage_id in enumerate(passage_ids)}
    known = known_relevant(case.collection, case.similar)
    groups = [known.group(passage_id) for passage_id in passage_ids]
    masks = [np.zeros((len(query_ids), len(passage_ids)), dtype=bool) for _ in range(3)]
    for row, query_id in enumerate(query_ids):
        masks[0][row, [column[canonical[p]] for p in positives[query_id]]] = True
        masks[1][row, [column[canonical[p]] for p in given.get(query_id, ())]] = True
        masks[2][row] = [group in known.of_query[query_id] for group in groups]
    positive, negative, relevant = masks
    vectors, dense = _dense_scores(encoder, case.collection, query_ids, passage_ids)
    scores = {"base": dense, "bm25": _word_scores(case.collection, query_ids, passage_ids)}
    return Sample(
        query_ids, len(sides[0]), passage_ids, positive, negative & ~relevant, relevant | positive, scores, vectors
    )


def how_far(base: Encoder, tuned: Encoder, collection: Collection, sample: Sample) -> Moved:
    """How far weights and queries of the sample moved from the base to the tuned model."""
    before, after = base.backbone.state_dict(), tuned.backbone.state_dict()
    shared = [name for name, value in before.items() if value.is_floating_point() and name in after]
    change, size = 0.0, 0.0
    for name in shared:
        change += float((after[name].cpu().float() - before[name].cpu().float()).square().sum())
        size += float(before[name].float().square().sum())
    vectors = _encoded(tuned, tokenize_queries(tuned, collection, sample.query_ids))
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(sample.vectors, axis=1)
    cosines = (vectors * sample.vectors).sum(axis=1) / np.maximum(norms, 1e-12)
    return Moved((change / max(size, 1e-12)) ** 0.5, float(cosines.mean()))


def read_texts(case: Case, base: Encoder, saved: Encoder, sample: Sample, path: str) -> Reading:
    """How the saved model's tokenizer reads the texts of the sample, and which relevant passages of the test it cuts.

    `path` is the saved model's folder.
    """
    tables = (
        tokenize_queries(saved, case.collection, sample.query_ids),
        tokenize_passages(saved, case.collection, sample.passage_ids),
    )
    texts = [case.collection.queries[q].text for q in sample.query_ids]
    texts += [case.collection.passages[p].full_text for p in sample.passage_ids]
    unknown, with_unknown = _unknown(saved, tables)
    compared = texts[:: -(-len(texts) // _TEXTS_COMPARED)]
    return Reading(
        unknown,
        tuple(texts[i] for i in with_unknown[:_EXAMPLES]),
        tuple(text for text in compared if _ids(base, text) != _ids(saved, text)),
        int(min(saved.tokenizer.model_max_length, 2**31)),
        _cut(case, path) if case.split.test else {},
    )


def _drawn(query_ids: Sequence[str], at_most: int, generator: np.random.Generator) -> tuple[str, ...]:
    chosen = generator.permutation(len(query_ids))[:at_most]
    return tuple(query_ids[i] for i in sorted(chosen.tolist()))


def _given(case: Case, query_ids: Sequence[str], generator: np.random.Generator) -> Mapping[str, list[str]]:
    """Some of the given negatives of each query, none where the run did not use them."""
    if case.is_run and not case.recipe.train.negatives_per_query:
        return {}
    negatives = case.collection.given_negatives
    return {q: list(_drawn(negatives[q], _GIVEN, generator)) for q in query_ids if q in negatives}


def _dense_scores(
    encoder: Encoder, collection: Collection, query_ids: Sequence[str], passage_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the queries, (Q, D), and the inner products, (Q, P)."""
    queries = _encoded(encoder, tokenize_queries(encoder, collection, query_ids))
    passages = _encoded(encoder, tokenize_passages(encoder, collection, passage_ids))
    return queries, (queries @ passages.T).astype(np.float64)


def _encoded(encoder: Encoder, tokens: TokenTable) -> np.ndarray:
    dtype: torch.dtype = pick_precision("auto", pick_device())
    dense = encode_tokens(encoder.to(pick_device()), tokens, dtype, ("dense",), "scoring a sample").dense
    assert dense is not None
    return dense


def _word_scores(collection: Collection, query_ids: Sequence[str], passage_ids: Sequence[str]) -> np.ndarray:
    """BM25 within the pool of passages: (Q, P), zero without a shared word."""
    pool = replace(
        collection, passages={p: collection.passages[p] for p in passage_ids}, judgments=(), negatives=(), splits={}
    )
    run = bm25_run(pool, query_ids, len(passage_ids))
    column = {passage_id: i for i, passage_id in enumerate(passage_ids)}
    scores = np.zeros((len(query_ids), len(passage_ids)))
    for row, query_id in enumerate(query_ids):
        for hit in run[query_id]:
            scores[row, column[hit.passage_id]] = hit.score
    return scores


def _unknown(encoder: Encoder, tables: Sequence[TokenTable]) -> tuple[float, list[int]]:
    """The share of unknown tokens, special ones not counted, and which texts have some."""
    unknown_id = encoder.tokenizer.unk_token_id
    ids = np.concatenate([table.ids for table in tables])
    special = np.isin(ids, [i for i in encoder.tokenizer.all_special_ids if i != unknown_id])
    rows = [table[i] for table in tables for i in range(len(table))]
    with_unknown = [i for i, row in enumerate(rows) if (row == unknown_id).any()]
    return float((ids == unknown_id).sum() / max(1, (~special).sum())), with_unknown


def _ids(encoder: Encoder, text: str) -> list[int]:
    return encoder.tokenizer(text, truncation=True, max_length=512)["input_ids"]


def _cut(case: Case, path: str) -> dict[str, bool]:
    """Test query -> whether each of its relevant passages has more tokens than the saved model reads."""
    positives = {q: case.collection.positives[q] for q in case.split.test if q in case.collection.positives}
    needed = dict.fromkeys(p for ids in positives.values() for p in ids)
    part = replace(
        case.collection,
        queries={},
        passages={p: case.collection.passages[p] for p in needed},
        judgments=tuple[Judgment, ...](),
        negatives=(),
        splits={},
        sets={},
    )
    config = ModelConfig(path=path, trust_remote_code=case.recipe.model.trust_remote_code)
    lengths = token_lengths(part, config)["passage"]
    too_long = dict(zip(needed, (lengths.tokens > lengths.max_tokens).tolist(), strict=True))
    return {query_id: all(too_long[p] for p in ids) for query_id, ids in positives.items()}
