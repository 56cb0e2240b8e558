"""What a run came to and what to do next, in words for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.negatives.filters import SUSPECTS
from m3tune.report.selection_words import delivered_model, unguarded, why_base
from m3tune.report.words import change, head, interval, number


def sentence(data: Mapping[str, Any]) -> str:
    """The run in one line, such as `nDCG@10 0.645 -> 0.712, +0.067 [0.041, 0.094], 300 queries; delivered: …`.

    Where negatives were mined, with how many candidates were suspected of being relevant, and so left out.
    """
    verdict, mined = data["verdict"], data["negatives"]
    suspects = sum(count for reason, count in mined["removed"].items() if reason in SUSPECTS) if mined else 0
    left_out = f"{suspects:,} suspected false negatives left out; " if suspects else ""
    return (
        f"{verdict['metric']} {number(verdict['base'])} -> {number(verdict['tuned'])}, "
        f"{change(verdict['difference'], verdict['ci95'])}, {verdict['queries']:,} queries; "
        f"{left_out}delivered: {delivered(data)}"
    )


def delivered(data: Mapping[str, Any]) -> str:
    """`tuned, checkpoint 40`, `checkpoint 40 merged 0.7`, or `base` and why."""
    verdict = data["verdict"]
    if unguarded(data["selection"]):
        return f"the last step, {verdict['checkpoint']}, with no guard against a worse model"
    if verdict["delivered"] == "tuned":
        return f"tuned, checkpoint {verdict['checkpoint']}"
    if verdict["delivered"] != "base":
        return f"checkpoint {verdict['checkpoint']} {verdict['delivered']}"
    if data["chosen"] == "base":
        return f"base, because {why_base(data['selection'])}"
    return "base, because the tuned model is worse"


def pair(of: Mapping[str, Any]) -> str:
    """Two heads that were compared, of the tuned model where nothing else is said: `hybrid vs BM25`."""
    sides = (of["second"], of["first"])
    return " vs ".join(("base " if side["name"] == "base" else "") + head(side["head"]) for side in sides)


def compared(of: Mapping[str, Any]) -> str:
    """One comparison of two heads in one line."""
    return (
        f"{pair(of)}: {of['metric']} {number(of['base'])} -> {number(of['tuned'])}, "
        f"{change(of['difference'], of['ci95'])}"
    )


def measured_by(data: Mapping[str, Any]) -> str:
    """Which heads the verdict compares, where the chosen model has several; else nothing."""
    base, tuned = head(data["base_head"]), head(data["verdict"]["head"])
    if not data["heads"]:
        return ""
    return f"both models by {tuned}" if base == tuned else f"the base model by {base}, the tuned one by {tuned}"


def outcome(data: Mapping[str, Any]) -> str:
    """The verdict's word, or where the base was chosen on development data, what stood against all others."""
    if data["chosen"] == "base":
        return _OUTCOMES[data["selection"]["why_base"]]
    word = data["verdict"]["verdict"]
    return "no guard" if word != "better" and unguarded(data["selection"]) else word


def headline(data: Mapping[str, Any]) -> str:
    """The verdict as one sentence."""
    return _HEADLINES[outcome(data)]


def meaning(data: Mapping[str, Any]) -> str:
    """What the verdict says, in plain words."""
    verdict = data["verdict"]
    return _MEANINGS[outcome(data)].format(
        metric=verdict["metric"],
        queries=f"{verdict['queries']:,}",
        size=number(abs(verdict["difference"])),
        interval=interval(verdict["ci95"]),
        margin=number(data["no_worse_margin"]),
        model=delivered_model(data["selection"]),
    )


def next_step(data: Mapping[str, Any]) -> str:
    """What to do now."""
    training, needed = data["training"], data["queries_needed"]
    key = outcome(data)
    if key == "better" and training["best_step"] >= training["steps"] and not unguarded(data["selection"]):
        key = "better, still rising"
    elif key == "inconclusive" and needed is None:
        key = "inconclusive, nothing to go by"
    elif key == "inconclusive" and needed <= data["verdict"]["queries"]:
        key = "inconclusive, at the edge"
    return _NEXT_STEPS[key].format(needed=_about(needed) if needed else "")


def words_win(data: Mapping[str, Any]) -> str | None:
    """A warning where BM25 finds more than the chosen model, as with an encoder that does not know the language."""
    main = next(row for row in data["metrics"] if row["metric"] == data["verdict"]["metric"])
    if main["bm25"] is None or main["bm25"] <= main["tuned"]:
        return None
    return (
        f"BM25, which needs no model, finds more than this encoder: {main['metric']} {number(main['bm25'])} against "
        f"{number(main['tuned'])}. Search with both, or start from an encoder that knows this language and domain."
    )


