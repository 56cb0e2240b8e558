"""A collection as FlagEmbedding's native rows: one a query that has a relevant passage, a file for each set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3tune.data.builder import Sets, distinct
from m3tune.data.collection import Collection, text_hash
from m3tune.data.flagembedding import EXTENSIONS, NO_IN_BATCH, OPTIONS, is_a_set, query_id_of, set_of
from m3tune.data.rows import write_json_lines
from m3tune.data.scores import first_scores
from m3tune.types import Query, QuerySet

_Scored = dict[str, float | None]  # text -> score

# Reasons that are counted row by row while writing.
_LOST = (
    "lost_queries_empty_or_without_a_relevant_passage",
    "lost_pairs_of_these_queries",
    "lost_pairs_with_an_empty_passage",
    "lost_pairs_with_a_text_of_the_same_row",
    "lost_pairs_of_a_query_with_itself",
)


def write_flagembedding(collection: Collection, path: Path) -> dict[str, int]:
    """Write a new JSON lines file, or a new folder with a file for each set where `path` names no such file.

    Returns what was written and, as `lost_…`, what the format cannot hold. One row a query that has a relevant passage.
    A title is joined into its passage's text, as the encoder reads it. A text stands once in a row, and as positive
    where it is both. Scores are written where every text of a list has one.
    """
    lost: Counter[str] = Counter()
    rows = _rows_by_query(collection, lost)
    if path.name.endswith(EXTENSIONS):
        options: dict[str, Mapping[str, Any]] = {}
        for of_set in collection.sets.values():
            options |= dict.fromkeys(of_set.query_ids, of_set.options)
        files = {path: {query_id: {**row, **options.get(query_id, {})} for query_id, row in rows.items()}}
    else:
        path.mkdir(parents=True)
        files = {
            path / f"{name}{'' if of_set.in_batch_negatives else f'-{NO_IN_BATCH}'}.jsonl": {
                query_id: {**rows[query_id], **of_set.options} for query_id in of_set.query_ids if query_id in rows
            }
            for name, of_set in _all_sets(collection).items()
        }
    for file, members in files.items():
        write_json_lines(file, members.values())
    lost["lost_sets"] = _lost_sets(collection, files, path)
    return _counts(collection, list(rows.values()), lost)


def _rows_by_query(collection: Collection, lost: Counter[str]) -> dict[str, dict[str, Any]]:
    """Query id -> its row; what does not fit is counted in `lost`."""
    positive_scores, negative_scores = first_scores(collection.judgments), first_scores(collection.negatives)
    rows: dict[str, dict[str, Any]] = {}
    for query in collection.queries.values():
        texts: dict[str, _Scored] = {"pos": {}, "neg": {}}
        pairs = [("pos", p, positive_scores[query.id, p]) for p in collection.positives.get(query.id, ())]
        pairs += [("neg", p, negative_scores[query.id, p]) for p in collection.given_negatives.get(query.id, ())]
        for key, passage_id, score in pairs:
            text = collection.passages[passage_id].full_text
            if not text.strip():
                lost["lost_pairs_with_an_empty_passage"] += 1
            elif key == "pos" and text == query.text:
                lost["lost_pairs_of_a_query_with_itself"] += 1
            elif text in texts["pos"] or text in texts["neg"]:
                lost["lost_pairs_with_a_text_of_the_same_row"] += 1
            else:
                texts[key][text] = score
        if texts["pos"] and query.text.strip():
            rows[query.id] = _row_of(query, texts["pos"], texts["neg"])
            lost["ids"] += query.id != query_id_of(query.text, query.prompt)
        else:
            lost["lost_queries_empty_or_without_a_relevant_passage"] += 1
            lost["lost_pairs_of_these_queries"] += len(texts["pos"]) + len(texts["neg"])
    return rows


def _row_of(query: Query, positives: _Scored, negatives: _Scored) -> dict[str, Any]:
    row: dict[str, Any] = {"query": query.text, "pos": list(positives), "neg": list(negatives)}
    for key, scored in (("pos_scores", positives), ("neg_scores", negatives)):
        if scored and None not in scored.values():
            row[key] = list(scored.values())
    return row if query.prompt is None else row | {"prompt": query.prompt}


def _all_sets(collection: Collection) -> dict[str, QuerySet]:
    """The sets of the data and, for the queries in none, one more."""
    in_a_set = {query_id for of_set in collection.sets.values() for query_id in of_set.query_ids}
    rest = tuple(query_id for query_id in collection.queries if query_id not in in_a_set)
    if not rest and collection.sets:
        return dict(collection.sets)
    return dict(collection.sets) | {distinct("rest" if collection.sets else "train", collection.sets): QuerySet(rest)}


def _lost_sets(collection: Collection, files: Mapping[Path, Mapping[str, dict[str, Any]]], path: Path) -> int:
    """How many sets the written rows do not give again, apart from queries that are in no row."""
    read = Sets()
    in_a_row = set[str]().union(*files.values())
    for file, members in files.items():
        name, in_batch_negatives = set_of(path, file)
        for query_id, row in members.items():
            options = {key: row[key] for key in OPTIONS if key in row}
            if is_a_set(len(files), in_batch_negatives, options):
                read.put(query_id, name, in_batch_negatives, options)
    found = {name: (set(s.query_ids), s.in_batch_negatives, s.options) for name, s in read.by_name().items()}
    return sum(
        found.get(name) != (in_a_row.intersection(s.query_ids), s.in_batch_negatives, s.options)
        for name, s in collection.sets.items()
    )


def _counts(collection: Collection, rows: list[dict[str, Any]], lost: Counter[str]) -> dict[str, int]:
    """What was written, and what was lost by reason. Pairs are judgments and negatives."""
    texts = {text for row in rows for text in (*row["pos"], *row["neg"])}
    used = [passage for passage in collection.passages.values() if passage.full_text in texts]
    grades = [grade for graded in collection.grades.values() for grade in graded.values()]
    distinct_pairs = len(grades) + sum(map(len, collection.given_negatives.values()))
    scores = sum(len(row.get(key, ())) for row in rows for key in ("pos_scores", "neg_scores"))
    return {
        "queries": len(rows),
        "passages": len(texts),
        "judgments": sum(len(row["pos"]) for row in rows),
        "negatives": sum(len(row["neg"]) for row in rows),
        "scores": scores,
        "titles_joined_into_texts": sum(bool(passage.title) for passage in used),
        **{reason: lost[reason] for reason in _LOST},
        "lost_passages_in_no_row": len(collection.passages) - len(used),
        "lost_copies_of_a_passage": len(used) - len(texts),
        "lost_ids": sum(passage.id != text_hash(passage.full_text) for passage in used) + lost["ids"],
        "lost_repeated_pairs": len(collection.pairs) - distinct_pairs,
        "lost_judgments_of_not_relevant": sum(grade <= 0 for grade in grades),
        "lost_grades_above_1": sum(grade > 1 for grade in grades),
        "lost_scores": sum(pair.score is not None for pair in collection.pairs) - scores,
        "lost_sources_of_negatives": sum(pair.source != "given" for pair in collection.negatives),
        "lost_splits": len(collection.splits),
        "lost_sets": lost["lost_sets"],
        "lost_documents": sum(bool(passage.document) for passage in used),
    }
