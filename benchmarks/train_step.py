"""One training step of 32 pairs: m3tune against sentence-transformers and FlagEmbedding, in one run.

    python benchmarks/train_step.py [--tokens 256] [--repeats 5]

Two kinds of work: every text of exactly --tokens tokens (where packing saves nothing), and SciFact's own pairs, cut at
--tokens. Each side runs forward, loss, backward, clipping and an AdamW step on the same texts. "best" is a peer with
dropout off and, where the machine is faster with it, bfloat16 autocast: neither does that by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from m3tune.data.tokens import tokenize
from m3tune.machine import autocast, pick_precision
from m3tune.model.encoder import set_dropout
from m3tune.scoring import dense_scores
from m3tune.training.losses import contrastive
from m3tune.training.microbatches import Parts, encode_parts
from peers import (
    DEVICE,
    at_best,
    encoder_flop,
    interleaved_medians,
    model_path,
    our_encoder,
    our_precisions,
    print_machine,
    print_table,
    print_useful_rates,
    scifact,
    sentence_transformer,
)

PAIRS = 32
TEMPERATURE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print_machine()
    for title, queries, passages in (
        (f"every text {arguments.tokens} tokens", *full_length_texts(arguments.tokens)),
        ("SciFact's pairs", *scifact_pairs()),
    ):
        contestants = {
            **{name: ours(queries, passages, arguments.tokens, of) for name, of in our_precisions().items()},
            "sentence-transformers MNRL (as it comes)": sbert(queries, passages, arguments.tokens, best=False),
            "sentence-transformers MNRL (best)": sbert(queries, passages, arguments.tokens, best=True),
            "FlagEmbedding dense (as it comes)": flag(queries, passages, arguments.tokens, best=False),
            "FlagEmbedding dense (best)": flag(queries, passages, arguments.tokens, best=True),
        }
        for step in contestants.values():
            step()
        medians = interleaved_medians(contestants, arguments.repeats)
        print(f"\n{PAIRS} pairs, {title}, median of {arguments.repeats} steps")
        print_table(medians, "m3tune (as it comes)", "s/step")
        fastest = pick_precision("auto", DEVICE)
        floats = {name: torch.float32 if _in_float32(name) else fastest for name in medians}
        flop, num_tokens = step_flop(queries, passages, arguments.tokens)
        print_useful_rates(medians, floats, flop, num_tokens)


def _in_float32(contestant: str) -> bool:
    return "float32" in contestant or (not contestant.startswith("m3tune") and "as it comes" in contestant)


def step_flop(queries: list[str], passages: list[str], tokens: int) -> tuple[float, int]:
    """Floating-point operations of a step over real tokens, the way back twice the way forward; and these tokens."""
    tokenizer, config = AutoTokenizer.from_pretrained(model_path()), AutoConfig.from_pretrained(model_path())
    lengths = np.concatenate([tokenize(side, tokenizer, tokens).lengths for side in (queries, passages)])
    return 3 * encoder_flop(config, lengths), int(lengths.sum())


def scifact_pairs(pairs: int = PAIRS) -> tuple[list[str], list[str]]:
    """Claims and their abstracts."""
    collection = scifact()
    query_ids = [q for q in collection.splits["train"] if q in collection.positives][:pairs]
    passages = [collection.passages[collection.positives[q][0]].full_text for q in query_ids]
    return [collection.queries[q].text for q in query_ids], passages


def full_length_texts(tokens: int) -> tuple[list[str], list[str]]:
    """Texts so long that each is cut to exactly `tokens`."""
    abstracts = [passage.text for passage in scifact().passages.values()]
    texts = [" ".join(abstracts[i : i + 8]) for i in range(0, 16 * PAIRS, 8)]
    return texts[:PAIRS], texts[PAIRS:]


def step_of(parameters: Sequence[torch.nn.Parameter], loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Backward, clipping and update around `loss`."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, fused=True)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ours(
    queries: list[str], passages: list[str], tokens: int, precision, kept: float = 1.0, budget_tokens: int | None = None
) -> Callable[[], None]:
    """A step that keeps the activations of `budget_tokens`, or of a share `kept`; others are made again."""
    encoder = our_encoder()
    set_dropout(encoder, 0.0)
    encoder.train()
    dtype = pick_precision(precision, DEVICE)
    sides = [tokenize(side, encoder.tokenizer, tokens) for side in (queries, passages)]
    orders = [np.argsort(side.lengths, kind="stable") for side in sides]  # as the collator lays a batch out
    texts = [side[i] for side, order in zip(sides, orders, strict=True) for i in order]
    positive = torch.from_numpy(orders[0][:, None] == orders[1][None, :]).to(DEVICE)
    budget = budget_tokens or int(kept * sum(map(len, texts)))

    def loss() -> torch.Tensor:
        with autocast(DEVICE, dtype):
            dense = encode_parts(encoder, Parts(texts, budget, DEVICE), ("dense",), dropout=False).dense
        scores = dense_scores(*dense.split([len(queries), len(passages)]))
        return contrastive(scores, positive, ~positive, TEMPERATURE)

    return step_of(list(encoder.parameters()), loss)


def sbert(queries: list[str], passages: list[str], tokens: int, *, best: bool) -> Callable[[], None]:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    model = sentence_transformer(tokens, train=True)
    if best:
        turn_dropout_off(model)
    objective = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    features = [on_device(model.preprocess(texts)) for texts in (queries, passages)]

    def loss() -> torch.Tensor:
        with at_best(best=best):
            return objective([dict(side) for side in features], None)

    return step_of(list(model.parameters()), loss)


def flag(queries: list[str], passages: list[str], tokens: int, *, best: bool) -> Callable[[], None]:
    from FlagEmbedding.finetune.embedder.encoder_only.base.modeling import BiEncoderOnlyEmbedderModel

    tokenizer = AutoTokenizer.from_pretrained(model_path())
    model = BiEncoderOnlyEmbedderModel(
        AutoModel.from_pretrained(model_path()),
        tokenizer=tokenizer,
        temperature=TEMPERATURE,
        sentence_pooling_method="mean",
        normalize_embeddings=True,
        kd_loss_type="kl_div",
    ).to(DEVICE)
    model.train()
    if best:
        turn_dropout_off(model)
    sides = [
        tokenizer(texts, truncation=True, max_length=tokens, padding=True, return_tensors="pt").to(DEVICE)
        for texts in (queries, passages)
    ]

    def loss() -> torch.Tensor:
        with at_best(best=best):
            return model(queries=sides[0], passages=sides[1]).loss

    return step_of(list(model.parameters()), loss)


def on_device(features: dict) -> dict:
    """What sentence-transformers' models take, its tensors on the device."""
    return {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in features.items()}


def turn_dropout_off(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


if __name__ == "__main__":
    main()
