"""Which weights learn: all, all but the embedding tables, the heads alone, or low-rank adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from m3tune.config import TrainConfig
from m3tune.errors import TrainingError
from m3tune.model.encoder import Encoder


@contextlib.contextmanager
def training_parts(encoder: Encoder, config: TrainConfig) -> Iterator[None]:
    """The encoder as the recipe wants it trained. At the end adapters are merged and it is an encoder as before.

    Raises TrainingError where nothing could learn.
    """
    if config.heads_apart and not ("dense" in encoder.settings.heads and config.loss_weights[0]):
        raise TrainingError(
            "the encoder learns from the dense head alone, and that has no loss",
            where="train.heads_apart",
            fix="leave it out, or give the model its dense head and train.loss_weights a first weight",
        )
    with _adapters(encoder, config):
        freeze(encoder, config)
        encoder.heads_apart = config.heads_apart
        try:
            yield
        finally:
            encoder.heads_apart = False


def freeze(encoder: Encoder, config: TrainConfig) -> None:
    """Take the gradient from what `config.train_part` leaves as it is. Raises TrainingError where nothing remains."""
    if config.train_part == "heads":
        encoder.backbone.requires_grad_(False)
    elif config.train_part == "no embeddings":
        for module in encoder.backbone.modules():
            if isinstance(module, nn.Embedding):
                module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise TrainingError(
            "only the heads are to learn, but this encoder has no head with weights",
            where="train.train_part",
            fix='set it to "all", or give the model heads with model.new_heads',
        )


@contextlib.contextmanager
def _adapters(encoder: Encoder, config: TrainConfig) -> Iterator[None]:
    """Low-rank adapters (Hu et al., 2021) in the encoder's layers; everything else of it is frozen."""
    if config.lora_rank is None:
        yield
        return
    if config.train_part == "heads":
        raise TrainingError(
            "adapters are asked for, but only the heads are to learn",
            where="train.lora_rank",
            fix='leave it out, or set train.train_part to "all"',
        )
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise TrainingError(
            "adapters need the package peft", where="train.lora_rank", fix="pip install 'm3tune[lora]'"
        ) from None
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        target_modules=list(config.lora_targets) or "all-linear",
        lora_dropout=config.dropout,
    )
    try:
        adapted = get_peft_model(encoder.backbone, adapters)  # changes the layers in place
    except ValueError as error:
        raise TrainingError(
            f"no adapters: {error}", where="train.lora_targets", fix="name linear layers of this encoder"
        ) from None
    try:
        yield
    finally:
        adapted.merge_and_unload()
