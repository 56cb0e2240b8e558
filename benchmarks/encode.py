"""Encode SciFact's corpus: m3tune against sentence-transformers and FlagEmbedding, in one run on the same work.

python benchmarks/encode.py [--passages 5183] [--repeats 3]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from m3tune.machine import pick_device, pick_precision
from m3tune.model.weights import load_encoder
from m3tune.recipe import ModelConfig
from m3tune.retrieval.encode import encode
from peers import interleaved_medians, minilm, print_machine, print_table, scifact, sentence_transformer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=5183)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    texts = [passage.full_text for passage in scifact().passages.values()][: arguments.passages]
    print_machine()

    encoder, _ = load_encoder(ModelConfig(path=minilm()))
    reference = sentence_transformer()
    halved = sentence_transformer().bfloat16()
    flag = flag_embedding()
    vectors: dict[str, np.ndarray] = {}
    fastest = pick_precision("auto", pick_device())

    def keep(name: str, make) -> None:
        vectors[name] = np.asarray(make(), dtype=np.float32)

    ours = f"m3tune ({str(fastest)[6:]}, as it comes)"
    contestants = {
        ours: lambda: keep("m3tune", lambda: encode(encoder, texts, "passage", fastest)),
        "m3tune (float32)": lambda: keep("m3tune32", lambda: encode(encoder, texts, "passage", torch.float32)),
        "sentence-transformers (as it comes)": lambda: keep("st", lambda: reference.encode(texts)),
        "sentence-transformers (bfloat16)": lambda: keep(
            "st16", lambda: halved.encode(texts, convert_to_tensor=True).float()
        ),
        "FlagEmbedding (as it comes)": lambda: keep("fe", lambda: flag.encode_corpus(texts)),
    }
    medians = interleaved_medians(contestants, arguments.repeats)
    print(f"{len(texts)} passages, at most 256 tokens, median of {arguments.repeats}")
    print_table(medians, ours, "s")
    for name in ("m3tune", "m3tune32", "st16"):
        cosines = (vectors[name] * vectors["st"]).sum(axis=1)
        print(
            f"cosine with sentence-transformers float32, {name}: lowest {cosines.min():.6f}, mean {cosines.mean():.6f}"
        )


def flag_embedding():
    """all-MiniLM-L6-v2 in FlagEmbedding, mean pooling, its other settings as they come."""
    from FlagEmbedding import FlagModel

    return FlagModel(
        minilm(), devices="cpu", use_fp16=False, pooling_method="mean", passage_max_length=256, query_max_length=256
    )


if __name__ == "__main__":
    main()
