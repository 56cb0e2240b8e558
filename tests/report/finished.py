"""A fabricated run folder, for what the report says about it."""

import io
import json
from dataclasses import asdict
from html.parser import HTMLParser

from rich.console import Console

from m3tune.artifact import write_json
from m3tune.data.collection import Collection
from m3tune.data.similar import exact_copies
from m3tune.data.store import save_collection
from m3tune.evaluation.compare import compare, document_groups, verdict
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation, save_evaluations
from m3tune.recipe import build_recipe, to_toml
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
