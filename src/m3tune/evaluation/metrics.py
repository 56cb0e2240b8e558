"""Ranking metrics: ir-measures' measures over our runs, one value per query."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence

import ir_measures

from m3tune.errors import RecipeError, nearest
from m3tune.types import Qrels, Run

PerQuery = Mapping[str, Mapping[str, float]]
"""metric name -> query id -> value, over the same queries for every metric."""

_EXAMPLE = "write a name of ir-measures, such as nDCG@10, RR@10, AP@100, Success@1, Recall@100 or P(rel=2)@5"
_FORM = re.compile(r"(?P<measure>\w+)(\((?P<params>.*)\))?(@(?P<at>[\d.]+))?")


def parse_metrics(names: Iterable[str]) -> list[ir_measures.Measure]:
    """The measures that the names stand for, in order; aliases such as Recall@100 (R@100) and MRR@10 (RR@10) count.

    Raises RecipeError for a name that is unknown, incomplete, or needs a package that is not installed.
    """
    return [_parse(name) for name in names]


def evaluate_run(run: Run, qrels: Qrels, metrics: Sequence[str]) -> PerQuery:
    """Each metric of each query of `qrels`, under the names given and in the order of `qrels`.

    A query without results, or without a relevant passage, counts zero; queries that are not in `qrels` are ignored.
    A grade of zero or below is not relevant; nDCG gains are the grades (Järvelin & Kekäläinen 2002, as trec_eval).
    Raises RecipeError as `parse_metrics`.
    """
    measures = dict(zip(metrics, parse_metrics(metrics), strict=True))
    # pytrec_eval knows neither negative grades nor empty queries.
    judged = {query_id: _not_negative(grades) for query_id, grades in qrels.items() if grades}
    ranked = {query_id: _rank_scores(run[query_id]) for query_id in judged if run.get(query_id)}
    values = {measure: dict.fromkeys(qrels, 0.0) for measure in measures.values()}
    if ranked:
        for result in ir_measures.iter_calc(list(values), judged, ranked):
            values[result.measure][result.query_id] = float(result.value)
    return {name: values[measure] for name, measure in measures.items()}


def mean(per_query: PerQuery) -> dict[str, float]:
    """The mean over queries of each metric; zero where there are no queries."""
    return {name: sum(values.values()) / max(1, len(values)) for name, values in per_query.items()}


def _rank_scores(hits: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Passage id -> a score that falls by one with every rank.

    trec_eval sorts by score again and breaks ties by passage id; the run's own scores would not keep the run's order.
    """
    return {passage_id: float(-rank) for rank, (passage_id, _) in enumerate(hits)}


def _not_negative(grades: Mapping[str, int]) -> dict[str, int]:
    return {passage_id: max(0, grade) for passage_id, grade in grades.items()}


def _parse(name: str) -> ir_measures.Measure:
    """One measure from its name.

    Not `ir_measures.parse_measure`: up to 0.4.3 it uses parts of `ast` that Python 3.14 no longer has.
    """
    form = _FORM.fullmatch(name.strip())
    if form is None:
        raise RecipeError(f"{name!r} is not the name of a metric", where="metrics", fix=_EXAMPLE)
    known = ir_measures.measures.registry
    if form["measure"] not in known:
        raise RecipeError(f"unknown metric {name!r}", where="metrics", fix=_suggestion(name, form["measure"]))
    measure = known[form["measure"]]
    try:
        measure = measure(**_parameters(form["params"] or ""))
        measure = measure @ ast.literal_eval(form["at"]) if form["at"] else measure
        measure.validate_params()
    except (AssertionError, SyntaxError, ValueError) as error:
        reason = str(error) if form["at"] else "it needs a cutoff, or a parameter is wrong"
        raise RecipeError(f"metric {name!r}: {reason}", where="metrics", fix=_EXAMPLE) from None
    if measure.params.get("cutoff") == 0:
        raise RecipeError(f"metric {name!r} looks at no rank at all", where="metrics", fix=_EXAMPLE)
    if not ir_measures.DefaultPipeline.supports(measure):
        raise RecipeError(f"metric {name!r} needs a package that is not installed", where="metrics", fix=_EXAMPLE)
    return measure


def _parameters(text: str) -> dict[str, object]:
    """The keyword arguments in `text`, such as `rel=2`, literals only. Raises SyntaxError or ValueError."""
    call = ast.parse(f"measure({text})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError("parameters are written as key=value")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


def _suggestion(name: str, measure: str) -> str:
    """What to write instead of a metric whose measure is unknown: the nearest known one, and an example."""
    # Of several spellings the first registered is ir-measures' own.
    by_lower_case = {known.lower(): known for known in reversed(ir_measures.measures.registry)}
    close = nearest(measure.lower(), by_lower_case)
    return f"did you mean {name.replace(measure, by_lower_case[close], 1)!r}? {_EXAMPLE}" if close else _EXAMPLE
