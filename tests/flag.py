"""FlagEmbedding's M3 model and its batches, for the tests that compare with it."""

import numpy as np
import pytest
import torch

from m3tune.model.encoder import set_dropout
from m3tune.model.packing import pack
from m3tune.training.objective import Known
from m3tune.vectors import split_at


def flag_model(folder, **settings):
    """FlagEmbedding's model in training mode without dropout, its weights from `folder`."""
    pytest.importorskip("FlagEmbedding")
    from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner
    from transformers import AutoTokenizer

    defaults = {"temperature": 0.02, "kd_loss_type": "kl_div", "normalize_embeddings": True, "unified_finetuning": True}
    model = EncoderOnlyEmbedderM3Model(
        EncoderOnlyEmbedderM3Runner.get_model(str(folder)),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        **defaults | settings,
    )
    set_dropout(model, 0.0)
    return model.train()


def flag_bge(folder, **settings):
    """`BGEM3FlagModel` on the CPU in float32."""
    flagembedding = pytest.importorskip("FlagEmbedding")
    return flagembedding.BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu", **settings)


def random_texts(count, tokens, vocabulary=64, seed=0, cls=0, end=2):
    """`count` texts of `tokens` ids each; a single length, so that nothing is padded. Ids repeat within a text."""
    generator = np.random.default_rng(seed)
    inner = generator.integers(4, vocabulary, size=(count, tokens - 2))
    inner[:, 1] = inner[:, 0]
    return [np.array([cls, *ids, end]) for ids in inner.tolist()]


def padded(texts, padding_id=1):
    """`input_ids` and `attention_mask` of the texts as FlagEmbedding's collator makes them."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), padding_id)
    mask = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def both_sides(encoder, queries, passages):
    """Our embeddings of queries and passages, from one packed row as in training."""
    return split_at(encoder(pack([*queries, *passages])), len(queries))


def known_groups(num_queries, group, teacher=None, in_batch=True):
    """Masks of groups of one positive and `group` - 1 negatives, with the (Q, group) teacher scores in their places."""
    columns = torch.arange(num_queries)[:, None] * group + torch.arange(group)
    positive = torch.zeros(num_queries, num_queries * group, dtype=torch.bool).scatter(1, columns[:, :1], True)
    own = torch.zeros_like(positive).scatter(1, columns, True)
    scores = torch.full(positive.shape, torch.nan)
    if teacher is not None:
        scores.scatter_(1, columns, teacher)
    return Known(positive, (own | in_batch) & ~positive, torch.zeros_like(positive), scores)


def gradients_by_name(loss, encoder, flag=None):
    """Gradients of all parameters under our names."""
    model = encoder if flag is None else flag
    model.zero_grad()
    loss.backward()
    renamed = {"model.": "backbone.", "sparse_linear.": "heads.sparse.", "colbert_linear.": "heads.multi."}
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        if flag is not None:
            before = next(prefix for prefix in renamed if name.startswith(prefix))
            name = renamed[before] + name.removeprefix(before)
        found[name] = parameter.grad.clone()
    return found


def assert_same_gradients(ours, theirs, tolerance=1e-4):
    """Each parameter's to `tolerance` of its norm, and none of them zero throughout."""
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        if name.endswith("key.bias"):
            continue  # cancels in the softmax: nothing but rounding
        assert expected.norm() > 1e-4, name
        assert (ours[name] - expected).norm() <= tolerance * expected.norm(), name
