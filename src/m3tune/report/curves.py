"""Small charts of what the training log says of single losses, scores and vectors, in groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from m3tune.report.charts import Line, Point, small_chart

Curves = Mapping[str, Sequence[Point]]
"""Name in the log -> [step, value] pairs."""

_HEADS = {"dense": "Dense", "sparse": "Sparse", "multi": "Multi-vector", "hybrid": "Hybrid"}
_VECTORS = (
    ("Mean cosine of two passages", ("dense_cosine",), "1 where all are the same."),
    ("Uniformity", ("dense_uniformity",), "0 where all are the same; lower is more spread."),
    ("Effective rank", ("dense_rank_share",), "Dimensions that a batch's passages use, of those they could."),
    ("Length of dense vectors", ("dense_norm",), "With one standard deviation."),
    ("Sparse weights a text", ("sparse_tokens_query", "sparse_tokens_passage"), "Tokens with a weight above zero."),
    ("Empty sparse vectors", ("sparse_empty",), "Share of a batch's texts without any weight."),
    ("Suspected negatives", ("negatives_suspected",), "Share left out by train.false_negative_margin."),
)
_NEVER_BELOW_ZERO = {"sparse_empty", "negatives_suspected"}
_LINE_NAMES = {"sparse_tokens_query": "queries", "sparse_tokens_passage": "passages"}


class SmallChart(NamedTuple):
    """A chart with its heading, its note, and the names of its lines where there are several."""

    title: str
    svg: Markup
    note: str
    lines: tuple[str, ...]


def small_multiples(curves: Curves) -> dict[str, list[SmallChart]]:
    """Heading of a group -> its charts; only what the log has, and no group without a chart."""
    groups = {
        "Losses": [_of_head(curves, head, _losses(head)) for head in _HEADS],
        "Scores of positives and negatives": [_of_head(curves, head, _scores(head)) for head in _HEADS],
        "Vectors": [_chart(curves, title, {name: _LINE_NAMES.get(name, title) for name in names}, note)
                    for title, names, note in _VECTORS if not _is_constant(curves, names)],
    }  # fmt: skip
    shown = {heading: [chart for chart in charts if chart.svg] for heading, charts in groups.items()}
    return {heading: charts for heading, charts in shown.items() if charts}


def _losses(head: str) -> dict[str, str]:
    return {f"loss_{head}": "contrastive", f"loss_self_{head}": "from the hybrid"}


def _scores(head: str) -> dict[str, str]:
    return {f"score_{head}_positive": "positives", f"score_{head}_negative": "negatives"}


def _of_head(curves: Curves, head: str, names: Mapping[str, str]) -> SmallChart:
    return _chart(curves, _HEADS[head], names, "")


def _chart(curves: Curves, title: str, names: Mapping[str, str], note: str) -> SmallChart:
    lines = list(_lines(curves, names))
    return SmallChart(
        title,
        Markup(small_chart(lines, title=title, least=0.0 if _NEVER_BELOW_ZERO & set(names) else -math.inf)),
        note,
        tuple(line.name for line in lines) if len(names) > 1 else (),
    )


def _lines(curves: Curves, names: Mapping[str, str]) -> Iterator[Line]:
    for name, shown in names.items():
        points = curves.get(name, ())
        if points:
            spread = {step: value for step, value in curves.get(f"{name}_sd", ())}
            yield Line(shown, points, [spread.get(step, 0.0) for step, _ in points] if spread else ())


def _is_constant(curves: Curves, names: Sequence[str]) -> bool:
    """Whether the one thing to show is a length that is one because vectors are brought to it."""
    return names == ("dense_norm",) and all(abs(value - 1) < 1e-4 for _, value in curves.get("dense_norm", ()))
