"""Checks of the machine: what would stop a run, slow it down or make it unlike the same run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from m3tune.diagnose.doctor.clashes import known_clashes, unmet
from m3tune.diagnose.doctor.environment import EXTRAS, Machine
from m3tune.diagnose.wording import found
from m3tune.types import Finding

_OLDEST_PYTHON = (3, 11)
_WEIGHTS_GIB = 9  # BGE-M3's weights, gradients and AdamW's moments in float32: 16 bytes for each of 568 million
_DISK_GIB = 10  # BGE-M3 is 2.3 GB; a checkpoint with AdamW's moments is three times that
_FASTER = 1.3  # from which bfloat16 is used, see machine.pick_precision


def old_python(machine: Machine) -> Iterator[Finding]:
    """A Python that m3tune does not run on."""
    if tuple(int(part) for part in machine.python.split(".")[:2]) < _OLDEST_PYTHON:
        yield found(
            "old-python", "error", "python", f"this is Python {machine.python}", "install Python 3.11 or newer", count=1
        )


def unmet_requirements(machine: Machine) -> Iterator[Finding]:
    """Packages in versions that another package here refuses."""
    broken = list(unmet(machine.versions, machine.requires))
    if broken:
        package, wanted, version = broken[0]
        yield found(
            "unmet-requirements",
            "error" if any(package == "m3tune" for package, *_ in broken) else "warning",
            ", ".join(dict.fromkeys(package for package, *_ in broken)),
            f"{package} requires {wanted}, here is {version}",
            f"pip install '{wanted}'",
            (f"{package} requires {wanted}, here is {version}" for package, wanted, version in broken),
            count=len(broken),
        )


def clashing_versions(machine: Machine) -> Iterator[Finding]:
    """Packages that are known not to work together, though neither says so."""
    for clash in known_clashes(machine.versions):
        both = f"{clash.package} {machine.versions[clash.package]}, {clash.other} {machine.versions[clash.other]}"
        yield found("clashing-versions", clash.severity, both, clash.why, clash.fix, count=1)


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


def low_disk(machine: Machine) -> Iterator[Finding]:
    """Too little room for a model and a checkpoint."""
    for name, place in machine.places.items():
        if place.free_gib < _DISK_GIB:
            yield found(
                "low-disk",
                "warning",
                place.path,
                f"{place.free_gib:.1f} GiB free where {_PURPOSE[name]}; BGE-M3 and a checkpoint take about {_DISK_GIB}",
                f"free space, or {_ELSEWHERE[name]}",
                count=1,
            )


def no_permission(machine: Machine) -> Iterator[Finding]:
    """A folder that cannot be written to."""
    for name, place in machine.places.items():
        if not place.writable:
            yield found(
                "no-permission",
                "error" if name == "work" else "warning",
                place.path,
                f"no permission to write where {_PURPOSE[name]}",
                f"check who owns it, or {_ELSEWHERE[name]}",
                count=1,
            )


def offline_without_cache(machine: Machine) -> Iterator[Finding]:
    """Offline, and nothing in the cache: only folders can be named."""
    if machine.is_offline and not machine.cached_models:
        yield found(
            "offline-without-cache",
            "warning",
            machine.places["cache"].path,
            "offline mode is on, and this cache holds no model"
            + ("" if machine.places["cache"].exists else ": it is not there"),
            "name models by folder or package:NAME/FOLDER; or set HF_HOME to the cache that has them; or unset "
            "HF_HUB_OFFLINE",
            count=1,
        )


def awkward_path(machine: Machine) -> Iterator[Finding]:
    """Folders whose name a tool on the way cannot take."""
    for place in machine.places.values():
        if any("\ud800" <= character <= "\udfff" for character in place.path):
            yield found(
                "awkward-path",
                "error",
                repr(place.path),
                "the name is no UTF-8, so no JSON or TOML file can hold it",
                "rename the folder",
                count=1,
            )
        elif " " in place.path:
            yield found(
                "awkward-path",
                "note",
                place.path,
                "a blank in the name: m3tune takes it, make does not",
                "call m3tune itself, or rename the folder before you use make",
                count=1,
            )


def text_encoding(machine: Machine) -> Iterator[Finding]:
    """A default encoding that is not UTF-8: m3tune names its own, other tools read your files with it."""
    if machine.encoding.lower().replace("-", "").replace("_", "") != "utf8":
        yield found(
            "text-encoding",
            "warning",
            "locale",
            f"files are read as {machine.encoding} by programs that do not say otherwise, LlamaIndex among them",
            "set PYTHONUTF8=1",
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


def missing_extras(machine: Machine) -> Iterator[Finding]:
    """Optional packages that are not there."""
    missing = {package: extra for package, extra in EXTRAS.items() if package not in machine.versions}
    if missing:
        yield found(
            "missing-extras",
            "note",
            ", ".join(missing),
            f"{len(missing)} optional packages are not there; what needs them says so when it is asked",
            f"pip install 'm3tune[{','.join(missing.values())}]', where you want them",
            count=len(missing),
        )


_PURPOSE = {"work": "runs are written", "cache": "models from the Hub are kept"}
_ELSEWHERE = {"work": "work in another folder", "cache": "set HF_HOME to a folder elsewhere"}

MACHINE_RULES: Mapping[str, Callable[[Machine], Iterable[Finding]]] = {
    "old-python": old_python,
    "unmet-requirements": unmet_requirements,
    "clashing-versions": clashing_versions,
    "cuda-mismatch": cuda_mismatch,
    "no-permission": no_permission,
    "awkward-path": awkward_path,
    "text-encoding": text_encoding,
    "low-disk": low_disk,
    "low-memory": low_memory,
    "small-device": small_device,
    "offline-without-cache": offline_without_cache,
    "wrong-threads": wrong_threads,
    "no-accelerator": no_accelerator,
    "slow-bfloat16": slow_bfloat16,
    "missing-extras": missing_extras,
}


def machine_findings(machine: Machine) -> tuple[Finding, ...]:
    """What every check finds: what stops a run first, notes last."""
    every = [finding for rule in MACHINE_RULES.values() for finding in rule(machine)]
    return tuple(sorted(every, key=lambda finding: finding.severity == "note"))
