"""What rules know beside the collection: the account of its reading, near-duplicates, lengths in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from m3tune.data.similar import NearCopies
from m3tune.types import Side


@dataclass(frozen=True)
class Rejected:
    """Records of one kind that were left out for one reason; `examples` say where, what and how to mend."""

    kind: str
    reason: str
    count: int
    fix: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lengths:
    """Tokens of each text of one side, special tokens and prompt included, and where that side is cut."""

    tokens: np.ndarray  # (N,) int64, in the order of the collection
    max_tokens: int
    model: str


@dataclass(frozen=True)
class Context:
    """What the rules get beside the collection. Empty means not known, and rules that need it find nothing."""

    rejected: tuple[Rejected, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    near_queries: NearCopies = field(default_factory=NearCopies)
    near_passages: NearCopies = field(default_factory=NearCopies)
    lengths: Mapping[Side, Lengths] = field(default_factory=dict)
