"""What a training step costs in memory and time, from short probes of the encoder and of the loss.

T tokens of a batch
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from m3tune.config import TrainConfig
from m3tune.data.tokens import TokenTable
from m3tune.machine import autocast, wait_for
from m3tune.memory import is_out_of_memory, peak_of_work
from m3tune.model.encoder import Encoder
from m3tune.retrieval.layout import lay_out
from m3tune.training.batches import TrainBatch
from m3tune.training.budget import Budget
from m3tune.training.microbatches import Parts, encode_parts
from m3tune.training.objective import Known, Objective, unified
from m3tune.types import Head
from m3tune.vectors import Embeddings, split_at

GRADIENT_BYTES = 4  # of a weight that learns
_PROBE_S = 3.0  # a probe is made no longer than about this
_GAPS = {"cpu": 1.2}  # with the gaps that malloc leaves in its heap while batches of all sizes pass (docs/log.md)
_FIRST_PROBE_TOKENS, _MOST_PROBE_TOKENS = 512, {"cpu": 4096, "cuda": 32_768}


class Costs(NamedTuple):
    """What was measured: activations and time of T tokens are `fixed_bytes` + T `token_bytes`, T `train_s`.

    The activations are those of the whole pass forward, with what its way back takes beyond them, and the gaps between
    them in the heap. Gradients of weights are not in them.
    """

    fixed_bytes: float
    token_bytes: float
    train_s: float  # of a token, forward and backward
    forward_s: float  # of a token, forward alone
    loss_bytes: float  # of the largest batch
    loss_s: float

    def activations(self, tokens: int) -> float:
        """Bytes of the activations of so many tokens."""
        return self.fixed_bytes + tokens * self.token_bytes

    def step_s(self, tokens: int, budget: Budget) -> float:
        """Seconds of a step: what is not held, or any of it where layers are recomputed, goes forward twice."""
        twice = tokens if budget.recompute_layers else max(0, tokens - budget.tokens)
        return tokens * self.train_s + twice * self.forward_s + self.loss_s


def measure_costs(encoder: Encoder, batch: TrainBatch, config: TrainConfig, dtype: torch.dtype) -> Costs:
    """Two probes of the encoder at different sizes, one of the forward pass alone, one of the loss."""
    objective = Objective.of(config)
    heads = objective.heads(encoder.settings.heads)
    first = typical(batch.texts, min(_FIRST_PROBE_TOKENS, batch.num_tokens // 2))
    probe(encoder, first, heads, dtype)  # the first pass of a process pays for what later ones find made
    small = probe(encoder, first, heads, dtype)
    quick = int(_PROBE_S / small.seconds * small.tokens)
    most = min(_MOST_PROBE_TOKENS.get(encoder.device.type, 4096), quick, batch.num_tokens)
    large = _largest_probe(encoder, batch.texts, max(most, 2 * small.tokens), small, heads, dtype)
    gradients = learning_weights(encoder) * GRADIENT_BYTES
    held = _line(small.tokens, small.held_bytes, large.tokens, large.held_bytes)
    beyond = _line(small.tokens, small.beyond(gradients), large.tokens, large.beyond(gradients))
    forward = probe(encoder, typical(batch.texts, large.tokens), heads, dtype, backward=False)
    loss_bytes, loss_s = _probe_loss(encoder, batch, objective, config)
    gaps = _GAPS.get(encoder.device.type, 1.0)
    return Costs(
        fixed_bytes=gaps * (held[0] + beyond[0]),
        token_bytes=gaps * (held[1] + beyond[1]),
        train_s=large.seconds / large.tokens,
        forward_s=forward.seconds / forward.tokens,
        loss_bytes=loss_bytes,
        loss_s=loss_s,
    )


def _largest_probe(
    encoder: Encoder, texts: Sequence[np.ndarray], most: int, small: Probed, heads: Sequence[Head], dtype: torch.dtype
) -> Probed:
    """The probe of `most` tokens, or of half as many again and again where memory runs out, down to the small one."""
    while most > small.tokens:
        try:
            return probe(encoder, typical(texts, most), heads, dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        most //= 2
    return small


class Probed(NamedTuple):
    """What one pass took."""

    tokens: int
    held_bytes: int  # the most that was in use while it went forward
    num_bytes: int  # the most that was in use
    seconds: float

    def beyond(self, gradients: int) -> int:
        """What the way back takes beyond what is held.

        On it the gradients of weights, so many bytes in all, take the place of the activations, and in a short pass
        they are the larger. A line through whole peaks is therefore too flat for a long pass: where 2,471 tokens took
        375 MiB, probes of 576 and 1,192 foretold 318.
        """
        return max(0, self.num_bytes - max(self.held_bytes, gradients))


def probe(
    encoder: Encoder, texts: Sequence[np.ndarray], heads: Sequence[Head], dtype: torch.dtype, *, backward: bool = True
) -> Probed:
    """One pass over the texts, as a step makes it, with the sum of all vectors for a loss."""
    tokens = sum(map(len, texts))
    was_training = encoder.training
    encoder.train()
    try:
        with peak_of_work(encoder.device) as forward:
            start = time.perf_counter()
            with torch.set_grad_enabled(backward), autocast(encoder.device, dtype):
                found = encode_parts(encoder, Parts(texts, tokens, encoder.device), heads, dropout=False)
            wait_for(encoder.device)
            seconds = time.perf_counter() - start
        with peak_of_work(encoder.device) as back:
            start = time.perf_counter()
            if backward:
                _sum(found).backward()
            del found
            wait_for(encoder.device)
            seconds += time.perf_counter() - start
    finally:
        encoder.zero_grad()
        encoder.train(was_training)
    whole = max(forward.total, back.total) - forward.before
    return Probed(tokens, forward.num_bytes, whole, seconds)


def learning_weights(encoder: Encoder) -> int:
    """How many weights have a gradient."""
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


def largest_table(encoder: Encoder) -> int:
    """Weights of the largest embedding table that learns."""
    tables = [module.weight for module in encoder.modules() if isinstance(module, nn.Embedding)]
    return max((table.numel() for table in tables if table.requires_grad), default=0)


def _line(few: int, few_bytes: int, many: int, many_bytes: int) -> tuple[float, float]:
    """Bytes of no token and of each token, neither below zero, through two points, above all the second."""
    slope = max(0.0, (many_bytes - few_bytes) / (many - few)) if many > few else many_bytes / many
    return max(0.0, many_bytes - many * slope), slope


def _sum(found: Embeddings) -> Tensor:
    """The sum of all vectors: a loss whose gradient reaches every weight."""
    tensors = (part if isinstance(part, Tensor) else part[-2] for part in found if part is not None)
    return torch.stack([tensor.sum() for tensor in tensors]).sum()


def _probe_loss(encoder: Encoder, batch: TrainBatch, objective: Objective, config: TrainConfig) -> tuple[float, float]:
    """Bytes and seconds of scores, loss and their gradients for vectors of the batch's shapes, drawn at random."""
    heads = objective.heads(encoder.settings.heads)
    drawn = _drawn_vectors(encoder, batch.texts, heads)
    device = encoder.device
    with peak_of_work(device) as peak:
        start = time.perf_counter()
        masks = batch.to(device)
        known = Known(masks.positive, masks.negative, masks.soft, masks.teacher, masks.guide)
        queries, passages = split_at(_learning(drawn, device), batch.num_queries)
        distill = config.self_distill and bool(objective.mixed(heads))
        unified(objective, queries, passages, known, self_distill=distill).loss.backward()
        wait_for(device)
        seconds = time.perf_counter() - start
    return peak.num_bytes, seconds


