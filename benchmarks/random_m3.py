"""A model of BGE-M3's shape with random weights: for its speed, where its own weights cannot be had.

    python benchmarks/random_m3.py FOLDER [--layers 24] [--width 1024]
    M3TUNE_BENCH_MODEL=FOLDER python benchmarks/train_step.py

XLM-RoBERTa large with 8,192 positions and 250,002 tokens (the configuration of BAAI/bge-m3). The tokenizer is that of
all-MiniLM-L6-v2, so texts have other lengths than in BGE-M3, and rows of the embedding table are left unused.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

from m3tune.config import ModelConfig
from m3tune.model.weights import load_encoder, model_folder, save_encoder
from m3tune.starter import DEMO

MAX_TOKENS = 8192
VOCABULARY = 250_002
HEAD_WIDTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    arguments = parser.parse_args()
    save_random_m3(arguments.folder, arguments.layers, arguments.width)


def save_random_m3(folder: Path, layers: int = 24, width: int = 1024) -> None:
    """Dense vectors of the first token alone; benchmarks that want the other heads start them."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder(DEMO["model.path"]), model_max_length=MAX_TOKENS)
    tokenizer.eos_token = tokenizer.sep_token
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=tokenizer.pad_token_id,
    )
    with tempfile.TemporaryDirectory() as plain:
        XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        encoder, _ = load_encoder(ModelConfig(path=plain, pooling="cls"))
        save_encoder(encoder, folder)


if __name__ == "__main__":
    main()
