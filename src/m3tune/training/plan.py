"""Memory and time of a training before it starts, from short measured probes; and the budget that follows from them.

T tokens of a batch, B tokens whose activations are held at once
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

import numpy as np
import torch

from m3tune.config import TrainConfig
from m3tune.errors import TrainingError
from m3tune.memory import GIB, clear_cache, free_bytes, in_use_bytes, is_out_of_memory
from m3tune.model.encoder import Encoder
from m3tune.training.arguments import OptimizerName, total_steps
from m3tune.training.batches import EpochBatches, TrainBatch
from m3tune.training.budget import Budget
from m3tune.training.costs import GRADIENT_BYTES, Costs, largest_table, learning_weights, measure_costs
from m3tune.training.feed import Feed
from m3tune.training.microbatches import part_tokens

_SHARE_OF_FREE = 0.85  # the rest is for what grows while training runs: evaluation, checkpoints, fragments
_BATCHES_LOOKED_AT = 64

_STATE_BYTES: dict[OptimizerName, int] = {"adamw": 8, "adamw_8bit": 2}  # of a weight that learns


@dataclass(frozen=True)
class Plan:
    """What a training will take. Memory in bytes: of the process on the CPU, what torch holds on an accelerator."""

    budget: Budget
    optimizer: OptimizerName
    tokens_per_step: int  # mean
    largest_tokens: int  # of one batch
    steps: int
    step_s: float
    forward_s: float  # of a token, forward alone: what encoding takes
    in_use: int  # before the first step: weights, data, Python, libraries
    gradients: int
    optimizer_state: int
    activations: int
    loss: int
    limit: int
    reasons: tuple[str, ...]

    @property
    def peak(self) -> int:
        """The most that will be in use."""
        return self.in_use + self.gradients + self.optimizer_state + self.activations + self.loss

    @property
    def total_s(self) -> float:
        """All steps, without the evaluations between them."""
        return self.steps * self.step_s

    def in_words(self) -> str:
        """One line for a person."""
        return (
            f"plan: {self.steps:,} steps of {self.tokens_per_step:,} tokens, {self.step_s:.3g} s each; "
            f"{self.peak / GIB:.1f} of {self.limit / GIB:.1f} GiB, activations of {self.budget} at once "
            f"({'; '.join(self.reasons)})"
        )


def make_plan(
    encoder: Encoder, feed: Feed, batches: EpochBatches, config: TrainConfig, dtype: torch.dtype, devices: int = 1
) -> Plan:
    """Measure on this encoder, device and data, and choose; the encoder is left as it was.

    Of several devices each takes an equal share of a batch; what goes between them is not in the seconds.

    Raises TrainingError where the recipe's memory does not even hold the longest text.
    """
    chosen = _some_batches(feed, batches)
    sizes = np.array([batch.num_tokens for batch in chosen])
    largest = chosen[int(sizes.argmax())]
    of_device = -(-sizes // devices)
    most = int(of_device.max())
    longest = int(max(table.lengths.max() for table in (feed.collate.query_tokens, feed.collate.passage_tokens)))
    learning = learning_weights(encoder)
    costs = _costs_where_any_fit(encoder, largest, config, dtype)
    clear_cache()
    in_use = in_use_bytes(encoder.device)  # after the probes, which load more of torch and make kernels
    limit = _limit(config, in_use, encoder.device, devices)
    room = limit - in_use - costs.loss_bytes - learning * GRADIENT_BYTES
    optimizer, why_optimizer = _optimizer(config, learning, room - costs.activations(longest))
    room -= learning * _STATE_BYTES[optimizer]
    layers, why_layers = _by_layer(config, costs.activations(longest) > room, longest)
    if layers:
        encoder.recompute_layers(True)
        costs = measure_costs(encoder, largest, config, dtype)
        encoder.recompute_layers(False)
    budget, why_budget = _budget(config, costs, room, most, longest, layers)
    held = min(budget.tokens, most)
    activations, gradients = int(costs.activations(held)), learning * GRADIENT_BYTES
    # Each part ends its way back with a gradient of the whole table, which is then added to that of the others.
    several = part_tokens(held, encoder.device) < most or config.accumulate_batches > 1
    added = largest_table(encoder) * GRADIENT_BYTES if several else 0
    if held == most and config.accumulate_batches == 1:
        gradients = max(0, gradients + added - activations)  # they grow as the activations go
    else:
        activations = max(activations, added)
    plan = Plan(
        budget=budget,
        optimizer=optimizer,
        tokens_per_step=round(float(sizes.mean()) * config.accumulate_batches),
        largest_tokens=largest.num_tokens,
        steps=total_steps(config, len(batches)),
        step_s=float(np.mean([costs.step_s(size, budget) for size in of_device])) * config.accumulate_batches,
        forward_s=costs.forward_s,
        in_use=in_use,
        gradients=gradients,
        optimizer_state=learning * _STATE_BYTES[optimizer],
        activations=activations,
        loss=int(costs.loss_bytes),
        limit=limit,
        reasons=(*_why_devices(devices), *why_layers, *why_budget, *why_optimizer),
    )
    if plan.peak > limit and budget.tokens <= longest:
        raise _does_not_fit(plan, longest)
    return plan


def _costs_where_any_fit(encoder: Encoder, batch: TrainBatch, config: TrainConfig, dtype: torch.dtype) -> Costs:
    """What a step costs. Raises TrainingError where not even the first probe fits, of a few texts or a single one."""
    try:
        return measure_costs(encoder, batch, config, dtype)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise TrainingError(
        "memory ran out in a probe of some hundred tokens",
        where="train",
        fix="free memory on the device, shorten model.passage_max_tokens, or use a smaller model",
    )


def _limit(config: TrainConfig, in_use: int, device: torch.device, devices: int) -> int:
    if config.memory_gib is not None:
        return int(config.memory_gib * GIB)
    sharing = devices if device.type == "cpu" else 1  # processes on one machine; a GPU has memory of its own
    return in_use + int(_SHARE_OF_FREE * free_bytes(device)) // sharing


def _some_batches(feed: Feed, batches: EpochBatches) -> list[TrainBatch]:
    """Batches of the first epoch, evenly spaced."""
    draws = list(batches)
    every = math.ceil(len(draws) / _BATCHES_LOOKED_AT)
    return [feed.collate([feed.examples[draw] for draw in of_batch]) for of_batch in draws[::every]]


def _optimizer(config: TrainConfig, learning: int, room: float) -> tuple[OptimizerName, tuple[str, ...]]:
    """AdamW where its state fits or nothing else is there. Raises TrainingError for what is not installed."""
    installed = importlib.util.find_spec("bitsandbytes") is not None
    if config.optimizer == "adamw_8bit" and not installed:
        raise TrainingError(
            "the 8-bit optimizer needs the package bitsandbytes",
            where="train.optimizer",
            fix="pip install bitsandbytes, or set it to auto",
        )
    if config.optimizer == "auto" and installed and learning * _STATE_BYTES["adamw"] > room:
        return "adamw_8bit", ("AdamW with 8-bit state, for the whole one does not fit",)
    return ("adamw_8bit" if config.optimizer == "adamw_8bit" else "adamw"), ()


def _why_devices(devices: int) -> tuple[str, ...]:
    return (f"{devices} devices share each batch",) if devices > 1 else ()


def _by_layer(config: TrainConfig, needed: bool, longest: int) -> tuple[bool, tuple[str, ...]]:
    """Whether layers are recomputed, and why where the recipe leaves it open."""
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing, ()
    if not needed or config.budget_tokens != "auto":
        return False, ()
    return True, (f"a text of {longest:,} tokens fits only layer by layer",)


def _budget(
    config: TrainConfig, costs: Costs, room: float, largest: int, longest: int, layers: bool
) -> tuple[Budget, tuple[str, ...]]:
    """The most tokens whose activations fit into `room` bytes, at least those of the longest text."""
    if config.budget_tokens != "auto":
        return Budget(max(config.budget_tokens, longest), layers), ("as the recipe says",)
    fitting = int((room - costs.fixed_bytes) / max(costs.token_bytes, 1.0))
    if fitting >= largest:
        return Budget(largest, layers), ("the whole batch fits",)
    budget = Budget(max(fitting, longest), layers)
    twice = 1 - budget.tokens / largest
    return budget, (f"{twice:.0%} of the largest batch of {largest:,} is encoded twice",)


def _does_not_fit(plan: Plan, longest: int) -> TrainingError:
    return TrainingError(
        f"about {plan.peak / GIB:.1f} GiB are needed for one text of {longest:,} tokens at a time, and "
        f"{plan.limit / GIB:.1f} GiB are there: {plan.in_use / GIB:.1f} in use now, "
        f"{(plan.gradients + plan.optimizer_state) / GIB:.1f} for gradients and the optimizer, "
        f"{plan.activations / GIB:.1f} for activations, {plan.loss / GIB:.1f} for the loss",
        where="train.memory_gib",
        fix='any of: shorter model.passage_max_tokens; train.train_part = "no embeddings"; train.lora_rank = 16; '
        "fewer train.batch_queries where the loss is what takes it",
    )
