"""The one inference loop: texts in, the vectors of any heads out, in memory or into files as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from m3tune.data.collection import Collection
from m3tune.data.tokens import Texts, TokenTable, tokenize
from m3tune.errors import DoesNotFitError
from m3tune.fitting import in_stretches, longest_that_fits
from m3tune.machine import autocast
from m3tune.memory import trim_heap
from m3tune.model.encoder import Encoder
from m3tune.model.packing import pack
from m3tune.progress import track
from m3tune.retrieval.layout import lay_out
from m3tune.retrieval.vectors import Vectors
from m3tune.types import Head, Side
from m3tune.vectors import Embeddings

# On a CPU the states between two layers shall stay in its cache: 4096 tokens took a tenth longer (docs/log.md).
_BUDGET_TOKENS = {"cpu": 2048, "cuda": 131_072}


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
    """Encode the texts in batches of one token budget, each written to its place in `vectors`.

    Longest first, so that what does not fit in memory shows at once and not after an hour: the budget is halved there.
    The first `done` texts of that order are there already; `after_batch` hears how many are, each time a batch has been
    written. Raises DoesNotFitError for a text that memory does not hold by itself.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    left = order[done:]
    was_training = encoder.training
    encoder.eval()
    trim_heap()  # of what tokenising or training left in it
    with (
        torch.inference_mode(),
        track(label, total=tokens.num_tokens, done=int(tokens.lengths[order[:done]].sum())) as advance,
        autocast(encoder.device, dtype),
    ):

        def encode_batch(first: int, last: int) -> None:
            indices = left[first:last]
            packed = pack([tokens[i] for i in indices]).to(encoder.device)
            _put(vectors, indices, encoder(packed, heads=vectors.heads))
            if after_batch:
                after_batch(done + last)
            advance(packed.num_tokens)

        def too_long(text: int) -> DoesNotFitError:
            return _does_not_fit(encoder, tokens[left[text]], vectors.heads)

        budget = _BUDGET_TOKENS.get(encoder.device.type, 8192)
        in_stretches(tokens.lengths[left], budget, encode_batch, f"tokens ({label})", too_long)
    encoder.train(was_training)


def _does_not_fit(encoder: Encoder, text: np.ndarray, heads: Sequence[Head]) -> DoesNotFitError:
    """What to say of one text that ran out of memory by itself."""

    def attempt(tokens: int) -> None:
        encoder(pack([text[:tokens]]).to(encoder.device), heads=heads)

    fitting = longest_that_fits(attempt, len(text))
    shorter = f"set model.passage_max_tokens (for queries model.query_max_tokens) to {fitting:,} or less"
    return DoesNotFitError(
        f"out of memory: one text of {len(text):,} tokens does not fit by itself; about {fitting:,} tokens would",
        fix=shorter if 4 <= fitting < len(text) else "free memory on the device, or use a smaller model",
    )


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
