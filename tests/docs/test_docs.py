"""The documentation says what the program does: every command, every recipe key, every link, every README command."""

import importlib
import re
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from m3tune.cli import app
from m3tune.config import (
    DataConfig,
    EvaluateConfig,
    MineConfig,
    ModelConfig,
    Recipe,
    SearchConfig,
    SelectConfig,
    TrainConfig,
)

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "mine": MineConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "select": SelectConfig,
    "search": SearchConfig,
}
COMMANDS = get_command(app).commands
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def recipe_table() -> str:
    """The table of docs/guide/run.md, made from the recipe's own descriptions."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [
        f"| `output` | `{Recipe.model_fields['output'].default!r}` | {Recipe.model_fields['output'].description} |"
    ]
    for section, config in SECTIONS.items():
        for key, field in config.model_fields.items():
            default = "required" if field.is_required() else f"`{field.default!r}`"
            lines.append(f"| `{section}.{key}` | {default} | {field.description} |")
            for table in (inner for inner in get_args(field.annotation) if hasattr(inner, "model_fields")):
                lines += [
                    f"| `{section}.{key}.NAME.{inner}` | `{info.default!r}` | {info.description} |"
                    for inner, info in table.model_fields.items()
                ]
    return "\n".join(lines)


def test_every_recipe_key_stands_in_the_guide_with_its_default():
    page = (ROOT / "docs/guide/run.md").read_text(encoding="utf-8")
    assert recipe_table() in page, "put this into docs/guide/run.md:\n" + recipe_table()


def test_every_key_says_what_it_means():
    for config in SECTIONS.values():
        for key, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{key} has no description"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_guide_page_and_stands_in_both_readmes(command):
    page = (ROOT / f"docs/guide/{command}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# m3tune {command}\n")
    options = [o for p in COMMANDS[command].params for o in p.opts if o.startswith("--") and o != "--help"]
    for option in options:
        assert option in page or option.replace("--", "--no-") in page, f"{option} is not in the page of {command}"
    for readme in ("README.md", "README.zh-CN.md"):
        assert f"docs/guide/{command}.md" in (ROOT / readme).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_in_the_documentation_parse(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^\$ m3tune (\w+)(.*?)(?:#.*)?$", text, re.MULTILINE)
    for command, rest in shown:
        assert command in COMMANDS
        known = {o for p in COMMANDS[command].params for o in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, f"m3tune {command}{rest}"


def test_imports_shown_in_the_documentation_exist():
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    shown = [pair for text in texts for pair in re.findall(r"^from (m3tune[\w.]*) import (.+)$", text, re.MULTILINE)]
    assert len(shown) >= 5
    for module, names in shown:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"from {module} import {name}"


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\$ make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert targets == {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_nothing_waits_to_be_filled_in():
    for page in PAGES:
        assert "<!--" not in page.read_text(encoding="utf-8"), page
