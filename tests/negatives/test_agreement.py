import itertools
import random

import pytest
from sklearn.metrics import cohen_kappa_score

from m3tune.negatives.agreement import agreement, by_reviewer, merged
from m3tune.types import PairVerdict

WORDS = ("relevant", "not relevant", "unsure")


def test_every_combination_of_three_reviewers_by_the_rule_as_it_is_written():
    for words in itertools.product(WORDS, repeat=3):
        verdicts = [PairVerdict("q", "p", word, f"reviewer {i}") for i, word in enumerate(words)]
        relevant, other = words.count("relevant"), words.count("not relevant")
        expected = "unsure" if relevant == other else "relevant" if relevant > other else "not relevant"
        assert merged(verdicts) == {("q", "p"): expected}


def test_pairs_are_merged_each_by_itself():
    verdicts = [PairVerdict("q", "p", "relevant", "a"), PairVerdict("q", "r", "not relevant", "a")]
    assert merged(verdicts) == {("q", "p"): "relevant", ("q", "r"): "not relevant"}
    assert merged([]) == {}


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed):
    draw = random.Random(seed)
    first = {("q", str(i)): draw.choice(WORDS) for i in range(40)}
    second = {pair: word if draw.random() < 0.6 else draw.choice(WORDS) for pair, word in first.items()}
    for i in range(10):
        del first["q", str(i)]
        del second["q", str(39 - i)]
    shared = [pair for pair in first if pair in second]
    found = agreement(first, second)
    assert found.pairs == len(shared) == 20
    assert found.kappa == pytest.approx(cohen_kappa_score([first[p] for p in shared], [second[p] for p in shared]))
    assert found == agreement(second, first)


def test_agreement_by_hand():
    """Observed 3/4, expected (3 x 2 + 1 x 2) / 16 = 1/2."""
    first = dict(zip(("abcd"), ("relevant", "relevant", "relevant", "unsure"), strict=True))
    second = dict(zip(("abcd"), ("relevant", "relevant", "unsure", "unsure"), strict=True))
    assert agreement(first, second) == (4, 0.75, 0.5)


def test_no_kappa_where_both_only_ever_say_one_word_and_none_without_shared_pairs():
    assert agreement({"a": "relevant", "b": "relevant"}, {"a": "relevant", "b": "relevant"}) == (2, 1.0, None)
    assert agreement({"a": "relevant"}, {"b": "relevant"}) is None


def test_a_model_and_a_person_of_one_name_are_two_reviewers():
    verdicts = [PairVerdict("q", "p", "relevant", "x"), PairVerdict("q", "p", "unsure", "x", "model")]
    assert by_reviewer(verdicts) == {("person", "x"): {("q", "p"): "relevant"}, ("model", "x"): {("q", "p"): "unsure"}}
