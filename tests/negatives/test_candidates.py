import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.negatives.candidates import as_lists, as_ranking, unite
from m3tune.retrieval.exact import Ranked

LISTS = st.lists(st.lists(st.integers(0, 6), unique=True, max_size=5), min_size=3, max_size=3)


@given(st.lists(LISTS, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_every_pair_stands_once_with_its_rank_in_each_source(sources):
    rankings = [as_lists(f"s{n}", [np.array(of, np.int64) for of in lists]) for n, lists in enumerate(sources)]
    pairs = unite(rankings, 7)
    expected = {}
    for n, lists in enumerate(sources):
        for query, passages in enumerate(lists):
            for rank, passage in enumerate(passages, start=1):
                expected.setdefault((query, passage), {})[n] = rank
    keys = list(zip(pairs.query.tolist(), pairs.passage.tolist(), strict=True))
    assert keys == sorted(expected)
    for column, key in enumerate(keys):
        ranks = {n: rank for n, rank in enumerate(pairs.ranks[:, column].tolist()) if rank}
        assert ranks == expected[key]
        assert pairs.rank[column] == min(ranks.values())
        assert pairs.found_by(["s0"])[column] == (0 in ranks)


def test_a_range_of_ranks_is_cut_out_and_keeps_its_numbers():
    ranked = [Ranked(np.array([4, 2, 9, 1]), np.zeros(4)), Ranked(np.array([3]), np.zeros(1))]
    found = as_ranking("dense", ranked, 2, 3)
    assert (found.query.tolist(), found.passage.tolist(), found.rank.tolist()) == ([0, 0], [2, 9], [2, 3])


def test_no_candidates_are_no_error():
    pairs = unite([as_lists("s", [np.zeros(0, np.int64)] * 3)], 5)
    assert len(pairs) == len(pairs.rank) == 0
    assert len(unite([], 5)) == 0
