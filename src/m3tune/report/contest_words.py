"""A comparison of recipes in words: the finding, and the cells of its tables for page, Markdown and terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from m3tune.evaluation.select import BASE
from m3tune.report import words

CORRECTION = (
    "Differences of means over the seeds, in the mean over test queries. Intervals hold all at once with 95 % "
    "confidence (Bonferroni); p is corrected by Holm's procedure, p alone is not. They speak of other queries, not of "
    "other seeds."
)
COST = (
    "Pairs, time and memory are means over the seeds. A run's time is that of all its stages, shared ones among them; "
    "vectors of the untuned model count where they were made first. Negatives of the batch are those of a whole one, "
    "none left out."
)


class Cells(NamedTuple):
    """A table: headings, and rows that begin with a name."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def best_of(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe with the highest mean, the first of several."""
    return max(facts["recipes"], key=lambda recipe: recipe["mean"])


def is_better(facts: Mapping[str, Any]) -> bool:
    """Whether the best recipe is better than the base beyond doubt."""
    return _difference(facts, best_of(facts)["name"], BASE)["interval"][0] > 0


def finding(facts: Mapping[str, Any]) -> list[str]:
    """What came out, one sentence each: the best recipe, against the others, all against the base, and how to read it.

    A difference was seen where its interval among all leaves out zero.
    """
    best = best_of(facts)
    over = f"on average over {facts['seeds']} seeds" if facts["seeds"] > 1 else "with one seed"
    lines = [
        f"{best['name']} has the highest {facts['metric']}, {words.number(best['mean'])} {over}; the base has "
        f"{words.number(facts['base'])}, on {facts['queries']:,} test queries."
    ]
    lines += [_best_against_others(facts, best["name"]), _all_against_base(facts)]
    unguarded = [recipe["name"] for recipe in facts["recipes"] if not recipe["guarded"]]
    if unguarded:
        lines.append(f"{', '.join(unguarded)}: the last step of training, without selection or guard.")
    for recipe in facts["recipes"]:
        if recipe["base_delivered"]:
            lines.append(f"{recipe['name']} delivered the base in {_of_seeds(recipe['base_delivered'], facts)} seeds.")
    if facts["seeds"] == 1:
        lines.append("One seed cannot tell what is the recipe's and what is chance in training.")
    return lines


def recipe_cells(facts: Mapping[str, Any]) -> Cells:
    """How good each recipe is, after BM25 and the base."""
    rows = [[BASE, words.number(facts["base"]), "–", "–", words.number(facts["base_dev"]), "–"]]
    if facts["bm25"] is not None:
        rows.insert(0, ["BM25", words.number(facts["bm25"]), "–", "–", "–", "–"])
    rows += [
        [
            recipe["name"],
            words.number(recipe["mean"]),
            words.number(recipe["deviation"]),
            " ".join(words.number(run["value"]) for run in recipe["runs"]),
            words.number(recipe["dev"]),
            _of_seeds(recipe["base_delivered"], facts) if recipe["guarded"] else "no guard",
        ]
        for recipe in facts["recipes"]
    ]
    return Cells(["recipe", facts["metric"], "sd of seeds", "each seed", "dev", "base delivered"], rows)


def cost_cells(facts: Mapping[str, Any]) -> Cells:
    """What each recipe costs, and what its queries are trained against; means over the seeds."""
    headings = ["recipe", "pairs", "own negatives", "batch negatives", "training", "all stages", "peak GiB"]
    rows = [
        [
            recipe["name"],
            f"{recipe['pairs']:,.0f}",
            f"{recipe['own_negatives']:.3g}",
            f"{recipe['batch_negatives']:.3g}",
            words.duration(recipe["train_seconds"]),
            words.duration(recipe["seconds"]),
            f"{recipe['peak_gib']:.2f}",
        ]
        for recipe in facts["recipes"]
    ]
    return Cells(headings, rows)


def difference_cells(facts: Mapping[str, Any]) -> Cells:
    """One row a difference."""
    headings = ["difference", facts["metric"], "interval", "p, Holm", "p alone", "seeds above"]
    rows = [
        [
            f"{of['first']} − {of['second']}",
            words.signed(of["difference"]),
            words.interval(of["interval"]),
            words.p_value(of["p_holm"]),
            words.p_value(of["p_value"]),
            _of_seeds(sum(value > 0 for value in of["by_seed"]), facts),
        ]
        for of in facts["differences"]
    ]
    return Cells(headings, rows)


def results_markdown(facts: Mapping[str, Any]) -> str:
    """The finding and the tables, as a page that is written and never typed."""
    made = f"m3tune {facts['versions'].get('m3tune', '')}, {facts['finished'][:10]}, {facts['machine']['device_name']}"
    about = (
        f"Data `{facts['data']}`, model `{facts['model']}`, passages cut at {facts['max_tokens']:,} tokens, "
        f"{facts['budget']:,} training pairs a run. Written by m3tune compare: {made}."
    )
    parts = [
        "# Results",
        *facts["finding"],
        _markdown(recipe_cells(facts)),
        _markdown(cost_cells(facts)),
        _markdown(difference_cells(facts)),
        CORRECTION,
        COST,
        about,
        "\n".join(f"* {note}" for note in facts["notes"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(cells: Cells) -> str:
    lines = [cells.headings, ["---"] * len(cells.headings), *cells.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _difference(facts: Mapping[str, Any], first: str, second: str) -> Mapping[str, Any]:
    """The difference of two, first minus second, whichever way round it was measured."""
    for of in facts["differences"]:
        if (of["first"], of["second"]) == (first, second):
            return of
        if (of["second"], of["first"]) == (first, second):
            low, high = of["interval"]
            return {**of, "difference": -of["difference"], "interval": (-high, -low)}
    raise KeyError((first, second))


def _best_against_others(facts: Mapping[str, Any], best: str) -> str:
    others = [recipe["name"] for recipe in facts["recipes"] if recipe["name"] != best]
    beaten, _, unclear = _sorted({other: _difference(facts, best, other) for other in others})
    clauses = [f"{best} beats {', '.join(beaten)}"] if beaten else []
    clauses += [f"between {best} and others no difference could be seen: {', '.join(unclear)}"] if unclear else []
    return _sentence(clauses)


def _all_against_base(facts: Mapping[str, Any]) -> str:
    names = [recipe["name"] for recipe in facts["recipes"]]
    better, worse, unclear = _sorted({name: _difference(facts, name, BASE) for name in names})
    clauses = [f"better than the base: {', '.join(better)}"] if better else []
    clauses += [f"worse than the base: {', '.join(worse)}"] if worse else []
    clauses += [f"no difference from the base could be seen: {', '.join(unclear)}"] if unclear else []
    return _sentence(clauses)


def _sorted(differences: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Names with their figures, of differences above zero, below it, and those that chance could give."""
    above: list[str] = []
    below: list[str] = []
    unclear: list[str] = []
    for name, of in differences.items():
        low, high = of["interval"]
        text = f"{name} by {words.change(of['difference'], of['interval'])}"
        (above if low > 0 else below if high < 0 else unclear).append(text)
    return above, below, unclear


def _sentence(clauses: Sequence[str]) -> str:
    """Clauses as one sentence; the first keeps its letter where it is a recipe's name."""
    text = "; ".join(clauses) + "."
    return text[0].upper() + text[1:] if text.startswith(("between ", "better ", "worse ", "no ")) else text


def _of_seeds(count: int, facts: Mapping[str, Any]) -> str:
    return f"{count} of {facts['seeds']}"
