"""Rules about single texts: empty, tiny, garbled, cut, or an id in disguise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from m3tune.data.collection import Collection
from m3tune.data.scripts import weight_of
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import EXAMPLES, found, share, shown
from m3tune.errors import excerpt
from m3tune.types import Finding, Passage, Query, Severity, Side

_TINY: Mapping[Side, int] = {"query": 4, "passage": 12}  # letters, see `weight_of`: a word, three words
_SEEN_CHARACTERS = 200  # of a text, to tell whether it is tiny
_RARE = 0.01  # share from which something wrong with texts is more than a note
_CUT = 0.05  # the same for texts that are longer than the encoder reads
# U+FFFD stands where a decoder gave up; the others are UTF-8 read as Latin-1 or Windows-1252.
_GARBLED = re.compile("\ufffd|[ÃÂ][\x80-\xbf]|â€[™œ\x9d“”¦]|[åäæçèé][\x80-\xbf]{2}")
_LONG_ID_CHARACTERS = 64
_ID_WORDS = re.compile(r"\S+(\s+\S+){3,}")
_ID_LIKE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|\d{3,}|[A-Za-z]{1,12}[-_#:]?\d+([-_]\d+)*", re.IGNORECASE
)
_MOSTLY = 0.2  # share of texts that look like ids from which they are no texts

_Records = Mapping[str, Query] | Mapping[str, Passage]


def empty_texts(collection: Collection, _: Context) -> Iterator[Finding]:
    """Texts without a letter or digit."""
    for side, records in _sides(collection):
        count, examples = _matching(records, lambda record: not _has_content(_whole(record)))
        if count:
            yield found(
                "empty-text",
                "error",
                _plural(side),
                f"{share(count, len(records))} have neither a letter nor a digit",
                f"remove them and what refers to them: --fix does; or write the {side}",
                examples,
                count=count,
                of=len(records),
            )


def tiny_texts(collection: Collection, _: Context) -> Iterator[Finding]:
    """Texts too short to say anything; the empty ones have a finding of their own."""
    for side, records in _sides(collection):
        least = _TINY[side]
        count, examples = _matching(records, _tiny_under(least))
        if count:
            yield found(
                "tiny-text",
                _by_share(count, len(records)),
                _plural(side),
                f"{share(count, len(records))} have fewer than {least} letters",
                "give whole questions and passages; a bare answer belongs inside the passage it is from",
                examples,
                count=count,
                of=len(records),
                least=least,
            )


def garbled_texts(collection: Collection, _: Context) -> Iterator[Finding]:
    """Texts that were decoded with the wrong encoding."""
    for side, records in _sides(collection):
        count, examples = _matching(records, lambda record: _GARBLED.search(_whole(record)) is not None, _around)
        if count:
            yield found(
                "garbled-text",
                _by_share(count, len(records)),
                _plural(side),
                f"{share(count, len(records))} hold characters of a wrong decoding",
                "read the source again as what it is (UTF-8, GBK, Windows-1252 …) and save it as UTF-8",
                examples,
                count=count,
                of=len(records),
            )


def cut_texts(collection: Collection, context: Context) -> Iterator[Finding]:
    """Texts longer than the encoder reads; known only where a model was named."""
    for side, lengths in context.lengths.items():
        cut = np.flatnonzero(lengths.tokens > lengths.max_tokens)
        if len(cut):
            covering = covering_tokens(lengths.tokens)
            rows = set(cut[:EXAMPLES].tolist())
            values = (collection.queries if side == "query" else collection.passages).values()
            texts: Iterable[Query | Passage] = values
            some = (f"{shown(text)} ({lengths.tokens[i]:,} tokens)" for i, text in enumerate(texts) if i in rows)
            yield found(
                "truncated-text",
                "warning" if len(cut) >= _CUT * len(lengths.tokens) else "note",
                _plural(side),
                f"{share(len(cut), len(lengths.tokens))} are cut at {lengths.max_tokens:,} tokens; "
                + ", ".join(f"{tokens:,} cover {percent} %" for percent, tokens in covering.items()),
                f"raise --{side}-max-tokens (model.{side}_max_tokens in a recipe), or cut the texts into passages",
                some,
                count=len(cut),
                of=len(lengths.tokens),
                max_tokens=lengths.max_tokens,
                covering={str(percent): tokens for percent, tokens in covering.items()},
                lost_tokens=int((lengths.tokens[cut] - lengths.max_tokens).sum()),
            )


def covering_tokens(tokens: np.ndarray) -> dict[int, int]:
    """Percent of the texts -> the limit in tokens that leaves so many of them whole, for `tokens` (N,), N above 0."""
    return {percent: int(np.quantile(tokens, percent / 100, method="higher")) for percent in (95, 99)}


def texts_as_ids(collection: Collection, _: Context) -> Iterator[Finding]:
    """Ids that are sentences: mostly two columns were mistaken for one another."""
    for side, records in _sides(collection):
        texts = [id_ for id_ in records if len(id_) > _LONG_ID_CHARACTERS or _ID_WORDS.fullmatch(id_)]
        if texts:
            yield found(
                "text-as-id",
                _by_share(len(texts), len(records)),
                _plural(side),
                f"{share(len(texts), len(records))} have an id that reads like a text",
                "check that the columns of id and text are not exchanged; give short ids, or none",
                (shown(records[id_]) for id_ in texts),
                count=len(texts),
                of=len(records),
            )


def ids_as_texts(collection: Collection, _: Context) -> Iterator[Finding]:
    """Texts that are ids: of this data, or by their looks where many are."""
    for side, records in _sides(collection):
        named, examples = _matching(records, lambda r: r.text in collection.passages or r.text in collection.queries)
        if not named:
            named, examples = _matching(records, lambda record: _ID_LIKE.fullmatch(record.text.strip()) is not None)
            if named < _MOSTLY * len(records):
                continue
        if named:
            yield found(
                "id-as-text",
                "error",
                _plural(side),
                f"{share(named, len(records))} have an id where the text should be",
                "put the text itself there; check which column holds it",
                examples,
                count=named,
                of=len(records),
            )


def _sides(collection: Collection) -> Iterator[tuple[Side, _Records]]:
    yield "query", collection.queries
    yield "passage", collection.passages


def _plural(side: Side) -> str:
    return "queries" if side == "query" else "passages"


def _whole(record: Query | Passage) -> str:
    return record.full_text if isinstance(record, Passage) else record.text


def _has_content(text: str) -> bool:
    return any(map(str.isalnum, text))


def _around(record: Query | Passage) -> str:
    """A garbled text from shortly before the place."""
    text = _whole(record)
    match = _GARBLED.search(text)
    return f"{record.id}: … {excerpt(text[max(0, match.start() - 30) :] if match else text)}"


def _tiny_under(least: int) -> Callable[[Query | Passage], bool]:
    return lambda record: 0 < weight_of(_whole(record)[:_SEEN_CHARACTERS]) < least


def _matching(
    records: _Records, condition: Callable[[Query | Passage], bool], example: Callable[[Query | Passage], str] = shown
) -> tuple[int, list[str]]:
    """How many records meet the condition, and the first of them as examples."""
    count, examples = 0, list[str]()
    for record in records.values():
        if condition(record):
            count += 1
            if len(examples) < EXAMPLES:
                examples.append(example(record))
    return count, examples


def _by_share(count: int, total: int) -> Severity:
    return "warning" if count >= _RARE * total else "note"
