"""Every rule by the stable code of what it finds. docs/findings has a page for each code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from m3tune.data.collection import Collection
from m3tune.diagnose import copies, languages, pairs, records, sizes, splits, templates, texts
from m3tune.diagnose.context import Context
from m3tune.types import Finding

Rule = Callable[[Collection, Context], Iterable[Finding]]

# In the order of the report among equals: what stops a person first stands first.
RULES: Mapping[str, Rule] = {
    "rejected-records": records.rejected_records,
    "ignored-fields": records.ignored_fields,
    "empty-text": texts.empty_texts,
    "tiny-text": texts.tiny_texts,
    "garbled-text": texts.garbled_texts,
    "truncated-text": texts.cut_texts,
    "text-as-id": texts.texts_as_ids,
    "id-as-text": texts.ids_as_texts,
    "duplicate-passages": copies.duplicate_passages,
    "duplicate-queries": copies.duplicate_queries,
    "near-duplicate-passages": copies.near_duplicate_passages,
    "near-duplicate-queries": copies.near_duplicate_queries,
    "text-under-several-titles": copies.texts_under_several_titles,
    "positive-among-negatives": pairs.positives_among_negatives,
    "near-positive-among-negatives": pairs.near_positives_among_negatives,
    "conflicting-labels": pairs.conflicting_labels,
    "query-without-positive": pairs.queries_without_positive,
    "passage-never-relevant": pairs.passages_never_relevant,
    "copied-query": pairs.copied_queries,
    "same-negatives": pairs.same_negatives,
    "labels-as-passages": pairs.labels_as_passages,
    "differing-sets": pairs.differing_sets,
    "positive-template": templates.templates_of_positives,
    "corpus-template": templates.templates_of_others,
    "prompt-in-queries": templates.prompts_in_queries,
    "leaked-query": splits.leaked_queries,
    "near-leaked-query": splits.near_leaked_queries,
    "shared-passages": splits.shared_passages,
    "mixed-scripts": languages.mixed_scripts,
    "differing-scripts": languages.differing_scripts,
    "few-queries": sizes.few_queries,
}

_GRAVEST_FIRST = ("error", "warning", "note")


def findings_of(collection: Collection, context: Context) -> tuple[Finding, ...]:
    """What every rule finds, the gravest first."""
    every = [finding for rule in RULES.values() for finding in rule(collection, context)]
    return tuple(sorted(every, key=lambda finding: _GRAVEST_FIRST.index(finding.severity)))
