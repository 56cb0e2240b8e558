"""What is reviewed: a run's texts, its mined candidates, its verdicts, and the sample of an estimate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from m3tune.artifact import read_json, write_json
from m3tune.data.collection import Collection
from m3tune.data.prepared import is_prepared
from m3tune.data.read import read_collection
from m3tune.data.source import FILE, read_source
from m3tune.data.store import load_collection
from m3tune.errors import ArtifactError, DataError, excerpt
from m3tune.negatives.estimate import Sample, Stratum, draw_sample
from m3tune.negatives.suspicion import most_suspicious_first
from m3tune.negatives.table import CANDIDATES, read_candidates
from m3tune.negatives.verdict_store import VerdictStore
from m3tune.negatives.verdicts import read_verdicts, write_verdicts
from m3tune.types import Candidate, PairVerdict

SHOWN = ("kept", "removed", "all")
NAME = "a name of printable characters"
_DATA, _NEGATIVES, _REVIEW = "data", "negatives", "review"  # folders of a run; the last holds what people have said


@dataclass(frozen=True)
class Project:
    """A run as review sees it. `candidates` are without the pairs that the data itself calls relevant.

    `arguments` are those of the command line that name it, its parts elsewhere among them.
    """

    collection: Collection
    candidates: tuple[Candidate, ...]
    store: VerdictStore
    arguments: tuple[str, ...]

    def queue(self, shown: str) -> tuple[Candidate, ...]:
        """The candidates that filters kept, those that they removed, or all, the most suspicious first."""
        wanted = (c for c in self.candidates if shown == "all" or bool(c.removed) == (shown == "removed"))
        return tuple(most_suspicious_first(wanted))

    def sampled(self, sample: Sample) -> tuple[Candidate, ...]:
        """The candidates of a sample, in its order."""
        by_pair = {(c.query_id, c.passage_id): c for c in self.candidates}
        return tuple(by_pair[pair] for pair in sample.pairs)

    def sample(self) -> Sample | None:
        """The sample that was drawn from these candidates, None where none was."""
        if not self._sample_file.is_file():
            return None
        stored = read_json(self._sample_file)
        strata = [Stratum(*row[:3]) for row in stored["strata"]]
        return Sample(
            {stratum: row[3] for stratum, row in zip(strata, stored["strata"], strict=True)},
            {(query_id, passage_id): strata[number] for query_id, passage_id, number in stored["pairs"]},
        )

    def draw(self, count: int, seed: int) -> Sample:
        """The sample of an estimate: the one that is there, so that all reviewers get the same, or a new one.

        Raises DataError where one of another size or seed is there, and M3TuneError where `count` is too small.
        """
        if self._sample_file.is_file():
            stored = read_json(self._sample_file)
            if (stored["count"], stored["seed"]) != (count, seed):
                raise DataError(
                    f"a sample of {stored['count']} with seed {stored['seed']} is there",
                    where=self._sample_file,
                    fix=f"go on with --estimate {stored['count']} --seed {stored['seed']}, or move the file away",
                )
        else:
            sample = draw_sample(self.candidates, count, seed)
            numbers = {stratum: number for number, stratum in enumerate(sample.sizes)}
            write_json(
                self._sample_file,
                {
                    "count": count,
                    "seed": seed,
                    "strata": [[*stratum, size] for stratum, size in sample.sizes.items()],
                    "pairs": [[*pair, numbers[stratum]] for pair, stratum in sample.pairs.items()],
                },
            )
        drawn = self.sample()
        assert drawn is not None
        return drawn

    def export_verdicts(self, file: Path) -> int:
        """Write every verdict that stands; returns how many."""
        standing = self.store.standing()
        write_verdicts(standing, file)
        return len(standing)

    def import_verdicts(self, file: Path) -> dict[str, int]:
        """Add a file's verdicts; returns counts as `VerdictStore.take_in`. Raises DataError, and then adds none."""
        verdicts = read_verdicts(file)
        self._check_known(verdicts, file)
        return self.store.take_in(verdicts)

    def _check_known(self, verdicts: Iterable[PairVerdict], file: Path) -> None:
        for number, verdict in enumerate(verdicts, start=1):
            where, fix = f"{file}, verdict {number}", "export the verdicts of the data that this run was made from"
            if verdict.query_id not in self.collection.queries:
                raise DataError(f"the data has no query {excerpt(verdict.query_id)}", where=where, fix=fix)
            if verdict.passage_id not in self.collection.passages:
                raise DataError(f"the data has no passage {excerpt(verdict.passage_id)}", where=where, fix=fix)
            if not is_name(verdict.reviewer):
                raise DataError("the verdict says not whose it is", where=where, fix=f'"reviewer": {NAME}')

    @cached_property
    def _sample_file(self) -> Path:
        """Named by the candidates: after mining again, a sample of the old ones is not taken for one of the new."""
        digest = hashlib.sha256()
        for candidate in self.candidates:
            digest.update(f"{(candidate.query_id, candidate.passage_id, candidate.removed)}".encode())
        return self.store.file.with_name(f"sample-{digest.hexdigest()[:12]}.json")


def open_project(run: Path, data: Path | None = None, negatives: Path | None = None) -> Project:
    """The project of a run folder, whose parts may lie elsewhere. Verdicts are kept in the run, in `review`.

    `run` may be what `m3tune mine` wrote by itself, which knows where its data is. Its verdicts lie beside it, for
    mining again replaces the folder.
    Raises ArtifactError where a part is missing, or candidates name texts that the data has not.
    """
    named = {"--data": data, "--candidates": negatives}
    arguments = [str(run), *(word for option, path in named.items() if path for word in (option, str(path)))]
    alone = (run / CANDIDATES).is_file()
    place = run.with_name(f"{run.name}.{_REVIEW}") if alone else run / _REVIEW
    negatives = negatives or (run if alone else run / _NEGATIVES)
    told = data is None and alone and (run / FILE).is_file()
    collection = read_source(run) if told else _texts(data or run / _DATA)
    candidates = read_candidates(negatives)
    for candidate in candidates:
        if candidate.query_id not in collection.queries or candidate.passage_id not in collection.passages:
            raise ArtifactError(
                f"a pair that the data has not: {excerpt(candidate.query_id)}, {excerpt(candidate.passage_id)}",
                where=negatives / CANDIDATES,
                fix="mine from this data again, or name the data it was mined from with --data",
            )
    unknown = tuple(c for c in candidates if c.passage_id not in collection.positives.get(c.query_id, ()))
    return Project(collection, unknown, VerdictStore(place / "verdicts.sqlite"), tuple(arguments))


def _texts(data: Path) -> Collection:
    """The collection in prepared data or in any data that m3tune reads."""
    if is_prepared(data):
        return load_collection(data)
    if not data.exists():
        raise ArtifactError("no data here", where=data, fix="name a run's folder, or the data with --data")
    return read_collection(str(data))[0]


def is_name(reviewer: str) -> bool:
    """Whether this can be a reviewer's name: it is shown in terminals, so it holds no controls and no line breaks."""
    return bool(reviewer.strip()) and reviewer.isprintable()
