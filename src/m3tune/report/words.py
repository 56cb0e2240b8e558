"""The same words and roundings for the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3tune.evaluation.select import LAST

_DECIMALS, _MOST_DECIMALS = 3, 6


def number(value: float | None) -> str:
    """Three decimals; more where a value that is not zero would read as zero; a dash for None."""
    if value is None:
        return "–"
    decimals = next((d for d in range(_DECIMALS, _MOST_DECIMALS) if abs(value) * 10**d >= 0.5), _DECIMALS)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float) -> str:
    """As `number`, with a plus sign where it is above zero."""
    text = number(value)
    return f"+{text}" if float(text) > 0 else text


def interval(ci95: tuple[float, float]) -> str:
    """`[low, high]`."""
    return f"[{number(ci95[0])}, {number(ci95[1])}]"


def p_value(value: float) -> str:
    """Three decimals, or that it is below them."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def share(value: float | None) -> str:
    """A percentage with one decimal, or a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def rank(value: int | None) -> str:
    """A rank, or that the passage was not found."""
    return "not found" if value is None else f"{value}"


def duration(seconds: float) -> str:
    """Seconds in the largest units that say something."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def delivered(data: Mapping[str, Any]) -> str:
    """`tuned, checkpoint 40`, `checkpoint 40 merged 0.7`, or `base` and why."""
    verdict = data["verdict"]
    if _unguarded(data["selection"]):
        return f"the last step, {verdict['checkpoint']}, with no guard against a worse model"
    if verdict["delivered"] == "tuned":
        return f"tuned, checkpoint {verdict['checkpoint']}"
    if verdict["delivered"] != "base":
        return f"checkpoint {verdict['checkpoint']} {verdict['delivered']}"
    if data["chosen"] == "base":
        return f"base, because {why_base(data['selection'])}"
    return "base, because the tuned model is worse"


def why_base(selection: Mapping[str, Any]) -> str:
    """Why the base was chosen."""
    return _WHY_BASE[selection["why_base"]]


def fate(candidate: Mapping[str, Any]) -> str:
    """What became of a candidate of the selection."""
    return _FATES[candidate["fate"]]


def rule(selection: Mapping[str, Any]) -> str:
    """How the selection chose."""
    if _unguarded(selection):
        return 'The last step of training: select.rule is "last", so no merge, no best checkpoint and no guard.'
    kept = ""
    if selection["retention"]:
        tolerance = f"{100 * selection['retention_tolerance']:g} %"
        kept = f", loses at most {tolerance} of the base's {selection['metric']} on the retention data"
    return (
        "Chosen is the candidate nearest to the base that beats it on development data by more than noise (p ≤ "
        f"{selection['noise']:g}){kept} and is not behind the best such candidate by more than noise."
    )


def retention(selection: Mapping[str, Any]) -> str:
    """What was measured to see what a model may have forgotten, and what that does not show."""
    measured = selection["retention"]
    if not measured:
        why_not = selection.get("why_no_retention") or "select.retention names no data"
        return f"What else the model may have forgotten was not measured: {why_not}."
    sizes = f"{measured['queries']:,} queries among {measured['passages']:,} passages"
    if "found_by_base" not in measured:
        return f"The retention data has {sizes}."
    return (
        f"The retention data was held out of the corpus: {sizes}. A query is a sentence of a text that training does "
        "not touch, its passage the rest of that half of the text, and the base found the other half. What is lost in "
        "other domains or languages it does not show; name data of these in select.retention."
    )


def sentence(data: Mapping[str, Any]) -> str:
    """The run in one line, such as `nDCG@10 0.645 -> 0.712, +0.067 [0.041, 0.094], 300 queries; delivered: …`."""
    verdict = data["verdict"]
    return (
        f"{verdict['metric']} {number(verdict['base'])} -> {number(verdict['tuned'])}, "
        f"{signed(verdict['difference'])} {interval(verdict['ci95'])}, {verdict['queries']:,} queries; "
        f"delivered: {delivered(data)}"
    )


def head(name: str) -> str:
    """A head or mixture in words."""
    return _HEADS.get(name, name)


