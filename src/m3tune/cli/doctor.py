"""Why a run came out as it did, whether a model fits its data, and whether the machine is fit for the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Json
from m3tune.types import Finding


def doctor(
    patient: Annotated[
        str | None, typer.Argument(metavar="[RUN|MODEL]", help="A run directory, or a model to be looked at with DATA.")
    ] = None,
    data: Annotated[str | None, typer.Argument(metavar="[DATA]", help="Your data, beside a model.")] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Queries a side that are scored by the untuned model; 0 leaves that out.")
    ] = 256,
    vectors: Annotated[
        list[Path] | None,
        typer.Option("--vectors", help="A folder that m3tune encode wrote, to see whether it is of this model."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why a run came out as it did and what to type next, the likeliest cause first; alone, look at the machine.

    Example: m3tune doctor runs/demo
    """
    from m3tune.errors import RecipeError

    if patient is None:
        if vectors:
            raise RecipeError("vectors are compared with a model", where="--vectors", fix="name a run, or MODEL DATA")
        findings = _machine(as_json)
    else:
        findings = _patient(patient, data, sample, vectors or [], as_json)
    raise typer.Exit(NOT_GOOD_ENOUGH if any(finding.severity != "note" for finding in findings) else FINE)


def _patient(patient: str, data: str | None, sample: int, vectors: list[Path], as_json: bool) -> tuple[Finding, ...]:
    from dataclasses import asdict

    from m3tune.diagnose.doctor.reading import is_run, read_model, read_run
    from m3tune.diagnose.doctor.registry import case_findings
    from m3tune.errors import RecipeError
    from m3tune.report.findings import print_told
    from m3tune.report.tables import print_line

    folder = Path(patient).expanduser()
    if data is None and not is_run(folder):
        raise RecipeError(
            "this is no run directory", where=patient, fix=f"for a model say m3tune doctor {patient} DATA"
        )
    with console.progress(as_json):
        case = read_run(folder, sample, vectors) if data is None else read_model(patient, data, sample, vectors)
        findings = case_findings(case)
    if as_json:
        console.print_json({"verdict": dict(case.verdict), "findings": [asdict(finding) for finding in findings]})
        return findings
    if case.verdict:
        print_line(console.out, f"{patient}: {case.verdict['verdict']}, delivered: {case.verdict['delivered']}")
    print_told(console.out, findings)
    return findings


def _machine(as_json: bool) -> tuple[Finding, ...]:
    from dataclasses import asdict

    from m3tune.diagnose.doctor.environment import look
    from m3tune.diagnose.doctor.machine_rules import machine_findings
    from m3tune.report.findings import print_told
    from m3tune.report.tables import print_line

    machine = look()
    findings = machine_findings(machine)
    if as_json:
        console.print_json({"machine": machine.as_json(), "findings": [asdict(finding) for finding in findings]})
        return findings
    for line in machine.in_words():
        print_line(console.out, line)
    print_told(console.out, findings, "docs/guide/doctor.md#{code}")
    return findings
