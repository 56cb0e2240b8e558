import pytest

from m3tune.report.marks import _WORD, FOLDED_CHARACTERS, SHOWN_CHARACTERS, named, show, words_of
from m3tune.retrieval.bm25 import tokenize


def marked(text, query):
    return [part.text for part in show(text, words_of(query)).start if part.kind == "shared"]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("Aspirin helps; ASPIRIN, aspirins", "does aspirin help?", ["Aspirin", "ASPIRIN"]),
        ("The cat is in the house", "is the cat in?", ["cat"]),
        ("我愛吃蘋果和香蕉", "蘋果是什麼", ["蘋果"]),
        ("大蘋果派好吃", "蘋果派", ["蘋果派"]),
        ("果蘋", "蘋果", []),
        ("用BGE模型檢索", "bge 模型", ["BGE", "模型"]),
        ("東京タワーへ", "東京タワー", ["東京タワー"]),
        ("naïve café", "CAFÉ", ["café"]),
        ("anything", "", []),
        ("", "anything", []),
    ],
)
def test_shared_words_are_marked(text, query, expected):
    assert marked(text, query) == expected


@pytest.mark.parametrize(
    "text", ["Aspirin helps the BGE-M3模型 much, 蘋果派 a 果 2019-03", "_x __ a1 東", "x\u202ey zz\n\nww"]
)
def test_words_are_those_that_bm25_finds_by(text):
    """Whatever bm25 makes of a text is marked in it: the two splitters see the same words."""
    found = set()
    for match in _WORD.finditer(text):
        found.update(tokenize([match[0]])[0])
    assert found == set(tokenize([text])[0])


def whole(shown):
    return "".join(part.text for part in shown.start + shown.rest)


def test_nothing_is_lost_where_nothing_is_invisible():
    text = "蘋果 and aspirin\n\tand <b>markup</b> " * 40
    shown = show(text, words_of("aspirin 蘋果"))
    assert whole(shown) == text
    assert shown.left_out == 0
    assert shown.folded == len(text) - sum(len(part.text) for part in shown.start)


def test_invisible_characters_become_names():
    text = "a\u202eb\u2066c\u200bd\x00e\x1b[31mf\ud800g\ufeffh\u200di\nj\tk\r\nl\rm\U000e0041"
    signs = [part.text for part in show(text, ()).start if part.kind == "sign"]
    assert signs == ["RLO", "LRI", "ZWSP", "U+0000", "U+001B", "U+D800", "BOM", "U+000D", "U+E0041"]
    plain = "".join(part.text for part in show(text, ()).start if part.kind == "plain")
    assert plain == "abcde[31mfgh\u200di\nj\tk\nlm"
    plain.encode("utf-8")


def test_short_texts_have_their_invisible_characters_named():
    assert named("dense\x1b[31m, bm25\u202e") == "denseU+001B[31m, bm25RLO"


def test_long_texts_are_folded_and_very_long_ones_cut():
    shown = show("word " * 100_000, words_of("word"))
    assert FOLDED_CHARACTERS <= sum(len(part.text) for part in shown.start) <= FOLDED_CHARACTERS + 41
    assert shown.left_out == 500_000 - SHOWN_CHARACTERS
    assert len(whole(shown)) == SHOWN_CHARACTERS
    assert show("x" * (FOLDED_CHARACTERS + 9), ()).rest == []
    assert len(show("x" * 2**20, ()).start[0].text) == FOLDED_CHARACTERS
