"""Stages of one run for another: whole ones only, nothing replaced, nothing half-made."""

import os

import pytest

from m3tune.artifact import StageKey, is_complete, writing
from m3tune.sharing import share_stages

KEY = StageKey("base", {"a": 1})


@pytest.fixture
def source(tmp_path):
    with writing(tmp_path / "one" / "base", KEY) as (partial, _):
        (partial / "dev").mkdir()
        (partial / "dev" / "metrics.json").write_text("{}")
    (tmp_path / "one" / "train.partial").mkdir()
    (tmp_path / "one" / "train").mkdir()  # without a manifest
    return tmp_path / "one"


def test_finished_stages_are_linked_and_others_left(source, tmp_path):
    target = tmp_path / "two"
    share_stages(source, target, ("base", "train", "bm25"))
    assert is_complete(target / "base", KEY)
    assert sorted(os.listdir(target)) == ["base"]
    assert os.path.samefile(source / "base" / "dev" / "metrics.json", target / "base" / "dev" / "metrics.json")


def test_a_stage_written_anew_leaves_the_other_run_as_it_was(source, tmp_path):
    target = tmp_path / "two"
    share_stages(source, target, ("base",))
    with writing(target / "base", StageKey("base", {"a": 2})) as (partial, _):
        (partial / "new").write_text("")
    assert is_complete(source / "base", KEY)
    assert not (source / "base" / "new").exists()


def test_what_the_target_has_stays(source, tmp_path):
    target = tmp_path / "two"
    with writing(target / "base", StageKey("base", {"a": 2})):
        pass
    share_stages(source, target, ("base",))
    assert is_complete(target / "base", StageKey("base", {"a": 2}))


def test_what_a_killed_process_left_is_no_obstacle(source, tmp_path):
    target = tmp_path / "two"
    (target / "base.shared").mkdir(parents=True)
    (target / "base.shared" / "half").write_text("")
    share_stages(source, target, ("base",))
    assert is_complete(target / "base", KEY)
    assert sorted(os.listdir(target)) == ["base"]
    assert not (target / "base" / "half").exists()


def test_where_there_are_no_links_files_are_copied(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("other device")

    monkeypatch.setattr(os, "link", refuse)
    share_stages(source, tmp_path / "two", ("base",))
    copied = tmp_path / "two" / "base" / "dev" / "metrics.json"
    assert copied.read_text() == "{}"
    assert not os.path.samefile(source / "base" / "dev" / "metrics.json", copied)
