"""Use a model: vectors of whole data sets to disk, and questions against them.

folder/passages, folder/queries    a vector store each (see `retrieval.store`), with ids and texts in texts.parquet
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m3tune.artifact import MANIFEST, read_json
from m3tune.data.collection import Collection
from m3tune.data.files import open_text
from m3tune.data.read import read_collection
from m3tune.data.token_store import tokens_kept
from m3tune.errors import ArtifactError, DataError, RecipeError, nearest
from m3tune.evaluation.measure import deciding_head
from m3tune.machine import Precision, pick_device, pick_precision
from m3tune.model.encoder import Encoder
from m3tune.model.settings import M3_WEIGHTS
from m3tune.paths import resolve_path
from m3tune.retrieval.approximate import Approximate, open_approximate
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries, tokenize_texts
from m3tune.retrieval.layout import Storage
from m3tune.retrieval.search import FIRST_STAGE, SearchPlan, search
from m3tune.retrieval.store import OF_QUERIES, differing_from, is_vectors, open_vectors, store_vectors
from m3tune.retrieval.vectors import Vectors
from m3tune.retrieval.words import Shared, Word, lexical_words, shared_words, speller
from m3tune.scoring import head_scores
from m3tune.types import HYBRID, RRF, Head, Passage, Query

What = Literal["both", "passages", "queries"]
TEXTS = "texts.parquet"
_Row = tuple[str, str, str]  # id, title, text
_KINDS: tuple[Literal["passages", "queries"], ...] = ("passages", "queries")


@dataclass(frozen=True)
class Index:
    """Passages and their vectors, ready to be searched."""

    passages: pa.Table  # id, title, text
    vectors: Vectors
    approximate: Approximate | None = None

    def passage(self, row: int) -> Passage:
        """One passage."""
        cells = self.passages.slice(row, 1).to_pylist()[0]
        return Passage(cells["id"], cells["text"], cells["title"])


@dataclass(frozen=True)
class Answer:
    """One passage found: its rank from 1, the score it was ranked by, every head's own score, what it shares."""

    rank: int
    score: float
    passage_id: str
    title: str
    text: str
    scores: Mapping[Head, float]
    shared: Sequence[Shared]


@dataclass(frozen=True)
class Answers:
    """What was found for a question; `words` are its lexical weights where the model has a sparse head."""

    question: str
    head: str
    words: Sequence[Word]
    hits: Sequence[Answer]

    def as_json(self) -> dict[str, Any]:
        """For programs: words as pairs of word and weight."""
        return {
            "question": self.question,
            "words": [list(word) for word in self.words],
            "hits": [asdict(hit) | {"shared": [list(word) for word in hit.shared]} for hit in self.hits],
        }


def read_texts(
    data: str, what: What, source: str = "auto", columns: Mapping[str, str] | None = None
) -> tuple[Collection, str]:
    """Any data that m3tune reads, or a text file with one text a line, and how it was read. Raises DataError.

    Lines are passages unless `what` is queries; their ids are line numbers, and empty lines are left out.
    """
    if source != "auto" or columns or not data.removesuffix(".gz").endswith(".txt"):
        return read_collection(data, source, columns)
    file = resolve_path(data, "the data")
    with open_text(file) as stream:
        lines = {str(number): line.strip() for number, line in enumerate(stream, start=1) if line.strip()}
    if not lines:
        raise DataError("no line with a text", where=file, fix="put one text on each line")
    if what == "queries":
        return Collection({i: Query(i, text) for i, text in lines.items()}, {}, ()), "Read as lines, one query each."
    return Collection({}, {i: Passage(i, text) for i, text in lines.items()}, ()), "Read as lines, one passage each."


def encode_collection(
    encoder: Encoder,
    collection: Collection,
    folder: Path,
    what: What = "both",
    heads: Sequence[Head] | None = None,
    dense: Storage = "float32",
    multi: Storage = "float16",
    precision: Precision = "auto",
) -> list[dict[str, Any]]:
    """Encode passages, queries or both into `folder`, going on with what was cut off; what is there, part by part."""
    wanted = heads or encoder.settings.heads
    encoder.check(wanted)
    encoder.to(pick_device())
    dtype = pick_precision(precision, encoder.device)
    written = []
    with tokens_kept(folder / "tokens"):
        for kind in _KINDS:
            rows = _rows(collection, kind) if what in ("both", kind) else []
            if not rows:
                continue
            tokenize = tokenize_passages if kind == "passages" else tokenize_queries
            store_vectors(
                encoder, tokenize(encoder, collection, [row[0] for row in rows]), dtype, folder / kind,
                heads=wanted, dense=dense, multi=multi, label=f"encode {kind}",
                about={"texts": _fingerprint(rows)}, beside=partial(_write_texts, rows),
            )  # fmt: skip
            counts = read_json(folder / kind / MANIFEST)["counts"]
            written.append({"folder": str(folder / kind), "kind": kind, "heads": list(wanted), **counts})
    if not written:
        raise DataError(f"there are no {'texts' if what == 'both' else what} here", fix="name data that has some")
    return written


