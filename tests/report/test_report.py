"""What the report says of a fabricated run."""

import json
import re
import shutil

import pytest
from finished import QUERIES, RANKS, Page, make_collection, make_evaluation, make_run, terminal_text

from m3tune.artifact import read_json
from m3tune.data import store as store_module
from m3tune.evaluation.compare import compare
from m3tune.evaluation.metrics import mean
from m3tune.recipe import build_recipe
from m3tune.report import verdict_words, words
from m3tune.report.gather import gather
from m3tune.report.html import render, write_report
from m3tune.report.terminal import print_comparison, print_evaluations, print_verdict


def test_gather_equals_the_artefacts(better):
    data = gather(better)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["verdict"] == json.loads((better / "verdict.json").read_text())
    assert data["verdict"]["verdict"] == "better"
    rows = json.loads((better / "comparison.json").read_text())
    bm25 = json.loads((better / "bm25" / "metrics.json").read_text())["bm25"]
    assert data["metrics"] == [row | {"bm25": bm25[row["metric"]]} for row in rows]
    assert data["recipe"] == (better / "resolved.toml").read_text()
    assert data["seconds"] == {"data": 0.5, "base": 75, "train": 3700, "select": 20, "tuned": 70}
    assert data["versions"] == {"python": "3.11.2", "m3tune": "0.1.0"}
    assert data["data"]["counts"]["test"] == QUERIES
    assert data["data"]["base_counts"]["passages_cut"] == 56
    assert data["data"]["train_counts"]["queries_cut"] == 1
    assert data["data"]["shared"] == [{"side": "train", "other": "test", "how": "sharing_a_passage_with", "queries": 3}]
    assert data["queries_needed"] is None


