import errno
import json

import pytest

from m3tune.artifact import (
    MANIFEST,
    StageKey,
    fingerprint,
    installed_versions,
    is_complete,
    read_json,
    write_json,
    writing,
)
from m3tune.errors import ArtifactError

KEY = StageKey("train", {"rate": 1e-5}, {"data": "abc"})
OTHERS = {
    "stage": StageKey("tune", {"rate": 1e-5}, {"data": "abc"}),
    "config": StageKey("train", {"rate": 2e-5}, {"data": "abc"}),
    "inputs": StageKey("train", {"rate": 1e-5}, {"data": "abd"}),
}


def finish(folder, key=KEY, content="whole", **options):
    with writing(folder, key, **options) as (partial, counts):
        (partial / "result.txt").write_text(content)
        counts["texts"] = 3


def break_off(folder, error, key=KEY, **options):
    with writing(folder, key, **options) as (partial, _):
        (partial / "checkpoint").write_text("half way")
        raise error


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# --- keys


@pytest.mark.parametrize("differs", OTHERS)
def test_the_key_follows_stage_config_and_inputs(differs):
    assert OTHERS[differs].fingerprint != KEY.fingerprint
    assert StageKey("train", {"rate": 1e-5}, {"data": "abc"}).fingerprint == KEY.fingerprint


def test_the_order_of_keys_does_not_matter_and_that_of_lists_does():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


# --- a finished stage


def test_a_finished_stage_says_what_it_was_made_from(tmp_path):
    finish(tmp_path / "train")
    assert names(tmp_path) == ["train"]
    assert names(tmp_path / "train") == [MANIFEST, "result.txt"]
    manifest = read_json(tmp_path / "train" / MANIFEST)
    assert manifest["stage"] == "train"
    assert manifest["fingerprint"] == KEY.fingerprint
    assert manifest["config"] == {"rate": 1e-5}
    assert manifest["inputs"] == {"data": "abc"}
    assert manifest["counts"] == {"texts": 3}
    assert manifest["versions"] == installed_versions()
    assert {"python", "m3tune", "torch", "transformers"} <= manifest["versions"].keys()
    assert manifest["seconds"] >= 0


def test_only_the_very_same_key_finds_it_complete(tmp_path):
    assert not is_complete(tmp_path / "train", KEY)
    finish(tmp_path / "train")
    assert is_complete(tmp_path / "train", KEY)
    assert not any(is_complete(tmp_path / "train", other) for other in OTHERS.values())
    (tmp_path / "train" / MANIFEST).unlink()
    assert not is_complete(tmp_path / "train", KEY)


def test_a_new_key_replaces_the_whole_directory(tmp_path):
    finish(tmp_path / "train")
    (tmp_path / "train" / "left over").write_text("")
    finish(tmp_path / "train", OTHERS["config"], "new")
    assert (tmp_path / "train" / "result.txt").read_text() == "new"
    assert names(tmp_path / "train") == [MANIFEST, "result.txt"]


# --- an interrupted stage

INTERRUPTIONS = [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "no space left")]


@pytest.mark.parametrize("keep_partial", [False, True])
@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=lambda error: type(error).__name__)
def test_an_interrupted_stage_leaves_no_finished_directory(tmp_path, interruption, keep_partial):
    with pytest.raises(type(interruption)):
        break_off(tmp_path / "train", interruption, keep_partial=keep_partial)
    assert not (tmp_path / "train").exists()
    assert not is_complete(tmp_path / "train", KEY)
    assert names(tmp_path) == (["train.partial"] if keep_partial else [])


def test_an_interrupted_stage_leaves_the_finished_one_before_it(tmp_path):
    finish(tmp_path / "train")
    with pytest.raises(RuntimeError):
        break_off(tmp_path / "train", RuntimeError(), OTHERS["config"])
    assert (tmp_path / "train" / "result.txt").read_text() == "whole"
    assert is_complete(tmp_path / "train", KEY)


def test_a_partial_directory_is_never_complete(tmp_path):
    with pytest.raises(RuntimeError):
        break_off(tmp_path / "train", RuntimeError(), keep_partial=True)
    assert not is_complete(tmp_path / "train.partial", KEY)


