"""Approximate search against the exact one, and its index on disk."""

import sys

import faiss
import numpy as np
import pytest

from m3tune.errors import RecipeError
from m3tune.retrieval import approximate
from m3tune.retrieval.approximate import FILE, open_approximate
from m3tune.retrieval.exact import rank
from m3tune.retrieval.search import SearchPlan, search
from m3tune.retrieval.vectors import Vectors


def clustered(count, seed):
    """Unit vectors around 40 centres, as texts of 40 topics lie."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, 24))
    vectors = centres[generator.integers(0, 40, count)] + 0.5 * generator.normal(size=(count, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def sides():
    return clustered(130, 2), clustered(8001, 1)


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_nearly_everything_is_found_with_exact_scores(sides, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(approximate, "_BLOCK_PASSAGES", 999)
    queries, passages = sides
    passages = passages.astype(kind)
    index = open_approximate(tmp_path, passages)
    assert index.index.nlist > index.index.nprobe > 1, "not every list is looked into"
    assert index.index.ntotal == len(passages)
    found = index.rank(queries, 10)
    exact = rank(Vectors(dense=queries), Vectors(dense=passages), "dense", 10)
    recall = np.mean([len({*f.rows} & {*e.rows}) / 10 for f, e in zip(found, exact, strict=True)])
    assert recall > 0.95
    for query, of in zip(queries, found, strict=True):
        np.testing.assert_allclose(of.scores, passages[of.rows].astype(np.float64) @ query, atol=1e-6)
        assert (np.diff(of.scores) <= 0).all()
        assert len(set(of.rows.tolist())) == 10


def test_few_passages_are_all_looked_at(tmp_path):
    passages = clustered(30, 1)
    queries = clustered(5, 2)
    found = open_approximate(tmp_path, passages).rank(queries, 50)
    exact = rank(Vectors(dense=queries), Vectors(dense=passages), "dense", 50)
    assert [of.rows.tolist() for of in found] == [of.rows.tolist() for of in exact]


def test_equal_passages_keep_their_order(tmp_path):
    found = open_approximate(tmp_path, np.ones((40, 4), np.float32)).rank(np.ones((2, 4), np.float32), 7)
    assert [len(of.rows) for of in found] == [7, 7]
    assert all((np.diff(of.rows) > 0).all() for of in found)


def test_the_index_is_made_once_and_again_where_it_is_broken(tmp_path, monkeypatch):
    passages = clustered(500, 1)
    built = []
    build = approximate._built
    monkeypatch.setattr(approximate, "_built", lambda *arguments: (built.append(1), build(*arguments))[1])
    first = open_approximate(tmp_path, passages).rank(passages[:3], 5)
    again = open_approximate(tmp_path, passages).rank(passages[:3], 5)
    assert len(built) == 1
    assert [of.rows.tolist() for of in first] == [of.rows.tolist() for of in again]
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:100])
    open_approximate(tmp_path, passages)
    assert len(built) == 2
    assert faiss.read_index(str(tmp_path / FILE)).ntotal == 500


def test_search_asks_it_for_the_dense_head_alone(sides, tmp_path):
    queries, passages = (Vectors(dense=side) for side in sides)
    index = open_approximate(tmp_path, passages.dense)
    found = search(queries, passages, SearchPlan(10), approximate=index)
    assert [of.rows.tolist() for of in found.by_head["dense"]] == [of.rows.tolist() for of in index.rank(sides[0], 10)]
    assert found.how == {"dense": "approximately, by FAISS"}


def test_without_faiss_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(RecipeError, match="needs the package faiss") as caught:
        open_approximate(tmp_path, np.ones((4, 2), np.float32))
    assert "m3tune[faiss]" in caught.value.fix