def test_a_report_reads_the_collection_once_and_the_terminal_what_it_found(better, tmp_path, m3tune, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(better, folder)
    opened, read = [], store_module._read
    monkeypatch.setattr(store_module, "_read", lambda *of: (opened.append(of[0].name), read(*of))[1])
    code, printed, _ = m3tune("report", folder)
    assert code == 0
    assert sorted(opened) == ["judgments.parquet", "negatives.parquet", "passages.parquet", "queries.parquet"]
    assert " ".join(terminal_text(print_verdict, folder).split()) == " ".join(printed.split())
    assert read_json(folder / "report.json") == gather(folder)


def test_the_report_of_what_is_no_finished_run_says_so(tmp_path, m3tune):
    code, _, said = m3tune("report", tmp_path)
    assert code == 2
    assert "is this the directory of a finished run?" in said


def test_curves_begin_with_the_base_and_leave_out_what_is_not_finite(better):
    training = gather(better)["training"]
    assert training["loss"] == [[1, 2.5], [5, 1.5]]
    assert training["learning_rate"] == [[1, 1e-5], [5, 2e-5], [10, 0.0]]
    assert training["dev"] == [[0, 0.5], [5, 0.61], [10, 0.6]]
    assert (training["best_step"], training["steps"], training["tokens_per_s"]) == (5, 10, 1000.0)


def test_rank_changes_by_hand(better):
    ranks = gather(better)["rank_changes"]
    assert ranks["buckets"] == ["1", "2-3", "4-10", "11-20", "none"]
    # Of every five queries: 3 -> 1, 2 -> 1, none -> 2, 11 -> 4 and 1 -> 1.
    assert ranks["counts"] == [[8, 0, 0, 0, 0], [16, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 8, 0, 0], [0, 8, 0, 0, 0]]
    assert (ranks["improved"], ranks["unchanged"], ranks["worsened"]) == (32, 8, 0)


def test_changed_queries(better):
    data = gather(better)
    assert data["lost"] == []
    # None to rank 2 is the largest gain of nDCG, 1 / log2(3); there are eight of them.
    assert [card["query_id"] for card in data["gained"][:8]] == [f"q{i}" for i in range(2, QUERIES, 5)]
    assert len(data["gained"]) == 10
    card = data["gained"][0]
    assert (card["text"], card["base"], card["relevant_total"]) == ("question 2", 0.0, 1)
    assert card["difference"] == pytest.approx(card["tuned"]) == pytest.approx(0.63093, abs=1e-5)
    (relevant,) = card["relevant"]
    assert (relevant["title"], relevant["text"], relevant["grade"]) == ("Title 2", "relevant 2", 1)
    assert (relevant["base_rank"], relevant["tuned_rank"]) == (None, 2)
    assert [passage["passage_id"] for passage in card["base_top"]] == ["f0", "f1", "f2"]
    assert [(p["passage_id"], p["grade"]) for p in card["tuned_top"]] == [("f0", None), ("r2", 1), ("f1", None)]


@pytest.mark.parametrize("kind", RANKS)
def test_every_verdict_has_its_page_and_its_line(tmp_path, kind):
    folder = make_run(tmp_path / "run", kind)
    page = write_report(folder)
    data = json.loads((folder / "report.json").read_text())
    assert data["verdict"]["verdict"] == kind
    assert (data["queries_needed"] is not None) == (kind == "inconclusive")
    text = Page(page.read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    assert verdict_words.headline(data) in text
    assert verdict_words.meaning(data) in text
    assert verdict_words.next_step(data) in text
    assert "This test asks new questions about known documents. 3 training queries" in " ".join(text.split())
    assert f"delivered: {'base' if kind == 'worse' else 'tuned, checkpoint 5'}" in verdict_words.sentence(data)
    assert verdict_words.sentence(data) in terminal_text(print_verdict, folder)


def test_one_better_sentence_in_full(better):
    data = gather(better) | {"verdict": gather(better)["verdict"] | {"base": 0.6454, "tuned": 0.7119}}
    data["verdict"] |= {"difference": 0.0665, "ci95": [0.041, 0.094], "queries": 300, "checkpoint": 40}
    expected = "nDCG@10 0.645 -> 0.712, +0.067 [0.041, 0.094], 300 queries; delivered: tuned, checkpoint 40"
    assert verdict_words.sentence(data) == expected
    removed = {"known relevant": 9, "score near the positive's": 1200, "the teacher's score": 30}
    mined = verdict_words.sentence(data | {"negatives": {"removed": removed}})
    assert mined == expected.replace("; ", "; 1,230 suspected false negatives left out; ")
    printed = terminal_text(print_verdict, data)
    assert expected in printed
    assert str(better / "report.html") in printed
    assert f'SentenceTransformer("{better / "model"}")' in printed


@pytest.mark.parametrize(
    ("queries_needed", "words_there"),
    [(20_374, "About 21,000 test queries"), (None, "More test queries"), (30, "at the edge"), (101, "About 110 test")],
)
def test_next_step_of_an_inconclusive_run(better, queries_needed, words_there):
    data = gather(better)
    data |= {"queries_needed": queries_needed, "verdict": data["verdict"] | {"verdict": "inconclusive"}}
    assert words_there in verdict_words.next_step(data)


def test_next_step_names_a_curve_that_still_rose(better):
    data = gather(better)
    assert "train.epochs" not in verdict_words.next_step(data)
    data["training"]["best_step"] = data["training"]["steps"]
    assert "train.epochs" in verdict_words.next_step(data)


def test_nothing_better_than_the_base(tmp_path):
    folder = make_run(tmp_path / "run", chosen="base")
    text = Page(write_report(folder).read_text()).text
    assert "Training found nothing better than the base model." in text
    assert "No query gained." in text
    assert "No query lost." in text
    assert "delivered: base, because no checkpoint beat it on development data" in terminal_text(print_verdict, folder)


def test_without_bm25(tmp_path):
    folder = make_run(tmp_path / "run", bm25=False)
    assert "BM25" not in Page(write_report(folder).read_text()).text.replace("bm25", "")
    assert "BM25" not in terminal_text(print_verdict, folder)


def test_without_manifests_settings_and_log(tmp_path):
    folder = make_run(tmp_path / "run")
    for path in (*folder.glob("*/manifest.json"), folder / "train" / "log.jsonl", folder / "base" / "settings.json"):
        path.unlink()
    data = gather(folder)
    assert (data["seconds"], data["versions"], data["training"]["loss"]) == ({}, {}, [])
    assert data["training"]["dev"] == [[0, 0.5]]
    assert "<h3>Loss</h3>" not in write_report(folder).read_text()


def test_hostile_text_is_text(tmp_path):
    script = '<script>alert("m3tune")</script><img src=https://example.com/x.png onerror=alert(1)>'
    texts = {"q2": script, "r2": script + "\x00‮ עברית", "f0": "w" * 1_000_000, "f1": "{{ 7 * 7 }} </details>"}
    folder = make_run(tmp_path / "run", texts=texts)
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert page.unclosed == []
    assert "<script" not in html
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert script in page.text
    assert "{{ 7 * 7 }} </details>" in page.text
    assert len(html) < 200_000
    assert "w" * 399 + "…" in page.text


def test_nothing_is_loaded_from_elsewhere(better):
    html = write_report(better).read_text(encoding="utf-8")
    loading = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
    named = [(tag, name, value) for tag, attributes in Page(html).tags for name, value in attributes.items()]
    # A link to the page beside it is followed by a person, not loaded.
    assert [item for item in named if item[1] in loading] == [("a", "href", "data/data.html")]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in html
    assert '<html lang="en">' in html


def test_evaluations_and_comparison_in_the_terminal(better):
    recipe = build_recipe({"data": {"path": "x"}, "model": {"path": "y"}, "evaluate": {"resamples": 200}})
    config = recipe.evaluate.model_copy(update={"metrics": ("nDCG@10", "RR@10")})
    collection, ids = make_collection({}), [f"q{i}" for i in range(QUERIES)]
    base, tuned = (
        make_evaluation(name, collection, ids, ranks, config)
        for name, ranks in zip(("[bold]base", "tuned"), RANKS["better"], strict=True)
    )
    printed = terminal_text(print_evaluations, [base, tuned])
    assert "[bold]base" in printed
    assert words.number(mean(base.per_query)["RR@10"]) in printed
    comparison = compare(base.per_query, tuned.per_query, {q: n for n, q in enumerate(ids)}, config)
    printed = terminal_text(print_comparison, comparison)
    row = next(line for line in printed.splitlines() if "nDCG@10" in line)
    assert words.signed(comparison.main.difference) in row
    assert row.split()[-3:] == ["32", "8", "0"]


def test_a_warning_where_bm25_finds_more_than_the_model(better):
    data = gather(better)
    main = next(row for row in data["metrics"] if row["metric"] == data["verdict"]["metric"])
    for bm25, warned in ((main["tuned"] + 0.01, True), (main["tuned"], False), (None, False)):
        rows = [row | {"bm25": bm25} if row is main else row for row in data["metrics"]]
        changed = data | {"metrics": rows}
        assert bool(verdict_words.words_win(changed)) == warned
        assert ("Words alone do better" in render(changed)) == warned
