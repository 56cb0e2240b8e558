"""Vectors on disk: a directory of .npy files, written as the encoder goes, that never mixes two models' vectors.

    dense.npy                                                    (N, D) float32 or float16
    sparse_token_ids.npy, sparse_weights.npy, sparse_offsets.npy (M,) int32, (M,) float32, (N + 1,) int64: CSR
    multi.npy, multi_offsets.npy                                 (M, D) float16 or float32, (N + 1,) int64

The directory's key is a hash of the weights, the settings and every token. A process that was killed goes on after the
last texts that it noted as written; what lies beyond that note is written again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m3tune import __version__
from m3tune.artifact import MANIFEST, StageKey, fingerprint, is_complete, read_json, write_json, writing
from m3tune.data.tokens import TokenTable
from m3tune.errors import ArtifactError
from m3tune.model.encoder import Encoder
from m3tune.retrieval.encode import fill
from m3tune.retrieval.layout import Layout, Storage, lay_out
from m3tune.retrieval.vectors import MultiRows, Spans, SparseRows, Vectors
from m3tune.types import Head

STAGE = "vectors"
_NOTED = "noted.json"
OF_QUERIES = ("query_prompt", "query_max_tokens")  # settings that change no passage's vector
_BATCHES_A_NOTE = 32
_BLOCK_TEXTS = 16_384
# Of a configuration: what saving changes, and what changes no vector.
_OF_THE_FOLDER = ("_name_or_path", "transformers_version", "architectures", "dtype")
_EMPTY_BYTES = 128  # of a .npy file with a header alone


def store_vectors(
    encoder: Encoder,
    tokens: TokenTable,
    dtype: torch.dtype,
    folder: Path,
    *,
    heads: Sequence[Head],
    dense: Storage = "float32",
    multi: Storage = "float16",
    label: str = "encode",
    about: Mapping[str, str] | None = None,
    beside: Callable[[Path], None] | None = None,
) -> Vectors:
    """Encode into `folder`, or go on where an interrupted attempt stopped, or open what is there already.

    `about` joins the key and `beside` writes files of the caller's own into the directory, such as the texts' ids.
    """
    settings = {"heads": list(heads), "dense": dense, "multi": multi, "dtype": str(dtype)}
    config = settings | {"encoder": made_by(encoder)}
    key = StageKey(STAGE, config, _inputs(encoder, tokens) | dict(about or {}))
    if not is_complete(folder, key):
        layout = lay_out(encoder, tokens, heads)
        with writing(folder, key, keep_partial=True) as (partial, counts):
            if beside:
                beside(partial)
            _write(partial, layout, encoder, tokens, dtype, dense, multi, label)
            counts |= {"texts": len(tokens), "cut": tokens.num_truncated, "tokens": tokens.num_tokens}
            counts |= {"bytes": layout.num_bytes(dense, multi)}
            (partial / _NOTED).unlink(missing_ok=True)
    return open_vectors(folder)


def vectors_key(encoder: Encoder, tokens: TokenTable, dtype: torch.dtype) -> str:
    """A hash of all that the vectors of some texts depend on, by whatever head and however they are stored."""
    return fingerprint([made_by(encoder), str(dtype), _inputs(encoder, tokens)])


def open_vectors(folder: Path) -> Vectors:
    """What `store_vectors` wrote, memory-mapped and not to be written to. Raises ArtifactError."""
    if not is_vectors(folder):
        raise ArtifactError("no finished vectors here", where=folder, fix="run m3tune encode again; it goes on")
    sparse = multi = None
    if (folder / "sparse_offsets.npy").is_file():
        token_ids, weights = _open(folder, "sparse_token_ids"), _open(folder, "sparse_weights")
        sparse = SparseRows(token_ids, weights, _spans(folder, "sparse_offsets"))
    if (folder / "multi_offsets.npy").is_file():
        multi = MultiRows(_open(folder, "multi"), _spans(folder, "multi_offsets"))
    dense = _open(folder, "dense") if (folder / "dense.npy").is_file() else None
    return Vectors(dense, sparse, multi)


def is_vectors(folder: Path) -> bool:
    """Whether `folder` holds finished vectors."""
    manifest = folder / MANIFEST
    return manifest.is_file() and read_json(manifest).get("stage") == STAGE


def made_by(encoder: Encoder) -> dict[str, Any]:
    """The settings that change a vector, as JSON holds them. The hybrid's weights change none."""
    settings = asdict(encoder.settings)
    del settings["hybrid_weights"]
    return settings | {"heads": list(encoder.settings.heads)}


