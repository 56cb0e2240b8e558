"""FlagEmbedding's native rows: `query`, `pos`, `neg` and what may stand beside them, as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3tune.data.builder import Builder, Sets, distinct
from m3tune.data.collection import Collection, text_hash
from m3tune.data.files import PACKED
from m3tune.data.intake import Intake
from m3tune.data.rows import missing_key, read_json_lines, string_at, write_json_lines
from m3tune.data.scores import first_scores, is_finite_number
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query, QuerySet

EXTENSIONS = tuple(f".{name}{packed}" for name in ("jsonl", "json") for packed in PACKED)
KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type", "batch_size", "train_group_size")

_OPTIONS = {"type": str, "batch_size": int, "train_group_size": int}
_LONE_SET = "data"
_NO_IN_BATCH = "no_in_batch_neg"  # how names end, of a folder or of a file without its extension
_Scored = dict[str, float | None]
# Reasons that are counted row by row while writing.
_LOST = (
    "lost_queries_empty_or_without_a_relevant_passage",
    "lost_pairs_of_these_queries",
    "lost_pairs_with_an_empty_passage",
    "lost_pairs_with_a_text_of_the_same_row",
    "lost_pairs_of_a_query_with_itself",
)


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a row is FlagEmbedding's: a single text under `pos` is a pair, there it is a list."""
    return "query" in keys and "pos" in keys and not isinstance(keys["pos"], str)


def read_flagembedding(path: Path, intake: Intake) -> Collection:
    """The collection in a JSON lines file, or in all those of a folder, in the order of their names.

    A passage's id is the hash of its text, a query's that of its prompt and text, so equal texts are stored once and
    rows with one query unite. The files of a folder are sets by their names, and so is a file whose rows say how they
    train (`type`, `batch_size`, `train_group_size`) or whose name ends in `no_in_batch_neg`, which becomes the set's
    setting.

    Bad rows go to `intake`: a wrong type, no or an empty positive, scores that do not match, a text that is positive
    and negative in one row.
    """
    builder = Builder(intake)
    files = row_files(path)
    for file in files:
        set_name, in_batch_negatives = _set_of(path, file)

        def add(row: dict[str, Any], where: str, name: str = set_name, in_batch: bool = in_batch_negatives) -> bool:
            query, options = _query(row, where), _options(row, where)
            positives = list(_scored_passages(row, "pos", where))
            if not positives:
                raise DataError(
                    f"'pos' is empty for the query {excerpt(query.text)}",
                    where=where,
                    fix="give a positive",
                    reason="no-positive",
                )
            is_new = builder.add(query, positives, list(_scored_passages(row, "neg", where)), where)
            if _is_a_set(len(files), in_batch, options):
                is_new |= builder.put_into_set(query.id, name, in_batch, options)
            intake.ignore(f"key {key!r}" for key in row if key not in KEYS)
            return is_new

        intake.take("row", read_json_lines(file), add)
    return builder.collection()


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
            path / f"{name}{'' if of_set.in_batch_negatives else f'-{_NO_IN_BATCH}'}.jsonl": {
                query_id: {**rows[query_id], **of_set.options} for query_id in of_set.query_ids if query_id in rows
            }
            for name, of_set in _all_sets(collection).items()
        }
    for file, members in files.items():
        write_json_lines(file, members.values())
    lost["lost_sets"] = _lost_sets(collection, files, path)
    return _counts(collection, list(rows.values()), lost)


def _lost_sets(collection: Collection, files: Mapping[Path, Mapping[str, dict[str, Any]]], path: Path) -> int:
    """How many sets the written rows do not give again, apart from queries that are in no row."""
    read = Sets()
    in_a_row = set[str]().union(*files.values())
    for file, members in files.items():
        name, in_batch_negatives = _set_of(path, file)
        for query_id, row in members.items():
            options = {key: row[key] for key in _OPTIONS if key in row}
            if _is_a_set(len(files), in_batch_negatives, options):
                read.put(query_id, name, in_batch_negatives, options)
    found = {name: (set(s.query_ids), s.in_batch_negatives, s.options) for name, s in read.by_name().items()}
    return sum(
        found.get(name) != (in_a_row.intersection(s.query_ids), s.in_batch_negatives, s.options)
        for name, s in collection.sets.items()
    )


def _is_a_set(files: int, in_batch_negatives: bool, options: Mapping[str, Any]) -> bool:
    """Whether a row of one of so many files belongs to a set, and not just to the data."""
    return files > 1 or bool(options) or not in_batch_negatives


def _rows_by_query(collection: Collection, lost: Counter[str]) -> dict[str, dict[str, Any]]:
    """Query id -> its row; what does not fit is counted in `lost`."""
    scores_of = {"pos": first_scores(collection.judgments), "neg": first_scores(collection.negatives)}
    rows: dict[str, dict[str, Any]] = {}
    for query in collection.queries.values():
        texts: dict[str, _Scored] = {"pos": {}, "neg": {}}
        given = {"pos": collection.positives.get(query.id, ()), "neg": collection.given_negatives.get(query.id, ())}
        for key, passage_ids in given.items():
            for passage_id in passage_ids:
                text = collection.passages[passage_id].full_text
                if not text.strip():
                    lost["lost_pairs_with_an_empty_passage"] += 1
                elif key == "pos" and text == query.text:
                    lost["lost_pairs_of_a_query_with_itself"] += 1
                elif text in texts["pos"] or text in texts["neg"]:
                    lost["lost_pairs_with_a_text_of_the_same_row"] += 1
                else:
                    texts[key][text] = scores_of[key][query.id, passage_id]
        if texts["pos"] and query.text.strip():
            rows[query.id] = _row_of(query, texts["pos"], texts["neg"])
            lost["ids"] += query.id != _query_id(query.text, query.prompt)
        else:
            lost["lost_queries_empty_or_without_a_relevant_passage"] += 1
            lost["lost_pairs_of_these_queries"] += len(texts["pos"]) + len(texts["neg"])
    return rows


