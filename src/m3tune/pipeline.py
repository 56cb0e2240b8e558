"""The stages in order: files in, a judged retriever out. A library user starts here; the command line only calls this.

    prepare -> measure_words -> measure_base -> find_settings, where the recipe searches -> mine and tune, in rounds
    where the recipe says so -> select -> measure_tuned -> judge -> deliver -> report

Each stage is a function of the run folder, the recipe and what came before, and fills one directory of the run:

    resolved.toml the recipe with every key
    data/         the collection, its near-duplicates and the split
    base/         the untuned encoder on the test queries, by every head; base/dev on the development corpus
    bm25/         the baseline without a model
    negatives/    candidates, which of them are negatives and why, where the recipe mines; negatives.html
    search/       where the recipe searches for settings: every trial, what was chosen (chosen.toml) and why
    train/        the log, the best checkpoint (train/model) and how good it is (selection.json)
    rounds/       the two before for each round of mining and training, where there are several; the best stands above
    select/       what was chosen between the base, that checkpoint and merges of the two (selection.json), and why
    tuned/        the chosen encoder on the test queries
    verdict.json  the contract for programs; comparison.json has every metric, heads.json the heads of a model that has
                  several against each other; hybrid.json in base/ and select/*/ how the hybrid's weights were tuned
    tokens/       every text's tokens until the run is done, and vectors/ passages' vectors while they are measured,
                  where they do not fit in memory
    model/        what is delivered: loads in m3tune, sentence-transformers and transformers
    run.json      what the run depended on and where it was made: fingerprints, versions, machine, precision
    errors.json   which queries gained and lost, where rankers disagree, what may be behind the worst losses
    report.html   the same for people
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from m3tune import __version__, retaining, selecting
from m3tune.artifact import MANIFEST, StageKey, fingerprint, is_complete, read_json, write_json, writing
from m3tune.config import EvaluateConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import Prepared
from m3tune.data.similar import Similar
from m3tune.data.token_store import tokens_kept
from m3tune.errors import RecipeError
from m3tune.evaluation.compare import Comparison, compare, document_groups, verdict
from m3tune.evaluation.measure import (
    DevCorpus,
    Measured,
    Searched,
    deciding_head,
    dev_corpus,
    measure_bm25,
    measure_encoder,
)
from m3tune.evaluation.metrics import mean, parse_metrics
from m3tune.evaluation.select import BASE, LAST
from m3tune.evaluation.store import HOW, Evaluation, load_evaluation, load_evaluations, save_evaluations
from m3tune.evaluation.weights import tune_weights
from m3tune.mining import check_use, without_new_heads
from m3tune.model.encoder import Encoder
from m3tune.model.merge import interpolate
from m3tune.model.settings import M3_WEIGHTS
from m3tune.model.weights import load_encoder, model_fingerprint, save_encoder
from m3tune.optimizing.stage import check_search, search_settings
from m3tune.preparation import Say, check_sides, prepare, silent
from m3tune.processes import alone_in
from m3tune.recipe import to_toml
from m3tune.record import record_run
from m3tune.report import words
from m3tune.report.gather import HEADS, WEIGHTS
from m3tune.report.html import write_report
from m3tune.rounds import mine_and_tune, mine_first, tuned_model
from m3tune.training.sets import training_sets
from m3tune.tuning import OnDev, recipe_weights, tune_on_dev
from m3tune.types import HYBRID, RRF, Head


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
    head: str = "dense"


def run(recipe: Recipe, say: Say = silent) -> Verdict:
    """Every stage of `recipe`, skipping what is up to date and going on with what was cut off."""
    parse_metrics((*recipe.evaluate.metrics, recipe.evaluate.main_metric))
    check_use(recipe)
    check_search(recipe)
    folder = Path(recipe.output).expanduser()
    with alone_in(folder):
        return _run_stages(folder, recipe, say)


def _run_stages(folder: Path, recipe: Recipe, say: Say) -> Verdict:
    (folder / "resolved.toml").write_text(to_toml(recipe), encoding="utf-8")
    prepared = prepare(recipe.data, folder / "data", say)
    check_sides(prepared.split)
    training_sets(prepared.collection, prepared.split.train, recipe.train)  # a wrong name shows now, not after an hour
    if retaining.names_data(recipe.select) and not (folder / "select").is_dir():
        retaining.named_ground(recipe.select, recipe.data.seed, silent)  # and so does a mistake in this data
    with tokens_kept(folder / "tokens"):
        measure_words(folder, recipe, prepared)
        measure_base(folder, recipe, prepared, say)
        recipe = find_settings(folder, recipe, prepared, say)
        mine_and_tune(folder, recipe, prepared, tune, say)
        select(folder, recipe, prepared, say)
        measure_tuned(folder, recipe, prepared, say)
    result = judge(folder, recipe, prepared)
    deliver(folder, recipe, result)
    record_run(folder, recipe)
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
    choice = {"head": recipe.evaluate.head, "tune_weights": recipe.evaluate.tune_weights}
    config = recipe.evaluate.measuring() | choice | {"precision": recipe.train.precision, "bm25": recipe.evaluate.bm25}
    config |= {"dev_depth": recipe.data.dev_depth, "hybrid_weights": recipe.train.hybrid_weights}
    key = _model_key("base", recipe, prepared, config)
    if is_complete(folder / "base", key):
        return
    collection, split = prepared.collection, prepared.split
    encoder, why = load_encoder(without_new_heads(recipe.model))
    say(f"{recipe.model.path}: {why}")
    head = _head_of_base(recipe, encoder)
    with writing(folder / "base", key) as (partial, counts), _vectors(folder, "base") as place:
        sets = {"test": split.test, "dev": split.dev}
        measured = _measure(encoder, "base", recipe, prepared, tuple(collection.passages), sets, place=place)
        weights = _default_weights(encoder, recipe)
        runs = [measured.searched["dev"].run(head, weights)]
        if recipe.evaluate.bm25:
            runs.append(load_evaluation(folder / "bm25" / "dev", "bm25").run)
        corpus = dev_corpus(collection, split.dev, runs, recipe.data.dev_depth)
        on_dev = measured.on_subset("dev", corpus)
        weights = _tuned_weights(on_dev, recipe, weights, partial)
        save_evaluations(partial, measured.searched["test"].evaluations(weights), measured.searched["test"].found.how)
        save_evaluations(partial / "dev", on_dev.evaluations(weights), on_dev.found.how)
        write_json(partial / "dev_corpus.json", list(corpus))
        write_json(partial / "settings.json", asdict(encoder.settings))
        counts |= {**measured.counts, "dev_passages": len(corpus)}


def find_settings(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> Recipe:
    """The recipe as a search on development data leaves it, where it asks for one; resolved.toml becomes that.

    Trials train on the negatives of the first round of mining, where the recipe mines.
    """
    if recipe.search.minutes is None:
        if (folder / "search").is_dir():
            say("search/ has settings found for an earlier run: without --search the recipe's own are used")
        return recipe
    prepared = mine_first(folder, recipe, prepared, say)
    corpus: DevCorpus = tuple(read_json(folder / "base" / "dev_corpus.json"))
    tried = {"search": recipe.search.model_dump(exclude={"minutes"}), "noise": recipe.select.noise}
    tried |= recipe.evaluate.model_dump(include={"resamples", "seed"})
    key = _model_key("search", recipe, prepared, _training(recipe, corpus) | tried)
    # Without the test queries: what is not there, nobody looks at.
    without_test = replace(prepared, split=replace(prepared.split, test=()))
    with _vectors(folder, "search") as place:
        found = search_settings(folder / "search", OnDev(recipe, without_test, corpus, place), key, say)
    (folder / "resolved.toml").write_text(to_toml(found), encoding="utf-8")
    return found


def tune(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent, into: Path | None = None) -> None:
    """Train, and save the checkpoint that is best on development data, with the hybrid's weights tuned there.

    Where `select.rule` is "last" it is the last step's. To the run's folder, or to that of one of its rounds.
    """
    directory = (into or folder) / "train"
    metric = recipe.evaluate.main_metric
    corpus: DevCorpus = tuple(read_json(folder / "base" / "dev_corpus.json"))
    key = _model_key("train", recipe, prepared, _training(recipe, corpus))
    if is_complete(directory, key):
        return
    encoder, _ = load_encoder(recipe.model)
    head = deciding_head(recipe.evaluate.head, encoder.settings.heads)
    base_head = deciding_head(recipe.evaluate.head, read_json(folder / "base" / "settings.json")["heads"])
    base_metric = mean(load_evaluation(folder / "base" / "dev", base_head).per_query)[metric]
    with writing(directory, key, keep_partial=True) as (partial, counts), _vectors(folder, "dev") as place:
        on_dev = OnDev(recipe, prepared, corpus, place)
        result = tune_on_dev(encoder, on_dev, partial, say)
        tuned_metric = result.best_metric
        if len(encoder.settings.heads) > 1:
            searched = on_dev.search(encoder)
            weights = _tuned_weights(searched, recipe, recipe_weights(recipe), partial)
            encoder.settings = replace(encoder.settings, hybrid_weights=weights)
            tuned_metric = mean(searched.evaluation(head, weights).per_query)[metric]
        save_encoder(encoder, partial / "model")
        selection = {"metric": metric, "base": base_metric, "tuned": tuned_metric}
        selection |= {"head": head, "base_head": base_head, "best_checkpoint": result.best_metric}
        write_json(partial / "selection.json", selection | {"checkpoint": result.best_step, "steps": result.steps})
        counts |= {**result.counts, "memory": result.memory}
        for checkpoint in partial.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    which = "last" if recipe.select.rule == LAST else "best"
    say(
        f"dev {metric}: base {base_metric:.4f} ({base_head}), {which} checkpoint (step {result.best_step}) "
        f"{tuned_metric:.4f} ({head})"
    )


def select(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """Choose between the base, the best checkpoint and merges of the two, by the rule of evaluation/select.py."""
    trained = read_json(folder / "train" / "selection.json")
    rule = recipe.select.model_dump() | recipe.evaluate.measuring()
    rule |= recipe.evaluate.model_dump(include={"resamples", "seed"})
    inputs = {"retention": retaining.retention_fingerprint(recipe.select)}
    key = StageKey("select", rule, inputs | _fingerprint_of(folder, "train"))
    if is_complete(folder / "select", key):
        return
    base, _ = load_encoder(without_new_heads(recipe.model))
    default, dev = recipe_weights(recipe), prepared.split.dev
    base.settings = replace(base.settings, hybrid_weights=_weights_of_base(folder, base) or default)
    tuned, _ = load_encoder(tuned_model(folder, recipe))
    with writing(folder / "select", key, keep_partial=True) as (partial, counts), _vectors(folder, "select") as place:
        base_head = trained["base_head"]
        contest = selecting.Contest(
            recipe,
            retaining.Ground("dev", prepared.collection, dev, tuple(read_json(folder / "base" / "dev_corpus.json"))),
            retaining.retention_of(base, base_head, recipe, prepared, partial, place, say),
            load_evaluation(folder / "base" / "dev", base_head),
            trained["head"],
            lambda searched, at: _tuned_weights(searched, recipe, default, at),
            place,
        )
        rows = selecting.run_contest(base, tuned, contest, partial)
        clusters = document_groups(prepared.collection.qrels(dev), prepared.similar.passages.first)
        selection = trained | selecting.decide(rows, contest, clusters, partial)
        write_json(partial / "selection.json", selection)
        counts |= {"dev_queries": len(dev), "candidates": len(rows)}
    say(selecting.in_words(selection))


def measure_tuned(folder: Path, recipe: Recipe, prepared: Prepared, say: Say = silent) -> None:
    """What development data chose, measured once on the test queries; the base is not measured twice."""
    selection = read_json(folder / "select" / "selection.json")
    key = StageKey("tuned", recipe.evaluate.measuring(), _fingerprint_of(folder, "select"))
    if is_complete(folder / "tuned", key):
        return
    with writing(folder / "tuned", key) as (partial, counts), _vectors(folder, "tuned") as place:
        if selection["chosen"] == BASE:
            say(f"the base is kept: {words.why_base(selection)}")
            save_evaluations(partial, load_evaluations(folder / "base"), read_json(folder / "base" / HOW))
            return
        encoder = _chosen_encoder(folder, recipe)
        passages = tuple(prepared.collection.passages)
        measured = _measure(encoder, "tuned", recipe, prepared, passages, {"test": prepared.split.test}, place=place)
        searched = measured.searched["test"]
        save_evaluations(partial, searched.evaluations(_default_weights(encoder, recipe)), searched.found.how)
        counts |= measured.counts


def judge(folder: Path, recipe: Recipe, prepared: Prepared) -> Verdict:
    """Compare the chosen model with the base and say what follows.

    Writes comparison.json, verdict.json and heads.json.
    """
    selection = read_json(folder / "select" / "selection.json")
    base_head = selection["base_head"]
    head = base_head if selection["chosen"] == BASE else selection["head"]
    base, tuned = load_evaluation(folder / "base", base_head), load_evaluation(folder / "tuned", head)
    comparison = compare_evaluations(base, tuned, prepared.collection, recipe.evaluate, prepared.similar)
    word = verdict(comparison, recipe.evaluate.no_worse_margin)
    delivered = BASE if word == "worse" and recipe.select.rule != LAST else selection["chosen"]
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
        head=head,
    )
    write_json(folder / "comparison.json", [asdict(item) for item in comparison.metrics])
    write_json(folder / HEADS, _compare_heads(folder, recipe, prepared, head))
    write_json(folder / "verdict.json", asdict(result))
    return result


def compare_evaluations(
    base: Evaluation, tuned: Evaluation, collection: Collection, config: EvaluateConfig, similar: Similar
) -> Comparison:
    """Two evaluations over the same queries of `collection`, clustered by relevant passages that they share."""
    qrels = collection.qrels(next(iter(base.per_query.values())))
    return compare(base.per_query, tuned.per_query, document_groups(qrels, similar.passages.first), config)


def deliver(folder: Path, recipe: Recipe, result: Verdict) -> None:
    """Put the delivered model into model/."""
    key = StageKey("model", {}, _fingerprint_of(folder, "select") | {"delivered": result.delivered})
    if is_complete(folder / "model", key):
        return
    if result.delivered == BASE:
        encoder, _ = load_encoder(without_new_heads(recipe.model))
        encoder.settings = replace(encoder.settings, hybrid_weights=_weights_of_base(folder, encoder))
    else:
        encoder = _chosen_encoder(folder, recipe)
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
    """Every head of one model, and BM25 where `config` says so, over any collection; saved to `folder`, `folder`/bm25.

    The hybrid's weights are those that the model was saved with, else M3's.
    """
    key = StageKey(
        "evaluate",
        {**config.measuring(), "bm25": config.bm25, "model": model.model_dump(), "queries": list(query_ids)},
        {"data": collection.fingerprint, "model": model_fingerprint(model), "m3tune": __version__},
    )
    if not is_complete(folder, key):
        encoder, why = load_encoder(model)
        say(f"{model.path}: {why}")
        place = folder.with_name(folder.name + ".vectors")
        tokens = folder.with_name(folder.name + ".tokens")
        with writing(folder, key) as (partial, counts), tokens_kept(tokens):
            measured = measure_encoder(
                encoder, name, collection, list(collection.passages), {"all": query_ids}, config, "auto", place=place
            )
            searched = measured.searched["all"]
            weights = encoder.settings.hybrid_weights or M3_WEIGHTS
            save_evaluations(partial, searched.evaluations(weights), searched.found.how)
            if config.bm25:
                save_evaluations(partial / "bm25", [measure_bm25(collection, {"all": query_ids}, config)["all"]])
            counts |= measured.counts
        shutil.rmtree(place, ignore_errors=True)
    evaluations = load_evaluations(folder)
    return [*evaluations, *load_evaluations(folder / "bm25")] if config.bm25 else evaluations


def _chosen_encoder(folder: Path, recipe: Recipe) -> Encoder:
    """What the selection chose, where that is not the base; a merge is made anew from its two ends, the same each time.

    It has the hybrid's weights that were tuned for it.
    """
    selection = read_json(folder / "select" / "selection.json")
    encoder, _ = load_encoder(tuned_model(folder, recipe))
    if selection["alpha"] != 1:
        base, _ = load_encoder(without_new_heads(recipe.model))
        encoder.load_state_dict(interpolate(base.state_dict(), encoder.state_dict(), selection["alpha"]))
    encoder.settings = replace(encoder.settings, hybrid_weights=selection["weights"])
    return encoder


def _weights_of_base(folder: Path, encoder: Encoder) -> Mapping[Head, float] | None:
    """The hybrid's weights that were tuned for the base, else those that it was saved with."""
    tuned = folder / "base" / WEIGHTS
    return read_json(tuned)["best"]["weights"] if tuned.is_file() else encoder.settings.hybrid_weights


