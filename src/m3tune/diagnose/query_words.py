"""The words of queries: how rare they are in the collection, and how many of them the relevant passages have."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from m3tune.data.collection import Collection
from m3tune.retrieval.bm25 import tokenize

_SEEN_PASSAGES = 100_000  # of a larger collection that many are counted, evenly spaced
_CHUNK_TEXTS = 2048
_RARE = 0.001  # share of the passages up to which a word is rare


@dataclass(frozen=True)
class QueryWords:
    """Words as BM25 takes them: without English stop words, CJK as pairs of characters."""

    words: Mapping[str, frozenset[str]]  # query id -> its words
    counts: Mapping[str, int]  # word -> passages that have it, of those that were counted
    counted: int  # passages

    def rarest(self, query_id: str) -> int:
        """How many passages have the rarest word of a query; all of them where it has no word."""
        return min((self.counts.get(word, 0) for word in self.words[query_id]), default=self.counted)

    def rare(self, query_id: str) -> list[tuple[str, int]]:
        """The rare words of a query, each with the passages that have it, the rarest first."""
        limit = max(1, int(_RARE * self.counted))
        counted = ((word, self.counts.get(word, 0)) for word in sorted(self.words[query_id]))
        return sorted((item for item in counted if item[1] <= limit), key=lambda item: item[1])


def words_of_queries(collection: Collection, query_ids: Sequence[str]) -> QueryWords:
    """The words of some queries, counted in one pass over the passages."""
    texts = [collection.queries[query_id].text for query_id in query_ids]
    words = dict(zip(query_ids, map(frozenset, tokenize(texts)), strict=True))
    wanted = frozenset().union(*words.values())
    step = -(-len(collection.passages) // _SEEN_PASSAGES) or 1
    passages = (passage.full_text for passage in itertools.islice(collection.passages.values(), 0, None, step))
    counts: Counter[str] = Counter()
    for of_passage in _tokenized(passages):
        counts.update(wanted & of_passage)
    return QueryWords(words, counts, len(range(0, len(collection.passages), step)))


def shared_shares(collection: Collection, words: QueryWords) -> dict[str, float]:
    """Query id -> the largest share of its words that one of its relevant passages has; 0 where it has no word."""
    pairs = [(q, p) for q in words.words for p in collection.positives.get(q, ())]
    shares = dict.fromkeys(words.words, 0.0)
    texts = (collection.passages[passage_id].full_text for _, passage_id in pairs)
    for (query_id, _), of_passage in zip(pairs, _tokenized(texts), strict=True):
        asked = words.words[query_id]
        shares[query_id] = max(shares[query_id], len(asked & of_passage) / max(1, len(asked)))
    return shares


def _tokenized(texts: Iterable[str]) -> Iterator[frozenset[str]]:
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, _CHUNK_TEXTS)):
        yield from map(frozenset, tokenize(chunk))
