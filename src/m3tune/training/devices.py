"""A batch encoded by several devices at once, with the loss and the gradients that one device would find.

    this process                                  worker 1 .. W - 1, each with a device
    weights, where an update changed them  ---->
    texts of its share of the batch        ---->  forward, in parts within the budget
                                           <----  vectors
    one loss; gradients of the vectors     ---->  backward
                                           <----  gradients of weights, added up

The batch, its negatives and the loss are what they are on one device, so W changes time and memory, not the result,
where averaging the gradients of W smaller batches, as data-parallel training does, has fewer negatives for each. The
Trainer, the optimizer and checkpoints are in this process alone and know nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m3tune.config import TrainConfig
from m3tune.errors import TrainingError
from m3tune.memory import clear_cache
from m3tune.model.encoder import Encoder
from m3tune.training.budget import Budget
from m3tune.training.exchange import copy_from_first, embeddings_of, joined_group, receive, send, sum_in_first
from m3tune.training.microbatches import Parts, encode_parts, joined
from m3tune.training.worker import Share, Start
from m3tune.types import Head
from m3tune.vectors import Embeddings

_END_S = 10.0


def count_devices(config: TrainConfig, device: torch.device) -> int:
    """How many devices train. Raises TrainingError for more than there are, or beside DeepSpeed or FSDP."""
    there = devices_there(device)
    if config.devices == "auto":
        return 1 if config.deepspeed or config.fsdp else there
    if device.type != "cpu" and config.devices > there:
        raise TrainingError(
            f"{config.devices} devices are asked for, and {there} are there",
            where="train.devices",
            fix="set it to auto, or look at CUDA_VISIBLE_DEVICES",
        )
    if config.devices > 1 and (config.deepspeed or config.fsdp):
        raise TrainingError(
            "several devices and DeepSpeed or FSDP at once",
            where="train.devices",
            fix="set it to 1, or leave out train.deepspeed and train.fsdp",
        )
    return config.devices


def devices_there(device: torch.device) -> int:
    """GPUs that could share a batch with this one; their processes are handed a socket, which Windows does not do."""
    return torch.cuda.device_count() if device.type == "cuda" and os.name == "posix" else 1


class Devices:
    """The device of this process and those of some workers."""

    def __init__(self, encoder: Encoder, workers: Sequence[_Remote] = ()) -> None:
        self.encoder = encoder
        self.workers = workers
        self._stale = True  # whether the workers' weights may be others

    def __len__(self) -> int:
        return 1 + len(self.workers)

    def encode(
        self,
        model: torch.nn.Module,
        texts: Sequence[np.ndarray],
        budget: Budget,
        heads: Sequence[Head],
        *,
        dropout: bool,
    ) -> Embeddings:
        """What `heads` say of a batch's texts, in their order; its gradient goes to all devices."""
        own, *others = shares([len(text) for text in texts], self.encoder.dimension, len(self))
        asked = [(worker, of_it) for worker, of_it in zip(self.workers, others, strict=True) if _some(of_it)]
        if asked:
            self._renew_weights()
        for worker, of_it in asked:
            worker.ask("encode", Share([np.asarray(text) for text in texts[of_it]], budget, heads, dropout))
        try:
            parts = Parts(texts[own], budget.tokens, self.encoder.device)
            found = encode_parts(model, parts, heads, dropout=dropout)
        finally:
            # Where this process ran out of memory too: who was asked answers, and waits to hear what becomes of it.
            answers = [worker.answer() for worker, _ in asked]
        specs = [worker.checked(answer) for (worker, _), answer in zip(asked, answers, strict=True)]
        if not asked:
            return found
        remote = [worker for worker, _ in asked]
        anchor = torch.zeros((), requires_grad=True)  # without it nothing would go backward
        received = iter(_FromWorkers.apply(anchor, self.encoder.device, remote, specs))
        theirs = [embeddings_of([next(received) for _ in spec], heads) for spec in specs]
        return joined([found, *theirs])

    def collect(self) -> None:
        """Add the workers' gradients to those of this process, before an update; their weights are old after it."""
        if not self.workers:
            return
        for worker in self.workers:
            worker.ask("ready")
        answers = [worker.answer() for worker in self.workers]
        for worker, answer in zip(self.workers, answers, strict=True):
            worker.checked(answer)
        weights = list(self.encoder.parameters())
        moved = [i for i, weight in enumerate(weights) if weight.grad is not None]
        for worker in self.workers:
            worker.ask("collect", moved)
        sum_in_first([weights[i].grad for i in moved])  # type: ignore[misc]
        self._stale = True

    def forget(self) -> None:
        """Have the workers drop what belongs to a step that is given up."""
        for worker in self.workers:
            worker.ask("forget")

    def _renew_weights(self) -> None:
        if self._stale:
            for worker in self.workers:
                worker.ask("weights")
            with torch.no_grad():
                copy_from_first([p for p in self.encoder.parameters() if p.requires_grad])
            self._stale = False


