import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.data import duplicates
from m3tune.data.bands import bucket_pairs
from m3tune.data.duplicates import near_duplicates
from m3tune.data.likeness import PASSAGES, QUERIES, containment, same_question
from m3tune.data.normal import normalise, shingles

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("ra", "ne", "lu", "pim", "sto")]


def passages(count: int, words: int = 40, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]


def normal(text: str) -> str:
    return normalise([text]).strings()[0]


def plain_words(text: str) -> list[str]:
    return [word for word in normal(text).split(" ") if word]


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    words = plain_words(text)
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))} if words else set()


def brute_force(texts: list[str]) -> tuple[set[tuple[int, int]], list[int]]:
    """All pairs alike by shingles that are tuples of words, and the first row of each text's component."""
    short = [len(normal(text)) < 96 for text in texts]
    sets = [plain_shingles(text) for text in texts]
    alike = set()
    for i, j in combinations(range(len(texts)), 2):
        shared, union = len(sets[i] & sets[j]), len(sets[i] | sets[j])
        alike_shingles = shared and shared >= union / 2 and shared >= 0.75 * min(len(sets[i]), len(sets[j]))
        same = not (short[i] or short[j]) or same_question(plain_words(texts[i]), plain_words(texts[j]))
        if alike_shingles and same:
            alike.add((i, j))
    groups = list(range(len(texts)))
    for _ in texts:
        for i, j in alike:
            groups[i] = groups[j] = min(groups[i], groups[j])
    return alike, groups


def check_forest(found: duplicates.Duplicates, size: int) -> None:
    """The pairs are sorted, and alone make the groups, without one too many."""
    assert found.pairs.dtype == found.groups.dtype == np.int64
    assert found.similarity.dtype == np.float32
    assert len(found.groups) == size
    assert len(found.pairs) == len(found.similarity) == size - len(set(found.groups.tolist()))
    groups = np.arange(size)
    for first, second in found.pairs.tolist():
        assert first < second
        groups[groups == max(groups[first], groups[second])] = min(groups[first], groups[second])
    assert groups.tolist() == found.groups.tolist()
    assert found.pairs.tolist() == sorted(found.pairs.tolist())


def equal(first: duplicates.Duplicates, second: duplicates.Duplicates) -> bool:
    fields = ("pairs", "similarity", "groups")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in fields)


@st.composite
def collections(draw):
    """Passages, and copies of earlier texts with a few words put before, after or in place of others."""
    texts = passages(draw(st.integers(1, 8)), draw(st.sampled_from([1, 2, 3, 7, 30, 61])), draw(st.integers(0, 99)))
    for _ in range(draw(st.integers(0, 8))):
        words = texts[draw(st.integers(0, len(texts) - 1))].split()
        at, gone = draw(st.integers(0, len(words))), draw(st.integers(0, 3))
        words[at : at + gone] = draw(st.lists(st.sampled_from(WORDS), max_size=4))
        texts.append(draw(st.sampled_from([" ", "  ", ", "])).join(words))
    return texts


@settings(max_examples=40, deadline=None, derandomize=True)
@given(collections())
def test_equals_the_comparison_of_all_pairs(texts):
    found = near_duplicates(texts)
    alike, groups = brute_force(texts)
    check_forest(found, len(texts))
    assert {tuple(pair) for pair in found.pairs.tolist()} <= alike
    # Bands find a pair of Jaccard 0.5 seven times of eight, so only clear pairs have to be together.
    sets = [plain_shingles(text) for text in texts]
    for i, j in alike:
        if len(sets[i] & sets[j]) >= 0.75 * len(sets[i] | sets[j]):
            assert found.groups[i] == found.groups[j]
    assert all(groups[i] <= first for i, first in enumerate(found.groups.tolist()))


def test_the_comparison_with_all_pairs_is_not_vacuous():
    texts = passages(60)
    edited = [" ".join(["one", "more", *text.split()[:-2]]) for text in texts[:30]]
    found = near_duplicates(texts + edited)
    alike, groups = brute_force(texts + edited)
    assert len(alike) == 30
    assert found.groups.tolist() == groups
    assert {tuple(pair) for pair in found.pairs.tolist()} == alike
    assert set(found.similarity.tolist()) == {np.float32(36 / 38)}


HEADER = "Page 7 of the annual report, second edition, all rights reserved."


@pytest.mark.parametrize(
    "edit",
    [
        str.upper,
        lambda text: "\n\t ".join(text.split()),
        lambda text: text.replace(" ", ", ", 9) + " !!",
        lambda text: f"{HEADER} {text}",
        lambda text: " ".join([*text.split()[40:], *text.split()[:40]]),
        lambda text: " ".join("changed" if i % 20 == 7 else word for i, word in enumerate(text.split())),
        lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in text),  # full width
    ],
)
def test_edited_copies_are_found(edit):
    texts = passages(200, words=60)
    edited = [edit(text) for text in texts]
    assert not set(edited) & set(texts)
    found = near_duplicates(texts + edited)
    assert found.groups.tolist() == [*range(200), *range(200)]
    check_forest(found, 400)


