"""What slices and rankers say, in sentences for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.diagnose.disagreement import BM25
from m3tune.diagnose.slices import FEWEST_QUERIES
from m3tune.evaluation.select import BASE
from m3tune.report.words import change, cut, head, number, p_value, signed

_GROUP_CHARACTERS = 60


def of_page(data: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of the page's sections on errors; empty where the run has no errors.json."""
    if not data["errors"]:
        return {}
    return {
        "slices": slices(data),
        "next_step": next_step(data["errors"]["disagreement"]),
        "ceiling": ceiling(data["errors"]["disagreement"]),
        "names": {of["name"]: fusion(of) for of in data["errors"]["disagreement"]["fusions"]},
    }


def stands_out(data: Mapping[str, Any]) -> list[str]:
    """At most two lines for a terminal: slices that differ from the rest, and a fusion that gains beyond noise."""
    if not data["errors"]:
        return []
    lines = []
    if any(row["differs"] for row in data["errors"]["slices"]):
        lines.append(f"slices: {slices(data)}")
    step = next_step(data["errors"]["disagreement"])
    if step.endswith(_ADVICE["better"]):
        lines.append(f"fusion: {step}")
    return lines


def slices(data: Mapping[str, Any]) -> str:
    """Which groups of queries differ from the rest, or that none does."""
    rows = data["errors"]["slices"]
    tested = sum(row["p_corrected"] is not None for row in rows)
    if data["chosen"] == BASE:
        return "The base was kept, so nothing was gained or lost; the table shows where it finds less."
    if not tested:
        return (
            f"Too few test queries to divide: a group needs {FEWEST_QUERIES} of them, and so does what is outside it."
        )
    differing = [row for row in rows if row["differs"]]
    if not differing:
        return f"No group gained or lost more than the rest, beyond what looking at {tested} groups brings by chance."
    told = "; ".join(map(_differing, differing))
    return f"Of {tested} groups these gained more or less than the rest, beyond chance: {told}."


def _differing(row: Mapping[str, Any]) -> str:
    """One group that differs from the rest."""
    than = f"{number(abs(row['against_rest']))} {'more' if row['against_rest'] > 0 else 'less'} than the rest"
    return (
        f"{row['dimension']} {cut(row['group'], _GROUP_CHARACTERS)} ({signed(row['difference'])}, which is {than}, "
        f"p {p_value(row['p_corrected'])})"
    )


def next_step(of: Mapping[str, Any]) -> str:
    """What rank fusion with BM25 would bring, and what to do with that; empty where BM25 was not measured."""
    suggested = _suggested(of)
    if suggested is None:
        return ""
    bm25 = next(ranker for ranker in of["rankers"] if ranker["name"] == BM25)
    queries = {0: "no query", 1: "1 query"}.get(bm25["adds"], f"{bm25['adds']:,} queries")
    low, high = suggested["ci95"]
    advice = "better" if low > 0 else "worse" if high < 0 else "noise"
    if advice == "better" and bm25["value"] > suggested["value"]:
        advice = "words"
    return (
        f"BM25 finds a relevant passage in the top {of['top']} for {queries} where {head(of['decides'])} finds none. "
        f"Rank fusion of {head(of['decides'])} with BM25, without weights, would give {of['metric']} "
        f"{number(suggested['value'])}, {change(suggested['difference'], suggested['ci95'])}. "
        + _ADVICE[advice].format(bm25=number(bm25["value"]))
    )


def ceiling(of: Mapping[str, Any]) -> str:
    """What an oracle that chooses between the rankers would reach, and how much of the way the best fusion goes."""
    best = max(of["rankers"], key=lambda ranker: ranker["value"])
    text = (
        f"The best of them alone is {head(best['name'])} with {of['metric']} {number(best['value'])}. Whoever knew for "
        f"each query which is best would reach {number(of['ceiling'])}; no system does, for that takes every lucky hit."
    )
    ahead = [item for item in of["fusions"] if item["captured"] is not None and item["captured"] > 0]
    if not ahead:
        return text + (" No fusion goes any of that way." if of["fusions"] else "")
    furthest = max(ahead, key=lambda item: item["captured"])
    return text + f" Furthest goes {fusion(furthest)}: {100 * furthest['captured']:.0f} % of the way."


def fusion(of: Mapping[str, Any]) -> str:
    """A fusion in words, such as `hybrid` or `rank fusion of dense and BM25`."""
    if BM25 not in of["members"]:
        return head(of["name"])
    *others, last = map(head, of["members"])
    return f"rank fusion of {', '.join(others)} and {last}"


def _suggested(of: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((item for item in of["fusions"] if item["name"] == of["suggested"]), None)


_ADVICE = {
    "better": (
        "That is more than noise. The library behind your search probably offers it, as hybrid search or reciprocal "
        "rank fusion. It was seen on the test queries, but nothing was tuned or chosen by them."
    ),
    "words": "That is more than noise, but BM25 alone has {bm25}: in a rank fusion this encoder adds nothing to it.",
    "worse": "That is less than without, beyond noise: leave BM25 out, or give it a small weight.",
    "noise": "That may be noise: these queries give no reason to add BM25.",
}
