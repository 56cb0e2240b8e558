"""Every rule of the doctor by the code of what it finds, causes before what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from m3tune.diagnose.doctor import agreement, curves, labels, likeness, measuring, pressure, vectors
from m3tune.diagnose.doctor.case import Case
from m3tune.diagnose.registry import RULES
from m3tune.types import Finding

Rule = Callable[[Case], Iterable[Finding]]

# What makes the rest meaningless, then what is wrong with labels, data and settings, then what follows, then measuring.
CASE_RULES: Mapping[str, Rule] = {
    "not-finite": curves.not_finite,
    "conflicting-files": agreement.conflicting_files,
    "differing-settings": agreement.differing_settings,
    "differing-tokenizer": agreement.differing_tokenizer,
    "unknown-tokens": agreement.unknown_tokens,
    "stale-vectors": agreement.stale_vectors,
    "shuffled-labels": labels.shuffled_labels,
    "false-negatives": labels.false_negatives,
    "leakage": likeness.leakage,
    "dominant-positive": labels.dominant_positive,
    "high-learning-rate": curves.high_learning_rate,
    "low-learning-rate": curves.low_learning_rate,
    "short-warmup": curves.short_warmup,
    "differing-queries": likeness.differing_queries,
    "truncated-answers": measuring.truncated_answers,
    "low-temperature": pressure.low_temperature,
    "pushed-negatives": pressure.pushed_negatives,
    "easy-negatives": labels.easy_negatives,
    "small-batch": pressure.small_batch,
    "many-epochs": curves.many_epochs,
    "few-steps": curves.few_steps,
    "sparse-vectors-die": vectors.dead_sparse_head,
    "dense-vectors-collapse": vectors.collapse,
    "hubs": vectors.hubs,
    "overfitting": curves.overfitting,
    "small-dev": measuring.small_dev,
    "lost-gain": measuring.lost_gain,
    "small-test": measuring.small_test,
    "unjudged-passages": measuring.unjudged_passages,
    "bm25-wins": measuring.bm25_wins,
    "near-ceiling": measuring.near_ceiling,
}

_DATA_CAUSES = ("labels-as-passages", "positive-template", "corpus-template")  # findings of the data that explain a run
_SAID_BETTER = {"leaked-query", "near-leaked-query"}  # of the split that was used: leakage
_SAID_OF_RUNS = {"few-queries"}  # of a run, small-test and small-dev know more
_FEW = 0.05  # share of what a finding of the data is about under which it explains no run

_BEFORE_LABELS = "shuffled-labels"
_BEFORE_SYMPTOMS = "sparse-vectors-die"


def _causes_first() -> tuple[str, ...]:
    """Every code in the order of the report: findings of the data stand among those of the case."""
    order: list[str] = []
    for code in CASE_RULES:
        if code == _BEFORE_LABELS:
            order += _DATA_CAUSES
        if code == _BEFORE_SYMPTOMS:
            order += [other for other in RULES if other not in _DATA_CAUSES]
        order.append(code)
    return tuple(order)


ORDER = _causes_first()


def case_findings(case: Case) -> tuple[Finding, ...]:
    """What every rule finds, with what the check of the data found: the likeliest cause first, notes last."""
    found = [finding for rule in CASE_RULES.values() for finding in rule(case)] + [*_of_data(case)]
    return tuple(sorted(found, key=lambda finding: (finding.severity == "note", ORDER.index(finding.code))))


def _of_data(case: Case) -> Iterable[Finding]:
    """The check's errors and warnings, as notes where they touch too little to explain how a run came out."""
    for finding in case.data_findings:
        if finding.severity == "note" or finding.code in _SAID_BETTER | (_SAID_OF_RUNS if case.is_run else set()):
            continue
        count, total = finding.evidence.get("count", 0), finding.evidence.get("of")
        yield replace(finding, severity="note") if total and count < _FEW * total else finding