def _fingerprint_of(folder: Path, stage: str) -> dict[str, str]:
    """A finished stage as the input of another."""
    return {stage: read_json(folder / stage / MANIFEST)["fingerprint"]}


def _head_of_base(recipe: Recipe, encoder: Encoder) -> str:
    """What decides for the base. Raises RecipeError where `evaluate.head` is nothing that training could give."""
    choice = recipe.evaluate.head
    heads = {*encoder.settings.heads, *recipe.model.new_heads}
    if recipe.model.heads is not None:
        heads &= {*recipe.model.heads, *recipe.model.new_heads}
    possible = {"auto", *heads, *((HYBRID, RRF) if len(heads) > 1 else ())}
    if choice not in possible:
        raise RecipeError(
            f"{choice!r} decides, but this model has {', '.join(sorted(heads))} only",
            where="evaluate.head",
            fix='set it to "auto", or give the model heads with model.heads or model.new_heads',
        )
    return deciding_head(choice, encoder.settings.heads)


def _default_weights(encoder: Encoder, recipe: Recipe) -> Mapping[Head, float]:
    """The hybrid's weights that a model was saved with, else the recipe's."""
    return encoder.settings.hybrid_weights or recipe_weights(recipe)


def _tuned_weights(
    on_dev: Searched, recipe: Recipe, default: Mapping[Head, float], folder: Path
) -> Mapping[Head, float]:
    """The weights of the best point on development data, whose grid goes to hybrid.json in `folder`."""
    if on_dev.found.candidates is None or not recipe.evaluate.tune_weights:
        return default
    tuning = tune_weights(on_dev, recipe.evaluate.main_metric, default)
    write_json(folder / WEIGHTS, tuning.as_json())
    return tuning.best.weights


