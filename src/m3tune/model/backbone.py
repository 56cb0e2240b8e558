"""Hugging Face encoders, loaded to run on packed rows, and refused with a reason where they cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from m3tune.errors import ModelError
from m3tune.model.attention import PACKED, text_ends
from m3tune.model.packing import LengthRun, Packed, pack

_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken")
_SELF_CHECK_TOLERANCE = 1e-3
_ROUND_TOKENS = (32, 128)  # for short rows and for long ones, a thirty-second at most of any but the shortest


def load_backbone(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The encoder in `folder`, in float32 and evaluation mode, verified to give the same states packed as alone.

    Raises ModelError where weights are missing or the architecture cannot run packed.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            "no config.json, so this is not a model folder", where=folder, fix="name the folder with the weights"
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHT_FILES):
        raise ModelError(
            "the folder has no weights (model.safetensors or pytorch_model.bin)",
            where=folder,
            fix="download or save the model again; an interrupted download leaves only the configuration",
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with quiet_transformers():
            backbone, loading = AutoModel.from_pretrained(
                folder,
                config=config,
                attn_implementation=PACKED,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"transformers cannot load this encoder: {reason}", where=folder, fix=_SUPPORTED) from None
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        if "ignore_mismatched_sizes" in reason:  # which points to a report that is not shown
            reason = "they have other sizes than config.json says"
        raise ModelError(f"broken weights: {reason}", where=folder, fix="download or save the model again") from None
    _check_nothing_is_random(loading["missing_keys"], folder)
    _freeze_pooler(backbone)
    backbone.eval()
    _check_runs_packed(backbone, folder)
    return backbone


_SUPPORTED = "m3tune runs encoders in the manner of BERT, RoBERTa and XLM-R (BGE-M3, E5, GTE, MiniLM, ...)"


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer in `folder`. Raises ModelError."""
    try:
        # Without any of these transformers makes a tokenizer that knows no word.
        if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
            raise OSError("none of its files is there")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, use_fast=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"no tokenizer: {reason}",
            where=folder,
            fix="the folder needs tokenizer.json or the model's vocabulary file",
        ) from None
    if not tokenizer.is_fast:
        raise ModelError("only a slow tokenizer is there", where=folder, fix="save the model with its tokenizer.json")
    return tokenizer


def position_offset(backbone: PreTrainedModel) -> int:
    """The position id of a text's first token: RoBERTa and its children count from the padding index + 1."""
    embeddings = getattr(backbone, "embeddings", None)
    counts_from_padding = hasattr(embeddings, "create_position_ids_from_input_ids")
    return int(backbone.config.pad_token_id) + 1 if counts_from_padding else 0


def longest_text_tokens(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest text this encoder can take."""
    limits = [tokenizer.model_max_length]
    positions = getattr(backbone.config, "max_position_embeddings", None)
    if positions:
        limits.append(positions - position_offset(backbone))
    return int(min(limits))


def run_packed(backbone: PreTrainedModel, packed: Packed) -> Tensor:
    """Last hidden states of a packed row: (T, D).

    The row is filled up to a round number of tokens by a text that nobody reads. Else every row has a size of its own,
    for each of which oneDNN makes and keeps kernels, hundreds of MiB in bfloat16, and malloc leaves gaps in its heap.
    """
    short, long = _ROUND_TOKENS
    octave = 1 << packed.num_tokens.bit_length() - 1
    filler = -packed.num_tokens % min(max(short, octave // 32), long)
    runs = (*packed.runs, LengthRun(packed.num_tokens, 1, filler)) if filler else packed.runs
    output = backbone(
        input_ids=F.pad(packed.input_ids, (0, filler))[None],
        position_ids=F.pad(packed.positions, (0, filler))[None] + position_offset(backbone),
        packed_runs=runs,
        packed_ends=text_ends(runs).to(packed.input_ids.device),
    )
    return output.last_hidden_state[0, : packed.num_tokens]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars or load reports of transformers' own; what matters of them is raised by us."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def _check_nothing_is_random(missing: set[str], folder: Path) -> None:
    missing = {key for key in missing if not key.startswith("pooler.") and not key.endswith("position_ids")}
    if missing:
        raise ModelError(
            f"{len(missing)} weights are missing, for instance {sorted(missing)[0]!r}; they would be random",
            where=folder,
            fix="is this the whole model, and of the architecture its config.json names?",
        )


def _freeze_pooler(backbone: nn.Module) -> None:
    """BERT's tanh pooler feeds no head of ours; it is kept for whoever loads the folder, and gets no gradient."""
    pooler = getattr(backbone, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)


@quiet_transformers()
@torch.no_grad()
def _check_runs_packed(backbone: PreTrainedModel, folder: Path) -> None:
    """Compare a small packed row with each of its texts alone, under transformers' own positions, mask and attention.

    Its own attention, because a decoder's causal mask, say, does not reach ours, packed or alone.
    """
    generator = np.random.default_rng(0)
    try:
        usable = min(backbone.config.vocab_size, 1000)
        texts = [generator.integers(min(5, usable - 1), usable, size=length) for length in (7, 3, 5, 3)]
        packed = pack(texts)
        states = run_packed(backbone, packed)
        if states.shape[0] != packed.num_tokens:
            raise TypeError("the states do not match the tokens")
        backbone.set_attn_implementation("eager")
        alone = [backbone(input_ids=torch.from_numpy(text)[None]).last_hidden_state[0] for text in texts]
        backbone.set_attn_implementation(PACKED)
        for expected, start, length in zip(
            alone, packed.starts[packed.slots].tolist(), packed.lengths[packed.slots].tolist(), strict=True
        ):
            if not torch.allclose(states[start : start + length], expected, atol=_SELF_CHECK_TOLERANCE):
                raise TypeError("a text in a row with others gets other states than alone")
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise ModelError(
            f"{type(backbone).__name__} cannot run on rows without padding ({str(error).splitlines()[0]})",
            where=folder,
            fix=_SUPPORTED,
        ) from None
