"""How findings speak: shares, ids with the start of their text, a few examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from m3tune.errors import excerpt
from m3tune.types import Finding, Passage, Query, Severity

EXAMPLES = 3


def found(
    code: str,
    severity: Severity,
    where: str,
    what: str,
    fix: str,
    examples: Iterable[str] = (),
    *,
    count: int,
    **evidence: Any,
) -> Finding:
    """A finding with its first examples; `count` is how many things it is about."""
    few = tuple(itertools.islice(examples, EXAMPLES))
    return Finding(code, severity, where, what, fix, few, {"count": count, **evidence})


def share(count: int, total: int) -> str:
    """A count with its share.

    >>> share(12, 300), share(1, 30_000)
    ('12 of 300 (4.0 %)', '1 of 30,000 (under 0.1 %)')
    """
    percent = 100 * count / total if total else 0.0
    words = "under 0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"
    return f"{count:,} of {total:,} ({words})"


def shown(record: Query | Passage) -> str:
    """A text with its id, for an example."""
    return f"{record.id}: {excerpt(record.text)}"
