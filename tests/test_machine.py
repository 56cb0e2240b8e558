import pytest
import torch

from m3tune import machine
from m3tune.machine import autocast, pick_device, pick_precision

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def speedup(monkeypatch):
    """Sets what the measurement says of bfloat16 on the CPU."""

    def be(times):
        monkeypatch.setattr(machine, "cpu_bfloat16_speedup", lambda: times)

    return be


def test_the_measurement_gives_a_believable_ratio_and_is_made_once():
    machine.cpu_bfloat16_speedup.cache_clear()
    ratio = machine.cpu_bfloat16_speedup()
    assert isinstance(ratio, float)
    assert 1e-3 < ratio < 100
    assert machine.cpu_bfloat16_speedup() == ratio
    assert machine.cpu_bfloat16_speedup.cache_info().hits == 1


@pytest.mark.parametrize(
    ("times", "expected"),
    [(0.1, torch.float32), (1.0, torch.float32), (1.2, torch.float32), (1.4, torch.bfloat16), (8.0, torch.bfloat16)],
)
def test_auto_takes_bfloat16_on_the_cpu_only_where_it_is_worth_it(speedup, times, expected):
    speedup(times)
    assert pick_precision("auto", CPU) == expected


def test_auto_takes_bfloat16_on_cuda_where_the_card_has_it(monkeypatch, speedup):
    speedup(0.1)  # says nothing about the card
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=supported: answer)
        assert pick_precision("auto", CUDA) == expected
    assert pick_precision("auto", MPS) == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_that_is_asked_for_is_not_measured(monkeypatch, name):
    monkeypatch.setattr(machine, "cpu_bfloat16_speedup", lambda: pytest.fail("measured"))
    for device in (CPU, CUDA, MPS):
        assert pick_precision(name, device) == getattr(torch, name)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_accelerator_comes_before_the_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == torch.device(expected)


def test_products_are_of_the_picked_precision_inside_autocast():
    a = torch.ones(4, 4)
    with autocast(CPU, torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (a @ a).dtype == torch.float32


def test_an_emulated_bfloat16_is_given_up_after_a_small_product(monkeypatch):
    asked = []

    def product(dtype, rows, repeats=5):
        asked.append(rows)
        return 100.0 if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(machine, "_product_seconds", product)
    machine.cpu_bfloat16_speedup.cache_clear()
    assert machine.cpu_bfloat16_speedup() == 0.01
    assert set(asked) == {machine._FEW_ROWS}
    machine.cpu_bfloat16_speedup.cache_clear()


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000\n", 1.5), ("max 100000\n", 3), (None, 3)])
def test_processors_are_those_it_is_bound_to_within_a_containers_quota(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(machine, "_CPU_QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert machine._processors() == expected


def test_threads_are_no_more_than_processors_unless_a_person_said_how_many(monkeypatch):
    set_to = []
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(machine.torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(machine, "_processors", lambda: 1.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    machine._fit_threads.__wrapped__()
    assert set_to == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    machine._fit_threads.__wrapped__()
    assert set_to == [2]
