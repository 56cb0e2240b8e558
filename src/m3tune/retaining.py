"""What a model must not lose while it learns: data that a person names, or questions held out of their own corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.artifact import read_json, write_json
from m3tune.config import Recipe, SelectConfig
from m3tune.data.collection import Collection
from m3tune.data.hub import is_hub_id
from m3tune.data.known_items import FIRST, SECOND, KnownItems, known_items
from m3tune.data.prepared import Prepared
from m3tune.data.read import read_collection
from m3tune.errors import DataError
from m3tune.evaluation.measure import measure_encoder
from m3tune.evaluation.select import LAST
from m3tune.model.encoder import Encoder
from m3tune.paths import resolve_path
from m3tune.preparation import Say, source_fingerprint

HELD_OUT, NOTHING = "auto", "none"
CHOSEN = "retention.json"
_TEXTS_PER_QUERY = 2  # encoders find half of such texts at once, or more
_FEWEST = 50  # questions; of fewer a loss of some percent is chance


@dataclass(frozen=True)
class Ground:
    """Some queries, and the passages that they are searched among; `name` is dev or retention."""

    name: str
    collection: Collection
    query_ids: Sequence[str]
    passage_ids: Sequence[str]


@dataclass(frozen=True)
class Retention:
    """What is measured, or why nothing is; `counts` say what held-out questions were made of."""

    ground: Ground | None
    why_not: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def as_json(self, data: str) -> dict[str, Any] | None:
        """For selection.json; `data` is what the recipe names."""
        if self.ground is None:
            return None
        sizes = {"queries": len(self.ground.query_ids), "passages": len(self.ground.passage_ids)}
        return {"data": data, "fingerprint": self.ground.collection.fingerprint, **sizes, **self.counts}


def names_data(config: SelectConfig) -> bool:
    """Whether the recipe names retention data of its own."""
    return config.retention not in (HELD_OUT, NOTHING)


def retention_fingerprint(config: SelectConfig) -> str:
    """A content hash of the retention data, empty where none is named; a Hub id is taken to stay what it is."""
    if not names_data(config):
        return ""
    on_hub = is_hub_id(config.retention, asked_for=False)
    return config.retention if on_hub else source_fingerprint(resolve_path(config.retention, "the retention data"))


def most_texts(config: SelectConfig) -> int:
    """How many texts at most are asked about where questions are held out of the corpus."""
    return min(_TEXTS_PER_QUERY * max(config.retention_queries, _FEWEST), config.retention_passages)


def named_ground(config: SelectConfig, seed: int, say: Say) -> Ground:
    """Queries and passages of the data that `select.retention` names, drawn by `seed` where there are more than wanted.

    Raises DataError where no query of it has a relevant passage.
    """
    collection, why = read_collection(config.retention)
    say(f"retention: {why}")
    judged = [query_id for query_id in collection.queries if query_id in collection.positives]
    if not judged:
        raise DataError("no query has a relevant passage", where="select.retention", fix="name data with judgments")
    generator = np.random.default_rng(seed)
    query_ids = _drawn(judged, config.retention_queries, generator)
    kept = {passage_id for query_id in query_ids for passage_id in collection.grades[query_id]}
    others = [passage_id for passage_id in collection.passages if passage_id not in kept]
    kept.update(_drawn(others, max(0, config.retention_passages - len(kept)), generator))
    return Ground(
        "retention", collection, query_ids, [passage_id for passage_id in collection.passages if passage_id in kept]
    )


def retention_of(
    base: Encoder, head: str, recipe: Recipe, prepared: Prepared, folder: Path, place: Path, say: Say
) -> Retention:
    """What the recipe wants to be retained: named data, or questions about texts that the base is good at.

    Without a choice, `select.rule` "last", only named data is measured.

    The base finds by `head`. Which questions it was good at is kept in `folder`, so that an interrupted selection goes
    on with the same; vectors that do not fit in memory go to `place`.
    """
    config, generator = recipe.select, np.random.default_rng(recipe.data.seed)
    if names_data(config):
        return Retention(named_ground(config, recipe.data.seed, say))
    if config.retention == NOTHING:
        return _not_measured("select.retention names no data", say)
    if config.rule == LAST:
        return _not_measured('select.rule is "last", so that nothing is chosen by it', say)
    items = known_items(prepared.collection, prepared.similar, prepared.split, most_texts(config), generator)
    if len(items) < _FEWEST:
        return _not_measured(
            f"{len(items):,} of {items.untouched:,} texts that training does not touch give a question about either "
            f"half ({items.too_short:,} are too short), and {_FEWEST} are needed",
            say,
        )
    if not (folder / CHOSEN).is_file():
        write_json(folder / CHOSEN, _found_first(base, head, recipe, items, place))
    found = read_json(folder / CHOSEN)
    if len(found) < _FEWEST:
        return _not_measured(f"the base finds {len(found):,} of {len(items):,} texts, and {_FEWEST} are needed", say)
    chosen = found[: config.retention_queries]
    say(f"retention: {len(chosen):,} questions held out of {len(items):,} texts that training does not touch")
    counts = {"untouched": items.untouched, "too_short": items.too_short, "found_by_base": len(found)}
    return Retention(Ground("retention", items.collection, chosen, items.collection.splits[SECOND]), counts=counts)


def _found_first(base: Encoder, head: str, recipe: Recipe, items: KnownItems, place: Path) -> list[str]:
    """The questions about second halves whose text the base finds at rank one by its first half.

    To choose and to measure by the same question would choose the base's luck as well, which no other model shares.
    """
    first, second = (items.collection.splits[half] for half in (FIRST, SECOND))
    measured = measure_encoder(
        base, "base", items.collection, first, {FIRST: first}, recipe.evaluate, recipe.train.precision, None, place
    )
    run = measured.searched[FIRST].run(head, base.settings.hybrid_weights or {})
    return [b for a, b in zip(first, second, strict=True) if run[a] and run[a][0].passage_id == a]


def _not_measured(why_not: str, say: Say) -> Retention:
    say(f"what else the chosen model may have forgotten is not measured: {why_not}")
    return Retention(None, why_not)


def _drawn(ids: Sequence[str], at_most: int, generator: np.random.Generator) -> list[str]:
    """Some of the ids, in their order."""
    if len(ids) <= at_most:
        return list(ids)
    return [ids[row] for row in np.sort(generator.choice(len(ids), at_most, replace=False))]
