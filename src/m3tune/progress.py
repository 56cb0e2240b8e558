"""Progress of long work. Library functions report it through `track`; the command line decides that it is shown.

A library user sees nothing unless the calls are wrapped in `shown()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    """Reports that `amount` more is done; `note` is shown at the end of the line."""

    def __call__(self, amount: int, note: str = "") -> None:
        """Report."""


_bars: ContextVar[Progress | None] = ContextVar("bars", default=None)


@contextlib.contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show a bar, with the time left, for every `track` inside."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, refresh_per_second=4, transient=not console.is_terminal) as bars:
        token = _bars.set(bars)
        try:
            yield
        finally:
            _bars.reset(token)


@contextlib.contextmanager
def track(label: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar for `total` units of work of which `done` are done already; yields the function that advances it."""
    bars = _bars.get()
    if bars is None:
        yield _ignore
        return
    task: TaskID = bars.add_task(label, total=total, completed=done, note="")

    def advance(amount: int, note: str = "") -> None:
        bars.update(task, advance=amount)
        if note:
            bars.update(task, note=note)

    yield advance


def remark(line: str) -> None:
    """Say something of the work, above the bars where they are shown."""
    bars = _bars.get()
    if bars is not None:
        bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Show no bar for any `track` inside, where one around it tells of the same work."""
    token = _bars.set(None)
    try:
        yield
    finally:
        _bars.reset(token)


def _ignore(amount: int, note: str = "") -> None:
    pass
