"""What a search for settings found, in words and as a page shows it. `found` is what search.json holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from m3tune.report import words
from m3tune.report.charts import svg

SEARCH = "search.json"

_FATES = {
    "halved": "not in the best third after step {steps:,} of {of_steps:,}",
    "failed": "cannot be trained: {reason}",
    "out of time": "the time was up after step {steps:,} of {of_steps:,}",
}
_BECAME = {
    "base": "the recipe's own",
    "chosen": "chosen",
    "no gain": "not above the recipe's own",
    "noise": "above the recipe's own, but not by more than noise",
    "worse": "behind the best by more than noise",
    "further": "as good, but further from the recipe's own",
}
_WIDTH, _HEIGHT, _SIDE, _TOP, _BOTTOM = 640, 300, 52, 34, 34


class Row(NamedTuple):
    """A trial in the table of the page."""

    number: int
    values: list[str]
    dev: list[str]  # after each evaluation, the best so far unless training ends with its last step
    time: str
    became: str
    is_chosen: bool


def value_in_words(value: float | None) -> str:
    """A number as a recipe writes it; `never` for a margin that is none."""
    return "never" if value is None else f"{value:g}"


def values_in_words(values: Mapping[str, float | None]) -> str:
    """`learning rate 8e-05, temperature 0.02`."""
    return ", ".join(f"{_name(key)} {value_in_words(value)}" for key, value in values.items())


def trial_in_words(trial: Mapping[str, Any]) -> str:
    """One line for a person when a trial has ended."""
    reached = f"dev {trial['dev'][-1][1]:.4f}" if trial["dev"] else "not measured"
    ended = _FATES.get(trial["fate"], "to the end").format(**trial)
    spent = words.duration(trial["seconds"])
    return f"trial {trial['number']}: {values_in_words(trial['values'])}: {reached}, {ended}, {spent}"


def in_words(found: Mapping[str, Any]) -> list[str]:
    """What was chosen and why, and how far to trust it, a line each."""
    if len(found["trials"]) == 1:
        return [alone(found)]
    lines = [sentence(found), caution(found)]
    if found["importance"]:
        lines.append(importance(found))
    return lines


def alone(found: Mapping[str, Any]) -> str:
    """What is said where only the recipe's own values were tried, and what to ask for where time was short."""
    given, needed = 60 * found["minutes"], found["needed_s"]
    more = f", so ask for --search {math.ceil(needed / 60)}m or more" if needed > given else ""
    return (
        f"only the recipe's own values were tried, and stay; two trainings like it take about "
        f"{words.duration(needed)}, and {words.duration(given)} were given{more}"
    )


def sentence(found: Mapping[str, Any]) -> str:
    """Which values were chosen, and what they reached beside the recipe's own."""
    own, chosen = found["trials"][0], found["trials"][found["chosen"]]
    whole = [trial for trial in found["trials"] if trial["fate"] == "complete"]
    spent = words.duration(found["seconds"])
    count = f"over {len(found['trials'])} trials, {len(whole)} of them to the end, in {spent}"
    metric, reached = found["metric"], chosen["dev"][-1][1]
    if chosen is own:
        best = max(trial["dev"][-1][1] for trial in whole)
        return (
            f"the recipe's own values stay: nothing beat their dev {metric} of {reached:.4f} by more than "
            f"noise (the best reached {best:.4f}), {count}"
        )
    return (
        f"{values_in_words(chosen['values'])}: dev {metric} {reached:.4f} against {own['dev'][-1][1]:.4f} "
        f"by the recipe's own values, {count}"
    )


def caution(found: Mapping[str, Any]) -> str:
    """How far the figures of a search can be trusted."""
    return (
        f"the best of {len(found['trials'])} trials looks better than it is, for it was chosen by this very figure; "
        "what counts is the verdict on the test queries, which the search never saw"
    )


def importance(found: Mapping[str, Any]) -> str:
    """Which settings mattered, and how little that says."""
    shares = ", ".join(f"{_name(key)} {100 * share:.0f} %" for key, share in found["importance"].items())
    return f"what set the best third apart at the first rung: {shares}; of {len(found['trials'])} trials a rough hint"


