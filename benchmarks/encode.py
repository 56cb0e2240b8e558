"""Encode SciFact's corpus: m3tune against sentence-transformers and FlagEmbedding, in one run on the same work.

Printed are seconds, and the floating-point rate of real tokens alone over that of matrix products in that precision.

    python benchmarks/encode.py [--passages 5183] [--repeats 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from m3tune.machine import pick_precision
from m3tune.retrieval.encode import encode, tokenize_texts
from peers import (
    DEVICE,
    encoder_flop,
    interleaved_medians,
    model_path,
    our_encoder,
    print_machine,
    print_table,
    print_useful_rates,
    scifact,
    sentence_transformer,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=5183)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these contestants only, by a part of the name")
    arguments = parser.parse_args()
    texts = [passage.full_text for passage in scifact().passages.values()][: arguments.passages]
    print_machine()

    encoder, fastest = our_encoder(), pick_precision("auto", DEVICE)
    plain, flag = sentence_transformer(), flag_embedding(encoder.settings.pooling)
    ours, reference = f"m3tune (as it comes, {str(fastest)[6:]})", "sentence-transformers (as it comes)"
    encoders: dict[str, Callable[[list[str]], np.ndarray]] = {
        ours: lambda some: encode(encoder, some, "passage", fastest),
        reference: lambda some: plain.encode(some),
        "FlagEmbedding (as it comes)": lambda some: flag.encode_corpus(some),
    }
    precisions = dict.fromkeys(encoders, torch.float32) | {ours: fastest}
    if fastest == torch.float32:
        print("bfloat16 is no faster on this machine: nobody uses it")
    else:
        halved = sentence_transformer().to(fastest)
        encoders["m3tune (float32)"] = lambda some: encode(encoder, some, "passage", torch.float32)
        encoders["sentence-transformers (halved)"] = lambda some: halved.encode(some, convert_to_tensor=True).float()
        precisions |= {"m3tune (float32)": torch.float32, "sentence-transformers (halved)": fastest}
    wanted = arguments.only or [""]
    encoders = {name: function for name, function in encoders.items() if any(part in name for part in wanted)}
    vectors: dict[str, np.ndarray] = {}

    def work(name: str) -> Callable[[], None]:
        return lambda: vectors.update({name: np.asarray(encoders[name](texts), dtype=np.float32)})

    lengths = tokenize_texts(encoder, texts, "passage").lengths
    for function in encoders.values():
        function(texts[:64])
    medians = interleaved_medians({name: work(name) for name in encoders}, arguments.repeats)
    print(f"{len(texts)} passages, at most 256 tokens, median of {arguments.repeats}")
    print_table(medians, ours, "s")
    print_useful_rates(medians, precisions, encoder_flop(encoder.backbone.config, lengths), int(lengths.sum()))
    for name in vectors.keys() - {reference} if reference in vectors else ():
        cosines = (vectors[name] * vectors[reference]).sum(axis=1)
        print(f"{name}: cosine with the reference at least {cosines.min():.6f}, mean {cosines.mean():.6f}")


def flag_embedding(pooling: str = "mean"):
    """The model in FlagEmbedding with the pooling it was made for; other settings as they come, on a CPU in float32."""
    from FlagEmbedding import FlagModel

    return FlagModel(
        model_path(), devices=DEVICE.type, use_fp16=DEVICE.type != "cpu", pooling_method=pooling,
        passage_max_length=256, query_max_length=256,
    )  # fmt: skip


if __name__ == "__main__":
    main()
