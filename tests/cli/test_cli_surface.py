import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_origin

import pytest
import typer

from m3tune import __version__, artifact, cli, pipeline
from m3tune.config import Recipe
from m3tune.data import prepared
from tiny import save_tiny_encoder, tiny_collection, write_flagembedding, write_llamaindex

SURFACE = Path(__file__).with_name("surface.txt")
UPDATE = "M3TUNE_UPDATE_SURFACE"
COMMANDS = sorted(typer.main.get_command(cli.app).commands)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data in two formats, an encoder and a recipe for them. Runs go elsewhere."""
    folder = tmp_path_factory.mktemp("place")
    collection = tiny_collection(40, 60)
    write_llamaindex(folder / "data.json", collection)
    write_flagembedding(folder / "rows.jsonl", collection)
    save_tiny_encoder(folder / "encoder")
    (folder / "recipe.toml").write_text(
        f'[data]\npath = "{folder / "data.json"}"\n[model]\npath = "{folder / "encoder"}"\n'
        '[train]\nepochs = 1\nbatch_queries = 8\nprecision = "float32"\n[evaluate]\nresamples = 100\n'
    )
    return folder


# --- the surface


def surface():
    """Every command, argument, option and recipe key with its default, one a line."""
    group = typer.main.get_command(cli.app)
    lines = [f"m3tune {'/'.join(option.opts)}" for option in group.params]
    for name, command in sorted(group.commands.items()):
        for parameter in command.params:
            default = "required" if parameter.required else repr(parameter.default).replace("PosixPath", "Path")
            flags = "/".join([*parameter.opts, *parameter.secondary_opts])
            lines.append(f"m3tune {name} {flags} {'...' if parameter.multiple else ''}= {default}".replace("  ", " "))
    lines += [f"recipe {line}" for line in recipe_keys(Recipe)]
    return "\n".join(lines) + "\n"


def recipe_keys(model, before=""):
    for name, info in model.model_fields.items():
        tables = [inner for inner in (info.annotation, *get_args(info.annotation)) if hasattr(inner, "model_fields")]
        by_name = get_origin(info.annotation) is dict
        if by_name or not tables:
            yield f"{before}{name} = {'required' if info.is_required() else repr(info.default)}"
        for table in tables:
            yield from recipe_keys(table, f"{before}{name}.NAME." if by_name else f"{before}{name}.")


def test_the_surface_is_the_committed_one():
    if os.environ.get(UPDATE):
        SURFACE.write_text(surface(), encoding="utf-8")
    assert surface() == SURFACE.read_text(encoding="utf-8"), (
        f"commands, options or recipe keys have changed; where that is meant, run {UPDATE}=1 pytest tests/cli "
        "and commit surface.txt"
    )


def test_the_surface_holds_what_people_use():
    lines = surface().splitlines()
    assert len(lines) > 60
    assert "m3tune run --set ...= None" in lines
    assert "recipe train.temperature = 0.05" in lines
    assert "recipe data.path = required" in lines


# --- what libraries read from the environment


def test_libraries_are_set_up_before_they_are_loaded_and_users_have_the_last_word():
    code = """
import os, sys
sys.argv = ["m3tune", "--version"]
from m3tune import cli
assert "torch" not in sys.modules
try:
    cli.main()
