"""Which model a run chooses: the base, the best checkpoint, or a merge of the two. A rule over figures, nothing else.

1. Who does not beat the base on development data by more than noise is out.
2. Who loses more of the base's retention metric than the tolerance is out. Where nobody is left, the base is chosen.
3. Of those that are not worse than the best of them by more than noise, the nearest to the base is chosen.

With `select.rule` "last" there is no rule: what training ended with is chosen, and the figures only say how good it is.

A difference is more than noise where the paired randomisation test that also judges gives p <= `select.noise`. Its
default, 0.32 two-sided, is one standard error of the difference: step 3 is the one standard error rule (Breiman et al.
1984, "Classification and Regression Trees", 3.4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from m3tune.config import EvaluateConfig, SelectConfig
from m3tune.evaluation.compare import paired_differences
from m3tune.evaluation.significance import paired_randomisation

BASE, TUNED = "base", "tuned"
LAST = "last"  # the `select.rule` without a choice

Fate = Literal["chosen", "base", "forgets", "no gain", "noise", "worse", "further"]
"""What became of a contender.

`no gain`, `noise`: not above the base, or not by more than noise. `forgets`: lost more than the tolerance. `worse`:
behind the best by more than noise. `further`: another as good is nearer to the base.
"""


class Contender(NamedTuple):
    """A model that could be chosen: base + `alpha` (tuned - base), so 0 is the base and 1 the best checkpoint.

    `dev` is the main metric of each development query, `retention` its mean on retention data, where there is any.
    """

    name: str
    alpha: float
    dev: Mapping[str, float]
    retention: float | None = None


class Choice(NamedTuple):
    """The chosen one's name, the fate of each by name, and the p of each against the base."""

    name: str
    fates: dict[str, Fate]
    p_values: dict[str, float]


def name_of(alpha: float) -> str:
    """What a contender is called: base, tuned, or merged and its alpha."""
    return {0.0: BASE, 1.0: TUNED}.get(alpha, f"merged {alpha:g}")


def folder_of(name: str) -> str:
    """The folder of a contender inside the stage's."""
    return name.replace(" ", "-")


def choose(
    contenders: Sequence[Contender], clusters: Mapping[str, int], config: SelectConfig, test: EvaluateConfig
) -> Choice:
    """The model that the rule at the top of this file chooses; the first of `contenders` is the base.

    `clusters` numbers the group of every development query, `test` has the resamples and their seed.
    """
    base = contenders[0]
    p_values: dict[str, float] = {}

    def gain(of: Contender, over: Contender) -> tuple[float, float]:
        """The mean difference and its p."""
        differences, groups = paired_differences(over.dev, of.dev, clusters)
        return float(differences.mean()), paired_randomisation(differences, groups, test.resamples, test.seed)

    fates: dict[str, Fate] = {base.name: "base"}
    better = []
    for contender in contenders[1:]:
        difference, p_values[contender.name] = gain(contender, base)
        if difference <= 0:
            fates[contender.name] = "no gain"
        elif p_values[contender.name] > config.noise:
            fates[contender.name] = "noise"
        elif lost_share(base, contender) > config.retention_tolerance:
            fates[contender.name] = "forgets"
        else:
            better.append(contender)
    if config.rule == LAST:
        return Choice(contenders[-1].name, fates | {contenders[-1].name: "chosen"}, p_values)
    nearest = _nearest(better, fates, gain, config.noise) if better else base
    fates[nearest.name] = "chosen"
    return Choice(nearest.name, fates, p_values)


def _nearest(
    better: Sequence[Contender],
    fates: dict[str, Fate],
    gain: Callable[[Contender, Contender], tuple[float, float]],
    noise: float,
) -> Contender:
    """Step 3, over those that are left; their fates are added."""
    best = max(better, key=lambda of: (float(np.mean(list(of.dev.values()))), -of.alpha))
    as_good = []
    for contender in better:
        difference, p_value = gain(best, contender)
        behind = difference > 0 and p_value <= noise
        fates[contender.name] = "worse" if behind else "further"
        if not behind:
            as_good.append(contender)
    return min(as_good, key=lambda of: of.alpha)


def lost_share(base: Contender, other: Contender) -> float:
    """The share of the base's retention metric that `other` lost; zero where nothing was measured or lost."""
    if base.retention is None or other.retention is None or base.retention <= 0:
        return 0.0
    return max(0.0, (base.retention - other.retention) / base.retention)


def why_base(choice: Choice) -> Literal["no gain", "noise", "forgets"] | None:
    """Why the base was chosen: the last step that any other failed at; None where it was not."""
    if choice.name != BASE:
        return None
    reached = set(choice.fates.values())
    return "forgets" if "forgets" in reached else "noise" if "noise" in reached else "no gain"
