import json
from functools import partial

import pytest

from m3tune import cli
from m3tune.data.read import read_collection

ROWS = [
    {"query": "a", "pos": ["one"], "neg": ["two"], "pos_scores": [2.5], "neg_scores": [-1.0], "prompt": "Find it"},
    {"query": "b", "pos": ["two"], "neg": []},
]


@pytest.fixture
def convert(m3tune, monkeypatch, tmp_path):
    """Runs `m3tune convert` beside a file of rows."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    return partial(m3tune, "convert")


def test_it_says_what_was_written_and_what_the_format_cannot_hold(convert, tmp_path):
    code, out, err = convert("rows.jsonl", "new/data.json.gz", "--to", "llamaindex")
    assert code == cli.FINE
    assert err.startswith("Read as flagembedding: ")
    assert out.splitlines() == [
        "wrote new/data.json.gz as llamaindex",
        "  2 queries",
        "  2 passages",
        "  2 judgments",
        "not in it, because llamaindex cannot hold it",
        "  2 scores",
        "  1 negatives",
        "  1 prompts",
    ]
    assert len(read_collection(str(tmp_path / "new/data.json.gz"), "llamaindex")[0].judgments) == 2


def test_nothing_is_said_to_be_lost_where_nothing_is(convert, tmp_path):
    code, out, _ = convert("rows.jsonl", "again.jsonl", "--to", "flagembedding", "--from", "flagembedding")
    assert code == cli.FINE
    assert "cannot hold" not in out
    assert [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()] == ROWS


def test_json_is_the_only_output(convert, tmp_path):
    code, out, err = convert("rows.jsonl", "beir", "--to", "beir", "--json")
    assert (code, err, out.count("\n")) == (cli.FINE, "", 1)
    counts = json.loads(out)
    assert (counts["queries"], counts["lost_negatives"], counts["lost_repeated_judgments"]) == (2, 1, 0)
    assert sorted(path.name for path in (tmp_path / "beir").iterdir()) == ["corpus.jsonl", "qrels", "queries.jsonl"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["missing.jsonl", "rows.jsonl", "--to", "flagembedding"], "rows.jsonl: this exists already"),
        (["rows.jsonl", "out", "--to", "bier"], "did you mean 'beir'?"),
        (["rows.jsonl", "out.txt", "--to", "llamaindex"], "'out.txt' is no name for a llamaindex file"),
        (["rows.json", "out", "--to", "beir"], "rows.jsonl?"),
        (["rows.jsonl", "out", "--to", "beir", "--from", "flag"], "unknown format 'flag'"),
    ],
)
def test_mistakes_are_explained_and_nothing_is_written(convert, tmp_path, arguments, said):
    code, out, err = convert(*arguments)
    assert (code, out) == (cli.USER_ERROR, "")
    assert said in err
    assert "fix: " in err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_column_can_be_named(convert, tmp_path):
    (tmp_path / "faq.csv").write_text("query,body,url\na,one,x\n")
    code, _, err = convert("faq.csv", "faq.json", "--to", "llamaindex")
    assert code == cli.USER_ERROR
    assert "--column query=NAME --column positive=NAME" in err
    code, out, _ = convert(
        "faq.csv", "faq.json", "--to", "llamaindex", "--column", "positive=body", "--column", "ignore=url"
    )
    assert code == cli.FINE
    assert "1 judgments" in out


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.parquet", "pairs.jsonl.zst"])
def test_pairs_hold_scores_prompts_and_negatives(convert, tmp_path, name):
    code, out, _ = convert("rows.jsonl", name, "--to", "pairs")
    assert code == cli.FINE
    assert "cannot hold" not in out
    code, _, err = convert(name, "again.jsonl", "--to", "flagembedding")
    assert (code, err.startswith("Read as pairs: ")) == (cli.FINE, True)
    assert [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()] == ROWS
