"""A collection in the making from rows that each hold a query with its positives and negatives as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m3tune.data.collection import Collection, text_hash
from m3tune.data.intake import Intake
from m3tune.data.table import Table, two_texts
from m3tune.errors import DataError, excerpt
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

Options = tuple[tuple[str, str | int], ...]
_Pair = tuple[str, str]


class Builder:
    """Collects rows. A text is stored once, and rows with one query unite.

    A negative may have no id of its own. It then lies apart until all rows are read: another row may name its text.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._queries = Table(Query)
        self._passages = Table(Passage)
        self._unnamed = Table(Passage)
        self._positives: dict[_Pair, float | None] = {}
        self._negatives: dict[tuple[str, str, bool], float | None] = {}  # query id, passage id, whether it is a name
        self._sets = Sets()

    def add(
        self,
        query: Query,
        positives: Sequence[tuple[Passage, float | None]],
        negatives: Sequence[tuple[Passage | str, float | None]],
        where: str,
    ) -> bool:
        """Add a row whose texts are sound; whether it brought anything new. A negative without an id is a text.

        Raises DataError, having added nothing, for a text that is on both sides, a positive that is the query itself,
        and an id with two texts. Of two scores for one pair the first is kept, and the other counted as ignored.
        """
        named = [passage for passage, _ in positives] + [n for n, _ in negatives if isinstance(n, Passage)]
        self._check(query, positives, negatives, where)
        self._check_ids(query, named, where)
        news = [self._queries.add(query, where), *(self._passages.add(passage, where) for passage in named)]
        for passage, score in positives:
            news.append(self._note(self._positives, (query.id, passage.id), score))
        for negative, score in negatives:
            if isinstance(negative, Passage):
                key = (query.id, negative.id, True)
            else:
                key = (query.id, text_hash(negative), False)
                news.append(self._unnamed.add(Passage(key[1], negative), where))
            news.append(self._note(self._negatives, key, score))
        return any(news)

    def put_into_set(
        self, query_id: str, name: str, in_batch_negatives: bool, options: Mapping[str, str | int]
    ) -> bool:
        """Say which source a query comes from, and what its row says of itself; whether that is new."""
        return self._sets.put(query_id, name, in_batch_negatives, options)

    def collection(self) -> Collection:
        """Everything added so far."""
        names: dict[str, str] = {}
        for passage in self._passages.values():
            hash_ = text_hash(passage.text)
            if hash_ in self._unnamed:
                names.setdefault(hash_, passage.id)
        for passage in self._unnamed.values():
            if passage.id not in names:
                self._passages.add(passage, "a negative")
        negatives: dict[_Pair, float | None] = {}
        for (query_id, id_, is_name), score in self._negatives.items():
            self._note(negatives, (query_id, id_ if is_name else names.get(id_, id_)), score)
        return Collection(
            self._queries,
            self._passages,
            tuple(Judgment(*pair, score=score) for pair, score in self._positives.items()),
            tuple(Negative(*pair, score=score) for pair, score in negatives.items()),
            sets=self._sets.by_name(),
        )

    def _check(
        self,
        query: Query,
        positives: Sequence[tuple[Passage, float | None]],
        negatives: Sequence[tuple[Passage | str, float | None]],
        where: str,
    ) -> None:
        texts = {negative if isinstance(negative, str) else negative.full_text for negative, _ in negatives}
        for passage, _ in positives:
            both = texts.intersection(texts_of(passage))
            if both:
                raise DataError(
                    f"a text is both positive and negative: {excerpt(min(both))}",
                    where=where,
                    fix="remove it from the one where it does not belong",
                    reason="positive-among-negatives",
                )
            if passage.full_text == query.text:
                raise DataError(
                    f"a positive is the query itself: {excerpt(query.text)}",
                    where=where,
                    fix="give the passage that answers it, or drop the row",
                    reason="query-is-positive",
                )

    def _check_ids(self, query: Query, named: Sequence[Passage], where: str) -> None:
        self._queries.is_new(query, where)
        of_row: dict[str, Passage] = {}
        for passage in named:
            self._passages.is_new(passage, where)
            if of_row.setdefault(passage.id, passage) != passage:
                raise two_texts(of_row[passage.id], passage, where)

    def _note(self, pairs: dict, pair: tuple, score: float | None) -> bool:
        """Note a pair with its first score; whether that is news."""
        first = pairs.get(pair)
        if pair not in pairs or (first is None and score is not None):
            pairs[pair] = score
            return True
        if score is not None and score != first:
            self._intake.ignore(["another score of a pair"])
        return False


class Sets:
    """Sets of queries in the making: the queries of one source whose rows say the same of how they train."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, bool, Options], dict[str, None]] = {}

    def put(self, query_id: str, name: str, in_batch_negatives: bool, options: Mapping[str, str | int]) -> bool:
        """Add a query to the set of its source; whether it was not yet there."""
        members = self._members.setdefault((name, in_batch_negatives, tuple(sorted(options.items()))), {})
        is_new = query_id not in members
        members[query_id] = None
        return is_new

    def by_name(self) -> dict[str, QuerySet]:
        """The sets by name; where the rows of one source differ in their options, a number makes the names distinct."""
        sets: dict[str, QuerySet] = {}
        for (name, in_batch_negatives, options), members in self._members.items():
            sets[distinct(name, sets)] = QuerySet(tuple(members), in_batch_negatives, dict(options))
        return sets


def distinct(name: str, taken: Mapping[str, object]) -> str:
    """The name, with a number behind it where it is taken."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def texts_of(positive: Passage) -> tuple[str, str]:
    """What no negative of the same query may say in full: the passage with its title, and without."""
    return positive.full_text, positive.text
