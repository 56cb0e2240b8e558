"""A model in the reviewer's place: the same queue, verdicts marked as a model's, pairs it has judged skipped."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from m3tune.errors import M3TuneError
from m3tune.negatives.verdict_store import of_one
from m3tune.progress import track
from m3tune.review.project import Project
from m3tune.types import Candidate, Judged, PairVerdict

KEY_VARIABLE = "M3TUNE_JUDGE_KEY"

Texts = tuple[str, str]


@dataclass(frozen=True)
class Judge:
    """A name under which verdicts are kept, and what turns (query, passage) texts into words, one after the other."""

    name: str
    words: Callable[[Iterable[Texts]], Iterator[Judged]]


def open_judge(spec: str, threshold: float, chat_model: str | None) -> Judge:
    """The judge that `spec` names: an endpoint by its address, anything else a cross-encoder. Raises M3TuneError.

    A cross-encoder calls a passage relevant whose score, the sigmoid of its logit, is `threshold` or more. It
    is a part of the name: another threshold makes another judge.
    """
    if spec.startswith(("http://", "https://")):
        from m3tune.negatives.chat import ChatModel

        if not chat_model:
            raise M3TuneError("an endpoint serves several models", where="--judge-model", fix="name one of them")
        chat = ChatModel(spec, chat_model, os.environ.get(KEY_VARIABLE, ""))
        return Judge(chat_model, lambda texts: (chat.judge(*pair) for pair in texts))
    from m3tune.negatives.cross_encoder import load_cross_encoder

    encoder = load_cross_encoder(spec)
    # At exactly 0 or 1 the logit would be infinite: all are relevant, or none.
    least = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.copysign(math.inf, threshold - 0.5)
    return Judge(
        f"{spec} at {threshold:g}",
        lambda texts: ("relevant" if score >= least else "not relevant" for score in encoder.scores(texts)),
    )


def judge_all(project: Project, queue: Iterable[Candidate], judge: Judge) -> dict[str, int]:
    """Put every pair that this judge has not judged yet to it; returns how many it called what, and skipped.

    Each verdict is on disk before the next is asked for.
    """
    judged = {(v.query_id, v.passage_id) for v in of_one(project.store.standing(), judge.name, "model")}
    pairs = [(candidate.query_id, candidate.passage_id) for candidate in queue]
    remaining = [pair for pair in pairs if pair not in judged]
    counts = Counter(skipped=len(pairs) - len(remaining))
    passages, queries = project.collection.passages, project.collection.queries
    texts = ((queries[query_id].text, passages[passage_id].full_text) for query_id, passage_id in remaining)
    with track("judging", len(remaining)) as advance:
        for (query_id, passage_id), word in zip(remaining, judge.words(texts), strict=True):
            project.store.add(PairVerdict(query_id, passage_id, word, judge.name, "model"))
            counts[word] += 1
            advance(1)
    return dict(counts)
