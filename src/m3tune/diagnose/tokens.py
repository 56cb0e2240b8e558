"""Lengths in tokens, as the chosen model's tokenizer counts them. Needs the model's folder, but not its weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.diagnose.context import Lengths
from m3tune.model.backbone import load_tokenizer, longest_text_tokens
from m3tune.model.settings import apply_overrides, read_settings
from m3tune.model.weights import model_folder
from m3tune.progress import track
from m3tune.types import Side

_CHUNK_TEXTS = 2048


def token_lengths(collection: Collection, config: ModelConfig) -> Mapping[Side, Lengths]:
    """Tokens of every query and passage with its prompt, and where this model cuts them. Raises ModelError."""
    folder = model_folder(config.path)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    with torch.device("meta"):  # an architecture without weights says how far its positions reach
        hf_config = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        backbone = AutoModel.from_config(hf_config, trust_remote_code=config.trust_remote_code)
    longest_tokens = longest_text_tokens(backbone, tokenizer)
    settings = apply_overrides(read_settings(folder, longest_tokens)[0], config, longest_tokens)
    rust = tokenizer.backend_tokenizer
    rust.no_truncation()
    rust.no_padding()
    queries = (
        (settings.query_prompt if query.prompt is None else query.prompt) + query.text
        for query in collection.queries.values()
    )
    passages = (settings.passage_prompt + passage.full_text for passage in collection.passages.values())
    with track("counting tokens", len(collection.queries) + len(collection.passages)) as advance:
        counts: dict[Side, list[int]] = {"query": [], "passage": []}
        sides: tuple[tuple[Side, Iterable[str]], ...] = (("query", queries), ("passage", passages))
        for side, texts in sides:
            for chunk in _chunks(texts):
                counts[side] += _count(rust, chunk)
                advance(len(chunk))
    return {
        side: Lengths(np.array(of_side, np.int64), settings.max_tokens(side), config.path)
        for side, of_side in counts.items()
    }


def _count(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while chunk := list(itertools.islice(texts, _CHUNK_TEXTS)):
        yield chunk
