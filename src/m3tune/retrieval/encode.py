"""The one inference loop: texts in, the vectors of any heads out, in memory or into files as it goes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from m3tune.data.collection import Collection
from m3tune.data.tokens import Texts, TokenTable, tokenize
from m3tune.machine import autocast
from m3tune.model.encoder import Encoder
from m3tune.model.packing import pack, token_budget_batches
from m3tune.progress import track
from m3tune.retrieval.layout import lay_out
from m3tune.retrieval.vectors import Vectors
from m3tune.types import Head, Side
from m3tune.vectors import Embeddings

# On a CPU the states between two layers shall stay in its cache: 4096 tokens took a tenth longer (docs/log.md).
_BUDGET_TOKENS = {"cpu": 2048, "cuda": 131_072}


def budget_tokens(encoder: Encoder) -> int:
    """Tokens of a batch on the encoder's device."""
    return _BUDGET_TOKENS.get(encoder.device.type, 8192)


def tokenize_queries(encoder: Encoder, collection: Collection, query_ids: Sequence[str]) -> TokenTable:
    """Tokens of queries, each after its own prompt where it has one, else after the encoder's."""
    settings = encoder.settings

    def text_of(query_id: str) -> str:
        query = collection.queries[query_id]
        return (settings.query_prompt if query.prompt is None else query.prompt) + query.text

    return tokenize(Texts(text_of, query_ids), encoder.tokenizer, settings.query_max_tokens)


def tokenize_passages(encoder: Encoder, collection: Collection, passage_ids: Sequence[str]) -> TokenTable:
    """Tokens of passages, title and text, after the encoder's prompt."""
    settings, passages = encoder.settings, collection.passages
    texts = Texts(lambda passage_id: settings.passage_prompt + passages[passage_id].full_text, passage_ids)
    return tokenize(texts, encoder.tokenizer, settings.passage_max_tokens)


def tokenize_texts(encoder: Encoder, texts: Sequence[str], side: Side) -> TokenTable:
    """Tokens of `texts` as queries or as passages, after the encoder's prompt."""
    prompt = encoder.settings.prompt(side)
    return tokenize(Texts(lambda text: prompt + text, texts), encoder.tokenizer, encoder.settings.max_tokens(side))


def encode_tokens(
    encoder: Encoder,
    tokens: TokenTable,
    dtype: torch.dtype,
    heads: Sequence[Head] = ("dense",),
    label: str = "encode",
) -> Vectors:
    """Vectors of tokenised texts in memory, float32, matrix products in `dtype`."""
    vectors = lay_out(encoder, tokens, heads).allocate(lambda _, shape, kind: np.zeros(shape, kind))
    fill(vectors, encoder, tokens, dtype, label)
    return vectors


def fill(
    vectors: Vectors,
    encoder: Encoder,
    tokens: TokenTable,
    dtype: torch.dtype,
    label: str,
    done: int = 0,
    after_batch: Callable[[int], None] | None = None,
) -> None:
    """Encode the texts, longest first, in batches of one token budget, each written to its place in `vectors`.

    The first `done` batches are there already; `after_batch` hears how many are, each time one has been written.
    """
    batches = list(token_budget_batches(tokens.lengths, budget_tokens(encoder)))
    tokens_done = sum(int(tokens.lengths[batch].sum()) for batch in batches[:done])
    was_training = encoder.training
    encoder.eval()
    with (
        torch.inference_mode(),
        track(label, total=tokens.num_tokens, done=tokens_done) as advance,
        autocast(encoder.device, dtype),
    ):
        for number, indices in enumerate(itertools.islice(batches, done, None), start=done + 1):
            packed = pack([tokens[i] for i in indices]).to(encoder.device)
            _put(vectors, indices, encoder(packed, heads=vectors.heads))
            if after_batch:
                after_batch(number)
            advance(packed.num_tokens)
    encoder.train(was_training)


def encode(encoder: Encoder, texts: Sequence[str], side: Side, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Dense vectors of `texts` as queries or as passages: (N, D) float32."""
    dense = encode_tokens(encoder, tokenize_texts(encoder, texts, side), dtype).dense
    assert dense is not None
    return dense


def _put(vectors: Vectors, texts: np.ndarray, found: Embeddings) -> None:
    """Write what the encoder said of some texts to their places."""
    if vectors.dense is not None and found.dense is not None:
        vectors.dense[texts] = found.dense.float().cpu().numpy()
    if vectors.sparse is not None and found.sparse is not None:
        vectors.sparse.weights[vectors.sparse.spans.entries(texts)] = found.sparse.weights.cpu().numpy()
    if vectors.multi is not None and found.multi is not None:
        vectors.multi.vectors[vectors.multi.spans.entries(texts)] = found.multi.vectors.cpu().numpy()
