"""The report as one self-contained page: nothing is loaded from elsewhere, and no text of the data becomes markup."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from m3tune.artifact import read_json, write_json
from m3tune.data.store import load_collection
from m3tune.diagnose.error_analysis import write_errors
from m3tune.evaluation.select import BASE
from m3tune.report import error_words, selection_words, settings, verdict_words, words
from m3tune.report.card import write_card
from m3tune.report.charts import Mark, forest_plot, interval_of, line_chart, scatter_plot
from m3tune.report.curves import small_multiples
from m3tune.report.error_charts import slice_charts
from m3tune.report.gather import gather
from m3tune.report.page import environment, write_page

_TEMPLATE = "template.html.j2"


def write_report(run_folder: Path) -> Path:
    """Write `report.html`, and `report.json` with the same facts, into a finished run; returns the page's path.

    What went wrong with which queries is worked out first and goes to `errors.json`. The delivered model gets its card.
    Raises ArtifactError or DataError where `run_folder` is not a finished run.
    """
    read_json(run_folder / "verdict.json")  # whose error says that this is no finished run
    collection = load_collection(run_folder / "data")
    write_errors(run_folder, collection)
    data = gather(run_folder, collection)
    write_json(run_folder / "report.json", data)
    page = run_folder / "report.html"
    write_page(page, render(data))
    if (run_folder / "model").is_dir():
        write_card(run_folder / "model", data)
    return page


def render(data: Mapping[str, Any]) -> str:
    """The page of what `gather` returned."""
    facts = {
        "data": data,
        "verdict": data["verdict"],
        "headline": verdict_words.headline(data),
        "meaning": verdict_words.meaning(data).replace(" %", "\N{NO-BREAK SPACE}%"),
        "next_step": verdict_words.next_step(data),
        "words_win": verdict_words.words_win(data),
        "measured_by": verdict_words.measured_by(data),
        "delivered": verdict_words.delivered(data),
        "rule": selection_words.rule(data["selection"]),
        "retention": selection_words.retention(data["selection"]),
        "search": _search(data["search"]),
        "charts": {name: Markup(svg) for name, svg in _charts(data).items()},
        "multiples": small_multiples(data["training"]["health"]),
        "errors": error_words.of_page(data),
        "slice_charts": slice_charts(data["errors"]) if data["errors"] and data["chosen"] != BASE else [],
        "shares": [(head, Markup(svg)) for head, svg in _share_charts(data).items()],
    }
    return environment().get_template(_TEMPLATE).render(facts)


def _charts(data: Mapping[str, Any]) -> dict[str, str]:
    training, main = data["training"], data["verdict"]["metric"]
    intervals = [interval_of(row["metric"], row, emphasis=row["metric"] == main) for row in data["metrics"]]
    compared = [
        interval_of(verdict_words.pair(pair), pair, emphasis=False)
        for pair in (data["heads"] or {"compared": ()})["compared"]
    ]
    best = [training["best_step"], training["best"]]
    return {
        "forest": forest_plot(intervals, title="Difference with 95 % interval", x_label="tuned minus base"),
        "heads": forest_plot(compared, title="Difference with 95 % interval", x_label=f"difference of {main}"),
        "pareto": _pareto(data["selection"]),
        "loss": line_chart(training["loss"], title="Loss", x_label="optimizer step"),
        "learning_rate": line_chart(training["learning_rate"], title="Learning rate", x_label="optimizer step"),
        "dev": line_chart(
            training["dev"],
            title=f"Development {training['metric']}",
            x_label="optimizer step",
            reference=(training["base"], "base"),
            marked=best if best in training["dev"] else None,
            dots=True,
        ),
    }


def _search(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of a search for settings."""
    if found is None:
        return None
    return {
        "rule": settings.rule(found),
        "lines": [f"{line[0].upper()}{line[1:]}." for line in settings.in_words(found)],
        "names": settings.names(found),
        "rows": settings.rows(found),
        "chart": Markup(settings.parallel_chart(found)),
    }


def _pareto(selection: Mapping[str, Any]) -> str:
    """Development against retention metric of every candidate; empty where there is no retention data."""
    if not selection["retention"]:
        return ""
    base, metric = selection["candidates"][0], selection["metric"]
    floor = base["retention"] * (1 - selection["retention_tolerance"])
    marks = [
        Mark(row["name"], row["dev"], row["retention"], row["name"] == selection["chosen"])
        for row in selection["candidates"]
    ]
    labels = (f"development {metric}", f"retention {metric}")
    return scatter_plot(marks, title="What is gained and lost", labels=labels, reference=(floor, "tolerance"))


def _share_charts(data: Mapping[str, Any]) -> dict[str, str]:
    """Head -> a chart of the best development metric at each share that it may have in the hybrid."""
    tuning = data["hybrid"]
    charts: dict[str, str] = {}
    for head in tuning["best"]["shares"] if tuning else ():
        best: dict[float, float] = {}
        for point in tuning["grid"]:
            share = 100 * point["shares"][head]
            best[share] = max(point["value"], best.get(share, 0.0))
        charts[head] = line_chart(
            sorted(best.items()),
            title=f"Development {tuning['metric']} by the share of the {words.head(head)} head",
            x_label=f"share of the {words.head(head)} head, percent",
            reference=(tuning["default"]["value"], "before"),
            dots=True,
            at_words="percent",
        )
    return charts
