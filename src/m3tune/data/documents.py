"""A folder of text and Markdown files as a corpus of passages, and perhaps a file of questions about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from m3tune.data.chunks import FEWEST_WORDS, WORDS, chunks_of
from m3tune.data.collection import Collection, text_hash
from m3tune.data.files import PACKED, find_file, open_text
from m3tune.data.intake import Intake, Row, first_value
from m3tune.data.pairs import rows_of
from m3tune.data.qrels import QrelsBuilder
from m3tune.data.rows import missing_key, string_at
from m3tune.errors import DataError, excerpt, nearest
from m3tune.types import Passage, Query

LAYOUT = (
    "documents are .md, .markdown, .rst and .txt files of a folder and those inside it; questions.jsonl, .csv or .tsv "
    "beside them holds the columns query and document, and perhaps quote"
)
QUESTIONS = ("questions.jsonl", "questions.csv", "questions.tsv")
NEXT = (
    "bring questions: questions.csv in the folder of the documents, with the columns query, document and quote; or "
    "m3tune convert … --to llamaindex, and fill 'queries' and 'relevant_docs'"
)
"""What to do with documents that no question is asked about."""

_KIND_OF_EXTENSION = {".md": "markdown", ".markdown": "markdown", ".rst": "rst", ".txt": "text"}
_QUERY, _DOCUMENT, _QUOTE = ("query", "question"), ("document", "file", "path"), ("quote", "evidence")


def read_documents(folder: Path, intake: Intake, *, words: int = WORDS, fewest_words: int = FEWEST_WORDS) -> Collection:
    """The collection of every document in a folder, its folders included, in the order of their paths.

    A passage is a part of a document under one heading, of about `words` words (see `chunks.chunks_of`): its title is
    the path of headings, as in `Guide > Install > Linux`, its document the path of the file, its id that path with the
    part's number. Where the folder has a file of questions, each is judged to be answered by the passages that its
    quote stands in, or by the whole document where it has none.

    Bad documents and questions go to `intake`: no UTF-8, an unknown document, a quote that is not in it. Raises
    DataError where the folder holds no document.
    """
    files = [folder] if folder.is_file() and is_document(folder) else list(document_files(folder))
    if not files:
        raise DataError("no document is here", where=folder, fix=LAYOUT)
    root = folder.parent if folder.is_file() else folder
    builder = QrelsBuilder("the questions", "the documents")
    passages_of: dict[str, list[Passage]] = {}

    def add_document(file: Path, where: str) -> bool:
        name = file.relative_to(root).as_posix()
        with open_text(file) as text:
            parts = chunks_of(text.read(), _kind(file), words=words, fewest_words=fewest_words)
            passages = [
                Passage(f"{name}#{number}", part.text, " > ".join(part.headings), name)
                for number, part in enumerate(parts, start=1)
            ]
        if not passages:
            raise DataError("no text is in it", where=where, fix="write some, or move it away", reason="empty-text")
        passages_of[name] = passages
        return all([builder.passages.add(passage, where) for passage in passages])

    intake.take("document", (Row(str(file), file) for file in files), add_document)
    questions = questions_file(folder) if folder.is_dir() else None
    if questions:
        intake.finish()  # what names a bad document would only be bad because of it
        _take_questions(rows_of(questions), builder, passages_of, intake)
    return builder.collection()


def document_files(folder: Path) -> Iterator[Path]:
    """The documents in a folder and its folders, by path; what is hidden is left out."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from document_files(path)
        elif is_document(path):
            yield path


def questions_file(folder: Path) -> Path | None:
    """The file of questions in a folder, whose first row says its columns. Raises DataError where there are several."""
    found = [file for name in QUESTIONS if (file := find_file(folder, name))]
    if len(found) > 1:
        raise DataError(f"{found[0].name} and {found[1].name} are both here", where=folder, fix="keep one of them")
    return found[0] if found and first_documents(folder) else None


def signs(folder: Path) -> list[str]:
    """The file of questions about documents beside it; none where its first row names no document that is there."""
    file = questions_file(folder)
    if file is None:
        return []
    try:
        row = first_value(rows_of(file))
    except DataError:
        return []
    named = [row[name] for name in _DOCUMENT if isinstance(row.get(name), str)]
    return [file.name] if any((folder / name).is_file() for name in named) else []


def first_documents(folder: Path) -> list[str]:
    """Paths of the first few documents in a folder."""
    return [file.relative_to(folder).as_posix() for file in islice(document_files(folder), 3)]


def is_document(file: Path) -> bool:
    """Whether the name of a file is a document's."""
    return bool(_kind(file))


def _kind(file: Path) -> str:
    name = file.name.lower()
    plain = next(name.removesuffix(ending) for ending in reversed(PACKED) if name.endswith(ending))
    return _KIND_OF_EXTENSION.get(Path(plain).suffix, "")


def _take_questions(
    rows: Iterator[Row], builder: QrelsBuilder, passages_of: Mapping[str, list[Passage]], intake: Intake
) -> None:
    def add(row: Mapping[str, Any], where: str) -> bool:
        text = _value(row, _QUERY, where)
        document = _value(row, _DOCUMENT, where).strip().removeprefix("./").replace("\\", "/")
        quote_name = next((name for name in _QUOTE if row.get(name)), None)
        if not text.strip():
            raise DataError("the question is empty", where=where, fix="write it or drop the row", reason="empty-text")
        if document not in passages_of:
            close = nearest(document, passages_of)
            raise DataError(
                f"the document {excerpt(document)} is unknown",
                where=where,
                fix=f"did you mean {close!r}?" if close else "give its path inside the folder",
                reason="unknown-id",
            )
        answers = passages_of[document]
        if quote_name:
            answers = _holding(string_at(row, quote_name, where), answers, document, where)
        intake.ignore(f"column {name!r}" for name in row if name not in (*_QUERY, *_DOCUMENT, *_QUOTE))
        query = Query(text_hash(text), text)
        news = [builder.queries.add(query, where)]
        news += [builder.judge(query.id, passage.id, "1", where) for passage in answers]
        return any(news)

    intake.take("question", rows, add)


def _value(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """The text of the first of these columns that the row has."""
    name = next((name for name in names if name in row), None)
    if name is None:
        raise missing_key(row, names[0], where)
    return string_at(row, name, where)


def _holding(quote: str, passages: list[Passage], document: str, where: str) -> list[Passage]:
    """The passages that a quote stands in, or that it begins and ends in. Raises DataError where it is in none."""
    # Without white space, for lines may be broken otherwise, and Chinese text is cut where there is none.
    wanted = "".join(quote.split())
    texts = ["".join(passage.text.split()) for passage in passages]
    whole = [passage for passage, text in zip(passages, texts, strict=True) if wanted in text]
    if whole:
        return whole
    start = "".join(texts).find(wanted)
    if start < 0:
        raise DataError(
            f"the quote is not in {document}: {excerpt(quote)}",
            where=where,
            fix="copy it from the document as it stands there, headings left out",
            reason="quote-not-found",
        )
    touched, at = [], 0
    for passage, text in zip(passages, texts, strict=True):
        if at < start + len(wanted) and start < at + len(text):
            touched.append(passage)
        at += len(text)
    return touched
