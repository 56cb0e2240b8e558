"""Sentences that the page and the terminal share."""

from __future__ import annotations

import shlex

from m3tune.negatives.estimate import Rate
from m3tune.review.project import Project
from m3tune.review.sitting import Progress


def percent(rate: Rate) -> str:
    """`4.2 % [1.1, 9.8]`, or that nothing is known yet."""
    if rate.value is None:
        return "not known yet"
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def rate_in_words(progress: Progress) -> str:
    """What has been found so far, and of what it is true."""
    if progress.rate.value is None:
        return "false negatives: not known yet"
    if progress.is_estimate:
        return f"false negatives among all kept: {percent(progress.rate)}"
    return f"relevant among those shown: {percent(progress.rate)}; the most suspicious come first"


def next_commands(project: Project) -> list[str]:
    """What to do after a sitting."""
    again = shlex.join(["m3tune", "review", *project.arguments])
    return [f"{again} --results", f"{again} --export verdicts.jsonl"]
