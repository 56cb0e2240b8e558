"""Head weights in the files of BAAI/bge-m3 and FlagEmbedding: `{"weight": (D, H), "bias": (D,)}`, saved by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.heads import HEAD_FILES, new_head
from m3tune.types import Head


def load_heads(folder: Path, wanted: Sequence[Head], hidden_size: int, config: ModelConfig) -> dict[Head, nn.Linear]:
    """The linear layer of each wanted head that has one: from its file, or fresh where `config.new_heads` names it.

    Raises ModelError for a missing, broken or misshapen file; no head is ever random unasked.
    """
    return {
        head: new_head(head, hidden_size, config.multi_dim)
        if head in config.new_heads
        else _read_head(folder / HEAD_FILES[head], head, hidden_size, config.multi_dim)
        for head in wanted
        if head in HEAD_FILES
    }


def _read_head(file: Path, head: Head, hidden_size: int, multi_dim: int | None) -> nn.Linear:
    if not file.is_file():
        raise ModelError(
            f"the {head} head is asked for, but its file is missing",
            where=file,
            fix=f'put the file there, leave "{head}" out of model.heads, or start a new head with '
            f'model.new_heads = ["{head}"]',
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        weight, bias = content["weight"].float(), content["bias"].float()
    except UnpicklingError:  # torch's own words advise to run what is in it
        raise ModelError(
            "a broken head file, or one that holds more than weights, which is not opened: it could run code",
            where=file,
            fix="download or save the model again",
        ) from None
    except Exception as error:  # torch raises as many kinds as there are ways to break a file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"a broken head file ({reason})", where=file, fix="download or save the model again") from None
    dim = 1 if head == "sparse" else multi_dim or (len(weight) if weight.ndim else 0)
    if weight.shape != (dim, hidden_size) or bias.shape != (dim,) or dim == 0:
        raise ModelError(
            f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} where this encoder's {head} head has "
            f"{(dim, hidden_size)} and {(dim,)}",
            where=file,
            fix="take the head that was trained with this encoder; model.multi_dim is for a new head",
        )
    linear = nn.Linear(hidden_size, dim)
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def save_heads(heads: nn.ModuleDict, folder: Path) -> None:
    """Write each head's file, and delete that of a head which is not there: it would be taken for this model's."""
    for head, name in HEAD_FILES.items():
        (folder / name).unlink(missing_ok=True)
        if head in heads:
            weights = {key: value.detach().float().cpu().clone() for key, value in heads[head].state_dict().items()}
            torch.save(weights, folder / name)
