"""Encoders of one shape made into one: between two along a line, or the mean of several. Everything is float32.

Interpolation: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), equation 1; for text encoders
Xiao et al. 2023, "LM-Cocktail". The mean of several: Wortsman et al. 2022, "Model soups", the uniform soup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from m3tune.errors import ModelError, excerpt, listed
from m3tune.model.encoder import Encoder

State = Mapping[str, Tensor]
"""Name -> weights, as `Encoder.state_dict` names them."""

_HEADS = "heads."
_STRETCH = 2**20  # numbers
_UNUSED = "backbone.pooler."  # feeds no head, and is random where a folder does not bring it
# What a configuration says that changes a vector but no shape.
_SAME_CONFIG = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "layer_norm_eps",
    "pad_token_id",
    "position_embedding_type",
    "rope_theta",
)
_FIX = "merge models that were tuned from the same one and are used in the same way"


def interpolate(base: State, tuned: State, alpha: float) -> Iterator[tuple[str, Tensor]]:
    """Names and weights base + alpha (tuned - base), one at a time: the very base at 0, the very tuned weights at 1.

    Heads that only `tuned` has stay as they are there. Raises ModelError where anything else is in one of them only,
    where shapes differ, or where whole numbers (buffers) do.
    """
    _check_shapes([base, {name: value for name, value in tuned.items() if name in base or not _is_head(name)}])
    for name, value in tuned.items():
        if alpha == 1 or name not in base or not value.is_floating_point():
            yield name, _own(value)
        else:
            yield name, _own(base[name]) if alpha == 0 else torch.lerp(base[name].float(), value.float(), alpha)


def become(encoder: Encoder, base: State, tuned: State, alpha: float) -> None:
    """Give `encoder` the weights between the two, in memory for one of them more; it may be one of the two itself.

    Raises ModelError as `interpolate` does.
    """
    own = encoder.state_dict()
    for name, value in interpolate(base, tuned, alpha):
        own[name].copy_(value)


def average(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of each weight. Raises ModelError as `interpolate` does, for heads as well."""
    _check_shapes(states)
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0)
        if first.is_floating_point()
        else _own(first)
        for name, first in states[0].items()
    }


def distance(base: State, other: State) -> float:
    """How far `other` is from `base`: the length of the difference over that of `base`, over all that both have."""
    moved = length = 0.0
    for name, value in base.items():
        if name not in other or not value.is_floating_point() or _is_unused(name):
            continue
        for before, after in zip(_stretches(value), _stretches(other[name]), strict=True):
            moved += float((after.double() - before.double()).square().sum())
            length += float(before.double().square().sum())
    return (moved / length) ** 0.5 if length else 0.0


def _stretches(value: Tensor) -> Sequence[Tensor]:
    """A tensor in pieces, for a table of embeddings in float64 takes more than a small model."""
    return value.flatten().split(_STRETCH)


def weights_of(encoder: Encoder) -> dict[str, Tensor]:
    """A copy of an encoder's weights on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in encoder.state_dict().items()}


def move_to(base: Encoder, tuned: Encoder, alpha: float) -> None:
    """Turn `tuned` into base + alpha (tuned - base); the hybrid's weights stay its own.

    Raises ModelError where the two do not fit.
    """
    check_same_use(base, tuned, new_heads=True)
    become(tuned, base.state_dict(), tuned.state_dict(), alpha)


def average_into(first: Encoder, others: Sequence[Encoder]) -> None:
    """Turn `first` into the mean of it and the others, without weights of a hybrid unless all have the same.

    Raises ModelError where they do not fit.
    """
    for other in others:
        check_same_use(first, other)
    first.load_state_dict(average([first.state_dict(), *(other.state_dict() for other in others)]))
    if any(other.settings.hybrid_weights != first.settings.hybrid_weights for other in others):
        first.settings = replace(first.settings, hybrid_weights=None)


def check_same_use(first: Encoder, second: Encoder, *, new_heads: bool = False) -> None:
    """Raises ModelError naming what makes one text two different things: settings, architecture or tokenizer.

    With `new_heads` the second may have heads that the first lacks.
    """
    ours, theirs = _use(first), _use(second)
    if new_heads and set(first.settings.heads) <= set(second.settings.heads):
        theirs["heads"] = ours["heads"]
    for name, value in ours.items():
        if theirs[name] != value:
            raise ModelError(
                f"the models differ in {name}: {excerpt(value)} and {excerpt(theirs[name])}", where="merge", fix=_FIX
            )
    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise ModelError("the models differ in the words of their tokenizers", where="merge", fix=_FIX)


def _use(encoder: Encoder) -> dict[str, object]:
    """Everything beside the weights that two merged encoders must have in common."""
    settings = {name: value for name, value in vars(encoder.settings).items() if name != "hybrid_weights"}
    return settings | {name: getattr(encoder.backbone.config, name, None) for name in _SAME_CONFIG}


def _check_shapes(states: Sequence[State]) -> None:
    """Raises ModelError unless all have the same names, the same shapes and the same whole numbers."""
    first = states[0]
    for other in states[1:]:
        if alone := first.keys() ^ other.keys():
            raise ModelError(f"weights that only one model has: {listed(sorted(alone), 3)}", where="merge", fix=_FIX)
        for name, value in first.items():
            if value.shape != other[name].shape:
                shapes = f"{tuple(value.shape)} and {tuple(other[name].shape)}"
                raise ModelError(f"{name} has the shapes {shapes}", where="merge", fix=_FIX)
            if not value.is_floating_point() and not torch.equal(value, other[name]):
                raise ModelError(f"{name} holds other whole numbers", where="merge", fix=_FIX)


def _own(value: Tensor) -> Tensor:
    """A copy, in float32 where it is a weight."""
    return (value.float() if value.is_floating_point() else value).clone()


def _is_head(name: str) -> bool:
    return name.startswith(_HEADS)


def _is_unused(name: str) -> bool:
    return name.startswith(_UNUSED)
