"""The command line: parse, call the pipeline, print. No work is done here, and `--help` imports no torch.

Exit codes: 0 fine, 1 findings or a verdict that is not good enough, 2 the user's mistake, 3 a bug, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from m3tune import __version__
from m3tune.cli import console, data, doctor, job, measure, models, negatives, review, use
from m3tune.cli.console import BUG, FINE, INTERRUPTED, NOT_GOOD_ENOUGH, USER_ERROR
from m3tune.errors import M3TuneError

__all__ = ["BUG", "FINE", "INTERRUPTED", "NOT_GOOD_ENOUGH", "USER_ERROR", "app", "main"]

app = typer.Typer(
    name="m3tune",
    help="Fine-tune BGE-M3-class text encoders on your own data, and prove whether the result is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    job.demo, job.init,
    data.check, data.convert, data.prepare,
    negatives.mine, review.review,
    job.plan, job.run,
    measure.evaluate, measure.compare,
    use.encode, use.search,
    models.merge,
    job.report, doctor.doctor, job.replay,
):  # fmt: skip
    app.command()(command)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.out.print(__version__)
        raise typer.Exit(FINE)


_NO_PLACE = {
    errno.ENOTDIR: "a part of this path is a file and no folder",
    errno.EEXIST: "this is a file and no folder",
    errno.EISDIR: "this is a folder and no file",
    errno.ENAMETOOLONG: "a name in this path is too long",
}


# Read by libraries when they are loaded, or first used; who sets them has the last word. How they were chosen is in
# docs/decisions/0022-few-sizes.md and 0025-shared-machines.md.
_LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "true",
    "GOMP_SPINCOUNT": "10000",  # how long threads wait busily for one another, and take a shared processor from others
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # kernels of so many sizes of a product, 0.4 MiB each, and not 1,024
}


def main() -> None:
    """The entry point: every error leaves with a message and the right exit code."""
    for name, value in _LIBRARIES.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except M3TuneError as error:
        _fail(str(error))
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # typer's translation of Ctrl-C
            console.err.print("interrupted; run the same command again to go on from where it stopped", style="yellow")
        raise
    except Exception as error:
        explained = _explain_machine(error)
        if explained:
            _fail(explained)
        traceback.print_exc()
        console.err.print(f"this is a bug in m3tune {__version__}; please report it with the lines above", style="red")
        sys.exit(BUG)


def _fail(message: str) -> NoReturn:
    console.err.print(f"error: {message}", markup=False, highlight=False, style="red", soft_wrap=True)
    sys.exit(USER_ERROR)


def _explain_machine(error: Exception) -> str | None:
    """A sentence for the errors of a machine that a person can mend, None for others."""
    where = getattr(error, "filename", None) or "the disk"
    number = getattr(error, "errno", None)
    # safetensors and torch.save speak of a full disk in words of their own.
    if number in (errno.ENOSPC, errno.EDQUOT) or "(os error 28)" in str(error) or "inline_container" in str(error):
        free = shutil.disk_usage(Path.cwd()).free / 2**30
        return f"{where}: no space left on the disk ({free:.1f} GiB free here)\nfix: free space, or set another --out"
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{where}: no permission to read or write\nfix: check who owns it, or set another --out"
    if number in _NO_PLACE:
        return f"{where}: {_NO_PLACE[number]}\nfix: name another path"
    return None
