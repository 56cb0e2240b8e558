"""What this machine is good at: the device, and the precision that is really faster on it."""

from __future__ import annotations

import functools
import math
import os
import platform
import time
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_WORTHWHILE_SPEEDUP, _HOPELESS = 1.3, 0.2
_FEW_ROWS, _ROWS = 8, 512
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def pick_device() -> torch.device:
    """The accelerator where there is one, else the CPU with no more threads than it has processors for us."""
    _fit_threads()
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@functools.cache
def _fit_threads() -> None:
    """In a container torch would start a thread for each processor of the host; they would wait for one another."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), math.ceil(_processors()))))


def _processors() -> float:
    """Processors that this process may use: those it is bound to, within the quota of a container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return min(bound, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or "max"
        return bound


def pick_precision(wanted: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: as asked for, or for "auto" bfloat16 where it is measurably faster than float32."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if cpu_bfloat16_speedup() > _WORTHWHILE_SPEEDUP else torch.float32
    return torch.float32


def machine_facts() -> dict[str, Any]:
    """What of this machine can change a number: system, processors and their instructions, device, threads."""
    device = pick_device()
    return {
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in `dtype`, everything that needs it in float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def wait_for(device: torch.device) -> None:
    """Until what was asked of the device is done: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def cpu_bfloat16_speedup() -> float:
    """float32 time over bfloat16 time of a product the size of a small encoder's. Takes a few hundredths of a second.

    Measured rather than read off the processor's name: emulated bfloat16 is far slower than float32, hundreds of times
    on some, so a small product is tried first.
    """
    for rows in (_FEW_ROWS, _ROWS):
        speedup = _product_seconds(torch.float32, rows) / _product_seconds(torch.bfloat16, rows)
        if speedup < _HOPELESS:
            break
    return speedup


def _product_seconds(dtype: torch.dtype, rows: int, repeats: int = 5) -> float:
    a = torch.ones(rows, 512, dtype=dtype)
    b = torch.ones(512, 1024, dtype=dtype)
    a @ b
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
