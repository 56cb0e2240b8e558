"""What a split of the data looks like, in words for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.types import SIDE_PAIRS

TESTED = (
    "Median (90th percentile), or shares. p: Kolmogorov-Smirnov test of numbers, chi squared test of shares, against "
    "train; small where a side is different"
)

PROTOCOLS = {
    "new documents": "The test asks about new documents: no query of one side shares a relevant passage, or one nearly "
    "the same, with a query of another, unless the data's own splits do.",
    "new questions": "The test asks new questions about the same documents: no query of one side is nearly the same as "
    "one of another, unless the data's own splits bring it, but they may share documents.",
}


def summary(of_side: Mapping[str, float]) -> str:
    """One cell of the table that compares the sides of a split: median (90th percentile), or shares."""
    if "median" in of_side:
        return f"{of_side['median']:,.0f} ({of_side['p90']:,.0f})"
    return ", ".join(f"{label} {share:.0%}" for label, share in of_side.items() if share)


def shared_between_sides(counts: Mapping[str, Any]) -> list[str]:
    """What two sides of a split have in common, one line each; nothing where they have nothing."""
    lines = []
    for side, other in SIDE_PAIRS:
        for how, what in (
            ("also_in", f"were taken out of {side}, because {other} has them too"),
            ("sharing_a_passage_with", f"share a relevant passage, a copy of it or its document with {other}"),
            ("with_a_query_of", f"ask nearly the same as one of {other}"),
        ):
            if count := counts.get(f"{side}_{how}_{other}"):
                lines.append(f"{count:,} of {counts[side]:,} {side} queries {what}")
    return lines