def pair(of: Mapping[str, Any]) -> str:
    """Two heads that were compared, of the tuned model where nothing else is said: `hybrid vs BM25`."""
    sides = (of["second"], of["first"])
    return " vs ".join(("base " if side["name"] == "base" else "") + head(side["head"]) for side in sides)


def compared(of: Mapping[str, Any]) -> str:
    """One comparison of two heads in one line."""
    return (
        f"{pair(of)}: {of['metric']} {number(of['base'])} -> {number(of['tuned'])}, "
        f"{signed(of['difference'])} {interval(of['ci95'])}"
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
    return "no guard" if word != "better" and _unguarded(data["selection"]) else word


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
        model=_model(data["selection"]),
    )


def _unguarded(selection: Mapping[str, Any]) -> bool:
    """Whether the last step was taken without a choice."""
    return selection.get("rule") == LAST


def _model(selection: Mapping[str, Any]) -> str:
    """What model/ holds, where that is not the base."""
    whole = selection["alpha"] == 1
    return "the tuned model" if whole else f"the merge of base and tuned model at {selection['alpha']:g}"


def next_step(data: Mapping[str, Any]) -> str:
    """What to do now."""
    training, needed = data["training"], data["queries_needed"]
    key = outcome(data)
    if key == "better" and training["best_step"] >= training["steps"] and not _unguarded(data["selection"]):
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


def rounds(made: Mapping[str, Any]) -> str:
    """What each round of mining and training came to on development data."""
    kept = made["kept"]
    each = (f"{number(row['dev'])}{' (kept)' if row['number'] == kept else ''}" for row in made["rounds"])
    return f"dev {made['metric']} by round: {', '.join(each)}"


def _about(count: int) -> str:
    """A count with its first two digits, rounded up: an estimate should not look exact."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"


_HEADS = {
    "dense": "dense",
    "sparse": "sparse",
    "multi": "multi-vector",
    "hybrid": "hybrid",
    "rrf": "rank fusion",
    "bm25": "BM25",
}

_WHY_BASE = {
    "no gain": "no checkpoint beat it on development data",
    "noise": "no gain on development data was more than noise",
    "forgets": "whatever beat it on development data lost too much on the retention data",
}

_OUTCOMES = {"no gain": "nothing better", "noise": "nothing certain", "forgets": "forgetting"}

_FATES = {
    "chosen": "chosen",
    "base": "where it started",
    "no gain": "not above the base",
    "noise": "above the base, but within noise",
    "forgets": "loses too much on the retention data",
    "worse": "behind the best by more than noise",
    "further": "as good, but further from the base",
}

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


TESTED = (
    "Median (90th percentile), or shares. p: Kolmogorov-Smirnov test of numbers, chi squared test of shares, against "
    "train; small where a side is different"
)


def summary(of_side: Mapping[str, float]) -> str:
    """One cell of the table that compares the sides of a split: median (90th percentile), or shares."""
    if "median" in of_side:
        return f"{of_side['median']:,.0f} ({of_side['p90']:,.0f})"
    return ", ".join(f"{label} {share:.0%}" for label, share in of_side.items() if share)


def shared_between_sides(counts: Mapping[str, Any]) -> list[str]:
    """What two sides of a split have in common, one line each; nothing where they have nothing."""
    lines = []
    for side, other in (("train", "test"), ("train", "dev"), ("dev", "test")):
        for how, what in (
            ("also_in", f"were taken out of {side}, because {other} has them too"),
            ("sharing_a_passage_with", f"share a relevant passage, a copy of it or its document with {other}"),
            ("with_a_query_of", f"ask nearly the same as one of {other}"),
        ):
            if count := counts.get(f"{side}_{how}_{other}"):
                lines.append(f"{count:,} of {counts[side]:,} {side} queries {what}")
    return lines


PROTOCOLS = {
    "new documents": "The test asks about new documents: no query of one side shares a relevant passage, or one nearly "
    "the same, with a query of another, unless the data's own splits do.",
    "new questions": "The test asks new questions about the same documents: no query of one side is nearly the same as "
    "one of another, unless the data's own splits bring it, but they may share documents.",
}
