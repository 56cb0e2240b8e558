"""How often the 95 % interval leaves out zero between two equally good systems: it should be in 3 to 7 of 100.

    python benchmarks/interval.py [--comparisons 500] [--resamples 1000]

Every comparison draws nDCG@10 of two systems anew, each query with one relevant passage: a rank by the first system,
and the same rank by the other or one drawn in the same way, so that many values and many differences are exactly zero.
Queries stand alone, or in groups that share a document: the effect of tuning is then one of the whole group for four
in five of its queries. The exact test cannot reach 5 % with fewer than six groups that differ, so where few do the
interval is wider than it need be: such settings may lie below 3 %. Ends with exit code 1 where any lies above 7 %, or
one with many groups that differ below 3 %.
"""

import argparse
import sys

import numpy as np

from m3tune.evaluation.significance import paired_bootstrap

GAINS = np.array([1 / np.log2(rank + 1) for rank in range(1, 11)] + [0.0])  # the last: not among the first ten
SHARES = {  # of queries whose relevant passage stands at each rank: ranks 1 to 10, and none
    "easy": np.array([0.70, 0.08, 0.05, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01, 0.01, 0.06]),
    "middling": np.array([0.40, 0.13, 0.08, 0.05, 0.04, 0.03, 0.02, 0.02, 0.02, 0.01, 0.20]),
    "hard": np.array([0.12, 0.08, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02, 0.02, 0.02, 0.53]),
}
CHANGED = 0.4  # of the queries, or of the groups, does tuning change anything
SHARED = 0.8  # of a group's queries share its effect
SIZES = {  # queries of one document, drawn by the generator
    "alone": lambda generator, count: np.ones(count, dtype=int),
    "pairs": lambda generator, count: np.full(count, 2),
    "1 to 5": lambda generator, count: generator.integers(1, 6, count),
    "geometric": lambda generator, count: generator.geometric(1 / 3, count),
}
LOWEST, HIGHEST = 0.03, 0.07
MANY = 10  # groups that differ, on average


def equally_good(generator, shares, count):
    """The differences (count,) of two systems that rank alike on average."""
    first, second = (generator.choice(GAINS, count, p=shares) for _ in range(2))
    return np.where(generator.random(count) < CHANGED, first - second, 0.0)


def comparison(generator, shares, sizes, queries):
    """Differences and groups, (queries,) each."""
    clusters = np.repeat(np.arange(queries), sizes(generator, queries))[:queries]
    of_group = equally_good(generator, shares, queries)[clusters]
    own = equally_good(generator, shares, queries)
    return np.where(generator.random(queries) < SHARED, of_group, own), clusters


def leaves_out_zero(differences, clusters, resamples, seed):
    low, high = paired_bootstrap(differences, clusters, resamples, seed)
    return low > 0 or high < 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    print("queries  ranks     groups     that differ  groups ignored  by groups")
    right = [
        told(queries, name, kind, arguments.comparisons, arguments.resamples)
        for queries in (30, 100, 300)
        for name in SHARES
        for kind in SIZES
    ]
    sys.exit(not all(right))


def told(queries, name, kind, comparisons, resamples):
    """Print one setting; whether it is as it should be."""
    generator = np.random.default_rng(0)
    wrong, differing = np.zeros(2), 0
    for number in range(comparisons):
        differences, clusters = comparison(generator, SHARES[name], SIZES[kind], queries)
        differing += len(np.unique(clusters[differences != 0]))
        wrong += [leaves_out_zero(differences, of, resamples, number) for of in (np.arange(queries), clusters)]
    ignored, by_groups = wrong / comparisons
    many = differing / comparisons >= MANY
    holds = by_groups <= HIGHEST and (by_groups >= LOWEST or not many)
    note = "" if LOWEST <= by_groups <= HIGHEST else "  few differ" if holds else "  OUTSIDE"
    print(
        f"{queries:7}  {name:8}  {kind:9}  {differing / comparisons:11.1f}  {ignored:14.1%}  {by_groups:9.1%}{note}",
        flush=True,
    )
    return holds


if __name__ == "__main__":
    main()
