"""What fails in a worker's process and not in that of the test: kept here, for the worker imports it by name."""

import os

import torch


class RunsOut:
    """A hook before the forward pass of an encoder: memory runs out above `most` tokens, in another process."""

    def __init__(self, most):
        self.most, self.here = most, os.getpid()

    def __call__(self, _, inputs):
        if os.getpid() != self.here and inputs[0].num_tokens > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Dies(RunsOut):
    """The same, where the process ends."""

    def __call__(self, _, inputs):
        if os.getpid() != self.here:
            os._exit(1)


class Fails(RunsOut):
    """The same, with an error that is nobody's memory."""

    def __call__(self, _, inputs):
        if os.getpid() != self.here:
            raise ValueError("no such token")
