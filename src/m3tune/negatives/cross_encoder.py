"""A cross-encoder: a model that reads query and passage together and gives one number for how well they go together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from m3tune.errors import ModelError
from m3tune.machine import Precision, autocast, pick_device, pick_precision
from m3tune.model.backbone import load_tokenizer, longest_text_tokens, quiet_transformers
from m3tune.model.packing import token_budget_batches
from m3tune.model.weights import model_folder

MAX_TOKENS = 512  # of query and passage together, where the model could take more
BATCH_PAIRS = 16
_BUDGET_TOKENS = {"cpu": 4096, "cuda": 65_536}  # of a batch, padding included

TextPair = tuple[str, str]
"""A query and a passage, as the cross-encoder reads them."""


@dataclass(frozen=True)
class CrossEncoder:
    """A model with one output, and its tokenizer; matrix products are in `dtype`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    dtype: torch.dtype

    @torch.inference_mode()
    def logits(self, pairs: Sequence[TextPair]) -> np.ndarray:
        """(n,) float32, higher for more relevant, in batches of like length under one budget of tokens.

        Of a pair longer than `max_tokens` the longer text is cut.
        """
        found = np.zeros(len(pairs), dtype=np.float32)
        if not pairs:
            return found
        queries, passages = (list(texts) for texts in zip(*pairs, strict=True))
        tokens = self.tokenizer(queries, passages, truncation="longest_first", max_length=self.max_tokens)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        device = self.model.device
        with autocast(device, self.dtype):
            for rows in token_budget_batches(lengths, _BUDGET_TOKENS.get(device.type, 8192)):
                batch = {name: [of_text[row] for row in rows] for name, of_text in tokens.items()}
                padded = self.tokenizer.pad(batch, return_tensors="pt").to(device)
                found[rows] = self.model(**padded).logits[:, 0].float().cpu().numpy()
        return found

    def scores(self, pairs: Iterable[TextPair]) -> Iterator[float]:
        """The logit of each pair, in their order, computed `BATCH_PAIRS` at a time as they are asked for."""
        remaining = iter(pairs)
        while batch := list(itertools.islice(remaining, BATCH_PAIRS)):
            yield from self.logits(batch).tolist()


def load_cross_encoder(spec: str, max_tokens: int = MAX_TOKENS, precision: Precision = "auto") -> CrossEncoder:
    """The cross-encoder in a folder or on the Hub, on the best device here. Raises ModelError."""
    folder = model_folder(spec)
    try:
        with quiet_transformers():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"no cross-encoder: {reason}", where=folder, fix=_FIX) from None
    if model.config.num_labels != 1:
        what = f"a cross-encoder with {model.config.num_labels} outputs, where one score is needed"
        raise ModelError(what, where=folder, fix=_FIX)
    if loading["missing_keys"]:
        what = f"an encoder and no cross-encoder: {min(loading['missing_keys'])} is missing"
        raise ModelError(what, where=folder, fix=_FIX)
    tokenizer, device = load_tokenizer(folder), pick_device()
    longest = min(max_tokens, longest_text_tokens(model.base_model, tokenizer))
    return CrossEncoder(model.eval().to(device), tokenizer, longest, pick_precision(precision, device))


_FIX = "name a model that scores pairs with one output, such as BAAI/bge-reranker-v2-m3"
