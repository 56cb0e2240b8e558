"""Attention over a packed row: each token sees the tokens of its own text and no other.

    T tokens of the row, H attention heads, E dimension of one head, n texts of L tokens in a run

Registered with transformers under `PACKED`, so Hugging Face's own encoder code runs on packed rows. Which kernel:

* CUDA, half precision: one variable-length flash kernel over the whole row;
* CPU, bfloat16 without dropout: `blocked_attention`, because torch's fused CPU kernel is slow there (see docs/log.md);
* elsewhere: torch's scaled dot product attention, run by run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from m3tune.errors import ModelError
from m3tune.model.packing import LengthRun

PACKED = "m3tune_packed"

_ROUND_TOKENS = 16
_BLOCK_BYTES = 2 * 2**20  # scores of one block stay in the processor's cache


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_runs: Sequence[LengthRun] = (),
    packed_ends: Tensor | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention signature. query, key, value: (1, H, T, E); returns ((1, T, H, E), None).

    `packed_ends` are `text_ends(packed_runs)` on the queries' device, made once for all layers.

    Raises ModelError for a sliding window that is shorter than a text.
    """
    if sliding_window is not None and any(run.length > sliding_window for run in packed_runs):
        raise ModelError(
            "this encoder attends within a sliding window, which packed rows do not support for texts this long",
            fix=f"set model.passage_max_tokens to at most {sliding_window}",
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and query.dtype != torch.float32 and dropout == 0:
        ends = text_ends(packed_runs).to(query.device) if packed_ends is None else packed_ends
        return _varlen_attention(query, key, value, ends, max(run.length for run in packed_runs), scale), None
    blocked = query.device.type == "cpu" and query.dtype == torch.bfloat16 and dropout == 0
    outputs = []
    for q, k, v in zip(*(_split_runs(x, packed_runs) for x in (query, key, value)), strict=True):
        if blocked:
            out = blocked_attention(q, k, v, scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (n * L, H, E)
    return torch.cat(outputs).unsqueeze(0), None


def _split_runs(x: Tensor, runs: Sequence[LengthRun]) -> list[Tensor]:
    """(1, H, T, E) -> a view (n, H, L, E) for each run.

    One split, not a slice a run: the gradient of a slice is as large as the whole row.
    """
    parts = x[0].split([run.count * run.length for run in runs], dim=1)
    return [part.unflatten(1, (run.count, run.length)).transpose(0, 1) for part, run in zip(parts, runs, strict=True)]


def text_ends(runs: Sequence[LengthRun]) -> Tensor:
    """(N + 1,) int32: 0, and the token behind the last of each text, as variable-length kernels want it."""
    lengths = np.repeat([run.length for run in runs], [run.count for run in runs])
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))


def _varlen_attention(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, E)
    attended: Tensor = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale)  # type: ignore[assignment]
    return attended.unsqueeze(0)


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(query key' * scale) value for (n, H, L, E) tensors, in blocks of texts that fit the cache.

    Probabilities are recomputed in the backward pass (Chen et al., 2016), so memory does not grow with L squared.
    """
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return _BlockedAttention.apply(query, key, value, scale)
    return _blocked_forward(query, key, value, scale)


def _blocks(query: Tensor) -> Iterator[slice]:
    """Texts whose scores fit the cache, 1, 4, 16, ... at once: kernels are made for every number of them too."""
    n, heads, length, _ = query.shape
    most = max(1, _BLOCK_BYTES // (heads * length * length * query.element_size()))
    first = 0
    while first < n:
        texts = 4 ** ((min(most, n - first).bit_length() - 1) // 2)
        yield slice(first, first + texts)
        first += texts


def _round(x: Tensor) -> Tensor:
    """(n, H, L, E) with tokens of zeros up to a round number.

    oneDNN makes kernels for every size of a product and keeps them: 0.5 MiB for each L.
    """
    filler = -x.shape[2] % _ROUND_TOKENS
    return F.pad(x, (0, 0, 0, filler)) if filler else x


def _probabilities(scaled_query: Tensor, key: Tensor, length: int) -> Tensor:
    """Of rounded tensors; tokens from `length` on are seen by nobody."""
    scores = torch.matmul(scaled_query, key.transpose(2, 3))
    scores[..., length:] = -torch.inf
    return torch.softmax(scores, dim=-1)


def _token_major(like: Tensor) -> Tensor:
    """An empty (n, H, L, E) tensor that lies in memory as (n, L, H, E), the layout of the layers around attention."""
    n, heads, length, dim = like.shape
    return torch.empty(n, length, heads, dim, dtype=like.dtype, device=like.device).transpose(1, 2)


def _blocked_forward(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    out, length = _token_major(query), query.shape[2]
    for block in _blocks(query):
        p = _probabilities(_round(query[block] * scale), _round(key[block]), length)
        out[block] = torch.matmul(p, _round(value[block]))[:, :, :length]
    return out


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return _blocked_forward(query, key, value, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """D softmax(s) = p * (dp - sum(p * dp)), with p recomputed block by block."""
        query, key, value = ctx.saved_tensors
        grad_query, grad_key, grad_value = _token_major(query), _token_major(key), _token_major(value)
        length = query.shape[2]
        for block in _blocks(query):
            scaled_query, k, g = _round(query[block] * ctx.scale), _round(key[block]), _round(grad[block])
            p = _probabilities(scaled_query, k, length)
            grad_value[block] = torch.matmul(p.transpose(2, 3), g)[:, :, :length]
            grad_p = torch.matmul(g, _round(value[block]).transpose(2, 3))
            grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype)
            grad_query[block] = torch.matmul(grad_scores, k)[:, :, :length] * ctx.scale
            grad_key[block] = torch.matmul(grad_scores.transpose(2, 3), scaled_query)[:, :, :length]
        return grad_query, grad_key, grad_value, None


AttentionInterface.register(PACKED, packed_attention)
