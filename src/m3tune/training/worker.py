"""One of several devices: encodes its share of each batch for the process that trains, and takes it backward.

    python -m m3tune.training.worker FILE_DESCRIPTOR

`devices.py` starts it, and speaks to it over a socket: a `Start`, answered by "done", then pairs of a command and what
belongs to it. "encode" and "ready" are answered by "done" with something, or by "no memory" or "failed" with a reason;
the others by nothing.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from m3tune.machine import autocast
from m3tune.memory import clear_cache, is_out_of_memory
from m3tune.model.encoder import Encoder
from m3tune.training.budget import Budget
from m3tune.training.exchange import copy_from_first, joined_group, receive, send, spec_of, sum_in_first, tensors_of
from m3tune.training.microbatches import Parts, encode_parts
from m3tune.types import Head


class Start(NamedTuple):
    """What a worker is told first."""

    rank: int
    size: int
    store: Path
    encoder: Path
    device: torch.device
    dtype: torch.dtype  # of matrix products
    seed: int
    threads: int


class Share(NamedTuple):
    """The texts that a worker encodes, and how."""

    texts: Sequence[np.ndarray]
    budget: Budget
    heads: Sequence[Head]
    dropout: bool


class Worker:
    """An encoder on one device. The methods are the commands."""

    def __init__(self, start: Start) -> None:
        torch.set_num_threads(start.threads)
        torch.manual_seed(start.seed)  # of its dropout
        if start.device.type == "cuda":
            torch.cuda.set_device(start.device)
        # Written by the process that started this one.
        encoder: Encoder = torch.load(start.encoder, map_location=start.device, weights_only=False)
        self.encoder = encoder.train()
        self.dtype = start.dtype
        self.device = start.device
        self.vectors: list[Tensor] = []  # of its share, with what is kept to go backward
        self.failed: Exception | None = None  # in the backward pass, after which nobody waits for an answer

    def weights(self, _: None) -> None:
        """Take over the weights that learn."""
        with torch.no_grad():
            copy_from_first([p for p in self.encoder.parameters() if p.requires_grad])

    def encode(self, share: Share) -> Any:
        """Go forward; answered by what the vectors look like."""
        self.encoder.recompute_layers(share.budget.recompute_layers)
        with autocast(self.device, self.dtype):
            parts = Parts(share.texts, share.budget.tokens, self.device)
            self.vectors = tensors_of(encode_parts(self.encoder, parts, share.heads, dropout=share.dropout))
        return spec_of(self.vectors)

    def give(self, _: None) -> None:
        """Send the vectors."""
        send([vector.detach() for vector in self.vectors], 0)

    def backward(self, _: None) -> None:
        """Receive the gradients of the vectors and go backward; the weights' add up until they are collected."""
        floating = [vector for vector in self.vectors if vector.is_floating_point()]
        received = zip(floating, receive(spec_of(floating), 0, self.device), strict=True)
        learned = [(vector, gradient) for vector, gradient in received if vector.requires_grad]
        self.vectors = []
        try:
            if learned:  # else its texts have nothing to teach, and autograd takes an empty list for a mistake
                torch.autograd.backward([vector for vector, _ in learned], [gradient for _, gradient in learned])
        except Exception as error:
            self.failed = error

    def ready(self, _: None) -> Any:
        """Answered once gradients can be collected."""
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed
        return None

    def collect(self, moved: Sequence[int]) -> None:
        """Add its gradients of the weights with these numbers to those of the process that trains, and drop them."""
        weights = list(self.encoder.parameters())
        gradients = [torch.zeros_like(weights[i]) if weights[i].grad is None else weights[i].grad for i in moved]
        sum_in_first(gradients)  # type: ignore[arg-type]
        self.encoder.zero_grad()

    def forget(self, _: None) -> None:
        """Drop what belongs to a step that is given up."""
        self.vectors, self.failed = [], None
        self.encoder.zero_grad()
        clear_cache()


_ANSWERED = {"encode", "ready"}


def work(connection: Connection) -> None:
    """Do what is asked until nobody asks any more."""
    # An interrupt goes to all processes of a terminal; the one that trains ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start: Start = connection.recv()
    worker = Worker(start)
    connection.send(("done", None))  # whoever waits for the others to join would wait for one that failed to load
    with joined_group(start.rank, start.size, start.store, start.device), contextlib.suppress(EOFError):
        while True:
            command, argument = connection.recv()
            try:
                answer = ("done", getattr(worker, command)(argument))
            except Exception as error:
                if command not in _ANSWERED:
                    raise
                answer = ("no memory", str(error)) if is_out_of_memory(error) else ("failed", traceback.format_exc())
            if command in _ANSWERED:
                connection.send(answer)


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
