"""Charts and numbers of the report, without a run."""

import itertools
import re

import pytest

from m3tune.report import words
from m3tune.report.charts import (
    Interval,
    Line,
    Mark,
    forest_plot,
    line_chart,
    nice_ticks,
    scatter_plot,
    small_chart,
    tick_label,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.6454, "0.645"), (0.0, "0.000"), (-0.0, "0.000"), (-0.00031, "-0.0003"), (1e-9, "0.000"), (None, "–")],
)
def test_number(value, expected):
    assert words.number(value) == expected


def test_signed_p_duration_and_cut():
    assert [words.signed(value) for value in (0.0671, -0.0671, 0.0)] == ["+0.067", "-0.067", "0.000"]
    assert [words.p_value(value) for value in (0.0001, 0.001, 1.0)] == ["<0.001", "0.001", "1.000"]
    assert [words.duration(s) for s in (0.5, 42, 59.7, 61, 3700)] == [
        "0.5 s",
        "42 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 1 min",
    ]
    assert (words.cut("abcde", 5), words.cut("abcdef", 5)) == ("abcde", "abcd…")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.61, 0.63), (1, 1), (0, 0), (-3, 12_345), (1e-6, 2e-5), (5, 5.0001)]
)
def test_ticks_enclose_and_are_even(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 3 <= len(ticks) <= 12
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    labels = [tick_label(tick, steps[0]) for tick in ticks]
    assert len(set(labels)) == len(labels)


def test_charts_stand_alone():
    assert line_chart([], title="Loss", x_label="step") == ""
    assert forest_plot([], title="x", x_label="y") == ""
    long = [[step, 1 / (step + 1)] for step in range(10_000)]
    svg = line_chart(long, title="Loss <b>", x_label="step")
    assert "<b>" not in svg
    assert svg.count(",") < 1000
    single = line_chart([[3, 0.5]], title="Dev", x_label="step", reference=(0.5, "base"), marked=[3, 0.5])
    assert "nan" not in single
    rows = [
        Interval("nDCG@10", 0.1, 0.05, 0.15, "+0.1"),
        Interval("RR@10", 0, 0, 0, "0"),
        Interval("P", -1, -1, -1, ""),
    ]
    tones = re.findall(r'class="interval (\w+)"', forest_plot(rows, title="x", x_label="y"))
    assert tones == ["good", "neutral", "bad"]


def test_a_small_chart_has_a_line_and_a_band_for_each_of_its_lines():
    rising = [[1, 0.0], [2, 1.0], [3, 2.0]]
    svg = small_chart([Line("up", rising, [0.5] * 3), Line("none", []), Line("down", rising[::-1])], title="T <b>")
    assert svg.count("<polyline") == 2
    (band,) = re.findall(r'<polygon class="band line-1" points="([^"]+)"', svg)
    assert len(band.split()) == 6
    heights = [float(point.split(",")[1]) for point in band.split()]
    assert heights[0] < heights[-1], "the upper side first, and up is a smaller number"
    assert "T &lt;b&gt;: up from 0 at step 1 to 2 at step 3; down" in svg
    assert small_chart([Line("x", [])], title="t") == ""
    zero = Line("x", [[1, 0.0], [2, 0.0]])
    assert ">-1<" in small_chart([zero], title="t")
    assert ">-1<" not in small_chart([zero], title="t", least=0.0), "a share has no room below zero"
    assert "<svg" in small_chart([Line("x", [[0, -2.0], [1, -1.0]])], title="t", least=0.0), "nor has what lies there"
    assert 'class="dot line-1"' in small_chart([Line("x", [[4, 1.0]], [0.1])], title="t")


def test_a_scatter_plot_places_points_by_both_axes():
    marks = [Mark("a", 0.0, 0.2), Mark("b <x>", 0.5, 0.6, ringed=True), Mark("c", 1.0, 0.4)]
    svg = scatter_plot(marks, title="t", labels=("x", "y"), reference=(0.3, "floor"))
    places = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[0][1] > places[2][1] > places[1][1], "up is more"
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert svg.count('class="ring"') == 1
    assert f'class="ring" cx="{places[1][0]}"' in svg
    assert "b &lt;x&gt;" in svg
    floor = float(re.search(r'class="reference"[^>]*y1="([\d.]+)"', svg)[1])
    assert (places[0][1] + places[2][1]) / 2 == pytest.approx(floor, abs=0.2), "half way between 0.2 and 0.4"
    assert "floor" in svg
    assert scatter_plot([marks[0]], title="t", labels=("x", "y"), reference=(0.2, "f")).count('class="dot"') == 1


def test_names_of_points_that_lie_close_together_do_not_cover_each_other():
    marks = [Mark("base", 0.609, 0.7983), Mark("merged 0.3", 0.631, 0.7998), Mark("merged 0.5", 0.646, 0.7989)]
    marks += [Mark("merged 0.7", 0.651, 0.7969), Mark("merged 0.85", 0.669, 0.7884), Mark("tuned", 0.679, 0.7854)]
    svg = scatter_plot(marks, title="t", labels=("x", "y"), reference=(0.7823, "tolerance"))
    found = re.findall(r'class="axis name" x="([\d.]+)" y="([\d.]+)" text-anchor="middle">([^<]+)<', svg)
    assert [name for *_, name in found] == [mark.name for mark in marks]
    wide = [3.3 * len(name) for *_, name in found]  # half of it
    boxes = [(float(x) - w, float(x) + w, float(y) - 10, float(y)) for (x, y, _), w in zip(found, wide, strict=True)]
    for one, other in itertools.combinations(boxes, 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2], (one, other)
    assert all(left >= 0 and right <= 400 for left, right, *_ in boxes)
