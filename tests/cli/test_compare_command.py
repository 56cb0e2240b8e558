"""m3tune compare: recipes or directories, by what its arguments are."""

import json

import pytest

from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

QUICK = ["--set", "train.max_steps=2", "--set", "train.batch_queries=8", "--set", "evaluate.resamples=100"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    write_llamaindex(folder / "data.json", tiny_collection(40, 60))
    save_tiny_encoder(folder / "encoder")
    return folder


def test_shipped_recipes_are_compared_by_name(m3tune, place, tmp_path):
    about = ["--data", place / "data.json", "--model", place / "encoder", "--seeds", 1, "--out", tmp_path / "out"]
    code, out, _ = m3tune("compare", "llamaindex", "default", *about, *QUICK, "--json")
    facts = json.loads(out)
    assert [recipe["name"] for recipe in facts["recipes"]] == ["llamaindex", "default"]
    assert facts["data"] == str(place / "data.json")
    best = next(of for of in facts["differences"] if (of["first"], of["second"]) == (facts["best"], "base"))
    assert code == (0 if best["interval"][0] > 0 else 1)
    again, out, err = m3tune("compare", "llamaindex", "default", *about, *QUICK)
    assert again == code
    assert facts["finding"][0] in out
    assert str(tmp_path / "out" / "comparison.html") in out
    assert "budget: " in err


def test_recipes_that_cannot_be_compared_end_with_the_keys(m3tune, place, tmp_path):
    text = f'[data]\npath = "{place / "data.json"}"\n[model]\npath = "{place / "encoder"}"\n'
    (tmp_path / "one.toml").write_text(text)
    (tmp_path / "two.toml").write_text(text + 'pooling = "cls"\n')
    code, _, err = m3tune("compare", tmp_path / "one.toml", tmp_path / "two.toml", "--out", tmp_path / "out")
    assert code == 2
    assert "model.pooling: None in one, 'cls' in two" in err
    assert "fix: " in err
    assert not (tmp_path / "out").exists()


def test_anything_else_is_refused(m3tune, place, tmp_path):
    code, _, err = m3tune("compare", "default", tmp_path)
    assert (code, "neither recipes alone nor two evaluation directories" in err) == (2, True)
    code, _, err = m3tune("compare", tmp_path, tmp_path, tmp_path)
    assert (code, "two directories" in err) == (2, True)
    code, _, err = m3tune("compare", tmp_path, tmp_path)
    assert (code, "--data" in err) == (2, True)
    code, _, err = m3tune("compare", tmp_path / "no.toml", "default")
    assert (code, "does not exist" in err) == (2, True)


def test_two_directories_are_compared_as_before(m3tune, place, tmp_path):
    for name in ("one", "two"):
        assert m3tune("evaluate", place / "encoder", place / "data.json", "--out", tmp_path / name, "--no-bm25")[0] == 0
    code, out, _ = m3tune("compare", tmp_path / "one", tmp_path / "two", "--data", place / "data.json", "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["metrics"][0]["difference"]) == (1, "no worse", 0)
