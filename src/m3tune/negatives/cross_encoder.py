"""A cross-encoder: a model that reads query and passage together and gives one number for how well they go together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from m3tune.errors import ModelError
from m3tune.machine import pick_device
from m3tune.model.backbone import load_tokenizer, longest_text_tokens, quiet_transformers
from m3tune.model.weights import model_folder

MAX_TOKENS = 512  # of query and passage together, where the model could take more
BATCH_PAIRS = 16


@dataclass(frozen=True)
class CrossEncoder:
    """A model with one output, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    @torch.inference_mode()
    def scores(self, pairs: Iterable[tuple[str, str]]) -> Iterator[float]:
        """The logit of each (query, passage), in their order, `BATCH_PAIRS` at a time.

        Of a pair longer than `max_tokens` the longer text is cut.
        """
        remaining = iter(pairs)
        while batch := list(itertools.islice(remaining, BATCH_PAIRS)):
            queries, passages = (list(texts) for texts in zip(*batch, strict=True))
            tokens = self.tokenizer(
                queries,
                passages,
                padding=True,
                truncation="longest_first",
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            logits = self.model(**tokens.to(self.model.device)).logits  # (pairs, 1)
            yield from logits[:, 0].float().tolist()


def load_cross_encoder(spec: str) -> CrossEncoder:
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
    tokenizer = load_tokenizer(folder)
    return CrossEncoder(
        model.eval().to(pick_device()), tokenizer, min(MAX_TOKENS, longest_text_tokens(model.base_model, tokenizer))
    )


_FIX = "name a model that scores pairs with one output, such as BAAI/bge-reranker-v2-m3"
