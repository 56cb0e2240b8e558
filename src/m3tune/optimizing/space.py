"""What a search may turn: the settings of training, the recipe's own values, and what is tried instead of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from m3tune.config import SearchConfig, TrainConfig
from m3tune.training.arguments import resolve_learning_rate

Value = float | int | None
Values = Mapping[str, Value]
"""Key of [train] -> value."""


class Dial(NamedTuple):
    """One setting, and the values that it may take: the two ends of a range, or choices in their order."""

    key: str
    own: Value
    values: tuple[Value, ...]
    is_range: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of a range."""
        return float(self.values[0] or 0), float(self.values[-1] or 0)

    def place(self, value: Value) -> float:
        """Where a value lies between the first and the last, 0..1: by its logarithm, or by its place in the order."""
        if not self.is_range:
            return self.values.index(value) / (len(self.values) - 1)
        low, high = self.ends
        return math.log(float(value or 0) / low) / math.log(high / low)


def dials_of(config: SearchConfig, train: TrainConfig, width: int, most_negatives: int) -> list[Dial]:
    """The settings that can be searched for an encoder of hidden size `width` and this data, each with its own value.

    What the recipe has itself is always among what may be tried. A setting with nothing else to try is left out.
    """
    assert train.epochs != "auto", "resolved before a search"
    auto = resolve_learning_rate(train.model_copy(update={"learning_rate": "auto"}), width)
    rate = resolve_learning_rate(train, width)
    counts = tuple(count for count in config.negatives_per_query if count <= most_negatives)
    margins = tuple(None if margin == "never" else margin for margin in config.false_negative_margin)
    dials = {
        "learning_rate": _range("learning_rate", rate, [auto * factor for factor in config.learning_rate]),
        "temperature": _range("temperature", train.temperature, config.temperature),
        "epochs": _choices("epochs", train.epochs, () if train.max_steps else config.epochs),
        "negatives_per_query": _choices("negatives_per_query", train.negatives_per_query, counts),
        "false_negative_margin": _choices("false_negative_margin", train.false_negative_margin, margins),
    }
    return [dials[key] for key in dict.fromkeys(config.settings) if len(dials[key].values) > 1]


def rounded(dial: Dial, value: Value) -> Value:
    """A value of a range as a person would write it, with two digits, but never outside the range."""
    if not dial.is_range or value is None or value == dial.own:
        return value
    low, high = dial.ends
    return min(max(float(f"{value:.2g}"), low), high)


def with_values(train: TrainConfig, dials: Sequence[Dial], values: Values) -> TrainConfig:
    """`train` with other values; where they are its own it stays as it is, with learning_rate = "auto" among it."""
    own = {dial.key: dial.own for dial in dials}
    changed: dict[str, Any] = {key: value for key, value in values.items() if value != own[key]}
    return train.model_copy(update=changed)


def distance(dials: Sequence[Dial], values: Values) -> float:
    """How far values are from the recipe's own: the sum over the settings of how far each was turned, 0..1 each."""
    return sum(abs(dial.place(values[dial.key]) - dial.place(dial.own)) for dial in dials)


def texts_encoded(train: TrainConfig) -> float:
    """What the time of a training goes with: passes times the texts that a query brings."""
    assert train.epochs != "auto"
    return train.epochs * (1 + max(1, train.positives_per_query) + train.negatives_per_query)


def _range(key: str, own: float, ends: Sequence[float]) -> Dial:
    return Dial(key, own, (min(own, *ends), max(own, *ends)), is_range=True)


def _choices(key: str, own: Value, others: Sequence[Value]) -> Dial:
    """None, which is no margin at all, comes after every number."""
    return Dial(key, own, tuple(sorted({own, *others}, key=lambda value: math.inf if value is None else value)))
