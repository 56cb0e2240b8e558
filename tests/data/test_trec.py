import gzip
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data.collection import Collection
from m3tune.data.detect import detect_format
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.data.runs import read_run
from m3tune.data.trec import read_trec
from m3tune.data.write import write_collection
from m3tune.errors import DataError
from m3tune.evaluation.store import write_trec_run
from m3tune.types import Hit, Judgment, Negative, Passage, Query
from reading import strictly

TOPICS = """<top>
<num> Number: 301
<title> International Organized
Crime &amp; Co

<desc> Description:
Identify organizations.

<narr> Narrative:
A relevant document must ...
</top>

<top><num>Number: 302</num><title></title><desc>Description: Is the disease of Poliomyelitis under control?</desc></top>
<top>
<num> 303
<title> never closed
"""
DOCS = """<DOC>
<DOCNO> FT-1 </DOCNO>
<DATE>930101</DATE>
<HEADLINE>
A   headline
</HEADLINE>
<TEXT>
<P>One &lt; two.</P>
<P>a < b</P>
</TEXT>
</DOC>
<DOC><DOCNO>FT-2</DOCNO><TEXT>left open
<doc>
<docno>FT-3</docno><text>small letters</text></doc>
"""
CLASSIC = {"topics.301-303.txt": TOPICS, "docs.xml": f"<?xml version='1.0'?>\n<DOCS>\n{DOCS}</DOCS>\n"}
QRELS = "301 0 FT-1 2\n301 0 FT-2 0\n\n303\t0\tFT-3\t1\n"
MARCO = {
    "queries.train.tsv": "1\twhat is it\n",
    "queries.dev.small.tsv": "2\t它是什麼\n",
    "collection.tsv": "0\tfirst\n1\tsecond\n2\t\n",
    "qrels.train.tsv": "1\t0\t0\t1\n",
    "qrels.dev.small.tsv": "2\t0\t1\t1\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def test_marked_up_topics_and_passages(tmp_path):
    intake = Intake()
    collection = read_trec(write(tmp_path, CLASSIC | {"qrels.txt": QRELS}), intake)
    intake.finish()
    assert {query.id: query.text for query in collection.queries.values()} == {
        "301": "International Organized Crime & Co",
        "302": "Is the disease of Poliomyelitis under control?",
        "303": "never closed",
    }
    assert [" ".join(p.full_text.split()) for p in collection.passages.values()] == [
        "A headline One < two. a < b",
        "left open",
        "small letters",
    ]
    assert collection.passages["FT-1"].title == "A headline"
    assert collection.judgments == (
        Judgment("301", "FT-1", 2),
        Judgment("301", "FT-2", 0),
        Judgment("303", "FT-3", 1),
    )
    assert collection.splits == {}
    assert intake.ignored == {
        "'desc' of a topic": 1,
        "'narr' of a topic": 1,
        "'title' of a topic": 1,
        "'date' of a passage": 1,
        "'p' of a passage": 1,
    }


def test_ms_marcos_files(tmp_path):
    for files in (MARCO, {f"{name}.gz": text for name, text in MARCO.items()}):
        folder = write(tmp_path / str(len(list(tmp_path.iterdir()))), files)
        collection, why = read_collection(str(folder))
        assert why.startswith("Read as trec: the folder holds 'queries.dev.small.tsv")
        assert collection.splits == {"train": ("1",), "dev": ("2",)}
        assert collection.queries["2"].text == "它是什麼"
        assert list(collection.passages) == ["0", "1", "2"]


def test_xml_topics_with_attributes(tmp_path):
    text = (
        '<topics task="covid">\n<topic number="7">\n<query>masks</query>\n<question>do they work?</question></topic>\n'
    )
    collection = strictly("trec", write(tmp_path, CLASSIC | {"topics.301-303.txt": text + "</topics>", "qrels": ""}))
    assert list(collection.queries.values()) == [Query("7", "masks")]


def test_a_first_line_can_name_the_columns(tmp_path):
    files = MARCO | {"collection.tsv": "id\ttext\ttitle\n0\tfirst\tT\n1\tsecond\t\n"}
    assert list(strictly("trec", write(tmp_path, files)).passages.values()) == [
        Passage("0", "first", "T"),
        Passage("1", "second"),
    ]


@pytest.mark.parametrize(
    "files, where, what, fix",
    [
        ({"collection.tsv": "0\n"}, "collection.tsv:1", "not 2 columns", "id TAB text"),
        ({"collection.tsv": "0\ta\tb\n"}, "collection.tsv:1", "'0\\ta\\tb'", "id TAB title TAB text"),
        ({"collection.tsv": " \ta\n"}, "collection.tsv:1", "an id first", "id TAB text"),
        ({"collection.tsv": "0\ta\n0\tb\n"}, "collection.tsv:2", "'0' has two texts: 'a' and 'b'", "id of its own"),
        ({"qrels.train.tsv": "1 0 0\n"}, "qrels.train.tsv:1", "3 columns and not 4: '1 0 0'", "query 0 passage grade"),
        ({"qrels.train.tsv": "9 0 0 1\n"}, "qrels.train.tsv:1", "query '9' is unknown", "queries.train.tsv"),
        ({"qrels.train.tsv": "1 0 9 1\n"}, "qrels.train.tsv:1", "passage '9' is unknown", "collection.tsv"),
        ({"qrels.train.tsv": "1 0 0 nan\n"}, "qrels.train.tsv:1", "'nan'", "1 for relevant"),
        ({"qrels.train.txt": "1 0 0 1\n"}, "", "qrels.train.tsv and qrels.train.txt are both the train", "keep one"),
        ({"topics.txt": "<top><title>x"}, "topics.txt:1", "without number: '<top><title>x'", "<num> Number: 301"),
        ({"topics.txt": "<top>\n<num>1\n"}, "topics.txt:1", "without text", "<title>"),
        ({"topics.txt": "<top><num>5<title>x</top>\nnoise\n"}, "topics.txt:1", "'noise'", "<top>"),
        ({"docs.txt": "<DOC><TEXT>a</TEXT></DOC>"}, "docs.txt:1", "without id", "<DOCNO>"),
        ({"docs.txt": "\n<DOC><DOCNO>a</DOCNO></DOC>"}, "docs.txt:2", "without text", "<TEXT>"),
        ({"docs.txt.gz": "\x00"}, "docs.txt.gz:1", "not 2 columns", "TAB"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, files, where, what, fix):
    with pytest.raises(DataError) as caught:
        strictly("trec", write(tmp_path, MARCO | files))
    assert caught.value.where.endswith(where or tmp_path.name)
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize("role, name", [("topics", "queries"), ("corpus", "collection"), ("qrels", "qrels")])
def test_a_missing_file_is_named(tmp_path, role, name):
    write(tmp_path, {file: text for file, text in MARCO.items() if not file.startswith(name)})
    with pytest.raises(DataError, match=f"no file with the {role} is here: .*{name}"):
        strictly("trec", tmp_path)
    with pytest.raises(DataError, match="this is a file"):
        strictly("trec", next(tmp_path.iterdir()))


def test_bad_records_are_left_out_and_counted_where_that_is_asked_for(tmp_path):
    files = MARCO | {"collection.tsv": "0\tfirst\nbroken\n1\tsecond\n", "qrels.dev.small.tsv": "2 0 1 1\n2 0 7 1\n"}
    intake = Intake(skip_bad=True)
    collection, _ = read_collection(str(write(tmp_path, files | {"bm25.run": "1 Q0 0 1 2.5 x\n"})), intake=intake)
    assert len(collection.judgments) == 2
    assert intake.counts()["passage"] == {"read": 3, "kept": 2, "merged": 0, "rejected": {"columns": 1}}
    assert intake.counts()["judgment"] == {"read": 3, "kept": 2, "merged": 0, "rejected": {"unknown-id": 1}}
    assert intake.ignored == {"the run 'bm25.run'": 1}


# --- writing


_ids = st.text("abc:/#é", min_size=1, max_size=4)
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_trec_can_hold_comes_back_equal(data):
    passages = data.draw(st.dictionaries(_ids, _texts, min_size=1, max_size=4))
    queries = data.draw(st.dictionaries(_ids, _texts, min_size=1, max_size=4))
    side = data.draw(st.sampled_from(["train", "dev", "test", None]))
    grades = {q: data.draw(st.dictionaries(st.sampled_from(list(passages)), st.integers(-2, 3))) for q in queries}
    collection = Collection(
        {id_: Query(id_, text) for id_, text in queries.items()},
        {id_: Passage(id_, text) for id_, text in passages.items()},
        tuple(Judgment(q, *pair) for q, graded in grades.items() for pair in graded.items()),
        splits={side: tuple(q for q in queries if grades[q])} if side else {},
    )
    with tempfile.TemporaryDirectory() as folder:
        counts = write_collection(collection, Path(folder) / "out", "trec")
        assert detect_format(Path(folder) / "out")[0] == "trec"
        read = strictly("trec", Path(folder) / "out")
    assert read.fingerprint == collection.fingerprint
    assert not {name for name, count in counts.items() if count and name.startswith("lost_")}


def test_what_trec_cannot_hold_is_counted(tmp_path):
    collection = Collection(
        {"q1": Query("q1", "a\tb", "Find"), "q2": Query("q2", "c")},
        {"p1": Passage("p1", "one\ntwo", "title", "d"), "p2": Passage("p2", "x")},
        (Judgment("q1", "p1", 2, 0.5), Judgment("q1", "p1", 1), Judgment("q2", "p2")),
        (Negative("q1", "p2", score=math.nan),),
        {"test": ("q1",)},
    )
    counts = write_collection(collection, tmp_path / "out", "trec")
    assert {name: count for name, count in counts.items() if count} == {
        "queries": 2,
        "passages": 2,
        "splits": 1,
        "judgments": 2,
        "titles_joined_into_texts": 1,
        "lost_repeated_judgments": 1,
        "lost_tabs_and_line_breaks_of_texts": 2,
        "lost_negatives": 1,
        "lost_scores": 2,
        "lost_prompts": 1,
        "lost_documents": 1,
    }
    assert (tmp_path / "out/queries.tsv").read_text() == "q1\ta b\nq2\tc\n"
    assert (tmp_path / "out/qrels.test.txt").read_text() == "q1 0 p1 2\n"
    assert (tmp_path / "out/qrels.txt").read_text() == "q2 0 p2 1\n"
    assert strictly("trec", tmp_path / "out").splits == {"test": ("q1",)}


@pytest.mark.parametrize("id_", ["a b", "", "a\u3000b"])
def test_an_id_with_white_space_is_refused_and_nothing_is_left(tmp_path, id_):
    with pytest.raises(DataError, match="white space"):
        write_collection(Collection({id_: Query(id_, "x")}, {}, ()), tmp_path / "out", "trec")
    assert not list(tmp_path.iterdir())


# --- runs


@pytest.mark.parametrize("name", ["a.run", "a.run.gz"])
def test_a_run_comes_back_as_it_was_written(tmp_path, name):
    run = {"q2": [Hit("b", 1.5), Hit("a", 1.5), Hit("c", -0.25)], "q1": [Hit("a", 3.0)]}
    write_trec_run(tmp_path / "plain", run, "tag")
    write(tmp_path, {name: (tmp_path / "plain").read_text()})
    assert read_run(tmp_path / name) == run


def test_the_score_orders_a_run_and_then_the_rank(tmp_path):
    (tmp_path / "r").write_text("q Q0 a 1 0.5 t\nq Q0 b 3 2 t\nq\tQ0\tc\t2\t2\tt\n\n")
    assert [hit.passage_id for hit in read_run(tmp_path / "r")["q"]] == ["c", "b", "a"]


@pytest.mark.parametrize(
    "line, what",
    [
        ("q Q0 a 1 0.5", "5 columns and not 6: 'q Q0 a 1 0.5'"),
        ("q Q0 a x 0.5 t", "the rank 'x' is not a whole number"),
        ("q Q0 a 1.5 0.5 t", "the rank '1.5' is not a whole number"),
        ("q Q0 a 1 nan t", "the score 'nan' is not a finite number"),
        ("p Q0 a 2 0.5 t", "the passage 'a' stands twice for the query 'p'"),
    ],
)
def test_what_is_wrong_with_a_run_is_named(tmp_path, line, what):
    (tmp_path / "r").write_text(f"p Q0 a 1 1 t\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_run(tmp_path / "r")
    assert caught.value.where.endswith("r:2")
    assert caught.value.what == what
    assert "query Q0 passage rank score tag" in caught.value.fix or "keep its better rank" in caught.value.fix
    assert "skip" not in caught.value.fix  # no setting leaves lines of a run out
    intake = Intake(skip_bad=True)
    assert read_run(tmp_path / "r", intake) == {"p": [Hit("a", 1.0)]}
    assert intake.rejected["hit"].total() == 1
