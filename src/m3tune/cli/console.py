"""What a command writes to, and the codes that it leaves with."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

FINE, NOT_GOOD_ENOUGH, USER_ERROR, BUG, INTERRUPTED = 0, 1, 2, 3, 130

out = Console()
err = Console(stderr=True)


def say_unless(as_json: bool) -> Callable[[str], None]:
    """What tells a person how things go: a line on stderr each, nothing where a program listens."""

    def say(text: str) -> None:
        if not as_json:
            err.print(text, markup=False, highlight=False, soft_wrap=True)

    return say


@contextlib.contextmanager
def progress(as_json: bool) -> Iterator[None]:
    """Bars for all work inside, none where a program listens."""
    from m3tune.progress import shown

    with contextlib.nullcontext() if as_json else shown(err):
        yield


def print_json(value: Any) -> None:
    """One object on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
