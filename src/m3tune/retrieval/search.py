"""Search by any head and by all of them together, over the vectors of queries and passages.

Q queries, P passages, C candidates of a query, M candidates of all queries

Dense and sparse search is exact over all passages. Multi-vector scores and mixtures of heads cost much more, so beyond
a small corpus they are computed for candidates: the best of the first-stage heads, each scored exactly by every head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from m3tune.fitting import in_stretches
from m3tune.retrieval.approximate import Approximate
from m3tune.retrieval.exact import CPU, Ranked, all_scores, no_room, rank
from m3tune.retrieval.vectors import Vectors
from m3tune.scoring import head_scores, hybrid
from m3tune.types import Head, Hit, Run

RRF_K = 60
FirstStage = Literal["all", "dense", "sparse"]
FIRST_STAGE: tuple[Head, ...] = ("dense", "sparse")  # heads that search every passage

_BLOCK_TOKENS = 65_536  # of candidates whose multi-vectors are loaded at once, or so many candidates
_QUERIES_A_PASSAGE = 4  # from so many on, multi-vectors are read by passage and not by query


class SearchPlan(NamedTuple):
    """How deep to look."""

    depth: int = 100  # passages kept of each query
    candidates: int = 200  # of each first-stage head, for each query
    first_stage: FirstStage = "all"  # the heads that bring candidates
    exact_passages: int = 1000  # in a corpus of no more, every passage is a candidate


@dataclass(frozen=True)
class Candidates:
    """Passages of each query and their exact scores by every head; rows ascend within a query."""

    rows: np.ndarray  # (M,) int64
    offsets: np.ndarray  # (Q + 1,) int64
    scores: Mapping[Head, Tensor]  # (M,) float32 each

    def ranked(self, scores: Tensor, depth: int) -> list[Ranked]:
        """The best `depth` of each query by (M,) scores; equal scores in the order of the passages."""
        values = scores.numpy()
        found = []
        for first, last in zip(self.offsets[:-1], self.offsets[1:], strict=True):
            order = np.argsort(-values[first:last], kind="stable")[:depth]
            found.append(Ranked(self.rows[first:last][order], values[first:last][order]))
        return found

    @cached_property
    def spreads(self) -> dict[Head, float]:
        """The standard deviation of each head's scores within a query, averaged over queries."""
        pieces = {head: np.split(score.numpy(), self.offsets[1:-1]) for head, score in self.scores.items()}
        return {head: float(np.mean([piece.std() for piece in of if len(piece)])) for head, of in pieces.items()}


@dataclass(frozen=True)
class Found:
    """What a search found: each head's own ranking, and where there are several heads the candidates of mixtures."""

    depth: int
    by_head: Mapping[Head, list[Ranked]]
    candidates: Candidates | None
    how: Mapping[str, Any]  # what was exact and what was re-ranked, for people and programs

    def by_weights(self, weights: Mapping[Head, float]) -> list[Ranked]:
        """The hybrid: candidates by the weighted sum of their scores. Needs several heads."""
        assert self.candidates is not None
        return self.candidates.ranked(hybrid(self.candidates.scores, weights), self.depth)

    def by_ranks(self) -> list[Ranked]:
        """Candidates by reciprocal rank fusion. Needs several heads."""
        assert self.candidates is not None
        return self.candidates.ranked(reciprocal_ranks(self.candidates), self.depth)


def search(
    queries: Vectors,
    passages: Vectors,
    plan: SearchPlan,
    device: torch.device = CPU,
    approximate: Approximate | None = None,
) -> Found:
    """Search `passages` by every head that queries and passages both have; see `exact.rank` for the device.

    The dense head asks `approximate`, where it is given, in place of an exact search.
    """
    heads: list[Head] = [head for head in queries.heads if head in passages.heads]
    able = [head for head in heads if head in FIRST_STAGE]
    first = [head for head in able if plan.first_stage in ("all", head)] or able
    everything = len(passages) <= plan.exact_passages or not first
    deep = plan.depth if everything or len(heads) == 1 else max(plan.depth, plan.candidates)
    quick: dict[Head, list[Ranked]] = {}
    if approximate and queries.dense is not None:
        quick["dense"] = approximate.rank(queries.dense, deep)
    slow = [head for head in heads if (head in able or everything) and head not in quick]
    ranked = quick | {head: rank(queries, passages, head, deep, device) for head in slow}
    candidates = None
    if len(heads) > 1 and everything:
        candidates = _all_pairs(queries, passages, heads)
    elif len(heads) > 1:
        candidates = _candidates(queries, passages, heads, [ranked[head] for head in first], plan.candidates)
        if "multi" in heads:
            ranked["multi"] = candidates.ranked(candidates.scores["multi"], plan.depth)
    by_head = {head: [Ranked(r[: plan.depth], s[: plan.depth]) for r, s in ranked[head]] for head in heads}
    how = _how(heads, first, everything, plan) | dict.fromkeys(quick, "approximately, by FAISS")
    return Found(plan.depth, by_head, candidates, how)


