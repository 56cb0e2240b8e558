"""False negatives planted in SciFact: what each rule catches of them, and how many true negatives it loses.

python benchmarks/false_negatives.py [--seeds 0 1 2] [--passages 5183] [--max-tokens 256] [--cache DIR]
                                     [--estimate 200] [--repetitions 200]

Two kinds are planted. Withheld: of half of the queries with several positives all but one judgment are taken away.
Copies: edited copies of positives (the edits of benchmarks/duplicates.py) stand in the corpus beside them. A true
negative is any other passage among a query's first 100 that is not known to be relevant.

The rules are compared at every share of true negatives lost, by what each makes most suspicious: rank skipping as
FlagEmbedding's script does it, a fixed margin, a fixed ratio, auto, and auto with a teacher, a cross-encoder in place
of which stands the truth with noise (relevant and other pairs are `--separation` standard deviations apart).

Then the estimate of the false-negative rate: of each planting the sample of `m3tune review --estimate` is drawn again
and again, the truth reviews it, and what is printed is how often the 95 % interval holds the true rate.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from duplicates import passage_edits
from m3tune.config import MineConfig, ModelConfig, SourceConfig
from m3tune.data.collection import Collection
from m3tune.data.known import known_relevant
from m3tune.data.similar import find_similar
from m3tune.machine import pick_precision
from m3tune.model.weights import load_encoder
from m3tune.negatives import filters
from m3tune.negatives.candidates import Pairs, unite
from m3tune.negatives.estimate import Rate, draw_sample, estimate
from m3tune.negatives.ground import Ground, make_ground
from m3tune.negatives.scores import Scores, feedback_ratios, score_all
from m3tune.negatives.select import Suspicion, select, suspicion
from m3tune.negatives.sources import searched
from m3tune.negatives.threshold import relative
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_queries
from m3tune.retrieval.vectors import Vectors
from m3tune.starter import DEMO
from m3tune.types import Candidate, Passage
from peers import print_machine, scifact
from planting import smaller

DEPTH = 100
LOSSES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
COPIES = 300
RATES = ("before", "after", "wrongly_removed")


class Planted(NamedTuple):
    """The data with false negatives in it."""

    collection: Collection
    withheld: set[tuple[str, str]]
    copies: set[tuple[str, str]]  # query and copy


class Rule(NamedTuple):
    """How suspicious a rule finds every candidate, and what it removes at its usual settings."""

    suspicion: np.ndarray  # (M,)
    settings: dict[str, np.ndarray]  # name -> (M,) bool


def plant(collection: Collection, seed: int) -> Planted:
    generator = random.Random(seed)
    several = sorted(q for q, passages in collection.positives.items() if len(passages) > 1)
    chosen = generator.sample(several, len(several) // 2)
    withheld = {
        (q, p) for q in chosen for p in generator.sample(collection.positives[q], len(collection.positives[q]) - 1)
    }
    judgments = tuple(j for j in collection.judgments if (j.query_id, j.passage_id) not in withheld)
    known = replace(collection, judgments=judgments)
    edits = list(passage_edits(sorted({w for p in collection.passages.values() for w in p.full_text.split()})).values())
    passages, copies = dict(collection.passages), set()
    sources = generator.sample(sorted(known.positives), min(COPIES, len(known.positives)))
    for number, query_id in enumerate(sources):
        original = generator.choice(known.positives[query_id])
        copy = Passage(f"copy-{number}", edits[number % len(edits)](collection.passages[original].full_text))
        passages[copy.id] = copy
        # It is as relevant to every other query of the original.
        copies |= {(q, copy.id) for q, of_query in collection.positives.items() if original in of_query}
    return Planted(Collection(collection.queries, passages, judgments), withheld, copies)


def vectors(
    collection: Collection, query_ids: list[str], max_tokens: int, cache: Path | None, name: str
) -> tuple[Vectors, Vectors]:
    """Dense vectors of queries and passages, from the cache where they are there."""
    file = None if cache is None else cache / f"{name}.npz"
    if file is None or not file.is_file():
        encoder, _ = load_encoder(ModelConfig(path=DEMO["model.path"], passage_max_tokens=max_tokens))
        dtype = pick_precision("auto", encoder.device)
        queries = encode_tokens(encoder, tokenize_queries(encoder, collection, query_ids), dtype)
        passages = encode_tokens(encoder, tokenize_passages(encoder, collection, list(collection.passages)), dtype)
        if file is None:
            return queries, passages
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, queries=queries.dense, passages=passages.dense)
    stored = np.load(file)
    return Vectors(stored["queries"]), Vectors(stored["passages"])


def rules(
    ground: Ground, pairs: Pairs, scores: Scores, passages: Vectors, clean: np.ndarray, teacher: Scores
) -> dict[str, Rule]:
    lowest = scores.lowest(ground)[pairs.query]
    above, ratio = scores.candidate - lowest, relative(scores.candidate, lowest)
    ratios, auto = feedback_ratios(passages, ground, pairs, scores), MineConfig()
    by_auto = suspicion(auto, ground, pairs, scores, None, ratios, clean)
    by_teacher = suspicion(auto, ground, pairs, scores, teacher, ratios, clean)
    print(f"  auto: {by_auto.found}; with a teacher: {by_teacher.found}")
    return {
        "rank skipping": Rule(-pairs.rank.astype(float), {"2-200": pairs.rank <= 2, "10-210": pairs.rank <= 10}),
        "margin": Rule(above, {"0.05": above > -0.05, "0": above > 0}),
        "ratio": Rule(ratio, {"0.95": ratio > 0.95, "0.80": ratio > 0.8}),
        "auto": Rule(ratios, {"auto": by_auto.mask}),
        "auto, teacher": Rule(teacher.candidate, {"auto": by_teacher.mask}),
    }


def caught_at(rule: Rule, true: np.ndarray, planted: np.ndarray, loss: float) -> float:
    """The share of the planted that is caught where the rule loses this share of the true negatives."""
    ordered = np.sort(rule.suspicion[true])
    cut = ordered[max(len(ordered) - 1 - int(loss * len(ordered)), 0)]
    return float((rule.suspicion[planted] > cut).mean()) if planted.any() else float("nan")


def reviewable(
    ground: Ground, pairs: Pairs, scores: Scores, known: filters.Masks, suspected: Suspicion
) -> dict[int, Candidate]:
    """Row -> candidate as mining by default leaves it, without those that the data itself calls relevant."""
    nobody = np.zeros(len(pairs), dtype=bool)
    removed = select(MineConfig(), ground, pairs, scores, None, known, (nobody, nobody), suspected).removed
    lowest = scores.lowest(ground)[pairs.query]
    return {
        row: Candidate(
            ground.query_ids[pairs.query[row]],
            ground.passage_ids[pairs.passage[row]],
            ("model",),
            int(pairs.rank[row]),
            float(scores.candidate[row]),
            float(lowest[row]),
            removed="a filter" if removed[row] else "",
        )
        for row in np.flatnonzero(~known[filters.KNOWN]).tolist()
    }


def coverage(candidates: dict[int, Candidate], relevant: np.ndarray, count: int, repetitions: int) -> None:
    """Print how often the intervals of samples of `count` hold the true rates, and how wide they are on average."""
    truth = {(c.query_id, c.passage_id): bool(relevant[row]) for row, c in candidates.items()}
    kept = [row for row, candidate in candidates.items() if not candidate.removed]
    out = [row for row, candidate in candidates.items() if candidate.removed]
    shares = (relevant[kept + out].mean(), relevant[kept].mean(), (~relevant[out]).mean())
    true = dict(zip(RATES, shares, strict=True))
    found: dict[str, list[Rate]] = {name: [] for name in RATES}
    for seed in range(repetitions):
        sample = draw_sample(candidates.values(), count, seed)
        of_sample = estimate(sample, {pair: "relevant" if truth[pair] else "not relevant" for pair in sample.pairs})
        for name in RATES:
            found[name].append(getattr(of_sample, name))
    for name, rates in found.items():
        held = np.mean([rate.low <= true[name] <= rate.high for rate in rates])
        width = np.mean([rate.high - rate.low for rate in rates])
        print(
            f"  estimate of {count}, {name:15} true {true[name]:7.3%}  held by {held:6.1%} of {repetitions} intervals, "
            f"{width:.2%} wide on average"
        )


def measure(collection: Collection, seed: int, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """One planting; prints what each rule catches, returns it at the losses of LOSSES and at that of auto."""
    planted = plant(collection, seed)
    query_ids = list(planted.collection.positives)
    name = f"planted-{seed}-{len(collection.passages)}-{arguments.max_tokens}"
    queries, passages = vectors(planted.collection, query_ids, arguments.max_tokens, arguments.cache, name)
    known = known_relevant(planted.collection, find_similar(planted.collection))
    ground = make_ground(planted.collection, known, query_ids, None)
    pairs = unite(searched(queries, passages, {"model": SourceConfig(last=DEPTH)}, {}, "dense"), len(passages))
    scores = score_all(queries, passages, {"dense": 1.0}, ground, pairs)
    withheld, copies = (filters.among(ground, pairs, of) for of in (planted.withheld, planted.copies))
    known_masks = filters.known_masks(pairs, ground)
    by_known = np.any(list(known_masks.values()), axis=0)
    clean = ~by_known
    relevant = withheld | copies | by_known
    noise = np.random.default_rng(seed)
    teacher = Scores(
        np.where(clean, noise.normal(size=len(pairs)) + arguments.separation * relevant, np.nan),
        noise.normal(size=len(scores.positive)) + arguments.separation,
    )
    true = clean & ~relevant
    print(f"seed {seed}: {len(query_ids)} queries, {len(pairs)} candidates, {withheld.sum()} withheld and "
          f"{copies.sum()} copies among them")  # fmt: skip
    compared = rules(ground, pairs, scores, passages, clean, teacher)
    for rule_name, rule in compared.items():
        for setting, mask in rule.settings.items():
            print(
                f"  {rule_name:14} {setting:7} true negatives lost {mask[true].mean():7.2%}  withheld caught "
                f"{mask[withheld].mean():7.2%}  copies caught {(mask | by_known)[copies].mean():7.2%}"
            )
    print(f"  copies caught by what is known of duplicates alone: {by_known[copies].mean():.2%}")
    suspected = Suspicion(compared["auto"].settings["auto"], {})
    candidates = reviewable(ground, pairs, scores, known_masks, suspected)
    coverage(candidates, relevant, arguments.estimate, arguments.repetitions)
    at_auto = float(compared["auto"].settings["auto"][true].mean())
    return {n: [caught_at(rule, true, withheld, loss) for loss in (*LOSSES, at_auto)] for n, rule in compared.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passages", type=int, default=5183)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--separation", type=float, default=3.0)
    parser.add_argument("--estimate", type=int, default=200, help="pairs that the sample of an estimate has")
    parser.add_argument("--repetitions", type=int, default=200, help="samples drawn of each planting")
    parser.add_argument("--cache", type=Path, help="where vectors are kept for the next time")
    arguments = parser.parse_args()
    print_machine()
    collection = smaller(scifact(), arguments.passages)
    found = [measure(collection, seed, arguments) for seed in arguments.seeds]
    print(f"\nwithheld ones caught, mean of {len(found)} seeds, by the share of true negatives lost")
    print(f"  {'':14}" + "".join(f"{loss:>9.1%}" for loss in LOSSES) + "  as auto")
    for name in found[0]:
        means = np.mean([of_seed[name] for of_seed in found], axis=0)
        print(f"  {name:14}" + "".join(f"{mean:9.1%}" for mean in means))


if __name__ == "__main__":
    main()