def test_texts_that_share_a_part_are_apart():
    texts = passages(40, words=60)
    halves = [" ".join(text.split()[:28]) for text in texts]
    shifted = [" ".join([*a.split()[25:], *b.split()[:25]]) for a, b in pairwise(texts)]
    assert len(near_duplicates(texts + halves + shifted).pairs) == 0


@pytest.mark.parametrize(
    "first, second, alike",
    [
        ("What should I do if my card is compromised?", "What should I do if my card is swallowed?", False),
        ("What should I do if my card is compromised?", "FAQ: what should I do if my card is compromised", True),
        ("依照全球氣候分類，潮州可以被歸類為哪一種氣候帶？", "依照全球氣候分類，潮州可以被歸類為哪一種氣候區？", False),
        (" ".join(WORDS[:30]), " ".join([*WORDS[:29], "swallowed"]), True),
        (" ".join(WORDS[:10]), " ".join(WORDS[:100]), False),
    ],
)
def test_a_word_replaced_in_a_short_passage_makes_another_of_it(first, second, alike):
    assert len(near_duplicates([first, second]).pairs) == alike


def test_a_cluster_of_copies_has_one_pair_a_text():
    text, other = passages(2)
    texts = [text if row % 3 else f"{text.upper()}!" for row in range(3000)] + [other]
    found = near_duplicates(texts)
    assert found.groups.tolist() == [0] * 3000 + [3000]
    assert found.pairs.tolist() == [[0, row] for row in range(1, 3000)]
    assert set(found.similarity.tolist()) == {1}


def test_copies_are_found_among_boilerplate_and_the_boilerplate_costs_little():
    boilerplate = passages(1, words=40)[0]
    texts = [f"{boilerplate} {own}" for own in passages(1500, words=20, seed=1)]
    copies = [text.replace(" ", ", ").title() + " again" for text in texts[::5]]
    measured = []

    def counted(first, second):
        measured.append(1)
        return PASSAGES.similarity(first, second)

    found = near_duplicates(texts + copies, replace(PASSAGES, similarity=counted))
    together = found.groups[: len(texts) : 5] == found.groups[len(texts) :]
    assert together.mean() > 0.99
    assert len(found.pairs) <= len(copies)  # boilerplate alone joins nothing
    assert 0 < len(measured) < 30 * len(texts)  # of 1.6 million pairs


def test_buckets():
    keys = np.array([5, 1, 5, 2, 5, 1, 9] + [7] * 8, np.uint64)
    finer = np.array([0] * 7 + [0, 1, 0, 1, 0, 1, 0, 1], np.uint64)
    rows = 10 * np.arange(len(keys))
    pairs = bucket_pairs(keys, finer, rows)
    small = {(0, 20), (0, 40), (20, 40), (10, 50)}
    found = {tuple(pair) for pair in pairs.tolist()}
    assert len(found) == len(pairs) <= 4 * len(keys)
    assert {pair for pair in found if pair[0] < 70} == small
    even, odd = [70, 90, 110, 130], [80, 100, 120, 140]
    assert set(combinations(even, 2)) | set(combinations(odd, 2)) | {(70, row) for row in odd} <= found


@pytest.mark.parametrize("likeness", [PASSAGES, QUERIES])
def test_few_and_empty_texts(likeness):
    assert near_duplicates([], likeness).groups.tolist() == []
    assert near_duplicates([], likeness).pairs.shape == (0, 2)
    assert near_duplicates(["one"], likeness).groups.tolist() == [0]
    texts = ["", "", "?!", "...", "one", "One.", "\u00ad", "two", "  two"]
    found = near_duplicates(texts, likeness)
    assert found.groups.tolist() == [0, 1, 2, 3, 4, 4, 6, 7, 7]
    check_forest(found, len(texts))


def test_the_same_in_every_process_and_for_every_chunk(monkeypatch):
    texts = passages(300) + [f"{text} more" for text in passages(300)[::2]]
    found = near_duplicates(texts)
    assert len(found.pairs) == 150
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_duplicates import *\n"
        "texts = passages(300) + [f'{text} more' for text in passages(300)[::2]]\n"
        "found = near_duplicates(texts); print(found.pairs.tolist(), found.groups.tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert printed.strip() == f"{found.pairs.tolist()} {found.groups.tolist()}"
    monkeypatch.setattr(duplicates, "_CHUNK_TEXTS", 7)
    monkeypatch.setattr(duplicates, "_CHUNK_PAIRS", 3)
    monkeypatch.setattr(duplicates, "_CHUNK_CHARACTERS", 1000)
    assert equal(near_duplicates(texts), found)
    monkeypatch.setattr(duplicates, "_MOST_REFUSED", 0)
    assert equal(near_duplicates(texts), found)


