"""Every format is seen for what it is, in any folder and packed in any way, and none is guessed where two fit."""

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from m3tune.config import DataConfig
from m3tune.data.collection import Collection
from m3tune.data.detect import detect_format
from m3tune.data.files import create_text
from m3tune.data.read import FORMATS, read_collection
from m3tune.data.write import WRITERS, write_collection
from m3tune.errors import DataError
from m3tune.types import Judgment, Passage, Query

DATA = Collection(
    {"q1": Query("q1", "first?"), "q2": Query("q2", "第二？")},
    {"p1": Passage("p1", "one"), "p2": Passage("p2", "二")},
    (Judgment("q1", "p1"), Judgment("q2", "p2")),
)
# Format -> the name of the file or folder that is written.
WRITTEN = {
    "beir": "d",
    "llamaindex": "d.json",
    "flagembedding": "d.jsonl",
    "pairs": "d.csv",
    "trec": "d",
    "datasets": "d",
    "documents": "d",
}


def make(format: str, place: Path) -> Path:
    """Data of a format, in a folder or file of this place."""
    place.mkdir(parents=True, exist_ok=True)
    target = place / WRITTEN[format]
    if format == "documents":
        target.mkdir()
        (target / "a b.md").write_text("# T\none\n", encoding="utf-8")
    else:
        write_collection(DATA, target, format)
    return target


def test_every_format_stands_everywhere():
    assert set(WRITTEN) == set(FORMATS)
    assert set(WRITERS) == set(FORMATS) - {"documents"}
    assert set(get_args(DataConfig.model_fields["format"].annotation)) == {"auto", *FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_is_seen_wherever_it_lies(format, tmp_path, monkeypatch):
    target = make(format, tmp_path / "我的 資料")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    places = [str(target), f"我的 資料/{target.name}", f"./我的 資料/{target.name}", f"~/我的 資料/{target.name}"]
    read = []
    for place in places:
        collection, why = read_collection(place)
        assert why.startswith(f"Read as {format}: ")
        read.append(collection.fingerprint)
        assert read_collection(place, format)[1].startswith(f"Read as {format}, as asked for.")
    assert len(set(read)) == 1
    os.symlink(target, tmp_path / f"link-{target.name}")
    assert read_collection(f"link-{target.name}")[0].fingerprint == read[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_path_names_the_nearest(format, tmp_path, monkeypatch):
    target = make(format, tmp_path / "資料")
    wrong = target.with_name("x" + target.name)
    for spec in (str(wrong), "資料/" + wrong.name):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match="the data does not exist") as caught:
            read_collection(spec)
        assert target.name in caught.value.fix


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("format", ["beir", "trec", "documents", "llamaindex", "flagembedding"])
def test_files_may_be_packed(format, packed, tmp_path):
    target = make(format, tmp_path)
    plain = read_collection(str(target))[0]
    for file in [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]:
        with create_text(file.with_name(file.name + packed)) as text:
            text.write(file.read_text(encoding="utf-8"))
        file.unlink()
    collection, why = read_collection(str(target) + (packed if WRITTEN[format] != "d" else ""))
    assert why.startswith(f"Read as {format}")
    assert [passage.text for passage in collection.passages.values()] == [p.text for p in plain.passages.values()]


@pytest.mark.parametrize(
    "first, second", [("beir", "trec"), ("beir", "datasets"), ("trec", "flagembedding"), ("datasets", "pairs")]
)
def test_where_two_formats_fit_both_are_named_with_the_way_to_choose(first, second, tmp_path):
    target = make(first, tmp_path)
    other = make(second, tmp_path / "other")
    for file in [other] if other.is_file() else list(other.iterdir()):
        file.rename(target / file.name)
    with pytest.raises(DataError) as caught:
        detect_format(target)
    assert f"several formats fit ({first}, {second})" in caught.value.what
    assert "--from FORMAT" in caught.value.fix
    assert "data.format" in caught.value.fix
    assert len(read_collection(str(target), first)[0].queries) == 2


def test_documents_beside_other_data_are_not_the_data(tmp_path):
    for format in ("beir", "trec", "datasets"):
        target = make(format, tmp_path / format)
        (target / "README.md").write_text("# Licence\nFree.\n")
        assert detect_format(target)[0] == format


def test_questions_about_documents_are_no_pairs(tmp_path):
    target = make("documents", tmp_path)
    (target / "questions.csv").write_text("query,document\nq,a b.md\n")
    assert detect_format(target) == ("documents", "Read as documents: the folder holds 'questions.csv'.")
    (target / "questions.csv").write_text("query,document\nq,a text that answers it\n")
    assert detect_format(target)[0] == "pairs"


def test_what_is_broken_among_documents_is_said(tmp_path):
    target = make("documents", tmp_path)
    (target / "a.jsonl").write_text('{"query')
    with pytest.raises(DataError, match="broken JSON"):
        detect_format(target)


def test_a_run_is_no_data(tmp_path):
    (tmp_path / "bm25.run").write_text("q1 Q0 p1 1 2.0 bm25\n")
    for place in (tmp_path, tmp_path / "bm25.run"):
        with pytest.raises(DataError) as caught:
            detect_format(place)
        assert "TREC folder" in caught.value.fix


def test_columns_that_are_named_make_pairs(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"query": "a", "body": "one"}))
    assert read_collection(str(tmp_path / "a.jsonl"), columns={"body": "positive"})[1].startswith("Read as pairs")
    with pytest.raises(DataError, match="trec data has no columns"):
        read_collection(str(tmp_path), "trec", {"body": "positive"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("faq.csv", "question;answer\nHow long?;5 m\n", "its columns are divided by ';'"),
        ("faq.csv", "question\tanswer\nHow long?\t5 m\n", r"its columns are divided by '\t'"),
        ("faq.tsv", "question,answer\nHow long?,5 m\n", "its columns are divided by ','"),
        ("faq.csv", "how long is it,it is 5 m\nhow wide is it,3 m\n", "--column query=NAME"),
        ("faq.csv", "question,answer\n", "there is no record in this file"),
        ("faq.json", "", "there is no record in this file"),
        ("faq.jsonl", " \n\n", "there is no record in this file"),
        ("faq.xlsx", "PK", "save it as CSV in UTF-8"),
        ("Handbook.PDF", "%PDF-1.7", "save its text as .txt or .md"),
        ("all.tar.gz", "", "unpack it"),
        ("faq.csv", "question,answer,context\na?,b,c\n", "say --column ignore=context"),
    ],
)
def test_a_file_as_people_have_it_is_told_what_to_do(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path / name))
    assert said in str(caught.value)
    assert str(tmp_path / name) in caught.value.where


def test_another_encoding_is_not_said_to_be_latin(tmp_path):
    (tmp_path / "faq.csv").write_bytes("question,answer\n什么是光?,光是电磁波\n".encode("gb18030"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_collection(str(tmp_path / "faq.csv"))
    assert "GB18030 for Chinese" in caught.value.fix
    assert "LATIN1" not in caught.value.fix