def test_what_was_begun_with_the_same_key_is_handed_out_again(tmp_path):
    with pytest.raises(RuntimeError):
        break_off(tmp_path / "train", RuntimeError(), keep_partial=True)
    with writing(tmp_path / "train", KEY, keep_partial=True) as (partial, _):
        assert (partial / "checkpoint").read_text() == "half way"
    assert names(tmp_path / "train") == ["checkpoint", MANIFEST]
    assert names(tmp_path) == ["train"]


@pytest.mark.parametrize("differs", OTHERS)
def test_what_was_begun_with_another_key_is_thrown_away(tmp_path, differs):
    with pytest.raises(RuntimeError):
        break_off(tmp_path / "train", RuntimeError(), OTHERS[differs], keep_partial=True)
    with writing(tmp_path / "train", KEY, keep_partial=True) as (partial, _):
        assert names(partial) == ["begun.json"]


def test_what_was_left_by_a_kill_is_thrown_away_by_a_stage_that_cannot_resume(tmp_path):
    with pytest.raises(RuntimeError):  # a kill leaves the same, whatever the stage
        break_off(tmp_path / "train", RuntimeError(), keep_partial=True)
    with writing(tmp_path / "train", KEY) as (partial, _):
        assert names(partial) == ["begun.json"]


# --- JSON files


def test_json_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"text": "漢字"})
    assert read_json(file) == {"text": "漢字"}
    assert "漢字" in file.read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(file, {"no json": object()})
    assert read_json(file) == {"text": "漢字"}
    assert names(tmp_path) == ["a.json"]


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="this file is missing") as caught:
        read_json(tmp_path / "no.json")
    assert caught.value.where == str(tmp_path / "no.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match="broken JSON") as caught:
        read_json(tmp_path / "half.json")
    assert caught.value.where == str(tmp_path / "half.json")


def test_a_manifest_is_readable_json_for_other_programs(tmp_path):
    finish(tmp_path / "train")
    text = (tmp_path / "train" / MANIFEST).read_text()
    assert json.loads(text)["counts"] == {"texts": 3}
    assert text.startswith("{\n  ")


# --- what is not ours


@pytest.mark.parametrize("in_the_way", ["stage", "stage.partial"])
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path, in_the_way):
    precious = tmp_path / in_the_way / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("ten years of work")
    with pytest.raises(ArtifactError, match="not m3tune's is in the way") as error:
        finish(tmp_path / "stage")
    assert error.value.where == str(precious.parent)
    assert precious.read_text() == "ten years of work"


def test_a_file_in_the_way_is_not_replaced_either(tmp_path):
    (tmp_path / "stage").write_text("mine")
    with pytest.raises(ArtifactError):
        finish(tmp_path / "stage")
    assert (tmp_path / "stage").read_text() == "mine"


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "stage").mkdir()
    finish(tmp_path / "stage")
    assert is_complete(tmp_path / "stage", KEY)


@pytest.mark.parametrize("keep_partial", [True, False])
def test_two_processes_do_not_write_one_stage(tmp_path, keep_partial):
    """A lock belongs to one opening of the folder, so a second attempt in this process stands for another process."""
    folder = tmp_path / "train"
    with writing(folder, KEY, keep_partial=keep_partial) as (partial, _):
        (partial / "checkpoint").write_text("half way")
        with pytest.raises(ArtifactError, match="another m3tune is at work here") as caught:
            finish(folder, keep_partial=keep_partial)
        assert caught.value.where == str(partial)
        assert (partial / "checkpoint").read_text() == "half way"
    assert is_complete(folder, KEY)
    finish(folder, OTHERS["config"], keep_partial=keep_partial)
    assert is_complete(folder, OTHERS["config"])


def test_what_another_attempt_left_in_folders_is_thrown_away_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        break_off(tmp_path / "train", KeyboardInterrupt(), keep_partial=True)
    (tmp_path / "train.partial" / "checkpoint-5").mkdir()
    (tmp_path / "train.partial" / "checkpoint-5" / "weights").write_text("of another learning rate")
    finish(tmp_path / "train", OTHERS["config"], keep_partial=True)
    assert names(tmp_path / "train") == [MANIFEST, "result.txt"]


def test_a_disk_that_knows_no_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    finish(tmp_path / "train")
    assert is_complete(tmp_path / "train", KEY)
