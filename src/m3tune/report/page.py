"""What all pages are made with: the templates, their filters, and a file that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m3tune.report import data_words, selection_words, words
from m3tune.report.marks import Part, marked, words_of


def write_page(page: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    beside = page.with_name(page.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, page)


def environment(package: str = "m3tune.report") -> Environment:
    """The templates that lie in a package, and the words that they use."""
    made = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": words.number,
        "signed": words.signed,
        "interval": words.interval,
        "p_value": words.p_value,
        "rank": words.rank,
        "share": words.share,
        "head": words.head,
        "duration": words.duration,
        "summary": data_words.summary,
        "fate": selection_words.fate,
        "cut": words.cut,
        "words_of": words_of,
        "marked": marked,
        "parts": parts,
    }
    return made


def parts(of: Iterable[Part]) -> Markup:
    """The parts of a text as markup, all of the text escaped."""
    return Markup("").join(_AS[part.kind].format(part.text) for part in of)


_AS = {
    "plain": Markup("{}"),
    "shared": Markup("<mark>{}</mark>"),
    "sign": Markup('<bdi class="sign" title="an invisible character">{}</bdi>'),
}
