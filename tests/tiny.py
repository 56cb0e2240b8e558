"""Small random encoders and small collections with something to learn, for every test that needs a model."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from m3tune.data.collection import Collection
from m3tune.types import Judgment, Passage, Query

COMMON = [f"c{i:02d}" for i in range(20)]
RARE = [f"r{i:02d}" for i in range(40)]
WORDS = [*COMMON, *RARE]
# kind -> model class, config class, special tokens in the order of their ids
KINDS = {
    "bert": (BertModel, BertConfig, ("[PAD]", "[UNK]", "[CLS]", "[SEP]")),
    "roberta": (RobertaModel, RobertaConfig, ("<s>", "<pad>", "</s>", "<unk>")),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, ("<s>", "<pad>", "</s>", "<unk>")),
}
MAX_TOKENS = 48


def tiny_tokenizer(kind: str = "bert") -> PreTrainedTokenizerFast:
    """A fast tokenizer of whole words with the special tokens and padding id of the kind."""
    specials = KINDS[kind][2]
    if kind == "bert":
        pad, unknown, cls, sep = specials
    else:
        cls, pad, sep, unknown = specials
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=cls,
        sep_token=sep,
        model_max_length=MAX_TOKENS,
    )


def tiny_model(kind: str = "bert", seed: int = 0, **config):
    """A random model of two layers; its weights are large enough for attention to be far from uniform."""
    model_class, config_class, specials = KINDS[kind]
    settings = {
        "vocab_size": len(specials) + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": MAX_TOKENS if kind == "bert" else MAX_TOKENS + 2,
        "pad_token_id": 0 if kind == "bert" else 1,
        "type_vocab_size": 2 if kind == "bert" else 1,
        "initializer_range": 0.25,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config_class(**settings | config)).eval()


def save_tiny_m3(folder: Path, multi_dim: int = 32, seed: int = 0, **config) -> Path:
    """A random XLM-R in the layout of BAAI/bge-m3: pytorch_model.bin, and both heads in float16."""
    model, tokenizer = tiny_model("xlm-roberta", seed, **config), tiny_tokenizer("xlm-roberta")
    tokenizer.eos_token = tokenizer.sep_token
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, rows in (("sparse", 1), ("colbert", multi_dim)):
        weight = torch.randn(rows, model.config.hidden_size, generator=generator) / 4
        bias = torch.randn(rows, generator=generator) / 4
        torch.save({"weight": weight.half(), "bias": bias.half()}, folder / f"{name}_linear.pt")
    return folder


def save_tiny_encoder(folder: Path, kind: str = "bert", seed: int = 0, **config) -> Path:
    """Write a random encoder and its tokenizer as a plain Hugging Face folder."""
    tiny_model(kind, seed, **config).save_pretrained(folder)
    tiny_tokenizer(kind).save_pretrained(folder)
    return folder


def tiny_collection(num_queries: int = 60, num_passages: int = 90, seed: int = 0) -> Collection:
    """Question i shares two rare words with passage i and common words with all of them.

    What can be learned is that common words do not count.
    """
    generator = np.random.default_rng(seed)
    pairs = [(a, b) for i, a in enumerate(RARE) for b in RARE[i + 1 :]]
    chosen = [pairs[i] for i in generator.permutation(len(pairs))[:num_passages]]
    passages = {
        f"p{i}": Passage(f"p{i}", " ".join([*rare, *generator.choice(COMMON, 6)])) for i, rare in enumerate(chosen)
    }
    queries = {
        f"q{i}": Query(f"q{i}", " ".join([*chosen[i], *generator.choice(COMMON, 4)])) for i in range(num_queries)
    }
    return Collection(queries, passages, tuple(Judgment(f"q{i}", f"p{i}") for i in range(num_queries)))


def write_llamaindex(file: Path, collection: Collection) -> Path:
    """The collection as LlamaIndex' EmbeddingQAFinetuneDataset saves it."""
    content = {
        "queries": {query.id: query.text for query in collection.queries.values()},
        "corpus": {passage.id: passage.text for passage in collection.passages.values()},
        "relevant_docs": {query_id: list(ids) for query_id, ids in collection.positives.items()},
    }
    file.write_text(json.dumps(content))
    return file


def write_flagembedding(file: Path, collection: Collection, num_negatives: int = 3) -> Path:
    """The collection as FlagEmbedding's rows, the next passages of the corpus as negatives."""
    texts = [passage.text for passage in collection.passages.values()]
    rows = []
    for row, (query_id, ids) in enumerate(collection.positives.items()):
        positives = [collection.passages[passage_id].text for passage_id in ids]
        following = [texts[(row + i) % len(texts)] for i in range(1, num_negatives + 1)]
        negatives = [text for text in following if text not in positives]
        rows.append({"query": collection.queries[query_id].text, "pos": positives, "neg": negatives})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
