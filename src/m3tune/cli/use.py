"""Use a model: vectors to disk, questions against them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from m3tune.cli import console
from m3tune.cli.options import Columns, Json, Source, one_of
from m3tune.errors import RecipeError


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
    source: Source = "auto",
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Write vectors of any heads to disk; goes on where it was cut off.

    Example: m3tune encode runs/demo/model questions.json --out vectors
    """
    from m3tune.config import ModelConfig
    from m3tune.data.columns import parse_columns
    from m3tune.encoding import encode_collection, read_texts
    from m3tune.model.weights import load_encoder
    from m3tune.report.terminal import print_encoded

    one_of("--what", what, ("both", "passages", "queries"))
    for option, storage in (("--dense", dense), ("--multi", multi)):
        one_of(option, storage, ("float32", "float16"))
    wanted = [part.strip() for part in heads.split(",")] if heads else None
    for head in wanted or ():
        one_of("--heads", head, ("dense", "sparse", "multi"))
    say = console.say_unless(as_json)
    options: Any = {"what": what, "heads": wanted, "dense": dense, "multi": multi}
    collection, why = read_texts(data, options["what"], source, parse_columns(columns or []))
    say(why)
    encoder, why = load_encoder(ModelConfig(path=model))
    say(f"{model}: {why}")
    with console.progress(as_json):
        written = encode_collection(encoder, collection, output or _vectors_folder(model, data), **options)
    if as_json:
        console.print_json(written)
    else:
        print_encoded(console.out, written)


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
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search dense vectors by a FAISS index, kept beside them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask questions; shows what was found by which head, and which words did it.

    Example: m3tune search runs/demo/model package:m3tune/demo/scifact "Does aspirin prevent cancer?"
    """
    from m3tune.config import ModelConfig
    from m3tune.encoding import encode_collection, holds_vectors, read_texts
    from m3tune.model.weights import load_encoder
    from m3tune.report.terminal import print_answers
    from m3tune.searching import answer, open_index

    one_of("--head", head, ("auto", "dense", "sparse", "multi", "hybrid", "rrf"))
    if not all(question.strip() for question in questions or ()):
        raise RecipeError("a question is empty", where="QUESTION", fix="ask something, or leave it out to be asked")
    say = console.say_unless(as_json)
    encoder, why = load_encoder(ModelConfig(path=model))
    say(f"{model}: {why}")
    folder = Path(data)
    if not holds_vectors(folder):
        collection, why = read_texts(data, "passages")
        say(why)
        folder = vectors or _vectors_folder(model, data)
        with console.progress(as_json):
            encode_collection(encoder, collection, folder, "passages")
    with console.progress(as_json):
        index = open_index(folder, encoder, approximate=approximate)
    if questions or not sys.stdin.isatty():
        asked = questions or [line.strip() for line in sys.stdin if line.strip()]
        answers = answer(encoder, index, asked, head, top) if asked else []
        if as_json:
            console.print_json([of.as_json() | {"head": of.head} for of in answers])
        for of in () if as_json else answers:
            print_answers(console.out, of, explain)
        return
    say("ask a question; an empty line ends")
    while question := console.out.input("? ").strip():
        print_answers(console.out, answer(encoder, index, [question], head, top)[0], explain)


def _vectors_folder(model: str, data: str) -> Path:
    """Where vectors are kept when no folder is named: the same for encode and search."""
    return Path("runs") / f"vectors-{Path(model).name}-{Path(data).stem}"
