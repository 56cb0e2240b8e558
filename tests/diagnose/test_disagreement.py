"""Who finds what, against a plain loop; fusion against its formula; the passage that overtook."""

import numpy as np
import pytest

from m3tune.config import EvaluateConfig
from m3tune.diagnose.disagreement import disagreement_of, found_in_top, mean_jaccard, patterns_of
from m3tune.diagnose.losses import hints_of, overtaker
from m3tune.evaluation.fusion import fuse
from m3tune.evaluation.metrics import evaluate_run
from m3tune.evaluation.store import Evaluation
from m3tune.types import Hit

QUERIES, PASSAGES = 60, 40
IDS = [f"q{i}" for i in range(QUERIES)]
QRELS = {query_id: {f"p{i % PASSAGES}": 1, f"p{(i + 7) % PASSAGES}": 0} for i, query_id in enumerate(IDS)}
CONFIG = EvaluateConfig(metrics=("nDCG@10",), resamples=200, depth=30)
CLUSTERS = {query_id: i for i, query_id in enumerate(IDS)}


def random_run(seed, help_from=0.0):
    """Passages in random order; a relevant one is put among the first three for a share of the queries."""
    rng = np.random.default_rng(seed)
    run = {}
    for query_id in IDS[:-1]:  # the last query has no results
        ranking = [f"p{i}" for i in rng.permutation(PASSAGES)[:25]]
        if rng.random() < help_from:
            relevant = next(iter(QRELS[query_id]))
            ranking = [passage_id for passage_id in ranking if passage_id != relevant]
            ranking.insert(int(rng.integers(3)), relevant)
        run[query_id] = [Hit(passage_id, 1.0 - rank / 100) for rank, passage_id in enumerate(ranking)]
    return run


def evaluation(head, run):
    return Evaluation("model", head, run, evaluate_run(run, QRELS, ("nDCG@10",)))


@pytest.fixture(scope="module")
def three_heads():
    return [evaluation(head, random_run(seed, 0.5)) for seed, head in enumerate(("dense", "sparse", "multi", "bm25"))]


def test_patterns_against_a_plain_loop(three_heads):
    runs = {of.head: of.run for of in three_heads}
    expected = {}
    for query_id in IDS:
        by = []
        for name, run in runs.items():
            top = [hit.passage_id for hit in run.get(query_id, [])][:10]
            if any(QRELS[query_id].get(passage_id, 0) > 0 for passage_id in top):
                by.append(name)
        expected.setdefault(tuple(by), []).append(query_id)
    found = {name: found_in_top(run, QRELS) for name, run in runs.items()}
    patterns = patterns_of(found, {"bm25 again": found["bm25"]}, IDS)
    assert {of.found_by: of.queries for of in patterns} == {by: len(ids) for by, ids in expected.items()}
    assert len(patterns) > 6
    assert [of.queries for of in patterns] == sorted((of.queries for of in patterns), reverse=True)
    for of in patterns:
        assert list(of.examples) == expected[of.found_by][:3]
        assert of.by_fusion == {"bm25 again": of.queries if "bm25" in of.found_by else 0}


def test_a_dense_model_against_bm25():
    dense, bm25 = (evaluation(head, random_run(seed, 0.6)) for seed, head in ((10, "dense"), (11, "bm25")))
    found = disagreement_of([dense, bm25], "dense", QRELS, CLUSTERS, CONFIG)
    assert [of.name for of in found.rankers] == ["dense", "bm25"]
    (fusion,) = found.fusions
    assert (fusion.name, fusion.members, found.suggested) == ("dense+bm25", ("dense", "bm25"), "dense+bm25")
    a, b = (of.per_query["nDCG@10"] for of in (dense, bm25))
    best = max(np.mean(list(a.values())), np.mean(list(b.values())))
    assert found.ceiling == pytest.approx(np.mean([max(a[q], b[q]) for q in IDS]))
    fused = evaluate_run(fuse([dense.run, bm25.run], 30), QRELS, ("nDCG@10",))["nDCG@10"]
    assert fusion.value == pytest.approx(np.mean(list(fused.values())))
    assert fusion.difference == pytest.approx(np.mean([fused[q] - a[q] for q in IDS]))
    assert fusion.captured == pytest.approx((fusion.value - best) / (found.ceiling - best))
    adds = found_in_top(bm25.run, QRELS) - found_in_top(dense.run, QRELS)
    assert found.rankers[1].adds == len(adds) > 3
    assert sum(of.queries for of in found.patterns) == QUERIES


