"""What all verdicts of a project come to: who said how much, who agrees, and how many negatives are false."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text

from m3tune.negatives.agreement import agreement, by_reviewer, merged
from m3tune.negatives.estimate import Estimate, Rate, estimate
from m3tune.report.tables import print_line, print_table, table_of
from m3tune.review.project import Project
from m3tune.review.wording import percent

_RATES = {
    "before": "relevant among all candidates",
    "after": "relevant among those kept (false negatives)",
    "wrongly_removed": "not relevant among those removed",
}


def results(project: Project) -> dict[str, Any]:
    """Counts, agreement and estimates as JSON. Persons make one estimate together, each model one of its own.

    `estimates` is empty where no sample was drawn, or nobody has judged a pair of it.
    """
    standing = project.store.standing()
    said = by_reviewer(standing)
    sample = project.sample()
    sources = {"persons": merged(v for v in standing if v.kind == "person")}
    sources |= {f"model {name}": of for (kind, name), of in said.items() if kind == "model"}
    removed = sum(bool(candidate.removed) for candidate in project.candidates)
    found: dict[str, Any] = {
        "candidates": {"kept": len(project.candidates) - removed, "removed": removed},
        "sample": None if sample is None else len(sample.pairs),
        "reviewers": [{"reviewer": name, "kind": kind, **Counter(of.values())} for (kind, name), of in said.items()],
        "agreement": [],
        "estimates": {},
    }
    for (first, of_first), (second, of_second) in itertools.combinations(said.items(), 2):
        if shared := agreement(of_first, of_second):
            found["agreement"].append({"reviewers": [first[1], second[1]], **shared._asdict()})
    for name, of in sources.items():
        if sample is not None and any(pair in sample.pairs for pair in of):
            found["estimates"][name] = _as_json(estimate(sample, of))
    return found


def print_results(console: Console, found: dict[str, Any]) -> None:
    """Print what `results` returned."""
    counts = found["candidates"]
    print_line(console, f"{counts['kept']:,} candidates kept, {counts['removed']:,} removed")
    for row in found["reviewers"]:
        told = ", ".join(f"{n:,} {word}" for word, n in row.items() if word not in ("reviewer", "kind"))
        print_line(console, f"{row['kind']} {row['reviewer']}: {told}")
    for row in found["agreement"]:
        kappa = "no kappa, both always say the same" if row["kappa"] is None else f"Cohen's kappa {row['kappa']:.2f}"
        print_line(
            console,
            f"{' and '.join(row['reviewers'])}: {kappa}, {row['observed']:.0%} alike on {row['pairs']:,} shared pairs",
        )
    if not found["estimates"]:
        print_line(console, "no estimate: draw a sample with --estimate 200 and judge it")
    for name, of in found["estimates"].items():
        _print_estimate(console, name, of)


def _print_estimate(console: Console, name: str, of: dict[str, Any]) -> None:
    table = table_of(["rank", "score", "filters", "pairs", "drawn", "relevant", "rate, 95 % interval"], names=3)
    table.title, table.title_justify = Text(f"judged by {name}"), "left"
    for band in of["bands"]:
        table.add_row(
            Text(band["rank"]),
            Text(band["score"]),
            "removed" if band["removed"] else "kept",
            f"{band['size']:,}",
            f"{band['drawn']:,}",
            f"{band['relevant']:,} of {band['relevant'] + band['not_relevant']:,}",
            Text(percent(Rate(*band["rate"]))),
        )
    print_table(console, table)
    drawn, relevant, other, unsure = (
        sum(band[key] for band in of["bands"]) for key in ("drawn", "relevant", "not_relevant", "unsure")
    )
    print_line(console, f"{relevant + other:,} of {drawn:,} drawn pairs are judged, {unsure:,} more are unsure")
    for key, meaning in _RATES.items():
        print_line(console, f"{meaning}: {percent(Rate(*of[key]))}")


def _as_json(of: Estimate) -> dict[str, Any]:
    rates = {key: list(getattr(of, key)) for key in _RATES}
    bands = [{**band.stratum._asdict(), **band._asdict(), "rate": list(band.rate)} for band in of.bands]
    return rates | {"bands": [{key: value for key, value in band.items() if key != "stratum"} for band in bands]}
