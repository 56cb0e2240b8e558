"""Rules about scripts: which writing systems queries and passages are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from m3tune.data.collection import Collection
from m3tune.data.scripts import chinese_form_of, script_of
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import EXAMPLES, found, shown
from m3tune.types import Finding, Passage, Query

_SEEN_CHARACTERS = 1000  # of a text; more of it changes nothing
_PART = 0.05  # share of a side from which a second script is more than a stray text
_MOSTLY = 0.8
_FEWEST = 10  # texts of a side whose Chinese tells its form


def mixed_scripts(collection: Collection, _: Context) -> Iterator[Finding]:
    """A side with texts of several scripts."""
    for side, records in (("queries", collection.queries), ("passages", collection.passages)):
        shares = _shares(script_of(_text(record)) for record in records.values())
        parts = {script: part for script, part in shares.items() if part >= _PART}
        if len(parts) > 1:
            rare = set(list(parts)[1:])
            some = (r for r in records.values() if script_of(_text(r)) in rare)
            yield found(
                "mixed-scripts",
                "note",
                side,
                _in_words(parts),
                "nothing for a multilingual encoder; a monolingual one cannot read the smaller part",
                _examples(some),
                count=sum(script_of(_text(record)) in rare for record in records.values()),
                shares={script: round(part, 4) for script, part in shares.items()},
            )


def differing_scripts(collection: Collection, _: Context) -> Iterator[Finding]:
    """Queries in another script than the passages, or in the other form of Chinese."""
    for kind, of_text in (("script", script_of), ("form of Chinese", chinese_form_of)):
        counts = [
            Counter(name for record in records.values() if (name := of_text(_text(record))))
            for records in (collection.queries, collection.passages)
        ]
        if min(count.total() for count in counts) < (_FEWEST if kind != "script" else 1):
            continue
        (query_kind, queries), (passage_kind, passages) = (count.most_common(1)[0] for count in counts)
        if query_kind == passage_kind:
            continue
        if kind != "script" and (queries < _MOSTLY * counts[0].total() or passages < _MOSTLY * counts[1].total()):
            continue
        yield found(
            "differing-scripts",
            "note",
            "queries, passages",
            f"the queries are mostly {query_kind}, the passages mostly {passage_kind}",
            "nothing where people ask so in use; then use a multilingual encoder and expect little of BM25"
            if kind == "script"
            else "convert both to the form that is used, for example with OpenCC",
            _examples(record for record in collection.queries.values() if of_text(_text(record)) == query_kind),
            count=queries,
            queries=dict(counts[0]),
            passages=dict(counts[1]),
        )


def script_shares(collection: Collection) -> dict[str, dict[str, Any]]:
    """Side -> script -> share of its texts that have a letter, largest first."""
    sides: Mapping[str, Mapping[str, Query] | Mapping[str, Passage]]
    sides = {"queries": collection.queries, "passages": collection.passages}
    return {side: _shares(script_of(_text(r)) for r in records.values()) for side, records in sides.items()}


def _shares(names: Iterable[str | None]) -> dict[str, float]:
    counts = Counter(name for name in names if name)
    return {name: count / counts.total() for name, count in counts.most_common()}


def _text(record: Query | Passage) -> str:
    return record.text[:_SEEN_CHARACTERS]


def _examples(records: Iterable[Query | Passage]) -> list[str]:
    return [shown(record) for record, _ in zip(records, range(EXAMPLES), strict=False)]


def _in_words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{part:.0%} {script}" for script, part in shares.items())