def test_three_heads_with_their_mixtures(three_heads):
    mixtures = [evaluation("hybrid", random_run(20, 0.9)), evaluation("rrf", random_run(21, 0.8))]
    found = disagreement_of([*three_heads, *mixtures], "hybrid", QRELS, CLUSTERS, CONFIG)
    assert [of.name for of in found.rankers] == ["dense", "sparse", "multi", "bm25"]
    assert len(found.overlaps) == 6
    assert {of.name: of.members for of in found.fusions} == {
        "hybrid": ("dense", "sparse", "multi"),
        "rrf": ("dense", "sparse", "multi"),
        "hybrid+bm25": ("hybrid", "bm25"),
        "dense+bm25": ("dense", "bm25"),
        "dense+sparse+multi+bm25": ("dense", "sparse", "multi", "bm25"),
    }
    assert found.suggested == "hybrid+bm25"
    hybrid = found.fusions[0]
    assert (hybrid.difference, hybrid.ci95) == (0.0, (0.0, 0.0))


def test_one_ranker_alone():
    found = disagreement_of([evaluation("dense", random_run(1))], "dense", QRELS, CLUSTERS, CONFIG)
    assert (found.fusions, found.overlaps, found.suggested) == ((), (), None)
    assert found.ceiling == pytest.approx(found.rankers[0].value)


def test_equal_rankers_leave_no_way_to_the_ceiling():
    run = random_run(3, 0.5)
    found = disagreement_of([evaluation("dense", run), evaluation("bm25", run)], "dense", QRELS, CLUSTERS, CONFIG)
    assert found.overlaps[0].jaccard == 1.0
    assert found.fusions[0].captured is None


def test_fusion_is_the_formula():
    first = {"a": [Hit("x", 9.0), Hit("y", 8.0)], "b": [Hit("x", 1.0)]}
    second = {"a": [Hit("y", 0.3), Hit("z", 0.2)], "c": [Hit("w", 1.0)]}
    fused = fuse([first, second], 2)
    assert [hit.passage_id for hit in fused["a"]] == ["y", "x"]
    assert [hit.score for hit in fused["a"]] == pytest.approx([1 / 62 + 1 / 61, 1 / 61])
    assert [hit.passage_id for hit in fuse([first, second], 9)["a"]] == ["y", "x", "z"]
    assert [hit.passage_id for of in ("b", "c") for hit in fused[of]] == ["x", "w"]
    tied = fuse([{"a": [Hit("m", 1.0)]}, {"a": [Hit("k", 1.0)]}], 2)
    assert [hit.passage_id for hit in tied["a"]] == ["m", "k"]


def test_jaccard_counts_the_top_alone_and_no_empty_query():
    first = {"a": [Hit(f"p{i}", 1.0) for i in range(20)], "b": []}
    second = {"a": [Hit(f"p{i}", 1.0) for i in range(5, 25)], "b": []}
    assert mean_jaccard(first, second, ["a", "b", "c"]) == pytest.approx(5 / 15)
    assert mean_jaccard({}, {}, ["a"]) == 0.0


def ranking(*passage_ids):
    return [Hit(passage_id, 1.0) for passage_id in passage_ids]


@pytest.mark.parametrize(
    ("base", "tuned", "expected"),
    [
        ("r a b", "a r b", "a"),
        ("x r a b", "x b r a", "b"),  # x stood above before
        ("r a", "n a r", "n"),  # n was not found before
        ("r a", "a", "a"),  # lost out of sight
        ("a b", "a b", None),  # never found, and nothing new
        ("x s r a", "x r s a", None),  # two relevant ones changed places
        ("r", "", None),
    ],
)
def test_the_passage_that_overtook(base, tuned, expected):
    assert overtaker(ranking(*base.split()), ranking(*tuned.split()), {"r": 1, "s": 2, "x": 0}) == expected


def test_hints_name_what_was_seen():
    grades = {"r": 1, "s": 1, "j": 0}
    hints = hints_of(ranking("j", "u", "copy", "r", "v"), grades, [("zebra", 0), ("quagga", 2)], {"copy": "r"}, {"s"})
    assert {hint.code: hint.what for hint in hints} == {
        "near-duplicate": "above it in the top 10, nearly the same as a relevant one: 1 passage",
        "unjudged": "above it in the top 10, judged by nobody: 2 passages; one may answer too",
        "truncated": "relevant but cut: 1 passage; the answer may lie beyond the cut",
        "rare words": "“zebra” in no passage, “quagga” in 2 passages",
    }
    assert hints_of(ranking("j", "r"), grades, [], {}, ()) == ()
    (unjudged,) = hints_of(ranking(*(f"u{i}" for i in range(40))), grades, [], {}, ())
    assert "10 passages" in unjudged.what  # further down nobody looks
