"""A fabricated run folder, and what the report says about it."""

import io
import itertools
import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from m3tune.artifact import read_json, write_json
from m3tune.data import store as store_module
from m3tune.data.collection import Collection
from m3tune.data.similar import exact_copies
from m3tune.data.store import save_collection
from m3tune.evaluation.compare import compare, document_groups, verdict
from m3tune.evaluation.metrics import evaluate_run, mean
from m3tune.evaluation.store import Evaluation, load_evaluations, save_evaluations
from m3tune.recipe import build_recipe, to_toml
from m3tune.report import selection_words, verdict_words, words
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
from m3tune.report.curves import small_multiples
from m3tune.report.gather import gather
from m3tune.report.html import render, write_report
from m3tune.report.terminal import print_comparison, print_evaluations, print_verdict
from m3tune.types import Hit, Judgment, Passage, Query

QUERIES, DEPTH, FILLERS = 40, 20, 25

# The rank of each query's relevant passage with the base and the tuned model; None: not found.
RANKS = {
    "better": ([3, 2, None, 11, 1] * 8, [1, 1, 2, 4, 1] * 8),
    "no worse": ([3, 1, None, 9, 1] * 8, [3, 1, None, 9, 1] * 7 + [3, 1, None, 8, 1]),
    "inconclusive": ([1, 2, 5, 1, 4] * 8, [2, 1, 1, 4, 4] * 8),
    "worse": ([1, 1, 2, 4, 1] * 8, [3, 2, None, 11, 1] * 8),
}


def make_run(folder, kind="better", *, chosen="tuned", bm25=True, texts=None, health=None, why_base="no gain"):
    """A run folder as the pipeline leaves it, with one relevant passage a query at the ranks of `kind`."""
    recipe = build_recipe(
        {
            "output": str(folder),
            "data": {"path": "data/support"},
            "model": {"path": "BAAI/bge-m3"},
            "evaluate": {"metrics": ["nDCG@10", "RR@10"], "depth": DEPTH, "resamples": 500, "bm25": bm25},
        }
    )
    config = recipe.evaluate
    collection = make_collection(texts or {})
    ids = [f"q{i}" for i in range(QUERIES)]
    base_ranks, tuned_ranks = RANKS[kind]
    base = make_evaluation("base", collection, ids, base_ranks, config)
    tuned = make_evaluation("tuned", collection, ids, tuned_ranks, config) if chosen != "base" else base
    clusters = document_groups(collection.qrels(ids), collection.canonical_passage)
    comparison = compare(base.per_query, tuned.per_query, clusters, config)
    word = verdict(comparison, config.no_worse_margin)
    main = comparison.main

    folder.mkdir(parents=True)
    (folder / "resolved.toml").write_text(to_toml(recipe), encoding="utf-8")
    save_collection(collection, folder / "data")
    write_json(folder / "data" / "similar.json", asdict(exact_copies(collection)))
    counts = {"queries": 60, "train": 12, "dev": 8, "test": QUERIES, "passages": len(collection.passages)}
    write_manifest(folder / "data", counts | {"train_sharing_a_passage_with_test": 3}, 0.5)
    save_evaluations(folder / "base", [base])
    write_manifest(
        folder / "base", {"passages": 1234, "passages_cut": 56, "test_queries": QUERIES, "test_queries_cut": 0}, 75
    )
    write_json(folder / "base" / "settings.json", {"query_max_tokens": 64, "passage_max_tokens": 512})
    if bm25:
        save_evaluations(folder / "bm25", [make_evaluation("bm25", collection, ids, [2] * QUERIES, config, "bm25")])
    (folder / "train").mkdir()
    log = [
        {"step": 1, "loss": 2.5, "learning_rate": 1e-5, "tokens_per_s": 900.0, "grad_norm": float("nan")},
        {"step": 5, "loss": 1.5, "learning_rate": 2e-5, "tokens_per_s": 1000.0},
        {"step": 5, "eval_nDCG@10": 0.61, "eval_RR@10": 0.5},
        {"step": 10, "loss": float("nan"), "learning_rate": 0.0, "tokens_per_s": 1100.0},
        {"step": 10, "eval_nDCG@10": 0.6, "eval_RR@10": 0.5},
        {"step": 10, "train_runtime": 60.0, "train_loss": 2.0},
    ]
    for line in log:
        if "loss" in line:
            line |= health(line["step"]) if health else {}
    (folder / "train" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "select").mkdir()
    write_manifest(folder / "train", {"queries": 12, "queries_cut": 1, "passages_cut": 2}, 3700)
    selection = {"chosen": chosen, "metric": "nDCG@10", "base": 0.5 if chosen != "base" else 0.7, "tuned": 0.61}
    selection |= {"checkpoint": 5, "steps": 10, "head": "dense", "base_head": "dense", "best_checkpoint": 0.61}
    selection |= selection_of(chosen, why_base)
    write_json(folder / "select" / "selection.json", selection)
    write_manifest(folder / "select", {"candidates": 3}, 20)
    save_evaluations(folder / "tuned", [tuned])
    write_manifest(folder / "tuned", {}, 70)
    write_json(folder / "comparison.json", [as_row(item) for item in comparison.metrics])
    result = {key: getattr(main, key) for key in ("metric", "base", "tuned", "difference", "p_value", "queries")}
    delivered = "base" if word == "worse" else chosen
    result |= {"ci95": list(main.ci95), "verdict": word, "delivered": delivered, "checkpoint": 5, "head": "dense"}
    write_json(folder / "verdict.json", result)
    return folder


