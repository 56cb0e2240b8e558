import resource
import subprocess
import sys

import pytest
import torch

from m3tune import memory
from m3tune.memory import GIB, free_bytes, in_use_bytes, is_out_of_memory, peak_of_work

CPU = torch.device("cpu")
SIZE = 200 * 2**20


@pytest.mark.parametrize("by_kernel", [True, False])
def test_the_peak_of_some_work_is_what_it_held_at_its_height(monkeypatch, by_kernel):
    if not by_kernel:
        monkeypatch.setattr(memory, "_kernel_peak", lambda **_: None)
    elif memory._kernel_peak(reset=True) is None:
        pytest.skip("the kernel keeps no peak that can be reset")
    with peak_of_work(CPU) as peak:
        block = torch.ones(SIZE, dtype=torch.uint8)
        if not by_kernel:
            for _ in range(50):
                block += 1  # long enough to be seen
        del block
    assert peak.num_bytes == pytest.approx(SIZE, rel=0.1)
    assert peak.total == peak.before + peak.num_bytes
    with peak_of_work(CPU) as nothing:
        pass
    assert nothing.num_bytes < SIZE / 10


def test_what_is_in_use_grows_by_what_is_taken():
    before = in_use_bytes(CPU)
    block = torch.ones(SIZE, dtype=torch.uint8)
    assert in_use_bytes(CPU) - before == pytest.approx(SIZE, rel=0.1)
    del block


def test_what_is_free_obeys_the_limits_of_the_system_and_of_a_container(tmp_path, monkeypatch):
    most = free_bytes(CPU)
    assert most > 0
    (tmp_path / "max").write_text(f"{3 * 2**20}\n")
    (tmp_path / "current").write_text(f"{2**20}\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "max",))
    monkeypatch.setattr(memory, "_CGROUP_USED", (tmp_path / "current",))
    assert free_bytes(CPU) == 2 * 2**20
    (tmp_path / "max").write_text("max\n")
    assert free_bytes(CPU) > 2 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v")
def test_a_limit_of_address_space_is_seen():
    code = (
        "import resource, torch; from m3tune.memory import free_bytes, in_use_bytes; import psutil;"
        "now = psutil.Process().memory_info().vms;"
        f"resource.setrlimit(resource.RLIMIT_AS, (now + {GIB}, resource.RLIM_INFINITY));"
        "print(free_bytes(torch.device('cpu')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ended.stdout) == pytest.approx(GIB, rel=0.1)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("HIP out of memory. Tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA out of memory."), False),
        (KeyboardInterrupt(), False),
    ],
    ids=str,
)
def test_errors_that_say_that_memory_ran_out_are_told_from_others(error, is_memory):
    assert is_out_of_memory(error) == is_memory


def test_a_real_refusal_of_the_allocator_is_known():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
