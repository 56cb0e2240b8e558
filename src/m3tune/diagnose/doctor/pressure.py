"""Rules about what the loss pushes away: which negatives, how hard, and how many of them.

The gradient of InfoNCE with respect to the score of a negative is its share of the softmax over the query's positive
and negatives, divided by the temperature (`training.losses.contrastive`): the weight below.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3tune.diagnose.doctor.case import Case, Sample, command
from m3tune.diagnose.doctor.labels import pair_in_words
from m3tune.diagnose.wording import found, share
from m3tune.types import Finding

_FEWEST = 20  # queries from which a share means something
_MANY_SUSPECTED = 0.15  # share of queries with a suspect from which they are more than a note
_HARD_PUSHED = 0.25  # and their share of the gradient
_SOME_SUSPECTED = 0.05
_LOW_TEMPERATURE, _USUAL_TEMPERATURE = 0.03, 0.05
_FEW_NEGATIVES = 16


def pushed_negatives(case: Case) -> Iterator[Finding]:
    """Negatives above the positive for the untuned model and for BM25 alike, the hardest pushed first."""
    sample = case.sample
    if sample is None or sample.num_train < _FEWEST:
        return
    temperature = case.recipe.train.temperature
    weights, suspected = gradient_weights(sample, temperature), suspects(sample)
    rows, columns = np.nonzero(suspected)
    queries = len(set(rows.tolist()))
    if not queries:
        return
    order = np.argsort(-weights[rows, columns], kind="stable").tolist()
    part = _part(weights, suspected)
    yield found(
        "pushed-negatives",
        case.hint if queries >= _MANY_SUSPECTED * sample.num_train and part >= _HARD_PUSHED else "note",
        "training pairs",
        f"{share(queries, sample.num_train)} training queries have a negative that the untuned model and BM25 both put "
        f"above the positive; these pairs get {part:.0%} of the gradient at temperature {temperature:g}",
        "say of the pairs below whether they are relevant, and add those that are to the data; "
        + (f"{case.better_negatives}; " if case.recipe.mine else "")
        + "or leave them out of the loss: "
        + case.again("train.false_negative_margin=0.0"),
        (
            f"weight {weights[rows[i], columns[i]]:.2f}: {pair_in_words(case, sample, int(rows[i]), int(columns[i]))}"
            for i in order
        ),
        count=queries,
        of=sample.num_train,
        gradient_share=round(part, 4),
        pairs=[
            {
                "query_id": sample.query_ids[rows[i]],
                "passage_id": sample.passage_ids[columns[i]],
                "weight": round(float(weights[rows[i], columns[i]]), 4),
            }
            for i in order[:100]
        ],
    )


def low_temperature(case: Case) -> Iterator[Finding]:
    """A temperature that leaves the gradient to the hardest negatives, where some of those are suspected."""
    sample, config = case.sample, case.recipe.train
    if sample is None or sample.num_train < _FEWEST or config.false_negative_margin is not None:
        return
    if config.temperature >= _LOW_TEMPERATURE or not case.is_run:
        return
    suspected = suspects(sample)
    queries = int(suspected.any(axis=1).sum())
    if queries < _SOME_SUSPECTED * sample.num_train:
        return
    parts = [_part(gradient_weights(sample, at), suspected) for at in (config.temperature, _USUAL_TEMPERATURE)]
    if parts[0] < _HARD_PUSHED:
        return
    yield found(
        "low-temperature",
        case.hint,
        "train.temperature",
        f"at {config.temperature:g} suspects of {share(queries, sample.num_train)} queries get {parts[0]:.0%} "
        f"of the gradient, at {_USUAL_TEMPERATURE:g} they would get {parts[1]:.0%}",
        case.again(f"train.temperature={_USUAL_TEMPERATURE:g}"),
        count=queries,
        of=sample.num_train,
        gradient_share=round(parts[0], 4),
        gradient_share_usual=round(parts[1], 4),
    )


def small_batch(case: Case) -> Iterator[Finding]:
    """So few negatives a query that the loss has little to tell apart."""
    config = case.recipe.train
    if not case.is_run or not case.log:
        return
    queries = min(config.batch_queries, len(case.split.train))
    hard = config.negatives_per_query if case.collection.negatives else 0
    negatives = queries * (1 + hard) - 1 if config.in_batch_negatives else hard
    if negatives < _FEW_NEGATIVES and len(case.split.train) >= 4 * queries:
        larger = f"train.batch_queries={max(32, 4 * queries)}"
        yield found(
            "small-batch",
            case.hint,
            "train.batch_queries",
            f"a query is set against {negatives} negatives a step, with {len(case.split.train):,} training queries to "
            "draw from; most of them are told apart already",
            "see what a larger batch takes: "
            + command("plan", str(case.folder / "resolved.toml"), "--set", larger)
            + f"; then {case.again(larger)}",
            count=negatives,
            batch_queries=config.batch_queries,
            hard_negatives=hard,
        )


def gradient_weights(sample: Sample, temperature: float) -> np.ndarray:
    """What share of a training query's gradient each negative gets, were the whole sample one batch: (Q, P).

    softmax over the query's best positive and all its negatives; zero for what is not a negative.
    """
    negative = _negatives(sample)
    scores = sample.scores["base"] / temperature
    best = np.where(sample.positive, scores, -np.inf).max(axis=1, keepdims=True)
    top = np.maximum(best, np.where(negative, scores, -np.inf).max(axis=1, keepdims=True))
    top = np.where(np.isfinite(top), top, 0)
    powers = np.where(negative, np.exp(np.minimum(scores - top, 0)), 0)
    return powers / np.maximum(powers.sum(axis=1, keepdims=True) + np.exp(np.minimum(best - top, 0)), 1e-300)


def suspects(sample: Sample) -> np.ndarray:
    """Negatives of training queries above every positive for the untuned model and for BM25 alike: (Q, P) bool."""
    suspected = _negatives(sample)
    for scores in sample.scores.values():
        suspected &= scores > np.where(sample.positive, scores, -np.inf).max(axis=1, keepdims=True)
    return suspected & sample.positive.any(axis=1, keepdims=True)


def _negatives(sample: Sample) -> np.ndarray:
    """What training sets a query against: its given negatives and the passages of other training queries."""
    of_train = (sample.positive | sample.given)[: sample.num_train].any(axis=0)
    negative = ~sample.relevant & of_train
    negative[sample.num_train :] = False
    return negative


def _part(weights: np.ndarray, suspected: np.ndarray) -> float:
    """The share of the whole gradient that the suspected pairs get; both (Q, P)."""
    return float(weights[suspected].sum() / max(weights.sum(), 1e-12))
