"""The one inference loop: texts in, dense vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from m3tune.data.collection import Collection
from m3tune.data.tokens import TokenTable, tokenize
from m3tune.machine import autocast
from m3tune.model.encoder import Encoder
from m3tune.model.packing import pack, token_budget_batches
from m3tune.progress import track
from m3tune.types import Side

_BUDGET_TOKENS = {"cpu": 4096, "cuda": 131_072}


def tokenize_queries(encoder: Encoder, collection: Collection, query_ids: Sequence[str]) -> TokenTable:
    """Tokens of queries, each after its own prompt where it has one, else after the encoder's."""
    settings = encoder.settings
    queries = (collection.queries[query_id] for query_id in query_ids)
    texts = [(settings.query_prompt if q.prompt is None else q.prompt) + q.text for q in queries]
    return tokenize(texts, encoder.tokenizer, settings.query_max_tokens)


def tokenize_passages(encoder: Encoder, collection: Collection, passage_ids: Sequence[str]) -> TokenTable:
    """Tokens of passages, title and text, after the encoder's prompt."""
    settings = encoder.settings
    texts = [settings.passage_prompt + collection.passages[passage_id].full_text for passage_id in passage_ids]
    return tokenize(texts, encoder.tokenizer, settings.passage_max_tokens)


@torch.inference_mode()
def encode_tokens(encoder: Encoder, tokens: TokenTable, dtype: torch.dtype, label: str = "encode") -> np.ndarray:
    """Dense vectors of tokenised texts, (N, D) float32, matrix products in `dtype`."""
    vectors = np.empty((len(tokens), encoder.dimension), dtype=np.float32)
    budget_tokens = _BUDGET_TOKENS.get(encoder.device.type, 8192)
    was_training = encoder.training
    encoder.eval()
    with track(label, total=len(tokens.ids)) as advance, autocast(encoder.device, dtype):
        for indices in token_budget_batches(tokens.lengths, budget_tokens):
            packed = pack([tokens[i] for i in indices]).to(encoder.device)
            vectors[indices] = encoder(packed, heads=("dense",)).dense.float().cpu().numpy()
            advance(packed.num_tokens)
    encoder.train(was_training)
    return vectors


def encode(encoder: Encoder, texts: Sequence[str], side: Side, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Dense vectors of `texts` as queries or as passages: (N, D) float32."""
    prompted = [encoder.settings.prompt(side) + text for text in texts]
    return encode_tokens(encoder, tokenize(prompted, encoder.tokenizer, encoder.settings.max_tokens(side)), dtype)
