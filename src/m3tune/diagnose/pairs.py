"""Rules about which passage answers which query, and which is said not to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from m3tune.data.collection import Collection
from m3tune.diagnose.context import Context
from m3tune.diagnose.overlap import copied_share
from m3tune.diagnose.wording import found, share, shown
from m3tune.errors import excerpt
from m3tune.types import Finding

_COPIED = 0.8  # share of a query's n-grams in its positive from which it is nearly copied
_MANY_COPIED = 0.05
_FEW_WITH_NEGATIVES = 5
_SAME_FOR_MOST = 0.5
_FEW_IN_A_SET = 20
_LABELS = 0.05  # distinct positives a query below which positives are labels


def positives_among_negatives(collection: Collection, _: Context) -> Iterator[Finding]:
    """A text that is given as relevant and as not relevant to one question, under whatever ids."""
    query_of, passage_of = collection.canonical_query, collection.canonical_passage
    relevant = {(query_of[q], passage_of[p]) for q, p, grade, _ in collection.judgments if grade > 0}
    pairs = [n for n in collection.negatives if (query_of[n.query_id], passage_of[n.passage_id]) in relevant]
    if pairs:
        yield found(
            "positive-among-negatives",
            "error",
            "given negatives",
            f"{share(len(pairs), len(collection.negatives))} are a positive of the same query",
            "drop them from the negatives: --fix does",
            (_pair(collection, n.query_id, n.passage_id) for n in pairs),
            count=len(pairs),
            of=len(collection.negatives),
        )


def near_positives_among_negatives(collection: Collection, context: Context) -> Iterator[Finding]:
    """A negative that is nearly a positive of the same question."""
    query_of, first_of = collection.canonical_query, context.near_passages.first_of
    canonical = collection.canonical_passage
    positives: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for query_id, passage_id, grade, _score in collection.judgments:
        if grade > 0:
            positives[query_of[query_id]][first_of(passage_id)].add(canonical[passage_id])
    pairs = []
    for negative in collection.negatives:
        alike = positives[query_of[negative.query_id]].get(first_of(negative.passage_id))
        if alike and canonical[negative.passage_id] not in alike:
            pairs.append(negative)
    if pairs:
        yield found(
            "near-positive-among-negatives",
            "warning",
            "given negatives",
            f"{share(len(pairs), len(collection.negatives))} are a near-duplicate of a positive of the same query",
            "drop them from the negatives: --fix does; or judge them relevant",
            (_pair(collection, n.query_id, n.passage_id) for n in pairs),
            count=len(pairs),
            of=len(collection.negatives),
        )


def conflicting_labels(collection: Collection, _: Context) -> Iterator[Finding]:
    """One question and one passage with different grades, under whatever ids."""
    query_of, passage_of = collection.canonical_query, collection.canonical_passage
    grades: dict[tuple[str, str], int] = {}
    conflicts: dict[tuple[str, str], set[int]] = {}
    for query_id, passage_id, grade, _score in collection.judgments:
        pair = (query_of[query_id], passage_of[passage_id])
        first = grades.setdefault(pair, grade)
        if first != grade:
            conflicts.setdefault(pair, {first}).add(grade)
    if conflicts:
        opposite = sum(min(of_pair) <= 0 < max(of_pair) for of_pair in conflicts.values())
        both = f"; {opposite:,} are relevant and not relevant at once" if opposite else ""
        yield found(
            "conflicting-labels",
            "error" if opposite else "warning",
            "judgments",
            f"{share(len(conflicts), len(grades))} pairs have several grades{both}",
            "decide which grade holds; --fix keeps the highest of one pair of ids",
            (
                f"grades {', '.join(map(str, sorted(of_pair)))}: {_pair(collection, *pair)}"
                for pair, of_pair in conflicts.items()
            ),
            count=len(conflicts),
            of=len(grades),
            relevant_and_not=opposite,
        )


def queries_without_positive(collection: Collection, _: Context) -> Iterator[Finding]:
    """Queries that can neither train nor judge."""
    without = [query_id for query_id in collection.queries if query_id not in collection.positives]
    if without:
        every = len(without) == len(collection.queries)
        yield found(
            "query-without-positive",
            "error" if every else "warning",
            "queries",
            f"{share(len(without), len(collection.queries))} have no relevant passage: they train and measure nothing",
            "judge a passage relevant to each"
            + (
                "; check that ids of the judgments are those of the texts"
                if every
                else ", or leave them out: --fix does"
            ),
            (shown(collection.queries[query_id]) for query_id in without),
            count=len(without),
            of=len(collection.queries),
        )


def passages_never_relevant(collection: Collection, _: Context) -> Iterator[Finding]:
    """Passages that answer no query: what a corpus is mostly made of, unless something was lost."""
    relevant = {passage_id for passage_ids in collection.positives.values() for passage_id in passage_ids}
    count = len(collection.passages) - len(relevant)
    if count and relevant:
        yield found(
            "passage-never-relevant",
            "note",
            "passages",
            f"{share(count, len(collection.passages))} are relevant to no query",
            "nothing: they make the search as hard as it is in use; many more of them than in use make it harder",
            (shown(passage) for passage in collection.passages.values() if passage.id not in relevant),
            count=count,
            of=len(collection.passages),
        )


def copied_queries(collection: Collection, _: Context) -> Iterator[Finding]:
    """Questions that are a piece of their own answer: any word search finds it, so nothing is learned or measured."""
    shares: dict[str, tuple[float, str]] = {}
    for query_id, passage_ids in collection.positives.items():
        text = collection.queries[query_id].text
        shares[query_id] = max((copied_share(text, collection.passages[p].full_text), p) for p in passage_ids)
    copied = {query_id: passage_id for query_id, (part, passage_id) in shares.items() if part >= _COPIED}
    if copied:
        whole = sum(shares[query_id][0] == 1 for query_id in copied)
        yield found(
            "copied-query",
            "warning" if len(copied) >= _MANY_COPIED * len(shares) else "note",
            "queries",
            f"{share(len(copied), len(shares))} are taken from their positive, {whole:,} of them word for word",
            "ask as people ask; for generated questions, forbid the passage's own sentences in the prompt",
            (_pair(collection, query_id, passage_id) for query_id, passage_id in copied.items()),
            count=len(copied),
            of=len(shares),
            word_for_word=whole,
        )


def same_negatives(collection: Collection, _: Context) -> Iterator[Finding]:
    """Given negatives that hardly differ between queries; sets of classification data are meant to be so."""
    labels = {q for of_set in collection.sets.values() if not of_set.in_batch_negatives for q in of_set.query_ids}
    given = {q: frozenset(p) for q, p in collection.given_negatives.items() if q not in labels}
    if len(given) < _FEW_WITH_NEGATIVES:
        return
    ((most, queries),) = Counter(given.values()).most_common(1)
    distinct = len(frozenset().union(*given.values()))
    if queries >= _SAME_FOR_MOST * len(given):
        what = f"{share(queries, len(given))} queries with negatives have the very same {len(most):,}"
    elif distinct < len(given):
        what = f"{len(given):,} queries share {distinct:,} distinct negatives"
    else:
        return
    yield found(
        "same-negatives",
        "warning",
        "given negatives",
        what,
        "mine negatives for each query, or train on the other passages of the batch; for classification rows, name the "
        "file so that it ends in no_in_batch_neg",
        (shown(collection.passages[passage_id]) for passage_id in sorted(most)),
        count=queries,
        distinct_negatives=distinct,
        queries=len(given),
    )


def labels_as_passages(collection: Collection, _: Context) -> Iterator[Finding]:
    """A handful of positives for many queries, where other queries' positives count as negatives."""
    sets = {name: of_set.query_ids for name, of_set in collection.sets.items() if of_set.in_batch_negatives}
    for name, query_ids in (sets if collection.sets else {"": tuple(collection.queries)}).items():
        judged = [query_id for query_id in query_ids if query_id in collection.positives]
        positives = Counter(collection.canonical_passage[p] for q in judged for p in collection.positives[q])
        if len(judged) >= _FEW_IN_A_SET and len(positives) <= max(1, _LABELS * len(judged)):
            yield found(
                "labels-as-passages",
                "warning",
                f"set {name}" if name else "judgments",
                f"{len(judged):,} queries have {len(positives):,} distinct positives: labels rather than passages",
                "train classification data without in-batch negatives: name its file so that it ends in "
                "no_in_batch_neg, or set train.in_batch_negatives = false",
                (f"{shown(collection.passages[p])} ({count:,} queries)" for p, count in positives.most_common(3)),
                count=len(positives),
                queries=len(judged),
            )


