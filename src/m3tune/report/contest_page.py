"""The pages about a comparison of recipes: HTML for people, Markdown to commit beside what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from m3tune.artifact import read_json
from m3tune.report import words
from m3tune.report.charts import Interval, forest_plot
from m3tune.report.contest import COMPARISON
from m3tune.report.contest_words import (
    BASE,
    CORRECTION,
    COST,
    cost_cells,
    difference_cells,
    recipe_cells,
    results_markdown,
)
from m3tune.report.page import environment, write_page

PAGE, RESULTS = "comparison.html", "results.md"
_TEMPLATE = "contest.html.j2"


def write_contest_page(folder: Path) -> Path:
    """Write `comparison.html` and `results.md` from `comparison.json`; returns the page. Raises ArtifactError."""
    facts = read_json(folder / COMPARISON)
    write_page(folder / RESULTS, results_markdown(facts))
    write_page(folder / PAGE, render_contest(facts))
    return folder / PAGE


def render_contest(facts: Mapping[str, Any]) -> str:
    """The page of what `gather_contest` returned."""
    of_base = [of for of in facts["differences"] if of["second"] == BASE]
    of_pairs = [of for of in facts["differences"] if of["second"] != BASE]
    shown = {
        "facts": facts,
        "recipes": recipe_cells(facts),
        "differences": difference_cells(facts),
        "costs": cost_cells(facts),
        "correction": CORRECTION,
        "cost": COST,
        "charts": {
            "Against the base": Markup(_forest(of_base, facts)),
            "Between recipes": Markup(_forest(of_pairs, facts)),
        },
        "version": facts["versions"].get("m3tune", ""),
    }
    return environment().get_template(_TEMPLATE).render(shown)


def _forest(differences: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    rows = [
        Interval(
            of["first"] if of["second"] == BASE else f"{of['first']} − {of['second']}",
            of["difference"],
            of["interval"][0],
            of["interval"][1],
            words.signed(of["difference"]),
            dots=of["by_seed"] if facts["seeds"] > 1 else (),
        )
        for of in differences
    ]
    return forest_plot(
        rows, title=f"Difference of {facts['metric']} with its interval among all", x_label=facts["metric"]
    )
