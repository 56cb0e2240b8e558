"""The peers, set up for the benchmarks: the same model, texts and lengths, at their defaults and at their best."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from m3tune.data.collection import Collection
from m3tune.data.read import read_collection
from m3tune.machine import autocast, pick_device, pick_precision
from m3tune.memory import GIB, peak_of_work
from m3tune.model.weights import model_folder
from m3tune.starter import DEMO


def scifact() -> Collection:
    """The shipped SciFact."""
    return read_collection(DEMO["data.path"])[0]


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    return str(model_folder(DEMO["model.path"]))


def sentence_transformer(max_tokens: int = 256, *, train: bool = False):
    """all-MiniLM-L6-v2 in sentence-transformers, on the CPU."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(minilm(), device="cpu")
    model.max_seq_length = max_tokens
    return model.train(train)


def matrix_product_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """GFLOP/s of (2048, 2048) products, median over repeats: what the machine can do just now."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    a @ b
    rates = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        rates.append(2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return float(np.median(rates))


def print_machine() -> None:
    """The line that every result is read against."""
    # Where bfloat16 is emulated a product of this size takes a minute.
    rates = {"float32": f"{matrix_product_rate(torch.float32):.0f}"}
    if pick_precision("auto", pick_device()) == torch.bfloat16:
        rates["bfloat16"] = f"{matrix_product_rate(torch.bfloat16):.0f}"
    print(
        f"machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, GFLOP/s {rates}"
    )


def interleaved_medians(contestants: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a noisy minute hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def print_table(medians: dict[str, float], ours: str, unit: str) -> None:
    """Seconds of each contestant and how many times as long as ours it took."""
    width = max(map(len, medians))
    for name, value in medians.items():
        print(f"{name:<{width}}  {value:8.3f} {unit}  {value / medians[ours]:6.2f} x")


def at_best(*, best: bool) -> torch.autocast:
    """Around a peer's forward pass: bfloat16 where it is to be at its best and the machine is faster with it."""
    dtype = pick_precision("auto", pick_device())
    return autocast(torch.device("cpu"), dtype if best else torch.float32)


def peak_gib(work: Callable[[], None], repeats: int = 3) -> float:
    """The most memory during some runs of `work`, less what was in use before them."""
    with peak_of_work(pick_device()) as peak:
        for _ in range(repeats):
            work()
    return peak.num_bytes / GIB
