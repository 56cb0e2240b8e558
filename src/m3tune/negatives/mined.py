"""What a mining left, as data again: to train on, and in files for others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from m3tune.config import MineConfig
from m3tune.data.collection import Collection
from m3tune.data.write import write_collection
from m3tune.negatives.sources import GIVEN_ONES
from m3tune.negatives.table import read_negatives, read_taught_positives
from m3tune.types import MINED, SOFT, Judgment, PairVerdict


def keeps_given(config: MineConfig) -> bool:
    """Whether the data's own negatives train as they are: where they are a source, what was kept of them does."""
    return config.keep_given and GIVEN_ONES not in config.sources


def with_mined(collection: Collection, directory: Path, *, keep_given: bool) -> Collection:
    """The collection with the mined negatives and, where a teacher scored them, its scores of the positives.

    The scores that the data gave are left out then: they may have another scale.
    """
    mined, taught = read_negatives(directory), read_taught_positives(directory)
    pairs = {(negative.query_id, negative.passage_id) for negative in mined}
    given = [n for n in collection.negatives if keep_given and (n.query_id, n.passage_id) not in pairs]
    if not taught:
        return replace(collection, negatives=(*given, *mined))
    judgments = (j._replace(score=taught.get((j.query_id, j.passage_id))) for j in collection.judgments)
    unscored = (negative._replace(score=None) for negative in given)
    return replace(collection, judgments=tuple(judgments), negatives=(*unscored, *mined))


def with_promoted(collection: Collection, verdicts: Iterable[PairVerdict], query_ids: Sequence[str]) -> Collection:
    """The collection with what people call relevant to these queries judged so; a model's word judges nothing.

    Where people disagree, that of who found it relevant holds, as it does for mining.
    """
    asked, known = set(query_ids), {(j.query_id, j.passage_id) for j in collection.judgments if j.grade > 0}
    pairs = dict.fromkeys((v.query_id, v.passage_id) for v in verdicts if v.kind == "person" and v.judged == "relevant")
    new = tuple(Judgment(q, p) for q, p in pairs if q in asked and (q, p) not in known)
    return replace(collection, judgments=(*collection.judgments, *new)) if new else collection


def write_outputs(collection: Collection, query_ids: Sequence[str], directory: Path) -> dict[str, Path]:
    """Rows of the queries with negatives, beside the candidates: FlagEmbedding's JSON lines, and pairs in Parquet.

    Scores are a teacher's, as FlagEmbedding takes them; the mining model's stand in candidates.parquet, and so do soft
    labels, which both formats would make negatives of.
    """
    hard = tuple(negative for negative in collection.negatives if negative.source != SOFT)
    asked = set(query_ids) & {negative.query_id for negative in hard}
    mined = (n for n in hard if n.query_id in asked)
    negatives = tuple(n._replace(score=None) if n.source == MINED else n for n in mined)
    judgments = tuple(j for j in collection.judgments if j.query_id in asked)
    rows = replace(collection, judgments=judgments, negatives=negatives)
    written = {"flagembedding": directory / "flagembedding.jsonl", "pairs": directory / "pairs.parquet"}
    for name, file in written.items():
        if not file.exists():
            write_collection(rows, file, name)
    return written
