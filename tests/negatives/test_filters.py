"""Each reason on a collection made for it, and the feedback score against its formula."""

import numpy as np
import pytest

from m3tune.config import MineConfig
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant
from m3tune.data.similar import NearCopies, Similar
from m3tune.errors import DataError
from m3tune.negatives import filters
from m3tune.negatives.candidates import Pairs
from m3tune.negatives.ground import make_ground, read_pool
from m3tune.negatives.scores import Scores, feedback_between_positives, feedback_ratios, score_all
from m3tune.negatives.select import Suspicion, select, suspicion
from m3tune.negatives.sources import brought, drawn
from m3tune.retrieval.vectors import Vectors
from m3tune.types import Judgment, Negative, PairVerdict, Passage, Query

TEXTS = {"a": "the answer", "a2": "the answer", "near": "The answer!", "b": "b", "q": "What?"}
TEXTS |= {id_: id_ for id_ in "xyz"}
DOCUMENTS = {"a": "one", "x": "one"}
PASSAGES = {id_: Passage(id_, text, document=DOCUMENTS.get(id_, "")) for id_, text in TEXTS.items()}
QUERIES = {"q1": Query("q1", "What?"), "q2": Query("q2", "what ?"), "q3": Query("q3", "Else")}
JUDGMENTS = (Judgment("q1", "a"), Judgment("q2", "b"), Judgment("q3", "z"), Judgment("q1", "y", 0))
COLLECTION = Collection(QUERIES, PASSAGES, JUDGMENTS, (Negative("q1", "x"),))
SIMILAR = Similar(NearCopies({"a2": "a", "near": "a"}), NearCopies({"q2": "q1"}))
GROUND = make_ground(COLLECTION, known_relevant(COLLECTION, SIMILAR), list(QUERIES), None)


def all_pairs(ground=GROUND):
    shape = len(ground.query_ids), len(ground.passage_ids)
    query, passage = (of.ravel() for of in np.indices(shape))
    return Pairs(("s",), query, passage, np.ones((1, len(query)), np.int32))


def named(mask, pairs, ground=GROUND):
    rows = np.flatnonzero(mask)
    return {(ground.query_ids[pairs.query[r]], ground.passage_ids[pairs.passage[r]]) for r in rows}


def test_what_is_known_is_told_by_its_reason():
    pairs = all_pairs()
    masks = filters.known_masks(pairs, GROUND)
    assert named(masks[filters.KNOWN], pairs) == {("q1", "a"), ("q2", "b"), ("q3", "z")}
    assert named(masks[filters.COPY], pairs) == {("q1", "a"), ("q1", "a2"), ("q2", "b"), ("q3", "z")}
    near = {("q1", "a"), ("q1", "a2"), ("q1", "near"), ("q2", "b"), ("q3", "z")}
    assert named(masks[filters.NEARLY], pairs) == near
    assert named(masks[filters.LIKE_QUERY], pairs) == near | {("q1", "b"), ("q2", "a"), ("q2", "a2"), ("q2", "near")}
    assert named(masks[filters.ITSELF], pairs) == {("q1", "q")}
    assert named(filters.document_mask(pairs, GROUND), pairs) == {("q1", "a"), ("q1", "x")}


def test_the_first_reason_counts_and_counts_add_up():
    pairs = all_pairs()
    masks = filters.known_masks(pairs, GROUND)
    numbers = filters.first_reasons(masks)
    for row in range(len(pairs)):
        reasons = [n for n, mask in enumerate(masks.values(), start=1) if mask[row]]
        assert numbers[row] == (reasons[0] if reasons else 0)
    assert (numbers > 0).sum() == 10


def decide(config, verdicts=(), score=None, ground=GROUND, **given):
    pairs = all_pairs(ground)
    score = np.linspace(1, 2, len(pairs)) if score is None else score
    scores = Scores(score, np.full(len(ground.positives[0]), 1.5))
    known, review = filters.known_masks(pairs, ground), filters.reviewed(pairs, ground, verdicts)
    nobody = Suspicion(np.zeros(len(pairs), bool), {})
    selection = select(config, ground, pairs, scores, None, known, review, given.get("suspected", nobody))
    return pairs, selection


def reason_of(pairs, selection, query_id, passage_id):
    row = np.flatnonzero(
        (pairs.query == GROUND.query_row[query_id]) & (pairs.passage == GROUND.passage_row[passage_id])
    )
    number = selection.removed[row[0]]
    return selection.reasons[number - 1] if number else ""


