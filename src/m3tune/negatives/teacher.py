"""A cross-encoder's scores of (query, passage) pairs, each computed once and kept.

Scores lie in one SQLite file by the model's fingerprint and the content of the pair, and are written as they come: what
a killed process has scored is not scored again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from m3tune.machine import Precision
from m3tune.negatives.cross_encoder import TextPair, load_cross_encoder
from m3tune.progress import track

_CHUNK_PAIRS = 4096  # between two writes of the cache
_ASKED_AT_ONCE = 500  # keys in one question to SQLite


class Teacher:
    """A cross-encoder and the file of its scores. Raises ModelError for what is none."""

    def __init__(self, spec: str, fingerprint: str, cache: Path, max_tokens: int, precision: Precision) -> None:
        self.encoder = load_cross_encoder(spec, max_tokens, precision)
        self._made = f"{fingerprint} {self.encoder.max_tokens} {self.encoder.dtype}"
        cache.parent.mkdir(parents=True, exist_ok=True)
        self._cache = sqlite3.connect(cache)
        self._cache.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL) WITHOUT ROWID")

    def __enter__(self) -> Teacher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cache.close()

    def scores(self, pairs: Sequence[TextPair]) -> np.ndarray:
        """(n,) float32 logits, higher for more relevant."""
        found = np.zeros(len(pairs), dtype=np.float32)
        with track("score with the teacher", len(pairs)) as advance:
            for start in range(0, len(pairs), _CHUNK_PAIRS):
                chunk = pairs[start : start + _CHUNK_PAIRS]
                keys = [self._key(pair) for pair in chunk]
                known = self._known(keys)
                new = {key: pair for key, pair in zip(keys, chunk, strict=True) if key not in known}
                fresh = dict(zip(new, self.encoder.logits(list(new.values())).tolist(), strict=True))
                with self._cache:
                    self._cache.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", fresh.items())
                known |= fresh
                found[start : start + len(chunk)] = [known[key] for key in keys]
                advance(len(chunk))
        return found

    def _key(self, pair: TextPair) -> bytes:
        text = "\x1f".join((self._made, *pair))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        known: dict[bytes, float] = {}
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            asked = keys[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            known |= dict(self._cache.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", asked))
        return known
