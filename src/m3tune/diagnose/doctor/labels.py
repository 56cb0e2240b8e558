"""Rules about labels: whether what is called relevant is, and what is called not relevant is not.

All of them look at scores that were not trained on these labels: the untuned model's and BM25's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3tune.diagnose.doctor.case import Case, Sample
from m3tune.diagnose.wording import found, share, shown
from m3tune.negatives.estimate import exact_rate
from m3tune.types import GIVEN, Finding

_FEWEST = 20  # queries from which a share means something
_KNOWS = 0.7  # chance of putting a positive above another passage from which a scorer knows something
_BLIND = 0.6  # under which it knows nothing
_SHUFFLED, _SURELY = 0.25, 0.5  # share of the training labels that look drawn at random
_NEARLY = 0.9  # of the way from other queries' passages to the positive
_FALSE, _MANY_FALSE = 0.1, 0.25  # share of the given negatives that are so near, beyond what is by chance
_EASY = 0.55  # chance of a given negative to score above another query's passage: 0.5 is none the harder
_DOMINANT, _DOMINANT_QUERIES = 0.1, 20


def shuffled_labels(case: Case) -> Iterator[Finding]:
    """Positives that score no better than other queries' passages, for every scorer that is right elsewhere."""
    sample = case.sample
    if sample is None or sample.num_train < _FEWEST:
        return
    train, rest = slice(0, sample.num_train), slice(sample.num_train, None)
    wins = {name: (_wins(sample, name, train), _wins(sample, name, rest)) for name in sample.scores}
    can_compare = len(sample.query_ids) - sample.num_train >= _FEWEST
    knowing = {name: both for name, both in wins.items() if can_compare and both[1] >= _KNOWS}
    if knowing:
        shuffled = min((there - here) / (there - 0.5) for here, there in knowing.values())
        compared = "on dev and test queries " + _told({name: there for name, (_, there) in knowing.items()})
    else:
        learned = case.verdict.get("verdict") == "better"
        shuffled = 1.0 if not learned and all(here < _BLIND for here, _ in wins.values()) else 0.0
        compared = "a coin does so for 50 %"
    if shuffled >= _SHUFFLED:
        told = _told({name: here for name, (here, _) in (knowing or wins).items()})
        yield found(
            "shuffled-labels",
            "error" if shuffled >= _SURELY else "warning",
            "training queries",
            f"positives score above another query's passage for {told}; {compared}: as if {min(1, shuffled):.0%} of "
            "the training labels were drawn at random",
            "look at the pairs below: where the passage does not answer, join queries and passages again by id, not by "
            "line number, in " + case.recipe.data.path + ", then " + case.again(),
            _pairs(case, sample, range(sample.num_train)),
            count=round(min(1, shuffled) * len(case.split.train)),
            shuffled=round(float(shuffled), 4),
            wins={name: {"train": round(here, 4), "rest": round(there, 4)} for name, (here, there) in wins.items()},
            sampled=sample.num_train,
        )


def false_negatives(case: Case) -> Iterator[Finding]:
    """Given negatives that come as near to the query as its positive, more often than other queries' passages do.

    Not what the run mined by a threshold on scores: who is hard was sought there, and who is too near left out.
    """
    sample = case.sample
    if sample is None:
        return
    given = sample.given & ~_filtered(case, sample)
    if given.any(axis=1).sum() < _FEWEST:
        return
    near = sample.scores["base"] > _nearly_positive(sample)[:, None]
    suspected = given & near
    count, of, chance = int(suspected.sum()), int(given.sum()), _share(near, sample.others)
    excess, at_least = ((part - chance) / max(1 - chance, 1e-9) for part in (count / of, exact_rate(count, of).low))
    if excess >= _FALSE:
        yield found(
            "false-negatives",
            "error" if at_least >= _MANY_FALSE else "warning" if at_least >= _FALSE else "note",
            "given negatives",
            f"{share(count, of)} score nearly as high as the query's positive, or higher, in the untuned model; of "
            f"other queries' passages {chance:.1%}: about {excess:.0%} of the negatives may be relevant, "
            f"{max(0.0, at_least):.0%} at least",
            "read the pairs below; train without the suspects: "
            + case.again("train.false_negative_margin=0.0", "train.temperature=0.05")
            + f", or {case.better_negatives}",
            _suspects(case, sample, suspected),
            count=count,
            of=of,
            by_chance=round(chance, 4),
            estimated_share=round(excess, 4),
            at_least=round(at_least, 4),
        )


def _filtered(case: Case, sample: Sample) -> np.ndarray:
    """(Q, P) the negatives that were mined by a calibrated threshold, or one that lets none above its positive pass."""
    by_threshold = np.zeros_like(sample.given)
    threshold = "none" if case.recipe.mine is None else case.recipe.mine.threshold
    if threshold == "none" or (isinstance(threshold, float) and threshold > 1):
        return by_threshold
    row = {query_id: i for i, query_id in enumerate(sample.query_ids)}
    column = {passage_id: i for i, passage_id in enumerate(sample.passage_ids)}
    canonical = case.collection.canonical_passage
    for negative in case.collection.negatives:
        place = row.get(negative.query_id), column.get(canonical[negative.passage_id])
        if negative.source != GIVEN and None not in place:
            by_threshold[place] = True
    return by_threshold


