"""The one inference loop: in memory, in files, and after a kill."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from m3tune.artifact import MANIFEST
from m3tune.config import ModelConfig
from m3tune.errors import ArtifactError, DoesNotFitError
from m3tune.model import encoder as encoder_module
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.progress import shown
from m3tune.retrieval import encode as encode_module
from m3tune.retrieval import store as store_module
from m3tune.retrieval.encode import encode_tokens, tokenize_passages, tokenize_texts
from m3tune.retrieval.layout import lay_out
from m3tune.retrieval.store import open_vectors, store_vectors

HEADS = ("dense", "sparse", "multi")
ARRAYS = ("dense", "sparse_token_ids", "sparse_weights", "sparse_offsets", "multi", "multi_offsets")


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return load_encoder(ModelConfig(path=str(m3_folder)))[0]


@pytest.fixture
def tokens(encoder, collection):
    return tokenize_passages(encoder, collection, list(collection.passages))


def forward(encoder, tokens):
    """All texts in one packed forward pass."""
    with torch.no_grad():
        return encoder(pack([tokens[i] for i in range(len(tokens))]))


def same(first, second):
    for a, b in zip(first, second, strict=True):
        if isinstance(a, tuple):
            same(a, b)
        elif a is not None or b is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [("dense",), ("sparse",), ("multi",), ("dense", "multi"), HEADS], ids=str)
def test_every_head_equals_one_forward_pass_whatever_the_batches(encoder, tokens, monkeypatch, heads):
    monkeypatch.setattr(encode_module, "_BUDGET_TOKENS", {"cpu": 37})
    vectors = encode_tokens(encoder, tokens, torch.float32, heads)
    assert vectors.heads == heads
    assert len(vectors) == len(tokens)
    whole = forward(encoder, tokens)
    expected = whole._replace(**{head: None for head in HEADS if head not in heads})
    same(vectors.load(slice(None)), expected)
    assert (whole.sparse.weights == 0).any(), "zero weights keep their place"


class Memory:
    """Runs out in a forward pass of more than `most` tokens; keeps the sizes of those that fit."""

    def __init__(self, monkeypatch, most):
        self.fitted, self.refused = [], []
        original = encoder_module.run_packed

        def run_packed(backbone, packed):
            (self.fitted if packed.num_tokens <= most else self.refused).append(packed.num_tokens)
            if packed.num_tokens > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(backbone, packed)

        monkeypatch.setattr(encoder_module, "run_packed", run_packed)


def test_what_does_not_fit_is_encoded_with_half_the_budget_from_there_on(encoder, tokens, monkeypatch):
    expected = forward(encoder, tokens)
    memory, written = Memory(monkeypatch, most=40), io.StringIO()
    with shown(Console(file=written, width=1000)):
        vectors = encode_tokens(encoder, tokens, torch.float32, HEADS, "passages")
    same(vectors.load(slice(None)), expected)
    halvings = len(memory.refused)
    assert memory.refused == sorted(memory.refused, reverse=True)
    assert halvings > 2
    assert sum(memory.fitted) == tokens.num_tokens, "nothing is encoded twice"
    assert written.getvalue().count("tokens (passages) at once; goes on with") == halvings


def test_a_text_that_does_not_fit_alone_is_named_with_the_length_that_would(encoder, tokens, monkeypatch):
    Memory(monkeypatch, most=6)
    with pytest.raises(DoesNotFitError, match=r"one text of 10 tokens .* about 6 tokens would") as caught:
        encode_tokens(encoder, tokens, torch.float32)
    assert "model.passage_max_tokens" in caught.value.fix
    assert caught.value.fix.endswith("6 or less")


def test_some_texts_in_any_order_are_a_view(encoder, tokens):
    vectors = encode_tokens(encoder, tokens, torch.float32, HEADS)
    rows = np.array([7, 3, 3, 88, 0])
    few = replace(tokens, starts=tokens.starts[rows], lengths=tokens.lengths[rows])
    expected = forward(encoder, few)
    same(vectors.load(rows), expected)
    view = vectors.subset(rows)
    same(view.load(slice(None)), expected)
    assert view.multi.vectors is vectors.multi.vectors
    same(vectors.load(slice(2, 9)), vectors.load(np.arange(2, 9)))
    assert len(vectors.load(slice(5, 5)).multi.vectors) == 0


def test_a_text_without_a_weighted_token_has_no_sparse_entry_and_still_its_end_token(encoder):
    tokens = tokenize_texts(encoder, ["zzz", "r01 r02", ""], "passage")
    vectors = encode_tokens(encoder, tokens, torch.float32, HEADS)
    assert vectors.sparse.spans.lengths.tolist() == [0, 2, 0]
    assert vectors.multi.spans.lengths.tolist() == [2, 3, 1]
    same(vectors.load(slice(None)), forward(encoder, tokens))


@pytest.mark.parametrize(("dense", "multi"), [("float32", "float16"), ("float16", "float32")])
def test_files_hold_what_memory_holds(encoder, tokens, tmp_path, dense, multi):
    place = tmp_path / "v"
    vectors = store_vectors(encoder, tokens, torch.float32, place, heads=HEADS, dense=dense, multi=multi)
    memory = encode_tokens(encoder, tokens, torch.float32, HEADS)
    assert {file.name for file in place.iterdir()} == {MANIFEST, *(f"{name}.npy" for name in ARRAYS)}
    assert isinstance(vectors.dense, np.memmap)
    assert (vectors.dense.dtype, vectors.multi.vectors.dtype) == (dense, multi)
    np.testing.assert_array_equal(vectors.dense, memory.dense.astype(dense))
    np.testing.assert_array_equal(vectors.multi.vectors, memory.multi.vectors.astype(multi))
    np.testing.assert_array_equal(vectors.sparse.weights, memory.sparse.weights)
    np.testing.assert_array_equal(np.load(place / "sparse_offsets.npy")[1:], memory.sparse.spans.lengths.cumsum())
    assert vectors.load(slice(0, 3)).multi.vectors.dtype == torch.float32
    counts = json.loads((place / MANIFEST).read_text())["counts"]
    assert counts["bytes"] == lay_out(encoder, tokens, HEADS).num_bytes(dense, multi)
    assert counts["texts"] == len(tokens)


def test_no_text_and_no_entry_can_be_stored(encoder, tmp_path):
    for number, texts in enumerate(([], ["zzz"])):
        tokens = tokenize_texts(encoder, texts, "passage")
        vectors = store_vectors(encoder, tokens, torch.float32, tmp_path / str(number), heads=HEADS)
        assert len(vectors) == len(texts)
        assert len(vectors.load(slice(None)).sparse.token_ids) == 0


def test_the_same_again_opens_and_anything_else_encodes(encoder, tokens, tmp_path, m3_folder, monkeypatch):
    filled = []
    fill = store_module.fill
    monkeypatch.setattr(store_module, "fill", lambda *a, **k: (filled.append(1), fill(*a, **k)))

    def store(encoder=encoder, tokens=tokens, heads=("dense",), **options):
        before = len(filled)
        store_vectors(encoder, tokens, torch.float32, tmp_path / "v", heads=heads, **options)
        return len(filled) > before

    assert store()
    assert not store()
    other = load_encoder(ModelConfig(path=str(m3_folder)))[0]
    assert not store(other), "the same weights"
    save_encoder(other, tmp_path / "saved")
    assert not store(load_encoder(ModelConfig(path=str(tmp_path / "saved")))[0]), "a saved copy"
    with torch.no_grad():
        next(other.backbone.parameters())[0, 0] += 1e-3
    assert store(other), "one changed weight"
    with torch.no_grad():
        other.linear("sparse").bias += 1e-3
    assert store(other), "a changed head"
    other.backbone.config.layer_norm_eps *= 2
    assert store(other), "the same weights in another architecture"
    assert store(load_encoder(ModelConfig(path=str(m3_folder), pooling="mean"))[0])
    assert store(load_encoder(ModelConfig(path=str(m3_folder), normalize=False))[0])
    assert store(load_encoder(ModelConfig(path=str(m3_folder), passage_max_tokens=9))[0])
    changed = replace(tokens, ids=tokens.ids.copy())
    changed.ids[5] = changed.ids[6]
    assert store(tokens=changed)
    assert store(heads=("sparse",))
    assert store(dense="float16", heads=("dense",))
    assert store(about={"texts": "x"})


def test_what_is_no_store_says_so(tmp_path, encoder, tokens):
    with pytest.raises(ArtifactError, match="no finished vectors"):
        open_vectors(tmp_path)
    store_vectors(encoder, tokens, torch.float32, tmp_path / "v", heads=HEADS)
    (tmp_path / "v" / "multi.npy").write_bytes(b"x" * 500)
    with pytest.raises(ArtifactError, match="broken array"):
        open_vectors(tmp_path / "v")
    (tmp_path / "v" / "multi.npy").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        open_vectors(tmp_path / "v")


KILLED = """
import sys, time, torch
from pathlib import Path
from m3tune.model.weights import load_encoder
from m3tune.config import ModelConfig
from m3tune.retrieval import encode, store
from tiny import tiny_collection

