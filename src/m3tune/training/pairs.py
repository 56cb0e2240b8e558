"""How many pairs of query and positive a training sees, and for how many steps it must run to see so many."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from m3tune.config import TrainConfig
from m3tune.data.collection import Collection
from m3tune.training.arguments import resolve_epochs, total_steps
from m3tune.training.batches import EpochBatches
from m3tune.training.sets import training_sets


class PairCounter:
    """Counts what the batches of one recipe hold, without any text."""

    def __init__(self, collection: Collection, query_ids: Sequence[str], config: TrainConfig) -> None:
        sets = training_sets(collection, query_ids, config)
        of_query = [len(collection.positives[query_id]) for of_set in sets for query_id in of_set.query_ids]
        wanted = config.positives_per_query
        self._pairs = [min(wanted, count) if wanted else count for count in of_query]
        self._batches = EpochBatches(sets, config)
        self._accumulate = config.accumulate_batches
        self.steps = total_steps(config, len(self._batches))
        """What the recipe asks for."""
        self.epochs = resolve_epochs(config, len(self._batches))
        """The passes that it asks for, where it does not name its steps."""

    def seen(self, steps: int) -> int:
        """Pairs of the first `steps` optimizer steps; the last step of an epoch may be of fewer batches."""
        seen, epochs = 0, itertools.count()
        while steps > 0:
            of_epoch = self._of_epoch(next(epochs))
            seen += sum(of_epoch[:steps])
            steps -= len(of_epoch)
        return seen

    def steps_for(self, pairs: int) -> int:
        """The steps that see `pairs` of them, to half a step of an average epoch."""
        of_epoch = self._of_epoch(0)
        return max(1, round(pairs * len(of_epoch) / sum(of_epoch)))

    def _of_epoch(self, epoch: int) -> list[int]:
        """The pairs of each step."""
        self._batches.set_epoch(epoch)
        batches = [sum(self._pairs[draw.index] for draw in batch) for batch in self._batches]
        return [sum(batches[at : at + self._accumulate]) for at in range(0, len(batches), self._accumulate)]