finally:
    print(os.environ["GOMP_SPINCOUNT"], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
"""
    named = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "ONEDNN"))}
    ended = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**named, **own})
        for own in ({}, {"GOMP_SPINCOUNT": "7"})
    ]
    assert [one.stdout.splitlines()[-1] for one in ended] == ["10000 128", "7 128"]


# --- help

HELP = """
import contextlib, io, sys
from m3tune import cli
for command in {commands!r}:
    sys.argv = ["m3tune", *command.split(), "--help"]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            cli.main()
    except SystemExit as ended:
        assert not ended.code, (command, ended.code)
    assert "Usage: m3tune" in text.getvalue(), command
    assert not command or "Example: m3tune " + command in text.getvalue(), (command, text.getvalue())
heavy = [name for name in ("torch", "transformers", "pyarrow", "scipy", "bm25s") if name in sys.modules]
assert not heavy, heavy
print("looked at", {count})
"""


def test_help_shows_an_example_for_every_command_and_imports_nothing_heavy():
    code = HELP.format(commands=["", *COMMANDS], count=1 + len(COMMANDS))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"looked at {1 + len(COMMANDS)}\n"
    assert {"demo", "init", "run", "evaluate", "compare", "report"} <= set(COMMANDS)


def test_the_version_is_printed_alone(m3tune):
    assert m3tune("--version") == (cli.FINE, f"{__version__}\n", "")


@pytest.mark.parametrize("arguments", [["nope"], ["run", "--nope"], ["evaluate"], ["run", "a.toml", "b.toml"]], ids=str)
def test_a_command_line_that_cannot_be_read_ends_with_2(m3tune, arguments):
    code, out, err = m3tune(*arguments)
    assert code == cli.USER_ERROR
    assert out == ""
    assert "Usage: " in err
    assert "Traceback" not in err


# --- the user's mistakes: exit code 2, what, where and how to mend, no stack trace


def assert_explained(result, *parts):
    code, out, err = result
    assert code == cli.USER_ERROR, err
    assert out == ""
    assert "Traceback" not in err
    assert "error: " in err
    assert "fix: " in err
    for part in parts:
        assert str(part) in err, err


def test_a_missing_recipe_names_the_nearest(m3tune, place):
    result = m3tune("run", place / "recipes.toml")
    assert_explained(result, f"{place / 'recipes.toml'}: the recipe does not exist", f"mean {place / 'recipe.toml'}?")


def test_missing_data_names_the_nearest(m3tune, place, tmp_path):
    result = m3tune("evaluate", place / "encoder", place / "date.json", "--out", tmp_path / "e")
    assert_explained(result, f"{place / 'date.json'}", f"did you mean {place / 'data.json'}?")


def test_a_missing_model_names_the_nearest(m3tune, place, tmp_path):
    settings = ["--set", f"output={tmp_path}", "--set", f"model.path={place / 'encodr'}"]
    result = m3tune("run", place / "recipe.toml", *settings)
    assert_explained(result, "the model does not exist", f"did you mean {place / 'encoder'}?")


def test_a_folder_of_no_known_format_says_what_is_known(m3tune, place, tmp_path):
    (tmp_path / "empty").mkdir()
    result = m3tune("evaluate", place / "encoder", tmp_path / "empty", "--out", tmp_path / "e")
    assert_explained(result, tmp_path / "empty")
    assert not (tmp_path / "e").exists()


def test_a_broken_line_is_named_by_file_and_line(m3tune, place, tmp_path):
    lines = (place / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:2], '{"query": "half', *lines[3:]]))
    result = m3tune("evaluate", place / "encoder", tmp_path / "rows.jsonl", "--out", tmp_path / "e")
    assert_explained(result, f"{tmp_path / 'rows.jsonl'}:3: ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.lerning_rate=1", "unknown key 'train.lerning_rate'; did you mean 'learning_rate'?"),
        ("train.epochs=-1", "train.epochs = -1: input should be 'auto', or input should be greater than 0"),
        ("train.learning_rate=2e-5e", "train.learning_rate = '2e-5e'"),
    ],
)
def test_a_wrong_key_or_value_is_named_before_anything_is_written(m3tune, place, tmp_path, override, said):
    code, out, err = m3tune("run", place / "recipe.toml", "--set", f"output={tmp_path / 'run'}", "--set", override)
    assert (code, out) == (cli.USER_ERROR, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_set_without_a_value_shows_how(m3tune, place):
    assert_explained(m3tune("run", place / "recipe.toml", "--set", "train.epochs"), "--set: 'train.epochs' has no '='")


def test_an_unknown_metric_is_refused_before_anything_is_written(m3tune, place, tmp_path):
    settings = ["--set", f"output={tmp_path / 'run'}", "--set", "evaluate.main_metric=NDCG_10"]
    code, _, err = m3tune("run", place / "recipe.toml", *settings)
    assert code == cli.USER_ERROR
    assert "NDCG_10" in err
    assert not (tmp_path / "run").exists()


def test_a_model_folder_without_weights_is_named(m3tune, place, tmp_path):
    save_tiny_encoder(tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").unlink()
    settings = ["--set", f"output={tmp_path / 'run'}", "--set", f"model.path={tmp_path / 'encoder'}"]
    result = m3tune("run", place / "recipe.toml", *settings)
    assert_explained(result, f"{tmp_path / 'encoder'}: the folder has no weights")
    assert not (tmp_path / "run" / "base").exists()


def test_a_report_of_what_is_no_run_says_so(m3tune, tmp_path):
    code, _, err = m3tune("report", tmp_path)
    assert code == cli.USER_ERROR
    assert "this file is missing" in err


def test_init_does_not_overwrite(m3tune, place, tmp_path):
    arguments = ["init", place / "data.json", "--model", place / "encoder", "--out", tmp_path / "mine.toml"]
    code, out, err = m3tune(*arguments)
    assert (code, err) == (cli.FINE, "")
    assert "40 queries (40 with a relevant passage), 60 passages" in out
    assert f"next: m3tune run {tmp_path / 'mine.toml'}" in out
    assert_explained(m3tune(*arguments), f"{tmp_path / 'mine.toml'}: this file exists already")


def test_init_makes_the_folder_and_writes_a_command_that_a_shell_takes(m3tune, place, tmp_path):
    recipe = tmp_path / "my 'new' recipes" / "a b.toml"
    code, out, err = m3tune("init", place / "data.json", "--model", place / "encoder", "--out", recipe)
    assert (code, err) == (cli.FINE, "")
    command = out.strip().rpartition("next: ")[2]
    assert shlex.split(command) == ["m3tune", "run", str(recipe)]
    assert recipe.is_file()


# --- the machine's mistakes


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_full_disk_says_where_and_how_much_is_free(m3tune, place, tmp_path, monkeypatch):
    file = tmp_path / "run" / "data" / "split.json"
    monkeypatch.setattr(prepared, "write_json", fails(OSError(errno.ENOSPC, "No space left on device", str(file))))
    result = m3tune("run", place / "recipe.toml", "--set", f"output={tmp_path / 'run'}")
    assert_explained(result, f"{file}: no space left on the disk", "GiB free")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["resolved.toml"]


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_full_disk_while_weights_are_written_is_no_bug_of_ours(m3tune, place, tmp_path, monkeypatch, kind):
    from safetensors import SafetensorError

    error = {
        "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    }[kind]
    monkeypatch.setattr(pipeline, "run", fails(error))
    assert_explained(m3tune("run", place / "recipe.toml"), "no space left on the disk")


def test_a_folder_that_may_not_be_written_says_so(m3tune, place, monkeypatch):
    error = PermissionError(errno.EACCES, "Permission denied", "/run/here")
    monkeypatch.setattr(pipeline, "run", fails(error))
    assert_explained(m3tune("run", place / "recipe.toml"), "/run/here: no permission to read or write")


@pytest.mark.parametrize("inside", ["", "/run"])
def test_a_file_where_a_folder_is_to_be_written_is_no_bug_of_ours(m3tune, place, tmp_path, inside):
    (tmp_path / "taken").write_text("mine")
    output = f"{tmp_path / 'taken'}{inside}"
    assert_explained(m3tune("run", place / "recipe.toml", "--set", f"output={output}"), output, "a file and no folder")
    assert_explained(m3tune("encode", place / "encoder", place / "data.json", "--out", output), "a file and no folder")
    assert_explained(
        m3tune("convert", place / "data.json", f"{output}/c.json", "--to", "llamaindex"), "a file and no folder"
    )
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_name_that_no_disk_takes_is_no_bug_of_ours(m3tune, place, tmp_path):
    assert_explained(m3tune("check", tmp_path / ("x" * 300)), "a name in this path is too long")


def test_a_bug_ends_with_3_and_all_that_a_report_needs(m3tune, place, monkeypatch):
    monkeypatch.setattr(pipeline, "run", fails(ZeroDivisionError("ours")))
    code, out, err = m3tune("run", place / "recipe.toml")
    assert (code, out) == (cli.BUG, "")
    assert "Traceback (most recent call last)" in err
    assert "ZeroDivisionError: ours" in err
    assert f"this is a bug in m3tune {__version__}; please report it" in err


def test_an_unknown_error_of_the_system_is_a_bug_too(m3tune, place, monkeypatch):
    monkeypatch.setattr(pipeline, "run", fails(OSError(errno.EBADF, "Bad file descriptor")))
    code, _, err = m3tune("run", place / "recipe.toml")
    assert code == cli.BUG
    assert "Traceback" in err


# --- interrupted

COMMAND = [sys.executable, "-c", "from m3tune.cli import main; main()"]


def start(*arguments, **options):
    """The command as a process of its own that takes Ctrl-C, whatever the test runner was started with."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_ctrl_c_while_training_leaves_no_stack_trace_and_no_finished_stage(place, tmp_path):
    folder = tmp_path / "run"
    settings = [f"output={folder}", "train.max_steps=100000", "train.evaluations=20000"]
    process = start("run", place / "recipe.toml", *(part for item in settings for part in ("--set", item)))
    deadline = time.monotonic() + 120
    while not list(folder.glob("train.partial/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED, err
    assert "Traceback" not in err
    assert out == ""
    finished = {path.name for path in folder.iterdir() if (path / artifact.MANIFEST).is_file()}
    assert finished == {"data", "bm25", "base"}
    assert not (folder / "train").exists()
    assert (folder / "train.partial").is_dir(), "what is there is gone on from"


def test_ctrl_c_says_how_to_go_on(m3tune, place, monkeypatch):
    monkeypatch.setattr(pipeline, "run", fails(KeyboardInterrupt()))
    code, out, err = m3tune("run", place / "recipe.toml")
    assert (code, out) == (cli.INTERRUPTED, "")
    assert "interrupted; run the same command again" in err


# --- what is printed for people and for programs


def test_a_path_in_a_message_is_never_broken(tmp_path):
    missing = tmp_path / ("long-" * 20) / "recipe.toml"
    process = start("run", missing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == cli.USER_ERROR
    assert str(missing) in err


@pytest.mark.parametrize(("word", "code"), [("better", 0), ("no worse", 1), ("inconclusive", 1), ("worse", 1)])
def test_the_verdict_is_the_exit_code_and_json_the_only_output(m3tune, place, monkeypatch, word, code):
    result = pipeline.Verdict("nDCG@10", 0.1, 0.2, 0.1, (0.05, 0.15), 0.01, 9, word, "tuned", 3)
    monkeypatch.setattr(pipeline, "run", lambda *_: result)
    ended, out, err = m3tune("run", place / "recipe.toml", "--json")
    assert (ended, err) == (code, "")
    assert json.loads(out)["verdict"] == word
    assert out.count("\n") == 1


def test_evaluate_prints_a_table_or_one_json_object(m3tune, place, tmp_path):
    arguments = ["evaluate", place / "encoder", place / "data.json", "--out", tmp_path / "e", "--metric", "nDCG@10"]
    code, out, err = m3tune(*arguments, "--json")
    assert (code, err) == (cli.FINE, "")
    means = json.loads(out)
    assert {name: list(heads) for name, heads in means.items()} == {"encoder": ["dense"], "bm25": ["bm25"]}
    values = [of_head for heads in means.values() for of_head in heads.values()]
    assert all(set(of_head) == {"nDCG@10"} and 0 < of_head["nDCG@10"] <= 1 for of_head in values)
    code, out, err = m3tune(*arguments)
    assert code == cli.FINE
    assert "nDCG@10" in out
    assert f"{means['bm25']['bm25']['nDCG@10']:.3f}" in out
    assert "Read as llamaindex" in err
