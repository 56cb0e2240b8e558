"""What was chosen between the base, the checkpoint and merges, by which rule and why, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.evaluation.select import LAST
from m3tune.report.words import number

_WHY_BASE = {
    "no gain": "no checkpoint beat it on development data",
    "noise": "no gain on development data was more than noise",
    "forgets": "whatever beat it on development data lost too much on the retention data",
}

_FATES = {
    "chosen": "chosen",
    "base": "where it started",
    "no gain": "not above the base",
    "noise": "above the base, but within noise",
    "forgets": "loses too much on the retention data",
    "worse": "behind the best by more than noise",
    "further": "as good, but further from the base",
}


def why_base(selection: Mapping[str, Any]) -> str:
    """Why the base was chosen."""
    return _WHY_BASE[selection["why_base"]]


def fate(candidate: Mapping[str, Any]) -> str:
    """What became of a candidate of the selection."""
    return _FATES[candidate["fate"]]


def rule(selection: Mapping[str, Any]) -> str:
    """How the selection chose."""
    if unguarded(selection):
        return 'The last step of training: select.rule is "last", so no merge, no best checkpoint and no guard.'
    kept = ""
    if selection["retention"]:
        tolerance = f"{100 * selection['retention_tolerance']:g} %"
        kept = f", loses at most {tolerance} of the base's {selection['metric']} on the retention data"
    return (
        "Chosen is the candidate nearest to the base that beats it on development data by more than noise (p ≤ "
        f"{selection['noise']:g}){kept} and is not behind the best such candidate by more than noise."
    )


def retention(selection: Mapping[str, Any]) -> str:
    """What was measured to see what a model may have forgotten, and what that does not show."""
    measured = selection["retention"]
    if not measured:
        why_not = selection.get("why_no_retention") or "select.retention names no data"
        return f"What else the model may have forgotten was not measured: {why_not}."
    sizes = f"{measured['queries']:,} queries among {measured['passages']:,} passages"
    if "found_by_base" not in measured:
        return f"The retention data has {sizes}."
    return (
        f"The retention data was held out of the corpus: {sizes}. A query is a sentence of a text that training does "
        "not touch, its passage the rest of that half of the text, and the base found the other half. What is lost in "
        "other domains or languages it does not show; name data of these in select.retention."
    )


def delivered_model(selection: Mapping[str, Any]) -> str:
    """What model/ holds, where that is not the base."""
    whole = selection["alpha"] == 1
    return "the tuned model" if whole else f"the merge of base and tuned model at {selection['alpha']:g}"


def unguarded(selection: Mapping[str, Any]) -> bool:
    """Whether the last step was taken without a choice."""
    return selection.get("rule") == LAST


def rounds(made: Mapping[str, Any]) -> str:
    """What each round of mining and training came to on development data."""
    kept = made["kept"]
    each = (f"{number(row['dev'])}{' (kept)' if row['number'] == kept else ''}" for row in made["rounds"])
    return f"dev {made['metric']} by round: {', '.join(each)}"
