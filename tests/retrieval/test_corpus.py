"""Vectors that are kept: found by whoever asks for the same, and by nobody who asks for anything else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3tune.artifact import MANIFEST
from m3tune.config import ModelConfig
from m3tune.model.weights import load_encoder
from m3tune.retrieval import corpus as corpus_module
from m3tune.retrieval import encode as encode_module
from m3tune.retrieval import store as store_module
from m3tune.retrieval.corpus import corpus_vectors, vectors_kept
from m3tune.retrieval.encode import encode_tokens, tokenize_passages

HEADS = ("dense", "sparse", "multi")


@pytest.fixture
def encoder(m3_folder):
    return load_encoder(ModelConfig(path=str(m3_folder)))[0]


@pytest.fixture
def encoded(monkeypatch):
    """The label of everything that is encoded, in memory or to disk."""
    labels, real = [], encode_module.fill
    for module in (encode_module, store_module):
        monkeypatch.setattr(module, "fill", lambda *of, **options: (labels.append(of[4]), real(*of, **options))[1])
    return labels


def ask(encoder, collection, label="x", heads=HEADS, dtype=torch.float32, rows=slice(None), place=None, keep=True):
    tokens = tokenize_passages(encoder, collection, list(collection.passages)[rows])
    return corpus_vectors(encoder, tokens, dtype, heads, label, place, keep=keep)


def same(first, second):
    assert first.heads == second.heads != ()
    every = slice(0, len(first))
    for ours, theirs in zip(first.load(every), second.load(every), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize("heads", [HEADS, ("dense",), ("sparse", "multi"), ("multi",)], ids=str)
def test_what_is_kept_is_encoded_once_and_equals_what_memory_would_hold(encoder, collection, tmp_path, encoded, heads):
    with vectors_kept(tmp_path / "kept"):
        whole = ask(encoder, collection, "first")
        some = ask(encoder, collection, "second", heads)
        assert encoded == ["first"]
        tokens = tokenize_passages(encoder, collection, list(collection.passages))
        same(whole, encode_tokens(encoder, tokens, torch.float32, HEADS))
        same(some, encode_tokens(encoder, tokens, torch.float32, heads))
    assert isinstance(whole.dense, np.memmap)


def test_heads_that_are_not_there_are_encoded_beside(encoder, collection, tmp_path, encoded):
    with vectors_kept(tmp_path / "kept"):
        ask(encoder, collection, "dense", ("dense",))
        assert ask(encoder, collection, "all").heads == HEADS
        assert ask(encoder, collection, "sparse", ("sparse",)).heads == ("sparse",)
    assert encoded == ["dense", "all"]


def changed_weight(encoder, collection):
    with torch.no_grad():
        next(encoder.backbone.parameters()).flatten()[7] += 1e-3
    return {}


def changed_head(encoder, collection):
    with torch.no_grad():
        encoder.linear("sparse").bias += 1e-3
    return {}


def changed_text(encoder, collection):
    first = next(iter(collection.passages))
    text = collection.passages[first].text + " c01"
    passages = collection.passages | {first: replace(collection.passages[first], text=text)}
    return {"collection": replace(collection, passages=passages)}


def changed_setting(**settings):
    def change(encoder, collection):
        encoder.settings = replace(encoder.settings, **settings)
        return {}

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_weight, changed_head, changed_text, changed_setting(pooling="mean"),
        changed_setting(passage_prompt="c02 "), changed_setting(passage_max_tokens=5), changed_setting(normalize=False),
        lambda *_: {"dtype": torch.bfloat16}, lambda *_: {"rows": slice(1, None)},
        lambda *_: {"rows": slice(None, None, -1)},
    ],
    ids=["weight", "head", "text", "pooling", "prompt", "length", "normalize", "precision", "fewer", "order"],
)  # fmt: skip
def test_whoever_asks_for_anything_else_does_not_get_it(encoder, collection, tmp_path, encoded, change):
    """Whatever changes between two times, the vectors are those that memory would hold."""
    with vectors_kept(tmp_path / "kept"):
        ask(encoder, collection, "before")
        asked = {"collection": collection} | change(encoder, collection)
        found = ask(encoder, label="after", **asked)
        assert encoded == ["before", "after"]
        same(found, ask(encoder, label="plain", keep=False, **asked))


def test_another_version_of_the_program_does_not_get_it(encoder, collection, tmp_path, encoded, monkeypatch):
    with vectors_kept(tmp_path / "kept"):
        ask(encoder, collection, "before")
        monkeypatch.setattr(store_module, "__version__", "0.0.0+other")
        ask(encoder, collection, "after")
    assert encoded == ["before", "after"]


def test_nothing_is_kept_unless_asked_and_inside_a_block(encoder, collection, tmp_path, encoded):
    with vectors_kept(tmp_path / "kept"):
        assert not isinstance(ask(encoder, collection, "a", keep=False).dense, np.memmap)
        assert not (tmp_path / "kept").exists()
    assert not isinstance(ask(encoder, collection, "b").dense, np.memmap)
    assert encoded == ["a", "b"]


def test_the_outer_folder_is_used_and_is_gone_at_the_end(encoder, collection, tmp_path, encoded):
    outer, inner = tmp_path / "outer" / "kept", tmp_path / "inner" / "kept"
    with vectors_kept(outer):
        with vectors_kept(inner):
            ask(encoder, collection, "a")
        ask(encoder, collection, "b")
        assert len(list(outer.glob(f"*/*/{MANIFEST}"))) == 1
    assert encoded == ["a"]
    assert list(tmp_path.iterdir()) == []


def test_what_an_error_left_is_used_by_the_next_attempt_if_it_is_whole(
    encoder, collection, tmp_path, encoded, monkeypatch
):
    def fail(label):
        with vectors_kept(tmp_path / "vectors" / "kept"):
            ask(encoder, collection, label)
            raise KeyboardInterrupt

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encode_module, "_put", killed)
        with pytest.raises(KeyboardInterrupt):
            fail("cut off")
    with pytest.raises(KeyboardInterrupt):
        fail("whole")
    (tmp_path / "vectors" / "another").mkdir()
    with vectors_kept(tmp_path / "vectors" / "kept"):
        same(ask(encoder, collection, "found"), ask(encoder, collection, "plain", keep=False))
    assert encoded == ["cut off", "whole", "plain"]
    assert [path.name for path in (tmp_path / "vectors").iterdir()] == ["another"]


def test_what_is_large_lies_where_it_is_kept_and_not_in_its_place(encoder, collection, tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(corpus_module, "_MEMORY_BYTES", 0)
    with vectors_kept(tmp_path / "kept"):
        found = ask(encoder, collection, "a", place=tmp_path / "place")
        assert found.multi.vectors.dtype == np.float16
        ask(encoder, collection, "b", place=tmp_path / "place")
        assert not (tmp_path / "place").exists()
        ask(encoder, collection, "c", place=tmp_path / "place", keep=False)
        assert (tmp_path / "place" / MANIFEST).is_file()
    assert encoded == ["a", "c"]
