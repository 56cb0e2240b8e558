import gc
import os
import tempfile
from pathlib import Path

import pytest

from m3tune.data.table import Table
from m3tune.errors import DataError
from m3tune.types import Passage, Query

RECORDS = {f"p{n}": Passage(f"p{n}", f"text {n}\x00é", "T" * (n % 2), f"d{n // 3}") for n in range(10)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder in which temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(place: Path) -> list[str]:
    return sorted(file.name for file in place.glob("m3tune-table-*/*"))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 10])
def test_it_is_a_dict_whatever_the_number_of_blocks(place, count):
    records = dict(list(RECORDS.items())[:count])
    table = Table(Passage, records.values(), block=3)
    assert len(files(place)) == count // 3
    assert table == records
    assert list(table) == list(records)
    assert list(table.values()) == list(records.values())
    assert list(table.items()) == list(records.items())
    assert [table[id_] for id_ in reversed(records)] == list(reversed(records.values()))
    assert (len(table), "p0" in table, "x" in table, 5 in table) == (count, count > 0, False, False)
    assert table.get("x") is None
    assert table == Table(Passage, records.values(), block=4)
    assert table != {**records, "x": Passage("x", "")}


def test_one_id_with_another_text_is_an_error_in_every_block():
    table = Table(Passage, RECORDS.values(), block=3)
    for id_, record in RECORDS.items():
        assert not table.add(record, "a:1")
        with pytest.raises(DataError, match=f"'{id_}' has two texts: .* and 'other'") as caught:
            table.add(Passage(id_, "other", record.title, record.document), "a:1")
        assert (caught.value.where, caught.value.reason) == ("a:1", "two-texts-for-one-id")
    assert table == RECORDS
    with pytest.raises(DataError, match="'p1' has two titles: 'T' and 'other'"):
        table.add(Passage("p1", RECORDS["p1"].text, "other"), "")


def test_asking_adds_nothing():
    table = Table(Passage, block=3)
    assert table.is_new(RECORDS["p0"], "")
    assert len(table) == 0
    table.add(RECORDS["p0"], "")
    assert not table.is_new(RECORDS["p0"], "")


def test_it_is_read_while_it_grows():
    table = Table(Query, block=2)
    for n in range(9):
        assert table.add(Query(str(n), f"text {n}", None if n % 2 else ""), "")
        assert [table[str(k)].prompt for k in range(n + 1)] == [None if k % 2 else "" for k in range(n + 1)]
        assert len(list(table.values())) == n + 1


def test_nothing_is_left_on_the_disk(place):
    table = Table(Passage, RECORDS.values(), block=3)
    assert files(place) == ["0.arrow", "1.arrow", "2.arrow"]
    del table
    gc.collect()
    assert list(place.iterdir()) == []


def test_a_table_in_memory_makes_no_folder(place):
    table = Table(Passage, RECORDS.values())
    assert len(table) == 10
    assert list(place.iterdir()) == []


def test_a_forked_process_leaves_the_files_to_their_owner(place):
    table = Table(Passage, RECORDS.values(), block=3)
    child = os.fork()
    if not child:
        del table
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(files(place)) == 3
    assert table["p0"] == RECORDS["p0"]
