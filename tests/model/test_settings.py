import json

import pytest

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.settings import EncoderSettings, apply_overrides, read_settings, write_settings

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


@pytest.fixture
def sbert(tmp_path):
    """Writes a sentence-transformers folder without weights."""

    def write(modules=(TRANSFORMER, POOLING, NORMALIZE), pooling=MEAN, limits=None, extra=None):
        (tmp_path / "1_Pooling").mkdir()
        files = {
            "modules.json": list(modules),
            "1_Pooling/config.json": pooling,
            "sentence_bert_config.json": limits,
            "config_sentence_transformers.json": extra,
        }
        for name, content in files.items():
            if content is not None:
                (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return write


def test_a_plain_folder_means_mean_pooling_and_says_that_this_is_assumed(tmp_path):
    settings, why = read_settings(tmp_path, 512)
    assert settings == EncoderSettings("mean", True, "", "", 512, 512)
    assert "assumed" in why


def test_the_layout_of_bge_m3_means_cls_pooling(tmp_path):
    (tmp_path / "colbert_linear.pt").write_bytes(b"never read")
    settings, why = read_settings(tmp_path, 8192)
    assert settings == EncoderSettings("cls", True, "", "", 8192, 8192, ("dense", "multi"))
    assert "BGE-M3" in why


def test_a_sentence_transformers_folder_is_read_whole(sbert):
    prompts = {"query": "query: ", "passage": "passage: "}
    settings, why = read_settings(sbert(limits={"max_seq_length": 256}, extra={"prompts": prompts}), 512)
    assert settings == EncoderSettings("mean", True, "query: ", "passage: ", 256, 256)
    assert "sentence-transformers" in why


def test_without_a_normalize_module_vectors_keep_their_length(sbert):
    assert read_settings(sbert(modules=[TRANSFORMER, POOLING]), 512)[0].normalize is False


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls", "word_embedding_dimension": 32, "include_prompt": True}, "cls"),
    ],
)
def test_both_ways_of_writing_the_pooling_are_read(sbert, config, pooling):
    assert read_settings(sbert(pooling=config), 512)[0].pooling == pooling


@pytest.mark.parametrize("limits", [None, {}, {"max_seq_length": None}, {"max_seq_length": 9999}])
def test_without_a_usable_limit_the_architectures_holds(sbert, limits):
    assert read_settings(sbert(limits=limits), 512)[0].query_max_tokens == 512


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling by pooling_mode_max_tokens is not supported"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "mode_cls_token, pooling_mode_mean"),
        ({"pooling_mode": "weightedmean"}, "pooling by weightedmean is not supported"),
        ({}, "pooling by nothing is not supported"),
    ],
)  # fmt: skip
def test_poolings_that_m3tune_does_not_have_are_refused(sbert, config, match):
    with pytest.raises(ModelError, match=match) as caught:
        read_settings(sbert(pooling=config), 512)
    assert caught.value.where.endswith("1_Pooling/config.json")


def test_a_module_after_the_encoder_is_refused_by_name(sbert):
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    with pytest.raises(ModelError, match="this model has a Dense module after its encoder") as caught:
        read_settings(sbert(modules=[TRANSFORMER, POOLING, dense]), 512)
    assert caught.value.where.endswith("modules.json")


def test_no_pooling_module_is_an_error_with_a_way_out(sbert):
    with pytest.raises(ModelError, match="no Pooling module"):
        read_settings(sbert(modules=[TRANSFORMER]), 512)


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "3", "not json"])
def test_a_broken_file_is_named(sbert, name, content):
    folder = sbert(extra={})
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match="broken") as caught:
        read_settings(folder, 512)
    assert caught.value.where == str(folder / name)


@pytest.mark.parametrize("content", ["{", "[]", '{"pooling": "mean"}', '{"poling": "mean"}'])
def test_a_broken_file_of_our_own_is_named(tmp_path, content):
    (tmp_path / "m3tune.json").write_text(content)
    with pytest.raises(ModelError, match="broken") as caught:
        read_settings(tmp_path, 512)
    assert caught.value.where == str(tmp_path / "m3tune.json")


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_what_is_written_is_read_back_by_either_reader(tmp_path, pooling, normalize):
    settings = EncoderSettings(pooling, normalize, "frage: ", "", 64, 64)
    write_settings(settings, tmp_path, dimension=32)
    assert read_settings(tmp_path, 512)[0] == settings
    (tmp_path / "m3tune.json").unlink()
    assert read_settings(tmp_path, 512)[0] == settings


def test_saved_without_normalising_over_a_folder_that_normalised(tmp_path):
    write_settings(EncoderSettings("cls", True, "", "", 64, 64), tmp_path, dimension=32)
    write_settings(EncoderSettings("cls", False, "", "", 64, 64), tmp_path, dimension=32)
    (tmp_path / "m3tune.json").unlink()
    assert read_settings(tmp_path, 512)[0].normalize is False


def test_the_recipe_lays_over_the_folder_key_by_key():
    settings = EncoderSettings("mean", True, "q ", "p ", 512, 512)
    assert apply_overrides(settings, ModelConfig(path="x"), 512) == settings
    config = ModelConfig(path="x", pooling="cls", normalize=False, query_prompt="", passage_max_tokens=100)
    assert apply_overrides(settings, config, 512) == EncoderSettings("cls", False, "", "p ", 512, 100)


@pytest.mark.parametrize("key", ["query_max_tokens", "passage_max_tokens"])
def test_a_limit_beyond_the_positions_is_refused_with_the_largest_that_works(key):
    settings = EncoderSettings("mean", True, "", "", 512, 512)
    with pytest.raises(ModelError, match=f"model.{key} = 513 is more than this encoder's 512 positions") as caught:
        apply_overrides(settings, ModelConfig(path="x", **{key: 513}), 512)
    assert caught.value.fix == "set it to at most 512"
    assert getattr(apply_overrides(settings, ModelConfig(path="x", **{key: 512}), 512), key) == 512


def test_prompt_and_limit_by_side():
    settings = EncoderSettings("mean", True, "q ", "p ", 32, 256)
    assert (settings.prompt("query"), settings.prompt("passage")) == ("q ", "p ")
    assert (settings.max_tokens("query"), settings.max_tokens("passage")) == (32, 256)
