import json
import re

import pytest

from m3tune.config import DataConfig
from m3tune.data.lengths import histogram
from m3tune.pipeline import silent
from m3tune.preparation import prepare
from m3tune.report.charts import histogram_chart
from m3tune.report.data_page import write_data_page

HOSTILE = '<script>alert("1")</script>'


@pytest.fixture
def prepared(tmp_path):
    rows = [{"query": f"question number {i} {HOSTILE}?", "pos": [f"the answer to {i} is a word"]} for i in range(40)]
    rows += [rows[3], {"query": "bad", "pos": [""]}, {"query": "odd", "pos": ["an answer"], "color": "red"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(DataConfig(path=str(file), skip_bad=True), tmp_path / "out", silent)
    return tmp_path / "out"


def test_page_shows_what_was_kept_and_what_is_wrong(prepared):
    text = (prepared / "data.html").read_text()
    cells = re.findall(r"<t[hd][^>]*>\s*(.*?)\s*</t[hd]>", text, re.DOTALL)
    at = cells.index("row")
    assert cells[at : at + 6] == ["row", "43", "41", "1", "1", "1 empty-text"]
    assert "41 passages" in text
    assert "key &#39;color&#39; (1)" in text
    for finding in json.loads((prepared / "findings.json").read_text()):
        assert f"<code>{finding['code']}</code>" in text
    assert "rejected-records" in text
    assert "query length" in text
    assert text.count("<svg") == 2


def test_text_of_the_data_is_never_markup(prepared):
    text = (prepared / "data.html").read_text()
    assert HOSTILE not in text
    assert "default-src 'none'" in text


def test_page_can_be_written_again(prepared):
    page = prepared / "data.html"
    before = page.read_bytes()
    page.unlink()
    assert write_data_page(prepared) == page
    assert page.read_bytes() == before


def test_histogram_counts_every_text_once():
    lengths = [0, 1, 1, 7, 9, 10, 99, 100, 1000, 123_456]
    result = histogram(lengths)
    assert sum(result["counts"]) == len(lengths)
    assert len(result["edges"]) == len(result["counts"]) + 1
    assert (result["edges"][0], result["longest"], result["median"]) == (0, 123_456, 9.5)
    assert result["edges"] == sorted(set(result["edges"]))
    assert result["counts"][0] == 1  # only the empty text
    assert histogram([]) == {}


@pytest.mark.parametrize("lengths", [[1], [0], [5] * 9, list(range(3000))])
def test_histogram_chart_has_a_bar_a_bin(lengths):
    result = histogram(lengths)
    chart = histogram_chart(result, title="Queries")
    assert chart.count("<rect") == len(result["counts"])
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"><title>', chart)]
    tallest = max(range(len(heights)), key=heights.__getitem__)
    assert result["counts"][tallest] == max(result["counts"])
