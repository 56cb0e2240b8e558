"""MinHash in bands: which of many texts may be alike, found without comparing every pair.

Broder 1997 (MinHash) and Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4 (bands): two texts whose
shingles have Jaccard similarity s agree in a band of r rows with probability s^r, and in one of b bands or more with
1 - (1 - s^r)^b.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from rensa import RMinHash

from m3tune.data.normal import mix

BANDS, ROWS = 32, 4  # of texts with similarity 0.5, 0.6 and 0.7 they find 87, 99 and 99.99 %
_SEED = 1
_NEIGHBOURS = 3  # texts of one bucket are compared with this many before them, and with the first
_KEY_BYTES = 8


def band_keys(hashes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A key for each band and text, from its shingles: (BANDS, N) uint64. `hashes` (S,) uint64, `offsets` (N + 1,)."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), BANDS * ROWS, _SEED)
    rows = np.array(matrix.to_rows(), np.uint64).reshape(len(offsets) - 1, BANDS, ROWS)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for row in range(ROWS):
        keys = mix(keys + rows[:, :, row] + np.uint64(1))
    return keys.T


class BandFiles:
    """The keys of N texts in a folder, one file a band, so that one band at a time is in memory (8 N bytes)."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"{band}.keys" for band in range(BANDS)]
        self._stack = contextlib.ExitStack()
        self._files = [self._stack.enter_context(path.open("wb")) for path in self._paths]

    def __enter__(self) -> BandFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, keys: np.ndarray) -> None:
        """Append the keys of more texts: (BANDS, n) uint64."""
        for file, band in zip(self._files, keys, strict=True):
            file.write(np.ascontiguousarray(band).tobytes())

    def candidates(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """For each band the pairs to compare among the texts `rows` (sorted): (M, 2) int64, smaller row first."""
        for band, path in enumerate(self._paths):
            following = self._paths[(band + 1) % BANDS]
            yield bucket_pairs(np.fromfile(path, np.uint64)[rows], np.fromfile(following, np.uint64)[rows], rows)


def bucket_pairs(keys: np.ndarray, finer: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pairs of rows with the same key: (M, 2) int64, smaller row first, at most `_NEIGHBOURS` + 1 for each row.

    A bucket of up to `_NEIGHBOURS` + 1 texts gives all its pairs. In a larger one, which boilerplate makes, texts are
    ordered by the key `finer` and compared with those just before them and with the first, so that its cost grows with
    its size and no faster.
    """
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    members = order[shared]
    members = members[np.lexsort((members, finer[members], keys[members]))]
    keys, rows = keys[members], rows[members]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    place = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))  # within its bucket
    pairs = [np.stack([rows[step:], rows[:-step]], 1)[place[step:] >= step] for step in range(1, _NEIGHBOURS + 1)]
    far = np.flatnonzero(place > _NEIGHBOURS)
    pairs.append(np.stack([rows[far], rows[far - place[far]]], 1))
    return np.sort(np.concatenate(pairs), axis=1)
