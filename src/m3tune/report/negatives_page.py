"""The page about mined negatives: what was kept and removed and why, scores, other thresholds, examples."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from m3tune.artifact import MANIFEST, read_json
from m3tune.negatives.summary import rule_in_words
from m3tune.report.charts import score_chart
from m3tune.report.html import environment, write_page

PAGE, SUMMARY = "negatives.html", "summary.json"
_TEMPLATE = "negatives.html.j2"


def write_negatives_page(folder: Path) -> Path:
    """Write `negatives.html` into a directory of mined negatives; returns its path. Raises ArtifactError."""
    manifest, facts = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    histograms = facts["histograms"]
    page = folder / PAGE
    shown = {
        **facts,
        "counts": manifest["counts"],
        "finished": manifest["finished"],
        "version": manifest["versions"].get("m3tune", ""),
        "rule": rule_in_words(facts["rule"]),
        "chart": Markup(score_chart(histograms["edges"], histograms["counts"], title="Scores")),
        "groups": list(histograms["counts"]),
    }
    write_page(page, environment().get_template(_TEMPLATE).render(shown))
    return page
