"""Mining itself: from vectors to candidates, scores, reasons and a choice, written as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3tune.artifact import write_json
from m3tune.config import MineConfig, ModelConfig
from m3tune.errors import DataError, RecipeError
from m3tune.evaluation.measure import deciding_head
from m3tune.machine import pick_device, pick_precision
from m3tune.model.settings import M3_WEIGHTS
from m3tune.model.weights import load_encoder, model_fingerprint
from m3tune.negatives import filters, summary
from m3tune.negatives.candidates import Pairs, unite
from m3tune.negatives.ground import Ground
from m3tune.negatives.scores import Scores, feedback_between_positives, feedback_ratios, score_all
from m3tune.negatives.select import select, suspicion
from m3tune.negatives.sources import RANDOM, brought, check_sources, drawn, searched
from m3tune.negatives.table import read_suspects, write_mined
from m3tune.negatives.task import Task
from m3tune.negatives.teacher import Teacher, TextPair
from m3tune.preparation import Say
from m3tune.report.negatives_page import SUMMARY
from m3tune.retrieval.corpus import corpus_vectors
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.retrieval.vectors import Vectors
from m3tune.types import HYBRID, Head, PairVerdict

_SPARE = 8  # random passages beyond twice those that are wanted, since some will be removed


class Miner(NamedTuple):
    """Vectors of queries and of all passages, and how the mining model scores."""

    queries: Vectors
    passages: Vectors
    deciding: str  # a head, or the hybrid
    mixed: Mapping[Head, float]  # the hybrid's weights

    @property
    def weights(self) -> Mapping[Head, float]:
        """The weights of the heads whose sum is the score."""
        by_head: Mapping[Any, float] = self.mixed if self.deciding == HYBRID else {self.deciding: 1.0}
        return {head: by_head[head] for head in self.passages.heads if by_head.get(head)}


def encode_for(task: Task, ground: Ground, place: Path, say: Say) -> Miner:
    """Encode by the heads that are needed; passages may go to `place`."""
    encoder, why = load_encoder(task.model)
    say(f"mining with {task.model.path}: {why}")
    config, heads = task.config, encoder.settings.heads
    check_sources(config.sources, heads)
    deciding = _deciding(config, heads)
    needed = {deciding, *config.sources, "dense"}  # dense, as it compares passages at the least cost
    if needed & {"multi", HYBRID}:  # which search among what the other heads find
        needed |= {*heads}
    wanted = [head for head in heads if head in needed]
    encoder.to(pick_device())
    dtype = pick_precision(task.precision, encoder.device)
    keep = task.before is None  # nobody else mines with what this run has tuned
    tokens = tokenize_passages(encoder, task.collection, ground.passage_ids)
    passages = corpus_vectors(encoder, tokens, dtype, wanted, "encode passages (mining)", place, keep=keep)
    tokens = tokenize_queries(encoder, task.collection, ground.query_ids)
    queries = corpus_vectors(encoder, tokens, dtype, wanted, "encode queries (mining)", keep=keep)
    return Miner(queries, passages, deciding, encoder.settings.hybrid_weights or M3_WEIGHTS)


def _deciding(config: MineConfig, heads: Sequence[Head]) -> str:
    """The head or the hybrid that `mine.head` means for a model with these heads. Raises RecipeError."""
    if config.head != "auto" and (config.head not in heads if config.head != HYBRID else len(heads) < 2):
        raise RecipeError(
            f"the mining model has {', '.join(heads)} only", where="mine.head", fix='name one of these, or "auto"'
        )
    return deciding_head(config.head, heads)


def mine_vectors(
    folder: Path, task: Task, ground: Ground, miner: Miner, verdicts: Sequence[PairVerdict], cache: Path
) -> dict[str, Any]:
    """Mine by vectors that are there, write the tables and the summary to `folder`, and return the counts.

    A teacher's scores are kept in `cache`.
    """
    config = task.config
    pairs = _candidates(task, ground, miner)
    scores = score_all(miner.queries, miner.passages, miner.weights, ground, pairs)
    masks = filters.known_masks(pairs, ground)
    unknown = ~np.any(list(masks.values()), axis=0)
    clean = unknown & pairs.found_by([source for source in pairs.sources if source != RANDOM])
    teacher = _teach(task, ground, pairs, unknown, cache) if config.teacher else None
    ratios = feedback_ratios(miner.passages, ground, pairs, scores)
    suspected = suspicion(config, ground, pairs, scores, teacher, ratios, clean)
    if task.before is not None:
        suspected = replace(suspected, earlier=filters.among(ground, pairs, read_suspects(task.before)))
    review = filters.reviewed(pairs, ground, verdicts)
    selection = select(config, ground, pairs, scores, teacher, masks, review, suspected)
    write_mined(folder, ground, pairs, scores, teacher, selection)
    between = feedback_between_positives(miner.passages, ground, scores)
    facts = {
        "rule": suspected.found,
        "sources": summary.by_source(pairs, selection),
        "thresholds": summary.thresholds(ground, pairs, scores, clean, ratios, between),
        "histograms": summary.histograms(scores, selection),
        "examples": summary.examples(ground, pairs, scores, selection),
    }
    write_json(folder / SUMMARY, facts)
    return selection.counts()


def _candidates(task: Task, ground: Ground, miner: Miner) -> Pairs:
    """What all sources bring, and the random passages that the recipe wants. Raises DataError where that is nothing."""
    config, passages = task.config, miner.passages
    whole = ground.pool_size == len(passages)
    pool = passages if whole else passages.subset(ground.own_numbers[: ground.pool_size])
    rankings = searched(miner.queries, pool, config.sources, miner.mixed, miner.deciding)
    rankings += brought(ground, config.sources)
    random = config.random_per_query + (config.negatives_per_query if config.fill == "random" else 0)
    if random:
        rankings.append(drawn(ground, config.seed, 2 * random + _SPARE))
    pairs = unite(rankings, len(ground.passage_ids))
    if not len(pairs):
        raise DataError(
            f"no source found a candidate for any of {len(ground.query_ids):,} queries",
            where="mine.sources",
            fix="widen their ranks, or check that there are queries with a relevant passage",
        )
    return pairs


def _teach(task: Task, ground: Ground, pairs: Pairs, wanted: np.ndarray, cache: Path) -> Scores:
    """The teacher's scores of the positives and of the `wanted` (M,) candidates; of others none, not a number."""
    config, collection = task.config, task.collection
    assert config.teacher is not None
    rows = np.flatnonzero(wanted)
    query, passage = ground.positives

    def texts(queries: np.ndarray, passages: np.ndarray) -> list[TextPair]:
        return [
            (collection.queries[ground.query_ids[q]].text, collection.passages[ground.passage_ids[p]].full_text)
            for q, p in zip(queries.tolist(), passages.tolist(), strict=True)
        ]

    made = model_fingerprint(ModelConfig(path=config.teacher))
    with Teacher(config.teacher, made, cache, config.teacher_max_tokens, task.precision) as teacher:
        candidate = np.full(len(pairs), np.nan, dtype=np.float32)
        candidate[rows] = teacher.scores(texts(pairs.query[rows], pairs.passage[rows]))
        return Scores(candidate, teacher.scores(texts(query, passage)))
