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
import torch
from transformers import AutoModelForSequenceClassification

from m3tune.errors import ModelError
from m3tune.machine import Precision, autocast, pick_device, pick_precision
from m3tune.model.backbone import load_tokenizer, quiet_transformers
from m3tune.model.packing import token_budget_batches
from m3tune.model.weights import model_folder
from m3tune.progress import track

_BUDGET_TOKENS = {"cpu": 4096, "cuda": 65_536}  # of a batch, padding included
_CHUNK_PAIRS = 4096  # between two writes of the cache
_ASKED_AT_ONCE = 500  # keys in one question to SQLite

TextPair = tuple[str, str]
"""A query and a passage, as the cross-encoder reads them."""


class Teacher:
    """A cross-encoder with one output, and the file of its scores. Raises ModelError for a model of another kind."""

    def __init__(self, spec: str, fingerprint: str, cache: Path, max_tokens: int, precision: Precision) -> None:
        folder = model_folder(spec)
        self.tokenizer = load_tokenizer(folder)
        try:
            with quiet_transformers():
                self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        except (ValueError, OSError) as error:
            raise ModelError(
                f"no cross-encoder: {str(error).splitlines()[0]}", where=folder, fix="name a sequence classifier"
            ) from None
        if self.model.config.num_labels != 1:
            raise ModelError(
                f"the cross-encoder has {self.model.config.num_labels} outputs, and a teacher's score is one",
                where=folder,
                fix="name a reranker with one output, such as BAAI/bge-reranker-v2-m3",
            )
        self.device = pick_device()
        self.model.to(self.device)
        self.dtype = pick_precision(precision, self.device)
        longest = getattr(self.model.config, "max_position_embeddings", None) or max_tokens
        self.max_tokens = min(max_tokens, self.tokenizer.model_max_length, longest)
        self._made = f"{fingerprint} {self.max_tokens} {self.dtype}"
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
                fresh = dict(zip(new, self._compute(list(new.values())), strict=True))
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

    @torch.inference_mode()
    def _compute(self, pairs: Sequence[TextPair]) -> list[float]:
        """Logits in batches of like length, under one budget of tokens."""
        if not pairs:
            return []
        tokens = self.tokenizer(
            [query for query, _ in pairs],
            [passage for _, passage in pairs],
            truncation="longest_first",
            max_length=self.max_tokens,
        )
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        scores = np.zeros(len(pairs))
        budget = _BUDGET_TOKENS.get(self.device.type, 8192)
        with autocast(self.device, self.dtype):
            for rows in token_budget_batches(lengths, budget):
                batch = {name: [of_text[row] for row in rows] for name, of_text in tokens.items()}
                padded = self.tokenizer.pad(batch, return_tensors="pt").to(self.device)
                scores[rows] = self.model(**padded).logits[:, 0].float().cpu().numpy()
        return scores.tolist()
