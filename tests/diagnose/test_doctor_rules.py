"""Every rule of the doctor finds the illness planted in a healthy case, and names it first; health is silent."""

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from m3tune.cli import app
from m3tune.config import MineConfig
from m3tune.data.similar import NearCopies, Similar
from m3tune.diagnose.doctor.case import Case, Moved, Reading, Sample
from m3tune.diagnose.doctor.likeness import separability
from m3tune.diagnose.doctor.pressure import gradient_weights
from m3tune.diagnose.doctor.registry import CASE_RULES, ORDER, case_findings
from m3tune.diagnose.doctor.vectors import skewness
from m3tune.diagnose.registry import RULES
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation
from m3tune.recipe import build_recipe
from m3tune.types import GIVEN, MINED, Finding, Hit, Judgment, Negative, Split
from tiny import tiny_collection

COMMANDS = get_command(app).commands
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


def test_every_rule_is_tested_here():
    assert set(ILL) == set(CASE_RULES)
    assert len(ILL) >= 20


def test_a_healthy_run_has_no_finding_at_all():
    assert codes(W) == []


@pytest.mark.parametrize("code", ILL)
def test_a_planted_illness_is_found_and_what_follows_comes_after_it(code):
    found = codes(ILL[code])
    assert code in found
    assert set(found) <= {code} | FOLLOWS.get(code, set())
    severe = [f.code for f in case_findings(ILL[code]) if f.severity != "note"]
    assert not severe or severe[0] == code


@pytest.mark.parametrize("code", ILL)
def test_a_finding_has_a_figure_evidence_and_what_to_do(code):
    (finding,) = [f for f in case_findings(ILL[code]) if f.code == code]
    assert any(character.isdigit() for character in finding.what) or code in ("conflicting-files", "stale-vectors",
                                                                              "differing-settings")  # fmt: skip
    assert finding.evidence["count"] is not None
    assert finding.fix
    assert finding.where
    assert len(finding.examples) <= 3
    json.dumps(asdict(finding))


def test_causes_stand_before_what_follows_from_them():
    place = ORDER.index
    assert set(ORDER) == set(CASE_RULES) | set(RULES)
    assert len(set(ORDER)) == len(ORDER)
    for cause in ("shuffled-labels", "false-negatives", "high-learning-rate", "positive-template"):
        for symptom in ("pushed-negatives", "overfitting", "dense-vectors-collapse", "hubs", "small-test", "bm25-wins"):
            assert place(cause) < place(symptom)


def test_all_at_once_the_labels_are_named_before_the_learning_rate_and_that_before_the_collapse():
    ill = without_gain(positives_of_others(W), log=[{**line, "dense_cosine": 1.0} for line in RISING])
    found = [code for code in codes(ill) if code in ("shuffled-labels", "high-learning-rate", "dense-vectors-collapse")]
    assert found == ["shuffled-labels", "high-learning-rate", "dense-vectors-collapse"]


def test_what_could_be_better_is_a_note_in_a_run_that_came_out_better():
    ill = ILL["small-dev"]
    assert [f.severity for f in case_findings(ill)] == ["note"]
    worse = replace(ill, verdict=verdict("no worse", 0.0))
    assert [f.severity for f in case_findings(worse) if f.code == "small-dev"] == ["warning"]


@pytest.mark.parametrize("code", ["small-dev", "lost-gain"])
def test_where_nothing_was_chosen_no_choice_is_blamed(code):
    ill = ILL[code]
    select = ill.recipe.select.model_copy(update={"rule": "last"})
    assert code in codes(ill)
    assert code not in codes(replace(ill, recipe=ill.recipe.model_copy(update={"select": select})))


def test_the_next_command_names_the_run_and_another_folder():
    (finding,) = [f for f in case_findings(ILL["high-learning-rate"]) if f.code == "high-learning-rate"]
    assert finding.fix == (
        "m3tune run runs/it/resolved.toml --set output=runs/it-next --set train.learning_rate=2.0e-06"
    )
    spaced = replace(ILL["high-learning-rate"], folder=Path("my runs/it"))
    assert "'my runs/it/resolved.toml'" in case_findings(spaced)[0].fix


