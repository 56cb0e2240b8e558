"""Rules about amounts: whether there are enough queries to tell two models apart."""

from __future__ import annotations

from collections.abc import Iterator

from m3tune.config import DataConfig
from m3tune.data.collection import Collection
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import found
from m3tune.evaluation.significance import queries_to_show, smallest_shown
from m3tune.types import Finding

_SPREAD = 0.3  # standard deviation of per-query differences of nDCG@10, mostly 0.25 to 0.35 between base and tuned
_DIFFERENCES = (0.1, 0.05, 0.03, 0.02, 0.01)
_LARGE, _MEDIUM = 0.05, 0.03  # a test that shows only more than this is a warning; than that, a note


def few_queries(collection: Collection, _: Context) -> Iterator[Finding]:
    """A test too small for the differences that fine-tuning makes."""
    judged = len(collection.positives)
    if "test" in collection.splits:
        queries = sum(query_id in collection.positives for query_id in collection.splits["test"])
        what = f"the test split has {queries:,}"
    else:
        test = DataConfig.model_fields["test"].default
        queries = round(test * judged)
        what = f"a test of {test:.0%} would have {queries:,}"
    smallest = smallest_shown(queries, _SPREAD) if queries else 1.0
    if smallest > _MEDIUM:
        needed = {difference: queries_to_show(difference, _SPREAD) for difference in _DIFFERENCES}
        yield found(
            "few-queries",
            "warning" if smallest > _LARGE else "note",
            "queries",
            f"{what}, too few to show a difference in nDCG@10 below about {smallest:.2f}",
            "judge more queries for the test: " + ", ".join(f"{n:,} show {d}" for d, n in needed.items()),
            (
                f"assumed: differences per query with a standard deviation of {_SPREAD} (0.25 to 0.35 are usual), "
                "independent queries, 95 % confidence, power 80 %; queries that share a passage count for less",
            ),
            count=queries,
            smallest_difference=round(smallest, 4),
            needed={str(difference): n for difference, n in needed.items()},
            standard_deviation=_SPREAD,
        )
