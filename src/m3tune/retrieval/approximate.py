"""Approximate dense search with FAISS (the extra `faiss`), for who cannot wait for the exact one.

An inverted file: passages lie in lists around centroids, a byte a number, and a query looks into the nearest lists
only. What it brings up is scored again with the stored vectors, so that scores are exact and all that can be wrong is
that a passage is missing.

P passages, C candidates of a query, D dimension
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m3tune.errors import RecipeError
from m3tune.progress import track
from m3tune.retrieval.exact import Ranked

FILE = "dense.faiss"
_BLOCK_PASSAGES = 65_536
_BLOCK_QUERIES = 64
_LISTS_A_ROOT = 4  # lists are four times the root of P, as FAISS' guidelines have it
_TRAINING_PASSAGES = 64  # for each list; FAISS warns below 39
_LOOKED_INTO = 1 / 16  # of the lists
_LEAST_LISTS = 8
_CANDIDATES = 4  # for each passage asked for: bytes order them roughly


@dataclass(frozen=True)
class Approximate:
    """An index and the vectors that it was made from."""

    index: Any
    dense: np.ndarray  # (P, D)

    def rank(self, queries: np.ndarray, depth: int) -> list[Ranked]:
        """About the best `depth` passages of each query, (Q, D), by their exact scores; ties by the passages' order."""
        ranked = []
        for first in range(0, len(queries), _BLOCK_QUERIES):
            block = np.ascontiguousarray(queries[first : first + _BLOCK_QUERIES], dtype=np.float32)
            _, found = self.index.search(block, min(_CANDIDATES * depth, len(self.dense)))
            for query, candidates in zip(block, found, strict=True):
                rows = np.sort(candidates[candidates >= 0])
                scores = self.dense[rows].astype(np.float32) @ query
                order = np.argsort(-scores, kind="stable")[:depth]
                ranked.append(Ranked(rows[order], scores[order]))
        return ranked


def open_approximate(folder: Path, dense: np.ndarray) -> Approximate:
    """The index of the vectors in `folder`, made and kept there the first time. Raises RecipeError without FAISS."""
    faiss = _faiss()
    file = folder / FILE
    index = None
    with contextlib.suppress(RuntimeError):  # not there, or of another FAISS
        index = faiss.read_index(str(file))
    if index is None:
        index = _built(faiss, dense)
        beside = file.with_name(FILE + ".partial")
        faiss.write_index(index, str(beside))
        beside.replace(file)
    index.nprobe = max(_LEAST_LISTS, math.ceil(index.nlist * _LOOKED_INTO))
    return Approximate(index, dense)


def _built(faiss: Any, dense: np.ndarray) -> Any:
    count, dimension = dense.shape
    lists = max(1, min(int(_LISTS_A_ROOT * math.sqrt(count)), count // _TRAINING_PASSAGES))
    index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.linspace(0, count - 1, min(count, lists * _TRAINING_PASSAGES)).astype(np.int64)
    index.train(_float32(dense[sample]))
    with track("index", total=count) as advance:
        for first in range(0, count, _BLOCK_PASSAGES):
            block = _float32(dense[first : first + _BLOCK_PASSAGES])
            index.add(block)
            advance(len(block))
    return index


def _float32(block: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.array(block)).float().numpy()  # from float16 much faster than numpy


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise RecipeError(
            "approximate search needs the package faiss", where="--approximate", fix="pip install 'm3tune[faiss]'"
        ) from None
    return faiss