def test_a_persons_word_holds_against_scores_and_against_a_model():
    said = [
        PairVerdict("q1", "x", "relevant", "ann"),
        PairVerdict("q3", "x", "relevant", "m", "model"),
        PairVerdict("q3", "y", "relevant", "m", "model"),
        PairVerdict("q3", "y", "not relevant", "ann"),
        PairVerdict("q3", "b", "unsure", "ann"),
        PairVerdict("q3", "q", "not relevant", "ann"),
        PairVerdict("q3", "q", "relevant", "bob"),
    ]
    suspected = Suspicion(np.ones(len(all_pairs()), bool), {})
    found = decide(MineConfig(), said, suspected=suspected)
    assert reason_of(*found, "q1", "x") == filters.VERDICT
    assert reason_of(*found, "q3", "x") == filters.VERDICT
    assert reason_of(*found, "q3", "q") == filters.VERDICT, "where people disagree, relevant is the safe word"
    assert reason_of(*found, "q3", "y") == "", "never removed as suspected"
    assert reason_of(*found, "q1", "y") == "", "the data judged it not relevant"
    assert reason_of(*found, "q3", "b") == filters.THRESHOLD, "unsure is no verdict"


@pytest.mark.parametrize(
    ("settings", "reason", "rule"),
    [
        ({"margin": 0.1}, filters.MARGIN, lambda s: s > 1.4),
        ({"min_score": 1.3}, filters.LOW, lambda s: s < 1.3),
        ({"max_score": 1.7}, filters.HIGH, lambda s: s > 1.7),
    ],
)
def test_fixed_bounds_remove_exactly_what_they_say(settings, reason, rule):
    pairs, plain = decide(MineConfig())
    _, bounded = decide(MineConfig(**settings))
    score = np.linspace(1, 2, len(pairs))
    judged_wrong = (pairs.query == 0) & (pairs.passage == GROUND.passage_row["y"])
    open_ones = (plain.removed == 0) & ~judged_wrong
    found = np.array([n > 0 and bounded.reasons[n - 1] == reason for n in bounded.removed])
    assert 0 < (rule(score) & open_ones).sum() < open_ones.sum()
    assert (found[open_ones] == rule(score)[open_ones]).all()


def test_the_lowest_positive_is_the_reference_and_the_fixed_ratio_is_above_it():
    judgments = (*JUDGMENTS, Judgment("q3", "y"))
    collection = Collection(QUERIES, PASSAGES, judgments)
    ground = make_ground(collection, known_relevant(collection, Similar()), list(QUERIES), None)
    scores = Scores(np.linspace(0, 1, 24), np.array([0.9, 0.8, 0.7, 0.3]))
    assert scores.lowest(ground).tolist() == pytest.approx([0.9, 0.8, 0.3])
    pairs = all_pairs(ground)
    clean = np.ones(24, bool)
    found = suspicion(MineConfig(threshold=0.95), ground, pairs, scores, None, np.zeros(24), clean)
    assert (found.mask == (scores.candidate > 0.95 * scores.lowest(ground)[pairs.query])).all()
    assert 0 < found.mask.sum() < 24
    with_too_few = suspicion(MineConfig(), ground, pairs, scores, None, np.zeros(24), clean)
    assert (with_too_few.mask == found.mask).all()
    assert "too few" in with_too_few.found["because"]
    assert not suspicion(MineConfig(threshold="none"), ground, pairs, scores, None, np.zeros(24), clean).mask.any()


def test_copies_of_a_candidate_are_sampled_once():
    similar = Similar(NearCopies({"x": "b"}), NearCopies())
    ground = make_ground(COLLECTION, known_relevant(COLLECTION, similar), ["q3"], None)
    _, selection = decide(MineConfig(negatives_per_query=50), ground=ground)
    repeated = [selection.reasons[n - 1] if n else "" for n in selection.removed]
    assert repeated[ground.passage_row["b"]] == filters.REPEATED, "x scores higher"
    assert repeated[ground.passage_row["x"]] == ""
    assert repeated[ground.passage_row["a2"]] == "copy of another candidate" or repeated[ground.passage_row["a"]]
    counts = selection.counts()
    assert counts["candidates"] == counts["kept"] + sum(counts["removed"].values()) == 8
    assert counts["chosen"] == counts["kept"]
    assert counts["negatives_missing"] == 50 - counts["chosen"]