def _all_sets(collection: Collection) -> dict[str, QuerySet]:
    """The sets of the data and, for the queries in none, one more."""
    in_a_set = {query_id for of_set in collection.sets.values() for query_id in of_set.query_ids}
    rest = tuple(query_id for query_id in collection.queries if query_id not in in_a_set)
    if not rest and collection.sets:
        return dict(collection.sets)
    return dict(collection.sets) | {distinct("rest" if collection.sets else "train", collection.sets): QuerySet(rest)}


def _set_of(path: Path, file: Path) -> tuple[str, bool]:
    """Name of the set that a file is, and whether it has in-batch negatives, which its name or the folder's says.

    A file that was named itself is called by one name, whatever it is: copying it changes nothing.
    """
    stem = next((file.name.removesuffix(ending) for ending in EXTENSIONS if file.name.endswith(ending)), file.name)
    in_batch = not (stem.endswith(_NO_IN_BATCH) or (path.is_dir() and path.name.endswith(_NO_IN_BATCH)))
    return (stem.removesuffix(_NO_IN_BATCH).rstrip("-_") if path.is_dir() else _LONE_SET) or _LONE_SET, in_batch


def _options(row: dict[str, Any], where: str) -> dict[str, str | int]:
    """What a row says of how it trains."""
    options = {key: row[key] for key in _OPTIONS if row.get(key) is not None}
    for key, value in options.items():
        if not isinstance(value, _OPTIONS[key]) or isinstance(value, bool):
            kind = "a text" if _OPTIONS[key] is str else "a whole number"
            raise DataError(
                f"{key!r} is not {kind}: {excerpt(value)}", where=where, fix=f"write {kind}", reason="wrong-type"
            )
    return options


def row_files(path: Path) -> list[Path]:
    """The file itself, or the JSON lines files of a folder by name. Raises DataError when a folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(EXTENSIONS) and file.is_file())
    if not files:
        raise DataError("no .jsonl or .json file is here", where=path, fix="name the folder that holds them")
    return files


def _row_of(query: Query, positives: _Scored, negatives: _Scored) -> dict[str, Any]:
    row: dict[str, Any] = {"query": query.text, "pos": list(positives), "neg": list(negatives)}
    for key, scored in (("pos_scores", positives), ("neg_scores", negatives)):
        if scored and None not in scored.values():
            row[key] = list(scored.values())
    return row if query.prompt is None else row | {"prompt": query.prompt}


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


def _query(row: dict[str, Any], where: str) -> Query:
    text = string_at(row, "query", where)
    if not text.strip():
        raise DataError(
            f"'query' is empty: {text!r}", where=where, fix="write the question or drop the row", reason="empty-text"
        )
    prompt = None if row.get("prompt") is None else string_at(row, "prompt", where)
    return Query(_query_id(text, prompt), text, prompt)


def _query_id(text: str, prompt: str | None) -> str:
    return text_hash(text if prompt is None else f"{prompt}\x1f{text}")


def _scored_passages(row: dict[str, Any], key: str, where: str) -> Iterator[tuple[Passage, float | None]]:
    """The passages of `pos` or `neg`, each with its score. A null is what a table writes for a missing cell."""
    texts = row.get(key)
    if texts is None and key == "pos":
        raise missing_key(row, key, where)
    if texts is None:
        texts = []
    if not isinstance(texts, list):
        raise DataError(
            f"{key!r} is not a list: {excerpt(texts)}",
            where=where,
            fix=f'write a list of texts: "{key}": ["…"]',
            reason="wrong-type",
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{key!r} holds {excerpt(text)}, which is not a passage",
                where=where,
                fix="write a text or remove it",
                reason="empty-text" if isinstance(text, str) else "wrong-type",
            )
    passages = (Passage(text_hash(text), text) for text in texts)
    return zip(passages, _scores(row, f"{key}_scores", len(texts), where), strict=True)


def _scores(row: dict[str, Any], key: str, length: int, where: str) -> list[float] | list[None]:
    scores = row.get(key)
    if scores is None:
        return [None] * length
    fix = f"write one number for each text, or leave {key!r} out"
    if not isinstance(scores, list):
        raise DataError(f"{key!r} is not a list: {excerpt(scores)}", where=where, fix=fix, reason="bad-score")
    if len(scores) != length:
        raise DataError(
            f"{key!r} has {len(scores)} scores for {length} texts", where=where, fix=fix, reason="bad-score"
        )
    for score in scores:
        if not is_finite_number(score):
            raise DataError(
                f"{key!r} holds {excerpt(score)}, which is not a finite number",
                where=where,
                fix=fix,
                reason="bad-score",
            )
    return [float(score) for score in scores]