def differing_from(folder: Path, encoder: Encoder, ignoring: Collection[str] = ()) -> list[str]:
    """What differs between `encoder` and the one that made the vectors in `folder`, heads not compared; empty: nothing.

    Names of settings, and "weights"; settings in `ignoring` may differ.
    """
    manifest, asked = read_json(folder / MANIFEST), made_by(encoder)
    made = manifest["config"]["encoder"]
    differing = [name for name in asked if made.get(name) != asked[name] and name not in ("heads", *ignoring)]
    return differing + ["weights"] * (manifest["inputs"]["weights"] != weights_fingerprint(encoder))


def weights_fingerprint(encoder: Encoder) -> str:
    """A content hash of the weights in memory, heads included, and of the configuration they run in.

    Whatever folder they came from: a saved copy has the same.
    """
    config = {k: v for k, v in encoder.backbone.config.to_dict().items() if k not in _OF_THE_FOLDER}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _inputs(encoder: Encoder, tokens: TokenTable) -> dict[str, str]:
    return {"weights": weights_fingerprint(encoder), "tokens": _tokens_fingerprint(tokens), "m3tune": __version__}


def _tokens_fingerprint(tokens: TokenTable) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(tokens.lengths).data)
    for first in range(0, len(tokens), _BLOCK_TEXTS):
        digest.update(np.ascontiguousarray(tokens.flat(first, first + _BLOCK_TEXTS)).data)
    return digest.hexdigest()[:16]


def _write(
    folder: Path, layout: Layout, encoder: Encoder, tokens: TokenTable, dtype: torch.dtype,
    dense: Storage, multi: Storage, label: str,
) -> None:  # fmt: skip
    """Fill the files of `folder`, from the first text that is not noted as written."""
    noted = folder / _NOTED
    done = read_json(noted)["texts"] if noted.is_file() else 0
    maps: list[np.memmap] = []

    def new(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        if 0 in shape:  # a file of no bytes cannot be mapped
            np.save(folder / f"{name}.npy", np.zeros(shape, kind))
            return np.zeros(shape, kind)
        file = folder / f"{name}.npy"
        mapped = np.lib.format.open_memmap(file, mode="r+" if done else "w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # A full disk is an error here, and would be a crash when a page of the map is written.
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        maps.append(mapped)
        return mapped

    batches = itertools.count(1)

    def note(texts: int) -> None:
        if next(batches) % _BATCHES_A_NOTE == 0:
            for mapped in maps:
                mapped.flush()
            write_json(noted, {"texts": texts})

    vectors = layout.allocate(new, dense, multi)
    fill(vectors, encoder, tokens, dtype, label, done, note)
    for mapped in maps:
        mapped.flush()


def _open(folder: Path, name: str) -> np.ndarray:
    file = folder / f"{name}.npy"
    try:
        array = np.load(file, mmap_mode="r")
    except FileNotFoundError:
        raise ArtifactError("this file is missing", where=file, fix="delete the folder and encode again") from None
    except ValueError as error:  # numpy does not map an array without elements
        if file.stat().st_size > _EMPTY_BYTES:
            raise ArtifactError(
                f"broken array ({error})", where=file, fix="delete the folder and encode again"
            ) from None
        array = np.load(file)
    return array


def _spans(folder: Path, name: str) -> Spans:
    offsets: Any = np.load(folder / f"{name}.npy")
    return Spans(offsets[:-1], np.diff(offsets))