def test_feedback_is_the_highest_over_positives_and_between_positives_leaves_one_out():
    rng = np.random.default_rng(0)
    judgments = (Judgment("q1", "a"), Judgment("q1", "b"), Judgment("q1", "x"), Judgment("q3", "z"))
    collection = Collection(QUERIES, PASSAGES, judgments)
    ground = make_ground(collection, known_relevant(collection, Similar()), ["q1", "q3"], None)
    vectors = np.abs(rng.normal(size=(10, 5))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries, passages = Vectors(vectors[:2]), Vectors(vectors[2:])
    pairs = all_pairs(ground)
    scores = score_all(queries, passages, {"dense": 1.0}, ground, pairs)
    of = passages.dense
    scale = np.percentile(np.abs(scores.positive), 99)

    def plain(q, candidate, positive):
        score, own = queries.dense[q] @ of[candidate], queries.dense[q] @ of[positive]
        base = own + scale
        return 1 + (score + scale * (of[candidate] @ of[positive]) - base) / abs(base)

    positives = [[ground.passage_row[p] for p in collection.positives[q]] for q in ground.query_ids]
    expected = [max(plain(q, c, p) for p in positives[q]) for q, c in zip(pairs.query, pairs.passage, strict=True)]
    assert np.allclose(feedback_ratios(passages, ground, pairs, scores), expected, atol=1e-5)
    between = [max(plain(0, c, p) for p in positives[0] if p != c) for c in positives[0]]
    assert np.allclose(feedback_between_positives(passages, ground, scores), between, atol=1e-5)


def test_a_pool_is_searched_alone_and_must_be_known(tmp_path):
    file = tmp_path / "pool.txt"
    file.write_text("x\n\ny\n")
    assert read_pool(file, COLLECTION) == ["x", "y"]
    ground = make_ground(COLLECTION, GROUND.known, ["q1"], ["x", "y"])
    assert (ground.pool_size, list(ground.passage_ids)) == (2, ["x", "y", "a"])
    assert set(drawn(ground, 0, 99).passage.tolist()) == {0, 1}
    file.write_text("x\nnope\n")
    with pytest.raises(DataError, match="1 unknown passage ids: 'nope'"):
        read_pool(file, COLLECTION)


def test_sources_without_a_model(tmp_path):
    run = tmp_path / "run.trec"
    run.write_text("q1 Q0 y 1 3.0 t\nq1 Q0 b 2 2.0 t\nother Q0 b 1 1 t\n")
    config = MineConfig(sources={"bm25": {}, "document": {}, "given": {}, "mine": {"run": str(run), "first": 2}})
    found = {ranking.source: ranking for ranking in brought(GROUND, config.sources)}
    of = {n: [(GROUND.query_ids[q], GROUND.passage_ids[p]) for q, p in zip(r.query, r.passage, strict=True)]
          for n, r in found.items()}  # fmt: skip
    assert of["document"] == of["given"] == [("q1", "x")]
    assert of["mine"] == [("q1", "b")]
    assert found["mine"].rank.tolist() == [2]
    assert set(found) == set(config.sources)
    run.write_text("q1 Q0 nope 1 3.0 t\n")
    with pytest.raises(DataError, match="unknown passage"):
        brought(GROUND, config.sources)


def test_an_unknown_id_in_a_verdict_file_is_an_error(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    file.write_text('{"query_id": "q1", "passage_id": "nope", "judged": "relevant"}\n')
    with pytest.raises(DataError, match="unknown passage ids: 'nope'"):
        filters.load_verdicts(file, GROUND)


def test_auto_catches_withheld_positives_that_a_ratio_does_not_tell_from_hard_negatives():
    """Queries of different ease: each has two positives around its subject, one withheld, and hard negatives."""
    rng = np.random.default_rng(0)
    size, dim, hard = 60, 64, 12
    subjects = rng.normal(size=(size, dim))
    spread = rng.uniform(0.5, 1.5, (size, 1))  # how far from the question its answers are worded
    texts = [subjects + spread * rng.normal(size=(size, dim)) * 0.7 for _ in range(2)]
    topics = rng.normal(size=(size, dim))
    negatives = [0.6 * subjects + 0.8 * topics + 0.5 * rng.normal(size=(size, dim)) for _ in range(hard)]
    vectors = np.concatenate([*texts, *negatives])
    unit = lambda of: (of / np.linalg.norm(of, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    passages = {f"p{n}": Passage(f"p{n}", f"p{n}") for n in range(len(vectors))}
    queries = {f"q{n}": Query(f"q{n}", f"q{n}") for n in range(size)}
    judgments = tuple(Judgment(f"q{n}", f"p{n}") for n in range(size))
    collection = Collection(queries, passages, judgments)
    ground = make_ground(collection, known_relevant(collection, Similar()), list(queries), None)
    asked, found = Vectors(unit(subjects)), Vectors(unit(vectors))
    query = np.repeat(np.arange(size), hard + 1)
    passage = (np.arange(size)[:, None] + size * np.arange(1, hard + 2)).ravel()
    pairs = Pairs(("s",), query, passage, np.ones((1, len(query)), np.int32))
    withheld = passage < 2 * size
    scores = score_all(asked, found, {"dense": 1.0}, ground, pairs)
    ratios = feedback_ratios(found, ground, pairs, scores)
    auto = suspicion(MineConfig(risk=0.3), ground, pairs, scores, None, ratios, np.ones(len(pairs), bool)).mask
    ratio = scores.candidate / scores.lowest(ground)[query]
    lost = auto[~withheld].mean()
    cut = np.quantile(ratio[~withheld], 1 - lost)
    assert 0 < lost < 0.3
    assert auto[withheld].mean() > 0.7
    assert auto[withheld].mean() > (ratio > cut)[withheld].mean() + 0.05
