"""Where candidates come from: searches by a model's heads, BM25, the same document, the data, a run file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from m3tune.config import SourceConfig
from m3tune.data.collection import Collection
from m3tune.data.runs import read_run
from m3tune.errors import RecipeError, nearest
from m3tune.negatives.candidates import Ranking, as_lists, as_ranking
from m3tune.negatives.ground import Ground, check_known
from m3tune.negatives.sampling import query_generator
from m3tune.paths import resolve_path
from m3tune.retrieval.bm25 import bm25_run
from m3tune.retrieval.exact import Ranked, rank
from m3tune.retrieval.search import FIRST_STAGE, SearchPlan, search
from m3tune.retrieval.vectors import Vectors
from m3tune.types import HYBRID, Head, Run

MODEL, BM25, DOCUMENT, GIVEN_ONES, RANDOM = "model", "bm25", "document", "given", "random"
_HEADS = ("dense", "sparse", "multi", HYBRID)
_CANDIDATES = 200  # of each first-stage head, at least, where multi-vectors or the hybrid rank


def check_sources(sources: Mapping[str, SourceConfig], heads: Sequence[str] | None = None) -> None:
    """Raises RecipeError for a source that is none, or that a model with these heads cannot be."""
    for name, source in sources.items():
        if source.run is not None:
            continue
        known = (MODEL, *_HEADS, BM25, DOCUMENT, GIVEN_ONES)
        if name not in known:
            close = nearest(name, known)
            raise RecipeError(
                f"{name!r} is no source",
                where=f"mine.sources.{name}",
                fix=f"did you mean {close!r}?" if close else f"known: {', '.join(known)}; or name a file with run",
            )
        missing = heads is not None and (name not in heads if name != HYBRID else len(heads) < 2)
        if name in _HEADS and missing:
            raise RecipeError(
                f"the mining model has {', '.join(heads or ())} only", where=f"mine.sources.{name}", fix="leave it out"
            )


def searched(
    queries: Vectors,
    passages: Vectors,
    sources: Mapping[str, SourceConfig],
    weights: Mapping[Head, float],
    deciding: str,
) -> list[Ranking]:
    """What the sources that are a model's heads find; `model` is the head or hybrid that decides.

    `weights` are the hybrid's.
    """
    own = [name for name, source in sources.items() if source.run is None and name in (MODEL, *_HEADS)]
    wanted = {name: deciding if name == MODEL else name for name in own}
    ranked: dict[str, list[Ranked]] = {}
    for head in FIRST_STAGE:
        depths = [sources[name].last for name, by in wanted.items() if by == head]
        if depths:
            ranked[head] = rank(queries, passages, head, max(depths))
    depths = [sources[name].last for name, by in wanted.items() if by not in FIRST_STAGE]
    if depths:
        found = search(queries, passages, SearchPlan(max(depths), max(_CANDIDATES, *depths)))
        ranked |= {"multi": found.by_head["multi"]} if "multi" in found.by_head else {}
        ranked |= {HYBRID: found.by_weights(weights)} if found.candidates else {}
    return [as_ranking(name, ranked[by], sources[name].first, sources[name].last) for name, by in wanted.items()]


def brought(ground: Ground, sources: Mapping[str, SourceConfig]) -> list[Ranking]:
    """What the sources that need no model bring. Raises DataError for an unknown id in a run file."""
    rankings = []
    for name, source in sources.items():
        if source.run is not None:
            file = resolve_path(source.run, "the run")
            run = read_run(file)
            check_known(
                (hit.passage_id for hits in run.values() for hit in hits), ground.collection.passages, "passage", file
            )
            rows = _rows_of_run(ground, run)
        elif name == BM25:
            rows = _rows_of_run(ground, _bm25(ground, source.last))
        elif name == DOCUMENT:
            rows = _same_documents(ground)
        elif name == GIVEN_ONES:
            rows = [_rows(ground, ground.collection.given_negatives.get(q, ())) for q in ground.query_ids]
        else:
            continue
        rankings.append(as_lists(name, [of[source.first - 1 : source.last] for of in rows], source.first))
    return rankings


def drawn(ground: Ground, seed: int, count: int) -> Ranking:
    """`count` random passages of the pool for each query, or all of a smaller one."""
    taken = min(count, ground.pool_size)
    rows = [
        query_generator(seed, q, "passages").choice(ground.pool_size, taken, replace=False) for q in ground.query_ids
    ]
    return as_lists(RANDOM, rows)


def document_rows(ground: Ground) -> Mapping[str, list[int]]:
    """Document -> rows of its passages in the pool; what names no document is in none."""
    members: dict[str, list[int]] = defaultdict(list)
    for passage_id, passage in ground.collection.passages.items():
        row = ground.passage_row.get(passage_id, ground.pool_size)
        if passage.document and row < ground.pool_size:
            members[passage.document].append(row)
    return members


def documents_of(ground: Ground, query_id: str) -> list[str]:
    """The documents of a query's positives."""
    named = (ground.collection.passages[p].document for p in ground.collection.positives[query_id])
    return list(dict.fromkeys(document for document in named if document))


def _same_documents(ground: Ground) -> list[np.ndarray]:
    """The other passages of the documents of each query's positives, in the order of the corpus."""
    members, rows = document_rows(ground), []
    for query_id in ground.query_ids:
        positives = {ground.passage_row[p] for p in ground.collection.positives[query_id]}
        others = (
            row for name in documents_of(ground, query_id) for row in members.get(name, ()) if row not in positives
        )
        rows.append(np.array(list(others), dtype=np.int64))
    return rows


def _bm25(ground: Ground, depth: int) -> Run:
    collection = ground.collection
    passages = {id_: collection.passages[id_] for id_ in ground.passage_ids[: ground.pool_size]}
    return bm25_run(Collection(collection.queries, passages, ()), ground.query_ids, depth)


def _rows_of_run(ground: Ground, run: Run) -> list[np.ndarray]:
    return [_rows(ground, (hit.passage_id for hit in run.get(q, ()))) for q in ground.query_ids]


def _rows(ground: Ground, passage_ids: Iterable[str]) -> np.ndarray:
    """Rows of those of the passages that are in the pool, in their order."""
    rows = (ground.passage_row.get(id_, ground.pool_size) for id_ in passage_ids)
    return np.array([row for row in rows if row < ground.pool_size], dtype=np.int64)
