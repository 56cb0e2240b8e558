"""One trial after another until the time is up: the recipe's own values first, then what Optuna suggests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from m3tune.artifact import write_json
from m3tune.config import SearchConfig, TrainConfig
from m3tune.errors import TrainingError
from m3tune.optimizing.space import Dial, texts_encoded, with_values
from m3tune.optimizing.suggest import Suggestion, rungs
from m3tune.optimizing.trials import COMPLETE, FAILED, OUT_OF_TIME, TRIALS, Ended, Fate, Record, Watched, load_trials
from m3tune.preparation import Say
from m3tune.progress import Advance, hidden, track
from m3tune.report.settings import trial_in_words
from m3tune.tuning import Watch

_ATTEMPTS = 20  # suggestions looked at for a new one that there is time for

Measure = Callable[[TrainConfig, Watch, Path], None]
"""Trains once by these settings, with the log in a folder, and tells the watch of every step and evaluation."""


@dataclass(frozen=True)
class Task:
    """What is searched, from which values on, how a trial is measured, and whether it ends as its best checkpoint."""

    config: SearchConfig
    dials: Sequence[Dial]
    train: TrainConfig  # the recipe's own
    measure: Measure
    keep_best: bool = True

    @property
    def budget_s(self) -> float:
        """Seconds that the trials may take together."""
        return 60 * (self.config.minutes or 0)


def run_trials(task: Task, folder: Path, say: Say, clock: Callable[[], float] = time.monotonic) -> list[Record]:
    """Every trial for which there is time, those of an interrupted search among them; `folder` holds their record.

    The time is that of the trials themselves; one that was cut off with the program does not count and is done again.
    """
    records = load_trials(folder)
    spent = sum(record.seconds for record in records)
    if records:
        say(f"search: going on after {len(records)} trials, which took {spent:,.0f} s")
    with track("search", total=math.ceil(task.budget_s), done=round(spent)) as advance:
        while len(records) < (task.config.trials or math.inf):
            left = task.budget_s - spent
            suggestion = _that_fits(task, records, left)
            if suggestion is None:
                say(f"search: no other values would come to an end in the {max(0, left):,.0f} s that are left")
                break
            train = with_values(task.train, task.dials, suggestion.values)
            record = _one(task, train, suggestion, records, left, folder, say, clock, advance)
            records.append(record)
            spent += record.seconds
            write_json(folder / TRIALS, [asdict(each) for each in records])
            say(trial_in_words(asdict(record)))
            if record.fate == OUT_OF_TIME:
                break
    return records


def _that_fits(task: Task, records: Sequence[Record], left: float) -> Suggestion | None:
    """The first of some suggestions that is new and would be over in `left` seconds; None where there is none."""
    tried = [record.values for record in records]
    for attempt in range(_ATTEMPTS):
        suggestion = Suggestion(task.dials, records, task.config.seed, attempt)
        train = with_values(task.train, task.dials, suggestion.values)
        if suggestion.values not in tried and _expected_s(task, records, train) <= left:
            return suggestion
    return None


def _one(
    task: Task, train: TrainConfig, suggestion: Suggestion, records: Sequence[Record], left: float, folder: Path,
    say: Say, clock: Callable[[], float], advance: Advance,
) -> Record:  # fmt: skip
    """Train once. Raises TrainingError where the recipe's own values cannot be trained."""
    number, shown = len(records), 0

    def tell(note: str) -> None:
        nonlocal shown
        passed = int(watched.seconds) - shown
        shown += passed
        advance(passed, f"trial {number}: {note}")

    at = rungs(train.evaluations)
    watched = Watched(suggestion, at, left, clock, tell, keep_best=task.keep_best, first=number == 0)
    fate, reason = _fate_of(task, train, watched, folder / f"trial-{number}")
    if fate == FAILED and number == 0:
        raise TrainingError(reason, where="search", fix="the recipe's own values must train before others are tried")
    seconds = round(watched.seconds, 3)
    whole = seconds if fate == COMPLETE else round(watched.whole_s, 3)
    return Record(
        number, suggestion.values, fate, watched.steps, watched.of_steps, seconds, whole, watched.dev,
        watched.at_rungs, watched.per_query, suggestion.marks, reason,
    )  # fmt: skip


def _fate_of(task: Task, train: TrainConfig, watched: Watched, folder: Path) -> tuple[Fate, str]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hidden():
            task.measure(train, watched, folder)
    except Ended as ended:
        return ended.fate, ""
    except TrainingError as error:
        return FAILED, error.what
    return COMPLETE, ""


def _expected_s(task: Task, records: Sequence[Record], train: TrainConfig) -> float:
    """Seconds of a whole training, by the time of the recipe's own; zero before that."""
    if not records:
        return 0.0
    return records[0].seconds * texts_encoded(train) / texts_encoded(task.train)
