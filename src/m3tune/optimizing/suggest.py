"""Optuna's part of a search: which values come next, whether a trial goes on, and which settings mattered.

The study is made anew from the records of the trials before every trial, with a seed of its own for each. So a search
that was cut off goes on exactly as it would have, and the records are the only thing to keep.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from m3tune.artifact import fingerprint
from m3tune.errors import RecipeError
from m3tune.optimizing.space import Dial, Values, rounded
from m3tune.optimizing.trials import COMPLETE, Record

if TYPE_CHECKING:
    import optuna

THIRD = 3  # one of so many goes on at each rung
_AT_RANDOM = 5  # trials before the sampler learns from what was found
_FEWEST_FOR_IMPORTANCE = 8


def check_installed() -> None:
    """Raises RecipeError without Optuna."""
    if importlib.util.find_spec("optuna") is None:
        raise RecipeError(
            "a search for settings needs the package optuna",
            where="search.minutes",
            fix="pip install 'm3tune[search]', or leave --search out",
        )


class Suggestion:
    """The values of the next trial, other ones at each `attempt`, and the rule that ends it early."""

    def __init__(self, dials: Sequence[Dial], records: Sequence[Record], seed: int, attempt: int = 0) -> None:
        self._study = _study(dials, records, (int(fingerprint([seed, len(records)])[:8], 16) + attempt) % 2**32)
        if not records:
            self._study.enqueue_trial({dial.key: dial.own for dial in dials})
        self._trial = self._study.ask(_distributions(dials))
        params = self._trial.params
        self.values: Values = {dial.key: rounded(dial, params[dial.key]) for dial in dials}

    def goes_on(self, rung: int, value: float) -> bool:
        """Whether a trial with this value at a rung, counted from 0, is in the best third of those that came so far."""
        self._trial.report(value, THIRD**rung)
        return not self._trial.should_prune()

    @property
    def marks(self) -> dict[str, float]:
        """What the rule has to know of this trial later."""
        attributes = self._study.get_trials(deepcopy=False)[-1].system_attrs
        return {name: value for name, value in attributes.items() if name.startswith("completed_rung_")}


def rungs(evaluations: int) -> list[int]:
    """The evaluations, counted from 1, after which the best third goes on: at a ninth and a third of them, rounded up.

    The last evaluation ends the training and is none. Successive halving: Jamieson & Talwalkar 2016, "Non-stochastic
    best arm identification and hyperparameter optimization"; one trial after another: Li et al. 2020, "A system for
    massively parallel hyperparameter tuning".
    """
    shares = (-(-evaluations // THIRD**power) for power in (2, 1))
    return [number for number in dict.fromkeys(shares) if number < evaluations]


def importance(dials: Sequence[Dial], records: Sequence[Record], seed: int) -> dict[str, float]:
    """The share of each setting in what sets good trials apart, most first, by the metric at the first rung.

    There every trial was measured. Watanabe, Bansal & Hutter 2023, "PED-ANOVA". Empty where too few trials came so far.
    """
    import optuna

    measured = [record for record in records if record.at_rungs]
    if len(measured) < _FEWEST_FOR_IMPORTANCE or len({record.at_rungs[0] for record in measured}) == 1:
        return {}
    study = _study(dials, (), seed)
    for record in measured:
        study.add_trial(
            optuna.create_trial(
                params=dict(record.values), distributions=_distributions(dials), value=record.at_rungs[0]
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=1 / THIRD)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _study(dials: Sequence[Dial], records: Sequence[Record], seed: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_AT_RANDOM),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=THIRD),
    )
    states = optuna.trial.TrialState
    for record in records:
        is_whole = record.fate == COMPLETE
        study.add_trial(
            optuna.create_trial(
                state=states.COMPLETE if is_whole else states.PRUNED,
                value=record.reached if is_whole else None,
                params=dict(record.values),
                distributions=_distributions(dials),
                intermediate_values={THIRD**rung: value for rung, value in enumerate(record.at_rungs)},
                system_attrs=dict(record.marks),
            )
        )
    return study


def _distributions(dials: Sequence[Dial]) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        dial.key: (
            FloatDistribution(dial.ends[0], dial.ends[1], log=True)
            if dial.is_range
            else CategoricalDistribution(dial.values)
        )
        for dial in dials
    }
