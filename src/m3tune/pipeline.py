"""The stages in order: files in, a judged retriever out. A library user starts here; the command line only calls this.

    prepare -> measure_words -> measure_base -> tune -> measure_tuned -> judge -> deliver -> report

Each stage is a function of the run folder, the recipe and what came before, and fills one directory of the run:

    resolved.toml the recipe with every key
    data/         the collection, its near-duplicates and the split
    base/         the untuned encoder on the test queries; base/dev on the development corpus
    bm25/         the baseline without a model
    train/        the log, the best checkpoint (train/model) and how it was chosen (selection.json)
    tuned/        the chosen encoder on the test queries
    verdict.json  the contract for programs; comparison.json has every metric
    model/        what is delivered: loads in m3tune, sentence-transformers and transformers
    report.html   the same for people
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3tune import __version__
from m3tune.artifact import StageKey, fingerprint, is_complete, read_json, write_json, writing
from m3tune.data.collection import Collection
from m3tune.data.prepared import Prepared
from m3tune.data.similar import Similar
from m3tune.evaluation.compare import Comparison, compare, document_groups, verdict
from m3tune.evaluation.measure import DevCorpus, Measured, dev_corpus, measure_bm25, measure_encoder
from m3tune.evaluation.metrics import mean, parse_metrics
from m3tune.evaluation.store import Evaluation, load_evaluations, save_evaluations
from m3tune.model.encoder import Encoder
from m3tune.model.weights import load_encoder, model_fingerprint, save_encoder
from m3tune.preparation import Say, prepare
from m3tune.recipe import EvaluateConfig, ModelConfig, Recipe, to_toml
from m3tune.report.html import write_report
from m3tune.training.train import train


@dataclass(frozen=True)
class Verdict:
    """verdict.json: whether the tuned model is better, and what was delivered."""

    metric: str
    base: float
    tuned: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    queries: int
    verdict: str
    delivered: str
    checkpoint: int


def silent(_: str) -> None:
    """The `say` of a caller who wants to hear nothing."""


def run(recipe: Recipe, say: Say = silent) -> Verdict:
    """Every stage of `recipe`, skipping what is up to date and going on with what was cut off."""
    parse_metrics((*recipe.evaluate.metrics, recipe.evaluate.main_metric))
    folder = Path(recipe.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolved.toml").write_text(to_toml(recipe), encoding="utf-8")
    prepared = prepare(recipe.data, folder / "data", say)
    measure_words(folder, recipe, prepared)
    measure_base(folder, recipe, prepared, say)
    tune(folder, recipe, prepared, say)
    measure_tuned(folder, recipe, prepared, say)
    result = judge(folder, recipe, prepared)
    deliver(folder, recipe, result)
    write_report(folder)
    return result


def measure_words(folder: Path, recipe: Recipe, prepared: Prepared) -> None:
    """BM25 on the test queries, and on the development queries for the development corpus."""
    if not recipe.evaluate.bm25:
        return
    key = StageKey("bm25", recipe.evaluate.measuring(), {"data": prepared.fingerprint})
    if is_complete(folder / "bm25", key):
        return
    split = prepared.split
    with writing(folder / "bm25", key) as (partial, _):
        measured = measure_bm25(prepared.collection, {"test": split.test, "dev": split.dev}, recipe.evaluate)
        save_evaluations(partial, [measured["test"]])
        save_evaluations(partial / "dev", [measured["dev"]])


def measure_base(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """The untuned encoder on the test queries, and the development corpus that training is watched on."""
    config = recipe.evaluate.measuring() | {"precision": recipe.train.precision, "bm25": recipe.evaluate.bm25}
    key = _model_key("base", recipe, prepared, config)
    if is_complete(folder / "base", key):
        return
    collection, split = prepared.collection, prepared.split
    encoder, why = load_encoder(recipe.model)
    say(f"{recipe.model.path}: {why}")
    with writing(folder / "base", key) as (partial, counts):
        sets = {"test": split.test, "dev": split.dev}
        measured = _measure(encoder, "base", recipe, prepared, tuple(collection.passages), sets)
        words = load_evaluations(folder / "bm25" / "dev") if recipe.evaluate.bm25 else []
        corpus = dev_corpus(collection, split.dev, [measured.evaluations["dev"], *words], recipe.data.dev_depth)
        save_evaluations(partial, [measured.evaluations["test"]])
        save_evaluations(partial / "dev", [measured.on_subset("dev", split.dev, corpus)])
        write_json(partial / "dev_corpus.json", list(corpus))
        write_json(partial / "settings.json", asdict(encoder.settings))
        counts |= {**measured.counts, "dev_passages": len(corpus)}


def tune(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """Train, choose the checkpoint on development data, and save it."""
    metric = recipe.evaluate.main_metric
    corpus: DevCorpus = tuple(read_json(folder / "base" / "dev_corpus.json"))
    config = {"train": recipe.train.model_dump(), "metric": metric, "dev_corpus": fingerprint(corpus)}
    key = _model_key("train", recipe, prepared, config)
    if is_complete(folder / "train", key):
        return
    base_metric = mean(load_evaluations(folder / "base" / "dev")[0].per_query)[metric]
    encoder, _ = load_encoder(recipe.model)

    def evaluate_dev(current: Encoder) -> Mapping[str, float]:
        measured = _measure(current, "dev", recipe, prepared, corpus, {"dev": prepared.split.dev})
        return mean(measured.evaluations["dev"].per_query)

    with writing(folder / "train", key, keep_partial=True) as (partial, counts):
        result = train(
            encoder,
            prepared.collection,
            prepared.similar,
            prepared.split.train,
            recipe.train,
            metric,
            evaluate_dev,
            partial,
            say,
        )
        save_encoder(encoder, partial / "model")
        chosen = "tuned" if result.best_metric > base_metric else "base"
        selection = {"chosen": chosen, "metric": metric, "base": base_metric, "tuned": result.best_metric}
        write_json(partial / "selection.json", selection | {"checkpoint": result.best_step, "steps": result.steps})
        counts |= result.counts
        for checkpoint in partial.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    say(f"dev {metric}: base {base_metric:.4f}, best checkpoint (step {result.best_step}) {result.best_metric:.4f}")


def measure_tuned(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """What development data chose, measured once on the test queries; the base is not measured twice."""
    selection = read_json(folder / "train" / "selection.json")
    inputs = {"train": read_json(folder / "train" / "manifest.json")["fingerprint"]}
    key = StageKey("tuned", recipe.evaluate.measuring(), inputs)
    if is_complete(folder / "tuned", key):
        return
    with writing(folder / "tuned", key) as (partial, counts):
        if selection["chosen"] == "base":
            say("no checkpoint beat the base on development data")
            save_evaluations(partial, load_evaluations(folder / "base"))
            return
        encoder, _ = load_encoder(_tuned_model(folder, recipe))
        passages = tuple(prepared.collection.passages)
        measured = _measure(encoder, "tuned", recipe, prepared, passages, {"test": prepared.split.test})
        save_evaluations(partial, [measured.evaluations["test"]])
        counts |= measured.counts


def judge(folder: Path, recipe: Recipe, prepared: Prepared) -> Verdict:
    """Compare the chosen model with the base and say what follows; writes comparison.json and verdict.json."""
    selection = read_json(folder / "train" / "selection.json")
    base, tuned = load_evaluations(folder / "base")[0], load_evaluations(folder / "tuned")[0]
    comparison = compare_evaluations(base, tuned, prepared.collection, recipe.evaluate, prepared.similar)
    word = verdict(comparison, recipe.evaluate.no_worse_margin)
    delivered = "base" if selection["chosen"] == "base" or word == "worse" else "tuned"
    main = comparison.main
    result = Verdict(
        metric=main.metric,
        base=round(main.base, 6),
        tuned=round(main.tuned, 6),
        difference=round(main.difference, 6),
        ci95=(round(main.ci95[0], 6), round(main.ci95[1], 6)),
        p_value=main.p_value,
        queries=main.queries,
        verdict=word,
        delivered=delivered,
        checkpoint=selection["checkpoint"],
    )
    write_json(folder / "comparison.json", [asdict(item) for item in comparison.metrics])
    write_json(folder / "verdict.json", asdict(result))
    return result


def compare_evaluations(
    base: Evaluation, tuned: Evaluation, collection: Collection, config: EvaluateConfig, similar: Similar
) -> Comparison:
    """Two evaluations over the same queries of `collection`, clustered by relevant passages that they share."""
    qrels = collection.qrels(next(iter(base.per_query.values())))
    return compare(base.per_query, tuned.per_query, document_groups(qrels, similar.passages), config)


def deliver(folder: Path, recipe: Recipe, result: Verdict) -> None:
    """Put the delivered model into model/."""
    inputs = {"train": read_json(folder / "train" / "manifest.json")["fingerprint"], "delivered": result.delivered}
    key = StageKey("model", {}, inputs)
    if is_complete(folder / "model", key):
        return
    encoder, _ = load_encoder(_tuned_model(folder, recipe) if result.delivered == "tuned" else recipe.model)
    with writing(folder / "model", key) as (partial, _):
        save_encoder(encoder, partial)


def evaluate(
    model: ModelConfig,
    collection: Collection,
    query_ids: Sequence[str],
    config: EvaluateConfig,
    folder: Path,
    name: str,
    say: Say = silent,
) -> list[Evaluation]:
    """One model, and BM25 where `config` says so, over any collection; saved to `folder` and `folder`/bm25."""
    key = StageKey(
        "evaluate",
        {**config.measuring(), "bm25": config.bm25, "model": model.model_dump(), "queries": list(query_ids)},
        {"data": collection.fingerprint, "model": model_fingerprint(model), "m3tune": __version__},
    )
    if not is_complete(folder, key):
        encoder, why = load_encoder(model)
        say(f"{model.path}: {why}")
        with writing(folder, key) as (partial, counts):
            measured = measure_encoder(
                encoder, name, collection, list(collection.passages), {"all": query_ids}, config, "auto"
            )
            save_evaluations(partial, [measured.evaluations["all"]])
            if config.bm25:
                save_evaluations(partial / "bm25", [measure_bm25(collection, {"all": query_ids}, config)["all"]])
            counts |= measured.counts
    evaluations = load_evaluations(folder)
    return [*evaluations, *load_evaluations(folder / "bm25")] if config.bm25 else evaluations


def _tuned_model(folder: Path, recipe: Recipe) -> ModelConfig:
    """The chosen checkpoint; its folder holds the settings, prompts and limits it was trained with."""
    path = str(folder.resolve() / "train" / "model")
    return ModelConfig(path=path, trust_remote_code=recipe.model.trust_remote_code)


def _measure(
    encoder: Encoder,
    name: str,
    recipe: Recipe,
    prepared: Prepared,
    passage_ids: Sequence[str],
    query_sets: Mapping[str, Sequence[str]],
) -> Measured:
    return measure_encoder(
        encoder, name, prepared.collection, passage_ids, query_sets, recipe.evaluate, recipe.train.precision
    )


def _model_key(stage: str, recipe: Recipe, prepared: Prepared, config: Mapping[str, Any]) -> StageKey:
    return StageKey(
        stage,
        {"model": recipe.model.model_dump(), **config},
        {"data": prepared.fingerprint, "model": model_fingerprint(recipe.model), "m3tune": __version__},
    )
