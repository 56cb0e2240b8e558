"""What the report says of a model with several heads."""

from dataclasses import replace

import pytest
from finished import make_run, terminal_text

from m3tune.artifact import read_json, write_json
from m3tune.evaluation.store import load_evaluations, save_evaluations
from m3tune.report.gather import gather
from m3tune.report.html import render
from m3tune.report.terminal import print_verdict


@pytest.fixture
def with_heads(tmp_path):
    """A run whose tuned model has three heads and whose base has one."""
    folder = make_run(tmp_path / "run")
    (tuned,) = load_evaluations(folder / "tuned")
    heads = ("dense", "sparse", "multi", "hybrid", "rrf")
    how = {head: "every passage" for head in heads} | {"multi": "the best 200 by <dense>"}
    save_evaluations(folder / "tuned", [replace(tuned, head=head) for head in heads], how)
    write_json(folder / "verdict.json", read_json(folder / "verdict.json") | {"head": "hybrid"})
    rows = read_json(folder / "comparison.json")
    sides = [("bm25", "bm25", "hybrid"), ("base", "dense", "dense")]
    write_json(folder / "heads.json", [
        {"first": {"name": name, "head": first}, "second": {"name": "tuned", "head": second}, "metrics": rows}
        for name, first, second in sides
    ])  # fmt: skip
    point = {"shares": {"dense": 0.3, "sparse": 0.7}, "weights": {"dense": 0.1, "sparse": 0.9}, "value": 0.625}
    tuning = {"metric": "nDCG@10", "default": point | {"value": 0.5}, "best": point, "grid": [point, point]}
    (folder / "select" / "tuned").mkdir()
    write_json(folder / "select" / "tuned" / "hybrid.json", tuning)
    return folder


def test_heads_stand_in_the_page_with_what_they_were_compared_with(with_heads):
    data = gather(with_heads)
    assert [row["head"] for row in data["heads"]["means"]] == ["dense", "sparse", "multi", "hybrid", "rrf"]
    assert data["heads"]["means"][1]["base"] is None
    page = render(data)
    for words_of in ("hybrid vs BM25", "dense vs base dense", "the base model by dense, the tuned one by hybrid"):
        assert words_of in page
    assert "share of the sparse head, percent" in page
    assert "sparse 0.9" in page
    assert "0.500 before, 0.625 with these" in page
    assert "&lt;dense&gt;" in page


def test_heads_stand_in_the_terminal_and_a_dense_run_says_nothing_of_them(with_heads, tmp_path):
    text = terminal_text(print_verdict, with_heads)
    assert "measured: the base model by dense, the tuned one by hybrid" in text
    assert "  hybrid vs BM25: nDCG@10 " in text
    assert "m3tune search" in text
    plain = make_run(tmp_path / "plain")
    assert "measured:" not in terminal_text(print_verdict, plain)
    assert gather(plain)["heads"] is None
    assert 'id="heads"' not in render(gather(plain))
