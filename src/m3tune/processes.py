"""One process at a time in a folder: of two that fill the same one, each would take the other's half for its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from m3tune.errors import ArtifactError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it for this process; one that is killed holds nothing any longer.

    Where the system or its disk knows no such locks, nothing is held. Raises ArtifactError where another process is
    at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                "another m3tune is at work here", where=folder, fix="wait until it has ended, or name another output"
            ) from None
        except OSError:  # a disk without locks, as some of a network are
            pass
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_UN)  # a forked loader may have it open still
        os.close(opened)