def reciprocal_ranks(candidates: Candidates, k: int = RRF_K) -> Tensor:
    """(M,) scores: the sum over heads of 1 / (k + rank of the candidate by this head, from 1).

    Each head ranks all candidates of a query, so that none is missing; only a sparse score of zero, no shared token, is
    no rank. Cormack, Clarke and Buettcher, 2009.
    """
    total = np.zeros(len(candidates.rows), dtype=np.float64)
    for head, of_head in candidates.scores.items():
        values = of_head.numpy()
        for first, last in zip(candidates.offsets[:-1], candidates.offsets[1:], strict=True):
            order = np.argsort(-values[first:last], kind="stable")
            share = np.empty(last - first)
            share[order] = 1 / (k + np.arange(1, last - first + 1))
            total[first:last] += np.where((values[first:last] > 0) | (head != "sparse"), share, 0)
    return torch.from_numpy(total)


def as_run(ranked: Sequence[Ranked], query_ids: Sequence[str], passage_ids: Sequence[str]) -> Run:
    """Rows as ids."""
    return {
        query_id: [Hit(passage_ids[row], float(score)) for row, score in zip(*of_query, strict=True)]
        for query_id, of_query in zip(query_ids, ranked, strict=True)
    }


def pair_scores(queries: Vectors, passages: Vectors, head: Head, query_of: np.ndarray, rows: np.ndarray) -> Tensor:
    """The scores (M,) of pairs of a query and a passage, by `scoring.head_scores`.

    One query with all its passages at a time or, for multi-vectors that many queries share, one passage with all its
    queries: then its vectors, of which a passage has ten times a query's, are read once.
    """
    scores = torch.zeros(len(rows))
    by_passage = head == "multi" and _QUERIES_A_PASSAGE * len(np.unique(rows)) <= len(rows)
    side = rows if by_passage else query_of
    others, other = (queries, query_of) if by_passage else (passages, rows)
    sizes, unit = np.ones(len(rows), np.int64), "candidates"
    if head == "multi" and others.multi is not None:
        sizes, unit = np.maximum(others.multi.spans.lengths[other], 1), "tokens"

    def score(pairs: np.ndarray, first: int, last: int) -> None:
        some = pairs[first:last]
        query = queries.load(query_of[some if by_passage else some[:1]], (head,))
        passage = passages.load(rows[some[:1] if by_passage else some], (head,))
        scores[some] = head_scores(query, passage)[head].flatten()

    order = np.argsort(side, kind="stable")
    most = _BLOCK_TOKENS
    for pairs in np.split(order, np.flatnonzero(np.diff(side[order])) + 1) if len(rows) else ():
        most = in_stretches(sizes[pairs], most, partial(score, pairs), f"{unit} ({head} scores)", no_room)
    return scores


def _how(heads: Sequence[Head], first: Sequence[Head], everything: bool, plan: SearchPlan) -> dict[str, Any]:
    exact = "every passage"
    some = f"the best {plan.candidates} by {' and by '.join(first)} of each query, scored exactly by every head"
    how: dict[str, Any] = {head: exact if head != "multi" or everything else some for head in heads}
    if len(heads) > 1:
        how |= {"hybrid": exact if everything else some, "rrf": exact if everything else some}
    return how


def _all_pairs(queries: Vectors, passages: Vectors, heads: Sequence[Head]) -> Candidates:
    """Every passage of a small corpus for every query."""
    count = len(passages)
    rows = np.tile(np.arange(count), len(queries))
    scores = {head: all_scores(queries, passages, head).flatten() for head in heads}
    return Candidates(rows, np.arange(len(queries) + 1) * count, scores)


def _candidates(
    queries: Vectors, passages: Vectors, heads: Sequence[Head], first: Sequence[list[Ranked]], count: int
) -> Candidates:
    """The union of the best `count` of each first-stage ranking, with the scores of all heads."""
    rows = [np.unique(np.concatenate([of.rows[:count] for of in of_query])) for of_query in zip(*first, strict=True)]
    offsets = np.cumsum([0, *(len(of_query) for of_query in rows)])
    query_of = np.repeat(np.arange(len(queries)), np.diff(offsets))
    all_rows = np.concatenate([np.zeros(0, np.int64), *rows])
    scores = {head: pair_scores(queries, passages, head, query_of, all_rows) for head in heads}
    return Candidates(all_rows, offsets, scores)
