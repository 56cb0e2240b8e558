"""Heads: from token states to sparse weights and to one vector a token. The dense head has no weights of its own.

    N texts, T packed tokens, H hidden size, D dimension of a token's vector

A head is data: a name and, but for dense, one linear layer. The definitions are M3's (Chen et al., 2024, section 3.2)
as FlagEmbedding 1.4.2 computes them (m3/modeling.py), without a tensor that has the vocabulary for a dimension. Heads
work in float32, whatever the encoder's precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedTokenizerBase

from m3tune.model.packing import Packed
from m3tune.types import Head
from m3tune.vectors import MultiVector, Sparse, offsets_of, ranges

HEAD_FILES: Mapping[Head, str] = {"sparse": "sparse_linear.pt", "multi": "colbert_linear.pt"}
"""Heads with weights, and the file that BAAI/bge-m3 and FlagEmbedding keep them in."""

_CHUNK_TOKENS = 4096
_SEED = 0


def new_head(head: Head, hidden_size: int, multi_dim: int | None = None) -> nn.Linear:
    """An untrained head, the same one each time.

    The multi-vector head starts as a rotation (a random projection where it is narrower than H), which keeps the
    angles between token states; the sparse head starts as torch's linear layers do, without a bias.
    """
    generator = torch.Generator().manual_seed(_SEED)
    linear = nn.Linear(hidden_size, 1 if head == "sparse" else multi_dim or hidden_size)
    if head == "sparse":
        nn.init.uniform_(linear.weight, -(hidden_size**-0.5), hidden_size**-0.5, generator=generator)
    else:
        nn.init.orthogonal_(linear.weight, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear


def weightless_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that never get a sparse weight: cls, end of text, padding, unknown.

    The end of text is the tokenizer's eos token or, where it names none (BERT), its sep token. Like FlagEmbedding, a
    mask token that stands in a text is weighed as any other.
    """
    end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    ids = (tokenizer.cls_token_id, end, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return sorted({i for i in ids if i is not None})


def sparse_weights(states: Tensor, packed: Packed, linear: nn.Linear, weightless: Tensor) -> Sparse:
    """ReLU of the linear for every token, (T, H) -> (T,); of a token id's places in a text the largest counts.

    Ids in `weightless` are left out. An id whose places are all zero stays, with weight zero. Where two places of an id
    tie, they share its gradient.
    """
    kept = torch.isin(packed.input_ids, weightless, invert=True).nonzero().squeeze(1)  # (K,)
    weights = project(states, kept, linear, normalize=False).squeeze(1).relu()
    texts = packed.slots.argsort()[packed.text_of_token()[kept]]
    entries, entry_of_token = ((texts << 32) | packed.input_ids[kept]).unique(return_inverse=True)
    largest = weights.new_zeros(len(entries)).scatter_reduce(0, entry_of_token, weights, "amax")
    ends = torch.searchsorted(entries >> 32, torch.arange(len(packed) + 1, device=entries.device))
    return Sparse(entries & 0xFFFFFFFF, largest, ends)


def token_vectors(states: Tensor, packed: Packed, linear: nn.Linear, *, normalize: bool) -> MultiVector:
    """The linear of every token but a text's first, of length one where `normalize`; the end of text stays in."""
    lengths = packed.lengths[packed.slots] - 1
    rows = ranges(packed.starts[packed.slots] + 1, lengths)
    return MultiVector(project(states, rows, linear, normalize=normalize), offsets_of(lengths))


def project(states: Tensor, rows: Tensor, linear: nn.Linear, *, normalize: bool) -> Tensor:
    """`linear` of some tokens in float32: (T, H) states, (M,) distinct rows -> (M, D), each of length one if asked for.

    Chunk by chunk forward and backward, so that beside the result nothing of its size is kept: with 1024 dimensions the
    vectors of 131,072 tokens are half a gibibyte, and plain autograd would keep several such tensors.
    """
    return _Projection.apply(states, rows, linear.weight, linear.bias, normalize)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, rows: Tensor, weight: Tensor, bias: Tensor, normalize: bool) -> Tensor:
        out = weight.new_empty(len(rows), len(weight))
        norms = weight.new_ones(len(rows), 1)
        for chunk in _chunks(len(rows)):
            out[chunk] = F.linear(states[rows[chunk]].float(), weight, bias)
            if normalize:
                norms[chunk] = out[chunk].norm(dim=1, keepdim=True).clamp_min(1e-12)
                out[chunk] /= norms[chunk]
        ctx.normalize = normalize
        ctx.save_for_backward(states, rows, weight, out, norms)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        """Through y = x / |x| the gradient is (g - y (y g)) / |x|."""
        states, rows, weight, out, norms = ctx.saved_tensors
        grad_states = torch.zeros_like(states) if ctx.needs_input_grad[0] else None
        grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(len(weight))
        for chunk in _chunks(len(rows)):
            g = grad[chunk]
            if ctx.normalize:
                y = out[chunk]
                g = (g - y * (y * g).sum(dim=1, keepdim=True)) / norms[chunk]
            grad_weight.addmm_(g.T, states[rows[chunk]].float())
            grad_bias += g.sum(dim=0)
            if grad_states is not None:
                grad_states[rows[chunk]] = (g @ weight).to(states.dtype)
        return grad_states, None, grad_weight, grad_bias, None


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK_TOKENS) for start in range(0, rows, _CHUNK_TOKENS))
