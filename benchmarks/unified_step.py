"""One step of M3's unified loss with self-distillation: m3tune against FlagEmbedding, time and peak memory.

    python benchmarks/unified_step.py [--tokens 256] [--queries 16] [--repeats 5]

The model with new heads, groups of one positive and one negative, every text of exactly --tokens tokens, so that
packing saves nothing. Times are taken in turns in one process; each peak is of a process that makes three steps of one
contestant and nothing else, less that process before its first step. FlagEmbedding's BERT path needs an end-of-text
token, which a copy of the tokenizer is given. "best" is FlagEmbedding without dropout and, where the machine is faster
with it, with bfloat16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.tokens import tokenize
from m3tune.machine import autocast, pick_precision
from m3tune.model.encoder import set_dropout
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.training.microbatches import Parts, encode_parts
from m3tune.training.objective import Known, Objective, unified
from m3tune.vectors import split_at
from peers import (
    DEVICE,
    at_best,
    interleaved_medians,
    our_encoder,
    our_precisions,
    peak_gib,
    print_machine,
    print_table,
)
from train_step import full_length_texts, step_of, turn_dropout_off

GROUP = 2
TEMPERATURE = 0.02
CONTESTANTS = (*our_precisions(), "FlagEmbedding (as it comes)", "FlagEmbedding (best)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_m3(Path(folder))
        if arguments.peak_of:
            print(peak_gib(step_by_name(arguments.peak_of, Path(folder), arguments.queries, arguments.tokens)))
            return
        print_machine()
        steps = {name: step_by_name(name, Path(folder), arguments.queries, arguments.tokens) for name in CONTESTANTS}
        for step in steps.values():
            step()
        medians = interleaved_medians(steps, arguments.repeats)
    title = f"{arguments.queries} queries x group {GROUP}, {arguments.tokens} tokens"
    print(f"\nunified loss with self-distillation, {title}, median of {arguments.repeats} steps")
    print_table(medians, CONTESTANTS[0], "s/step")
    command = [sys.executable, __file__, "--tokens", str(arguments.tokens), "--queries", str(arguments.queries)]
    peaks = {
        name: float(subprocess.run([*command, "--peak-of", name], check=True, stdout=subprocess.PIPE, text=True).stdout)
        for name in CONTESTANTS
    }
    print("\npeak memory beyond the loaded model")
    print_table(peaks, CONTESTANTS[0], "GiB")


def save_m3(folder: Path) -> None:
    """The model with new heads, in a folder that both sides load."""
    encoder = our_encoder(new_heads=("sparse", "multi"), pooling="cls")
    encoder.tokenizer.eos_token = encoder.tokenizer.sep_token
    save_encoder(encoder, folder)


def step_by_name(name: str, folder: Path, queries: int, tokens: int) -> Callable[[], None]:
    texts = [text for side in full_length_texts(tokens) for text in side][: queries * (1 + GROUP)]
    if name.startswith("m3tune"):
        return ours(folder, texts, queries, tokens, "float32" if "float32" in name else "auto")
    return flag(folder, texts, queries, tokens, best="best" in name)


def ours(folder: Path, texts: list[str], queries: int, tokens: int, precision) -> Callable[[], None]:
    encoder = load_encoder(ModelConfig(path=str(folder)))[0].to(DEVICE)
    set_dropout(encoder, 0.0)
    encoder.train()
    dtype = pick_precision(precision, DEVICE)
    table = tokenize(texts, encoder.tokenizer, tokens)
    objective = Objective.of(TrainConfig(temperature=TEMPERATURE))
    positive = torch.zeros(queries, queries * GROUP, dtype=torch.bool, device=DEVICE)
    positive[torch.arange(queries), torch.arange(queries) * GROUP] = True
    known = Known(positive, ~positive, torch.zeros_like(positive), torch.full(positive.shape, torch.nan, device=DEVICE))

    def loss() -> torch.Tensor:
        parts = Parts([table[i] for i in range(len(table))], table.num_tokens, DEVICE)
        with autocast(DEVICE, dtype):
            sides = split_at(encode_parts(encoder, parts, encoder.settings.heads, dropout=False), queries)
        return unified(objective, *sides, known, self_distill=True)[0]

    return step_of(list(encoder.parameters()), loss)


def flag(folder: Path, texts: list[str], queries: int, tokens: int, *, best: bool) -> Callable[[], None]:
    from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = EncoderOnlyEmbedderM3Model(
        EncoderOnlyEmbedderM3Runner.get_model(str(folder)),
        tokenizer=tokenizer,
        temperature=TEMPERATURE,
        kd_loss_type="kl_div",
        normalize_embeddings=True,
        unified_finetuning=True,
        use_self_distill=True,
    ).to(DEVICE)
    model.train()
    if best:
        turn_dropout_off(model)
    sides = [
        tokenizer(side, truncation=True, max_length=tokens, padding=True, return_tensors="pt").to(DEVICE)
        for side in (texts[:queries], texts[queries:])
    ]

    def loss() -> torch.Tensor:
        with at_best(best=best):
            return model(sides[0], sides[1], teacher_scores=None, no_in_batch_neg_flag=False).loss

    return step_of(list(model.parameters()), loss)


if __name__ == "__main__":
    main()
