import json

import pytest

from m3tune.data.intake import Intake, Row, first_value, in_words
from m3tune.data.read import read_collection
from m3tune.errors import DataError


def row(number, value, error=None, source=""):
    return Row(f"a:{number}", value, error, source)


def add_even(seen):
    """Takes even numbers: a new one is news, an odd one is bad."""

    def add(value, where):
        if value % 2:
            raise DataError(f"{value} is odd", where=where, fix="add one", reason="odd")
        seen.append(value)
        return seen.count(value) == 1

    return add


def taken(values, **options):
    intake, seen = Intake(**options), []
    intake.take("number", (row(at, value) for at, value in enumerate(values, 1)), add_even(seen))
    return intake, seen


def test_every_record_is_kept_merged_or_rejected():
    intake, seen = taken([2, 4, 2, 5, 7, 6])
    assert seen == [2, 4, 2, 6]
    assert intake.counts() == {"number": {"read": 6, "kept": 3, "merged": 1, "rejected": {"odd": 2}}}
    assert in_words(intake.counts()) == [
        "number: 6 read = 3 kept + 1 merged (nothing new in them) + 2 rejected (2 odd)"
    ]
    assert in_words(taken([2])[0].counts()) == ["number: 1 read = 1 kept"]


def test_one_bad_record_is_its_own_error():
    intake, _ = taken([2, 3])
    with pytest.raises(DataError) as caught:
        intake.finish()
    assert (caught.value.where, caught.value.what, caught.value.reason) == ("a:2", "3 is odd", "odd")
    assert caught.value.fix.startswith("add one; or leave it out: m3tune convert or prepare with --skip-bad")


def test_many_bad_records_show_the_first_ten_and_the_total():
    intake, _ = taken([1] * 1200)
    other = DataError("broken", where="b:1", fix="mend it", reason="broken")
    intake.take("line", [row(1, None, other)], add_even([]))
    with pytest.raises(DataError) as caught:
        intake.finish()
    lines = caught.value.what.splitlines()
    assert [line for line in lines if "odd" in line][:10] == [f"a:{at}: 1 is odd" for at in range(1, 11)]
    assert lines[-2:] == ["… and 1,191 more", "1,201 bad records: 1,200 odd, 1 broken"]
    assert caught.value.what.count("fix: add one") == 10
    assert "--skip-bad" in caught.value.fix


def test_ten_bad_records_are_all_shown():
    with pytest.raises(DataError) as caught:
        taken([1] * 10)[0].finish()
    assert "more" not in caught.value.what
    assert caught.value.what.endswith("10 bad records: 10 odd")


def test_skip_bad_leaves_them_out_and_saves_them(tmp_path):
    intake, seen = taken([2, 3], skip_bad=True)
    broken = DataError("no JSON", where="b:7", fix="mend it", reason="broken-json")
    intake.take("line", [row(7, None, broken, '{"é\ud800')], add_even([]))
    intake.finish()
    assert seen == [2]
    assert intake.save_rejected(tmp_path / "rejected.jsonl")
    assert [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text("utf-8").splitlines()] == [
        {"where": "a:2", "kind": "number", "reason": "odd", "what": "3 is odd", "fix": "add one", "record": 3},
        {
            "where": "a:7",
            "kind": "line",
            "reason": "broken-json",
            "what": "no JSON",
            "fix": "mend it",
            "record": '{"é\ud800',
        },
    ]


