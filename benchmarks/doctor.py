"""What the doctor says first of six runs: three healthy ones, and SciFact made to go wrong in three known ways.

python benchmarks/doctor.py --max-tokens 64 --drcd FILE --rows FOLDER [--only high-rate ...] [--queries 60 --passages 300] [--set train.epochs=1 ...]

healthy: SciFact by the default recipe; a LlamaIndex file with a small random XLM-R (--drcd: DRCD's, or any other); a folder
of FlagEmbedding rows (--rows: its example data). ill: SciFact at a learning rate of 1e-3; with the labels of its training
queries dealt out anew; with two false negatives a training query, the halves of its own abstract, and two true ones. --queries
and --passages cut SciFact down to try the script, --max-tokens every text. Prints every finding of a run as it ends, and a table
of all runs. An ill run has to leave the doctor with exit code 1, have its cause named first, and deliver nothing worse. Ends with
exit code 1 where a healthy run is not silent, notes aside, or an ill one is not as it has to be.
"""  # noqa: E501

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from m3tune import pipeline
from m3tune.artifact import MANIFEST, StageKey, read_json, writing
from m3tune.data.collection import Collection
from m3tune.data.prepared import FINDINGS, STAGE, load_prepared, save_prepared
from m3tune.data.read import read_collection
from m3tune.data.similar import find_similar
from m3tune.diagnose.doctor.reading import read_run
from m3tune.diagnose.doctor.registry import case_findings
from m3tune.preparation import prepare
from m3tune.progress import shown
from m3tune.recipe import load_recipe
from m3tune.starter import DEMO, recipe_file
from m3tune.types import Negative, Passage, Split

HEADINGS = ("run", "verdict", "delivered", "exit code", "first", "should be", "time")

Change = Callable[[Collection, Split, np.random.Generator], Collection]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--drcd", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--passages", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--sample", type=int, default=256)
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    overrides = list(arguments.overrides)
    if arguments.max_tokens:
        overrides = [f"model.{side}_max_tokens={arguments.max_tokens}" for side in ("query", "passage")] + overrides
    with tempfile.TemporaryDirectory() as folder, shown(Console(stderr=True)):
        place, rows = Path(folder), []
        for name, expected, data_and_settings in runs(place, arguments):
            began = time.monotonic()
            finished = run(place, name, *data_and_settings, overrides)
            rows.append((*told(finished, name, expected, arguments.sample), f"{time.monotonic() - began:.0f} s"))
    print()
    for right, *cells in [(True, *HEADINGS), *rows]:
        print("  ".join(f"{cell!s:12}" for cell in cells) + ("" if right else "  WRONG"))
    sys.exit(not all(right for right, *_ in rows))


def runs(place: Path, arguments: argparse.Namespace):
    """(name, the code that should stand first or None, (data, recipe, settings)) of each run that was asked for."""
    demo = place / "scifact"
    wanted = set(arguments.only)

    def asked(name: str) -> bool:
        return not wanted or name in wanted

    if any(asked(name) for name in ("scifact", "high-rate", "shuffled", "half-false")):
        prepare_scifact(demo, arguments.queries, arguments.passages)
    minilm = [f"model.path={DEMO['model.path']}"]
    if asked("scifact"):
        yield "scifact", None, (demo, "default", minilm)
    if asked("drcd") and arguments.drcd:
        encoder = random_encoder(place / "xlmr", read_collection(str(arguments.drcd))[0])
        yield "drcd", None, (arguments.drcd, "llamaindex", [f"model.path={encoder}", "train.learning_rate=5e-4"])
    if asked("rows") and arguments.rows:
        yield "rows", None, (arguments.rows, "flagembedding", minilm)
    if asked("high-rate"):
        yield "high-rate", "high-learning-rate", (demo, "default", [*minilm, "train.learning_rate=1e-3"])
    if asked("shuffled"):
        yield "shuffled", "shuffled-labels", (changed(demo, place / "dealt", dealt), "default", minilm)
    if asked("half-false"):
        false = changed(demo, place / "false", half_false)
        given_alone = ["mine=false", "train.negatives_per_query=4"]
        yield "half-false", "false-negatives", (false, "default", [*minilm, *given_alone])


def run(place: Path, name: str, data: Path, recipe: str, settings: list[str], overrides: list[str]) -> Path:
    folder = place / f"run-{name}"
    given = [f"data.path={data}", f"output={folder}", *settings, *overrides]
    pipeline.run(load_recipe(recipe_file(recipe), given), print)
    return folder


