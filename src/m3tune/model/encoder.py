"""The one forward pass, used by training, evaluation and search alike.

N texts, T packed tokens, D dimension
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from m3tune.model.backbone import run_packed
from m3tune.model.packing import Packed
from m3tune.model.settings import EncoderSettings, Pooling


class Embeddings(NamedTuple):
    """What the encoder says of N texts, in the order they were given to `pack`."""

    dense: Tensor  # (N, D) float32


class Encoder(nn.Module):
    """A Hugging Face encoder with the settings that turn its token states into vectors."""

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: EncoderSettings
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dimension(self) -> int:
        """D, the length of a dense vector."""
        return int(self.backbone.config.hidden_size)

    def forward(self, packed: Packed) -> Embeddings:
        """Vectors of the packed texts."""
        states = run_packed(self.backbone, packed)
        dense = pool(states, packed, self.settings.pooling)
        if self.settings.normalize:
            dense = F.normalize(dense, dim=-1)
        return Embeddings(dense=dense[packed.slots])

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict | None = None, **options: Any
    ) -> None:
        """Recompute each layer in the backward pass (called by the Trainer)."""
        self.backbone.activation_checkpointing_enable(activation_checkpointing_kwargs, **options)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None) -> None:
        """The same, as the first versions of transformers 5 call it."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs)


def pool(states: Tensor, packed: Packed, pooling: Pooling) -> Tensor:
    """One float32 vector a text, (N, D) in slot order, from token states (T, D)."""
    if pooling == "cls":
        return states[packed.starts].float()
    if pooling == "last":
        return states[packed.starts + packed.lengths - 1].float()
    sums = torch.zeros(len(packed), states.shape[1], device=states.device, dtype=torch.float32)
    sums = sums.index_add(0, packed.text_of_token(), states.float())
    return sums / packed.lengths[:, None]


def set_dropout(encoder: Encoder, probability: float) -> None:
    """Set every dropout of the encoder, attention's included, to `probability`."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", probability)  # noqa: B010
