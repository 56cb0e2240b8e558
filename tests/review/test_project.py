import json

import pytest

from m3tune.errors import ArtifactError, DataError
from m3tune.negatives.table import read_candidates, write_candidates
from m3tune.negatives.verdicts import read_verdicts, write_verdicts
from m3tune.review.project import open_project
from m3tune.types import PairVerdict
from reviewing import write_run
from tiny import write_llamaindex


def test_what_the_data_knows_is_not_asked(project, run):
    assert len(read_candidates(run / "negatives")) == 96
    assert len(project.candidates) == 88
    assert all(c.passage_id not in project.collection.positives[c.query_id] for c in project.candidates)


def test_queue_is_kept_removed_or_all_with_the_doubtful_first(project):
    kept, removed, both = (project.queue(shown) for shown in ("kept", "removed", "all"))
    assert {c.removed for c in kept} == {""}
    assert {c.removed for c in removed} == {"above 0.95 x positive"}
    assert len(kept) + len(removed) == len(both) == 88
    assert (kept[0].query_id, kept[0].rank) == ("q3", 9)
    assert [c.rank for c in kept[1:9]] == [4] * 8


def test_one_sample_for_all_reviewers(project, run):
    drawn = project.draw(40, seed=1)
    assert project.sample() == drawn == open_project(run).draw(40, seed=1)
    assert list(drawn.pairs) == list(open_project(run).sample().pairs)
    assert [(c.query_id, c.passage_id) for c in project.sampled(drawn)] == list(drawn.pairs)
    assert sum(drawn.sizes.values()) == len(project.candidates)
    for count, seed in ((41, 1), (40, 2)):
        with pytest.raises(DataError, match="a sample of 40 with seed 1 is there"):
            project.draw(count, seed)


def test_candidates_mined_anew_have_a_sample_of_their_own(project, run):
    drawn = project.draw(40, seed=1)
    write_candidates([c._replace(removed="") for c in read_candidates(run / "negatives")], run / "negatives")
    again = open_project(run)
    assert again.sample() is None
    assert again.draw(30, seed=2).sizes != drawn.sizes


def test_verdicts_outlive_mining_and_travel_as_jsonl(project, tmp_path):
    for passage, word in (("p3", "relevant"), ("p4", "unsure")):
        project.store.add(PairVerdict("q2", passage, word, "anna"))
    assert project.export_verdicts(tmp_path / "v.jsonl") == 2
    assert read_verdicts(tmp_path / "v.jsonl") == project.store.standing()
    other = open_project(write_run(tmp_path / "other"))
    assert other.import_verdicts(tmp_path / "v.jsonl") == {"added": 2, "known": 0, "older": 0}
    assert other.store.standing() == project.store.standing()
    assert other.import_verdicts(tmp_path / "v.jsonl") == {"added": 0, "known": 2, "older": 0}


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (PairVerdict("q99", "p1", "relevant", "a"), r"v\.jsonl, verdict 2: the data has no query 'q99'"),
        (PairVerdict("q1", "\ud800p", "relevant", "a"), r"v\.jsonl:2: a text holds half a character: '\\ud800'"),
        (PairVerdict("q1", "p1", "relevant", ""), "says not whose it is"),
        (PairVerdict("q1", "p1", "relevant", "\x1b[31manna"), "says not whose it is"),
    ],
    ids=["query", "passage", "nobody", "escape"],
)
def test_a_verdict_on_unknown_texts_is_named_and_none_is_taken(project, tmp_path, verdict, said):
    file = tmp_path / "v.jsonl"
    write_verdicts([PairVerdict("q1", "p1", "relevant", "a")], file)
    with file.open("a") as stream:
        stream.write(json.dumps(verdict._asdict()))
    with pytest.raises(DataError, match=said):
        project.import_verdicts(file)
    assert project.store.standing() == []


def test_missing_parts_are_named(tmp_path, run):
    with pytest.raises(ArtifactError, match="no data here"):
        open_project(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="no mined candidates here"):
        open_project(run, negatives=run / "data")
    elsewhere = open_project(tmp_path / "own", run / "data", run / "negatives")
    assert elsewhere.store.file == tmp_path / "own" / "review" / "verdicts.sqlite"


def test_what_was_mined_by_itself_is_opened_beside_its_data(tmp_path, run):
    whole = open_project(run)
    (run / "negatives").rename(tmp_path / "mined")
    data = write_llamaindex(tmp_path / "questions.json", whole.collection)
    alone = open_project(tmp_path / "mined", data)
    assert alone.candidates == whole.candidates
    assert alone.collection.queries.keys() == whole.collection.queries.keys()
    assert alone.store.file == tmp_path / "mined.review" / "verdicts.sqlite", "mining again replaces the folder"
    assert alone.arguments == (str(tmp_path / "mined"), "--data", str(data))
    assert alone.draw(40, seed=1).pairs == whole.draw(40, seed=1).pairs


def test_candidates_of_other_data_are_refused(run):
    rows = read_candidates(run / "negatives")
    write_candidates([*rows, rows[0]._replace(passage_id="p999")], run / "negatives")
    with pytest.raises(ArtifactError, match="a pair that the data has not: 'q0', 'p999'"):
        open_project(run)
