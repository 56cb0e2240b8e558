"""Topics and passages out of the files of a TREC folder, as lines or marked up, and lines of fields such as qrels'."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from m3tune.data.files import read_lines
from m3tune.data.intake import Intake, Row
from m3tune.data.marked import DOCUMENTS, TOPICS, fields_of, marked_records, tags_in
from m3tune.errors import DataError, excerpt

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


def topics(file: Path, intake: Intake) -> Iterator[Row]:
    """Each topic of a file as (id, text, ""): its title, or its description where it has no title."""
    return _records(file, TOPICS, _topic, intake)


def passages(file: Path, intake: Intake) -> Iterator[Row]:
    """Each passage of a file as (id, text, title)."""
    return _records(file, DOCUMENTS, _document, intake)


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