class Disk:
    """Texts with a length, an order and rows, and nothing else."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __iter__(self):
        return iter(self.texts)

    def __getitem__(self, row):
        assert type(row) is int
        return self.texts[row]


def test_texts_need_not_be_a_list():
    texts = passages(50) + [f"{text} more" for text in passages(50)]
    assert equal(near_duplicates(Disk(texts)), near_duplicates(texts))
    assert len(near_duplicates(texts).pairs) == 50


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The  Cat,\nsat!", "the cat sat"),
        ("Ｆｕｌｌ ①", "full 1"),
        ("STRASSE straße", "strasse strasse"),
        ("co\u00adop\u200berate", "cooperate"),
        ("e\u0301te\u0301", "été"),
        ("台灣第1座gpu卡", "台 灣 第 1 座 gpu 卡"),
        ("한국어 テスト", "한 국 어 テ ス ト"),
        ("C++ or C#?", "c++ or c#"),
        (" . ", ""),
        ("a\nb\x00c\ud800", "a b c"),
        ("𝒳 𠀀𠀁", "x 𠀀 𠀁"),
    ],
)
def test_normal_form(text, expected):
    assert normal(text) == expected
    together = normalise(["before", text, "", text, "after"])
    assert together.strings() == ["before", expected, "", expected, "after"]
    assert np.diff(together.word_offsets).tolist() == [1, len(expected.split()), 0, len(expected.split()), 1]
    middle, again = (together.words[together.word_offsets[i] : together.word_offsets[i + 1]] for i in (1, 3))
    assert middle.tolist() == again.tolist()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet="ab c,d天地\u0301\u00ad.ä", max_size=12), max_size=6), st.integers(1, 4))
def test_shingles_equal_runs_of_words(texts, width):
    normals = normalise(texts)
    hashes, offsets = shingles(normals.words, normals.word_offsets, width)
    seen: dict[int, tuple[str, ...]] = {}
    for row, text in enumerate(normals.strings()):
        words = text.split(" ") if text else []
        runs = [tuple(words[i : i + width]) for i in range(max(1, len(words) - width + 1))] if words else []
        own = hashes[offsets[row] : offsets[row + 1]].tolist()
        assert len(own) == len(runs)
        assert all(seen.setdefault(value, run) == run for value, run in zip(own, runs, strict=True))
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(
    "first, second, same",
    [
        ("Where is the capital of France?", "where is the Capital of France", True),
        ("Where is the capital of France?", "Please, where is the capital of France?", True),
        ("Where is the capital of France?", "Where is the capitol of France? Thanks", True),
        ("Which proteins inhibit growth of bone", "Which protein inhibit growth of bone", True),
        ("Where is the capital of France?", "Where is the capital of Greece?", False),
        ("Who won the election in 2016?", "Who won the election in 2012?", False),
        ("Who won the election?", "Who won the election in 2012?", False),
        ("Aspirin increases the risk of stroke", "Aspirin decreases the risk of stroke", False),
        ("Aspirin is effective against stroke", "Aspirin is not effective against stroke", False),
        ("Is GNB1 mutated in many cancers", "Is GNB2 mutated in many cancers", False),
        ("Are typical proteins folded in the cell", "Are atypical proteins folded in the cell", False),
        ("what is python", "what is python used for in data science", False),
        ("how do I sort a list in C", "how do I sort a list in C#", False),
        ("台灣第一座燈塔於何時建立？", "請問，台灣第一座燈塔於何時建立呢?", True),
        ("西晉於何年正式滅亡?", "冉魏於何年正式滅亡?", False),
        ("西羅馬帝國滅亡於何時?", "西羅馬帝國正式滅亡於何時?", False),
        ("日本の首都はどこですか", "日本の首都はどこですか？", True),
        ("한국의 수도는 어디입니까?", "한국의수도는 어디입니까", True),
    ],
)
def test_questions(first, second, same):
    lists = plain_words(first), plain_words(second)
    assert same_question(*lists) == same_question(*reversed(lists))
    assert (same_question(*lists) >= QUERIES.threshold) is same
    others = [f"what about {text}" for text in passages(30, words=6)]
    found = near_duplicates([*others, first, second], QUERIES)
    assert (found.groups[-1] == found.groups[-2]) is np.bool_(same)
    assert len(found.pairs) == same


def test_a_similarity_of_queries_is_the_share_of_words_in_common():
    assert same_question([], []) == same_question([], ["a"]) == 0
    assert same_question(["a", "b"], ["a", "b"]) == 1
    assert same_question(["a", "b"], ["x", "a", "b", "y"]) == 0.5
    assert same_question(["x", "smaller"], ["x", "smalles"]) == 0.5  # one letter changed
    assert same_question(["smaller", "letters"], ["smalles", "letterz"]) == 0
    assert same_question(["1st99x"], ["1st98x"]) == same_question(["abcdef"], ["zbcdef"]) == 0


def test_containment_and_its_floor():
    small = frozenset(range(10))
    assert containment(small, frozenset(range(20))) == 1
    assert containment(small, frozenset(range(21))) == 0
    assert containment(small, frozenset(range(2, 12))) == 0.8
    assert containment(frozenset(), small) == containment(frozenset(), frozenset()) == 0
