"""m3tune encode and m3tune search."""

import io
import json

import pytest

from m3tune import cli
from m3tune.retrieval import store
from m3tune.retrieval.approximate import FILE
from tiny import write_llamaindex

HEADS = ["dense", "sparse", "multi"]
QUESTION = "r23 r26 c00 c03 c19 c15"


@pytest.fixture(scope="module")
def place(tmp_path_factory, m3_folder, collection):
    folder = tmp_path_factory.mktemp("place")
    write_llamaindex(folder / "data.json", collection)
    return folder


def test_encode_then_search_without_the_data(m3tune, m3_folder, place, tmp_path):
    code, out, err = m3tune("encode", m3_folder, place / "data.json", "--out", tmp_path / "v", "--what", "passages")
    assert (code, f"{tmp_path / 'v' / 'passages'}: 90 passages" in out) == (cli.FINE, True), err
    assert "dense, sparse, multi" in out
    code, out, err = m3tune("search", m3_folder, tmp_path / "v", QUESTION, "r05", "--top", "2")
    assert code == cli.FINE, err
    assert out.count("hybrid ") == 4
    assert "words: c03 1.4" in out
    assert "shared: " in out
    assert "words: " not in m3tune("search", m3_folder, tmp_path / "v", QUESTION, "--no-explain")[1]


def test_search_encodes_the_data_once(m3tune, m3_folder, place, tmp_path, monkeypatch):
    arguments = (
        "search",
        m3_folder,
        place / "data.json",
        QUESTION,
        "--vectors",
        tmp_path / "v",
        "--json",
        "--head",
        "rrf",
    )
    code, out, err = m3tune(*arguments)
    assert (code, err) == (cli.FINE, "")
    (found,) = json.loads(out)
    assert found["question"] == QUESTION
    assert found["head"] == "rrf"
    assert len(found["hits"]) == 10
    assert set(found["hits"][0]["scores"]) == set(HEADS)
    monkeypatch.setattr(store, "fill", lambda *_, **__: pytest.fail("encoded again"))
    assert json.loads(m3tune(*arguments)[1]) == [found]


def test_questions_come_from_stdin(m3tune, m3_folder, place, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n\nr05\n"))
    code, out, _ = m3tune("search", m3_folder, place / "data.json", "--vectors", tmp_path / "v", "--json")
    assert code == cli.FINE
    assert [found["question"] for found in json.loads(out)] == [QUESTION, "r05"]


def test_a_terminal_is_asked_until_an_empty_line(m3tune, m3_folder, place, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines = iter([QUESTION, "r05", ""])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("rich.console.Console.input", lambda *_, **__: next(lines))
    code, out, _ = m3tune("search", m3_folder, place / "data.json", "--vectors", tmp_path / "v", "--top", "1")
    assert code == cli.FINE
    assert out.count("hybrid ") == 2


def test_approximate_search_keeps_its_index_beside_the_vectors(m3tune, m3_folder, place, tmp_path):
    arguments = ("search", m3_folder, place / "data.json", QUESTION, "--vectors", tmp_path / "v", "--json")
    exact = json.loads(m3tune(*arguments)[1])
    assert not (tmp_path / "v" / "passages" / FILE).exists()
    code, out, err = m3tune(*arguments, "--approximate")
    assert (code, json.loads(out)) == (cli.FINE, exact), err
    assert (tmp_path / "v" / "passages" / FILE).is_file()
    by_index, by_all = (json.loads(m3tune(*arguments, "--head", "dense", *more)[1]) for more in (["--approximate"], []))
    assert [hit["passage_id"] for hit in by_index[0]["hits"]] == [hit["passage_id"] for hit in by_all[0]["hits"]]


def test_approximate_search_needs_dense_vectors(m3tune, m3_folder, place, tmp_path):
    m3tune("encode", m3_folder, place / "data.json", "--out", tmp_path / "v", "--heads", "sparse")
    code, _, err = m3tune("search", m3_folder, tmp_path / "v", QUESTION, "--approximate")
    assert code == cli.USER_ERROR
    assert "no dense" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("encode", "--what", "all"), "--what: 'all' is none of both, passages, queries"),
        (("encode", "--heads", "dense,colbert"), "--heads: 'colbert' is none of"),
        (("encode", "--multi", "int8"), "--multi: 'int8' is none of float32, float16"),
        (("search", "--head", "bm25"), "--head: 'bm25' is none of"),
    ],
)
def test_a_wrong_word_is_named(m3tune, m3_folder, place, arguments, said):
    command, *options = arguments
    code, _, err = m3tune(command, m3_folder, place / "data.json", *options)
    assert code == cli.USER_ERROR
    assert said in err


def test_a_dense_model_cannot_write_other_heads(m3tune, tiny_folders, place, tmp_path):
    arguments = ("encode", tiny_folders["bert"], place / "data.json", "--heads", "sparse", "--out", tmp_path / "v")
    code, _, err = m3tune(*arguments)
    assert code == cli.USER_ERROR
    assert "this model has no sparse head, only dense" in err


def test_an_empty_question_is_no_question(m3tune, m3_folder, place):
    code, out, err = m3tune("search", m3_folder, place / "data.json", "r05", " ")
    assert (code, out) == (cli.USER_ERROR, "")
    assert "a question is empty" in err


def test_columns_are_named_for_encode_and_evaluate_as_for_check(m3tune, m3_folder, tmp_path):
    file = tmp_path / "faq.csv"
    file.write_text("Frage,Antwort\nr05 c01,r05 c02\nr07 c01,r07 c02\n")
    named = ("--column", "query=Frage", "--column", "positive=Antwort")
    code, out, err = m3tune("encode", m3_folder, file, "--out", tmp_path / "v", "--json", *named)
    assert [part["texts"] for part in json.loads(out)] == [2, 2], err
    code, out, err = m3tune("evaluate", m3_folder, file, "--out", tmp_path / "e", "--json", *named)
    assert set(json.loads(out)) == {"m3", "bm25"}, err
    code, out, err = m3tune("evaluate", m3_folder, file, "--out", tmp_path / "e")
    assert (code, out) == (cli.USER_ERROR, "")
    assert "--column query=NAME" in err
