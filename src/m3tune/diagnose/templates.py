"""Rules about headers and templates: what texts of one kind begin, end or are laid out with, and others do not.

An encoder that is trained on positives with a header, over a corpus without it, learns the header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from m3tune.data.collection import Collection
from m3tune.data.scripts import weight_of
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import found, share, shown
from m3tune.errors import excerpt
from m3tune.types import Finding, Passage

_FEWEST = 20  # texts of a kind from which a share means something
_MOST = 20_000  # texts of a kind that are looked at
_COMMON = 0.3  # share of one kind from which a mark is a template of it
_LACKING = 0.1  # of that share, what the other kind has at most
_SURE, _SURELY_LACKING = 0.8, 0.05
_PROMPT = 0.6  # share of the queries from which a common beginning is no chance
_PROMPT_WEIGHT = 12  # letters of such a beginning, see `weight_of`
_LENGTHS = (4, 8, 16, 32)  # characters of a beginning or end
_PROMPT_LENGTHS = (6, 12, 16, 24, 32, 48, 64)
_HEAD_LINES = 5
_LABEL = re.compile(r"\s*([^\s:：][^:：\n]{0,29}[:：])")
_DIGITS = re.compile(r"\d+")
_HAS_TITLE = "a title"

_Mark = str
_Counts = tuple[Counter[_Mark], int]  # how many texts bear each mark, and how many texts there are


def templates_of_positives(collection: Collection, _: Context) -> Iterator[Finding]:
    """A header, end or title that positives have and the other passages lack."""
    yield from _template("positive-template", collection, True)


def templates_of_others(collection: Collection, _: Context) -> Iterator[Finding]:
    """A header, end or title that the other passages have and positives lack."""
    yield from _template("corpus-template", collection, False)


def prompts_in_queries(collection: Collection, _: Context) -> Iterator[Finding]:
    """An instruction that is part of most queries' text."""
    texts = [query.text.strip() for query in collection.queries.values()]
    if len(texts) < _FEWEST:
        return
    for end, of_texts in (("begin", texts), ("end", [text[::-1] for text in texts])):
        prompt, count = _shared_beginning(of_texts)
        prompt = prompt if end == "begin" else prompt[::-1]
        if weight_of(prompt) >= _PROMPT_WEIGHT:
            yield found(
                "prompt-in-queries",
                "warning",
                "queries",
                f"{share(count, len(texts))} {end} with {excerpt(prompt)}",
                "take it out of the texts and set model.query_prompt, so that the same stands before queries in use",
                (
                    shown(query)
                    for query in collection.queries.values()
                    if (query.text.strip().startswith if end == "begin" else query.text.strip().endswith)(prompt)
                ),
                count=count,
                of=len(texts),
                prompt=prompt,
            )


def _marks_by_kind(collection: Collection) -> tuple[_Counts, _Counts]:
    """Marks of the passages that are relevant to a query, and of all others; each text counts once.

    Of a large corpus an even sample is looked at: a template that matters stands in a large share of it.
    """
    relevant = {collection.canonical_passage[p] for ids in collection.positives.values() for p in ids}
    counts: dict[bool, Counter[_Mark]] = {True: Counter(), False: Counter()}
    texts = {True: 0, False: 0}
    every = {True: -(-len(relevant) // _MOST), False: -(-len(collection.passages) // _MOST)}
    seen: Counter[bool] = Counter()
    for passage in collection.passages.values():
        if collection.canonical_passage[passage.id] == passage.id:
            kind = passage.id in relevant
            seen[kind] += 1
            if seen[kind] % every[kind]:
                continue
            counts[kind].update(_marks(passage))
            texts[kind] += 1
    return (counts[True], texts[True]), (counts[False], texts[False])


def _marks(passage: Passage) -> set[_Mark]:
    """What a text could have from a template, digits made equal: beginning, end, labels, a title."""
    text = passage.text.strip()
    head, tail = _masked(text[: _LENGTHS[-1]]), _masked(text[-_LENGTHS[-1] :])
    marks = {f"the beginning {excerpt(head[:size])}" for size in _LENGTHS if len(text) > size}
    marks |= {f"the end {excerpt(tail[-size:])}" for size in _LENGTHS if len(text) > size}
    for line in text.split("\n", _HEAD_LINES)[:_HEAD_LINES]:
        if label := _LABEL.match(line):
            marks.add(f"the label {excerpt(_masked(label[1]))}")
    return marks | ({_HAS_TITLE} if passage.title else set())


def _masked(text: str) -> str:
    return _DIGITS.sub("0", text)


def _template(code: str, collection: Collection, of_positives: bool) -> Iterator[Finding]:
    kinds = dict(zip((True, False), _marks_by_kind(collection), strict=True))
    bearing, lacking = kinds[of_positives], kinds[not of_positives]
    mark = _telling_mark(bearing, lacking)
    # Where one kind has a header, the plain beginnings of the other may look like one: the longer mark is the header.
    opposite = _telling_mark(lacking, bearing)
    if not mark or (opposite and (len(opposite), of_positives) > (len(mark), not of_positives)):
        return
    (marks, total), (others, other_total) = bearing, lacking
    here, there = marks[mark] / total, others[mark] / other_total
    names = ("positives", "other passages") if of_positives else ("other passages", "positives")
    yield found(
        code,
        "error" if here >= _SURE and there <= _SURELY_LACKING else "warning",
        names[0],
        f"{share(marks[mark], total)} have {mark}, of the {names[1]} {share(others[mark], other_total)}",
        "write positives, negatives and the corpus alike, as they are searched in use: all with it or all without",
        (shown(passage) for passage in _bearers(collection, mark, of_positives)),
        count=marks[mark],
        of=total,
        mark=mark,
        others=others[mark],
        of_others=other_total,
    )


def _telling_mark(bearing: _Counts, lacking: _Counts) -> _Mark:
    """The mark that most of one kind have and nearly none of the other, the longest of such; empty where none is."""
    (marks, total), (others, other_total) = bearing, lacking
    if min(total, other_total) < _FEWEST:
        return ""
    telling = {
        mark: count
        for mark, count in marks.items()
        if count >= _COMMON * total and others[mark] / other_total <= _LACKING * count / total
    }
    return max((mark for mark, count in telling.items() if count >= 0.95 * max(telling.values())), key=len, default="")


def _bearers(collection: Collection, mark: _Mark, relevant: bool) -> Iterable[Passage]:
    ids = {p for of_query in collection.positives.values() for p in of_query}
    return (p for p in collection.passages.values() if (p.id in ids) == relevant and mark in _marks(p))


def _shared_beginning(texts: Sequence[str]) -> tuple[str, int]:
    """The longest beginning that most of the texts have, and how many have it; empty where there is none."""
    best: Mapping[str, int] = {}
    for size in _PROMPT_LENGTHS:
        heads = Counter(text[:size] for text in texts if len(text) > size)
        if not heads or heads.most_common(1)[0][1] < _PROMPT * len(texts):
            break
        best = dict(heads.most_common(1))
    if not best:
        return "", 0
    (head, _), *_ = best.items()
    beginning = _usual_prefix([text for text in texts if text.startswith(head)])
    return beginning, sum(text.startswith(beginning) for text in texts)


def _usual_prefix(texts: Sequence[str]) -> str:
    """What all the texts begin with."""
    first, last = min(texts), max(texts)  # what these share, all in between share
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
