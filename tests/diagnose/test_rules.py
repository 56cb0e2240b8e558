"""Every rule finds the illness that is planted, and no other rule finds anything in it; healthy data stays silent."""

from dataclasses import replace

import numpy as np
import pytest

from m3tune.data.collection import Collection
from m3tune.data.intake import Intake
from m3tune.data.read import read_collection
from m3tune.data.similar import NearCopies
from m3tune.diagnose.context import Context, Lengths, Rejected
from m3tune.diagnose.registry import RULES, findings_of
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet

SUBJECTS = [
    "whales",
    "rivers",
    "sugar",
    "enzymes",
    "markets",
    "copper",
    "theories",
    "engines",
    "dialects",
    "harvests",
    "glaciers",
    "violins",
    "tariffs",
]
PLACES = [
    "Peru",
    "Norway",
    "Kenya",
    "Japan",
    "Poland",
    "Chile",
    "Oman",
    "Ghana",
    "Nepal",
    "Cuba",
    "Iran",
    "Mali",
    "Laos",
]
QUESTIONS = (
    "How did {0} change life in {1}?",
    "Why are {0} rare in {1} today?",
    "{1} and its {0}: who paid?",
    "Are the {0} of {1} older than those of its neighbours?",
)
PASSAGES = (
    "In {1} nobody counted {0} before the war, as letters of that time show.",
    "Reports on {0} reached the capital of {1} late and were not believed.",
    "A museum in {1} keeps what is left of the {0} in three small rooms.",
    "Prices of {0} fell twice that year; {1} closed its ports for a month.",
    "{0}, once the pride of {1}, are now studied by a single institute.",
)


def healthy() -> Collection:
    """130 questions, 260 passages, a test split with the first 40."""
    kinds = [(subject, place) for subject in SUBJECTS for place in PLACES][:130]
    queries = {f"q{i}": Query(f"q{i}", QUESTIONS[i % 4].format(*kind)) for i, kind in enumerate(kinds)}
    passages = {f"p{i}": Passage(f"p{i}", PASSAGES[i % 5].format(*kind)) for i, kind in enumerate(kinds)}
    passages |= {f"o{i}": Passage(f"o{i}", PASSAGES[(i + 2) % 5].format(*kind)) for i, kind in enumerate(kinds)}
    ids = tuple(queries)
    return Collection(
        queries,
        passages,
        tuple(Judgment(f"q{i}", f"p{i}") for i in range(130)),
        tuple(Negative(f"q{i}", f"o{(i + k) % 130}") for i in range(130) for k in (3, 7)),
        splits={"train": ids[40:], "test": ids[:40]},
    )


ALWAYS = {"passage-never-relevant", "few-queries"}  # what is true of the healthy collection


def codes(collection, context=None):
    return {finding.code for finding in findings_of(collection, context or Context())} - ALWAYS


def passages(collection, **changed):
    """The collection with other texts for some passages, by id."""
    texts = {id_: replace(collection.passages[id_], text=text) for id_, text in changed.items()}
    return replace(collection, passages={**collection.passages, **texts})


def queries(collection, **changed):
    texts = {id_: replace(collection.queries[id_], text=text) for id_, text in changed.items()}
    return replace(collection, queries={**collection.queries, **texts})


def each_passage(collection, change, prefix):
    records = {id_: change(p) if id_.startswith(prefix) else p for id_, p in collection.passages.items()}
    return replace(collection, passages=records)


def with_header(passage):
    return replace(passage, text=f"# file: book{len(passage.text)}.docx\n# content: {passage.text}")


def renamed(collection, old, new):
    judgments = tuple(j._replace(passage_id=new) if j.passage_id == old else j for j in collection.judgments)
    records = {p.id: p for p in (replace(p, id=new) if p.id == old else p for p in collection.passages.values())}
    return replace(collection, passages=records, judgments=judgments)


def more_judgments(collection, *judgments):
    return replace(collection, judgments=(*collection.judgments, *judgments))


def more_negatives(collection, *negatives):
    return replace(collection, negatives=(*collection.negatives, *negatives))


def more_passages(collection, *records):
    return replace(collection, passages={**collection.passages, **{record.id: record for record in records}})