def selection_of(chosen, why_base, retention=None):
    """What the selection stage adds to selection.json."""
    fates = dict.fromkeys(("base", "merged 0.7", "tuned"), "further") | {"base": "base", chosen: "chosen"}
    rows = [
        {
            "name": name,
            "alpha": alpha,
            "dev": 0.5 + 0.1 * alpha,
            "distance": 0.2 * alpha,
            "query_cosine": 1 - 0.1 * alpha,
            "retention": retention and retention[alpha],
            "fate": fates[name],
            "p_value": 0.01 if alpha else None,
        }
        for name, alpha in (("base", 0), ("merged 0.7", 0.7), ("tuned", 1))
    ]
    return {
        "alpha": next(row["alpha"] for row in rows if row["name"] == chosen),
        "chosen": chosen, "why_base": why_base if chosen == "base" else None, "noise": 0.32, "candidates": rows,
        "retention_tolerance": 0.02,
        "retention": retention and {"data": "data/general", "queries": 100, "passages": 900},
    }  # fmt: skip


def make_collection(texts):
    """Queries q0.. with one relevant passage r0.. each, and fillers; `texts` replaces the text of an id."""
    passages = [Passage(f"r{i}", texts.get(f"r{i}", f"relevant {i}"), title=f"Title {i}") for i in range(QUERIES)]
    passages += [Passage(f"f{i}", texts.get(f"f{i}", f"filler {i}")) for i in range(FILLERS)]
    return Collection(
        queries={f"q{i}": Query(f"q{i}", texts.get(f"q{i}", f"question {i}")) for i in range(QUERIES)},
        passages={passage.id: passage for passage in passages},
        judgments=(*(Judgment(f"q{i}", f"r{i}", 1) for i in range(QUERIES)), Judgment("q0", "f0", 0)),
    )


def make_evaluation(name, collection, ids, ranks, config, head="dense"):
    """An evaluation whose runs have the relevant passage at the given ranks and fillers elsewhere."""
    run = {}
    for query_id, rank in zip(ids, ranks, strict=True):
        found = [f"f{i}" for i in range(DEPTH)]
        if rank is not None:
            found.insert(rank - 1, query_id.replace("q", "r"))
        run[query_id] = [Hit(passage_id, 1 - n / 100) for n, passage_id in enumerate(found[:DEPTH])]
    return Evaluation(name, head, run, evaluate_run(run, collection.qrels(ids), ("nDCG@10", "RR@10")))


def write_manifest(folder, counts, seconds):
    versions = {"python": "3.11.2", "m3tune": "0.1.0"}
    finished = "2026-11-23T14:00:00+0000"
    write_json(
        folder / "manifest.json", {"counts": counts, "versions": versions, "finished": finished, "seconds": seconds}
    )


def as_row(item):
    names = ("metric", "base", "tuned", "difference", "ci95", "p_value", "wins", "ties", "losses", "queries")
    return {name: getattr(item, name) for name in names}


def terminal_text(printer, *args):
    stream = io.StringIO()
    printer(Console(file=stream, width=100), *args)
    return stream.getvalue()


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.unclosed = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.unclosed.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def better(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "better")


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


# --- losses, scores and vectors of the training log


def dense_health(step):
    return {
        "score_dense_positive": 0.7, "score_dense_positive_sd": 0.1, "score_dense_negative": 0.2 + step / 100,
        "score_dense_negative_sd": 0.05, "dense_norm": 1.0, "dense_norm_sd": 0.0, "dense_cosine": 0.2,
        "dense_uniformity": -3.0, "dense_rank": 20.0, "dense_rank_share": 0.6,
    }  # fmt: skip


def sick_health(step):
    heads = {f"loss_{name}": 1 / step for name in ("dense", "sparse", "hybrid", "self_sparse")}
    sparse = {"sparse_tokens_query": 3.0, "sparse_tokens_passage": 9.0, "sparse_empty": 0.2 if step > 1 else 0.0}
    lengths = {"dense_norm": 8.0, "dense_norm_sd": 1.0, "dense_cosine": 0.2 if step < 10 else 0.999}
    return dense_health(step) | heads | sparse | lengths | {"negatives_suspected": 0.03}


def test_curves_of_health_are_the_logs_own(tmp_path):
    training = gather(make_run(tmp_path / "run", health=sick_health))["training"]
    assert training["health"]["sparse_empty"] == [[1, 0.0], [5, 0.2], [10, 0.2]]
    assert training["health"]["loss_self_sparse"] == [[1, 1], [5, 0.2], [10, 0.1]]
    assert not {"loss", "learning_rate", "tokens_per_s", "train_loss"} & set(training["health"])


