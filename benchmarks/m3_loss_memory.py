"""Memory and time of the sparse and multi-vector losses at BGE-M3's size, forward and backward, on the CPU.

    python benchmarks/m3_loss_memory.py [--passages 256] [--passage-tokens 512] [--queries 32] [--query-tokens 32]

Random token states stand for the encoder's. A process of its own makes them, and a thread samples its resident memory
while both heads, their scores, the contrastive losses and all gradients are computed; what it reads beyond the states
is what the losses need, the gradient of the states included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch

from m3tune.model.heads import new_head, sparse_weights, token_vectors
from m3tune.model.packing import pack
from m3tune.scoring import multi_scores, sparse_scores
from m3tune.training.losses import contrastive
from m3tune.vectors import Embeddings, split_at
from peers import Peak, print_machine

VOCABULARY = 250_002  # XLM-R's
HIDDEN = 1024
LIMIT_GB = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"passages": 256, "passage-tokens": 512, "queries": 32, "query-tokens": 32}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments)))
        return
    print_machine()
    command = [sys.executable, __file__, *sys.argv[1:], "--alone"]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    passages, tokens = arguments.passages, arguments.passage_tokens
    print(f"{arguments.queries} queries x {arguments.query_tokens} tokens, {passages} passages x {tokens} tokens")
    print(f"token states            {measured['states_gb']:8.2f} GB")
    print(f"losses beyond them      {measured['peak_gb']:8.2f} GB at the peak, {measured['seconds']:.1f} s")
    theirs = {
        "sparse (B, L, V), fp32": passages * tokens * VOCABULARY * 4,
        "sparse (B, L, V), fp16": passages * tokens * VOCABULARY * 2,
        "multi (Q, Lq, P, Lp), fp32": arguments.queries * arguments.query_tokens * passages * tokens * 4,
    }
    for name, size in theirs.items():
        print(f"FlagEmbedding's {name:<27} {size / 1e9:8.2f} GB")
    if measured["peak_gb"] > LIMIT_GB:
        sys.exit(f"more than {LIMIT_GB} GB")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The peak beyond the states, with the loss finite and every gradient there."""
    generator = np.random.default_rng(0)
    lengths = [arguments.query_tokens] * arguments.queries + [arguments.passage_tokens] * arguments.passages
    # Frequencies of words fall about as one over their rank.
    texts = [np.exp(generator.uniform(np.log(4), np.log(VOCABULARY), size=n)).astype(np.int64) for n in lengths]
    packed = pack(texts)
    states = torch.empty(packed.num_tokens, HIDDEN).normal_().requires_grad_()
    sparse_head, multi_head = new_head("sparse", HIDDEN), new_head("multi", HIDDEN)
    positive = torch.eye(arguments.queries, arguments.passages, dtype=torch.bool)
    with Peak() as peak:
        start = time.perf_counter()
        sparse = sparse_weights(states, packed, sparse_head, torch.arange(4))
        multi = token_vectors(states, packed, multi_head, normalize=True)
        queries, passages = split_at(Embeddings(None, sparse, multi), arguments.queries)
        del sparse, multi
        loss = contrastive(sparse_scores(queries.sparse, passages.sparse), positive, ~positive, 0.02)
        loss = loss + contrastive(multi_scores(queries.multi, passages.multi), positive, ~positive, 0.02)
        del queries, passages
        loss.backward()
        seconds = time.perf_counter() - start
    assert torch.isfinite(loss)
    assert all(x.grad.abs().max() > 0 for x in (states, sparse_head.weight, multi_head.weight))
    return {"states_gb": states.numel() * 4 / 1e9, "peak_gb": peak.bytes / 1e9, "seconds": seconds}


if __name__ == "__main__":
    main()