def commands_of(fix):
    """The words of every command of m3tune in a text, up to where the sentence goes on."""
    shown = re.findall(rf"m3tune (?:{'|'.join(COMMANDS)}) .*?(?=; |, or |, then |$)", fix)
    return [shlex.split(command)[1:] for command in shown]


@pytest.mark.parametrize("code", ILL)
@pytest.mark.parametrize("mined", [False, True])
def test_a_finding_ends_with_a_command_that_can_be_typed_as_it_is(code, mined):
    case = replace(ILL[code], folder=Path("my runs/it"))
    if mined:
        case = replace(case, recipe=case.recipe.model_copy(update={"mine": MineConfig()}))
    (finding,) = [f for f in case_findings(case) if f.code == code]
    commands = commands_of(finding.fix)
    assert commands, finding.fix
    assert finding.fix.endswith(shlex.join(["m3tune", *commands[-1]])), finding.fix
    for name, *words in commands:
        context = COMMANDS[name].make_context(name, list(words))
        for setting in context.params.get("overrides") or ():
            build_recipe({"data": {"path": "d"}, "model": {"path": "m"}}, [setting])
        assert not any(word.isupper() for word in words), f"{words} has a word to fill in"


@pytest.mark.parametrize(
    ("code", "mined", "name"),
    [("false-negatives", False, "mine"), ("false-negatives", True, "review"), ("pushed-negatives", True, "review"),
     ("easy-negatives", False, "mine"), ("small-batch", False, "plan"), ("lost-gain", False, "compare")],
)  # fmt: skip
def test_the_command_that_is_for_an_illness_is_named(code, mined, name):
    recipe = ILL[code].recipe.model_copy(update={"mine": MineConfig() if mined else None})
    (finding,) = [f for f in case_findings(replace(ILL[code], recipe=recipe)) if f.code == code]
    assert name in [words[0] for words in commands_of(finding.fix)]


# --- thresholds, and what must not be taken for an illness


@pytest.mark.parametrize(("moved", "expected"), [(0.005, []), (0.3, ["high-learning-rate"])])
def test_a_loss_that_wavers_while_nothing_moves_is_no_high_rate(moved, expected):
    wavering = log([1.0, 1.2, 1.3, 1.4, 1.5, 1.3, 1.4, 1.5, 1.4, 1.4], [0.61, 0.62, 0.62, 0.62])
    assert codes(replace(W, log=wavering, moved=Moved(moved, 0.9))) == expected


def test_a_loss_near_zero_that_doubles_is_no_high_rate():
    assert codes(replace(W, log=log([0.05, *([0.1] * 9)], [0.61, 0.62, 0.62, 0.62]), moved=Moved(0.3, 0.9))) == []


def test_a_longer_or_shorter_run_is_asked_for_as_the_recipe_asks():
    (steps,) = case_findings(trained(ILL["few-steps"], max_steps=40))
    assert steps.fix.endswith("train.max_steps=80")
    (epochs,) = case_findings(ILL["many-epochs"])
    assert "train.epochs=1.5" in epochs.fix
    logged = replace(ILL["few-steps"], log=[*ILL["few-steps"].log, {"step": 40, "epoch": 6.0}])
    (auto,) = case_findings(trained(logged, epochs="auto"))
    assert auto.fix.endswith("train.epochs=12")


@pytest.mark.parametrize(
    ("why", "cosine", "named"), [("forgets", 0.49, True), ("forgets", 0.8, False), ("noise", 0.49, False)]
)
def test_what_was_learned_at_the_price_of_what_was_known_is_a_high_rate(why, cosine, named):
    selection = {**W.selection, "chosen": "base", "why_base": why}
    case = replace(W, selection=selection, verdict=verdict("no worse", 0.0), moved=Moved(0.045, cosine))
    assert ("high-learning-rate" in codes(case)) == named
    if named:
        assert case_findings(case)[0].code == "high-learning-rate"
        assert "a cosine of 0.49" in case_findings(case)[0].what


