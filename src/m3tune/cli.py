"""The command line: parse, call the pipeline, print. No work is done here, and `--help` imports no torch.

Exit codes: 0 fine, 1 findings or a verdict that is not good enough, 2 the user's mistake, 3 a bug, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from m3tune import __version__
from m3tune.errors import M3TuneError, RecipeError

FINE, NOT_GOOD_ENOUGH, USER_ERROR, BUG, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="m3tune",
    help="Fine-tune BGE-M3-class text encoders on your own data, and prove whether the result is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs instead of text.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Lay over the recipe, e.g. train.epochs=1.")
]
Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="What IN is, where it is not seen: llamaindex, flagembedding, beir, trec, pairs, datasets or documents.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="ROLE=NAME", help="What a column of pairs is, e.g. positive=body."),
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit(FINE)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--out", help="The run directory.")] = Path("runs/demo"),
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """The whole job on SciFact with a small real encoder: no network, a CPU is enough.

    Example: m3tune demo --set train.epochs=1
    """
    from m3tune.recipe import load_recipe
    from m3tune.starter import DEMO, recipe_file

    built_in = [f"{key}={value}" for key, value in DEMO.items()] + [f"output={output}"]
    _run(load_recipe(recipe_file("default"), [*built_in, *(overrides or [])]), as_json)


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="Your data, in any format that m3tune reads.")],
    model: Annotated[str, typer.Option("--model", help="A folder or Hub id.")] = "BAAI/bge-m3",
    recipe: Annotated[Path, typer.Option("--out", help="The recipe to write.")] = Path("recipe.toml"),
    base: Annotated[str, typer.Option("--from", help="default, llamaindex or flagembedding.")] = "default",
) -> None:
    """Write a commented recipe for your files and machine; asks nothing it can see for itself.

    Example: m3tune init questions.json --model BAAI/bge-m3
    """
    from m3tune.starter import write_starter

    seen = write_starter(data, model, recipe, base)
    lines = [*seen, f"wrote {recipe}; next: m3tune run {recipe}"]
    out.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@app.command()
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
    from m3tune.data import intake, write
    from m3tune.data.columns import parse_columns
    from m3tune.diagnose.check import examine
    from m3tune.diagnose.fix import check_fix, fix
    from m3tune.recipe import ModelConfig
    from m3tune.report.findings import print_check, print_fixed

    if model is None and (query_max_tokens or passage_max_tokens):
        raise RecipeError("a limit in tokens needs a tokenizer", where="--model", fix="name the model")
    if to is not None and fixed is None:
        raise RecipeError("--to is the format of a repaired copy", where="--to", fix="say --fix OUT, or leave it out")
    limits = {"query_max_tokens": query_max_tokens, "passage_max_tokens": passage_max_tokens}
    config = None if model is None else ModelConfig(path=model, **limits)
    roles = parse_columns(columns or [])
    target = None if fixed is None else check_fix(data, source, bool(roles), fixed, to)
    with _progress(as_json):
        examination = examine(data, source, roles, config)
        result = None if fixed is None or target is None else fix(examination, fixed, target, config)
    _say(as_json)(examination.why)
    facts = examination.as_json()
    if as_json:
        _print_json(facts | ({} if result is None else {"fix": result.as_json()}))
    else:
        print_check(out, intake.in_words(facts["account"]), facts, examination.findings)
        if result is not None:
            print_fixed(
                out, result.as_json(), result.remaining, write.in_words(result.written, result.path, result.format)
            )
    left = examination.findings if result is None else result.remaining
    raise typer.Exit(NOT_GOOD_ENOUGH if any(finding.severity != "note" for finding in left) else FINE)


@app.command()
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
    intake, say = Intake(skip_bad=skip_bad), _say(as_json)
    collection, why = read_collection(data, source, parse_columns(columns or []), intake)
    for line in (why, *account(intake.counts()), *(f"not read: {n:,} x {name}" for name, n in intake.ignored.items())):
        say(line)
    counts = write_collection(collection, output, to)
    if intake.save_rejected(rejected):
        say(f"the rejected records are in {rejected}")
    if as_json:
        _print_json({**counts, "records": intake.counts(), "not_read": intake.ignored})
    else:
        out.print("\n".join(in_words(counts, output, to)), markup=False, highlight=False, soft_wrap=True)


@app.command()
def prepare(
    data: Annotated[str, typer.Argument(metavar="IN", help="Your data, in any format that m3tune reads.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write.")],
    source: Annotated[str, typer.Option("--from", metavar="FORMAT", help="What IN is, where it is not seen.")] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=NAME", help="What a column of pairs is, e.g. positive=body."),
    ] = None,
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
    with _progress(as_json):
        prepare(recipe.data, output, _say(as_json))
    counts, balance = read_json(output / MANIFEST)["counts"], read_json(output / BALANCE)
    if as_json:
        _print_json({"counts": counts, "balance": balance})
    else:
        print_prepared(out, output, counts, balance)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")] = Path("recipe.toml"),
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Every stage of a recipe; skips what is up to date and goes on with what was cut off.

    Example: m3tune run recipe.toml --set train.learning_rate=1e-5
    """
    from m3tune.recipe import load_recipe

    _run(load_recipe(recipe, overrides or []), as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id or package:NAME/FOLDER.")],
    data: Annotated[str, typer.Argument(help="The data to measure it on.")],
    split: Annotated[str, typer.Option(help="Which queries: a split that the data brings, or all.")] = "all",
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where metrics, runs and per-query results go.", show_default="runs/evaluation-MODEL-DATA"
        ),
    ] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="ir-measures' name; can be repeated.")] = None,
    bm25: Annotated[bool, typer.Option(help="Measure BM25 beside it.")] = True,
    as_json: Json = False,
) -> None:
    """Measure every head of any model on any data, with BM25 beside it.

    Example: m3tune evaluate runs/demo/model package:m3tune/demo/scifact --split test
    """
    from m3tune import pipeline
    from m3tune.data.read import read_collection
    from m3tune.data.split import queries_of
    from m3tune.evaluation.metrics import mean, parse_metrics
    from m3tune.recipe import EvaluateConfig, ModelConfig
    from m3tune.report.terminal import print_evaluations

    config = EvaluateConfig(bm25=bm25, **({"metrics": tuple(metrics), "main_metric": metrics[0]} if metrics else {}))
    parse_metrics(config.metrics)
    collection, why = read_collection(data)
    say = _say(as_json)
    say(why)
    query_ids = queries_of(collection, split)
    name = Path(model).name
    folder = output or Path("runs") / f"evaluation-{name}-{Path(data).stem}"
    with _progress(as_json):
        evaluations = pipeline.evaluate(ModelConfig(path=model), collection, query_ids, config, folder, name, say)
    say(f"metrics, runs and per-query results: {folder}")
    if as_json:
        means: dict[str, dict[str, Any]] = {}
        for evaluation in evaluations:
            means.setdefault(evaluation.name, {})[evaluation.head] = mean(evaluation.per_query)
        _print_json(means)
    else:
        print_evaluations(out, evaluations)


