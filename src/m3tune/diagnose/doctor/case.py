"""What the doctor knows of a run, or of a model beside data: read once, then looked at by every rule.

Q queries, P passages, D dimension
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from m3tune.config import Recipe
from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.evaluation.store import Evaluation
from m3tune.types import Finding, Severity, Split


@dataclass(frozen=True)
class Sample:
    """Some queries, training ones first, scored against a pool of their positives and given negatives.

    `scores` are the untuned model's ("base") and BM25's ("bm25"). `relevant` holds what is known to be relevant, near
    copies of positives too; what is neither relevant nor given is another query's passage.
    """

    query_ids: tuple[str, ...]
    num_train: int
    passage_ids: tuple[str, ...]
    positive: np.ndarray  # (Q, P) bool
    given: np.ndarray  # (Q, P) bool: negatives that the query trains against
    relevant: np.ndarray  # (Q, P) bool
    scores: Mapping[str, np.ndarray]  # (Q, P) float64
    vectors: np.ndarray  # (Q, D) of the queries, by the untuned model

    @property
    def others(self) -> np.ndarray:
        """Passages of other queries, (Q, P) bool."""
        return ~self.relevant & ~self.given


@dataclass(frozen=True)
class Moved:
    """How far training went: the change of the weights over their size, and the cosine of a query before and after."""

    weights: float
    cosine: float


@dataclass(frozen=True)
class Reading:
    """How the model's tokenizer reads texts of the data."""

    unknown: float  # share of the tokens, special ones not counted
    unknown_texts: tuple[str, ...]  # some texts with unknown tokens
    differing_texts: tuple[str, ...]  # texts that the saved tokenizer reads in another way than the base's
    tokenizer_limit: int  # where the saved tokenizer cuts by itself
    cut: Mapping[str, bool]  # test query -> whether all its relevant passages are longer than the model reads


@dataclass(frozen=True)
class Case:
    """One run, or one model beside data. What is not there is empty or None, and rules that need it find nothing."""

    folder: Path
    recipe: Recipe
    collection: Collection
    similar: Similar
    split: Split
    is_run: bool = True
    data_findings: tuple[Finding, ...] = ()
    balance: Sequence[Mapping[str, Any]] = ()
    log: Sequence[Mapping[str, Any]] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Evaluation] = field(default_factory=dict)  # base, tuned, bm25 on the test queries
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # folder in the run -> settings.json
    statements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # file of the model -> what it says
    stale: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folder of vectors -> what differs
    sample: Sample | None = None
    moved: Moved | None = None
    reading: Reading | None = None

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.recipe.evaluate.main_metric

    @property
    def hint(self) -> Severity:
        """How grave something that could be better is: a warning where a run did not come out better, else a note."""
        return "warning" if self.verdict and self.verdict["verdict"] != "better" else "note"

    def mean(self, name: str) -> float | None:
        """The mean of the deciding metric of base, tuned or bm25 on the test queries."""
        values = self.measured[name].per_query.get(self.metric) if name in self.measured else None
        return sum(values.values()) / len(values) if values else None

    @property
    def data(self) -> str:
        """Where the data lies that was looked at."""
        return str(self.folder / "data") if self.is_run else self.recipe.data.path

    @property
    def look_again(self) -> str:
        """The command that examines this case once more."""
        return command("doctor", str(self.folder), *([] if self.is_run else [self.data]))

    @property
    def better_negatives(self) -> str:
        """The command by which suspected negatives are judged where they were mined, else others are mined."""
        if self.is_run and self.recipe.mine is not None:
            return "judge the mined ones: " + command("review", str(self.folder))
        mined = f"{self.folder}-mined"
        return "mine others: " + command("mine", self.data, mined, "--model", self.recipe.model.path)

    def again(self, *settings: str) -> str:
        """The next command to type: the same run with other settings, beside this one; a first one where none is."""
        chosen = [part for setting in settings for part in ("--set", setting)]
        if not self.is_run:
            begun = command("init", self.data, "--model", self.recipe.model.path)
            return f"{begun}, then {command('run', 'recipe.toml', *chosen)}"
        return command("run", str(self.folder / "resolved.toml"), "--set", f"output={self.folder}-next", *chosen)


def command(*words: str) -> str:
    """A command of m3tune as a shell takes it."""
    return shlex.join(["m3tune", *words])


def curve(log: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Step and value of each line of the log that has the figure: (n, 2) float64, not finite ones too."""
    pairs = [(line["step"], line[name]) for line in log if name in line and "step" in line]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
