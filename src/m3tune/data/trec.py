"""TREC's and MS MARCO's layout: a folder with topics, passages and qrels, whose names say which file is what.

Topics and passages are lines `id<TAB>text`, or marked up as `<top>` and `<DOC>`; qrels `query 0 passage grade`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from m3tune.data.collection import Collection
from m3tune.data.files import PACKED, create_text, read_lines
from m3tune.data.intake import Intake, Row
from m3tune.data.marked import DOCUMENTS, TOPICS, fields_of, marked_records, tags_in
from m3tune.data.qrels import (
    SPLIT_OF_NAME,
    SPLITS,
    QrelsBuilder,
    check_ids,
    check_splits,
    lost_beside_qrels,
    write_qrels,
)
from m3tune.errors import DataError, excerpt
from m3tune.types import Passage, Query

LAYOUT = (
    "a TREC folder holds topics*, qrels* and collection* (or queries*; corpus*, docs*, documents*, passages*) "
    "as .tsv, .txt, .trec or .xml, each plain, .gz or .zst"
)

# Role -> the words in a file's name that say it; the first word that says one decides.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "qrels": ("qrels", "qrel"),
    "run": ("run", "runs"),
    "topics": ("topics", "topic", "queries"),
    "corpus": ("collection", "corpus", "docs", "documents", "passages"),
}
_ROLE_OF_WORD = {word: role for role, words in _WORDS.items() for word in words}
_EXTENSIONS = ("tsv", "txt", "trec", "xml", "sgml")
_OTHER_EXTENSIONS = ("json", "jsonl", "csv", "parquet", "md")
_NEEDED = ("topics", "corpus", "qrels")
# Column names of a first line that says what the columns of a TSV file are.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "_id", "qid", "query_id", "query-id", "pid", "docid", "doc_id", "docno", "passage_id"),
    "text": ("text", "query", "question", "passage", "body", "contents"),
    "title": ("title",),
}
_COLUMN_OF_NAME = {name: column for column, names in _COLUMNS.items() for name in names}
_FIELDS_OF_TOPIC = ("num", "title", "query", "desc", "description", "question", "narr", "narrative", "top", "topic")
# The first of these that is there is what is searched for.
_TEXTS_OF_TOPIC = ("title", "query", "desc", "description", "question")
_TITLES_OF_PASSAGE = ("title", "headline", "hl", "ti")
_LABEL = re.compile(r"\A\s*(number|topic|description)\s*:", re.IGNORECASE)
_NUMBER = re.compile(r"""\A<topic\s[^<>]*?(?:number|id)\s*=\s*["']([^"']*)["']""", re.IGNORECASE)
_BREAKS = re.compile(r"[\t\r\n]")
_SPACE_OR_EMPTY = re.compile(r"\s|\A\Z")


def signs(folder: Path) -> list[str]:
    """Names of the files in a folder that make it TREC's, runs left out; none where qrels stand alone."""
    files = _files(folder)
    return (
        [file.name for role in _NEEDED for file in files[role]] if files["qrels"] and len(_present(files)) > 1 else []
    )


def read_trec(folder: Path, intake: Intake) -> Collection:
    """The collection in a TREC folder. Qrels whose name says train, dev or test are that split.

    Of a topic the title is the query, or its description where it has no title. Runs in the folder are not read.

    Bad records go to `intake`: an id with two texts, an unknown id, a grade that is none, a record without id. Raises
    DataError where a file is missing, or two are the same split.
    """
    if not folder.is_dir():
        raise DataError("this is a file; topics, passages and qrels lie in one folder", where=folder, fix=LAYOUT)
    files = _files(folder)
    for role in _NEEDED:
        if not files[role]:
            words = "* or ".join(_WORDS[role])
            raise DataError(f"no file with the {role} is here: {words}*", where=folder, fix=LAYOUT)
    intake.ignore(f"the run {file.name!r}" for file in files["run"])
    qrels = _qrels_by_split(files["qrels"])
    builder = QrelsBuilder(_named(files["topics"]), _named(files["corpus"]))

    def add_query(record: tuple[str, str, str], where: str) -> bool:
        return builder.queries.add(Query(record[0], record[1]), where)

    def add_passage(record: tuple[str, str, str], where: str) -> bool:
        return builder.passages.add(Passage(*record), where)

    for file in files["topics"]:
        intake.take("query", _records(file, TOPICS, _topic, intake), add_query)
    for file in files["corpus"]:
        intake.take("passage", _records(file, DOCUMENTS, _document, intake), add_passage)
    intake.finish()  # what names a bad text would only be bad because of it
    for split, file in qrels.items():
        if split is not None:
            builder.open_split(split)

        def judge(fields: list[str], where: str, split: str | None = split) -> bool:
            query_id, _, passage_id, grade = fields
            return builder.judge(query_id, passage_id, grade, where, split)

        intake.take("judgment", spaced_fields(file, "query 0 passage grade"), judge)
    return builder.collection()