CHINESE = ("第{}個地方的居民靠什麼維生？", "誰在第{}年來到這座港口", "{}號公路經過哪些國家？", "為何要關閉{}所學校？")
H = healthy()
FIRST = H.passages["p0"].text
ILLNESSES = {
    "empty-text": passages(H, o1=" … "),
    "tiny-text": queries(H, q50="So?", q51="Aha"),
    "garbled-text": passages(
        H, o1=H.passages["o1"].text + " dÃ©jÃ vu", o2="It\ufffds a wonderful reading of what is not there."
    ),
    "text-as-id": renamed(H, "p9", "this id is a sentence"),
    "id-as-text": queries(more_passages(H, Passage("manual-section-7", FIRST.upper())), q60="manual-section-7"),
    "duplicate-passages": more_passages(H, Passage("x", FIRST)),
    "duplicate-queries": queries(H, q60=H.queries["q61"].text),
    "text-under-several-titles": more_passages(H, Passage("x", FIRST, title="Another")),
    "positive-among-negatives": more_negatives(H, Negative("q0", "p0")),
    "conflicting-labels": more_judgments(H, Judgment("q0", "p0", 0)),
    "query-without-positive": replace(H, judgments=H.judgments[:-1]),
    "copied-query": queries(H, **{f"q{i}": H.passages[f"p{i}"].text[:-9] for i in range(80, 90)}),
    "same-negatives": replace(H, negatives=tuple(Negative(f"q{i}", f"o{k}") for i in range(130) for k in (3, 7))),
    "labels-as-passages": replace(H, judgments=tuple(Judgment(f"q{i}", f"p{i % 3}") for i in range(130)), splits={}),
    "differing-sets": replace(H, sets={"a": QuerySet(("q0",)), "b": QuerySet(("q1",), False)}),
    "positive-template": each_passage(H, with_header, "p"),
    "corpus-template": each_passage(H, with_header, "o"),
    "prompt-in-queries": queries(H, **{q.id: f"Find what answers: {q.text}" for q in H.queries.values()}),
    "leaked-query": replace(H, splits={**H.splits, "test": (*H.splits["test"], "q100")}),
    "shared-passages": more_judgments(H, Judgment("q0", "p100")),
    "mixed-scripts": passages(H, **{f"o{i}": f"北京大學的圖書館藏書第{i}冊，記載了當地的歷史" for i in range(20)}),
    "differing-scripts": queries(H, **{f"q{i}": CHINESE[i % 4].format(i) for i in range(130)}),
}
LENGTHS = Lengths(np.array([20] * 200 + [700] * 60), 512, "m")
KNOWN = {
    "rejected-records": Context(rejected=(Rejected("row", "empty-text", 3, "write a text", ("f:1: …",)),)),
    "ignored-fields": Context(ignored={"key 'negs'": 7}),
    "truncated-text": Context(lengths={"passage": LENGTHS}),
    "near-duplicate-passages": Context(near_passages=NearCopies({"o9": "o8"}, (("o8", "o9", 0.9),))),
    "near-duplicate-queries": Context(near_queries=NearCopies({"q9": "q8"}, (("q8", "q9", 0.9),))),
}


def test_every_rule_is_tested_here():
    elsewhere = {"passage-never-relevant", "few-queries", "near-positive-among-negatives", "near-leaked-query"}
    assert set(ILLNESSES) | set(KNOWN) | elsewhere == set(RULES)


def test_the_healthy_collection_has_no_illness():
    assert codes(H) == set()


@pytest.mark.parametrize("code", ILLNESSES)
def test_a_planted_illness_is_found_and_nothing_else(code):
    assert codes(ILLNESSES[code]) == {code}


@pytest.mark.parametrize("code", KNOWN)
def test_what_the_context_knows_is_found_and_nothing_else(code):
    assert codes(H, KNOWN[code]) == {code}


def test_a_negative_like_a_positive_is_found_by_the_group_of_both():
    near = Context(near_passages=NearCopies({"p0": "o3"}, (("o3", "p0", 0.8),)))
    assert codes(H, near) == {"near-positive-among-negatives", "near-duplicate-passages"}
    apart = Context(near_passages=NearCopies({"p0": "o4"}, (("o4", "p0", 0.8),)))
    assert codes(H, apart) == {"near-duplicate-passages"}


def test_a_query_like_one_of_another_split_is_found():
    near = Context(near_queries=NearCopies({"q50": "q0"}, (("q0", "q50", 0.8),)))
    assert codes(H, near) == {"near-leaked-query", "near-duplicate-queries"}
    same_side = Context(near_queries=NearCopies({"q51": "q50"}, (("q50", "q51", 0.8),)))
    assert codes(H, same_side) == {"near-duplicate-queries"}