def rule(found: Mapping[str, Any]) -> str:
    """How the search chose."""
    return (
        "Chosen are the values nearest to the recipe's own that beat these on development data by more than noise "
        f"(p ≤ {found['noise']:g}) and are not behind the best such trial by more than noise; where there are none, "
        "these stay."
    )


def rows(found: Mapping[str, Any]) -> list[Row]:
    """The trials as the table shows them."""
    return [
        Row(
            trial["number"],
            [value_in_words(trial["values"][dial["key"]]) for dial in found["dials"]],
            [words.number(value) for _, value in trial["dev"]],
            words.duration(trial["seconds"]),
            (_BECAME[trial["became"]] if trial["became"] else _FATES[trial["fate"]].format(**trial)),
            trial["number"] == found["chosen"],
        )
        for trial in found["trials"]
    ]


def names(found: Mapping[str, Any]) -> list[str]:
    """The settings that were searched, as a heading shows them."""
    return [_name(dial["key"]) for dial in found["dials"]]


def parallel_chart(found: Mapping[str, Any]) -> str:
    """A line a trial through its values and the development metric that it reached; empty where none was measured."""
    measured = [trial for trial in found["trials"] if trial["dev"]]
    if not measured:
        return ""
    reached = [trial["dev"][-1][1] for trial in measured]
    low, high = min(reached), max(reached)
    axes = [*found["dials"], {"key": f"dev {found['metric']}", "values": (low, high)}]
    at = [round(_SIDE + (_WIDTH - 2 * _SIDE) * number / (len(axes) - 1), 1) for number in range(len(axes))]
    parts = [part for x, axis in zip(at, axes, strict=True) for part in _axis(x, axis)]
    # Those that matter are drawn last, over the others.
    for trial in sorted(measured, key=lambda of: (of["number"] in (0, found["chosen"]), of["fate"] == "complete")):
        up = (trial["dev"][-1][1] - low) / ((high - low) or 1)
        shares = [*(trial["places"][dial["key"]] for dial in found["dials"]), up]
        points = " ".join(f"{x},{_height(share)}" for x, share in zip(at, shares, strict=True))
        name = escape(trial_in_words(trial))
        parts.append(f'<polyline class="{_class(trial, found)}" points="{points}"><title>{name}</title></polyline>')
    described = f"Trials through their values: {', '.join(names(found))}; {len(measured)} trials"
    return svg(_WIDTH, _HEIGHT, described, parts)


def _class(trial: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if trial["number"] == found["chosen"]:
        return "line line-3 chosen"
    if trial["number"] == 0:
        return "line own"
    return "line" if trial["fate"] == "complete" else "line ended"


def _axis(x: float, axis: Mapping[str, Any]) -> Iterator[str]:
    """A vertical line with its name above and its ends written beside it."""
    yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_height(0)}" y2="{_height(1)}"/>'
    for number, part in enumerate(_two_lines(_name(axis["key"]))):
        yield f'<text class="axis" x="{x}" y="{12 + 14 * number}" text-anchor="middle">{escape(part)}</text>'
    ends: Sequence[Any] = axis["values"]
    for value, y in ((ends[0], _height(0) + 17), (ends[-1], _height(1) - 6)):
        yield f'<text class="axis name" x="{x}" y="{y}" text-anchor="middle">{_short(value)}</text>'


def _short(value: float | None) -> str:
    return "never" if value is None else f"{value:.3g}"


def _two_lines(name: str) -> list[str]:
    """A name in at most two parts of about the same length."""
    if len(name) < 14 or " " not in name:
        return ["", name]
    cuts = [place for place, letter in enumerate(name) if letter == " "]
    middle = min(cuts, key=lambda place: abs(place - len(name) / 2))
    return [name[:middle], name[middle + 1 :]]


def _height(share: float) -> float:
    top, bottom = _TOP + 16, _HEIGHT - _BOTTOM
    return round(bottom - share * (bottom - top), 1)


def _name(key: str) -> str:
    return key.replace("_", " ")
