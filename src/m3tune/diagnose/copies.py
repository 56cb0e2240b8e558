"""Rules about copies: the same or nearly the same text under several ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from m3tune.data.collection import Collection, first_copies
from m3tune.data.similar import NearCopies
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import found, share, shown
from m3tune.errors import excerpt
from m3tune.types import Finding, Passage, Query

_MANY = 0.05  # share of near-duplicates from which they are more than a note

_Records = Mapping[str, Query] | Mapping[str, Passage]


def duplicate_passages(collection: Collection, _: Context) -> Iterator[Finding]:
    """One passage under several ids."""
    yield from _exact(
        "duplicate-passages",
        collection.passages,
        collection.canonical_passage,
        "keep one id for each text, with the judgments of all: --fix does",
    )


def duplicate_queries(collection: Collection, _: Context) -> Iterator[Finding]:
    """One question under several ids."""
    yield from _exact(
        "duplicate-queries",
        collection.queries,
        collection.canonical_query,
        "keep one id for each question, with the relevant passages of all",
    )


def near_duplicate_passages(collection: Collection, context: Context) -> Iterator[Finding]:
    """Passages that differ in case, spacing, a header or a few words."""
    yield from _near(
        "near-duplicate-passages",
        collection.passages,
        collection.canonical_passage,
        context.near_passages,
        "remove the versions that nobody should find; what stays is kept together in a split and out of the negatives",
    )


def near_duplicate_queries(collection: Collection, context: Context) -> Iterator[Finding]:
    """Questions that differ in a word or in politeness."""
    yield from _near(
        "near-duplicate-queries",
        collection.queries,
        collection.canonical_query,
        context.near_queries,
        "nothing where they are real questions; where they were generated, keep one of each kind",
    )


def texts_under_several_titles(collection: Collection, _: Context) -> Iterator[Finding]:
    """The same passage text under different titles: boilerplate, or a title that went astray."""
    titles: dict[str, set[str]] = {}
    for id_, earlier in first_copies((p.id, p.text) for p in collection.passages.values()).items():
        title, other = (collection.passages[passage_id].title for passage_id in (earlier, id_))
        if title != other:
            titles.setdefault(earlier, {title}).add(other)
    if titles:
        yield found(
            "text-under-several-titles",
            "note",
            "passages",
            f"{len(titles):,} texts stand under several titles",
            "check whether they are boilerplate that nobody asks for; then remove them",
            (
                f"{shown(collection.passages[id_])} under {', '.join(map(excerpt, sorted(of_text)[:3]))}"
                for id_, of_text in titles.items()
            ),
            count=len(titles),
        )


def _exact(code: str, records: _Records, first_copy: Mapping[str, str], fix: str) -> Iterator[Finding]:
    copies = {id_: first_copy[id_] for id_ in first_copy}
    if copies:
        yield found(
            code,
            "warning",
            code.removeprefix("duplicate-"),
            f"{share(len(copies), len(records))} repeat an earlier one to the letter",
            fix,
            (f"{first} = {copy}: {excerpt(records[first].text)}" for copy, first in copies.items()),
            count=len(copies),
            of=len(records),
            texts=len(set(copies.values())),
        )


def _near(code: str, records: _Records, first_copy: Mapping[str, str], near: NearCopies, fix: str) -> Iterator[Finding]:
    count = sum(first_copy[id_] == id_ for id_ in near.first)  # copies to the letter have a finding of their own
    if count:
        pairs = (pair for pair in near.pairs if first_copy[pair[0]] != first_copy[pair[1]])
        yield found(
            code,
            "warning" if count >= _MANY * len(records) else "note",
            code.removeprefix("near-duplicate-"),
            f"{share(count, len(records))} nearly repeat an earlier one",
            fix,
            (
                f"{a} ~ {b} ({similarity:.2f}): {excerpt(records[a].text)} ~ {excerpt(records[b].text)}"
                for a, b, similarity in pairs
            ),
            count=count,
            of=len(records),
        )
