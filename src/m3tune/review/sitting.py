"""One reviewer's way through a queue, the same in the page and in the terminal. What is said is on disk at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from m3tune.negatives.agreement import Pair, merged
from m3tune.negatives.estimate import Rate, Sample, estimate, exact_rate
from m3tune.negatives.verdict_store import last_within, of_one
from m3tune.review.project import Project
from m3tune.types import Candidate, Judged, PairVerdict

KEYS: dict[str, Judged] = {"r": "relevant", "n": "not relevant", "u": "unsure"}
UNDO, LEAVE = "z", "q"


@dataclass(frozen=True)
class Progress:
    """How far a reviewer is, and the share of relevant passages among what persons have judged of the queue.

    `rate` is an estimate for all kept candidates where the queue is a sample (`is_estimate`); else it is the share
    among the pairs that were shown, which are the most suspicious and not like the rest.
    """

    done: int
    total: int
    rate: Rate
    is_estimate: bool


@dataclass(frozen=True)
class Sitting:
    """A queue of candidates before one reviewer; `sample` is what an estimate is made from, where it is one."""

    project: Project
    reviewer: str
    queue: tuple[Candidate, ...]
    sample: Sample | None = None

    def next(self) -> int | None:
        """The place in the queue of the first pair that the reviewer has not judged, None at the end."""
        judged = {(verdict.query_id, verdict.passage_id) for verdict in self._mine()}
        return next((place for pair, place in self._places.items() if pair not in judged), None)

    def judge(self, place: int, word: Judged) -> None:
        """Record a verdict on the pair at a place of the queue."""
        candidate = self.queue[place]
        self.project.store.add(PairVerdict(candidate.query_id, candidate.passage_id, word, self.reviewer))

    def undo(self) -> int | None:
        """Take back the reviewer's last verdict in this queue; its place, None where there is none."""
        last = last_within(self._mine(), self._places)
        if last is None or not self.project.store.take_back(last):
            return None
        return self._places[last.query_id, last.passage_id]

    def progress(self) -> Progress:
        """How far the reviewer is, and what persons have found so far."""
        standing = self.project.store.standing()
        of_persons = [verdict for verdict in standing if verdict.kind == "person"]
        words = {pair: word for pair, word in merged(of_persons).items() if pair in self._places}
        done = sum((v.query_id, v.passage_id) in self._places for v in of_one(standing, self.reviewer, "person"))
        if self.sample is not None:
            return Progress(done, len(self.queue), estimate(self.sample, words).after, is_estimate=True)
        said = list(words.values())
        relevant, sure = said.count("relevant"), len(said) - said.count("unsure")
        return Progress(done, len(self.queue), exact_rate(relevant, sure), is_estimate=False)

    def _mine(self) -> list[PairVerdict]:
        return of_one(self.project.store.standing(), self.reviewer, "person")

    @cached_property
    def _places(self) -> dict[Pair, int]:
        return {(c.query_id, c.passage_id): place for place, c in enumerate(self.queue)}