def test_a_loss_at_chance_with_weights_far_away_is_a_high_rate():
    flat = log([6.0, 5.5, *([5.07] * 8)], [0.61, 0.62, 0.62, 0.62])  # log(32 queries x 5 passages) = 5.08
    assert codes(replace(W, log=flat, moved=Moved(0.5, 0.1))) == ["high-learning-rate"]
    assert codes(replace(W, log=flat)) == []


@pytest.mark.parametrize(
    ("losses", "cosine", "word", "expected"),
    [
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.49, "no worse", ["high-learning-rate"]),
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.93, "no worse", []),
        ([0.41, 0.55, 0.52, 0.74, 0.59, 0.37, 0.1, 0.15, 0.1], 0.49, "better", []),
        ([0.41, 0.45, 0.42, 0.44, 0.39, 0.37, 0.1, 0.15, 0.1], 0.49, "no worse", []),
    ],
)
def test_a_loss_that_rises_before_it_falls_and_queries_that_end_elsewhere_are_a_high_rate(
    losses, cosine, word, expected
):
    ill = replace(W, log=log(losses, [0.57, 0.63, 0.62, 0.63]), moved=Moved(0.049, cosine), verdict=verdict(word, 0.0))
    found = [f for f in case_findings(ill) if f.code == "high-learning-rate"]
    assert [f.code for f in found] == expected
    assert all(f.severity == "error" for f in found)


def test_a_first_evaluation_below_the_base_that_comes_back_is_no_high_rate():
    back = log([2.0, *([0.9] * 9)], [0.3, 0.6, 0.7, 0.73])
    assert "high-learning-rate" not in codes(replace(W, log=back))


def test_labels_that_only_words_cannot_confirm_are_not_shuffled():
    cross_lingual = scored(W, "bm25", np.ones_like(W.sample.positive), 0.0)
    assert "shuffled-labels" not in codes(without_gain(cross_lingual))
    nobody = scored(cross_lingual, "base", np.ones_like(W.sample.positive), 0.0)
    assert "shuffled-labels" in codes(without_gain(nobody))
    assert "shuffled-labels" not in codes(nobody), "labels that can be learned and help on the test are labels"


def test_the_share_of_shuffled_labels_is_estimated():
    half = positives_of_others(W).sample
    positive = np.where((np.arange(QUERIES) % 2 == 0)[:, None], half.positive, W.sample.positive)
    case = without_gain(replace(W, sample=replace(W.sample, positive=positive, relevant=positive)))
    (finding,) = [f for f in case_findings(case) if f.code == "shuffled-labels"]
    assert finding.evidence["shuffled"] == pytest.approx(0.5, abs=0.1)


def test_hard_negatives_below_the_positive_are_not_false():
    hard = scored(W, "base", W.sample.given, 0.6)
    assert "false-negatives" not in codes(hard)


def test_a_negative_just_below_the_positive_is_suspected():
    near = scored(W, "base", W.sample.given, 0.78)  # the positives are around 0.8, the passages of others around 0
    (finding,) = [f for f in case_findings(near) if f.code == "false-negatives"]
    assert finding.evidence["estimated_share"] > 0.8


@pytest.mark.parametrize(
    ("threshold", "source", "suspected"),
    [("auto", MINED, False), (0.95, MINED, False), ("none", MINED, True), ("auto", GIVEN, True)],
)
def test_what_was_mined_by_a_threshold_is_near_because_it_was_sought_there(threshold, source, suspected):
    ill = ILL["false-negatives"]
    negatives = tuple(negative._replace(source=source) for negative in ill.collection.negatives)
    mining = ill.recipe.model_copy(update={"mine": MineConfig(threshold=threshold)})
    case = replace(ill, recipe=mining, collection=replace(ill.collection, negatives=negatives))
    assert ("false-negatives" in codes(case)) == suspected


def test_a_low_temperature_is_no_finding_where_suspects_take_little_of_the_gradient():
    cold = trained(suspected(W, 8), temperature=0.01)
    crowded = scored(cold, "base", W.sample.given, 1.2)  # every negative is pushed as hard as the suspects
    assert "low-temperature" in codes(cold)
    assert "low-temperature" not in codes(crowded)


