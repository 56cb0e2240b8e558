"""How each of the data's sets trains: its queries, how often they are drawn, and what is negative for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from m3tune.config import SetConfig, TrainConfig
from m3tune.data.collection import Collection
from m3tune.errors import RecipeError, listed, nearest
from m3tune.types import Example, QuerySet

ALL, REST = "all", "rest"  # the one set of data that brings none; the queries that are in none of the data's sets

_ONE_NEGATIVE = "only_1neg"
_SYMMETRIC = ("symmetric_sts", "symmetric_clustering")
_SIZES = {"batch_size": "train.batch_queries", "train_group_size": "train.negatives_per_query"}


@dataclass(frozen=True)
class TrainSet:
    """Queries that share batches with one another alone.

    In a symmetric set passages are texts of the same kind as queries, and the query's prompt stands before them too.
    """

    name: str
    query_ids: tuple[str, ...]
    weight: float = 1.0
    in_batch_negatives: bool = True
    negatives_per_query: int = 0  # at most
    symmetric: bool = False

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def draws(self) -> int:
        """How many queries an epoch draws from it."""
        return max(1, round(self.weight * len(self)))


def training_sets(collection: Collection, query_ids: Sequence[str], config: TrainConfig) -> list[TrainSet]:
    """The sets that `query_ids` fall into, in the order of the data; each query in one, those of weight zero in none.

    In-batch negatives are as the recipe says of the set, else on where both the recipe and the data allow them. A query
    that several sets name trains in one without in-batch negatives where there is one, for that is never wrong.
    Of FlagEmbedding's types `only_1neg` brings one negative at most, and `symmetric_sts` and `symmetric_clustering` are
    symmetric; other types train as any set does.

    Raises RecipeError for a set that the data does not have, and where nothing is left to draw.
    """
    _check_names(collection.sets, config.sets)
    sources = _with_rest(collection.sets, query_ids)
    sets = {name: _train_set(name, source, config) for name, source in sources.items()}
    drawn = [name for name, of_set in sets.items() if of_set.weight]
    set_of: dict[str, str] = {}
    for name in sorted(drawn, key=lambda name: sets[name].in_batch_negatives):
        set_of |= {query_id: name for query_id in sources[name].query_ids if query_id not in set_of}
    members: dict[str, list[str]] = {name: [] for name in drawn}
    for query_id in query_ids:
        if query_id in set_of:
            members[set_of[query_id]].append(query_id)
    chosen = [replace(sets[name], query_ids=tuple(ids)) for name, ids in members.items() if ids]
    if query_ids and not chosen:
        raise RecipeError(
            "every set with training queries weighs nothing", where="train.sets", fix="give one a weight above zero"
        )
    return chosen


def remarks(collection: Collection, sets: Sequence[TrainSet], examples: Mapping[str, Example]) -> Iterator[str]:
    """What a person should hear of the sets: how they train, what is not honoured, which queries teach nothing."""
    if collection.sets:
        yield "training sets: " + "; ".join(map(_in_words, sets))
    for option, instead in _SIZES.items():
        having = [name for name, source in collection.sets.items() if option in source.options]
        if having:
            yield f"{option} of the data ({listed(having)}) is not used; {instead} is"
    for of_set in sets:
        alone = 0 if of_set.in_batch_negatives else _without_own(of_set, examples)
        if alone:
            yield (
                f"{alone:,} of {len(of_set):,} queries of {of_set.name!r} teach nothing: they have neither negatives "
                "of their own (train.negatives_per_query) nor in-batch negatives "
                f"(train.sets.{of_set.name}.in_batch_negatives)"
            )


def check_teaching(sets: Sequence[TrainSet], examples: Mapping[str, Example], config: TrainConfig) -> None:
    """Raises RecipeError where no query has a negative, so that every loss is zero; teachers' scores teach without."""
    for of_set in sets:
        in_batch = of_set.in_batch_negatives and min(len(of_set), config.batch_queries) > 1
        if config.distill != "none" or in_batch or _without_own(of_set, examples) < len(of_set):
            return
    raise RecipeError(
        "no query has anything to learn from: there are neither negatives of their own nor others in its batch",
        where="train.in_batch_negatives, train.negatives_per_query, train.batch_queries",
        fix="allow in-batch negatives in batches of two queries or more, or bring negatives (m3tune mine)",
    )


def _without_own(of_set: TrainSet, examples: Mapping[str, Example]) -> int:
    """How many queries of a set bring no negatives of their own."""
    return sum(not (of_set.negatives_per_query and examples[query_id].negative_ids) for query_id in of_set.query_ids)


def _check_names(known: Mapping[str, QuerySet], configured: Mapping[str, SetConfig]) -> None:
    for name in configured:
        if name in known or (known and name == REST):
            continue
        close = nearest(name, known)
        raise RecipeError(
            f"the data has no set {name!r}",
            where=f"train.sets.{name}",
            fix=f"did you mean {close!r}?" if close else f"its sets: {listed(known)}",
        )


def _with_rest(sets: Mapping[str, QuerySet], query_ids: Sequence[str]) -> dict[str, QuerySet]:
    """The data's sets and, for the queries in none of them, one more."""
    in_a_set = {query_id for source in sets.values() for query_id in source.query_ids}
    rest = tuple(query_id for query_id in query_ids if query_id not in in_a_set)
    name = REST if sets else ALL
    taken = sets[name] if name in sets else QuerySet(())
    return {**sets, name: replace(taken, query_ids=(*taken.query_ids, *rest))} if rest else dict(sets)


def _train_set(name: str, source: QuerySet, config: TrainConfig) -> TrainSet:
    """How a set trains, without its queries."""
    own, kind = config.sets.get(name, SetConfig()), source.options.get("type")
    in_batch = own.in_batch_negatives
    return TrainSet(
        name,
        (),
        weight=own.weight,
        in_batch_negatives=config.in_batch_negatives and source.in_batch_negatives if in_batch is None else in_batch,
        negatives_per_query=min(config.negatives_per_query, 1) if kind == _ONE_NEGATIVE else config.negatives_per_query,
        symmetric=kind in _SYMMETRIC,
    )


def _in_words(of_set: TrainSet) -> str:
    words = [f"{of_set.name} {len(of_set):,} queries"]
    if of_set.draws != len(of_set):
        words.append(f"{of_set.draws:,} of them an epoch")
    if not of_set.in_batch_negatives:
        words.append("no in-batch negatives")
    if of_set.symmetric:
        words.append("query prompt on both sides")
    return ", ".join(words)
