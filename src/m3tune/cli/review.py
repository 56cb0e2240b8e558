"""A person's or a model's word on mined candidates."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Json, one_of
from m3tune.errors import RecipeError, existing_path

if TYPE_CHECKING:
    from m3tune.review.judging import Judge
    from m3tune.review.project import Project
    from m3tune.review.sitting import Sitting
    from m3tune.types import Candidate


def review(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run with mined candidates, or what m3tune mine wrote.")],
    reviewer: Annotated[
        str | None, typer.Option("--reviewer", metavar="NAME", help="Who you are.", show_default="your login name")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--estimate", metavar="N", min=1, help="Review a drawn sample of N, for the rates.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample.")] = 0,
    shown: Annotated[str, typer.Option("--show", help="Without a sample: kept, removed or all.")] = "kept",
    terminal: Annotated[bool, typer.Option("--terminal", help="Review here instead of in a browser.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of the page; 0 is any free one.")] = 0,
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="MODEL", help="Let a cross-encoder, or the model at an http address, judge."),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", metavar="NAME", help="Which model at the address.")
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="The cross-encoder's score of what is relevant.")
    ] = 0.5,
    results: Annotated[bool, typer.Option("--results", help="Print rates and agreement.")] = False,
    at_most: Annotated[
        float, typer.Option("--at-most", min=0, max=1, help="False negatives that --results lets pass with code 0.")
    ] = 0.05,
    exported: Annotated[Path | None, typer.Option("--export", metavar="FILE", help="Write verdicts as JSONL.")] = None,
    imported: Annotated[Path | None, typer.Option("--import", metavar="FILE", help="Add verdicts of a JSONL.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared data, or any that m3tune reads.", show_default="RUN/data")
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option("--candidates", help="The mining stage.", show_default="RUN/negatives")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at mined candidates, say which are relevant after all, and see how many negatives are false.

    Example: m3tune review runs/demo --estimate 200
    """
    from m3tune.review.judging import open_judge
    from m3tune.review.project import SHOWN, open_project
    from m3tune.review.sitting import Sitting

    one_of("--show", shown, SHOWN)
    asked = {"--terminal": terminal, "--judge": judge, "--results": results, "--export": exported, "--import": imported}
    named = [option for option, value in asked.items() if value]
    if len(named) > 1:
        raise RecipeError(f"{' and '.join(named)} are different things to do", where=named[1], fix="say one at a time")
    project = open_project(run, data, candidates)
    if results:
        raise typer.Exit(_results(project, at_most, as_json))
    if exported or imported:
        _exchange(project, exported, imported, as_json)
        return
    drawn = None if sample is None else project.draw(sample, seed)
    queue = project.queue(shown) if drawn is None else project.sampled(drawn)
    if judge:
        _judge(project, queue, open_judge(judge, threshold, judge_model), as_json)
    else:
        _sit(Sitting(project, _name(reviewer), queue, drawn), terminal, port, as_json)


def _results(project: Project, at_most: float, as_json: bool) -> int:
    """Print what the verdicts come to; returns the exit code, by what persons have said."""
    from m3tune.report.tables import print_line
    from m3tune.review.results import print_results, results

    found = results(project)
    rate = found["estimates"]["persons"]["after"][0] if "persons" in found["estimates"] else None
    is_above = rate is not None and rate > at_most
    if as_json:
        console.print_json(found)
    else:
        print_results(console.out, found)
        if is_above:
            print_line(console.out, f"more than --at-most {at_most:g} of the negatives are false")
    return NOT_GOOD_ENOUGH if is_above else FINE


def _exchange(project: Project, exported: Path | None, imported: Path | None, as_json: bool) -> None:
    counts = {"written": project.export_verdicts(exported)} if exported else {}
    if imported:
        counts = project.import_verdicts(existing_path(imported, "the file of verdicts"))
    _print_counts(counts, "verdicts", as_json)


def _judge(project: Project, queue: Sequence[Candidate], judge: Judge, as_json: bool) -> None:
    from m3tune.review.judging import judge_all

    with console.progress(as_json):
        counts = judge_all(project, queue, judge)
    _print_counts(counts, f"pairs by {judge.name}", as_json)


def _sit(sitting: Sitting, terminal: bool, port: int, as_json: bool) -> None:
    from m3tune.review.server import serve
    from m3tune.review.terminal import keys_of, review_in_terminal

    if terminal:
        with contextlib.closing(keys_of(sys.stdin)) as keys:
            review_in_terminal(sitting, console.out, keys)
        return

    def announce(url: str) -> None:
        if as_json:
            console.print_json({"url": url, "pairs": len(sitting.queue), "reviewer": sitting.reviewer})
        else:
            console.out.print(url, markup=False, highlight=False, soft_wrap=True)
            console.say_unless(as_json)(
                f"{len(sitting.queue):,} pairs for {sitting.reviewer}; Ctrl-C stops, all is kept"
            )
        sys.stdout.flush()

    serve(sitting, port, announce)


def _print_counts(counts: Mapping[str, int], of: str, as_json: bool) -> None:
    if as_json:
        console.print_json(dict(counts))
    else:
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        console.out.print(f"{of}: {told}", markup=False, highlight=False, soft_wrap=True)


def _name(reviewer: str | None) -> str:
    """The reviewer's name, or that of who is logged in. Raises RecipeError."""
    from m3tune.review.project import NAME, is_name

    fix = f"say --reviewer and {NAME}"
    try:
        name = (getpass.getuser() if reviewer is None else reviewer).strip()
    except (KeyError, OSError):  # an account without a name, as in some containers
        raise RecipeError("nobody here has a name", where="--reviewer", fix=fix) from None
    if not is_name(name):
        raise RecipeError("no name of a reviewer", where="--reviewer", fix=fix)
    return name
