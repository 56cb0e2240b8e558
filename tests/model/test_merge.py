"""Merged weights against the formula, what must not be merged, and the command."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3tune.artifact import read_json
from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.merge import average, average_into, become, distance, interpolate, move_to, weights_of
from m3tune.model.weights import load_encoder, save_encoder
from m3tune.retrieval.encode import encode
from tiny import save_tiny_encoder, save_tiny_m3

NAMES = ("backbone.a.weight", "backbone.b.bias", "heads.sparse.weight")


def state(seed, names=NAMES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, 5, generator=generator).to(dtype) for name in names}


def loaded(folder, **config):
    return load_encoder(ModelConfig(path=str(folder), **config))[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two models of one shape in the layout of BAAI/bge-m3. Never written to."""
    place = tmp_path_factory.mktemp("two")
    return [save_tiny_m3(place / str(seed), seed=seed) for seed in (0, 1)]


# --- the formula


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 0.7, 0.85, 0.99])
def test_between_the_ends_it_is_the_formula(alpha):
    base, tuned = state(0), state(1)
    merged = dict(interpolate(base, tuned, alpha))
    assert list(merged) == list(tuned)
    for name in NAMES:
        expected = base[name].double() + alpha * (tuned[name].double() - base[name].double())
        torch.testing.assert_close(merged[name].double(), expected, rtol=0, atol=1e-6)
        assert not torch.equal(merged[name], base[name])
        assert not torch.equal(merged[name], tuned[name])


@pytest.mark.parametrize("alpha", [0, 0.0, 1, 1.0])
def test_the_ends_are_the_models_bit_for_bit_and_copies(alpha):
    base, tuned = state(0), state(1)
    base[NAMES[0]][0, 0], tuned[NAMES[0]][0, 0] = -0.0, 1e-45  # what adding a zero would change
    end = tuned if alpha else base
    merged = dict(interpolate(base, tuned, alpha))
    for name in NAMES:
        assert torch.equal(merged[name].view(torch.int32), end[name].view(torch.int32))
    merged[NAMES[0]].zero_()
    assert end[NAMES[0]].any()


def test_what_did_not_move_stays_bit_for_bit():
    base = state(0)
    merged = dict(interpolate(base, {name: value.clone() for name, value in base.items()}, 0.3))
    assert all(torch.equal(merged[name], base[name]) for name in NAMES)


def test_a_head_that_only_the_tuned_model_has_stays_its_own():
    base, tuned = state(0, NAMES[:2]), state(1)
    for alpha in (0, 0.5, 1):
        merged = dict(interpolate(base, tuned, alpha))
        assert torch.equal(merged[NAMES[2]], tuned[NAMES[2]])
        assert torch.equal(merged[NAMES[0]], tuned[NAMES[0]]) is (alpha == 1)


def test_half_precision_is_merged_in_float32():
    base, tuned = state(0, dtype=torch.bfloat16), state(1, dtype=torch.bfloat16)
    merged = dict(interpolate(base, tuned, 0.3))[NAMES[0]]
    assert merged.dtype == torch.float32
    expected = base[NAMES[0]].float() + 0.3 * (tuned[NAMES[0]].float() - base[NAMES[0]].float())
    torch.testing.assert_close(merged, expected)
    assert not torch.equal(merged, merged.bfloat16().float()), "no rounding to what was given"


def test_the_mean_of_three():
    states = [state(seed) for seed in range(3)]
    merged = average(states)
    for name in NAMES:
        expected = np.mean([of[name].double().numpy() for of in states], axis=0)
        np.testing.assert_allclose(merged[name].double().numpy(), expected, atol=1e-6)


def test_distance_is_relative_grows_with_alpha_and_looks_at_shared_weights_only():
    base, tuned = state(0, NAMES[:2]), state(1)
    flat = {key: torch.cat([of[name].flatten() for name in NAMES[:2]]).double() for key, of in
            (("base", base), ("tuned", tuned))}  # fmt: skip
    expected = float((flat["tuned"] - flat["base"]).norm() / flat["base"].norm())
    assert distance(base, tuned) == pytest.approx(expected)
    assert distance(base, base) == 0
    for alpha in (0.3, 0.7):
        assert distance(base, dict(interpolate(base, tuned, alpha))) == pytest.approx(alpha * expected, rel=1e-5)


