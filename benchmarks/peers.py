"""The peers, set up for the benchmarks: the same model, texts and lengths, at their defaults and at their best.

Everything runs on an accelerator where there is one. The model is all-MiniLM-L6-v2, or that in the folder which the
environment variable M3TUNE_BENCH_MODEL names.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.data.read import read_collection
from m3tune.machine import Precision, autocast, pick_device, pick_precision, wait_for
from m3tune.memory import GIB, peak_of_work
from m3tune.model.encoder import Encoder
from m3tune.model.weights import load_encoder, model_folder
from m3tune.starter import DEMO

DEVICE = pick_device()
PRODUCT_SIZE = 8192 if DEVICE.type == "cuda" else 2048


def scifact() -> Collection:
    """The shipped SciFact."""
    return read_collection(DEMO["data.path"])[0]


def model_path() -> str:
    """The folder of the model that is measured."""
    return os.environ.get("M3TUNE_BENCH_MODEL") or str(model_folder(DEMO["model.path"]))


def our_encoder(**settings) -> Encoder:
    """The model in m3tune, on the device, with these of the recipe's [model] settings."""
    return load_encoder(ModelConfig(path=model_path(), **settings))[0].to(DEVICE)


def sentence_transformer(max_tokens: int = 256, *, train: bool = False):
    """The model in sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_path(), device=DEVICE.type)
    model.max_seq_length = max_tokens
    return model.train(train)


def matrix_product_rate(dtype: torch.dtype, seconds: float = 1.0, size: int = PRODUCT_SIZE) -> float:
    """GFLOP/s of (size, size) products, median over repeats: what the machine can do just now.

    Where the precision is emulated (under 5 GFLOP/s) a small product tells, and a large one would take a minute.
    """
    if size > 256 and (slow := matrix_product_rate(dtype, 0.0, 256)) < 5:
        return slow
    a, b = (torch.randn(size, size).to(DEVICE, dtype) for _ in range(2))
    a @ b
    rates = []
    wait_for(DEVICE)
    end = time.perf_counter() + seconds
    while not rates or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        wait_for(DEVICE)
        rates.append(2 * size**3 / (time.perf_counter() - start) / 1e9)
    return float(np.median(rates))


def encoder_flop(config, lengths: np.ndarray) -> float:
    """Floating-point operations of one forward pass over texts of these lengths, (N,), without padding.

    Matrix products alone, as Hoffmann et al. 2022 (appendix F) count them, without an output layer: for each token the
    four projections of attention and the two of the feed-forward layer, for each pair of tokens of a text a score and a
    weighted sum. A multiplication with its addition is two operations.
    """
    width, inner = config.hidden_size, config.intermediate_size
    of_token = 2 * (4 * width**2 + 2 * width * inner)
    of_pair = 2 * 2 * width
    lengths = lengths.astype(np.float64)
    return config.num_hidden_layers * float((of_token * lengths + of_pair * lengths**2).sum())


def print_machine() -> None:
    """The line that every result is read against."""
    # Where bfloat16 is emulated a product of this size takes a minute.
    rates = {"float32": f"{matrix_product_rate(torch.float32):.0f}"}
    if pick_precision("auto", DEVICE) == torch.bfloat16:
        rates["bfloat16"] = f"{matrix_product_rate(torch.bfloat16):.0f}"
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.machine()
    print(
        f"machine: {name}, {torch.get_num_threads()} threads, torch {torch.__version__}, GFLOP/s {rates}; "
        f"model: {Path(model_path()).name}"
    )


def interleaved_medians(contestants: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a noisy minute hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            wait_for(DEVICE)
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def print_table(medians: dict[str, float], ours: str, unit: str) -> None:
    """Seconds of each contestant and how many times as long as ours it took."""
    width = max(map(len, medians))
    for name, value in medians.items():
        print(f"{name:<{width}}  {value:8.3f} {unit}  {value / medians[ours]:6.2f} x")


def print_useful_rates(medians: dict[str, float], precisions: dict[str, torch.dtype], flop: float, tokens: int) -> None:
    """Real tokens a second, and what each did for them, over what a matrix product of its precision does just now."""
    rates = {dtype: matrix_product_rate(dtype) for dtype in set(precisions.values())}
    for name, seconds in medians.items():
        dtype = precisions[name]
        useful = flop / seconds / 1e9
        print(
            f"{name}: {tokens / seconds:,.0f} tokens/s, {useful:.0f} useful GFLOP/s, "
            f"{useful / rates[dtype]:.0%} of a product's in {str(dtype)[6:]}"
        )


def our_precisions() -> dict[str, Precision]:
    """m3tune as it comes and, where that is not float32 on this machine, in float32."""
    ours: dict[str, Precision] = {"m3tune (as it comes)": "auto", "m3tune (float32)": "float32"}
    return dict(list(ours.items())[: 1 + (pick_precision("auto", DEVICE) != torch.float32)])


def at_best(*, best: bool) -> torch.autocast:
    """Around a peer's forward pass: bfloat16 where it is to be at its best and the machine is faster with it."""
    dtype = pick_precision("auto", DEVICE)
    return autocast(DEVICE, dtype if best else torch.float32)


class Peak:
    """Memory of its own above what the process had at the start, sampled every two milliseconds."""

    def __enter__(self) -> Peak:
        self.start, self.bytes, self.over = own_bytes(), 0, False
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over:
            self.bytes = max(self.bytes, own_bytes() - self.start)
            time.sleep(0.002)

    def __exit__(self, *_) -> None:
        self.over = True
        self.thread.join()


def own_bytes() -> int:
    """Bytes of this process in memory, without pages of files that it maps (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def peak_gib(work: Callable[[], None], repeats: int = 3) -> float:
    """The most memory during some runs of `work`, beyond what was in use before them."""
    if DEVICE.type == "cuda":
        with peak_of_work(DEVICE) as taken:
            for _ in range(repeats):
                work()
        return taken.num_bytes / GIB
    with Peak() as peak:
        for _ in range(repeats):
            work()
    return peak.bytes / GIB
