"""From a collection to what the Trainer is fed: sets, examples, tokens, masks and teacher scores, all by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from m3tune.config import TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.known import KnownRelevant, known_relevant, teacher_scores
from m3tune.data.similar import Similar
from m3tune.data.tokens import Texts, tokenize
from m3tune.errors import TrainingError
from m3tune.model.encoder import Encoder
from m3tune.retrieval.encode import tokenize_queries
from m3tune.training.batches import Collator, Examples, make_examples
from m3tune.training.guide import make_guide
from m3tune.training.sets import TrainSet, check_teaching, remarks, training_sets
from m3tune.types import SOFT, Example


@dataclass(frozen=True)
class Feed:
    """What to draw batches from, how to put one together, and counts of what is in it."""

    sets: Sequence[TrainSet]
    examples: Examples
    collate: Collator
    counts: Mapping[str, Any]


def make_feed(
    encoder: Encoder,
    collection: Collection,
    similar: Similar,
    query_ids: Sequence[str],
    config: TrainConfig,
    say: Callable[[str], None],
) -> Feed:
    """The feed of `query_ids`. Raises RecipeError for sets, TrainingError for teacher scores that are not there."""
    sets = training_sets(collection, query_ids, config)
    known = known_relevant(collection, similar)
    drawn = [query_id for of_set in sets for query_id in of_set.query_ids]
    by_query = {example.query_id: example for example in make_examples(collection, drawn, known)}
    for remark in remarks(collection, sets, by_query):
        say(remark)
    check_teaching(sets, by_query, config)
    if config.negatives_per_query and not any(example.negative_ids for example in by_query.values()):
        say("the recipe asks for hard negatives, but the data brings none: only in-batch negatives are used")
    given = sum(len(collection.given_negatives.get(query_id, ())) for query_id in drawn)
    relevant = given - sum(len(example.negative_ids) for example in by_query.values())
    if relevant:
        say(f"{relevant:,} of {given:,} given negatives are known to be relevant, or a copy of what is: left out")
    examples = Examples(sets, by_query, config)
    collate = _collator(encoder, collection, known, sets, [example for example, _ in examples.drawn_from], config)
    counts: dict[str, Any] = {
        "queries": len(collate.query_tokens),
        "queries_cut": collate.query_tokens.num_truncated,
        "passages": len(collate.passage_tokens),
        "passages_cut": collate.passage_tokens.num_truncated,
    }
    if len(drawn) < len(query_ids):
        counts["queries_of_sets_without_weight"] = len(query_ids) - len(drawn)
    if given:
        counts |= {"given_negatives": given, "given_negatives_known_relevant": relevant}
    if collate.teacher_scores:
        counts["queries_with_teacher_scores"] = sum(map(bool, collate.teacher_scores.values()))
    if soft := sum(negative.source == SOFT for negative in collection.negatives):
        counts["soft_labels"] = soft
    if collection.sets:
        counts["queries_by_set"] = {of_set.name: len(of_set) for of_set in sets}
    return Feed(sets, examples, collate, counts)


def guided(feed: Feed, spec: str, collection: Collection, dtype: torch.dtype, place: Path) -> Feed:
    """The same feed, whose batches bring the scores of the model that `spec` names; its vectors are kept in `place`."""
    collate = feed.collate
    passages = dict.fromkeys(passage for rows in collate.passage_rows.values() for passage in rows)
    guide = make_guide(spec, collection, list(collate.query_rows), list(passages), dtype, place)
    return replace(feed, collate=replace(collate, guide=guide))


def _collator(
    encoder: Encoder,
    collection: Collection,
    known: KnownRelevant,
    sets: Sequence[TrainSet],
    examples: Sequence[Example],
    config: TrainConfig,
) -> Collator:
    """The collator over freshly made token tables. A passage is tokenised once for each prompt that it stands after."""
    settings = encoder.settings
    query_ids = [example.query_id for example in examples]
    own_prompt = {q: _query_prompt(encoder, collection, q) for s in sets if s.symmetric for q in s.query_ids}
    rows, texts = _passage_texts(collection, examples, own_prompt, settings.passage_prompt)
    scores = _scores_to_learn(collection, query_ids) if config.distill != "none" else {}

    def text_of(row: tuple[str, str]) -> str:
        return row[0] + collection.passages[row[1]].full_text

    return Collator(
        query_tokens=tokenize_queries(encoder, collection, query_ids),
        query_rows={query_id: row for row, query_id in enumerate(query_ids)},
        passage_tokens=tokenize(Texts(text_of, texts), encoder.tokenizer, settings.passage_max_tokens),
        passage_rows=rows,
        known=known,
        passage_prompt=settings.passage_prompt,
        own_passage_prompt=own_prompt,
        without_in_batch=frozenset(q for s in sets if not s.in_batch_negatives for q in s.query_ids),
        teacher_scores=scores,
        soft_groups=_soft_groups(collection, known),
    )


def _passage_texts(
    collection: Collection, examples: Sequence[Example], own_prompt: Mapping[str, str], passage_prompt: str
) -> tuple[dict[str, dict[str, int]], list[tuple[str, str]]]:
    """Prompt -> canonical passage -> row, and the prompt and passage of each row; `own_prompt` is by query."""
    rows: dict[str, dict[str, int]] = {passage_prompt: {}}
    texts: list[tuple[str, str]] = []
    for example in examples:
        prompt = own_prompt.get(example.query_id, passage_prompt)
        of_prompt = rows.setdefault(prompt, {})
        for passage_id in (*example.positive_ids, *example.negative_ids):
            canonical = collection.canonical_passage[passage_id]
            if canonical not in of_prompt:
                of_prompt[canonical] = len(texts)
                texts.append((prompt, canonical))
    return rows, texts


def _scores_to_learn(collection: Collection, query_ids: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """The teacher's scores. Raises TrainingError where the data brings none."""
    scores = teacher_scores(collection, query_ids)
    if not any(scores.values()):
        raise TrainingError(
            "the recipe asks for distillation, but the data brings no teacher scores",
            where="train.distill",
            fix='give each row pos_scores and neg_scores, or set it to "none"',
        )
    return scores


def _soft_groups(collection: Collection, known: KnownRelevant) -> dict[str, frozenset[str]]:
    """Query id -> groups of passages nearly the same as its soft labels, without those known to be relevant."""
    groups: dict[str, set[str]] = {}
    for query_id, passage_id, source, _ in collection.negatives:
        if source == SOFT and not known.holds(query_id, passage_id):
            groups.setdefault(query_id, set()).add(known.group(passage_id))
    return {query_id: frozenset(of_query) for query_id, of_query in groups.items()}


def _query_prompt(encoder: Encoder, collection: Collection, query_id: str) -> str:
    own = collection.queries[query_id].prompt
    return encoder.settings.query_prompt if own is None else own
