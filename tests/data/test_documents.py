import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.chunks import chunks_of, count_words
from m3tune.data.documents import read_documents
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.data.write import write_collection
from m3tune.errors import DataError
from reading import strictly

GUIDE = """---
title: not a heading
# nor this
---
Before any heading.

# Guide

## Install ##

### Linux
Run this:

```sh
# a comment, no heading

make install
```

### Windows
Click.

Setext
======
Under setext.

- an item
---
A rule is no heading.

| a | b |
---
#hashtag
"""


def chunks(text, kind="markdown", **sizes):
    return [(" > ".join(headings), body) for headings, body in chunks_of(text, kind, **sizes)]


def words(number, start=0):
    return " ".join(f"w{n}" for n in range(start, start + number))


def test_headings_make_the_path_and_fences_and_front_matter_do_not():
    assert chunks(GUIDE) == [
        ("", "Before any heading."),
        ("Guide > Install > Linux", "Run this:\n\n```sh\n# a comment, no heading\n\nmake install\n```"),
        ("Guide > Install > Windows", "Click."),
        ("Setext", "Under setext.\n\n- an item\n---\nA rule is no heading.\n\n| a | b |\n---\n#hashtag"),
    ]


def test_a_heading_ends_those_below_it_and_levels_may_be_skipped():
    text = "# A\n### B\nb\n## C\nc\n#\nd\n"
    assert chunks(text) == [("A > B", "b"), ("A > C", "c"), ("", "d")]


def test_reflowed_lines_and_line_ends_of_windows():
    assert chunks("One\r\ntwo\r\n---\r\ntext\r\n") == [("One two", "text")]


def test_an_open_fence_runs_to_the_end_and_a_longer_one_closes_it():
    assert chunks("~~~~\n~~~\n# x\n") == [("", "~~~~\n~~~\n# x")]
    assert chunks("```\n# x\n`````\n# y\nz") == [("", "```\n# x\n`````"), ("y", "z")]


def test_restructured_text():
    text = "=====\nGuide\n=====\n\nInstall\n-------\nSteps.\n\nUse\n---\nMore.\n\nOther\n=====\nLast\n-\n"
    assert chunks(text, "rst") == [
        ("Guide > Install", "Steps."),
        ("Guide > Use", "More."),
        ("Guide > Use > Other", "Last\n-"),
    ]


def test_plain_text_has_no_headings():
    assert chunks("# A\n=\nb\n\n---\n", "text") == [("", "# A\n=\nb\n\n---")]


def test_paragraphs_are_packed_up_to_the_size_and_never_across_a_heading():
    text = "# A\n" + "\n\n".join(words(30) for _ in range(5)) + "\n# B\n" + words(10)
    sizes = [(title, count_words(body)) for title, body in chunks(text, words=70, fewest_words=20)]
    assert sizes == [("A", 60), ("A", 60), ("A", 30), ("B", 10)]


def test_a_tiny_paragraph_takes_the_next_and_a_tiny_last_one_joins_the_one_before():
    text = f"{words(5)}\n\n{words(98)}\n\n{words(99)}\n\n{words(6)}"
    assert [count_words(body) for _, body in chunks(text, words=100, fewest_words=10)] == [103, 105]


def test_a_long_paragraph_is_cut_at_the_ends_of_sentences():
    text = 'One two 3.5 four. "Five six!" Seven eight? Nine ten eleven twelve.'
    assert [body for _, body in chunks(text, words=6, fewest_words=0)] == [
        'One two 3.5 four. "Five six!"',
        "Seven eight? Nine ten eleven twelve.",
    ]


def test_chinese_is_cut_at_its_own_stops_and_each_character_counts():
    text = "第一句話很長。第二句話也很長！」第三句"
    assert count_words(text) == 18
    assert [body for _, body in chunks(text, "text", words=10, fewest_words=0)] == [
        "第一句話很長。",
        "第二句話也很長！」",
        "第三句",
    ]


def test_a_long_code_block_is_cut_at_line_ends_and_a_short_one_never():
    code = "```\n" + "".join(f"    x{n} = {n}\n" for n in range(10)) + "```"
    parts = [body for _, body in chunks(f"{words(8)}\n\n{code}", words=12, fewest_words=0)]
    assert parts[0] == words(8)
    assert "\n".join(parts[1:]) == code
    assert all(count_words(part) <= 12 for part in parts)
    whole = [body for _, body in chunks(f"{words(8)}\n\n{code}", words=40, fewest_words=0)]
    assert whole == [words(8), code] or whole == [f"{words(8)}\n\n{code}"]


