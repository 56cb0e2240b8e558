"""The nouns. Small frozen records that name texts by id; the text itself lives in the `Collection` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Qrels = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> grade. A grade above zero is relevant; zero is judged and not relevant."""

Side = Literal["query", "passage"]
Head = Literal["dense", "sparse", "multi"]
HYBRID, RRF = "hybrid", "rrf"  # mixtures of heads: by weights, by reciprocal ranks
Protocol = Literal["new documents", "new questions"]
SIDES = ("train", "dev", "test")  # of a split
SIDE_PAIRS = (("train", "test"), ("train", "dev"), ("dev", "test"))  # what the second asks, the first must not tell


@dataclass(frozen=True, slots=True)
class Query:
    """A question. `prompt` is an instruction of this query's own, as some FlagEmbedding rows carry."""

    id: str
    text: str
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """One unit of retrieval. `document` names what it was cut from, where it is a part of something longer."""

    id: str
    text: str
    title: str = ""
    document: str = ""

    @property
    def full_text(self) -> str:
        """What the encoder reads: title and text joined by one space, as BEIR does."""
        return f"{self.title} {self.text}" if self.title else self.text


class Judgment(NamedTuple):
    """How relevant a passage is to a query; `score` is a teacher's, where the data brings one."""

    query_id: str
    passage_id: str
    grade: int = 1
    score: float | None = None


GIVEN, MINED, TAUGHT = "given", "mined", "taught"  # by the data; by us; by us, with a teacher's score
SOFT = "soft"  # by us, suspected of being relevant: no negative, its teacher's score is all that is learned of it


class Negative(NamedTuple):
    """A passage given or mined as not relevant to a query, and where it comes from.

    `score` is a teacher's, but the mining model's where the source is `mined`.
    """

    query_id: str
    passage_id: str
    source: str = GIVEN
    score: float | None = None


class Candidate(NamedTuple):
    """A passage that a search brought up for a query, and what became of it.

    `sources` are the searches that found it, best rank first, `rank` its rank from 1 in the first of them. `score` is
    the mining model's, `positive_score` that model's score of the query's positive it is measured against; `teacher`
    and `positive_teacher` are a cross-encoder's of the same pairs. `removed` is why it may not be a negative, empty
    where it may; `chosen` says that it was sampled, and with both it is a soft label.
    """

    query_id: str
    passage_id: str
    sources: tuple[str, ...]
    rank: int
    score: float
    positive_score: float
    teacher: float | None = None
    positive_teacher: float | None = None
    removed: str = ""
    chosen: bool = False


Judged = Literal["relevant", "not relevant", "unsure"]


class PairVerdict(NamedTuple):
    """A person's or a model's word on whether a passage answers a query; `time` is ISO 8601 in UTC."""

    query_id: str
    passage_id: str
    judged: Judged
    reviewer: str
    kind: Literal["person", "model"] = "person"
    time: str = ""


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries that come from one source, and how they train.

    Without `in_batch_negatives` only a query's own negatives count, as classification data needs: there, another
    query's positive may well be right for this one. `options` are what else the source says of all its rows.
    """

    query_ids: tuple[str, ...]
    in_batch_negatives: bool = True
    options: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Split:
    """Which queries train, which choose (development) and which judge (test). Query ids; no id is in two of them.

    `protocol` says what a carved side asks: about new documents, or new questions about documents that train has too.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    protocol: Protocol = "new documents"


class Example(NamedTuple):
    """What one query brings to a batch: its positives and hard negatives, by passage id."""

    query_id: str
    positive_ids: tuple[str, ...]
    negative_ids: tuple[str, ...] = ()


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check or the doctor found: a stable code with a page of its own, where, what, how much, and what to do.

    `examples` are short texts for a person; `evidence` holds the figures for programs.
    """

    code: str
    severity: Severity
    where: str
    what: str
    fix: str
    examples: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Hit(NamedTuple):
    """One line of a ranking, best first."""

    passage_id: str
    score: float


Run = Mapping[str, list[Hit]]
"""query id -> ranked passages. A query without results is present with an empty list, or absent; both count as zero."""
