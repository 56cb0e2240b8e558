"""The one forward pass, used by training, evaluation and search alike.

N texts, T packed tokens, D dimension
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from m3tune.errors import ModelError
from m3tune.machine import autocast
from m3tune.model.backbone import run_packed
from m3tune.model.heads import sparse_weights, token_vectors, weightless_ids
from m3tune.model.packing import Packed
from m3tune.model.settings import EncoderSettings, Pooling
from m3tune.types import Head
from m3tune.vectors import Embeddings


class Encoder(nn.Module):
    """A Hugging Face encoder with the heads and settings that turn its token states into vectors.

    `heads` holds the linear layer of each head of `settings.heads` but dense, which has none; `new_heads` names those
    that nobody has trained yet.
    """

    weightless: Tensor  # token ids without a sparse weight

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: EncoderSettings,
        heads: Mapping[Head, nn.Linear] | None = None,
        new_heads: Sequence[Head] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.settings = settings
        self.heads = nn.ModuleDict({name: linear for name, linear in (heads or {}).items()})
        self.new_heads = tuple(new_heads)
        self.heads_apart = False  # whether heads with weights learn without moving the encoder
        self._recomputes_layers = False
        self.register_buffer("weightless", torch.tensor(weightless_ids(tokenizer)), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    @property
    def dimension(self) -> int:
        """D, the length of a dense vector."""
        return int(self.backbone.config.hidden_size)

    def forward(self, packed: Packed, heads: Sequence[Head] | None = None) -> Embeddings:
        """What `heads` say of the packed texts; all that the encoder has, unless fewer are asked for."""
        wanted = self.settings.heads if heads is None else heads
        self.check(wanted)
        states = run_packed(self.backbone, packed)
        normalize = self.settings.normalize
        # In this order the backward pass comes to the largest, the multi-vector head, before it holds other gradients.
        of_heads = states.detach() if self.heads_apart else states
        dense = sparse = multi = None
        with autocast(states.device, torch.float32):
            if "dense" in wanted:
                dense = pool(states, packed, self.settings.pooling)
                dense = (F.normalize(dense, dim=-1) if normalize else dense)[packed.slots]
            if "sparse" in wanted:
                sparse = sparse_weights(of_heads, packed, self.linear("sparse"), self.weightless)
            if "multi" in wanted:
                multi = token_vectors(of_heads, packed, self.linear("multi"), normalize=normalize)
        return Embeddings(dense, sparse, multi)

    def check(self, heads: Sequence[Head]) -> None:
        """Raises ModelError for a head that the encoder does not have."""
        for head in heads:
            if head not in self.settings.heads:
                raise ModelError(
                    f"this model has no {head} head, only {', '.join(self.settings.heads)}",
                    where="model.heads",
                    fix=f"name {head!r} in model.heads, or in model.new_heads to start one",
                )

    def linear(self, head: Head) -> nn.Linear:
        """The layer of a head that has one."""
        return self.heads[head]  # type: ignore[return-value]

    def recompute_layers(self, on: bool) -> None:
        """Whether each layer keeps its input alone while training, and is computed again in the backward pass."""
        if on == self._recomputes_layers:
            return
        self._recomputes_layers = on
        what, options = ("enable", ({"use_reentrant": False},)) if on else ("disable", ())
        renamed = hasattr(self.backbone, f"activation_checkpointing_{what}")  # in the course of transformers 5
        getattr(self.backbone, f"{'activation' if renamed else 'gradient'}_checkpointing_{what}")(*options)
        # Switched on with it and not off again: only reentrant checkpoints need an embedding with a gradient, and one
        # that is frozen would be taken backward through for nothing.
        self.backbone.disable_input_require_grads()


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
