"""Vectors of the texts of a corpus: in memory, on disk where they are too many, and kept where others ask for the same.

    folder/KEY/HEADS/   what is kept, as store.py writes it

KEY is a hash of all that a vector depends on, every text among it, so what lies under it is what the encoder would say.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

import torch

from m3tune.artifact import MANIFEST
from m3tune.data.tokens import TokenTable
from m3tune.model.encoder import Encoder
from m3tune.retrieval.encode import encode_tokens
from m3tune.retrieval.layout import Storage, lay_out
from m3tune.retrieval.store import open_vectors, store_vectors, vectors_key
from m3tune.retrieval.vectors import Vectors
from m3tune.types import Head

_MEMORY_BYTES = 2**28  # what takes more goes to disk: the plan of a training leaves no room for it
_folder: ContextVar[Path | None] = ContextVar("folder of kept vectors", default=None)


@contextlib.contextmanager
def vectors_kept(folder: Path) -> Iterator[None]:
    """What is encoded inside to be kept lies in `folder`, and is deleted at the end, but not where an error ends it.

    An interrupted run therefore encodes it once. Inside another such block, that one's folder is used.
    """
    if _folder.get() is not None:
        yield
        return
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or the place of another stage
        folder.parent.rmdir()


def corpus_vectors(
    encoder: Encoder,
    tokens: TokenTable,
    dtype: torch.dtype,
    heads: Sequence[Head],
    label: str,
    place: Path | None = None,
    *,
    keep: bool = False,
) -> Vectors:
    """Vectors in memory or, where they would take over 256 MiB and `place` is given, there.

    Inside `vectors_kept` those to `keep` are written to its folder, and found there by whoever asks for them again, by
    all or some of the heads. Multi-vectors are float16 where all would take over 256 MiB, else as in memory float32.
    """
    folder = _folder.get() if keep else None
    if folder is not None:
        return _kept(folder / vectors_key(encoder, tokens, dtype), encoder, tokens, dtype, heads, label)
    if place is None or not _is_large(encoder, tokens, heads):
        return encode_tokens(encoder, tokens, dtype, heads, label)
    return store_vectors(encoder, tokens, dtype, place, heads=heads, label=label)


def _is_large(encoder: Encoder, tokens: TokenTable, heads: Sequence[Head]) -> bool:
    return lay_out(encoder, tokens, heads).num_bytes() > _MEMORY_BYTES


def _kept(
    folder: Path, encoder: Encoder, tokens: TokenTable, dtype: torch.dtype, heads: Sequence[Head], label: str
) -> Vectors:
    """What lies under the key `folder`, where it has these heads; else encoded into it."""
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        vectors = open_vectors(manifest.parent)
        if set(heads) <= set(vectors.heads):
            return vectors.only(heads)
    multi: Storage = "float16" if _is_large(encoder, tokens, heads) else "float32"
    place = folder / "-".join(heads)
    return store_vectors(encoder, tokens, dtype, place, heads=heads, multi=multi, label=label)
