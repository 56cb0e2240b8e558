import json

import pytest

from m3tune import cli
from m3tune.artifact import MANIFEST, read_json
from m3tune.data.prepared import load_prepared
from m3tune.recipe import load_recipe
from tiny import tiny_collection, write_flagembedding, write_llamaindex


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "問題 of mine.json"
    write_llamaindex(file, tiny_collection())
    return file


def test_prepare_writes_a_directory_that_is_data_again(m3tune, data, tmp_path):
    code, out, err = m3tune("prepare", data, tmp_path / "out", "--set", "data.test=0.25")
    assert code == 0, err
    assert "60 read = 60 kept" in err
    assert "query length" in out
    first = load_prepared(tmp_path / "out")
    assert len(first.split.test) == 15
    code, _, err = m3tune("prepare", tmp_path / "out", tmp_path / "again", "--set", "data.test=0.5")
    assert code == 0, err
    assert "its own split holds" in err
    second = load_prepared(tmp_path / "again")
    assert second.split == first.split
    assert second.collection.fingerprint == first.collection.fingerprint


def test_prepare_again_reads_nothing_unless_something_changed(m3tune, data, tmp_path):
    assert m3tune("prepare", data, tmp_path / "out")[0] == 0
    finished = read_json(tmp_path / "out" / MANIFEST)["finished"]
    code, _, err = m3tune("prepare", data, tmp_path / "out")
    assert code == 0
    assert "read =" not in err
    assert read_json(tmp_path / "out" / MANIFEST)["finished"] == finished
    document = json.loads(data.read_text())
    next(iter(document["queries"].values()))
    document["queries"] |= {"new": "a new one"}
    document["relevant_docs"] |= {"new": [next(iter(document["corpus"]))]}
    data.write_text(json.dumps(document))
    assert "61 read = 61 kept" in m3tune("prepare", data, tmp_path / "out")[2]


def test_bad_records_stop_it_or_are_set_aside(m3tune, tmp_path):
    file = tmp_path / "rows.jsonl"
    write_flagembedding(file, tiny_collection())
    sound = len(file.read_text().splitlines())
    with file.open("a") as out:
        out.write('{"query": "a", "pos": "text"}\n{"query": "b", "pos": [""]}\nnot JSON\n')
    code, _, err = m3tune("prepare", file, tmp_path / "out")
    assert code == 2
    assert "3 bad records: 1 wrong-type, 1 empty-text, 1 broken-json" in err
    assert f"rows.jsonl:{sound + 3}" in err
    assert not (tmp_path / "out").exists()
    code, out, err = m3tune("prepare", file, tmp_path / "out", "--skip-bad", "--json")
    assert code == 0, err
    counts = json.loads(out)["counts"]
    rows = counts["records"]["row"]
    assert rows == {
        "read": sound + 3,
        "kept": sound,
        "merged": 0,
        "rejected": {"wrong-type": 1, "empty-text": 1, "broken-json": 1},
    }
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in rejected] == ["wrong-type", "empty-text", "broken-json"]
    assert rejected[0]["record"] == {"query": "a", "pos": "text"}
    assert rejected[2]["record"] == "not JSON"


def test_an_unknown_protocol_is_the_users_mistake(m3tune, data, tmp_path):
    code, _, err = m3tune("prepare", data, tmp_path / "out", "--protocol", "new")
    assert code == 2
    assert "data.protocol" in err


def test_prepared_data_is_data_for_every_command(m3tune, data, tmp_path):
    assert m3tune("prepare", data, tmp_path / "out")[0] == 0
    code, out, err = m3tune("convert", tmp_path / "out", tmp_path / "beir", "--to", "beir")
    assert code == 0, err
    assert "Read as prepared data" in err
    assert "60 queries" in out
    split = load_prepared(tmp_path / "out").split
    lines = (tmp_path / "beir" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    assert {line.split("\t")[0] for line in lines} == set(split.test)
    assert m3tune("check", tmp_path / "out")[0] in (0, 1)


def test_an_output_inside_the_data_is_refused(m3tune, tmp_path):
    """It would be read as data the next time, and make everything anew."""
    folder = tmp_path / "faq"
    folder.mkdir()
    rows = "".join(f"question {i} about {i * i},answer {i} of {i * 7}\n" for i in range(20))
    (folder / "faq.csv").write_text("question,answer\n" + rows)
    for output in (folder, folder / "prepared", folder / "a" / ".." / "b"):
        code, out, err = m3tune("prepare", folder, output)
        assert (code, out) == (cli.USER_ERROR, "")
        assert "name an output outside of that folder" in err
    assert [file.name for file in folder.iterdir()] == ["faq.csv"]
    assert m3tune("prepare", folder, tmp_path / "prepared")[0] == cli.FINE
    code, out, err = m3tune("prepare", tmp_path / "prepared", tmp_path / "prepared" / "again")
    assert code == cli.FINE, err  # prepared data is known by its manifest


def test_a_recipe_for_the_folder_one_is_in_puts_the_run_outside(m3tune, tmp_path, monkeypatch):
    folder = tmp_path / "faq"
    folder.mkdir()
    (folder / "faq.csv").write_text("Frage,Antwort\na?,b\nc?,d\n")
    monkeypatch.chdir(folder)
    named = ("--column", "query=Frage", "--column", "positive=Antwort")
    code, out, err = m3tune("init", ".", "--out", "mine.toml", "--format", "pairs", *named)
    assert (code, err) == (cli.FINE, "")
    recipe = load_recipe("mine.toml")
    assert recipe.output == str(tmp_path / "runs" / "mine")
    assert recipe.data.format == "pairs"
    assert recipe.data.columns == {"Frage": "query", "Antwort": "positive"}
    (folder / "faq.csv").unlink()
    (folder / "guide.md").write_text("# Guide\n\nHow to install it, step by step.\n")
    code, out, err = m3tune("init", ".", "--out", "other.toml")
    assert (code, err) == (cli.FINE, "")
    assert "no query has a relevant passage: give some before m3tune run" in out