def write_trec(collection: Collection, folder: Path) -> dict[str, int]:
    """Write a new folder with `queries.tsv`, `collection.tsv` and `qrels.SPLIT.txt`, or `qrels.txt` without splits.

    Returns what was written and, as `lost_…`, what the format cannot hold. A title is joined into its passage's text,
    as the encoder reads it; tabs and line breaks in texts become blanks. Judgments of queries in no split go to
    `qrels.txt`.

    Raises DataError for an id that is empty or holds white space, and for a split that is none of train, dev and test.
    """
    check_splits(collection.splits)
    check_ids(collection, _SPACE_OR_EMPTY, "white space, or nothing")
    folder.mkdir(parents=True)
    changed = _write_texts(folder / "queries.tsv", ((q.id, q.text) for q in collection.queries.values()))
    changed += _write_texts(folder / "collection.tsv", ((p.id, p.full_text) for p in collection.passages.values()))
    files = {folder / f"qrels.{split}.txt": set(members) for split, members in collection.splits.items()}
    rest = set(collection.grades).difference(*files.values())
    if rest or not files:
        files[folder / "qrels.txt"] = rest
    return {
        "queries": len(collection.queries),
        "passages": len(collection.passages),
        "splits": len(collection.splits),
        **write_qrels(collection, files, "{query} 0 {passage} {grade}"),
        "titles_joined_into_texts": sum(bool(passage.title) for passage in collection.passages.values()),
        "lost_tabs_and_line_breaks_of_texts": changed,
        **lost_beside_qrels(collection),
    }


def spaced_fields(file: Path, form: str) -> Iterator[Row]:
    """The fields of each line, which white space separates; `form` names them for the error of a line with others."""
    for number, line, error in read_lines(file):
        fields = line.split()
        if not fields:
            continue
        where = f"{file}:{number}"
        if not error and len(fields) != len(form.split()):
            error = DataError(
                f"{len(fields)} columns and not {len(form.split())}: {excerpt(line.strip())}",
                where=where,
                fix=f"write: {form}",
                reason="columns",
            )
        yield Row(where, fields, error, line)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Role -> the files of a folder that have it, by name."""
    files: dict[str, list[Path]] = {role: [] for role in _WORDS}
    for file in sorted(folder.iterdir()):
        role = role_of(file.name)
        if role and file.is_file():
            files[role].append(file)
    return files


def role_of(name: str) -> str | None:
    """What a file of this name holds, such as `qrels`; None where the name does not say it."""
    words = _words(name)
    role = next((role for word in words if (role := _ROLE_OF_WORD.get(word))), None)
    # Qrels and runs may end in anything, such as a tag, but queries.jsonl is no file of topics.
    fits = words[-1] not in _OTHER_EXTENSIONS if role in ("qrels", "run") else words[-1] in _EXTENSIONS
    return role if fits else None


def _words(name: str) -> list[str]:
    """The words of a file's name in lower case; the last one is its extension, compression left out."""
    plain = next(name.lower().removesuffix(ending) for ending in reversed(PACKED) if name.lower().endswith(ending))
    return [word.rstrip("0123456789") if word not in _EXTENSIONS else word for word in re.split(r"[\s._-]+", plain)]


def _present(files: Mapping[str, list[Path]]) -> list[str]:
    return [role for role in _NEEDED if files[role]]


def _named(files: list[Path]) -> str:
    return " or ".join(file.name for file in files)


