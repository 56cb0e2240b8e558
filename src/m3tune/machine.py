"""What this machine is good at: the device, and the precision that is really faster on it."""

from __future__ import annotations

import functools
import time
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_WORTHWHILE_SPEEDUP = 1.3


def pick_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_precision(wanted: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: as asked for, or for "auto" bfloat16 where it is measurably faster than float32."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if cpu_bfloat16_speedup() > _WORTHWHILE_SPEEDUP else torch.float32
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`, everything that needs it in float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@functools.cache
def cpu_bfloat16_speedup() -> float:
    """float32 time over bfloat16 time of a product the size of a small encoder's. Takes a few hundredths of a second.

    Measured rather than read off the processor's name: emulated bfloat16 is far slower than float32.
    """
    return _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)


def _product_seconds(dtype: torch.dtype, repeats: int = 5) -> float:
    a = torch.ones(512, 512, dtype=dtype)
    b = torch.ones(512, 1024, dtype=dtype)
    a @ b
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
