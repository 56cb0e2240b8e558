"""Each code has a page with the four sections, and the index names them all."""

from pathlib import Path

import pytest

from m3tune.diagnose.doctor.registry import ORDER

PAGES = Path(__file__).parents[2] / "docs/findings"
SECTIONS = ["## Meaning", "## Example", "## Why it hurts", "## Fix"]


def test_the_pages_are_those_of_both_registries():
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} == set(ORDER)


@pytest.mark.parametrize("code", ORDER)
def test_a_page_has_its_sections_and_stands_in_the_index(code):
    page = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {code}\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == SECTIONS
    assert all(part.strip() for part in page.split("## ")[1:])
    assert f"| [{code}]({code}.md) |" in (PAGES / "README.md").read_text(encoding="utf-8")
