"""A case in which everything went well, and one of it for each illness."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from m3tune.data.similar import NearCopies, Similar
from m3tune.diagnose.doctor.case import Case, Moved, Reading, Sample
from m3tune.diagnose.doctor.registry import case_findings
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation
from m3tune.recipe import build_recipe
from m3tune.types import Hit, Judgment, Negative, Split
from tiny import tiny_collection

TRAIN, DEV, TEST = 100, 40, 60
QUERIES = TRAIN + DEV + TEST
METRIC = "nDCG@10"
SETTINGS = {
    "pooling": "cls", "normalize": True, "query_prompt": "", "passage_prompt": "", "query_max_tokens": 64,
    "passage_max_tokens": 256, "heads": ["dense"], "hybrid_weights": None,
}  # fmt: skip


def well() -> Case:
    """A run in which everything went well: base 0.6, tuned 0.8, BM25 0.5, and labels that every scorer agrees with."""
    collection = tiny_collection(QUERIES, 600)
    ids = tuple(collection.queries)
    negatives = [Negative(f"q{i}", f"p{QUERIES + 4 * i + k}") for i in range(TRAIN) for k in range(4)]
    collection = replace(collection, negatives=tuple(negatives))
    recipe = build_recipe(
        {
            "data": {"path": "data"},
            "model": {"path": "base"},
            "train": {"negatives_per_query": 4, "learning_rate": 2e-5},
        }
    )
    test = ids[TRAIN + DEV :]
    return Case(
        folder=Path("runs/it"),
        recipe=recipe,
        collection=collection,
        similar=Similar(),
        split=Split(ids[:TRAIN], ids[TRAIN : TRAIN + DEV], test),
        balance=[{"feature": "query length", "train": {"median": 20.0}, "test": {"median": 20.0},
                  "tests": {"test": {"statistic": 0.1, "p_value": 0.4}}}],
        log=log([2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.75, 0.7, 0.68, 0.66], [0.65, 0.70, 0.73, 0.735]),
        selection={"chosen": "tuned", "base": 0.6, "tuned": 0.735, "base_head": "dense", "head": "dense"},
        verdict=verdict("better", 0.2),
        measured={
            name: evaluation(collection, test, name, ranks)
            for name, ranks in (("base", (0, 1, 3)), ("tuned", (0, 0, 1)), ("bm25", (1, 2, 4)))
        },
        settings={"base": SETTINGS, "train/model": SETTINGS, "model": SETTINGS | {"hybrid_weights": {"dense": 1.0}}},
        statements={"m3tune.json": {"pooling": "cls", "max_tokens": 256}, "modules.json": {"pooling": "cls"}},
        sample=sample(collection, ids),
        moved=Moved(0.01, 0.9),
        reading=Reading(0.0, (), (), 256, dict.fromkeys(test, False)),
    )  # fmt: skip


def log(losses, devs, **more):
    """A log of ten lines of training, and the evaluations evenly among them; `more` joins the last line of training."""
    lines = [
        {"step": 4 * i + 1, "loss": loss, "grad_norm": 3.0, "learning_rate": 2e-5} for i, loss in enumerate(losses)
    ]
    lines[-1] |= more
    return lines + [{"step": 10 * (i + 1), f"eval_{METRIC}": dev} for i, dev in enumerate(devs)]


def verdict(word, difference):
    low, high = sorted((difference - 0.05, difference + 0.05))
    return {"verdict": word, "difference": difference, "ci95": [low, high], "delivered": "tuned", "queries": TEST}


def evaluation(collection, test, name, ranks, fillers=None):
    """A run in which each query's positive stands at one of `ranks` in turn, among passages that differ by model."""
    shift = {"base": 7, "tuned": 131, "bm25": 257}[name]
    run = {}
    for i, query_id in enumerate(test):
        (positive,) = collection.positives[query_id]
        others = fillers or [f"p{(11 * i + 13 * k + shift) % 400 + 200}" for k in range(9)]
        hits = [*others[: ranks[i % len(ranks)]], positive, *others[ranks[i % len(ranks)] :]]
        run[query_id] = [Hit(p, float(10 - k)) for k, p in enumerate(hits)]
    return Evaluation(name, name, run, evaluate_run(run, collection.qrels(test), [METRIC]))


def sample(collection, ids):
    """Positives far above given negatives, which are above the passages of others, for both scorers."""
    generator = np.random.default_rng(0)
    passages = tuple(collection.passages)
    positive, given = np.zeros((2, QUERIES, len(passages)), dtype=bool)
    for row in range(QUERIES):
        positive[row, row] = True
    for negative in collection.negatives:
        given[int(negative.query_id[1:]), int(negative.passage_id[1:])] = True
    scores = {
        name: np.select([positive, given], [high + generator.normal(0, 0.05, given.shape), middle], 0.0)
        + generator.normal(0, 0.05, given.shape)
        for name, high, middle in (("base", 0.8, 0.4), ("bm25", 8.0, 0.2))
    }
    return Sample(ids, TRAIN, passages, positive, given, positive, scores, generator.normal(size=(QUERIES, 16)))


W = well()


def scored(case, name, where, value):
    """The case with other scores of one scorer where a mask says so."""
    scores = dict(case.sample.scores)
    scores[name] = np.where(where, value, scores[name])
    return replace(case, sample=replace(case.sample, scores=scores))


def trained(case, **changes):
    return replace(case, recipe=case.recipe.model_copy(update={"train": case.recipe.train.model_copy(update=changes)}))


