"""Questions held out of a corpus: of which texts they are made, and that the two of a text share nothing of it."""

from dataclasses import replace

import numpy as np
import pytest

from m3tune.data.collection import Collection
from m3tune.data.known_items import FIRST, SECOND, known_items
from m3tune.data.similar import NearCopies, Similar
from m3tune.types import Judgment, Negative, Passage, Query, Split


def sentences(first, count=8):
    """Sentences of six words that occur nowhere else."""
    return [" ".join(f"w{first}x{number}y{word}" for word in range(6)) + "." for number in range(count)]


def long_texts(count=40):
    return {f"p{i}": Passage(f"p{i}", " ".join(sentences(i)), title=f"Title {i}") for i in range(count)}


def corpus(passages=None, judgments=(), negatives=()):
    queries = {q: Query(q, f"question {q}") for q in ("train", "dev", "test", "nowhere")}
    return Collection(queries, passages or long_texts(), tuple(judgments), tuple(negatives))


SPLIT = Split(("train",), ("dev",), ("test",))


def items_of(collection, similar=None, at_most=1000, seed=0):
    return known_items(collection, similar or Similar(), SPLIT, at_most, np.random.default_rng(seed))


def sources(items):
    return {id_.removesuffix(" first") for id_ in items.collection.splits[FIRST]}


def test_a_sentence_asks_for_what_is_left_of_its_half_and_the_halves_share_no_word():
    items = items_of(corpus())
    assert len(items) == items.untouched == 40
    made = items.collection
    for first, second in zip(made.splits[FIRST], made.splits[SECOND], strict=True):
        source = corpus().passages[first.removesuffix(" first")].text
        assert second.removesuffix(" second") == first.removesuffix(" first")
        halves = [[made.queries[id_].text, made.passages[id_].text] for id_ in (first, second)]
        words = [set(" ".join(half).split()) for half in halves]
        assert words[0] | words[1] == set(source.split())
        assert not words[0] & words[1]
        for question, rest in halves:
            assert not set(question.split()) & set(rest.split())
            assert (len(question.split()), len(rest.split())) == (6, 18)
        assert made.positives[first] == (first,)
        assert made.passages[first].title == "", "a title would stand in both halves"
    asked = {made.queries[id_].text for id_ in made.splits[FIRST]}
    assert (
        len({sentences(int(p[1:])).index(text) for p in sources(items) for text in asked & {*sentences(int(p[1:]))}})
        > 2
    )


def test_what_training_or_the_test_touches_gives_no_question():
    passages = long_texts()
    for id_ in ("p8", "p9"):
        passages[id_] = replace(passages[id_], document="book")
    collection = corpus(
        passages,
        [Judgment("train", "p0"), Judgment("train", "p1", 0), Judgment("test", "p2"), Judgment("dev", "p3"),
         Judgment("train", "p8"), Judgment("nowhere", "p10")],
        [Negative("train", "p4"), Negative("dev", "p5")],
    )  # fmt: skip
    copies = Similar(NearCopies({"p6": "p0", "p11": "p7"}))
    items = items_of(collection, copies)
    assert passages.keys() - sources(items) == {"p0", "p1", "p2", "p4", "p6", "p8", "p9", "p10", "p11"}
    assert items.untouched == len(items) == 31


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("One sentence without an end", False),
        ("Short one. Short two. Short three. Short four.", False),
        ("This sentence is long enough. Tiny bit. This one is as long too. No.", False),
        ("This sentence is long enough. So is this one here. Here comes a third one. The fourth ends the text.", True),
        ("第一句話說的是天氣很好。第二句話說的是人很多。第三句話說的是山很高。第四句話說的是水很深。", True),
        ("", False),
    ],
)  # fmt: skip
def test_a_text_needs_a_sentence_and_something_left_in_either_half(text, fits):
    items = items_of(corpus({"p0": Passage("p0", text)}))
    assert (len(items), items.too_short) == ((1, 0) if fits else (0, 1))


def test_no_more_texts_are_drawn_than_wanted_the_same_by_one_seed():
    drawn = [items_of(corpus(), at_most=15, seed=seed) for seed in (0, 0, 1)]
    assert [len(items) for items in drawn] == [15] * 3
    assert drawn[0].collection.fingerprint == drawn[1].collection.fingerprint
    assert sources(drawn[0]) != sources(drawn[2])
