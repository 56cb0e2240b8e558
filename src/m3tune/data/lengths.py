"""How long texts are, as a histogram that a page can draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

_BINS_A_DECADE = 8


def histogram(lengths: Iterable[int]) -> dict[str, Any]:
    """Counts in bins whose widths grow like the lengths: `edges` (one more than `counts`), median, p95 and longest.

    Empty where there are no texts.
    """
    values = np.fromiter(lengths, dtype=np.int64)
    if not len(values):
        return {}
    longest = int(values.max())
    decades = np.log10(max(longest, 10))
    edges = np.unique(np.logspace(0, decades, int(decades * _BINS_A_DECADE) + 2).astype(np.int64))
    edges[-1] = max(edges[-1], longest) + 1
    edges = np.unique(np.concatenate([[0], edges]))
    counts, _ = np.histogram(values, edges)
    median, p95 = np.percentile(values, [50, 95])
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "median": float(median),
        "p95": float(p95),
        "longest": longest,
    }