class _Remote:
    """A worker as this process sees it."""

    def __init__(self, start: Start) -> None:
        self.rank = start.rank
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "m3tune.training.worker", str(theirs.fileno())]
        path = os.pathsep.join(sys.path)  # so that it finds what this process found
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": path})
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(start)

    def ask(self, command: str, argument: Any = None) -> None:
        """One of the commands of `Worker`."""
        with contextlib.suppress(OSError):  # one that has ended says so where it is to answer
            self._connection.send((command, argument))

    def answer(self) -> tuple[str, Any]:
        """What it says to a command that is answered."""
        try:
            answer: tuple[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            return "failed", "its process has ended by itself; what it printed says why"
        return answer

    def checked(self, answer: tuple[str, Any]) -> Any:
        """What came with the answer. Raises OutOfMemoryError where memory ran out there, else TrainingError."""
        outcome, content = answer
        if outcome == "no memory":
            raise torch.OutOfMemoryError(f"out of memory on device {self.rank}: {content}")
        if outcome == "failed":
            raise TrainingError(
                f"device {self.rank} failed: {content}", where="train.devices", fix="set it to 1 to train on one device"
            )
        return content

    def end(self) -> None:
        """It ends when nobody speaks to it any more, or is ended."""
        self._connection.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _FromWorkers(torch.autograd.Function):
    """The vectors of all workers that were asked, and the way back to them.

    It is made after this process' own share was encoded, so autograd, which begins with what was made last, sends the
    gradients off before it takes its own share backward.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, device: torch.device, workers: Sequence[_Remote], specs: Sequence) -> tuple:
        ctx.workers, ctx.specs = workers, specs
        received: list[Tensor] = []
        for worker, spec in zip(workers, specs, strict=True):
            worker.ask("give")
            received += receive(spec, worker.rank, device)
        ctx.mark_non_differentiable(*(tensor for tensor in received if not tensor.is_floating_point()))
        return tuple(received)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple:
        left = iter(gradients)
        for worker, spec in zip(ctx.workers, ctx.specs, strict=True):
            of_it = [next(left) for _ in spec]
            worker.ask("backward")
            floating = [g for g, (_, dtype) in zip(of_it, spec, strict=True) if dtype.is_floating_point]
            send(floating, worker.rank)
        return None, None, None, None


def shares(lengths: Sequence[int], width: int, devices: int) -> list[slice]:
    """Stretches of a batch's texts, one for each device, that take about as long; some are empty in a small batch.

    A text of L tokens counts L + L^2 / 6 width, as the matrix products of a layer with four times the width inside do
    (`encoder_flop` of the benchmarks has the formula).

    >>> shares([2, 2, 2, 2], 384, 2)
    [slice(0, 2, None), slice(2, 4, None)]
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    work = tokens + tokens**2 / (6 * width)
    middles = np.cumsum(work) - work / 2
    cuts = np.searchsorted(middles, work.sum() * np.arange(1, devices) / devices)
    cuts = np.maximum(cuts, 1).tolist()  # this process always has a text, so that it knows which weights have gradients
    return [slice(first, last) for first, last in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]


@contextlib.contextmanager
def started(encoder: Encoder, count: int, dtype: torch.dtype, seed: int) -> Iterator[Devices]:
    """The device of the encoder and `count` - 1 others, whose processes end with the block.

    They get the encoder as it is now, its frozen weights and what learns, and from then on the weights alone.
    """
    if count == 1:
        yield Devices(encoder)
        return
    device, threads = encoder.device, torch.get_num_threads()
    each = max(1, threads // count)
    with tempfile.TemporaryDirectory() as folder:
        file, store = Path(folder) / "encoder.pt", Path(folder) / "store"
        torch.save(encoder, file)
        workers = [
            _Remote(Start(rank, count, store, file, _device(device, rank), dtype, seed + rank, each))
            for rank in range(1, count)
        ]
        try:
            for worker in workers:
                worker.checked(worker.answer())
            torch.set_num_threads(each if device.type == "cpu" else threads)
            with joined_group(0, count, store, device):
                yield Devices(encoder, workers)
        finally:
            for worker in workers:
                worker.end()
            torch.set_num_threads(threads)
            clear_cache()


def _device(first: torch.device, rank: int) -> torch.device:
    return torch.device("cuda", rank) if first.type == "cuda" else first


def _some(stretch: slice) -> bool:
    return stretch.stop > stretch.start