_documents = st.lists(
    st.sampled_from(["# A", "## B", "```", "word. " * 9, "字。" * 9, "", "===", "---", "x" * 99, "> q", " " * 5])
    | st.text(),
    max_size=25,
).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(text=_documents, kind=st.sampled_from(["markdown", "rst", "text"]), size=st.integers(1, 30))
def test_nothing_is_lost_and_no_passage_is_too_long(text, kind, size):
    found = list(chunks_of(text, kind, words=size, fewest_words=size // 3))
    assert all(body.strip() for _, body in found)
    assert all(count_words(body) <= 2 * size + size for _, body in found)
    if kind == "text":
        assert "".join("".join(body for _, body in found).split()) == "".join(text.split())


# --- folders


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


FILES = {
    "guide.md": "# Guide\nIt starts.\n## End\nIt ends.\n",
    "説明 書/a b.MARKDOWN": "\ufeff# 標題\n內容。\n",
    "notes.txt.gz": "Just text.\n",
    ".hidden/x.md": "not read",
    "picture.png": b"\x89PNG",
}


def test_a_folder_becomes_passages_by_path(tmp_path):
    collection, why = read_collection(str(write(tmp_path, FILES)))
    assert why.startswith(
        "Read as documents: the folder holds texts such as 'guide.md', 'notes.txt.gz', '説明 書/a b.MARKDOWN', and no"
    )
    assert "It holds no question. To train or measure, bring questions: questions.csv" in why
    assert [(p.id, p.title, p.text, p.document) for p in collection.passages.values()] == [
        ("guide.md#1", "Guide", "It starts.", "guide.md"),
        ("guide.md#2", "Guide > End", "It ends.", "guide.md"),
        ("notes.txt.gz#1", "", "Just text.", "notes.txt.gz"),
        ("説明 書/a b.MARKDOWN#1", "標題", "內容。", "説明 書/a b.MARKDOWN"),
    ]
    assert collection == strictly("documents", tmp_path)


def test_one_document(tmp_path):
    collection, why = read_collection(str(write(tmp_path, FILES) / "guide.md"))
    assert why.startswith("Read as documents: guide.md is one")
    assert list(collection.passages) == ["guide.md#1", "guide.md#2"]


def test_sizes_are_arguments(tmp_path):
    write(tmp_path, {"a.txt": "\n\n".join([words(10)] * 6)})
    assert len(read_documents(tmp_path, Intake(), words=20, fewest_words=5).passages) == 3


def test_bad_documents_are_named_and_can_be_left_out(tmp_path):
    write(tmp_path, FILES | {"bad.txt": b"\xff\xfe", "empty.md": "---\na: b\n---\n# Only\n"})
    with pytest.raises(DataError) as caught:
        read_collection(str(tmp_path))
    assert "bad.txt: not UTF-8" in caught.value.what
    assert "empty.md: no text is in it" in caught.value.what
    intake = Intake(skip_bad=True)
    assert len(read_collection(str(tmp_path), intake=intake)[0].passages) == 4
    assert intake.rejected["document"] == {"not-utf8": 1, "empty-text": 1}


def test_a_folder_without_documents(tmp_path):
    with pytest.raises(DataError, match="no document is here"):
        strictly("documents", write(tmp_path, {"a.pdf": b"%PDF"}))


@pytest.mark.parametrize("format, name", [("flagembedding", "a.jsonl"), ("pairs", "a.csv"), ("datasets", "a")])
def test_formats_of_questions_say_that_there_is_none(tmp_path, format, name):
    collection = strictly("documents", write(tmp_path / "in", FILES))
    with pytest.raises(DataError, match="the data has no question") as caught:
        write_collection(collection, tmp_path / name, format)
    assert "questions.csv" in caught.value.fix
    write_collection(collection, tmp_path / "a.json", "llamaindex")
    assert len(read_collection(str(tmp_path / "a.json"))[0].passages) == 4


# --- questions

LONG = "\n\n".join(f"Paragraph {n}. " + words(30, 100 * n) for n in range(4))


def test_questions_are_judged_by_their_quotes(tmp_path):
    rows = 'question,document,quote\nHow does it end?,guide.md,"It\n ends."\nWhat is it?,./guide.md,\n'
    collection, why = read_collection(str(write(tmp_path, FILES | {"questions.csv": rows})))
    assert why == "Read as documents: the folder holds 'questions.csv'."
    first, second = collection.queries
    assert collection.positives == {first: ("guide.md#2",), second: ("guide.md#1", "guide.md#2")}


def test_a_quote_across_two_passages_is_in_both(tmp_path):
    write(tmp_path, {"a.txt": LONG, "questions.tsv": "query\tdocument\tquote\nq\ta.txt\tw129 Paragraph 2.\n"})
    collection = read_documents(tmp_path, Intake(), words=32, fewest_words=0)
    assert [judgment.passage_id for judgment in collection.judgments] == ["a.txt#2", "a.txt#3"]


@pytest.mark.parametrize(
    "row, what, fix",
    [
        ('{"query": "q", "document": "guid.md"}', "the document 'guid.md' is unknown", "did you mean 'guide.md'?"),
        ('{"query": "q", "document": "guide.md", "quote": "no"}', "the quote is not in guide.md: 'no'", "copy it"),
        ('{"query": " ", "document": "guide.md"}', "the question is empty", "write it"),
        ('{"query": "q"}', "the key 'document' is missing", "add 'document'"),
        ('{"query": "q", "document": 3}', "'document' is not a text: 3", "JSON string"),
    ],
)
def test_what_is_wrong_with_a_question_is_named(tmp_path, row, what, fix):
    good = '{"query": "x", "document": "guide.md"}\n'
    with pytest.raises(DataError) as caught:
        read_collection(str(write(tmp_path, FILES | {"questions.jsonl": good + row})))
    assert caught.value.where.endswith("questions.jsonl:2")
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_the_same_folder_gives_the_same_collection_in_whatever_order_it_was_written(tmp_path):
    names = list(FILES)
    first = strictly("documents", write(tmp_path / "a", FILES))
    random.Random(1).shuffle(names)
    assert strictly("documents", write(tmp_path / "b", {n: FILES[n] for n in names})).fingerprint == first.fingerprint
