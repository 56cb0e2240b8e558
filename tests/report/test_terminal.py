"""Tables in a terminal of any width: no column and no number is lost, and no word of a name is broken."""

import io

import pytest
from rich.console import Console

from m3tune.evaluation.compare import Comparison, MetricComparison
from m3tune.evaluation.store import Evaluation
from m3tune.report.terminal import print_comparison, print_evaluations, print_prepared

METRICS = ("nDCG@10", "RR@10", "AP@100", "Success@1", "Recall@10", "Recall@100")
HEADS = ("dense", "sparse", "multi", "hybrid", "rrf")


def printed(width, show, *arguments):
    console = Console(record=True, width=width, file=io.StringIO())
    show(console, *arguments)
    return console.export_text()


def rows_of(text):
    """The words of each line, without the lines of a table."""
    return [line.split() for line in text.splitlines() if line.strip(" ─")]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_comparison_has_every_metric_with_all_its_figures(width):
    items = [MetricComparison(name, 0.5, 0.625, 0.125, (-0.25, 0.375), 0.062, 16, 7, 8, 31) for name in METRICS]
    rows = rows_of(printed(width, print_comparison, Comparison(tuple(items), "nDCG@10")))
    figures = ["0.500", "0.625", "+0.125", "[-0.250,", "0.375]", "0.062", "16", "7", "8"]
    assert rows[0] == ["metric", "base", "tuned", "difference", "95", "%", "interval", "p", "won", "tied", "lost"]
    assert rows[1:7] == [[name, *figures] for name in METRICS]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_an_evaluation_has_every_head_metric_and_the_number_of_queries(width):
    per_query = {name: {f"q{i}": 0.5 for i in range(15)} for name in METRICS}
    rows = rows_of(printed(width, print_evaluations, [Evaluation("m3", head, {}, per_query) for head in HEADS]))
    assert rows[0] == ["model", "head", *METRICS, "queries"]
    assert rows[1:] == [["m3", head, *["0.500"] * 6, "15"] for head in HEADS]


def test_a_comparison_fits_into_80_columns():
    items = [MetricComparison(name, 0.5, 0.625, -0.125, (-0.25, -0.375), 0.062, 160, 70, 80, 310) for name in METRICS]
    lines = printed(80, print_comparison, Comparison(tuple(items), "nDCG@10")).splitlines()
    assert max(len(line.rstrip()) for line in lines[:9]) <= 80


def test_a_name_of_several_words_gives_way_before_a_number_does(tmp_path):
    of = {"median": 80_003.0, "p90": 80_003.0}
    row = {"feature": "passage length", "train": of, "dev": of, "test": of}
    row["tests"] = {side: {"p_value": 1.0} for side in ("dev", "test")}
    rows = rows_of(printed(40, print_prepared, tmp_path, {}, [row]))
    assert rows[1] == ["passage", *["80,003", "(80,003)"] * 3, "1.000", "1.000"]
    assert rows[2] == ["length"]