def test_each_illness_is_told_once_where_it_began(tmp_path):
    folder = make_run(tmp_path / "run", health=sick_health)
    findings = gather(folder)["training"]["findings"]
    assert [(finding["code"], finding["where"]) for finding in findings] == [
        ("sparse-vectors-die", "train, step 5"), ("dense-vectors-collapse", "train, step 10"),
    ]  # fmt: skip
    text = " ".join(Page(write_report(folder).read_text()).text.split())
    assert "train, step 5: 20% of the sparse vectors of a batch are empty" in text
    assert "their mean cosine is 0.999" in text


def test_groups_of_small_charts_show_what_the_log_has(tmp_path):
    def titles(training):
        return {heading: [c.title for c in group] for heading, group in small_multiples(training["health"]).items()}

    dense = gather(make_run(tmp_path / "dense", health=dense_health))["training"]
    vectors = ["Mean cosine of two passages", "Uniformity", "Effective rank"]
    assert titles(dense) == {"Scores of positives and negatives": ["Dense"], "Vectors": vectors}
    assert dense["findings"] == []
    everything = gather(make_run(tmp_path / "all", health=sick_health))["training"]
    assert titles(everything) == {
        "Losses": ["Dense", "Sparse", "Hybrid"],
        "Scores of positives and negatives": ["Dense"],
        "Vectors": [*vectors, "Length of dense vectors", "Sparse weights a text", "Empty sparse vectors",
                    "Suspected negatives"],
    }  # fmt: skip
    lines = {c.title: c.lines for c in small_multiples(everything["health"])["Losses"]}
    assert lines == {
        "Dense": ("contrastive",),
        "Sparse": ("contrastive", "from the hybrid"),
        "Hybrid": ("contrastive",),
    }
    page = Page(write_report(tmp_path / "all").read_text())
    assert page.unclosed == []
    assert sum(tag == "svg" for tag, _ in page.tags) == 4 + 3 + 1 + 7


def test_a_run_without_health_has_no_small_charts(better):
    assert gather(better)["training"]["health"] == {}
    page = write_report(better).read_text()
    assert "<h3>Losses</h3>" not in page
    assert "<h3>Vectors</h3>" not in page


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


def test_a_warning_where_bm25_finds_more_than_the_model(better):
    data = gather(better)
    main = next(row for row in data["metrics"] if row["metric"] == data["verdict"]["metric"])
    for bm25, warned in ((main["tuned"] + 0.01, True), (main["tuned"], False), (None, False)):
        rows = [row | {"bm25": bm25} if row is main else row for row in data["metrics"]]
        changed = data | {"metrics": rows}
        assert bool(verdict_words.words_win(changed)) == warned
        assert ("Words alone do better" in render(changed)) == warned


# --- several heads


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


# --- what was chosen between the base, the checkpoint and merges


@pytest.mark.parametrize("why", ["no gain", "noise", "forgets"])
def test_why_the_base_was_chosen_is_said_in_words_of_its_own(tmp_path, why):
    folder = make_run(tmp_path / "run", chosen="base", why_base=why)
    data = gather(folder)
    others = {
        reason: data | {"selection": data["selection"] | {"why_base": reason}} for reason in selection_words._WHY_BASE
    }
    for say in (verdict_words.headline, verdict_words.meaning, verdict_words.next_step, verdict_words.delivered):
        assert say(data) == say(others[why])
        assert len({say(other) for other in others.values()}) == 3
    page = render(data)
    assert verdict_words.headline(data) in page
    assert selection_words.why_base(data["selection"]) in terminal_text(print_verdict, folder).replace("\n", " ")


def test_a_merge_is_named_in_the_sentence_and_the_meaning(tmp_path):
    data = gather(make_run(tmp_path / "run", chosen="merged 0.7"))
    assert verdict_words.sentence(data).endswith("; delivered: checkpoint 5 merged 0.7")
    assert "model/ holds the merge of base and tuned model at 0.7" in verdict_words.meaning(data)
    assert "holds the tuned model" in verdict_words.meaning(gather(make_run(tmp_path / "tuned")))


def test_the_candidates_stand_in_a_table_with_what_became_of_them(better):
    page = " ".join(re.sub(r"<[^>]+>", " ", render(gather(better))).split())
    for part in ("merged 0.7 0.570 0.010 0.140 0.930 as good, but further from the base", "tuned 0.600", "chosen"):
        assert part in page
    assert "What else the model may have forgotten was not measured" in page
    assert "Retention (upwards)" not in page


def test_retention_is_drawn_against_development_with_the_line_that_nothing_may_fall_below(tmp_path):
    folder = make_run(tmp_path / "run", chosen="merged 0.7")
    selection = read_json(folder / "select" / "selection.json")
    write_json(
        folder / "select" / "selection.json",
        selection | selection_of("merged 0.7", None, {0: 0.8, 0.7: 0.79, 1: 0.5}),
    )
    page = render(gather(folder))
    assert "What is gained and lost: base 0.5, 0.8; merged 0.7 0.57, 0.79; tuned 0.6, 0.5" in page
    assert "loses at most 2 % of the base&#39;s nDCG@10 on the retention data" in page
    assert "data/general" in page


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
