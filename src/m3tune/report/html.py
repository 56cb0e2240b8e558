"""The report as one self-contained page: nothing is loaded from elsewhere, and no text of the data becomes markup."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m3tune.artifact import write_json
from m3tune.report import words
from m3tune.report.charts import Interval, forest_plot, line_chart
from m3tune.report.curves import small_multiples
from m3tune.report.gather import cut, gather

_TEMPLATE = "template.html.j2"


def write_report(run_folder: Path) -> Path:
    """Write `report.html`, and `report.json` with the same facts, into a finished run; returns the page's path.

    Raises ArtifactError or DataError where `run_folder` is not a finished run.
    """
    data = gather(run_folder)
    write_json(run_folder / "report.json", data)
    page = run_folder / "report.html"
    beside = page.with_name(page.name + ".partial")
    beside.write_text(render(data), encoding="utf-8")
    os.replace(beside, page)
    return page


def render(data: Mapping[str, Any]) -> str:
    """The page of what `gather` returned."""
    environment = Environment(
        loader=PackageLoader("m3tune.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "signed": words.signed,
        "interval": words.interval,
        "p_value": words.p_value,
        "rank": words.rank,
        "duration": words.duration,
        "cut": cut,
    }
    template = environment.get_template(_TEMPLATE)
    return template.render(
        data=data,
        verdict=data["verdict"],
        headline=words.headline(data),
        meaning=words.meaning(data).replace(" %", "\N{NO-BREAK SPACE}%"),
        next_step=words.next_step(data),
        words_win=words.words_win(data),
        delivered=words.delivered(data),
        charts={name: Markup(svg) for name, svg in _charts(data).items()},
        multiples=small_multiples(data["training"]["health"]),
    )


def _charts(data: Mapping[str, Any]) -> dict[str, str]:
    training, main = data["training"], data["verdict"]["metric"]
    intervals = [
        Interval(
            label=row["metric"],
            difference=row["difference"],
            low=row["ci95"][0],
            high=row["ci95"][1],
            words=f"{words.signed(row['difference'])} {words.interval(row['ci95'])}",
            emphasis=row["metric"] == main,
        )
        for row in data["metrics"]
    ]
    best = [training["best_step"], training["best"]]
    return {
        "forest": forest_plot(intervals, title="Difference with 95 % interval", x_label="tuned minus base"),
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
