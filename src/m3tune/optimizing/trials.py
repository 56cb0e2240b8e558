"""The trials of a search: one training each, told of at every step, ended early where it is not worth going on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from m3tune.artifact import read_json
from m3tune.optimizing.space import Values

Fate = Literal["complete", "halved", "failed", "out of time"]
COMPLETE: Fate = "complete"
HALVED: Fate = "halved"  # not in the best third at a rung
FAILED: Fate = "failed"  # what it asks for cannot be trained
OUT_OF_TIME: Fate = "out of time"

TRIALS = "trials.json"

_STEPS_TO_KNOW = 3  # of the first trial, however short the time is: they tell what time would do
_STEPS_TO_BE_SURE = 5  # and after these it ends, where they say that two like it take too long


@dataclass(frozen=True)
class Record:
    """What one trial was and what came of it.

    `dev` is [step, development metric] of every evaluation, the best so far where training ends as its best checkpoint,
    `at_rungs` that metric at each rung, `per_query` that of every development query at the end, `marks` what the
    halving has to know, `whole_s` the seconds that it takes to the end, as far as is known.
    """

    number: int
    values: Values
    fate: Fate
    steps: int
    of_steps: int
    seconds: float
    whole_s: float
    dev: list[list[float]] = field(default_factory=list)
    at_rungs: list[float] = field(default_factory=list)
    per_query: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def reached(self) -> float | None:
        """The development metric of what the training ends as; None before the first evaluation."""
        return self.dev[-1][1] if self.dev else None


class Ended(Exception):
    """Ends a trial before its last step."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        super().__init__(fate)


class Rule(Protocol):
    """Whether a trial goes on from a rung."""

    def goes_on(self, rung: int, value: float) -> bool:
        """True where it does."""


class Watched:
    """A trial while it trains. Raises Ended where `rule` halves it or its time is up.

    With `keep_best` training ends as the best checkpoint so far and is judged by it, else by what it is now. `first` is
    the recipe's own trial: it ends as soon as it is seen that not even two like it fit into `left_s`.
    """

    def __init__(
        self, rule: Rule, at: list[int], left_s: float, clock: Callable[[], float], tell: Callable[[str], None],
        *, keep_best: bool, first: bool,
    ) -> None:  # fmt: skip
        self.rule, self.at, self.left_s, self.clock, self.tell = rule, at, left_s, clock, tell
        self.keep_best, self.first = keep_best, first
        self.start = clock()
        self.first_step_s = 0.0  # that and the loading before it, which do not grow with the steps
        self.steps = self.of_steps = 0
        self.dev: list[list[float]] = []
        self.at_rungs: list[float] = []
        self.per_query: Mapping[str, float] = {}

    @property
    def seconds(self) -> float:
        """Since the trial began, its model's loading and its evaluations among it."""
        return self.clock() - self.start

    @property
    def whole_s(self) -> float:
        """Seconds that all steps take, if the others are as long as those after the first."""
        others = (self.of_steps - 1) / max(1, self.steps - 1)
        return self.first_step_s + (self.seconds - self.first_step_s) * others

    def stepped(self, step: int, of: int) -> None:
        """So many steps are done."""
        self.steps, self.of_steps = step, of
        self.first_step_s = self.first_step_s or self.seconds
        best = f", dev {self.dev[-1][1]:.4f}" if self.dev else ""
        self.tell(f"step {step:,} of {of:,}{best}")
        known = not self.first or step >= _STEPS_TO_KNOW
        if self.seconds > self.left_s and known:
            raise Ended(OUT_OF_TIME)
        if step >= _STEPS_TO_BE_SURE:
            self._end_where_not_two_fit()

    def evaluated(self, value: float, per_query: Mapping[str, float]) -> None:
        """The metric after the last step."""
        if self.keep_best and self.dev and value <= self.dev[-1][1]:
            value = self.dev[-1][1]
        else:
            self.per_query = per_query
        self.dev.append([self.steps, value])
        self._end_where_not_two_fit()
        if len(self.dev) in self.at:
            self.at_rungs.append(value)
            if not self.rule.goes_on(self.at.index(len(self.dev)), value):
                raise Ended(HALVED)

    def _end_where_not_two_fit(self) -> None:
        if self.first and self.steps < self.of_steps and 2 * self.whole_s > self.left_s:
            raise Ended(OUT_OF_TIME)


def load_trials(folder: Path) -> list[Record]:
    """The trials that were decided, in order. One that the clock ended was not: with more time it is done again."""
    file = folder / TRIALS
    records = [Record(**row) for row in read_json(file)] if file.is_file() else []
    return [record for record in records if record.fate != OUT_OF_TIME]
