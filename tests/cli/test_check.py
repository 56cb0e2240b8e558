import json
from functools import partial

import pytest

from m3tune import cli
from m3tune.data.read import read_collection
from m3tune.data.similar import Similar
from m3tune.diagnose import check
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

ROWS = [
    {
        "query": "Which river crosses the town?",
        "pos": ["The Danube crosses the town."],
        "neg": ["It rains here in May."],
    },
    {"query": "Who built the bridge there?", "pos": ["It rains here in May."], "neg": ["Nobody knows who built it."]},
    {"query": "Who built the bridge there?", "pos": ["A guild of masons built it."], "neg": ["It rains here in May."]},
    {"query": "Broken", "pos": "A text where a list should be."},
]


@pytest.fixture
def checks(m3tune, monkeypatch, tmp_path):
    """Runs `m3tune check` beside a file of rows, without a search for near-duplicates."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setattr(check, "find_similar", lambda collection: Similar())
    monkeypatch.chdir(tmp_path)
    return partial(m3tune, "check")


def test_it_accounts_for_the_reading_first_and_then_tells_each_finding(checks):
    code, out, err = checks("rows.jsonl")
    assert code == cli.NOT_GOOD_ENOUGH
    assert "Read as flagembedding: " in err
    lines = out.splitlines()
    assert lines[0] == "row: 4 read = 3 kept + 1 rejected (1 wrong-type)"
    assert lines[1] == "in it: 2 queries, 4 passages, 3 judgments, 3 negatives"
    assert "positive-among-negatives (given negatives): 1 of 3 (33.3 %) are a positive of the same query" in lines
    assert "  fix: drop them from the negatives: --fix does" in lines
    assert "  more: docs/findings/positive-among-negatives.md" in lines
    assert "rows.jsonl:4: 'pos' is not a list" in out
    assert lines[-1].startswith("2 errors, ")


def test_json_is_the_only_output(checks):
    code, out, err = checks("rows.jsonl", "--json")
    assert (code, err, out.count("\n")) == (cli.NOT_GOOD_ENOUGH, "", 1)
    told = json.loads(out)
    assert told["format"] == "flagembedding"
    assert told["account"]["row"]["read"] == 4
    assert told["sizes"]["passages"] == 4
    codes = [finding["code"] for finding in told["findings"]]
    assert codes[:2] == ["rejected-records", "positive-among-negatives"]
    assert told["findings"][1]["evidence"]["count"] == 1
    assert "fix" not in told


def test_fix_writes_a_copy_says_what_became_of_everything_and_checks_it_again(checks, tmp_path):
    before = (tmp_path / "rows.jsonl").read_bytes()
    code, out, _ = checks("rows.jsonl", "--fix", "new/good.jsonl")
    assert code == cli.NOT_GOOD_ENOUGH  # two queries are too few, whatever is repaired
    assert "  negatives: 3 in = 2 out + 1 positive of the same query" in out.splitlines()
    assert "wrote new/good.jsonl as flagembedding" in out
    assert "in the copy: 1 warning" in out
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    rejected = [json.loads(line) for line in (tmp_path / "new/good.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["record"]) for line in rejected] == [("wrong-type", ROWS[3])]
    collection, _ = read_collection(str(tmp_path / "new/good.jsonl"))
    assert (len(collection.judgments), len(collection.negatives)) == (3, 2)


def test_fix_can_write_another_format(checks, tmp_path):
    (tmp_path / "faq.csv").write_text("question,body\nWhich river crosses it?,The Danube crosses the town.\n")
    code, out, _ = checks("faq.csv", "--column", "positive=body", "--fix", "faq.json", "--to", "llamaindex", "--json")
    assert code == cli.NOT_GOOD_ENOUGH
    assert json.loads(out)["fix"]["written"]["queries"] == 1
    assert json.loads(out)["fix"]["rejected"] is None
    assert len(read_collection(str(tmp_path / "faq.json"))[0].queries) == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["rows.jsonl", "--fix", "rows.jsonl"], "rows.jsonl: this exists already"),
        (["rows.jsonl", "--to", "beir"], "--to: --to is the format of a repaired copy"),
        (["rows.jsonl", "--query-max-tokens", "64"], "--model: a limit in tokens needs a tokenizer"),
        (["row.jsonl"], "rows.jsonl?"),
    ],
)
def test_mistakes_are_explained_and_nothing_is_written(checks, tmp_path, arguments, said):
    (tmp_path / "faq.csv").write_text("question,answer\nWhich river?,The Danube crosses the town.\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = checks(*arguments)
    assert (code, out) == (cli.USER_ERROR, "")
    assert said in err
    assert "fix: " in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_notes_alone_are_fine(checks, tmp_path, monkeypatch):
    monkeypatch.setattr("m3tune.diagnose.sizes._LARGE", 2.0)
    write_llamaindex(tmp_path / "data.json", tiny_collection(40, 60))
    code, out, _ = checks("data.json")
    assert code == cli.FINE
    assert out.splitlines()[-1].endswith(" notes")


def test_lengths_are_counted_as_the_model_does(checks, tmp_path):
    save_tiny_encoder(tmp_path / "encoder")
    write_llamaindex(tmp_path / "data.json", tiny_collection(40, 60))
    _, out, _ = checks("data.json", "--model", tmp_path / "encoder", "--passage-max-tokens", 8, "--json")
    told = json.loads(out)
    # Every passage has two rare and six common words, and two special tokens.
    assert told["tokens"]["passage"] == {
        "max_tokens": 8,
        "truncated": 60,
        "longest": 10,
        "covering": {"95": 10, "99": 10},
        "model": str(tmp_path / "encoder"),
    }
    assert told["tokens"]["query"]["max_tokens"] == 48
    (finding,) = [finding for finding in told["findings"] if finding["code"] == "truncated-text"]
    assert (finding["severity"], finding["where"]) == ("warning", "passages")
    assert (finding["evidence"]["count"], finding["evidence"]["lost_tokens"]) == (60, 120)