def _about(count: int) -> str:
    """A count with its first two digits, rounded up: an estimate should not look exact."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"


_OUTCOMES = {"no gain": "nothing better", "noise": "nothing certain", "forgets": "forgetting"}

_HEADLINES = {
    "better": "The tuned model is better than the base model.",
    "no worse": "The tuned model is no worse than the base model.",
    "inconclusive": "These queries cannot tell the two models apart.",
    "worse": "The tuned model is worse, so the base model was kept.",
    "nothing better": "Training found nothing better than the base model.",
    "nothing certain": "Training found nothing that is better than the base model beyond noise.",
    "forgetting": "What training gained, it paid for with what the base model could do.",
    "no guard": "The last step of training is not better than the base model, and nothing guarded against it.",
}

_BASE_TWICE = (
    "so there was nothing to test, and the folder model/ holds the base model. The differences below are zero because "
    "both columns are the same model."
)

_MEANINGS = {
    "better": (
        "On {queries} test queries that took no part in training, {metric} rose by {size}. The 95 % interval "
        "{interval} lies wholly above zero: chance alone would seldom give a gain like this. The folder model/ "
        "holds {model}."
    ),
    "no worse": (
        "On {queries} test queries that took no part in training, the difference in {metric} cannot be told from zero, "
        "but the 95 % interval {interval} excludes a loss of more than {margin}. The folder model/ holds {model}, "
        "which did better on the development queries."
    ),
    "inconclusive": (
        "With {queries} test queries, the 95 % interval {interval} holds zero and also a loss of more than {margin}: "
        "{metric} may have risen, fallen or stayed. The folder model/ holds {model} because it did better on "
        "the development queries; the base model is the careful choice until more is known."
    ),
    "worse": (
        "On {queries} test queries that took no part in training, {metric} fell by {size}, and the 95 % interval "
        "{interval} lies wholly below zero. The gain on the development queries did not hold, so the folder model/ "
        "holds the base model."
    ),
    "nothing better": (
        "No checkpoint or merge reached a higher {metric} on the development queries than the untouched model, "
        + _BASE_TWICE
    ),
    "nothing certain": (
        "Some candidate reached a higher {metric} on the development queries than the untouched model, but by no more "
        "than chance would give, " + _BASE_TWICE
    ),
    "forgetting": (
        "Every candidate that reached a higher {metric} on the development queries lost more on the retention data "
        "than select.retention_tolerance allows, " + _BASE_TWICE
    ),
    "no guard": (
        "On {queries} test queries that took no part in training, the 95 % interval {interval} of the difference in "
        "{metric} does not lie above zero. The folder model/ holds {model} all the same, as the recipe says."
    ),
}

_NEXT_STEPS = {
    "better": "Read the queries that lost, below, before you put the model to work: they show what the gain costs.",
    "better, still rising": (
        "Read the queries that lost, below, before you put the model to work. The best checkpoint was the last one, so "
        "a higher train.epochs may gain more."
    ),
    "no worse": (
        "Keep whichever model is easier to serve. For a gain, more training queries like the test queries help most, "
        "then hard negatives (train.negatives_per_query) and a larger train.batch_queries."
    ),
    "inconclusive": (
        "About {needed} test queries like these would show a difference of this size, if it is real, four times in "
        "five. The other way is a larger difference: more training queries, hard negatives, a larger "
        "train.batch_queries."
    ),
    "inconclusive, at the edge": (
        "A difference of this size is at the edge of what so many queries can show; more test queries would settle it."
    ),
    "no guard": 'Set select.rule to "guarded": then the base model stays where nothing is better.',
    "inconclusive, nothing to go by": "More test queries, about other passages than these, would settle it.",
    "worse": (
        "Lower train.learning_rate or train.epochs, and bring more development queries, so that no lucky checkpoint is "
        "chosen. Compare the queries that lost, below, with the training data: they should look alike."
    ),
    "nothing better": (
        "Look at the loss first. If it hardly moved, raise train.learning_rate or train.epochs; if it fell while the "
        "development metric sank, lower them. Then check that the positives really answer their queries."
    ),
    "nothing certain": (
        "More development queries (data.dev) show smaller gains, more training queries bring larger ones. To take any "
        "gain for what it is and let the test queries judge, set select.noise to 1."
    ),
    "forgetting": (
        "Add smaller values to select.alphas, lower train.learning_rate or train.epochs, or mix data like the "
        "retention data into training. If that loss is acceptable, raise select.retention_tolerance."
    ),
}
