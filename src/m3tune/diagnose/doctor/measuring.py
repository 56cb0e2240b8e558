"""Rules about the measurement: what it can show, what it does not know, and what it says about the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from m3tune.diagnose.doctor.case import Case, command
from m3tune.diagnose.wording import found, share, shown
from m3tune.evaluation.compare import document_groups, paired_differences
from m3tune.evaluation.select import LAST, TUNED, folder_of
from m3tune.evaluation.significance import paired_bootstrap, queries_needed, smallest_shown
from m3tune.types import Finding, Run

_RANKS = 10
_SPREAD = 0.3  # standard deviation over queries of a metric's difference, as for few-queries
_FEW_DEV = 30
_MANY_UNJUDGED = 1 / 3  # share of queries with a passage above the positive that nobody judged
_CEILING = 0.95
_LOST = 0.05  # of the metric, by queries whose passages are cut
_FEW_CUT, _P_VALUE = 10, 0.05
_RESAMPLES = 2000


def small_test(case: Case) -> Iterator[Finding]:
    """An evaluation with too few queries to show the difference that was measured, with the number needed."""
    verdict = case.verdict
    if verdict.get("verdict") != "inconclusive" or not {"base", "tuned"} <= set(case.measured):
        return
    before, after = (case.measured[name].per_query[case.metric] for name in ("base", "tuned"))
    groups = document_groups(case.collection.qrels(before), case.similar.passages.first)
    needed = queries_needed(*paired_differences(before, after, groups))
    low, high = verdict["ci95"]
    told = (
        f"; about {needed:,} would show a difference of this size, if it is real, four times in five" if needed else ""
    )
    more = f"about {max(0, needed - len(before)):,} more test queries" if needed else "more test queries"
    yield found(
        "small-test",
        "warning",
        "test queries",
        f"{len(before):,} queries cannot tell the models apart: {case.metric} {verdict['difference']:+.3f} "
        f"[{low:.3f}, {high:.3f}]{told}",
        f"judge {more}; or give the test a larger share: "
        + case.again(f"data.test={min(0.5, 2 * case.recipe.data.test):g}"),
        count=len(before),
        needed=needed,
    )


def small_dev(case: Case) -> Iterator[Finding]:
    """So few development queries that chance chooses the checkpoint, where any is chosen."""
    queries = len(case.split.dev)
    if case.selection and case.recipe.select.rule != LAST and queries < _FEW_DEV:
        yield found(
            "small-dev",
            case.hint,
            "development queries",
            f"{queries:,} queries choose the checkpoint; a difference in {case.metric} below about "
            f"{smallest_shown(max(1, queries), _SPREAD):.2f} is chance",
            case.again(f"data.dev={min(0.5, 2 * case.recipe.data.dev):g}"),
            count=queries,
        )


def lost_gain(case: Case) -> Iterator[Finding]:
    """A gain on development data that the test does not confirm."""
    selection, verdict = case.selection, case.verdict
    unchosen = selection.get("chosen") == "base" or case.recipe.select.rule == LAST
    if unchosen or not selection or verdict.get("verdict") != "worse":
        return
    dev = (Path("base", "dev"), Path("select", folder_of(selection.get("chosen", TUNED))))
    yield found(
        "lost-gain",
        "warning",
        "dev and test queries",
        f"dev {case.metric} rose from {selection['base']:.3f} to {selection['tuned']:.3f}, on the test it fell by "
        f"{-verdict['difference']:.3f}: the checkpoint was lucky, or dev is not like the test",
        f"see whether train, dev and test are alike in {case.folder / 'data' / 'data.html'}; what dev said: "
        + command("compare", *(str(case.folder / at) for at in dev), "--data", case.data)
        + "; more dev queries: "
        + case.again(f"data.dev={min(0.5, 2 * case.recipe.data.dev):g}"),
        count=int(verdict["queries"]),
        dev_gain=round(selection["tuned"] - selection["base"], 5),
        test_gain=verdict["difference"],
    )


def unjudged_passages(case: Case) -> Iterator[Finding]:
    """Passages without a judgment that every ranking puts above the first relevant one: perhaps a hole."""
    names = [name for name in ("tuned", "base", "bm25") if name in case.measured]
    if "tuned" not in names or len(names) < 2:
        return
    grades = case.collection.grades
    above: dict[str, list[str]] = {}
    for query_id in case.measured["tuned"].run:
        unjudged = [_above_positive(case.measured[name].run, query_id, grades.get(query_id, {})) for name in names]
        both = [p for p in unjudged[0] if all(p in of for of in unjudged[1:])]
        if both:
            above[query_id] = both
    run = case.measured["tuned"].run
    places = [hit.passage_id in grades.get(q, {}) for q, hits in run.items() for hit in hits[:_RANKS]]
    if above:
        many = len(above) >= _MANY_UNJUDGED * len(run)
        passages, queries = case.collection.passages, case.collection.queries
        yield found(
            "unjudged-passages",
            case.hint if many else "note",
            "judgments",
            f"for {share(len(above), len(run))} test queries {', '.join(names)} all put a passage that nobody judged "
            f"above the relevant one; {np.mean(places):.0%} of the first {_RANKS} places are judged",
            "judge the pairs below: where many of them are relevant, the metric punishes finding them; add the "
            f"relevant ones to the judgments of {case.recipe.data.path}, then {case.again()}",
            (f"{shown(queries[q])} | {shown(passages[p[0]])}" for q, p in above.items()),
            count=len(above),
            of=len(run),
            judged=round(float(np.mean(places)), 4),
            pairs=[{"query_id": q, "passage_id": p[0]} for q, p in list(above.items())[:100]],
        )


def bm25_wins(case: Case) -> Iterator[Finding]:
    """BM25 finds more than the chosen model, beyond chance."""
    if not {"tuned", "bm25"} <= set(case.measured):
        return
    tuned, words = (case.measured[name].per_query[case.metric] for name in ("tuned", "bm25"))
    groups = document_groups(case.collection.qrels(tuned), case.similar.passages.first)
    differences, clusters = paired_differences(tuned, words, groups)
    low, high = paired_bootstrap(differences, clusters, _RESAMPLES, 0)
    if low > 0:
        yield found(
            "bm25-wins",
            case.hint,
            "test queries",
            f"BM25, which needs no model, has {case.metric} {case.mean('bm25'):.3f}, the tuned model "
            f"{case.mean('tuned'):.3f}; difference {differences.mean():.3f} [{low:.3f}, {high:.3f}]",
            "start from an encoder that knows this language and domain, or let words count too: "
            + case.again('model.new_heads=["sparse"]'),
            count=len(differences),
            difference=round(float(differences.mean()), 5),
        )


def near_ceiling(case: Case) -> Iterator[Finding]:
    """A base model that leaves nothing to gain on these queries."""
    base = case.mean("base")
    if base is not None and base >= _CEILING:
        yield found(
            "near-ceiling",
            case.hint,
            "test queries",
            f"the untuned model has {case.metric} {base:.3f} already: what could be gained is {1 - base:.3f}",
            "measure on harder questions, as people ask them, and among all the passages that are searched in use; "
            "keep the untuned model until then; what it finds now: "
            + command("evaluate", case.recipe.model.path, case.data, "--split", "test"),
            count=len(case.measured["base"].per_query[case.metric]),
            base=round(base, 5),
        )


def truncated_answers(case: Case) -> Iterator[Finding]:
    """Queries whose relevant passages are all longer than the model reads, and do worse than the others."""
    if case.reading is None or "tuned" not in case.measured:
        return
    values = case.measured["tuned"].per_query[case.metric]
    cut = np.array([case.reading.cut.get(query_id, False) for query_id in values])
    scores = np.array(list(values.values()))
    if min(cut.sum(), (~cut).sum()) < _FEW_CUT:
        return
    lost = float(scores[~cut].mean() - scores[cut].mean())
    if lost >= _LOST and stats.mannwhitneyu(scores[~cut], scores[cut], alternative="greater").pvalue < _P_VALUE:
        limit = case.settings.get("train/model", case.settings.get("model", {})).get("passage_max_tokens", 0)
        yield found(
            "truncated-answers",
            "warning",
            "test queries",
            f"the relevant passages of {share(int(cut.sum()), len(cut))} are longer than the {limit:,} tokens that are "
            f"read; these have {case.metric} {scores[cut].mean():.3f}, the others {scores[~cut].mean():.3f}",
            "cut the documents into passages that fit, or " + case.again(f"model.passage_max_tokens={2 * limit}"),
            (shown(case.collection.queries[q]) for q, is_cut in zip(values, cut.tolist(), strict=True) if is_cut),
            count=int(cut.sum()),
            of=len(cut),
            lost=round(lost, 5),
        )


def _above_positive(run: Run, query_id: str, grades: Mapping[str, int]) -> list[str]:
    """Passages without a judgment among the first ten that stand above the first relevant one."""
    above = []
    for hit in run.get(query_id, ())[:_RANKS]:
        if grades.get(hit.passage_id, 0) > 0:
            break
        if hit.passage_id not in grades:
            above.append(hit.passage_id)
    return above