def test_of_few_negatives_a_share_that_may_be_chance_is_a_note():
    given = W.sample.given.copy()
    given[30:] = False
    given &= np.cumsum(given, axis=1) == 1  # one for each of thirty queries
    few = replace(W, sample=replace(W.sample, given=given))
    near = scored(few, "base", given & (np.arange(QUERIES) < 5)[:, None], 1.5)
    (finding,) = [f for f in case_findings(near) if f.code == "false-negatives"]
    assert (finding.evidence["count"], finding.evidence["of"]) == (5, 30)
    assert finding.severity == "note"
    assert finding.evidence["at_least"] < 0.1 < finding.evidence["estimated_share"]


def test_a_base_that_ranks_at_random_says_nothing_about_given_negatives():
    noise = np.random.default_rng(3).normal(size=W.sample.positive.shape)
    assert "false-negatives" not in codes(scored(W, "base", np.ones_like(W.sample.positive), noise))


def test_findings_of_the_data_that_touch_little_are_notes_and_those_of_the_split_are_replaced():
    little = Finding("duplicate-queries", "error", "q", "2 of 300", "fix", (), {"count": 2, "of": 300})
    much = replace(little, code="positive-template", evidence={"count": 90, "of": 100})
    leaked = replace(little, code="leaked-query", evidence={"count": 90, "of": 100})
    few = replace(little, code="few-queries", evidence={"count": 40})
    found = case_findings(replace(ILL["high-learning-rate"], data_findings=(little, much, leaked, few)))
    assert [f.code for f in found] == ["positive-template", "high-learning-rate", "duplicate-queries"]
    assert found[-1].severity == "note"


def test_float16_scores_beyond_its_range_are_found():
    large = log([2.0, *([0.9] * 9)], [0.61, 0.62, 0.62, 0.62], score_dense_positive=40_000.0)
    assert codes(trained(replace(W, log=large), precision="float16")) == ["not-finite"]
    assert codes(replace(W, log=large)) == []


def test_a_case_of_a_model_and_data_needs_no_run():
    bare = replace(
        W,
        is_run=False,
        log=(),
        selection={},
        verdict={},
        measured={},
        settings={},
        moved=None,
        reading=None,
        balance=(),
    )
    assert codes(bare) == []
    (finding,) = case_findings(replace(bare, sample=ILL["false-negatives"].sample))
    assert finding.code == "false-negatives"
    assert "m3tune run recipe.toml --set train.false_negative_margin" in finding.fix


# --- formulas


def test_weights_are_those_of_the_gradient_of_infonce():
    generator = np.random.default_rng(1)
    positive, given = np.zeros((2, 3, 7), dtype=bool)
    positive[[0, 1, 2], [0, 1, 2]] = True
    given[[0, 0, 1, 2], [3, 4, 5, 6]] = True
    scores = generator.normal(size=(3, 7))
    small = Sample(("a", "b", "c"), 3, tuple("1234567"), positive, given, positive, {"base": scores}, np.zeros((3, 2)))
    weights = gradient_weights(small, 0.5)
    for row in range(3):  # -log(e^p / sum of all): the gradient at a negative's logit is its softmax
        powers = np.exp(scores[row] / 0.5)
        expected = powers / powers.sum()
        expected[row] = 0
        np.testing.assert_allclose(weights[row], expected, rtol=1e-9)


def test_skewness_is_that_of_all_passages():
    from scipy import stats

    values = [9, 4, 1, 1, 0, 0, 0]
    counts = {str(i): n for i, n in enumerate(values) if n}
    assert skewness(counts, 7) == pytest.approx(stats.skew(values))
    assert skewness({}, 7) == 0


def test_a_classifier_tells_apart_what_differs_and_nothing_else():
    generator = np.random.default_rng(2)
    same = [separability(generator.normal(size=(53, 40)), generator.normal(size=(37, 40))) for _ in range(20)]
    assert 0.4 < np.mean(same) < 0.6
    assert max(same) < 0.8
    shifted = generator.normal(size=(37, 40)) + np.eye(40)[0] * 4
    assert separability(generator.normal(size=(53, 40)), shifted) > 0.9