def test_how_many_queries_are_needed_is_said():
    (finding,) = [f for f in findings_of(H, Context()) if f.code == "few-queries"]
    assert finding.severity == "warning"
    assert finding.evidence["count"] == 40
    assert finding.evidence["needed"]["0.05"] == 283
    assert "283 show 0.05" in finding.fix
    assert "standard deviation of 0.3" in finding.examples[0]


def test_severity_follows_what_is_at_stake():
    def severity(collection, code):
        return next(f.severity for f in findings_of(collection, Context()) if f.code == code)

    assert severity(more_judgments(H, Judgment("q0", "p0", 0)), "conflicting-labels") == "error"
    assert severity(more_judgments(H, Judgment("q0", "p0", 2)), "conflicting-labels") == "warning"
    assert severity(replace(H, judgments=()), "query-without-positive") == "error"
    assert severity(replace(H, judgments=H.judgments[:-1]), "query-without-positive") == "warning"
    assert severity(queries(H, q0="Eh?"), "tiny-text") == "note"


def test_a_title_on_positives_alone_is_a_template():
    collection = each_passage(H, lambda p: replace(p, title=f"Chapter on {p.id}"), "p")
    (finding,) = [f for f in findings_of(collection, Context()) if f.code == "positive-template"]
    assert finding.evidence["mark"] == "a title"


def test_the_gravest_stand_first_and_examples_are_few():
    findings = findings_of(each_passage(ILLNESSES["empty-text"], with_header, "p"), Context())
    order = ["error", "warning", "note"]
    assert [order.index(f.severity) for f in findings] == sorted(order.index(f.severity) for f in findings)
    assert all(len(finding.examples) <= 3 for finding in findings)
    assert all(finding.fix and finding.what and finding.where for finding in findings)


def test_nothing_at_all_is_no_crash():
    empty = Collection({}, {}, ())
    assert {finding.code for finding in findings_of(empty, Context())} == {"few-queries"}


# --- healthy data of the kinds that people have: notes at most, but for what is true of it


def grave(collection):
    return {f.code for f in findings_of(collection, Context()) if f.severity != "note"}


def test_scifact_has_only_what_is_true_of_it():
    collection, _ = read_collection("package:m3tune/demo/scifact", "beir", intake=Intake(skip_bad=True))
    assert grave(collection) == {"leaked-query", "duplicate-queries"}  # the same claim in train and in test, twice


DRCD = [
    (
        "印度的梵語的書寫形式是到何時才出現的？",
        "梵語在很長的時間裡只靠口耳相傳，直到笈多王朝時期才開始被寫成文字並廣為流傳。",
    ),
    ("天城文在何時成為梵語的標準書寫系統？", "自十二世紀以來，天城文逐漸取代各地的字母，如今大多數出版物都採用它。"),
    ("蘭札體如果去掉頭會是什麼書寫體？", "在尼泊爾與西藏常見的這種裝飾字體，去掉上方橫線之後便與另一種草書十分相似。"),
    ("中山市的工業以哪一個鎮最為有名？", "古鎮的燈飾、小欖的五金以及沙溪的服裝，使這座城市聞名於珠江三角洲。"),
    ("誰設計了麻省理工學院的主樓？", "建築師博斯沃思在一九一六年完成這座面向河岸的大樓，圓頂仿自羅馬萬神殿。"),
    ("韓國人平均每年喝多少酒？", "酒在社交場合不可缺少，燒酒銷量居各國之首，而米酒近年又受到年輕人歡迎。"),
]


def test_questions_in_chinese_are_healthy():
    texts = {str(i): pair for i, pair in enumerate(DRCD)}
    collection = Collection(
        {i: Query(i, query) for i, (query, _) in texts.items()},
        {i: Passage(i, passage) for i, (_, passage) in texts.items()},
        tuple(Judgment(i, i) for i in texts),
    )
    assert {f.code for f in findings_of(collection, Context())} == {"few-queries"}


def test_rows_with_short_questions_as_passages_are_healthy():
    labels = ["When will my card arrive?", "Why was my transfer declined?", "How do I change my PIN?"]
    asked = ["I am still waiting on my card?", "They refused my transfer, how come", "pin code new one please"]
    collection = Collection(
        {str(i): Query(str(i), text, prompt="Retrieve similar text.") for i, text in enumerate(asked)},
        {str(i): Passage(str(i), text) for i, text in enumerate(labels)},
        tuple(Judgment(str(i), str(i)) for i in range(3)),
        tuple(Negative(str(i), str(j)) for i in range(3) for j in range(3) if i != j),
    )
    assert grave(collection) == {"few-queries"}
