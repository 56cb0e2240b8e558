"""Rules about the vectors themselves: heads that die, vectors that collapse, passages that everybody finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from m3tune.diagnose.doctor.case import Case
from m3tune.diagnose.wording import found, shown
from m3tune.training.findings import health_findings
from m3tune.types import Finding, Run

_RANKS = 10
_FEWEST_QUERIES = 20
_HUB = 0.2  # share of queries that a hub is found for
_MORE_THAN_CHANCE = 5
_SLOTS = 0.1  # share of all places that hubs take from which it is an illness


def dead_sparse_head(case: Case) -> Iterator[Finding]:
    """Sparse vectors that are empty at the end of training."""
    yield from _of_last_lines(case, "sparse-vectors-die", 'model.new_heads=["sparse"]')


def collapse(case: Case) -> Iterator[Finding]:
    """Dense vectors that hardly differ at the end of training."""
    larger = f"train.batch_queries={2 * case.recipe.train.batch_queries}"
    yield from _of_last_lines(case, "dense-vectors-collapse", larger)


def hubs(case: Case) -> Iterator[Finding]:
    """Passages among the first ten of a great part of the queries that they do not answer.

    N_10 of a passage is how many queries have it there; its skewness measures hubness (Radovanovic et al., 2010).
    """
    if "tuned" not in case.measured or len(case.measured["tuned"].run) < _FEWEST_QUERIES:
        return
    run = case.measured["tuned"].run
    counts = occurrences(run)
    queries, passages = len(run), len(case.collection.passages)
    least = max(_HUB, _MORE_THAN_CHANCE * _RANKS / passages) * queries
    relevant = Counter(p for query_id in run for p in case.collection.positives.get(query_id, ()))
    found_hubs = {p: n for p, n in counts.most_common() if n >= least and relevant[p] < n / 10}
    slots = sum(found_hubs.values()) / max(1, sum(counts.values()))
    if slots >= _SLOTS:
        (hub, most), *_ = found_hubs.items()
        yield found(
            "hubs",
            "warning",
            "tuned vectors",
            f"{len(found_hubs):,} passages take {slots:.0%} of the first {_RANKS} places; one is there for {most:,} of "
            f"{queries:,} queries (skewness of the counts {skewness(counts, passages):.1f}"
            + (
                f", of the base {skewness(occurrences(case.measured['base'].run), passages):.1f})"
                if _base(case)
                else ")"
            ),
            "a sign that vectors crowd together: see the findings above first; else "
            + case.again(f"train.batch_queries={2 * case.recipe.train.batch_queries}"),
            (f"{n:,} queries find {shown(case.collection.passages[p])}" for p, n in found_hubs.items()),
            count=len(found_hubs),
            places=round(slots, 4),
            skewness=round(skewness(counts, passages), 3),
            hub=hub,
        )


def occurrences(run: Run, ranks: int = _RANKS) -> Counter[str]:
    """N_10: how many queries have each passage among their first ten; a passage that is never there is not listed."""
    return Counter(hit.passage_id for hits in run.values() for hit in hits[:ranks])


def skewness(counts: Mapping[str, int], passages: int) -> float:
    """The skewness of N_10 over all `passages`, those never found with zero: E[(N - mean)^3] / sd^3."""
    values = np.zeros(passages)
    values[: len(counts)] = list(counts.values())
    spread = values.std()
    return float(((values - values.mean()) ** 3).mean() / spread**3) if spread else 0.0


def _base(case: Case) -> bool:
    return "base" in case.measured and case.measured["base"] is not case.measured["tuned"]


def _of_last_lines(case: Case, code: str, settings: str) -> Iterator[Finding]:
    """An illness of the training log that its last line with the figures still shows, and a setting to try."""
    lines = [line for line in case.log if "loss" in line]
    for finding in health_findings(lines[-1]) if lines else ():
        if finding.code == code:
            fix = f"{finding.fix}; such as {case.again(settings)}"
            yield replace(finding, fix=fix, evidence={"count": 1, **finding.evidence})