def _drawn_vectors(encoder: Encoder, texts: Sequence[np.ndarray], heads: Sequence[Head]) -> Embeddings:
    lengths = np.array([len(text) for text in texts])
    table = TokenTable(np.concatenate(texts), np.cumsum(lengths) - lengths, lengths, np.zeros(len(texts), bool))
    layout = lay_out(encoder, table, heads)
    generator = np.random.default_rng(0)
    return layout.allocate(lambda _, shape, kind: generator.random(shape, np.float32).astype(kind)).load(slice(None))


def _learning(drawn: Embeddings, device: torch.device) -> Embeddings:
    """Copies on the device, with a gradient to come."""

    def copied(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.to(device, copy=True).requires_grad_(part.is_floating_point())
        return None if part is None else type(part)(*map(copied, part))

    return Embeddings(*map(copied, drawn))


def typical(texts: Sequence[np.ndarray], tokens: int) -> list[np.ndarray]:
    """About so many tokens of the batch, of all its lengths alike; its texts again where it has fewer."""
    total = sum(map(len, texts))
    whole, rest = divmod(tokens, total)
    count = max(0 if whole else 1, round(len(texts) * rest / total))
    rows = np.linspace(0, len(texts) - 1, count).round().astype(int)
    return sorted([*(list(texts) * whole), *(texts[row] for row in rows)], key=len)
