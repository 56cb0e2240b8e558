"""Token ids on disk, each text tokenised once: whoever asks for it again, in whatever set of texts, finds it there.

    folder/KEY/ids.bin    the ids of every text, int32, one text after another; only ever appended to
    folder/KEY/texts.npy  where each text lies, by the digest of its content; replaced when ids.bin has what it names

KEY is a hash of the tokenizer and the limit. A prompt is part of a text. A process that is killed loses the texts since
texts.npy was written; what it appended for them is never looked at, and no other process' ids are ever written over.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

import numpy as np
import tokenizers
from transformers import PreTrainedTokenizerBase

from m3tune.artifact import fingerprint
from m3tune.data.collection import text_digest
from m3tune.data.tokens import TokenTable, in_chunks, keeper
from m3tune.progress import track

_ENTRY = np.dtype([("digest", "<u8"), ("start", "<i8"), ("length", "<i4"), ("cut", "?")])
_SAVED_TEXTS = 1 << 19  # tokenised between two times that texts.npy is written


@contextlib.contextmanager
def tokens_kept(folder: Path) -> Iterator[None]:
    """Whatever is tokenised inside is kept in `folder`, and deleted at the end, but not where an error ends it.

    An interrupted run therefore tokenises nothing twice. Inside another such block, that one's folder is used.
    """
    if keeper.get() is not None:
        yield
        return
    store = TokenStore(folder)
    token = keeper.set(store.table)
    try:
        yield
    finally:
        keeper.reset(token)
    store.delete()


class TokenStore:
    """Tables of tokens that share what they have in common, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> TokenTable:
        """What `tokenize` returns, memory-mapped. `texts` is gone through twice where some of them are new.

        In memory are about a hundred bytes a text and 2,048 texts at a time. Raises ValueError for texts that cannot be
        gone through twice.
        """
        place = self._folder / _key(tokenizer, max_tokens)
        place.mkdir(parents=True, exist_ok=True)
        digests = np.fromiter(map(text_digest, texts), dtype=np.uint64)
        known = _read(place)
        new = _new(digests, known["digest"])
        if new.any():
            missing = itertools.compress(texts, new)
            known = _add(place, known, digests[new], missing, tokenizer, max_tokens)
        entries = known[np.searchsorted(known["digest"], digests)]
        starts, lengths = entries["start"].copy(), entries["length"].astype(np.int64)
        return TokenTable(_ids(place), starts, lengths, entries["cut"].copy())

    def delete(self) -> None:
        """Delete what stores have written here, and nothing else."""
        for ids in self._folder.glob("*/ids.bin"):
            for file in (ids, *ids.parent.glob("texts.*")):
                file.unlink()
            with contextlib.suppress(OSError):
                ids.parent.rmdir()
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def _key(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    return fingerprint([_tokenizer_fingerprint(tokenizer), tokenizer.truncation_side, max_tokens])


@functools.lru_cache(maxsize=4)  # a large vocabulary takes a second
def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A content hash of the vocabulary and the rules, whatever limit was last used."""
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()
    rust.no_padding()
    return hashlib.sha256(f"{tokenizers.__version__} {rust.to_str()}".encode()).hexdigest()


def _read(place: Path) -> np.ndarray:
    """The texts that are there, by digest; none where the files do not fit together."""
    with contextlib.suppress(OSError, ValueError):
        known = np.load(place / "texts.npy")
        if known.dtype == _ENTRY:
            end = int((known["start"] + known["length"]).max(initial=0))
            if end * 4 <= (place / "ids.bin").stat().st_size:
                return known
    return np.zeros(0, _ENTRY)


def _ids(place: Path) -> np.ndarray:
    file = place / "ids.bin"
    count = file.stat().st_size // 4 if file.is_file() else 0
    return np.memmap(file, "<i4", mode="r", shape=(count,)) if count else np.zeros(0, np.int32)


def _new(digests: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) bool: the first text of each digest that is not among the sorted known ones."""
    first = np.zeros(len(digests), bool)
    first[np.unique(digests, return_index=True)[1]] = True
    if not len(known):
        return first
    place = np.searchsorted(known, digests).clip(max=len(known) - 1)
    return first & (known[place] != digests)


def _add(
    place: Path,
    known: np.ndarray,
    digests: np.ndarray,
    texts: Iterator[str],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> np.ndarray:
    """Tokenise new texts, whose digests these are, to the end of ids.bin; all texts that are there then."""
    done = 0
    # Unbuffered and appending: each write says by itself where it landed, whoever else writes.
    with (place / "ids.bin").open("ab", buffering=0) as file, track("tokenize", total=len(digests)) as advance:
        file.write(bytes(-file.tell() % 4))  # what a full disk cut in the middle of an id
        while done < len(digests):
            entries = []
            for table in in_chunks(itertools.islice(texts, _SAVED_TEXTS), tokenizer, max_tokens):
                entries.append(_append(file, table, digests[done : done + len(table)]))
                done += len(table)
                advance(len(table))
            if not entries:
                raise ValueError("these texts can be gone through only once")
            os.fsync(file.fileno())
            known = np.concatenate([known, *entries])
            known = known[np.argsort(known["digest"], kind="stable")]
            _write(place, known)
    return known


def _append(file: FileIO, table: TokenTable, digests: np.ndarray) -> np.ndarray:
    """Write a table's ids to the end of the file; its entries."""
    content = table.ids.astype("<i4").tobytes()
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    begin = (file.tell() - len(content)) // 4
    entries = np.empty(len(table), _ENTRY)
    entries["digest"], entries["start"] = digests, begin + table.starts
    entries["length"], entries["cut"] = table.lengths, table.cut
    return entries


def _write(place: Path, known: np.ndarray) -> None:
    beside = place / f"texts.{os.getpid()}.partial"
    with beside.open("wb") as file:
        np.save(file, known)
    beside.replace(place / "texts.npy")
