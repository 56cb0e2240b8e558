"""A collection in the making from rows that each hold a query with its positives and negatives as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m3tune.data.collection import Collection, text_hash
from m3tune.data.table import Table
from m3tune.errors import DataError, excerpt
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

Options = tuple[tuple[str, str | int], ...]
_Pair = tuple[str, str]


class Builder:
    """Collects rows. A text is stored once, and rows with one query unite.

    A negative has no id of its own, so it lies apart until all rows are read: another row may name the same text.
    """

    def __init__(self) -> None:
        self.queries = Table(Query)
        self.passages = Table(Passage)
        self.positives: dict[_Pair, float | None] = {}
        self.negatives: dict[_Pair, float | None] = {}  # query id, hash of the text
        self._unnamed = Table(Passage)
        self._members: dict[tuple[str, bool, Options], dict[str, None]] = {}

    def add(
        self,
        query: Query,
        positives: Sequence[tuple[Passage, float | None]],
        negatives: Sequence[tuple[str, float | None]],
        where: str,
    ) -> bool:
        """Add a row whose texts are sound; whether it brought anything new.

        Raises DataError, having added nothing, for a text that is on both sides, a positive that is the query itself,
        and an id with two texts.
        """
        both = {passage.text for passage, _ in positives} & {text for text, _ in negatives}
        if both:
            raise DataError(
                f"a text is both positive and negative: {excerpt(min(both))}",
                where=where,
                fix="remove it from the one where it does not belong",
                reason="positive-among-negatives",
            )
        if any(passage.full_text == query.text for passage, _ in positives):
            raise DataError(
                f"a positive is the query itself: {excerpt(query.text)}",
                where=where,
                fix="give the passage that answers it, or drop the row",
                reason="query-is-positive",
            )
        self.queries.is_new(query, where)
        for passage, _ in positives:
            self.passages.is_new(passage, where)
        news = [self.queries.add(query, where)]
        for passage, score in positives:
            news += [self.passages.add(passage, where), _note(self.positives, (query.id, passage.id), score)]
        for text, score in negatives:
            unnamed = Passage(text_hash(text), text)
            news += [self._unnamed.add(unnamed, where), _note(self.negatives, (query.id, unnamed.id), score)]
        return any(news)

    def put_into_set(
        self, query_id: str, name: str, in_batch_negatives: bool, options: Mapping[str, str | int]
    ) -> None:
        """Say which source a query comes from, and what its row says of itself."""
        key = (name, in_batch_negatives, tuple(sorted(options.items())))
        self._members.setdefault(key, {})[query_id] = None

    def collection(self) -> Collection:
        """Everything added so far."""
        named: dict[str, str] = {}
        for passage in self.passages.values():
            hash_ = text_hash(passage.text)
            if hash_ in self._unnamed:
                named.setdefault(hash_, passage.id)
        for passage in self._unnamed.values():
            if passage.id not in named:
                self.passages.add(passage, "a negative")
        return Collection(
            self.queries,
            self.passages,
            tuple(Judgment(*pair, score=score) for pair, score in self.positives.items()),
            tuple(
                Negative(query_id, named.get(hash_, hash_), score=score)
                for (query_id, hash_), score in self.negatives.items()
            ),
            sets=self._sets(),
        )

    def _sets(self) -> dict[str, QuerySet]:
        """The sets by name; where the rows of one source differ in their options, a number makes the names distinct."""
        sets: dict[str, QuerySet] = {}
        for (name, in_batch_negatives, options), members in self._members.items():
            number = 2
            distinct = name
            while distinct in sets:
                distinct, number = f"{name}-{number}", number + 1
            sets[distinct] = QuerySet(tuple(members), in_batch_negatives, dict(options))
        return sets


def _note(pairs: dict[_Pair, float | None], pair: _Pair, score: float | None) -> bool:
    """Note a pair with its first score; whether that is news."""
    is_new = pair not in pairs or (pairs[pair] is None and score is not None)
    if is_new:
        pairs[pair] = score
    return is_new
