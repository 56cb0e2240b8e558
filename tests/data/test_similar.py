from hypothesis import given
from hypothesis import strategies as st

from m3tune.data.collection import Collection, first_copies
from m3tune.data.similar import exact_copies, find_similar
from m3tune.types import Judgment, Passage, Query

TEXT = "The bridge over the river was built by a guild of masons who came from the south of the country in spring."


def collection() -> Collection:
    texts = {"a": TEXT, "other": "Nothing of the kind.", "A": TEXT.upper(), "a2": TEXT, "titled": "guild of masons"}
    passages = {id_: Passage(id_, text) for id_, text in texts.items()}
    passages["titled"] = Passage("titled", TEXT.removeprefix("The bridge "), "The bridge")
    questions = {"q": "Who built the bridge?", "q2": "who built the bridge", "q3": "Who built the tower?"}
    queries = {id_: Query(id_, text) for id_, text in questions.items()}
    return Collection(queries, passages, (Judgment("q", "a"),))


def test_near_duplicates_are_known_by_the_first_of_their_group():
    similar = find_similar(collection())
    assert similar.passages.first == {"A": "a", "a2": "a", "titled": "a"}
    assert [similar.passages.first_of(id_) for id_ in ("a", "A", "other", "unknown")] == ["a", "a", "other", "unknown"]
    assert similar.queries.first == {"q2": "q"}
    assert {frozenset(pair[:2]) for pair in similar.queries.pairs} == {frozenset({"q", "q2"})}


def test_exact_copies_are_of_what_the_encoder_reads():
    similar = exact_copies(collection())
    assert similar.passages.first == {"a2": "a", "titled": "a"}
    assert similar.queries.first == {}


@given(st.lists(st.sampled_from(["", "a", "b", "a b", "A"]), max_size=30))
def test_first_copies_are_what_a_dictionary_finds(texts):
    found = first_copies((str(row), text) for row, text in enumerate(texts))
    first: dict[str, str] = {}
    for row, text in enumerate(texts):
        assert found[str(row)] == first.setdefault(text, str(row))
    assert all(copy != original for copy, original in found.items())
