"""What the report says of slices, rankers and losses: in sentences, on the page, and in the terminal."""

import json
import shutil

import finished
import pytest
from finished import QUERIES, RANKS, Page, make_run, terminal_text

from m3tune.artifact import read_json, write_json
from m3tune.data.store import load_collection
from m3tune.diagnose.error_analysis import write_errors
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation, load_evaluations, save_evaluations
from m3tune.report import error_words
from m3tune.report.error_charts import slice_charts
from m3tune.report.gather import gather
from m3tune.report.html import render, write_report
from m3tune.report.marks import marked, words_of
from m3tune.report.page import parts
from m3tune.report.terminal import print_verdict
from tiny import MAX_TOKENS, save_tiny_encoder


@pytest.fixture(scope="module")
def worse(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("errors") / "worse", "worse")
    write_report(folder)
    return folder


def words_on(folder):
    return " ".join(Page((folder / "report.html").read_text()).text.split())


def test_errors_json_stands_in_the_run(worse):
    errors = read_json(worse / "errors.json")
    assert set(errors) == {
        "metric", "base_head", "head", "queries", "counted_passages", "slices", "disagreement", "lost",
    }  # fmt: skip
    assert (errors["queries"], errors["head"]) == (QUERIES, "dense")
    assert {row["dimension"] for row in errors["slices"]} >= {"Characters of the query"}
    for dimension in {row["dimension"] for row in errors["slices"]}:
        assert sum(row["queries"] for row in errors["slices"] if row["dimension"] == dimension) == QUERIES
    assert sum(pattern["queries"] for pattern in errors["disagreement"]["patterns"]) == QUERIES
    assert len(errors["lost"]) == 10
    data = gather(worse)
    assert [card["query_id"] for card in data["lost"]] == [loss["query_id"] for loss in errors["lost"]]
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_a_lost_query_shows_what_overtook_it_and_why(worse):
    card = gather(worse)["lost"][0]  # from rank 2 out of sight: the first filler was above before, the second was not
    assert (card["relevant"][0]["base_rank"], card["relevant"][0]["tuned_rank"]) == (2, None)
    assert (card["pushed_by"]["passage_id"], card["pushed_by"]["base_rank"]) == ("f1", 3)
    assert [hint["code"] for hint in card["hints"]] == ["unjudged", "rare words"]
    text = words_on(worse)
    assert "What overtook it rank 3 → 2" in text
    assert "above it in the top 10, judged by nobody: 10 passages; one may answer too" in text
    assert gather(worse)["gained"] == [] or "pushed_by" in gather(worse)["gained"][0]


def test_cut_passages_are_a_slice_and_a_hint(tmp_path):
    texts = {f"r{i}": "c01 " * (MAX_TOKENS if i < 30 else 3) for i in range(QUERIES)}
    folder = make_run(tmp_path / "run", "worse", texts=texts)
    save_tiny_encoder(folder / "model")
    errors = read_json(write_errors(folder, load_collection(folder / "data")))
    rows = {row["group"]: row["queries"] for row in errors["slices"] if row["dimension"] == "Relevant passage"}
    assert rows == {"read whole": 10, "cut": 30}
    for loss in errors["lost"]:
        codes = [hint["code"] for hint in loss["hints"]]
        assert ("truncated" in codes) == (int(loss["query_id"].removeprefix("q")) < 30)
    assert {"truncated" in [hint["code"] for hint in loss["hints"]] for loss in errors["lost"]} == {True, False}


def test_words_of_the_query_are_marked(tmp_path):
    texts = {"q2": "how do striped zebras sleep", "r2": "Zebras, striped <b>animals</b>, sleep standing"}
    folder = make_run(tmp_path / "run", texts=texts)
    html = write_report(folder).read_text()
    assert "<mark>Zebras</mark>, <mark>striped</mark> &lt;b&gt;animals&lt;/b&gt;, <mark>sleep</mark> standing" in html


def test_parts_escape_whatever_kind():
    hostile = "<script>zebra</script>\u202e&\x00"
    markup = parts(marked(hostile, words_of("zebra script")))
    assert "<script" not in markup
    assert markup.count("<mark>") == 3
    assert ">RLO</bdi>&amp;" in markup


def hostile_run(place):
    """Every query, passage and set has a text that would like to be markup."""
    script = '<script>alert("m3tune")</script></details><img src=x onerror=alert(1)>'
    texts = {f"{kind}{i}": f"{script} {kind} {i}" for kind in "qr" for i in range(QUERIES)}
    return make_run(place, "worse", texts=texts | {f"f{i}": f"{script}\u202e" for i in range(25)})