def differing_sets(collection: Collection, _: Context) -> Iterator[Finding]:
    """Sources that say they train in different ways, or queries with and without an instruction of their own."""
    ways: dict[str, list[str]] = defaultdict(list)
    for name, of_set in collection.sets.items():
        ways[_way(of_set.in_batch_negatives, of_set.options)].append(name)
    prompts = Counter(query.prompt for query in collection.queries.values())
    examples = [f"{way}: {', '.join(names)}" for way, names in ways.items()] if len(ways) > 1 else []
    if len(prompts) > 1:
        examples += [
            f"{count:,} queries with {'no prompt' if prompt is None else f'the prompt {excerpt(prompt)}'}"
            for prompt, count in prompts.most_common(3)
        ]
    if examples:
        yield found(
            "differing-sets",
            "note",
            "sets",
            "the queries differ in how they say they train"
            if len(ways) > 1
            else f"the queries have {len(prompts):,} different prompts, none counted as one",
            "nothing where that is meant; otherwise give all of them the same prompt and options",
            examples,
            count=max(len(ways), len(prompts)),
            ways=dict(ways),
        )


def _way(in_batch_negatives: bool, options: Mapping[str, str | int]) -> str:
    parts = ["in-batch negatives" if in_batch_negatives else "no in-batch negatives"]
    return ", ".join([*parts, *(f"{key} {value}" for key, value in sorted(options.items()))])


def _pair(collection: Collection, query_id: str, passage_id: str) -> str:
    return f"{shown(collection.queries[query_id])} | {shown(collection.passages[passage_id])}"