encode._BUDGET_TOKENS, store._BATCHES_A_NOTE = {"cpu": 48}, 2
encoder, _ = load_encoder(ModelConfig(path=sys.argv[1]))
put = encode._put
encode._put = lambda *arguments: (put(*arguments), time.sleep(float(sys.argv[3])))
collection = tiny_collection()
tokens = encode.tokenize_passages(encoder, collection, list(collection.passages))
store.store_vectors(encoder, tokens, torch.float32, Path(sys.argv[2]), heads=("dense", "sparse", "multi"))
"""


def start(m3_folder, place, slowly):
    paths = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    command = [sys.executable, "-c", KILLED, str(m3_folder), str(place), str(slowly)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_goes_on_and_ends_equal(m3_folder, encoder, tokens, tmp_path, monkeypatch):
    place, partial = tmp_path / "v", tmp_path / "v.partial"
    process = start(m3_folder, place, 0.05)
    deadline = time.monotonic() + 120
    while not (partial / "noted.json").is_file():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.07)  # into the batches after the note
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not place.exists(), "killed half-way"
    noted = json.loads((partial / "noted.json").read_text())["texts"]
    assert 2 <= noted < len(tokens)

    # What the note vouches for is not written again; everything else is, whatever stands there.
    arrays = {name: np.load(partial / f"{name}.npy", mmap_mode="r+") for name in ("dense", "multi", "sparse_weights")}
    trusted = np.argsort(-tokens.lengths, kind="stable")[:noted]
    layout = lay_out(encoder, tokens, HEADS)
    places = {"dense": trusted, "multi": layout.multi_spans.entries(trusted)}
    places["sparse_weights"] = layout.sparse_spans.entries(trusted)
    for name, array in arrays.items():
        untrusted = np.ones(len(array), dtype=bool)
        untrusted[places[name]] = False
        assert untrusted.any()
        array[untrusted] = np.nan
        array.flush()

    encoded = []
    monkeypatch.setattr(encode_module, "_BUDGET_TOKENS", {"cpu": 48})
    put = encode_module._put
    monkeypatch.setattr(encode_module, "_put", lambda v, texts, e: (encoded.append(len(texts)), put(v, texts, e)))
    vectors = store_vectors(encoder, tokens, torch.float32, place, heads=HEADS)
    assert sum(encoded) == len(tokens) - noted
    whole = store_vectors(encoder, tokens, torch.float32, tmp_path / "whole", heads=HEADS)
    for name in ARRAYS:
        np.testing.assert_array_equal(np.load(place / f"{name}.npy"), np.load(tmp_path / "whole" / f"{name}.npy"))
    assert len(vectors) == len(whole) == len(tokens)
    assert not partial.exists()