def test_hostile_text_of_examples_and_losses_is_text(tmp_path):
    html = write_report(hostile_run(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(html)
    assert page.unclosed == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert page.text.count("<script>") > 20


def test_hostile_groups_are_text(worse):
    data = gather(worse)
    row = {"dimension": "Set", "group": "<img src=x>" + "w" * 400, "queries": 30, "base": 0.5, "tuned": 0.2}
    row |= {"difference": -0.3, "ci95": [-0.4, -0.2], "against_rest": -0.3, "p_value": 0.001, "p_corrected": 0.01}
    data["errors"]["slices"] = [row | {"differs": True}, row | {"ci95": None, "differs": False}]
    html = render(data)
    assert Page(html).unclosed == []
    assert "<img" not in html
    assert "w" * 100 not in slice_charts(data["errors"])[0].svg


def slices_of(data, **changes):
    row = {"dimension": "Characters of the query", "group": "100 to 204", "queries": 75, "base": 0.4, "tuned": 0.3}
    row |= {"difference": -0.069, "ci95": [-0.152, 0.012], "against_rest": -0.227, "p_value": 0.0005}
    return data | {"errors": data["errors"] | {"slices": [row | changes]}}


def test_sentences_about_slices(worse):
    data = gather(worse) | {"chosen": "tuned"}
    told = error_words.slices(slices_of(data, p_corrected=0.002, differs=True))
    assert told == (
        "Of 1 groups these gained more or less than the rest, beyond chance: Characters of the query 100 to 204 "
        "(-0.069, which is 0.227 less than the rest, p 0.002)."
    )
    silent = slices_of(data, p_corrected=0.4, differs=False)
    assert error_words.slices(silent).startswith("No group gained or lost more than the rest")
    assert not any("slices:" in line for line in error_words.stands_out(silent))
    few = slices_of(data, p_corrected=None, ci95=None, differs=False)
    assert error_words.slices(few).startswith("Too few test queries")
    assert error_words.slices(data | {"chosen": "base"}).startswith("The base was kept")


@pytest.mark.parametrize(
    ("ci95", "bm25", "words"),
    [
        ((0.01, 0.05), 0.3, "The library behind your search probably offers it"),
        ((0.01, 0.05), 0.9, "BM25 alone has 0.900"),
        ((-0.01, 0.05), 0.3, "may be noise"),
        ((-0.05, -0.01), 0.3, "leave BM25 out"),
    ],
)
def test_the_next_step_says_what_the_interval_allows(worse, ci95, bm25, words):
    of = gather(worse)["errors"]["disagreement"]
    of["rankers"][1] |= {"value": bm25, "adds": 23}
    of["fusions"] = [of["fusions"][0] | {"value": 0.74, "difference": 0.02, "ci95": ci95}]
    told = error_words.next_step(of)
    assert told.startswith("BM25 finds a relevant passage in the top 10 for 23 queries where dense finds none.")
    assert words in told
    data = gather(worse)
    data["errors"]["disagreement"] = of
    assert any("fusion:" in line for line in error_words.stands_out(data)) == ("probably" in words)


def test_what_stands_out_is_said_in_the_terminal(worse):
    data = slices_of(gather(worse) | {"chosen": "tuned"}, p_corrected=0.002, differs=True)
    assert "slices: Of 1 groups these gained" in terminal_text(print_verdict, data)
    assert "slices:" not in terminal_text(print_verdict, worse)


def test_a_model_of_three_heads(tmp_path):
    folder = make_run(tmp_path / "run", "worse")
    (dense,) = load_evaluations(folder / "tuned")
    qrels = load_collection(folder / "data").qrels(dense.per_query["nDCG@10"])
    heads = [dense]
    for shift, head in enumerate(("sparse", "multi", "hybrid", "rrf"), start=1):
        run = {query_id: [*hits[shift:], *hits[:shift]] for query_id, hits in dense.run.items()}
        heads.append(Evaluation("tuned", head, run, evaluate_run(run, qrels, ("nDCG@10", "RR@10"))))
    save_evaluations(folder / "tuned", heads)
    write_json(folder / "verdict.json", read_json(folder / "verdict.json") | {"head": "hybrid"})
    write_report(folder)
    text = words_on(folder)
    assert "Rank fusion of hybrid with BM25" in text
    assert "rank fusion of dense, sparse, multi-vector and BM25" in text
    assert "dense and multi-vector" in text


def test_without_bm25_one_head_has_nothing_to_disagree_with(tmp_path):
    write_report(make_run(tmp_path / "run", bm25=False))
    assert "Where rankers disagree" not in words_on(tmp_path / "run")
    assert "Which queries gained and lost" in words_on(tmp_path / "run")


def test_where_the_base_is_kept_nothing_is_charted(tmp_path):
    folder = make_run(tmp_path / "run", chosen="base")
    write_report(folder)
    assert "The base was kept, so nothing was gained or lost" in words_on(folder)
    assert 'class="slices"' not in (folder / "report.html").read_text()


def test_a_run_of_an_older_version_is_still_told(worse, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(worse, folder)
    (folder / "errors.json").unlink()
    data = gather(folder)
    assert data["errors"] is None
    assert "Where rankers disagree" not in render(data)
    assert "worse" in terminal_text(print_verdict, folder)
    write_errors(folder, load_collection(folder / "data"))
    assert gather(folder) == gather(worse) | {"folder": str(folder)}


def test_thousands_of_queries_make_no_larger_page(worse, tmp_path, monkeypatch):
    """The page holds counts and a few examples, not queries."""
    small = len((worse / "report.html").read_text())
    monkeypatch.setattr(finished, "QUERIES", 2000)
    monkeypatch.setitem(RANKS, "worse", ([1, 1, 2, 4, 1] * 400, [3, 2, None, 11, 1] * 400))
    folder = make_run(tmp_path / "run", "worse")
    large = len(write_report(folder).read_text())
    assert large < small + 60_000
    assert read_json(folder / "errors.json")["queries"] == 2000
