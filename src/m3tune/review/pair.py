"""Everything that a reviewer sees of one pair, for the page and the terminal alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from m3tune.negatives.suspicion import excess, teacher_disagrees
from m3tune.report import words
from m3tune.report.marks import Shown, named, show, words_of
from m3tune.review.project import Project
from m3tune.types import Candidate

_MOST_POSITIVES = 5


class PassageView(NamedTuple):
    """A passage with the words it shares with the query marked."""

    title: Shown
    text: Shown


class PairView(NamedTuple):
    """A pair, the query's known answers beside it, and (name, value) of what mining knows of the candidate."""

    query: Shown
    candidate: PassageView
    positives: list[PassageView]
    positives_left_out: int
    facts: list[tuple[str, str]]


def view(project: Project, candidate: Candidate) -> PairView:
    """What to show of a candidate. Marked in the query is what the candidate has of it."""
    collection = project.collection
    query = collection.queries[candidate.query_id].text
    asked = words_of(query)
    positives = collection.positives.get(candidate.query_id, ())
    return PairView(
        show(query, asked & words_of(collection.passages[candidate.passage_id].full_text)),
        _passage(project, candidate.passage_id, asked),
        [_passage(project, passage_id, asked) for passage_id in positives[:_MOST_POSITIVES]],
        len(positives[_MOST_POSITIVES:]),
        _facts(candidate),
    )


def _passage(project: Project, passage_id: str, asked: Collection[str]) -> PassageView:
    passage = project.collection.passages[passage_id]
    return PassageView(show(passage.title, asked), show(passage.text, asked))


def _facts(candidate: Candidate) -> list[tuple[str, str]]:
    facts = [
        ("rank", f"{candidate.rank:,} by {named(', '.join(candidate.sources))}"),
        ("score", f"{words.number(candidate.score)}, {_against(excess(candidate))}"),
        ("positive's score", words.number(candidate.positive_score)),
    ]
    if candidate.teacher is not None:
        facts.append(("teacher's score", words.number(candidate.teacher)))
        facts.append(("of the positive", words.number(candidate.positive_teacher)))
    if teacher_disagrees(candidate):
        facts.append(("doubt", "teacher and model disagree on which is better"))
    became = "chosen to train on" if candidate.chosen else "kept"
    if candidate.removed:
        became = f"removed: {named(candidate.removed)}" + ("; a soft label" if candidate.chosen else "")
    return [*facts, ("filters", became)]


def _against(share: float) -> str:
    if not share:
        return "as the positive's"
    how_far = "far" if abs(share) > 1 else f"{100 * abs(share):.1f} %"  # of a positive near zero a share says nothing
    return f"{how_far} {'above' if share > 0 else 'below'} the positive's"