def test_nothing_rejected_is_no_file(tmp_path):
    intake, _ = taken([2], skip_bad=True)
    assert not intake.save_rejected(tmp_path / "rejected.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_very_long_bad_record_is_cut(tmp_path):
    intake = Intake(skip_bad=True)
    intake.take("line", [row(1, None, DataError("bad"), "x" * 3_000_000)], add_even([]))
    intake.save_rejected(tmp_path / "r")
    (line,) = (tmp_path / "r").read_text().splitlines()
    assert json.loads(line)["record"].endswith("x… (cut; 3,000,000 characters)")
    assert len(line) < 1_100_000


def test_the_first_value_is_that_of_the_first_sound_row():
    bad = row(1, None, DataError("first"))
    assert first_value([bad, row(2, {"a": 1})]) == {"a": 1}
    assert first_value([]) == {}
    with pytest.raises(DataError, match="first"):
        first_value([bad, row(2, None, DataError("second"))])


# --- of every reader

SOUND = '{"query": "a", "pos": ["x"]}\n'
BEIR = {
    "queries.jsonl": '{"_id": "q", "text": "a", "metadata": {}}\n' * 2 + '{"_id": "q", "text": "b"}\n',
    "corpus.jsonl": '{"_id": "p", "text": "x", "url": "u", "title": ""}\nrubbish\n',
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq\tp\t1\nq\tp\t1\nq\tz\t1\nq\tp\tnan\n\n",
}
LLAMAINDEX = {
    "queries": {"q": "a", "r": 5, "s": "no entry"},
    "corpus": {"p": "x", "z": None},
    "relevant_docs": {"q": ["p", "p"], "r": ["p"], "t": ["p"]},
    "extra": 1,
}


def account(folder, files, format, name=""):
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    intake = Intake(skip_bad=True)
    collection, _ = read_collection(str(folder / name), format, intake=intake)
    return collection, intake


def counted(read, kept, merged, **rejected):
    return {
        "read": read,
        "kept": kept,
        "merged": merged,
        "rejected": {k.replace("_", "-"): n for k, n in rejected.items()},
    }


def test_beir_accounts_for_queries_passages_and_judgments(tmp_path):
    collection, intake = account(tmp_path, BEIR, "beir")
    assert intake.counts() == {
        "query": counted(3, 1, 1, two_texts_for_one_id=1),
        "passage": counted(2, 1, 0, broken_json=1),
        "judgment": counted(4, 1, 1, unknown_id=1, bad_score=1),
    }
    assert intake.ignored == {"key 'metadata' of a query": 2, "key 'url' of a passage": 1}
    assert (len(collection.queries), len(collection.passages), len(collection.judgments)) == (1, 1, 1)


def test_llamaindex_accounts_for_entries(tmp_path):
    collection, intake = account(tmp_path, {"a.json": json.dumps(LLAMAINDEX)}, "llamaindex", "a.json")
    assert intake.counts() == {
        "query": counted(3, 1, 0, wrong_type=1, no_positive=1),
        "passage": counted(2, 1, 0, wrong_type=1),
        "relevant_docs": counted(3, 1, 0, unknown_id=2),
    }
    assert intake.ignored == {"key 'extra'": 1}
    assert list(collection.queries) == ["q"]


def test_flagembedding_accounts_for_rows(tmp_path):
    rows = [
        SOUND,
        SOUND,
        '{"query": "a", "pos": ["y"], "id": 3}\n',
        '{"query": "a", "pos": "x"}\n',
        '{"query": "", "id": 1}\n',
    ]
    collection, intake = account(tmp_path, {"a.jsonl": "".join(rows), "b.jsonl": SOUND}, "flagembedding", "a.jsonl")
    assert intake.counts() == {"row": counted(5, 2, 1, wrong_type=1, empty_text=1)}
    assert intake.ignored == {"key 'id'": 1}
    assert len(collection.judgments) == 2


def test_a_row_of_another_file_is_news_because_of_its_set(tmp_path):
    collection, intake = account(tmp_path, {"a.jsonl": SOUND, "b.jsonl": SOUND + SOUND}, "flagembedding")
    assert intake.counts() == {"row": counted(3, 2, 1)}
    assert list(collection.sets) == ["a", "b"]


def test_pairs_account_for_rows_with_broken_bytes(tmp_path):
    table = b'query,positive\na,x\na,x\n\xff\xe9,x\nb,"y\nb,z,\n,x\n'.replace(b'"', b"")
    collection, intake = account(tmp_path, {"a.csv": table}, "pairs", "a.csv")
    assert intake.counts() == {"row": counted(6, 2, 1, not_utf8=1, columns=1, empty_text=1)}
    assert len(collection.judgments) == 2
    intake.save_rejected(tmp_path / "rejected.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text("utf-8").splitlines()]
    assert [(line["where"].rpartition(":")[2], line["record"]) for line in lines] == [
        ("4", "\\xff\\xe9,x"),
        ("6", "b,z,"),
        ("7", {"query": "", "positive": "x"}),
    ]


def test_another_score_of_a_pair_is_counted_and_the_first_kept(tmp_path):
    rows = [
        '{"query": "a", "pos": ["x"], "pos_scores": [1], "neg": ["n"], "neg_scores": [0.5]}\n',
        '{"query": "a", "pos": ["x"], "pos_scores": [2], "neg": ["n"], "neg_scores": [0.5]}\n',
    ]
    collection, intake = account(tmp_path, {"a.jsonl": "".join(rows)}, "flagembedding", "a.jsonl")
    assert intake.ignored == {"another score of a pair": 1}
    assert [pair.score for pair in collection.pairs] == [1.0, 0.5]
