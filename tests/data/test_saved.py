import json
import sys
from pathlib import Path

import pytest

from m3tune.data.collection import Collection, text_hash
from m3tune.data.detect import detect_format
from m3tune.data.hub import is_hub_id
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.data.saved import write_saved
from m3tune.data.write import write_collection
from m3tune.errors import DataError
from m3tune.types import Judgment, Negative, Passage, Query
from reading import strictly

datasets = pytest.importorskip("datasets")

ROWS = {"anchor": ["a", "b"], "positive": ["one", "two"], "negative": ["two", "three"]}
CORPUS = {"_id": ["p1", "p2"], "title": ["T", ""], "text": ["one", "two"]}
QUERIES = {"_id": ["q1", "q2"], "text": ["first?", "second?"]}
QRELS = {"query-id": ["q1"], "corpus-id": ["p1"], "score": [2]}
SPLIT = Collection(
    {"q1": Query("q1", "a", "Find"), "q2": Query("q2", "b"), "q3": Query("q3", "c")},
    {"p1": Passage("p1", "one", "T"), "p2": Passage("p2", "two"), "n": Passage("n", "three", "N")},
    (Judgment("q1", "p1", score=0.5), Judgment("q1", "p2"), Judgment("q2", "p2"), Judgment("q3", "p1")),
    (Negative("q1", "n", score=-1.0), Negative("q3", "n")),
    {"train": ("q1", "q2"), "test": ("q3",)},
)


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def saved(path: Path, **splits: dict) -> Path:
    """A folder as people have it: `save_to_disk` of one data set, or of a dictionary of splits."""
    of_split = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
    (of_split.get("") or datasets.DatasetDict(of_split)).save_to_disk(str(path))
    return path


# --- folders


def test_one_data_set_is_read_by_its_columns_and_brings_no_split(tmp_path):
    collection, why = read_collection(str(saved(tmp_path / "路 a", **{"": ROWS})))
    assert why == "Read as datasets: the folder holds 'state.json', 'dataset_info.json'."
    assert collection.positives == {text_hash("a"): (text_hash("one"),), text_hash("b"): (text_hash("two"),)}
    assert collection.given_negatives == {text_hash("a"): (text_hash("two"),), text_hash("b"): (text_hash("three"),)}
    assert collection.splits == {}


def test_splits_become_the_collections_under_their_usual_names(tmp_path):
    more = {"query": ["c"], "pos": ["two"]}
    collection = strictly("datasets", saved(tmp_path / "d", train=ROWS, validation=more, test=ROWS))
    a, b, c = map(text_hash, "abc")
    assert collection.splits == {"train": (a, b), "dev": (c,), "test": (a, b)}
    alone = strictly("datasets", saved(tmp_path / "e", NanoNQ=ROWS))
    assert alone.splits == {}


def test_a_column_can_be_named(tmp_path):
    folder = saved(tmp_path / "d", train={"query": ["a"], "body": ["one"], "url": ["x"]})
    with pytest.raises(DataError, match="no column is the positive") as caught:
        read_collection(str(folder))
    assert caught.value.where.endswith("data-00000-of-00001.arrow: row 1")
    collection, why = read_collection(str(folder), columns={"body": "positive", "url": "ignore"})
    assert why.startswith("Read as datasets: the column 'body'")
    assert len(collection.judgments) == 1


@pytest.mark.parametrize("qrels", ["default", "qrels"])
def test_folders_of_beirs_tables(tmp_path, qrels):
    saved(tmp_path / "corpus", corpus=CORPUS)
    saved(tmp_path / "queries", queries=QUERIES)
    saved(tmp_path / qrels, train=QRELS, test={"query-id": ["q2"], "corpus-id": ["p2"], "score": [1]})
    collection, why = read_collection(str(tmp_path))
    assert why.startswith(f"Read as datasets: the folder holds 'corpus/', 'queries/', '{qrels}/'")
    assert collection.judgments == (Judgment("q1", "p1", 2), Judgment("q2", "p2", 1))
    assert collection.splits == {"train": ("q1",), "test": ("q2",)}
    assert collection.passages["p1"] == Passage("p1", "one", "T")