def test_distance_of_a_table_that_is_looked_at_in_pieces():
    generator = torch.Generator().manual_seed(0)
    base, other = (torch.randn(2**20 // 64 + 3, 96, generator=generator) for _ in range(2))
    expected = float((other.double() - base.double()).norm() / base.double().norm())
    assert distance({"a": base}, {"a": other}) == pytest.approx(expected, rel=1e-12)


def test_whole_numbers_are_kept_where_they_agree_and_refused_where_not():
    base, tuned = state(0), state(1)
    base["backbone.position_ids"], tuned["backbone.position_ids"] = torch.arange(4), torch.arange(4)
    for merged in (dict(interpolate(base, tuned, 0.5)), average([base, tuned])):
        assert merged["backbone.position_ids"].dtype == torch.int64
        assert torch.equal(merged["backbone.position_ids"], torch.arange(4))
    tuned["backbone.position_ids"] = torch.arange(1, 5)
    for merge in (lambda: dict(interpolate(base, tuned, 0.5)), lambda: average([base, tuned])):
        with pytest.raises(ModelError, match=r"backbone.position_ids holds other whole numbers"):
            merge()


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_an_encoder_becomes_a_merge_even_if_it_is_one_of_the_two(two, alpha):
    base, tuned, other = loaded(two[0]), loaded(two[1]), loaded(two[0])
    expected = dict(interpolate(weights_of(base), weights_of(tuned), alpha))
    become(other, base.state_dict(), tuned.state_dict(), alpha)
    become(tuned, base.state_dict(), tuned.state_dict(), alpha)
    for merged in (tuned, other):
        assert all(torch.equal(value, expected[name]) for name, value in merged.state_dict().items())
    assert not torch.equal(expected["heads.multi.weight"], base.state_dict()["heads.multi.weight"]) or alpha == 0


def test_other_shapes_and_names_are_refused():
    other = state(1) | {NAMES[1]: torch.zeros(3, 4)}
    with pytest.raises(ModelError, match=r"backbone.b.bias has the shapes \(3, 5\) and \(3, 4\)"):
        dict(interpolate(state(0), other, 0.5))
    for base, tuned in ((state(0, NAMES[:1]), state(1, NAMES[:2])), (state(0), state(1, NAMES[:2]))):
        with pytest.raises(ModelError, match="only one model has"):
            dict(interpolate(base, tuned, 0.5))
    with pytest.raises(ModelError, match=r"only one model has: 'heads.sparse.weight'"):
        average([state(0), state(1), state(2, NAMES[:2])])


# --- encoders


def test_an_encoder_between_two_is_saved_and_loads_with_its_heads(two, tmp_path):
    base, merged = loaded(two[0]), loaded(two[1])
    ends = weights_of(base), weights_of(merged)
    move_to(base, merged, 0.25)
    save_encoder(merged, tmp_path / "merged")
    found = weights_of(loaded(tmp_path / "merged"))
    used = [name for name in found if "pooler" not in name]
    assert {"heads.sparse.weight", "heads.multi.weight"} <= set(used)
    for name in used:
        torch.testing.assert_close(
            found[name], ends[0][name] + 0.25 * (ends[1][name] - ends[0][name]), atol=1e-6, rtol=0
        )
    assert merged.settings.heads == ("dense", "sparse", "multi")


OTHER_USE = {"pooling": "mean", "normalize": False, "query_prompt": "query: ", "passage_prompt": "p: "}
OTHER_USE |= {"query_max_tokens": 8, "passage_max_tokens": 8, "heads": ("dense",)}


def test_what_is_used_in_another_way_is_refused_by_name(two, tiny_folders):
    for name, value in OTHER_USE.items():
        base, tuned = loaded(two[0]), loaded(two[1])
        tuned.settings = replace(tuned.settings, **{name: value})
        with pytest.raises(ModelError, match=f"differ in {name}"):
            move_to(base, tuned, 0.5)
        with pytest.raises(ModelError, match=f"differ in {name}"):
            average_into(base, [tuned])
    with pytest.raises(ModelError, match="differ in model_type: 'bert' and 'roberta'"):
        move_to(loaded(tiny_folders["bert"]), loaded(tiny_folders["roberta"]), 0.5)


def test_the_same_shape_with_other_attention_heads_or_words_is_refused(tmp_path):
    base = loaded(save_tiny_encoder(tmp_path / "base"))
    with pytest.raises(ModelError, match="differ in num_attention_heads: 4 and 2"):
        move_to(base, loaded(save_tiny_encoder(tmp_path / "two", num_attention_heads=2)), 0.5)
    other = save_tiny_encoder(tmp_path / "other", seed=1)
    tokenizer = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(tokenizer.replace('"r07"', '"x07"'))
    with pytest.raises(ModelError, match="words of their tokenizers"):
        move_to(base, loaded(other), 0.5)


def test_the_mean_keeps_weights_of_a_hybrid_only_where_all_agree(two):
    for second, expected in (({"dense": 1.0, "sparse": 0.5, "multi": 0.1}, None), ({"dense": 1.0}, {"dense": 1.0})):
        encoders = [loaded(folder) for folder in two]
        for encoder, weights in zip(encoders, ({"dense": 1.0}, second), strict=True):
            encoder.settings = replace(encoder.settings, hybrid_weights=weights)
        average_into(encoders[0], encoders[1:])
        assert encoders[0].settings.hybrid_weights == expected


# --- the command


TEXTS = ["c01 r02 r03", "r05 c03"]


def test_the_command_merges_two_and_does_it_once(m3tune, two, tmp_path):
    output = tmp_path / "merged"
    code, out, err = m3tune("merge", *two, "--alpha", 0.7, "--out", output)
    assert (code, out) == (0, f"model {output}\n")
    assert "of its weights' length" in err
    merged, ends = loaded(output), [loaded(folder) for folder in two]
    weight = merged.linear("sparse").weight
    expected = ends[0].linear("sparse").weight.lerp(ends[1].linear("sparse").weight, 0.7)
    torch.testing.assert_close(weight, expected)
    assert read_json(output / "manifest.json")["config"]["alpha"] == 0.7
    before = (output / "model.safetensors").stat().st_mtime_ns
    assert "holds this merge already" in m3tune("merge", *two, "--alpha", 0.7, "--out", output)[2]
    assert (output / "model.safetensors").stat().st_mtime_ns == before
    assert m3tune("merge", *two, "--alpha", 0.5, "--out", output)[0] == 0
    assert not torch.equal(loaded(output).linear("sparse").weight, weight)


@pytest.mark.parametrize("alpha", [0, 1])
def test_the_ends_of_the_command_give_the_models_vectors(m3tune, two, tmp_path, alpha):
    assert m3tune("merge", *two, "--alpha", alpha, "--out", tmp_path / "m")[0] == 0
    ours, theirs = (encode(loaded(folder), TEXTS, "passage") for folder in (tmp_path / "m", two[alpha]))
    assert np.array_equal(ours, theirs)


def test_the_command_averages_and_says_so_to_programs(m3tune, two, tmp_path):
    code, out, err = m3tune("merge", *two, two[0], "--average", "--out", tmp_path / "m", "--json")
    assert (code, err) == (0, "")
    assert f'"folder": "{tmp_path / "m"}"' in out
    ends = [loaded(folder).linear("multi").weight for folder in two]
    torch.testing.assert_close(loaded(tmp_path / "m").linear("multi").weight, (2 * ends[0] + ends[1]) / 3)


def test_a_model_without_the_new_heads_merges_with_one_that_has_them(m3tune, two, tmp_path):
    plain = tmp_path / "plain"
    save_encoder(loaded(two[0], heads=("dense",)), plain)
    code, _, err = m3tune("merge", plain, two[1], "--alpha", 0.5, "--out", tmp_path / "m")
    assert code == 0, err
    assert f"sparse, multi: only {two[1]} has it" in err
    assert torch.equal(loaded(tmp_path / "m").linear("multi").weight, loaded(two[1]).linear("multi").weight)
    code, _, err = m3tune("merge", two[1], plain, "--alpha", 0.5, "--out", tmp_path / "n")
    assert code == 2
    assert "differ in heads" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--alpha", "0.5", "--average"], "one of --alpha and --average"),
        ([], "one of --alpha and --average"),
        (["--alpha", "1.5"], "less than or equal to 1"),
    ],
)
def test_mistakes_of_the_command(m3tune, two, tmp_path, arguments, said):
    code, _, err = m3tune("merge", *two, *arguments, "--out", tmp_path / "m")
    assert code == 2
    assert said in err
    assert not (tmp_path / "m").exists()


def test_alpha_takes_two_and_an_average_at_least_two(m3tune, two, tmp_path):
    code, _, err = m3tune("merge", *two, two[0], "--alpha", 0.5, "--out", tmp_path / "m")
    assert (code, "between two models, not 3" in err) == (2, True)
    code, _, err = m3tune("merge", two[0], "--average", "--out", tmp_path / "m")
    assert (code, "one model alone" in err) == (2, True)


def test_nothing_of_a_persons_own_is_overwritten(m3tune, two, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, err = m3tune("merge", *two, "--alpha", 0.5, "--out", tmp_path / "mine")
    assert (code, "in the way" in err) == (2, True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
