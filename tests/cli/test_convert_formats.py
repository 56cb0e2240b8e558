import json
from functools import partial

import pytest

from m3tune import cli
from m3tune.data.read import FORMATS
from m3tune.data.write import WRITERS


@pytest.fixture
def convert(m3tune, monkeypatch, tmp_path):
    """Runs `m3tune convert` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return partial(m3tune, "convert")


def test_the_help_names_every_format(convert):
    code, out, _ = convert("--help")
    assert code == cli.FINE
    for format in (*WRITERS, *FORMATS):
        assert format in out, format


def test_bad_records_stop_it_or_go_to_a_file_of_their_own(convert, tmp_path):
    (tmp_path / "a.csv").write_text("query,positive\na,one\nb,\n,two\nc,three\n")
    code, _, err = convert("a.csv", "out", "--to", "trec")
    assert code == cli.USER_ERROR
    assert "2 bad records" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    code, _, err = convert("a.csv", "out", "--to", "trec", "--skip-bad")
    assert code == cli.FINE
    assert "row: 4 read = 2 kept + 2 rejected (1 no-positive, 1 empty-text)" in err
    assert "the rejected records are in out.rejected.jsonl" in err
    lines = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["no-positive", "empty-text"]
    code, _, err = convert("a.csv", "out", "--to", "trec", "--skip-bad")
    assert "exists already" in err


def test_json_has_the_account_too(convert, tmp_path):
    (tmp_path / "a.csv").write_text("query,positive\na,one\nb,\n")
    code, out, err = convert("a.csv", "out", "--to", "datasets", "--skip-bad", "--json")
    assert (code, err) == (cli.FINE, "")
    counts = json.loads(out)
    assert counts["records"]["row"] == {"read": 2, "kept": 1, "merged": 0, "rejected": {"no-positive": 1}}


def test_documents_to_a_file_that_questions_can_be_added_to(convert, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("# A\nText.\n")
    code, _, err = convert("docs", "data.json", "--to", "llamaindex")
    assert code == cli.FINE
    assert "It holds no question." in err
    assert json.loads((tmp_path / "data.json").read_text())["corpus"] == {"a.md#1": "A Text."}
    code, _, err = convert("docs", "rows.jsonl", "--to", "flagembedding")
    assert code == cli.USER_ERROR
    assert "the data has no question" in err