def test_bad_rows_are_named_and_can_be_left_out(tmp_path):
    rows = {"query": ["a", None, "c"], "positive": ["one", "two", " "]}
    folder = saved(tmp_path / "d", train=rows)
    with pytest.raises(DataError) as caught:
        read_collection(str(folder))
    assert "row 2: 'query' is not a text: None" in caught.value.what
    assert "row 3: 'positive' is empty" in caught.value.what
    intake = Intake(skip_bad=True)
    collection, _ = read_collection(str(folder), intake=intake)
    assert intake.counts()["row"] == {
        "read": 3,
        "kept": 1,
        "merged": 0,
        "rejected": {"wrong-type": 1, "no-positive": 1},
    }
    assert collection.splits == {"train": (text_hash("a"),)}


@pytest.mark.parametrize(
    "harm, where, what",
    [
        (lambda d: (d / "train/state.json").unlink(), "train", "state.json is missing"),
        (lambda d: (d / "train/state.json").write_text("{}"), "state.json", "'_data_files' is not a list"),
        (lambda d: (d / "dataset_dict.json").write_text('{"splits": []}'), "dataset_dict.json", "names no split"),
        (lambda d: (d / "dataset_dict.json").write_text("{"), "dataset_dict.json:1", "broken JSON"),
        (lambda d: next(d.glob("train/*.arrow")).unlink(), ".arrow", "not a sound Arrow file"),
        (lambda d: next(d.glob("train/*.arrow")).write_bytes(b"\x00" * 99), ".arrow", "not a sound Arrow file"),
        (lambda d: (d / "train").rename(d / "trial"), "train", "state.json is missing"),
    ],
)
def test_a_broken_folder_is_named(tmp_path, harm, where, what):
    folder = saved(tmp_path / "d", train=ROWS)
    harm(folder)
    with pytest.raises(DataError) as caught:
        read_collection(str(folder))
    assert caught.value.where.endswith(where)
    assert what in caught.value.what


@pytest.mark.parametrize("splits, what", [(("a", "b"), "'a' is unknown"), (("dev", "valid"), "two splits are the dev")])
def test_splits_of_other_names_are_refused(tmp_path, splits, what):
    with pytest.raises(DataError, match=what):
        strictly("datasets", saved(tmp_path / "d", **dict.fromkeys(splits, ROWS)))


# --- writing


