"""Rules about the reading: what was left out, and what was passed over."""

from __future__ import annotations

from collections.abc import Iterator

from m3tune.data.collection import Collection
from m3tune.diagnose.context import Context
from m3tune.diagnose.wording import found
from m3tune.types import Finding


def rejected_records(_: Collection, context: Context) -> Iterator[Finding]:
    """Records that cannot be used, one finding a reason."""
    for rejected in sorted(context.rejected, key=lambda rejected: -rejected.count):
        yield found(
            "rejected-records",
            "error",
            f"{rejected.kind} records",
            f"{rejected.count:,} cannot be used: {rejected.reason}",
            rejected.fix,
            rejected.examples,
            count=rejected.count,
            kind=rejected.kind,
            reason=rejected.reason,
        )


def ignored_fields(_: Collection, context: Context) -> Iterator[Finding]:
    """Keys that no reader knows: a misspelt one looks the same as a harmless one."""
    if context.ignored:
        yield found(
            "ignored-fields",
            "note",
            "records",
            f"{len(context.ignored):,} kinds of field are not read",
            "nothing, unless one is a misspelt name or holds texts that should train",
            (f"{name}, {count:,} times" for name, count in context.ignored.items()),
            count=len(context.ignored),
            fields=dict(context.ignored),
        )
