"""Charts of the slices: each group's difference with its interval, all dimensions on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from m3tune.report import words
from m3tune.report.charts import forest_plot, interval_of

_GROUP_CHARACTERS = 20


class SliceChart(NamedTuple):
    """The chart of one dimension, and the names of its groups that are too small to be in it."""

    dimension: str
    svg: Markup
    too_few: list[str]


def slice_charts(errors: Mapping[str, Any]) -> list[SliceChart]:
    """A chart of every dimension that has a group large enough; bold is what differs from the rest."""
    by_dimension: dict[str, list[Mapping[str, Any]]] = {}
    for row in errors["slices"]:
        by_dimension.setdefault(row["dimension"], []).append(row)
    ends = [end for row in errors["slices"] if row["ci95"] for end in row["ci95"]]
    reach = (min(ends, default=0.0), max(ends, default=0.0))
    charts = []
    for dimension, rows in by_dimension.items():
        told = [interval_of(_name(row), row, emphasis=row["differs"]) for row in rows if row["ci95"]]
        if told:
            svg = forest_plot(told, title=dimension, x_label=f"difference of {errors['metric']}", reach=reach)
            too_few = [f"{row['group']} ({row['queries']:,})" for row in rows if not row["ci95"]]
            charts.append(SliceChart(dimension, Markup(svg), too_few))
    return charts


def _name(row: Mapping[str, Any]) -> str:
    return f"{words.cut(row['group'], _GROUP_CHARACTERS)} ({row['queries']:,})"
