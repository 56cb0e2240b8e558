"""How much memory there is, how much some work takes at its peak, and which errors say that none was left."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

GIB = 2**30

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_CGROUP_USED = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
_PEAK_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_SAMPLE_S = 0.002
# How the CPU's allocator and its mathematics library say it; accelerate knows the accelerators' words.
_SAYS_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "could not create a memory", "std::bad_alloc")


@dataclass
class Peak:
    """What was in use before some work, and the most that was in use beyond it; zero until the work is done."""

    before: int
    num_bytes: int = 0

    @property
    def total(self) -> int:
        """The most that was in use."""
        return self.before + self.num_bytes


def in_use_bytes(device: torch.device) -> int:
    """Resident memory of this process, or what torch has taken of the accelerator's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def free_bytes(device: torch.device) -> int:
    """What this process may still take: of the accelerator, or of the machine within limits set for it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *_limits()])


@contextlib.contextmanager
def peak_of_work(device: torch.device) -> Iterator[Peak]:
    """Measures the work inside: on an accelerator what torch took of it, on the CPU the resident memory.

    Linux keeps the peak of a process itself; elsewhere a thread looks every two milliseconds.
    """
    _give_back()
    before = in_use_bytes(device)
    peak = Peak(before)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.num_bytes = torch.cuda.max_memory_allocated(device) - before
    elif _kernel_peak(reset=True) is not None:
        yield peak
        peak.num_bytes = (_kernel_peak() or before) - before
    else:
        with _watched(peak):
            yield peak


def clear_cache() -> None:
    """Give back what no tensor holds any more, those too that only each other hold."""
    gc.collect()
    _give_back()


def trim_heap() -> None:
    """Have glibc give the free pages of its heap back to the system; does nothing without glibc.

    Parts of a batch have blocks of all sizes, and each finds the gaps of the last too small: five steps of a training
    that held 2,500 tokens at once reached 1,658 MiB, and 1,484 with this before each part, for up to a fifth more time
    (docs/log.md).
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _give_back() -> None:
    """To the device and to the system: freed memory that is kept for later would be taken for memory in use."""
    clear_device_cache()
    trim_heap()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, in any of the words that torch has for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    says = isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS_NO_MEMORY)
    return says or (isinstance(error, Exception) and should_reduce_batch_size(error))


def _limits() -> Iterator[int]:
    """What is left under the limits of a container and of `ulimit -v`, where there are any."""
    for limit, used in zip(_CGROUP_LIMITS, _CGROUP_USED, strict=True):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield max(0, int(limit.read_text()) - int(used.read_text()))
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            yield max(0, most - int(psutil.Process().memory_info().vms))


def _kernel_peak(*, reset: bool = False) -> int | None:
    """The kernel's high-water mark of resident memory, bytes; None where it has none or does not let it be reset."""
    try:
        if reset:
            _PEAK_RESET.write_text("5")
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def _watched(peak: Peak) -> Iterator[None]:
    done, process = threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            peak.num_bytes = max(peak.num_bytes, process.memory_info().rss - peak.before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
