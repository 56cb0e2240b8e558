"""`errors.json` of a run: which queries gained and lost, where rankers disagree, what is behind the worst losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.artifact import read_json, write_json
from m3tune.config import ModelConfig, Recipe
from m3tune.data.balance import features_of
from m3tune.data.collection import Collection
from m3tune.data.prepared import load_similar
from m3tune.diagnose.disagreement import BM25, disagreement_of
from m3tune.diagnose.losses import Loss, hints_of, overtaker
from m3tune.diagnose.query_words import QueryWords, shared_shares, words_of_queries
from m3tune.diagnose.slices import Slice, dimensions_of, slices_of
from m3tune.evaluation.compare import document_groups, gained_and_lost
from m3tune.evaluation.store import Evaluation, load_evaluation, load_evaluations
from m3tune.recipe import load_recipe

ERRORS = "errors.json"
WORST = 10
"""Queries that lost most and are looked at one by one."""


@dataclass(frozen=True)
class _Ground:
    """What slices and losses are worked out from. `cut` is None where no model is there to count tokens."""

    collection: Collection
    base: Evaluation
    tuned: Evaluation
    metric: str
    first_copy: Mapping[str, str]
    words: QueryWords
    cut: frozenset[str] | None


def write_errors(run_folder: Path, collection: Collection) -> Path:
    """Write `errors.json` into a finished run of the data `collection`; returns its path.

    `slices`: rows of `Slice` and whether each differs from the rest. `disagreement`: see `Disagreement`. `lost`: rows
    of `Loss`. `counted_passages` is how many passages the words were counted in. Raises ArtifactError or DataError.
    """
    verdict = read_json(run_folder / "verdict.json")
    metric, head = verdict["metric"], verdict["head"]
    recipe = load_recipe(run_folder / "resolved.toml")
    base_head = read_json(run_folder / "select" / "selection.json")["base_head"]
    base = load_evaluation(run_folder / "base", base_head)
    evaluations = load_evaluations(run_folder / "tuned")
    tuned = next(of for of in evaluations if of.head == head)
    if recipe.evaluate.bm25:
        evaluations.append(load_evaluation(run_folder / "bm25", BM25))
    query_ids = list(base.per_query[metric])
    first_copy = load_similar(run_folder / "data").passages.first
    words = words_of_queries(collection, query_ids)
    cut = _cut_positives(run_folder, recipe, collection, query_ids)
    ground = _Ground(collection, base, tuned, metric, first_copy, words, cut)
    qrels = collection.qrels(query_ids)
    clusters = document_groups(qrels, first_copy)
    slices = _slices(ground, clusters, recipe.evaluate.seed)
    errors = {
        "metric": metric,
        "base_head": base_head,
        "head": head,
        "queries": len(query_ids),
        "counted_passages": words.counted,
        "slices": [asdict(of) | {"differs": of.differs} for of in slices],
        "disagreement": asdict(disagreement_of(evaluations, head, qrels, clusters, recipe.evaluate)),
        "lost": [_as_json(loss) for loss in _losses(ground)],
    }
    write_json(run_folder / ERRORS, errors)
    return run_folder / ERRORS


def _slices(ground: _Ground, clusters: Mapping[str, int], seed: int) -> list[Slice]:
    collection, words, cut = ground.collection, ground.words, ground.cut
    before, after = ground.base.per_query[ground.metric], ground.tuned.per_query[ground.metric]
    shared = shared_shares(collection, words)
    dimensions = dimensions_of(
        features_of(collection, list(before)),
        np.array([words.rarest(query_id) for query_id in before], dtype=np.float64),
        np.array([shared[query_id] for query_id in before]),
        None if cut is None else np.array([cut.issuperset(collection.positives[query_id]) for query_id in before]),
    )
    return slices_of(dimensions, before, after, clusters, seed)


def _losses(ground: _Ground) -> Iterator[Loss]:
    base, tuned, metric = ground.base, ground.tuned, ground.metric
    _, lost = gained_and_lost(base.per_query[metric], tuned.per_query[metric], WORST)
    for query_id, _, _ in lost:
        grades, now = ground.collection.grades[query_id], tuned.run.get(query_id, [])
        hints = hints_of(now, grades, ground.words.rare(query_id), ground.first_copy, ground.cut or ())
        yield Loss(query_id, overtaker(base.run.get(query_id, []), now, grades), hints)


def _as_json(loss: Loss) -> dict[str, Any]:
    return loss._asdict() | {"hints": [hint._asdict() for hint in loss.hints]}


def _cut_positives(
    run_folder: Path, recipe: Recipe, collection: Collection, query_ids: Sequence[str]
) -> frozenset[str] | None:
    """The relevant passages of the queries that the delivered model cuts; None where it is not there to count."""
    if not (run_folder / "model" / "config.json").is_file():
        return None
    from m3tune.diagnose.tokens import token_lengths

    wanted = dict.fromkeys(p for query_id in query_ids for p in collection.positives.get(query_id, ()))
    passages = Collection({}, {passage_id: collection.passages[passage_id] for passage_id in wanted}, ())
    model = ModelConfig(path=str(run_folder / "model"), trust_remote_code=recipe.model.trust_remote_code)
    lengths = token_lengths(passages, model)["passage"]
    too_long = (lengths.tokens > lengths.max_tokens).tolist()
    return frozenset(passage_id for passage_id, is_cut in zip(wanted, too_long, strict=True) if is_cut)
