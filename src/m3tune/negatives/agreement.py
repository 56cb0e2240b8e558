"""What several reviewers' verdicts come to: one word for each pair, and how far any two of them agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from m3tune.types import Judged, PairVerdict

Pair = tuple[str, str]
"""(query id, passage id)."""


class Agreement(NamedTuple):
    """How far two reviewers agree on the pairs that both judged; `kappa` is None where chance alone agrees fully."""

    pairs: int
    observed: float
    kappa: float | None


def merged(verdicts: Iterable[PairVerdict]) -> dict[Pair, Judged]:
    """One word for each pair: what most reviewers say who are sure, and unsure where as many say the contrary.

    `verdicts` holds at most one verdict of a reviewer on a pair. Whether persons and models count together is for
    the caller to say, by what is passed.

    >>> said = [PairVerdict("q", "p", word, name) for name, word in zip("abc", ["relevant", "unsure", "relevant"])]
    >>> merged(said), merged([*said[:2], PairVerdict("q", "p", "not relevant", "d")])
    ({('q', 'p'): 'relevant'}, {('q', 'p'): 'unsure'})
    """
    balance: dict[Pair, int] = defaultdict(int)
    for verdict in verdicts:
        balance[verdict.query_id, verdict.passage_id] += (verdict.judged == "relevant") - (
            verdict.judged == "not relevant"
        )
    return {
        pair: "relevant" if sure > 0 else "not relevant" if sure < 0 else "unsure" for pair, sure in balance.items()
    }


def agreement(first: Mapping[Pair, Judged], second: Mapping[Pair, Judged]) -> Agreement | None:
    """Cohen's kappa of two reviewers over the pairs both judged, with unsure as a word like the others.

    (observed - expected) / (1 - expected), where expected is the agreement of two who use the words as often as these
    two and look at nothing. None where they share no pair.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    shared = [(first[pair], second[pair]) for pair in first if pair in second]
    if not shared:
        return None
    observed = sum(a == b for a, b in shared) / len(shared)
    of_first, of_second = (Counter(words) for words in zip(*shared, strict=True))
    expected = sum(count * of_second[word] for word, count in of_first.items()) / len(shared) ** 2
    kappa = None if expected == 1 else (observed - expected) / (1 - expected)
    return Agreement(len(shared), observed, kappa)


def by_reviewer(verdicts: Sequence[PairVerdict]) -> dict[tuple[str, str], dict[Pair, Judged]]:
    """(kind, reviewer) -> pair -> word."""
    said: dict[tuple[str, str], dict[Pair, Judged]] = defaultdict(dict)
    for verdict in verdicts:
        said[verdict.kind, verdict.reviewer][verdict.query_id, verdict.passage_id] = verdict.judged
    return dict(said)
