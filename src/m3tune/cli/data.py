"""Commands about data alone: is it sound, in another format, divided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.console import FINE, NOT_GOOD_ENOUGH
from m3tune.cli.options import Columns, Json, Source
from m3tune.errors import RecipeError


def check(
    data: Annotated[str, typer.Argument(metavar="IN", help="Your data, in any format that m3tune reads.")],
    source: Source = "auto",
    columns: Columns = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Count tokens as this model does: a folder or Hub id.")
    ] = None,
    query_max_tokens: Annotated[
        int | None, typer.Option("--query-max-tokens", min=4, help="Where queries are cut.", show_default="the model's")
    ] = None,
    passage_max_tokens: Annotated[
        int | None,
        typer.Option("--passage-max-tokens", min=4, help="Where passages are cut.", show_default="the model's"),
    ] = None,
    fixed: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write a repaired copy, and say what was done.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="The format of OUT.", show_default="that of IN")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with your data, with a fix for each finding; 1 where there is an error or a warning.

    Example: m3tune check questions.json --model BAAI/bge-m3 --passage-max-tokens 512
    """
    from m3tune.config import ModelConfig
    from m3tune.data import intake, write
    from m3tune.data.columns import parse_columns
    from m3tune.diagnose.check import examine
    from m3tune.diagnose.fix import check_fix, fix
    from m3tune.report.findings import print_check, print_fixed

    if model is None and (query_max_tokens or passage_max_tokens):
        raise RecipeError("a limit in tokens needs a tokenizer", where="--model", fix="name the model")
    if to is not None and fixed is None:
        raise RecipeError("--to is the format of a repaired copy", where="--to", fix="say --fix OUT, or leave it out")
    limits = {"query_max_tokens": query_max_tokens, "passage_max_tokens": passage_max_tokens}
    config = None if model is None else ModelConfig(path=model, **limits)
    roles = parse_columns(columns or [])
    target = None if fixed is None else check_fix(data, source, bool(roles), fixed, to)
    with console.progress(as_json):
        examination = examine(data, source, roles, config)
        result = None if fixed is None or target is None else fix(examination, fixed, target, config)
    console.say_unless(as_json)(examination.why)
    facts = examination.as_json()
    if as_json:
        console.print_json(facts | ({} if result is None else {"fix": result.as_json()}))
    else:
        print_check(console.out, intake.in_words(facts["account"]), facts, examination.findings)
        if result is not None:
            print_fixed(
                console.out,
                result.as_json(),
                result.remaining,
                write.in_words(result.written, result.path, result.format),
            )
    left = examination.findings if result is None else result.remaining
    raise typer.Exit(NOT_GOOD_ENOUGH if any(finding.severity != "note" for finding in left) else FINE)


def convert(
    data: Annotated[str, typer.Argument(metavar="IN", help="Your data, in any format that m3tune reads.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file or folder to write; .gz and .zst by its name.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="llamaindex, flagembedding, beir, trec, pairs or datasets.")
    ],
    source: Source = "auto",
    columns: Columns = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad records out, into OUT.rejected.jsonl, instead of stopping.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write data in another format, and say what that format cannot hold.

    Example: m3tune convert questions.json rows.jsonl --to flagembedding
    """
    from m3tune.data.columns import parse_columns
    from m3tune.data.intake import Intake
    from m3tune.data.intake import in_words as account
    from m3tune.data.read import read_collection
    from m3tune.data.write import check_absent, check_target, in_words, write_collection

    check_target(output, to)
    rejected = output.expanduser().with_name(f"{output.name}.rejected.jsonl")
    check_absent(rejected)
    intake, say = Intake(skip_bad=skip_bad), console.say_unless(as_json)
    collection, why = read_collection(data, source, parse_columns(columns or []), intake)
    for line in (why, *account(intake.counts()), *(f"not read: {n:,} x {name}" for name, n in intake.ignored.items())):
        say(line)
    counts = write_collection(collection, output, to)
    if intake.save_rejected(rejected):
        say(f"the rejected records are in {rejected}")
    if as_json:
        console.print_json({**counts, "records": intake.counts(), "not_read": intake.ignored})
    else:
        console.out.print("\n".join(in_words(counts, output, to)), markup=False, highlight=False, soft_wrap=True)


def prepare(
    data: Annotated[str, typer.Argument(metavar="IN", help="Your data, in any format that m3tune reads.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    source: Source = "auto",
    columns: Columns = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, into rejected.jsonl.")] = False,
    protocol: Annotated[
        str, typer.Option(help='What a carved split asks: "new documents", "new questions" or auto.')
    ] = "auto",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key, e.g. data.test=0.1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read data, find what is nearly the same, and split it without leaks; what every later stage reads.

    Example: m3tune prepare questions.json prepared --set data.test=0.3
    """
    from m3tune.artifact import MANIFEST, read_json
    from m3tune.data.columns import parse_columns
    from m3tune.data.prepared import BALANCE
    from m3tune.preparation import prepare
    from m3tune.recipe import build_recipe
    from m3tune.report.terminal import print_prepared

    given: dict[str, Any] = {"path": data, "format": source, "columns": parse_columns(columns or [])}
    given |= {"skip_bad": skip_bad, "protocol": protocol}
    recipe = build_recipe({"data": given, "model": {"path": "-"}}, overrides or [], where="--set")
    with console.progress(as_json):
        prepare(recipe.data, output, console.say_unless(as_json))
    counts, balance = read_json(output / MANIFEST)["counts"], read_json(output / BALANCE)
    if as_json:
        console.print_json({"counts": counts, "balance": balance})
    else:
        print_prepared(console.out, output, counts, balance)
