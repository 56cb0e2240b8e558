import shutil

import pytest
import torch

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.head_files import save_heads
from m3tune.model.heads import HEAD_FILES, new_head
from m3tune.model.packing import pack
from m3tune.model.weights import load_encoder, model_fingerprint, save_encoder

ALL = ("dense", "sparse", "multi")


def load(folder, **settings):
    return load_encoder(ModelConfig(path=str(folder), **settings))[0]


@pytest.fixture
def copy(m3_folder, tmp_path):
    """A copy to change."""
    return shutil.copytree(m3_folder, tmp_path / "copy")


def test_the_layout_of_bge_m3_loads_with_all_its_heads(m3_folder):
    encoder, why = load_encoder(ModelConfig(path=str(m3_folder)))
    assert encoder.settings.heads == ALL
    assert encoder.settings.pooling == "cls"
    assert why == "BGE-M3 layout: CLS pooling; heads: dense, sparse, multi"
    assert encoder.new_heads == ()
    saved = torch.load(m3_folder / "sparse_linear.pt", weights_only=True)
    assert saved["weight"].dtype == torch.float16
    assert torch.equal(encoder.linear("sparse").weight, saved["weight"].float())
    assert encoder.linear("multi").weight.dtype == torch.float32


@pytest.mark.parametrize("heads", [("dense",), ("dense", "sparse"), ("multi",), ALL], ids=str)
def test_any_subset_is_loaded_and_saved_and_loaded_again(m3_folder, tmp_path, heads):
    encoder = load(m3_folder, heads=heads)
    assert encoder.settings.heads == heads
    save_heads(torch.nn.ModuleDict({"sparse": new_head("sparse", 32), "multi": new_head("multi", 32)}), tmp_path)
    save_encoder(encoder, tmp_path)
    assert {head for head, name in HEAD_FILES.items() if (tmp_path / name).exists()} == set(heads) - {"dense"}
    again = load(tmp_path)
    assert again.settings == encoder.settings
    packed = pack([torch.tensor([0, 9, 8, 2]).numpy()])
    with torch.no_grad():
        before, after = encoder(packed), again(packed)
    for head, one, other in zip(ALL, before, after, strict=True):
        assert (one is not None) == (other is not None) == (head in heads)
        if one is not None:
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("head", ["sparse", "multi"])
def test_a_folder_with_one_head_file_loads_with_it_and_says_so(copy, head):
    (copy / HEAD_FILES["multi" if head == "sparse" else "sparse"]).unlink()
    encoder, why = load_encoder(ModelConfig(path=str(copy)))
    assert encoder.settings.heads == ("dense", head)
    assert f"of the two head files only {HEAD_FILES[head]} is there" in why


def test_a_missing_head_is_an_error_and_never_random(copy, tiny_folders):
    (copy / HEAD_FILES["sparse"]).unlink()
    for folder in (copy, tiny_folders["bert"]):
        with pytest.raises(ModelError, match="the sparse head is asked for, but its file is missing") as caught:
            load(folder, heads=ALL)
        assert caught.value.where == str(folder / "sparse_linear.pt")
        assert 'model.new_heads = ["sparse"]' in caught.value.fix


def test_new_heads_are_started_only_where_named_and_said(copy, tiny_folders):
    encoder, why = load_encoder(ModelConfig(path=str(tiny_folders["bert"]), new_heads=("multi", "sparse"), multi_dim=8))
    assert encoder.settings.heads == ALL
    assert encoder.linear("multi").weight.shape == (8, 32)
    assert why.endswith("heads: dense, sparse (new, untrained), multi (new, untrained)")
    assert set(encoder.new_heads) == {"sparse", "multi"}
    again = load(tiny_folders["bert"], new_heads=("sparse",))
    assert torch.equal(again.linear("sparse").weight, encoder.linear("sparse").weight)
    replaced = load(copy, new_heads=("sparse",))
    kept = load(copy)
    assert not torch.equal(replaced.linear("sparse").weight, kept.linear("sparse").weight)
    assert torch.equal(replaced.linear("multi").weight, kept.linear("multi").weight)


def test_settings_of_before_there_were_heads_mean_dense_alone(tiny_folders, tmp_path):
    save_encoder(load(tiny_folders["bert"]), tmp_path)
    file = tmp_path / "m3tune.json"
    text = file.read_text()
    assert '"heads"' in text
    file.write_text(text[: text.index(',\n  "heads"')] + "\n}\n")
    assert load(tmp_path).settings.heads == ("dense",)


def test_settings_with_an_unknown_head_are_broken(tiny_folders, tmp_path):
    save_encoder(load(tiny_folders["bert"]), tmp_path)
    file = tmp_path / "m3tune.json"
    file.write_text(file.read_text().replace('"dense"', '"dence"'))
    with pytest.raises(ModelError, match="broken settings"):
        load(tmp_path)


def linear(rows, columns=32):
    return {"weight": torch.zeros(rows, columns), "bias": torch.zeros(rows)}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("sparse_linear.pt", linear(2), r"weight \(2, 32\) and bias \(2,\) where .* sparse head has \(1, 32\)"),
        ("sparse_linear.pt", linear(1, 16), r"weight \(1, 16\)"),
        ("colbert_linear.pt", linear(32, 16), r"weight \(32, 16\) .* multi head has \(32, 32\)"),
        ("colbert_linear.pt", linear(0), r"weight \(0, 32\)"),
        ("colbert_linear.pt", {"weight": torch.zeros(()), "bias": torch.zeros(1)}, r"weight \(\)"),
        ("colbert_linear.pt", {"weight": torch.zeros(8, 32)}, "a broken head file .*bias"),
        ("sparse_linear.pt", [1, 2], "a broken head file"),
        ("sparse_linear.pt", torch.nn.Linear(32, 1), "more than weights, .* could run code"),  # a pickled module
        ("sparse_linear.pt", b"", "a broken head file"),
        ("sparse_linear.pt", b"cut off", "a broken head file"),
    ],
)  # fmt: skip
def test_a_broken_or_misshapen_head_file_is_refused(copy, name, content, match):
    if isinstance(content, bytes):
        (copy / name).write_bytes(content)
    else:
        torch.save(content, copy / name)
    with pytest.raises(ModelError, match=match) as caught:
        load(copy)
    assert caught.value.where == str(copy / name)
    assert caught.value.fix


def test_another_length_than_the_files_is_refused(copy):
    with pytest.raises(ModelError, match=r"weight \(32, 32\).*\(8, 32\)"):
        load(copy, multi_dim=8)
    assert load(copy, multi_dim=32).linear("multi").weight.shape == (32, 32)


def test_a_heads_weights_change_the_fingerprint(copy):
    before = model_fingerprint(ModelConfig(path=str(copy)))
    torch.save(linear(1), copy / "sparse_linear.pt")
    assert model_fingerprint(ModelConfig(path=str(copy))) != before