def test_what_is_written_comes_back_equal_and_loads_in_datasets(tmp_path):
    counts = write_collection(SPLIT, tmp_path / "d", "datasets")
    assert not {name for name, count in counts.items() if count and name.startswith("lost_")}
    assert (counts["queries"], counts["judgments"], counts["negatives"], counts["splits"]) == (3, 4, 2, 2)
    read = strictly("datasets", tmp_path / "d")
    assert read.splits == SPLIT.splits
    assert dict(read.queries) == SPLIT.queries
    assert dict(read.passages) == SPLIT.passages
    assert set(read.judgments) == set(SPLIT.judgments)
    assert set(read.negatives) == set(SPLIT.negatives)
    loaded = datasets.load_from_disk(str(tmp_path / "d"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 3, "test": 1}
    assert loaded["train"][0] == {
        "query_id": "q1",
        "query": "a",
        "prompt": "Find",
        "positive_id": "p1",
        "title": "T",
        "positive": "one",
        "positive_score": 0.5,
        "negative_id": ["n"],
        "negative_title": ["N"],
        "negative": ["three"],
        "negative_score": [-1.0],
    }


def test_without_splits_it_is_one_data_set_whose_bytes_are_the_same_each_time(tmp_path):
    parts = {name: getattr(SPLIT, name) for name in ("queries", "passages", "judgments", "negatives")}
    for name in "ab":
        write_collection(Collection(**parts), tmp_path / name, "datasets")
    assert len(datasets.load_from_disk(str(tmp_path / "a"))) == 4
    assert strictly("datasets", tmp_path / "a").splits == {}
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_in_no_split_is_counted(tmp_path):
    parts = {name: getattr(SPLIT, name) for name in ("queries", "passages", "judgments", "negatives")}
    counts = write_saved(Collection(**parts, splits={"train": ("q1",)}), tmp_path / "d")
    assert counts["lost_queries_in_no_split"] == 2
    assert counts["lost_pairs_of_queries_in_no_split"] == 3
    rest = write_saved(Collection(**parts, splits={"test": ("q1",)}), tmp_path / "e")
    assert rest["lost_queries_in_no_split"] == 0
    assert json.loads((tmp_path / "e/dataset_dict.json").read_text()) == {"splits": ["train", "test"]}


def test_nothing_at_all_can_be_written_and_read(tmp_path):
    write_collection(Collection({}, {}, ()), tmp_path / "d", "datasets")
    assert detect_format(tmp_path / "d")[0] == "datasets"
    assert len(strictly("datasets", tmp_path / "d").queries) == 0


# --- the Hub


@pytest.mark.parametrize(
    "spec", ["./a/b", "../a", "/a/b", "~/a", "a/b/c", "a/b/", r"a\b", "a", "package:a/b", "a/b.jsonl", "a/b.csv.gz"]
)
def test_what_looks_like_a_path_is_never_tried_as_a_hub_id(monkeypatch, tmp_path, spec):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("m3tune.data.hub.read_hub", lambda *_: pytest.fail("went to the Hub"))
    assert not is_hub_id(spec, asked_for=False)
    with pytest.raises(DataError, match=r"does not exist|is not installed"):
        read_collection(spec)


def test_a_name_in_a_folder_that_is_there_is_a_path_unless_the_hub_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("data/faq", asked_for=False)
    (tmp_path / "data/fap").mkdir(parents=True)
    assert not is_hub_id("data/faq", asked_for=False)
    assert is_hub_id("data/faq", asked_for=True)
    assert not is_hub_id("data/fap", asked_for=True)
    with pytest.raises(DataError) as caught:
        read_collection("data/faq")
    assert caught.value.fix == "did you mean data/fap?"


@pytest.mark.parametrize("spec", ["nobody/nothing", "nobody/nothing:config"])
def test_a_hub_id_without_a_network_says_so_and_names_the_cache(spec):
    with pytest.raises(DataError) as caught:
        read_collection(spec)
    assert caught.value.where == "nobody/nothing"
    assert "the Hub cannot be reached" in caught.value.what
    assert str(datasets.config.HF_DATASETS_CACHE) in caught.value.what
    assert "HF_HOME" in caught.value.fix


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        read_collection("nobody/nothing")
    assert "pip install 'm3tune[hub]'" in caught.value.fix


@pytest.fixture
def hub(monkeypatch):
    """Puts data sets on the Hub: config -> split -> columns."""

    def put(configs):
        def load(name, config):
            assert name == "owner/name"
            return datasets.DatasetDict({s: datasets.Dataset.from_dict(c) for s, c in configs[config].items()})

        monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: list(configs))
        monkeypatch.setattr(datasets, "load_dataset", load)

    return put


def test_a_data_set_of_the_hub(hub):
    hub({"small": {"train": ROWS, "test": ROWS}})
    for spec in ("owner/name", "owner/name:small"):
        collection, why = read_collection(spec)
        assert why == f"Read as datasets: {spec} is no path here, and names a data set of the Hub."
        assert list(collection.splits) == ["train", "test"]
    collection, _ = read_collection("owner/name", "datasets", {"negative": "ignore"})
    assert not collection.negatives


def test_a_beir_data_set_of_the_hub(hub):
    hub({"corpus": {"corpus": CORPUS}, "default": {"test": QRELS}, "queries": {"queries": QUERIES}})
    collection, _ = read_collection("owner/name")
    assert collection.judgments == (Judgment("q1", "p1", 2),)
    assert collection.splits == {"test": ("q1",)}


def test_one_of_several_configs_must_be_named(hub):
    hub({"large": {"train": ROWS}, "small": {"train": ROWS}})
    with pytest.raises(DataError, match="several configs: 'large', 'small'") as caught:
        read_collection("owner/name")
    assert caught.value.fix == "name one, as in owner/name:large"
    assert len(read_collection("owner/name:small")[0].judgments) == 2


def test_bad_rows_of_the_hub_are_named(hub):
    hub({"default": {"train": {"query": ["a", ""], "positive": ["one", "two"]}}})
    with pytest.raises(DataError) as caught:
        read_collection("owner/name")
    assert caught.value.where == "owner/name:default train: row 2"


def test_a_data_set_that_the_library_refuses_is_an_error_of_ours(hub, monkeypatch):
    def refuse(*_):
        raise ValueError("Unknown split\nmore")

    hub({"default": {"train": ROWS}})
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"datasets cannot load it \(Unknown split\)"):
        read_collection("owner/name")