def without_gain(case, **changes):
    """The case of a run that found nothing better."""
    base = {"chosen": "base", "tuned": 0.59}
    return replace(case, verdict=verdict("no worse", 0.0), selection={**case.selection, **base}, **changes)


def positives_of_others(case):
    """A training query's positive column moved to another query's positive."""
    positive = case.sample.positive.copy()
    positive[:TRAIN] = np.roll(positive[:TRAIN], 7, axis=1) & (np.arange(positive.shape[1]) < TRAIN + 7)
    return replace(case, sample=replace(case.sample, positive=positive, relevant=positive))


def suspected(case, queries):
    """One passage of another query above the positive, for both scorers, in some queries."""
    where = np.zeros_like(case.sample.positive)
    where[np.arange(queries), (np.arange(queries) + 1) % TRAIN] = True
    return scored(scored(case, "base", where, 1.2), "bm25", where, 12.0)


def measured(case, **evaluations):
    return replace(case, measured={**case.measured, **evaluations})


def of_test(name, ranks, fillers=None):
    return evaluation(W.collection, W.split.test, name, ranks, fillers)


def cut_and_lost():
    """Every second test query's passages are cut, and these do badly."""
    cut = {q: i % 2 == 0 for i, q in enumerate(W.split.test)}
    return replace(measured(W, tuned=of_test("tuned", (5, 0))), reading=replace(W.reading, cut=cut))


SHIFTED = np.concatenate([W.sample.vectors[: TRAIN + DEV], W.sample.vectors[TRAIN + DEV :] + 2.0])
HUBS = [f"p{i}" for i in range(300, 309)]
RISING = log([2.0, 2.4, 2.6, 3.0, 3.1, 3.2, 3.2, 3.3, 3.3, 3.4], [0.1, 0.05, 0.05, 0.1])
ILL = {
    "not-finite": replace(W, log=[*W.log, {"step": 41, "grad_norm": float("nan")}]),
    "conflicting-files": replace(W, statements={**W.statements, "1_Pooling": {"pooling": "mean"}}),
    "differing-settings": replace(W, settings={**W.settings, "model": SETTINGS | {"query_prompt": "query: "}}),
    "differing-tokenizer": replace(W, reading=replace(W.reading, tokenizer_limit=128)),
    "unknown-tokens": replace(W, reading=replace(W.reading, unknown=0.05, unknown_texts=("鯨",))),
    "stale-vectors": replace(W, stale={"vectors/passages": ["pooling", "weights"]}),
    "shuffled-labels": without_gain(positives_of_others(W)),
    "false-negatives": scored(W, "base", W.sample.given & (np.arange(600) % 4 < 1), 1.5),
    "leakage": replace(W, similar=Similar(queries=NearCopies({f"q{150 + i}": f"q{i}" for i in range(5)}))),
    "dominant-positive": replace(
        W, collection=replace(W.collection, judgments=(*(Judgment(f"q{i}", "p0") for i in range(25)),
                                                       *W.collection.judgments[25:]))
    ),
    "high-learning-rate": without_gain(W, log=RISING),
    "low-learning-rate": without_gain(W, moved=Moved(1e-6, 1.0)),
    "short-warmup": trained(replace(W, log=log([2.0, 4.5, *([0.7] * 8)], [0.65, 0.7, 0.73, 0.735])), warmup=0.0),
    "differing-queries": replace(W, sample=replace(W.sample, vectors=SHIFTED)),
    "truncated-answers": cut_and_lost(),
    "low-temperature": trained(suspected(W, 8), temperature=0.01),
    "pushed-negatives": suspected(W, 20),
    "easy-negatives": scored(W, "base", W.sample.given, W.sample.scores["base"] - 0.4),
    "small-batch": trained(W, batch_queries=4, negatives_per_query=0),
    "many-epochs": replace(W, log=log([2.0, *([0.3] * 9)], [0.65, 0.75, 0.69, 0.62])),
    "few-steps": replace(W, log=log([2.0, *([0.9] * 9)], [0.62, 0.66, 0.70, 0.74])),
    "sparse-vectors-die": replace(W, log=log([2.0, *([0.9] * 9)], [0.7] * 4, sparse_empty=0.6)),
    "dense-vectors-collapse": replace(W, log=log([2.0, *([0.9] * 9)], [0.7] * 4, dense_cosine=0.999)),
    "hubs": measured(W, tuned=of_test("tuned", (0,), HUBS)),
    "overfitting": without_gain(W, log=log([2.0, *([0.3] * 9)], [0.59, 0.58, 0.58, 0.57])),
    "small-dev": replace(W, split=replace(W.split, dev=W.split.dev[:12])),
    "lost-gain": replace(W, verdict=verdict("worse", -0.1)),
    "small-test": replace(W, verdict=verdict("inconclusive", 0.01)),
    "unjudged-passages": measured(W, **{n: of_test("tuned", (1,)) for n in ("base", "tuned", "bm25")}),
    "bm25-wins": measured(W, bm25=of_test("bm25", (0,)), tuned=of_test("tuned", (2,))),
    "near-ceiling": measured(W, base=of_test("base", (0,))),
}  # fmt: skip


# What comes with an illness, and must not be named before it.
FOLLOWS = {
    "shuffled-labels": {"pushed-negatives", "false-negatives"},
    "low-temperature": {"pushed-negatives"},
}


def codes(case):
    return [finding.code for finding in case_findings(case)]