def _qrels_by_split(files: list[Path]) -> dict[str | None, Path]:
    """Split -> its file, in the order train, dev, test; None -> the one whose name says no split."""
    found: dict[str | None, Path] = {}
    for file in files:
        split = next((split for word in _words(file.name) if (split := SPLIT_OF_NAME.get(word))), None)
        if split in found:
            raise DataError(
                f"{found[split].name} and {file.name} are both the {split or 'only'} qrels",
                where=file.parent,
                fix="keep one of them, or name them qrels.train, qrels.dev and qrels.test",
            )
        found[split] = file
    return {split: found[split] for split in (*SPLITS, None) if split in found}


def _records(
    file: Path,
    elements: tuple[str, ...],
    parse: Callable[[str, str, Intake], tuple[str, str, str]],
    intake: Intake,
) -> Iterator[Row]:
    """Each record of a file as (id, text, title); its first character says whether it is marked up."""
    first = next((line.text for line in read_lines(file) if line.text.strip()), "")
    if not first.lstrip().startswith("<"):
        yield from _tab_separated(file)
        return
    for row in marked_records(file, elements):
        if row.error:
            yield row
            continue
        try:
            yield row._replace(value=parse(row.value, row.where, intake))
        except DataError as error:
            yield row._replace(value=None, error=error)


def _topic(source: str, where: str, intake: Intake) -> tuple[str, str, str]:
    until = "|".join(_FIELDS_OF_TOPIC)
    numbers = fields_of(source, ("num",), until) or [match[1] for match in [_NUMBER.match(source)] if match]
    number = _LABEL.sub("", numbers[0]).split() if numbers else []
    if not number:
        raise _without(source, where, "number", "<num> Number: 301")
    for name in _TEXTS_OF_TOPIC:
        texts = [_LABEL.sub("", text) for text in fields_of(source, (name,), until)]
        if any(texts):
            intake.ignore(f"{tag!r} of a topic" for tag in tags_in(source) - {"top", "topic", "num", name})
            return number[0], " ".join(" ".join(texts).split()), ""
    raise _without(source, where, "text", "<title> what is searched for")


def _document(source: str, where: str, intake: Intake) -> tuple[str, str, str]:
    ids = fields_of(source, ("docno",))
    if not ids:
        raise _without(source, where, "id", "<DOCNO> id </DOCNO>")
    texts = fields_of(source, ("text",), "text|doc")
    if "text" not in tags_in(source):
        raise _without(source, where, "text", "<TEXT> … </TEXT>")
    titles = fields_of(source, _TITLES_OF_PASSAGE, "text|docno|doc")
    left_out = tags_in(source) - {"doc", "docno", "text", *_TITLES_OF_PASSAGE}
    intake.ignore(f"{tag!r} of a passage" for tag in left_out)
    return ids[0], "\n".join(texts), " ".join(" ".join(titles).split())


def _without(source: str, where: str, what: str, form: str) -> DataError:
    return DataError(
        f"a record without {what}: {excerpt(' '.join(source.split()))}",
        where=where,
        fix=f"write {form}",
        reason=f"no-{what}",
    )


def _tab_separated(file: Path) -> Iterator[Row]:
    """The lines `id<TAB>text`. A first line of nothing but known column names says that the columns are others."""
    columns = ["id", "text"]
    for number, line, error in read_lines(file):
        cells = line.split("\t")
        where = f"{file}:{number}"
        if not line.strip():
            continue
        named = [_COLUMN_OF_NAME.get(cell.strip().lower(), "") for cell in cells]
        if number == 1 and {"id", "text"} <= set(named) and "" not in named and len(set(named)) == len(named):
            columns = named
            continue
        if not error and (len(cells) != len(columns) or not cells[columns.index("id")].strip()):
            error = DataError(
                f"not {len(columns)} columns with tabs between them, an id first: {excerpt(line)}",
                where=where,
                fix=f"write {' TAB '.join(columns)}; a first line such as 'id TAB title TAB text' names other columns",
                reason="columns",
            )
        record = dict(zip(columns, cells, strict=False))
        yield Row(where, (record.get("id", "").strip(), record.get("text"), record.get("title", "")), error, line)


def _write_texts(file: Path, texts: Iterator[tuple[str, str]]) -> int:
    """Write lines `id<TAB>text`; returns in how many texts tabs or line breaks became blanks."""
    changed = 0
    with create_text(file) as out:
        for id_, text in texts:
            plain = _BREAKS.sub(" ", text)
            changed += plain != text
            out.write(f"{id_}\t{plain}\n")
    return changed
