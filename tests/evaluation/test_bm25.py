"""BM25 against the formula, in English and Chinese."""

import math

import pytest

from m3tune.data.collection import Collection
from m3tune.retrieval.bm25 import bm25_run, tokenize
from m3tune.types import Hit, Passage, Query


def collection(passages, queries):
    return Collection(
        {f"q{i}": Query(f"q{i}", text) for i, text in enumerate(queries)},
        {f"p{i}": Passage(f"p{i}", *fields) for i, fields in enumerate(passages)},
        (),
    )


def test_equal_to_the_formula():
    data = collection(
        [("wing lift wing", "Aeroplane"), ("lift shaft",), ("sea water under stone",)], ["wing lift", "water lift"]
    )
    documents = [["aeroplane", "wing", "lift", "wing"], ["lift", "shaft"], ["sea", "water", "under", "stone"]]
    average = sum(map(len, documents)) / 3

    def score(words, document):
        total = 0.0
        for word in words:
            in_documents = sum(word in other for other in documents)
            idf = math.log(1 + (3 - in_documents + 0.5) / (in_documents + 0.5))
            count = document.count(word)
            total += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(document) / average))
        return total

    run = bm25_run(data, ["q0", "q1"], depth=10)
    assert [hit.passage_id for hit in run["q0"]] == ["p0", "p1"]  # the third shares no word
    assert [hit.passage_id for hit in run["q1"]] == ["p2", "p1", "p0"]
    for query_id, words in (("q0", ["wing", "lift"]), ("q1", ["water", "lift"])):
        for hit in run[query_id]:
            assert hit.score == pytest.approx(score(words, documents[int(hit.passage_id[1])]), rel=1e-6)
            assert type(hit.score) is float


def test_ties_keep_the_order_of_the_corpus_at_every_depth():
    data = collection([("same words",)] * 30 + [("same",), ("other thing",)], ["same"])
    order = ["p30", *(f"p{i}" for i in range(30))]
    for depth in (1, 2, 7, 31, 32, 1000):
        assert [hit.passage_id for hit in bm25_run(data, ["q0"], depth)["q0"]] == order[:depth]


def test_queries_without_words_and_empty_corpora():
    data = collection([("water",), ("",)], ["", "the of and", "?!", "unknown", "water"])
    run = bm25_run(data, list(data.queries), depth=5)
    assert [len(run[query_id]) for query_id in data.queries] == [0, 0, 0, 0, 1]
    empty = collection([("",), ("...",)], ["water"])
    assert bm25_run(empty, ["q0"], depth=5) == {"q0": []}
    assert bm25_run(collection([], ["water"]), ["q0"], depth=5) == {"q0": []}


def test_chinese_finds_its_passage():
    data = collection(
        [
            ("北京是中华人民共和国的首都，位于华北平原。",),
            ("上海是中国最大的城市之一，位于长江入海口。",),
            ("微调BGE-M3模型需要问题和段落。", "向量检索"),
        ],
        ["中国的首都是哪座城市？北京", "长江在哪里入海", "如何微调bge模型", "茶"],
    )
    run = bm25_run(data, list(data.queries), depth=3)
    assert [run[q][0].passage_id for q in ("q0", "q1", "q2")] == ["p0", "p1", "p2"]
    assert run["q3"] == []


def test_tokens():
    assert tokenize(["深度学习 with GPT模型, 茶! カタカナー 한국어 x"]) == [
        ["深度", "度学", "学习", "gpt", "模型", "茶", "カタ", "タカ", "カナ", "ナー", "한국", "국어"]
    ]
    assert tokenize(["The lift of a Flügel"]) == [["lift", "flügel"]]


def test_the_same_run_every_time_and_no_noise(capfd):
    texts = [(f"word{i % 7} word{i % 5} word{i % 3} common",) for i in range(50)]
    data = collection(texts, ["word1 word2 common", "word0"])
    first = bm25_run(data, ["q0", "q1"], 20)
    assert first == bm25_run(data, ["q0", "q1"], 20)
    assert all(isinstance(hit, Hit) for hit in first["q0"])
    assert capfd.readouterr() == ("", "")