@app.command()
def encode(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id or package:NAME/FOLDER.")],
    data: Annotated[str, typer.Argument(help="Any data that m3tune reads, or a .txt file with one text a line.")],
    output: Annotated[
        Path | None, typer.Option("--out", help="The folder to write.", show_default="runs/vectors-MODEL-DATA")
    ] = None,
    what: Annotated[str, typer.Option(help="passages, queries or both; lines of a .txt are one kind.")] = "both",
    heads: Annotated[
        str | None, typer.Option(help='Which heads, e.g. "dense,sparse".', show_default="all that the model has")
    ] = None,
    dense: Annotated[str, typer.Option(help="How dense vectors are stored: float32 or float16.")] = "float32",
    multi: Annotated[str, typer.Option(help="How multi-vectors are stored: float16 or float32.")] = "float16",
    source: Annotated[
        str, typer.Option("--from", metavar="FORMAT", help="What DATA is, where it is not seen.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write vectors of any heads to disk; goes on where it was cut off.

    Example: m3tune encode runs/demo/model questions.json --out vectors
    """
    from m3tune.model.weights import load_encoder
    from m3tune.recipe import ModelConfig
    from m3tune.report.terminal import print_encoded
    from m3tune.searching import encode_collection, read_texts

    _one_of("--what", what, ("both", "passages", "queries"))
    for option, storage in (("--dense", dense), ("--multi", multi)):
        _one_of(option, storage, ("float32", "float16"))
    wanted = [part.strip() for part in heads.split(",")] if heads else None
    for head in wanted or ():
        _one_of("--heads", head, ("dense", "sparse", "multi"))
    say = _say(as_json)
    options: Any = {"what": what, "heads": wanted, "dense": dense, "multi": multi}
    collection, why = read_texts(data, options["what"], source)
    say(why)
    encoder, why = load_encoder(ModelConfig(path=model))
    say(f"{model}: {why}")
    with _progress(as_json):
        written = encode_collection(encoder, collection, output or _vectors_folder(model, data), **options)
    if as_json:
        _print_json(written)
    else:
        print_encoded(out, written)


@app.command()
def search(
    model: Annotated[str, typer.Argument(help="A folder, a Hub id or package:NAME/FOLDER.")],
    data: Annotated[str, typer.Argument(metavar="DATA_OR_VECTORS", help="Data, or a folder that m3tune encode wrote.")],
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="[QUESTION]...", help="Asked for, or read from stdin, if left out.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="dense, sparse, multi, hybrid or rrf; auto: hybrid, or the only head.")
    ] = "auto",
    top: Annotated[int, typer.Option(min=1, help="Passages to show.")] = 10,
    explain: Annotated[bool, typer.Option(help="Show lexical weights as words, where there is a sparse head.")] = True,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Where the vectors of data are kept.", show_default="runs/vectors-MODEL-DATA"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask questions; shows what was found by which head, and which words did it.

    Example: m3tune search runs/demo/model package:m3tune/demo/scifact "Does aspirin prevent cancer?"
    """
    from m3tune.model.weights import load_encoder
    from m3tune.recipe import ModelConfig
    from m3tune.report.terminal import print_answers
    from m3tune.searching import answer, encode_collection, holds_vectors, open_index, read_texts

    _one_of("--head", head, ("auto", "dense", "sparse", "multi", "hybrid", "rrf"))
    say = _say(as_json)
    encoder, why = load_encoder(ModelConfig(path=model))
    say(f"{model}: {why}")
    folder = Path(data)
    if not holds_vectors(folder):
        collection, why = read_texts(data, "passages")
        say(why)
        folder = vectors or _vectors_folder(model, data)
        with _progress(as_json):
            encode_collection(encoder, collection, folder, "passages")
    index = open_index(folder, encoder)
    if questions or not sys.stdin.isatty():
        asked = questions or [line.strip() for line in sys.stdin if line.strip()]
        answers = answer(encoder, index, asked, head, top) if asked else []
        if as_json:
            _print_json([of.as_json() | {"head": of.head} for of in answers])
        for of in () if as_json else answers:
            print_answers(out, of, explain)
        return
    say("ask a question; an empty line ends")
    while question := out.input("? ").strip():
        print_answers(out, answer(encoder, index, [question], head, top)[0], explain)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="The evaluation directory to compare with.")],
    tuned: Annotated[Path, typer.Argument(help="The evaluation directory that should be better.")],
    data: Annotated[str, typer.Option("--data", help="The data both were measured on.")],
    head: Annotated[
        str, typer.Option(help="The head of both, or BASE:TUNED such as dense:hybrid; auto: hybrid, or the only head.")
    ] = "auto",
    overrides: Sets = None,
    as_json: Json = False,
) -> None:
    """Compare two evaluations query by query: difference, interval, p-value, verdict.

    Example: m3tune compare runs/old runs/new --data questions.json
    """
    from dataclasses import asdict

    from m3tune.data.read import read_collection
    from m3tune.data.similar import find_similar
    from m3tune.evaluation.compare import verdict
    from m3tune.evaluation.measure import deciding_head
    from m3tune.evaluation.store import load_evaluation, measured_heads
    from m3tune.pipeline import compare_evaluations
    from m3tune.recipe import build_recipe
    from m3tune.report.terminal import print_comparison

    config = build_recipe({"data": {"path": data}, "model": {"path": "-"}}, overrides or [], where="--set").evaluate
    collection, _ = read_collection(data)
    first_head, _, second_head = head.partition(":")
    choices = zip((base, tuned), (first_head, second_head or first_head), strict=True)
    first, second = (
        load_evaluation(at, deciding_head("auto", measured_heads(at)) if of == "auto" else of) for at, of in choices
    )
    shared = tuple(metric for metric in first.per_query if metric in second.per_query)
    config = config.model_copy(update={"metrics": shared})
    comparison = compare_evaluations(first, second, collection, config, find_similar(collection))
    word = verdict(comparison, config.no_worse_margin)
    if as_json:
        _print_json({"verdict": word, "metrics": [asdict(item) for item in comparison.metrics]})
    else:
        print_comparison(out, comparison)
        out.print(f"verdict: {word}")
    raise typer.Exit(FINE if word == "better" else NOT_GOOD_ENOUGH)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run directory.")],
    as_json: Json = False,
) -> None:
    """Write the HTML report of a run again, and print its verdict.

    Example: m3tune report runs/demo
    """
    from m3tune.artifact import read_json
    from m3tune.report.html import write_report
    from m3tune.report.terminal import print_verdict

    file = write_report(run_folder)
    if as_json:
        _print_json(read_json(file.with_suffix(".json")))
    else:
        print_verdict(out, run_folder)


