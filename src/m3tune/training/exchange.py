"""What goes between the processes of a training on several devices: vectors, weights and gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from m3tune.types import Head
from m3tune.vectors import Embeddings, MultiVector, Sparse

_BUCKET_NUMBERS = 16 * 2**20  # sent at once, 64 MiB of float32; a message for each small weight would take longer
_WAIT = timedelta(minutes=10)  # nobody sends before the other one has said that it is ready

Spec = list[tuple[tuple[int, ...], torch.dtype]]
"""Shapes and dtypes of tensors that are about to be sent."""


@contextlib.contextmanager
def joined_group(rank: int, size: int, store: Path, device: torch.device) -> Iterator[None]:
    """Inside, this process is one of `size`, numbered from 0, the one that trains."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.FileStore(str(store), size), rank=rank, world_size=size, timeout=_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def send(tensors: Sequence[Tensor], to: int) -> None:
    """The tensors, one by one; the other one knows their shapes."""
    for tensor in tensors:
        if tensor.numel():
            dist.send(tensor.contiguous(), to)


def receive(spec: Spec, of: int, device: torch.device) -> list[Tensor]:
    """What the other one sends."""
    tensors = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in spec]
    for tensor in tensors:
        if tensor.numel():
            dist.recv(tensor, of)
    return tensors


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """Every process' tensors become those of process 0."""
    for bucket, flat in _flattened(tensors):
        dist.broadcast(flat, 0)
        _put_back(flat, bucket)


def sum_in_first(tensors: Sequence[Tensor]) -> None:
    """The tensors of process 0 become the sum over all processes; those of the others are worth nothing then."""
    for bucket, flat in _flattened(tensors):
        dist.reduce(flat, 0)
        _put_back(flat, bucket)


def spec_of(tensors: Sequence[Tensor]) -> Spec:
    """What `receive` has to know of them."""
    return [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]


def tensors_of(vectors: Embeddings) -> list[Tensor]:
    """All tensors, head by head; `embeddings_of` puts them together again."""
    parts = (part for part in vectors if part is not None)
    return [tensor for part in parts for tensor in ((part,) if isinstance(part, Tensor) else part)]


def embeddings_of(tensors: Sequence[Tensor], heads: Sequence[Head]) -> Embeddings:
    """What `tensors_of` took apart, of these heads."""
    left = iter(tensors)
    return Embeddings(
        next(left) if "dense" in heads else None,
        Sparse(next(left), next(left), next(left)) if "sparse" in heads else None,
        MultiVector(next(left), next(left)) if "multi" in heads else None,
    )


def _flattened(tensors: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Tensors in buckets, and each bucket as one flat tensor; a large tensor is its own, without a copy."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > _BUCKET_NUMBERS:
            yield bucket, _flat(bucket)
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket, _flat(bucket)


def _flat(bucket: Sequence[Tensor]) -> Tensor:
    return bucket[0].reshape(-1) if len(bucket) == 1 else torch.cat([tensor.reshape(-1) for tensor in bucket])


def _put_back(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    for tensor, values in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        if tensor.data_ptr() != values.data_ptr():
            tensor.copy_(values.view_as(tensor))
