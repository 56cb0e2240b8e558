"""Rankings of any system in TREC's run format: candidates to mine from and runs to evaluate, no data to train on."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

from m3tune.data.intake import Intake
from m3tune.data.trec_records import spaced_fields
from m3tune.errors import DataError, excerpt
from m3tune.types import Hit, Run

LINE = "query Q0 passage rank score tag"


def read_run(file: Path, intake: Intake | None = None) -> Run:
    """The ranking of each query in a file of lines `query Q0 passage rank score tag`, plain, gzip or zstd.

    As trec_eval has it, the score orders; the rank decides between equal scores. Bad lines go to `intake`, and are
    errors without one: a rank that is no whole number, a score that is none, a passage twice for one query. Raises
    DataError where the file cannot be read.
    """
    intake = intake or Intake(skippable=False)
    ranks: dict[str, dict[str, tuple[float, int]]] = defaultdict(dict)

    def add(fields: list[str], where: str) -> bool:
        query_id, _, passage_id, rank, score, _ = fields
        place = (-_number(score, "score", where), int(_number(rank, "rank", where)))
        if ranks[query_id].setdefault(passage_id, place) is not place:
            raise DataError(
                f"the passage {excerpt(passage_id)} stands twice for the query {excerpt(query_id)}",
                where=where,
                fix="keep its better rank",
                reason="repeated-passage",
            )
        return True

    intake.take("hit", spaced_fields(file, LINE), add)
    intake.finish()
    return {
        query_id: [Hit(passage_id, -minus) for (minus, _), passage_id in sorted((p, id_) for id_, p in places.items())]
        for query_id, places in ranks.items()
    }


def _number(text: str, name: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (name == "rank" and not number.is_integer()):
        kind = "whole" if name == "rank" else "finite"
        raise DataError(
            f"the {name} {excerpt(text)} is not a {kind} number",
            where=where,
            fix=f"write: {LINE}",
            reason=f"bad-{name}",
        )
    return number
