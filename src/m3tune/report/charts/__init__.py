"""Inline SVG from numbers. Colours come from the page's CSS variables, so that one chart serves light and dark."""

from m3tune.report.charts.axes import Point, nice_ticks, svg, tick_label
from m3tune.report.charts.forest import Interval, forest_plot, interval_of
from m3tune.report.charts.histograms import histogram_chart, score_chart
from m3tune.report.charts.lines import Line, line_chart, small_chart
from m3tune.report.charts.scatter import Mark, scatter_plot

__all__ = [
    "Interval",
    "Line",
    "Mark",
    "Point",
    "forest_plot",
    "histogram_chart",
    "interval_of",
    "line_chart",
    "nice_ticks",
    "scatter_plot",
    "score_chart",
    "small_chart",
    "svg",
    "tick_label",
]