def holds_vectors(folder: Path) -> bool:
    """Whether `folder` is what `encode_collection` wrote."""
    return is_vectors(folder / "passages")


def open_index(folder: Path, encoder: Encoder, *, approximate: bool = False) -> Index:
    """The passages that `encode_collection` wrote. Raises ArtifactError where another model made their vectors.

    With `approximate` dense vectors are searched by an index, which is made the first time and kept beside them; raises
    RecipeError where FAISS or dense vectors are missing.
    """
    place = folder / "passages"
    vectors = open_vectors(place)
    differing = differing_from(place, encoder, ignoring=OF_QUERIES)
    if differing:
        raise ArtifactError(
            f"these vectors were made by another model; what differs: {', '.join(differing)}",
            where=place,
            fix="name the model that made them, or encode again with this one",
        )
    if approximate and vectors.dense is None:
        raise RecipeError("these vectors have no dense ones", where="--approximate", fix="leave it out")
    quick = open_approximate(place, vectors.dense) if approximate and vectors.dense is not None else None
    return Index(pq.read_table(place / TEXTS, memory_map=True), vectors, quick)


def answer(
    encoder: Encoder,
    index: Index,
    questions: Sequence[str],
    head: str = "auto",
    top: int = 10,
    plan: SearchPlan | None = None,
) -> list[Answers]:
    """The `top` passages for each question by a head, by hybrid or by rrf; auto: hybrid, or the only head.

    The hybrid has the weights that the model was saved with, else M3's. Raises RecipeError for a head that is not
    there.
    """
    heads = index.vectors.heads
    head = deciding_head(head, heads) if head == "auto" else _checked(head, heads)
    dtype = pick_precision("auto", encoder.device)
    queries = encode_tokens(encoder, tokenize_texts(encoder, questions, "query"), dtype, heads, "encode questions")
    plan = (plan or SearchPlan())._replace(depth=top)
    # A single head is searched alone, but the multi-vector one needs the first stage of the others.
    alone = tuple(one for one in FIRST_STAGE if one == head)
    found = search(queries.only(alone or heads), index.vectors, plan, encoder.device, index.approximate)
    if head == HYBRID:
        ranked = found.by_weights(encoder.settings.hybrid_weights or M3_WEIGHTS)
    else:
        ranked = found.by_ranks() if head == RRF else found.by_head[head]  # type: ignore[index]
    explain = _explainer(encoder, index, queries)
    return [
        Answers(question, head, *explain(number, of_query.rows, of_query.scores))
        for number, (question, of_query) in enumerate(zip(questions, ranked, strict=True))
    ]


def _explainer(
    encoder: Encoder, index: Index, queries: Vectors
) -> Callable[[int, np.ndarray, np.ndarray], tuple[list[Word], list[Answer]]]:
    """(question, rows, scores) -> the question's words and the hits with every head's score."""
    spell = speller(encoder.tokenizer) if queries.sparse is not None else str

    def explain(number: int, rows: np.ndarray, scores: np.ndarray) -> tuple[list[Word], list[Answer]]:
        query, passages = queries.load(slice(number, number + 1)), index.vectors.load(rows)
        of_heads = head_scores(query, passages)
        hits = []
        for place, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True)):
            passage = index.passage(row)
            shared = (
                shared_words(query.sparse, 0, passages.sparse, place, spell) if query.sparse and passages.sparse else []
            )
            by_head = {name: float(values[0, place]) for name, values in of_heads.items()}
            hits.append(Answer(place + 1, score, passage.id, passage.title, passage.text, by_head, shared))
        return (lexical_words(query.sparse, 0, spell) if query.sparse else []), hits

    return explain


def _checked(head: str, heads: Sequence[Head]) -> str:
    known = (*heads, *((HYBRID, RRF) if len(heads) > 1 else ()))
    if head not in known:
        close = nearest(head, known)
        raise RecipeError(
            f"there is no {head!r} to search by",
            where="--head",
            fix=f"did you mean {close!r}?" if close else f"these vectors have {', '.join(known)}",
        )
    return head


def _rows(collection: Collection, kind: Literal["passages", "queries"]) -> list[_Row]:
    if kind == "passages":
        return [(passage.id, passage.title, passage.text) for passage in collection.passages.values()]
    return [(query.id, "", query.text) for query in collection.queries.values()]


def _fingerprint(rows: Sequence[_Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _write_texts(rows: Sequence[_Row], folder: Path) -> None:
    columns = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(dict(zip(("id", "title", "text"), columns, strict=True))), folder / TEXTS)
