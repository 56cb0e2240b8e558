"""The page about prepared data: findings, what was kept, how alike the sides of the split are, how long the texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from m3tune.artifact import MANIFEST, read_json
from m3tune.data.prepared import BALANCE, FINDINGS, LENGTHS, load_split
from m3tune.report import data_words
from m3tune.report.charts import histogram_chart
from m3tune.report.page import environment, write_page
from m3tune.types import SIDES

_TEMPLATE = "data.html.j2"
_TONES = {"error": "bad", "warning": "amber", "note": ""}
_COUNTED = {
    "passages": "passages",
    "judgments": "judgments",
    "negatives": "given negatives",
    "passages_nearly_the_same_as_another": "passages nearly the same as an earlier one",
    "queries_nearly_the_same_as_another": "queries nearly the same as an earlier one",
    "without_positive": "queries without a relevant passage, left out",
    "in_no_given_split": "queries in no given split, left out",
}


def write_data_page(folder: Path) -> Path:
    """Write `data.html` into a directory of prepared data; returns its path. Raises ArtifactError."""
    manifest = read_json(folder / MANIFEST)
    page = folder / "data.html"
    lengths = {name: of for name, of in read_json(folder / LENGTHS).items() if of}
    counts: Mapping[str, Any] = manifest["counts"]
    balance = read_json(folder / BALANCE)
    split = load_split(folder)
    facts = {
        "headline": f"{counts['passages']:,} passages; "
        + ", ".join(f"{len(getattr(split, side)):,} {side}" for side in SIDES)
        + " queries",
        "protocol": data_words.PROTOCOLS[split.protocol],
        "finished": manifest["finished"],
        "version": manifest["versions"].get("m3tune", ""),
        "shared": data_words.shared_between_sides(counts),
        "findings": read_json(folder / FINDINGS),
        "tones": _TONES,
        "records": counts["records"],
        "ignored": counts["ignored"],
        "counts": {name: counts[key] for key, name in _COUNTED.items() if counts.get(key)},
        "balance": balance,
        "sides": [side for side in SIDES if balance and side in balance[0]],
        "tested": data_words.TESTED,
        "lengths": lengths,
        "charts": {name: Markup(histogram_chart(of, title=name)) for name, of in lengths.items()},
    }
    write_page(page, environment().get_template(_TEMPLATE).render(facts))
    return page