def _compare_heads(folder: Path, recipe: Recipe, prepared: Prepared, decides: str) -> list[dict[str, Any]]:
    """The chosen model's heads against each other and against BM25; where it has one head, against BM25 alone.

    Each item has `first`, `second` (the model and its head) and `metrics`, rows as in comparison.json whose `base` is
    the first and `tuned` the second.
    """
    found = {evaluation.head: evaluation for evaluation in load_evaluations(folder / "tuned")}
    if recipe.evaluate.bm25:
        found["bm25"] = load_evaluation(folder / "bm25", "bm25")
    pairs = [("bm25", decides)]
    if HYBRID in found:
        pairs = [("dense", HYBRID), ("bm25", HYBRID), ("dense", RRF), ("bm25", "dense"), ("dense", "sparse"),
                 ("dense", "multi"), ("bm25", "sparse"), *pairs]  # fmt: skip
    pairs = [pair for pair in dict.fromkeys(pairs) if set(pair) <= found.keys()]
    compared = [(found[first], found[second]) for first, second in pairs]
    before = {evaluation.head: evaluation for evaluation in load_evaluations(folder / "base")}
    if HYBRID in found and "dense" in before and "dense" in found:
        compared.insert(0, (before["dense"], found["dense"]))
    return [
        {
            "first": {"name": first.name, "head": first.head},
            "second": {"name": second.name, "head": second.head},
            "metrics": [
                asdict(row)
                for row in compare_evaluations(
                    first, second, prepared.collection, recipe.evaluate, prepared.similar
                ).metrics
            ],
        }
        for first, second in compared
    ]


