"""Runs to review: prepared data with hostile texts, and a mining stage beside it."""

from m3tune.artifact import StageKey, writing
from m3tune.data.collection import Collection
from m3tune.data.prepared import STAGE, save_prepared
from m3tune.data.similar import exact_copies
from m3tune.negatives.table import write_candidates
from m3tune.types import Candidate, Judgment, Passage, Query, Split

HOSTILE = '<script>alert("1")</script> & <img src=x onerror=alert(1)>'
OVERRIDE = "abc\u202edef\u2066ghi\x1b[31m\x00"


def write_run(folder, queries=8, depth=12):
    """A run of questions with `depth` candidates each, the first of them the known answer; returns its folder."""
    asked = [Query(f"q{i}", f"What melts {HOSTILE} metal number {i}? {OVERRIDE}") for i in range(queries)]
    asked[0] = Query("q0", "中文的問題：蘋果是什麼？")
    passages = [
        Passage(f"p{i}", f"Metal number {i} melts. {HOSTILE} {OVERRIDE}", title=f"Title {i}") for i in range(40)
    ]
    passages[1] = Passage("p1", "x" * 2**20)
    passages[2] = Passage("p2", "蘋果是一種水果。")
    collection = Collection(
        {query.id: query for query in asked},
        {passage.id: passage for passage in passages},
        tuple(Judgment(query.id, f"p{i}") for i, query in enumerate(asked)),
    )
    split = Split(tuple(collection.queries), (), ())
    with writing(folder / "data", StageKey(STAGE, {})) as (partial, _):
        save_prepared(partial, collection, exact_copies(collection), split)
    with writing(folder / "negatives", StageKey("mine", {})) as (partial, _):
        write_candidates(candidates(queries, depth), partial)
    return folder


def candidates(queries, depth):
    for number in range(queries):
        for rank in range(1, depth + 1):
            score = 1.1 - rank / 20
            removed = "known relevant" if rank == 1 else "above 0.95 x positive" if rank <= 3 else ""
            passage = f"p{(number + rank - 1) % 40}"
            teacher = 3.0 if (number, rank) == (3, 9) else 1.0
            yield Candidate(f"q{number}", passage, ("dense", "bm25"), rank, score, 1.0, teacher, 2.0, removed, rank > 8)
