import signal
import sqlite3
import subprocess
import sys

import pytest

from m3tune.errors import ArtifactError
from m3tune.negatives.verdict_store import VerdictStore, last_within, of_one
from m3tune.types import PairVerdict


def verdict(passage="p", word="relevant", reviewer="anna", kind="person", time="", query="q"):
    return PairVerdict(query, passage, word, reviewer, kind, time)


@pytest.fixture
def store(tmp_path):
    return VerdictStore(tmp_path / "review" / "verdicts.sqlite")


def words(store):
    return [(v.passage_id, v.judged, v.reviewer, v.kind) for v in store.standing()]


def test_what_is_added_stands_with_its_time(store):
    assert store.add(verdict())
    (stands,) = store.standing()
    assert stands._replace(time="") == verdict()
    assert stands.time.endswith("+00:00")
    assert VerdictStore(store.file).standing() == [stands]


def test_the_same_word_again_adds_nothing_and_another_stands_instead(store):
    assert store.add(verdict())
    assert not store.add(verdict())
    assert store.add(verdict(word="unsure"))
    assert words(store) == [("p", "unsure", "anna", "person")]


def test_reviewers_and_models_do_not_overwrite_each_other(store):
    for reviewer, kind, word in (
        ("anna", "person", "relevant"),
        ("ben", "person", "unsure"),
        ("anna", "model", "unsure"),
    ):
        assert store.add(verdict(word=word, reviewer=reviewer, kind=kind))
    assert len(store.standing()) == 3
    assert of_one(store.standing(), "anna", "person")[0].judged == "relevant"


def test_taking_back_lets_what_was_said_before_stand_again(store):
    store.add(verdict(word="relevant"))
    store.add(verdict(word="unsure"))
    assert store.take_back(store.standing()[0])
    assert words(store) == [("p", "relevant", "anna", "person")]
    first = store.standing()[0]
    assert store.take_back(first)
    assert not store.take_back(first)
    assert store.standing() == []
    assert store.add(verdict(word="relevant"))


def test_only_the_last_word_on_a_pair_can_be_taken_back(store):
    store.add(verdict(word="relevant"))
    early = store.standing()[0]
    store.add(verdict(word="unsure"))
    assert not store.take_back(early)


def test_nothing_can_be_changed_or_removed(store):
    store.add(verdict())
    with sqlite3.connect(store.file) as connection:
        for statement in ("UPDATE history SET judged = 'unsure'", "DELETE FROM history"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                connection.execute(statement)
    connection.close()


def test_every_step_stays_in_the_history(store):
    store.add(verdict())
    store.take_back(store.standing()[0])
    store.add(verdict(word="unsure"))
    connection = sqlite3.connect(store.file)
    rows = connection.execute("SELECT judged, takes_back FROM history ORDER BY id").fetchall()
    connection.close()
    assert rows == [("relevant", None), (None, 1), ("unsure", None)]


def test_last_within_looks_at_the_given_pairs_alone(store):
    store.add(verdict("a"))
    store.add(verdict("b"))
    assert last_within(store.standing(), {("q", "a"), ("q", "c")}).passage_id == "a"
    assert last_within(store.standing(), {("q", "c")}) is None


def test_verdicts_from_elsewhere_are_counted_and_the_newer_word_stands(store):
    store.add(verdict("same", "relevant"))
    store.add(verdict("changed", "relevant"))
    store.add(verdict("stale", "relevant"))
    given = [
        verdict("same", "relevant"),
        verdict("changed", "unsure", time="9999-01-01T00:00:00+00:00"),
        verdict("stale", "unsure", time="2001-01-01T00:00:00+00:00"),
        verdict("new", "unsure", "ben"),
    ]
    assert store.take_in(given) == {"added": 2, "known": 1, "older": 1}
    assert dict((v.passage_id, v.judged) for v in store.standing()) == {
        "same": "relevant",
        "stale": "relevant",
        "changed": "unsure",
        "new": "unsure",
    }
    assert store.take_in(given) == {"added": 0, "known": 3, "older": 1}


def test_taking_in_is_all_or_nothing(store):
    with pytest.raises(sqlite3.IntegrityError):
        store.take_in([verdict("good"), verdict("bad", "perhaps")])
    assert store.standing() == []


def test_a_file_that_is_no_database_is_named(tmp_path):
    file = tmp_path / "verdicts.sqlite"
    file.write_text("x" * 5000)
    with pytest.raises(ArtifactError, match=r"verdicts\.sqlite: no verdicts can be kept here"):
        VerdictStore(file)


WRITER = """
import sys
from pathlib import Path
from m3tune.negatives.verdict_store import VerdictStore
from m3tune.types import PairVerdict
store, reviewer, count = VerdictStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for i in range(count):
    store.add(PairVerdict("q", str(i), "relevant", reviewer))
    print(i, flush=True)
"""


def writer(store, reviewer, count):
    arguments = [sys.executable, "-c", WRITER, str(store.file), reviewer, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_lose_nothing(store):
    processes = [writer(store, name, 40) for name in ("anna", "ben")]
    assert [process.communicate(timeout=120)[0].count("\n") for process in processes] == [40, 40]
    assert len(store.standing()) == 80


def test_a_killed_process_has_kept_all_that_it_reported(store):
    process = writer(store, "anna", 100_000)
    reported = [int(process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    kept = {int(v.passage_id) for v in store.standing()}
    assert set(reported) <= kept
    assert store.add(verdict("after"))