def told(folder: Path, name: str, expected: str | None, sample: int) -> tuple[bool, str, str, str, int, str, str]:
    """Print what the doctor says of a run; whether that is what it should say, and the cells of the table."""
    case = read_run(folder, sample)
    findings = case_findings(case)
    severe = [finding for finding in findings if finding.severity != "note"]
    first = severe[0].code if severe else None
    verdict = case.verdict
    moved = f"{verdict['base']:.3f} -> {verdict['tuned']:.3f}"
    print(f"\n{name}: {verdict['verdict']}, {moved}, {verdict['delivered']} delivered")
    if case.moved:
        print(
            f"  weights moved by {case.moved.weights:.2%}, cosine of a query before and after {case.moved.cosine:.3f}"
        )
    for finding in findings:
        print(f"  {finding.severity:8}{finding.code:24}{finding.what}")
    spared = expected is None or verdict["delivered"] != "tuned" or verdict["verdict"] == "better"
    right = first == expected and spared
    print(f"  first: {first}; should be: {expected}; {'right' if right else 'WRONG'}", flush=True)
    return right, name, verdict["verdict"], verdict["delivered"], int(bool(severe)), str(first), str(expected)


def prepare_scifact(place: Path, queries: int | None, passages: int | None) -> None:
    """SciFact as every run of it takes it, cut down where it is to be."""
    config = load_recipe(recipe_file("default"), [f"{key}={value}" for key, value in DEMO.items()]).data
    whole = place.with_name("whole")
    prepare(config, whole, print)
    if queries is None and passages is None:
        shutil.copytree(whole, place)
    else:
        changed(
            whole, place, lambda collection, split, _: cut_down(collection, split, queries or 10**9, passages or 10**9)
        )


def cut_down(collection: Collection, split: Split, queries: int, passages: int) -> Collection:
    """Some of the queries of each side, their passages, and others up to a number."""
    kept = {q for side in (split.train, split.dev, split.test) for q in side[:queries]}
    judgments = tuple(pair for pair in collection.judgments if pair.query_id in kept)
    needed = dict.fromkeys(pair.passage_id for pair in judgments)
    needed |= dict.fromkeys([p for p in collection.passages if p not in needed][: max(0, passages - len(needed))])
    return replace(
        collection,
        queries={q: query for q, query in collection.queries.items() if q in kept},
        passages={p: passage for p, passage in collection.passages.items() if p in needed},
        judgments=judgments,
        splits={},
    )


def changed(source: Path, target: Path, change: Change) -> Path:
    """Prepared data with another collection and the same split, as far as its queries are still there."""
    prepared = load_prepared(source)
    collection = change(prepared.collection, prepared.split, np.random.default_rng(0))
    sides = {
        side: tuple(q for q in getattr(prepared.split, side) if q in collection.queries)
        for side in ("train", "dev", "test")
    }
    with writing(target, StageKey(STAGE, {"changed": target.name}, {"data": collection.fingerprint})) as (
        partial,
        counts,
    ):
        save_prepared(partial, collection, find_similar(collection), replace(prepared.split, **sides))
        shutil.copyfile(source / FINDINGS, partial / FINDINGS)
        counts |= read_json(source / MANIFEST)["counts"] | {"passages": len(collection.passages)}
    return target


def dealt(collection: Collection, split: Split, generator: np.random.Generator) -> Collection:
    """Every training query with the positives of another."""
    train = split.train
    other = dict(zip(train, (train[i] for i in generator.permutation(len(train))), strict=True))
    back = {there: here for here, there in other.items()}
    judgments = tuple(pair._replace(query_id=back.get(pair.query_id, pair.query_id)) for pair in collection.judgments)
    return replace(collection, judgments=judgments, splits={})


def half_false(collection: Collection, split: Split, generator: np.random.Generator) -> Collection:
    """Two negatives a training query that are the halves of its first positive, and two drawn at random."""
    passages, negatives = dict(collection.passages), []
    ids = list(collection.passages)
    for query_id in split.train:
        positive = collection.passages[collection.positives[query_id][0]]
        sentences = positive.text.split(". ")
        for number in range(2):
            id_ = f"{positive.id}-half-{number}"
            passages[id_] = Passage(id_, ". ".join(sentences[number::2]), positive.title)
            negatives.append(Negative(query_id, id_))
        drawn = [ids[i] for i in generator.integers(0, len(ids), 8)]
        negatives += [Negative(query_id, p) for p in drawn if p not in collection.positives[query_id]][:2]
    return replace(collection, passages=passages, negatives=tuple(negatives), splits={})


def random_encoder(folder: Path, collection: Collection) -> Path:
    """A small XLM-R that has learned nothing, with a vocabulary of the collection's characters."""
    specials = ("<s>", "<pad>", "</s>", "<unk>")
    texts = [record.text for record in (*collection.queries.values(), *collection.passages.values())]
    vocabulary = {token: i for i, token in enumerate([*specials, *sorted(set("".join(texts)))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")]
    )
    names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **names).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=258, type_vocab_size=1, pad_token_id=1,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
