"""Evaluations come back as they were written."""

import json

import pyarrow.parquet as pq
import pytest

from m3tune.errors import ArtifactError, DataError
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation, load_evaluations, save_evaluations, trec_run_lines, write_trec_run
from m3tune.types import Hit

QRELS = {"q2": {"a": 2, "b": 1}, "q1": {"c": 1}, "frage ü": {"a": 1}}
DENSE = {"q2": [Hit("b", 0.75), Hit("a", 1 / 3)], "q1": [Hit("a", 0.5), Hit("c", 0.5)]}
SPARSE = {"q1": [Hit("c", 12.5)], "frage ü": [Hit("文", 1.0)]}
NAMES = ["nDCG@10", "RR@10", "Recall@100"]


def evaluations():
    return [
        Evaluation("base", "dense", DENSE, evaluate_run(DENSE, QRELS, NAMES)),
        Evaluation("base", "sparse", SPARSE, evaluate_run(SPARSE, QRELS, NAMES)),
        Evaluation("base", "multi", {}, evaluate_run({}, QRELS, NAMES)),
    ]


def test_round_trip(tmp_path):
    save_evaluations(tmp_path / "new", evaluations())
    loaded = load_evaluations(tmp_path / "new")
    assert loaded == evaluations()
    assert [list(item.per_query) for item in loaded] == [NAMES] * 3
    assert list(loaded[0].per_query["RR@10"]) == list(QRELS)


def test_what_others_read(tmp_path):
    save_evaluations(tmp_path, evaluations())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["dense", "sparse", "multi"]
    assert metrics["dense"]["RR@10"] == 0.5  # (1 + 1/2 + 0) / 3
    assert metrics["dense"]["Recall@100"] == 0.666667
    assert metrics["multi"] == dict.fromkeys(NAMES, 0.0)
    run = pq.read_table(tmp_path / "run.parquet").to_pylist()
    assert run[1] == {"head": "dense", "query_id": "q2", "passage_id": "a", "rank": 2, "score": 1 / 3}
    per_query = pq.read_table(tmp_path / "per_query.parquet").to_pylist()
    assert len(per_query) == 3 * 3 * 3
    assert {"name": "base", "head": "dense", "query_id": "q1", "metric": "RR@10", "value": 0.5} in per_query


def test_two_of_a_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share a head"):
        save_evaluations(tmp_path, [*evaluations(), evaluations()[0]])
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_tables_are_explained(tmp_path):
    with pytest.raises(ArtifactError, match=r"run\.parquet: this file is missing"):
        load_evaluations(tmp_path)
    save_evaluations(tmp_path, evaluations())
    (tmp_path / "run.parquet").write_bytes((tmp_path / "run.parquet").read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"run\.parquet: broken table"):
        load_evaluations(tmp_path)
    save_evaluations(tmp_path, evaluations())
    (tmp_path / "run.parquet").write_bytes((tmp_path / "per_query.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="expected the columns head, query_id, passage_id, rank, score"):
        load_evaluations(tmp_path)


def test_trec_format(tmp_path):
    run = {"q2": DENSE["q2"]}
    assert list(trec_run_lines(run, "m3tune")) == [
        "q2 Q0 b 1 0.75 m3tune",
        "q2 Q0 a 2 0.3333333333333333 m3tune",
    ]
    write_trec_run(tmp_path / "run.trec", run, "m3tune")
    assert (tmp_path / "run.trec").read_text() == "q2 Q0 b 1 0.75 m3tune\nq2 Q0 a 2 0.3333333333333333 m3tune\n"
    with pytest.raises(DataError, match="'frage ü' cannot stand"):
        write_trec_run(tmp_path / "bad.trec", SPARSE, "m3tune")
    assert not (tmp_path / "bad.trec").exists()
