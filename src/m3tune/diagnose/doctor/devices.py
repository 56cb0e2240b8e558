"""Checks of accelerators, memory and processor cores."""

from __future__ import annotations

from collections.abc import Iterator

from m3tune.diagnose.doctor.environment import Machine
from m3tune.diagnose.wording import found
from m3tune.types import Finding

_WEIGHTS_GIB = 9  # BGE-M3's weights, gradients and AdamW's moments in float32: 16 bytes for each of 568 million
_FASTER = 1.3  # from which bfloat16 is used, see machine.pick_precision


def cuda_mismatch(machine: Machine) -> Iterator[Finding]:
    """An NVIDIA card that torch does not see."""
    if machine.driver is None or machine.devices:
        return
    if machine.torch_cuda is None:
        what, fix = "torch was built without CUDA", "install the CUDA build of torch: see pytorch.org, Get started"
    else:
        what = f"torch was built for CUDA {machine.torch_cuda}, and finds no device with driver {machine.driver}"
        fix = "update the driver, or install a torch that was built for an older CUDA; see also CUDA_VISIBLE_DEVICES"
    yield found("cuda-mismatch", "error", "torch", f"there is an NVIDIA driver, but {what}", fix, count=1)


def no_accelerator(machine: Machine) -> Iterator[Finding]:
    """No accelerator at all."""
    if machine.driver is None and not machine.devices:
        yield found(
            "no-accelerator",
            "note",
            "torch",
            "no accelerator: the CPU trains small encoders in minutes to hours, BGE-M3 in days",
            "nothing for a small encoder; for BGE-M3 use a machine with an NVIDIA card",
            count=1,
        )


def small_device(machine: Machine) -> Iterator[Finding]:
    """An accelerator too small to train BGE-M3 whole."""
    small = [device for device in machine.devices if device.gib < _WEIGHTS_GIB]
    if small:
        yield found(
            "small-device",
            "warning",
            small[0].name,
            f"{small[0].gib:.1f} GiB; BGE-M3 takes about {_WEIGHTS_GIB} GiB before the first text is read",
            "train adapters (train.lora_rank=16) or freeze the embeddings (train.train_part='no embeddings')",
            count=len(small),
        )


def slow_bfloat16(machine: Machine) -> Iterator[Finding]:
    """No fast half precision."""
    slow = machine.bfloat16_speedup is not None and machine.bfloat16_speedup <= _FASTER
    if slow or any(not device.has_bfloat16 for device in machine.devices):
        told = f"is {machine.bfloat16_speedup:.2g} times as fast as float32" if slow else "is not there"
        yield found(
            "slow-bfloat16",
            "note",
            "precision",
            f"bfloat16 {told}, so float32 is used",
            "nothing; do not set train.precision to bfloat16 here",
            count=1,
        )


def low_memory(machine: Machine) -> Iterator[Finding]:
    """Too little memory to train BGE-M3 on the CPU, or to load it for an accelerator."""
    needed = 4 if machine.devices else _WEIGHTS_GIB
    if machine.free_ram_gib is not None and machine.free_ram_gib < needed:
        yield found(
            "low-memory",
            "warning",
            "memory",
            f"{machine.free_ram_gib:.1f} GiB free; BGE-M3 takes about {needed} GiB "
            + ("while it is loaded" if machine.devices else "before the first text is read"),
            "end what else runs here, or take a smaller encoder",
            count=1,
        )


def wrong_threads(machine: Machine) -> Iterator[Finding]:
    """More threads than cores, or far fewer."""
    if machine.threads > machine.cores:
        yield found(
            "wrong-threads",
            "warning",
            "threads",
            f"torch uses {machine.threads} threads on {machine.cores} cores: they wait for one another",
            f"set OMP_NUM_THREADS={machine.cores}",
            count=machine.threads,
        )
    elif 2 * machine.threads < machine.cores and not machine.devices:
        set_to = machine.variables.get("OMP_NUM_THREADS")
        yield found(
            "wrong-threads",
            "note",
            "threads",
            f"torch uses {machine.threads} of {machine.cores} cores"
            + (f" (OMP_NUM_THREADS={set_to})" if set_to else ""),
            f"set OMP_NUM_THREADS={machine.cores}, unless others work here too",
            count=machine.threads,
        )