def _vectors_folder(model: str, data: str) -> Path:
    """Where vectors are kept when no folder is named: the same for encode and search."""
    return Path("runs") / f"vectors-{Path(model).name}-{Path(data).stem}"


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    from m3tune.errors import RecipeError

    if value not in known:
        raise RecipeError(f"{value!r} is none of {', '.join(known)}", where=option, fix="name one of them")


def _run(recipe: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from m3tune import pipeline
    from m3tune.report.terminal import print_verdict

    with _progress(as_json):
        result = pipeline.run(recipe, _say(as_json))
    if as_json:
        _print_json(asdict(result))
    else:
        print_verdict(out, Path(recipe.output).expanduser())
    raise typer.Exit(FINE if result.verdict == "better" else NOT_GOOD_ENOUGH)


def _say(as_json: bool) -> Any:
    def say(text: str) -> None:
        if not as_json:
            err.print(text, markup=False, highlight=False, soft_wrap=True)

    return say


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[None]:
    from m3tune.progress import shown

    with contextlib.nullcontext() if as_json else shown(err):
        yield


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def _explain_machine(error: Exception) -> str | None:
    """A sentence for the errors of a machine that a person can mend, None for others."""
    where = getattr(error, "filename", None) or "the disk"
    number = getattr(error, "errno", None)
    # safetensors and torch.save speak of a full disk in words of their own.
    if number == errno.ENOSPC or "(os error 28)" in str(error) or "inline_container" in str(error):
        free = shutil.disk_usage(Path.cwd()).free / 2**30
        return f"{where}: no space left on the disk ({free:.1f} GiB free here)\nfix: free space, or set another --out"
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{where}: no permission to read or write\nfix: check who owns it, or set another --out"
    return None


def main() -> None:
    """The entry point: every error leaves with a message and the right exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except M3TuneError as error:
        _fail(str(error))
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # typer's translation of Ctrl-C
            err.print("interrupted; run the same command again to go on from where it stopped", style="yellow")
        raise
    except Exception as error:
        explained = _explain_machine(error)
        if explained:
            _fail(explained)
        traceback.print_exc()
        err.print(f"this is a bug in m3tune {__version__}; please report it with the lines above", style="red")
        sys.exit(BUG)


def _fail(message: str) -> NoReturn:
    err.print(f"error: {message}", markup=False, highlight=False, style="red", soft_wrap=True)
    sys.exit(USER_ERROR)
