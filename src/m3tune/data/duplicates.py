"""Near-duplicates among many texts: copies with another header, case, spacing, a few words changed, sentences moved.

MinHash in bands finds which pairs may be alike; each is then measured exactly, and only that decides. Time grows with
the number of texts, not of pairs. Memory grows by about 200 bytes a text; 256 more are on disk while it runs.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3tune.data.bands import BANDS, BandFiles, band_keys
from m3tune.data.likeness import PASSAGES, Likeness
from m3tune.data.normal import NormalTexts, normalise
from m3tune.progress import track

_CHUNK_TEXTS = 2048
_CHUNK_CHARACTERS = 1 << 19
_CHUNK_PAIRS = 1024
_MOST_REFUSED = 1 << 24  # refused pairs remembered; one that is not costs a second measurement, no more
_DIGEST_BYTES = 8
_LINK = np.dtype([("first", np.int64), ("second", np.int64), ("similarity", np.float32)])


@dataclass(frozen=True)
class Duplicates:
    """Groups of near-duplicates among N texts, and the pairs that hold each group together.

    The pairs are a spanning forest: a group of k texts has k - 1 of them, not k (k - 1) / 2.
    """

    pairs: np.ndarray  # (M, 2) int64, rows of the texts, the smaller first; sorted
    similarity: np.ndarray  # (M,) float32, as measured; 1 for texts with the same normal form
    groups: np.ndarray  # (N,) int64, the first row of the group each text belongs to; its own row where it is alone


def near_duplicates(texts: Sequence[str], likeness: Likeness = PASSAGES) -> Duplicates:
    """Groups of near-duplicates; for queries with `likeness=QUERIES`. A text without a word is like no other.

    `texts` is gone through once in order and then asked for single rows, so it may lie on disk. The temporary folder
    needs 256 bytes a text. Every pair that is reported reaches `likeness.threshold`. A pair that reaches it may be
    missed: where no band has it (see `bands`), or where it hides in a large bucket of boilerplate. Nothing else decides
    about the result than the texts and the versions of Python's Unicode tables and of rensa.
    """
    with tempfile.TemporaryDirectory(prefix="m3tune-") as folder:
        with BandFiles(Path(folder)) as files:
            digests, has_words = _sketch(texts, likeness, files)
        parent = np.arange(len(texts))  # union-find; a root is the smallest row of its tree
        representatives, copies = _copies(digests, np.flatnonzero(has_words))
        parent[copies["second"]] = copies["first"]
        links, refused = [copies], np.zeros(0, np.uint64)
        with track("near-duplicates: comparing", BANDS) as advance:
            for pairs in files.candidates(representatives):
                codes = np.unique(pairs[:, 0].astype(np.uint64) * np.uint64(len(texts)) + pairs[:, 1].astype(np.uint64))
                codes = np.setdiff1d(codes, refused, assume_unique=True)
                found, newly_refused = _measured(texts, likeness, codes, parent)
                links.append(found)
                if len(refused) + len(newly_refused) <= _MOST_REFUSED:
                    refused = np.sort(np.concatenate([refused, newly_refused]))
                advance(1)
    every_link = np.sort(np.concatenate(links), order=["first", "second"])
    pairs = np.stack([every_link["first"], every_link["second"]], axis=1)
    return Duplicates(pairs, every_link["similarity"], _roots(parent))


def _sketch(texts: Sequence[str], likeness: Likeness, files: BandFiles) -> tuple[np.ndarray, np.ndarray]:
    """Write every text's band keys; a digest of each normal form (N,) uint64 and whether it has a word (N,) bool."""
    digests, has_words = [np.zeros(0, np.uint64)], [np.zeros(0, bool)]
    with track("near-duplicates: reading", len(texts)) as advance:
        for normal in _in_chunks(texts):
            files.add(band_keys(*likeness.sketch(normal)))
            digests.append(_digests(normal))
            has_words.append(np.diff(normal.word_offsets) > 0)
            advance(len(normal))
    return np.concatenate(digests), np.concatenate(has_words)


def _in_chunks(texts: Iterable[str]) -> Iterator[NormalTexts]:
    """The normal forms of the texts in chunks that bound the memory, whatever the length of a text."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == _CHUNK_TEXTS or characters >= _CHUNK_CHARACTERS:
            yield normalise(chunk)
            chunk, characters = [], 0
    if chunk:
        yield normalise(chunk)


def _digests(normal: NormalTexts) -> np.ndarray:
    """A content hash of each normal form: (N,) uint64."""
    spans = itertools.pairwise(normal.offsets.tolist())
    hashes = (hashlib.blake2b(normal.codes[a:b].tobytes(), digest_size=_DIGEST_BYTES).digest() for a, b in spans)
    return np.frombuffer(b"".join(hashes), np.uint64)


def _copies(digests: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first of `rows` with each digest, sorted, and a link from it to each other one."""
    _, first, group = np.unique(digests[rows], return_index=True, return_inverse=True)
    first_of = rows[first[group]]
    is_copy = first_of != rows
    links = np.empty(np.count_nonzero(is_copy), _LINK)
    links["first"], links["second"], links["similarity"] = first_of[is_copy], rows[is_copy], 1
    return rows[~is_copy], links


def _measured(
    texts: Sequence[str], likeness: Likeness, codes: np.ndarray, parent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measure pairs of different trees, join the trees of those alike: links, and the codes of those not alike.

    A code is first row * N + second row. Pairs whose texts hang together already are passed over.
    """
    pairs = np.stack(np.divmod(codes, np.uint64(max(len(texts), 1))), axis=1).astype(np.int64)
    roots = _roots(parent)
    apart = roots[pairs[:, 0]] != roots[pairs[:, 1]]
    codes, pairs = codes[apart], pairs[apart]
    links: list[tuple[int, int, float]] = []
    refused: list[int] = []
    for start in range(0, len(pairs), _CHUNK_PAIRS):
        chunk = pairs[start : start + _CHUNK_PAIRS]
        rows = np.unique(chunk).tolist()
        normals = _in_chunks(texts[row] for row in rows)
        parts = dict(zip(rows, itertools.chain.from_iterable(map(likeness.parts, normals)), strict=True))
        for at, (first, second) in enumerate(chunk.tolist(), start):
            low, high = sorted((_root(parent, first), _root(parent, second)))
            if low == high:
                continue
            similarity = likeness.similarity(parts[first], parts[second])
            if similarity < likeness.threshold:
                refused.append(at)
            else:
                parent[high] = low
                links.append((first, second, similarity))
    return np.array(links, _LINK), codes[refused]


def _root(parent: np.ndarray, row: int) -> int:
    """The first row of a row's tree; halves the path on the way."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _roots(parent: np.ndarray) -> np.ndarray:
    """The first row of every row's tree: (N,) int64."""
    while not np.array_equal(above := parent[parent], parent):
        parent = above
    return parent