@contextlib.contextmanager
def _vectors(folder: Path, name: str) -> Iterator[Path]:
    """A place for passages' vectors that do not fit in memory: gone when the stage is done, kept when it is cut off."""
    place = folder / "vectors" / name
    yield place
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or the place of another stage
        place.parent.rmdir()


def _measure(
    encoder: Encoder,
    name: str,
    recipe: Recipe,
    prepared: Prepared,
    passage_ids: Sequence[str],
    query_sets: Mapping[str, Sequence[str]],
    place: Path,
) -> Measured:
    collection, config, precision = prepared.collection, recipe.evaluate, recipe.train.precision
    return measure_encoder(encoder, name, collection, passage_ids, query_sets, config, precision, None, place)


def _training(recipe: Recipe, corpus: DevCorpus) -> dict[str, Any]:
    """What a training that is watched on development data depends on, beside model and data."""
    choice = recipe.evaluate.model_dump(include={"head", "tune_weights", "first_stage", "candidates", "exact_passages"})
    guide = recipe.train.guide and model_fingerprint(ModelConfig(path=recipe.train.guide))
    config = {"train": recipe.train.model_dump(), "metric": recipe.evaluate.main_metric, "guide": guide}
    return config | {"rule": recipe.select.rule, "dev_corpus": fingerprint(corpus)} | choice


def _model_key(stage: str, recipe: Recipe, prepared: Prepared, config: Mapping[str, Any]) -> StageKey:
    return StageKey(
        stage,
        {"model": recipe.model.model_dump(), **config},
        {"data": prepared.fingerprint, "model": model_fingerprint(recipe.model), "m3tune": __version__},
    )