def easy_negatives(case: Case) -> Iterator[Finding]:
    """Given negatives that are no harder than any other query's passage."""
    sample = case.sample
    if sample is None or sample.given.any(axis=1).sum() < _FEWEST:
        return
    scores = sample.scores["base"]
    rows = np.flatnonzero(sample.given.any(axis=1) & sample.others.any(axis=1))
    chances = [_chance(scores[row, sample.given[row]], scores[row, sample.others[row]]) for row in rows]
    hardness = float(np.mean(chances)) if chances else 1.0
    if hardness < _EASY:
        yield found(
            "easy-negatives",
            case.hint,
            "given negatives",
            f"a given negative scores above another query's passage for {hardness:.0%} of the pairs: as hard as one "
            "drawn at random, which the batch brings for nothing",
            f"{case.better_negatives}, or leave them out and see more queries a step: "
            + case.again("train.negatives_per_query=0", f"train.batch_queries={2 * case.recipe.train.batch_queries}"),
            count=int(sample.given.sum()),
            hardness=round(hardness, 4),
        )


def dominant_positive(case: Case) -> Iterator[Finding]:
    """One passage that answers a large part of the training queries."""
    train = [query_id for query_id in case.split.train if query_id in case.collection.positives]
    counts: dict[str, int] = {}
    for query_id in train:
        for group in {case.similar.passages.first_of(p) for p in case.collection.positives[query_id]}:
            counts[group] = counts.get(group, 0) + 1
    passage_id, most = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if most >= _DOMINANT_QUERIES and most >= _DOMINANT * len(train):
        yield found(
            "dominant-positive",
            "warning",
            "training queries",
            f"{share(most, len(train))} have one and the same relevant passage, or a near copy of it",
            f"keep a few of these queries in {case.recipe.data.path}, or check that the passage answers them all, then "
            + case.again(),
            [shown(case.collection.passages[passage_id])],
            count=most,
            of=len(train),
            passage_id=passage_id,
        )


def _wins(sample: Sample, name: str, rows: slice) -> float:
    """The chance that a scorer puts a query's positive above another query's passage, ties one half."""
    scores, positive, others = sample.scores[name][rows], sample.positive[rows], sample.others[rows]
    chances = [_chance(s[p], s[o]) for s, p, o in zip(scores, positive, others, strict=True) if p.any() and o.any()]
    return float(np.mean(chances)) if chances else 0.0


def _chance(first: np.ndarray, second: np.ndarray) -> float:
    """The share of pairs in which one of the first is above one of the second, ties one half."""
    differences = first[:, None] - second[None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def _best_positive(sample: Sample) -> np.ndarray:
    """Each query's best positive by the untuned model: (Q,)."""
    return np.where(sample.positive, sample.scores["base"], -np.inf).max(axis=1)


def _nearly_positive(sample: Sample) -> np.ndarray:
    """The score of each query, (Q,), that is nine tenths of the way from other queries' passages to its best positive.

    Kin to the rule of NV-Retriever (Moreira et al., 2024), 95 % of the positive's score, but the same on every scale.
    """
    best = _best_positive(sample)
    scores = np.where(sample.others, sample.scores["base"], 0).sum(axis=1)
    usual = np.minimum(scores / np.maximum(sample.others.sum(axis=1), 1), best)
    return usual + _NEARLY * (best - usual)


def _share(true: np.ndarray, among: np.ndarray) -> float:
    return float((true & among).sum() / max(1, among.sum()))


def _told(wins: dict[str, float]) -> str:
    return ", ".join(
        f"{value:.0%} by {'BM25' if name == 'bm25' else 'the untuned model'}" for name, value in wins.items()
    )


def _pairs(case: Case, sample: Sample, rows: range) -> Iterator[str]:
    for row in rows:
        columns = np.flatnonzero(sample.positive[row])
        if len(columns):
            yield pair_in_words(case, sample, row, int(columns[0]))


def _suspects(case: Case, sample: Sample, suspected: np.ndarray) -> Iterator[str]:
    """The suspected pairs, those furthest above their positive first."""
    rows, columns = np.nonzero(suspected)
    margins = sample.scores["base"][rows, columns] - _best_positive(sample)[rows]
    for i in np.argsort(-margins, kind="stable").tolist():
        yield pair_in_words(case, sample, int(rows[i]), int(columns[i]))


def pair_in_words(case: Case, sample: Sample, row: int, column: int) -> str:
    """A query and a passage of the sample, for an example."""
    query = case.collection.queries[sample.query_ids[row]]
    return f"{shown(query)} | {shown(case.collection.passages[sample.passage_ids[column]])}"
