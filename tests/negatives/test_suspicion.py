import math
import random

import pytest

from m3tune.negatives.suspicion import excess, most_suspicious_first, teacher_disagrees
from m3tune.types import Candidate


def candidate(name, score, positive=1.0, **more):
    return Candidate("q", name, ("dense",), more.pop("rank", 1), score, positive, **more)


@pytest.mark.parametrize(
    ("score", "positive", "expected"),
    [
        (1.1, 1.0, 0.1),
        (0.9, 1.0, -0.1),
        (-4.0, -5.0, 0.2),
        (-6.0, -5.0, -0.2),
        (1.0, 0.0, math.inf),
        (-1.0, 0.0, -math.inf),
        (0.0, 0.0, 0.0),
        (math.nan, 1.0, 0.0),
    ],
)
def test_excess_keeps_its_sign_whatever_the_sign_of_the_scores(score, positive, expected):
    assert excess(candidate("p", score, positive)) == pytest.approx(expected)


def test_the_teacher_disagrees_only_where_it_has_scored_both():
    assert teacher_disagrees(candidate("p", 0.9, teacher=3.0, positive_teacher=2.0))
    assert teacher_disagrees(candidate("p", 1.1, teacher=1.0, positive_teacher=2.0))
    assert not teacher_disagrees(candidate("p", 0.9, teacher=1.0, positive_teacher=2.0))
    assert not teacher_disagrees(candidate("p", 0.9, teacher=3.0))
    assert not teacher_disagrees(candidate("p", 0.9))


def test_order():
    expected = [
        candidate("doubted and high", 0.9, teacher=3.0, positive_teacher=2.0),
        candidate("doubted", 0.2, teacher=3.0, positive_teacher=2.0),
        candidate("above", 2.2, 2.0, teacher=4.0, positive_teacher=2.0),
        candidate("as high", 1.0),
        candidate("chosen", 0.9, chosen=True, rank=9),
        candidate("better rank", 0.9, rank=2),
        candidate("a", 0.9, rank=3),
        candidate("b", 0.9, rank=3),
        candidate("low", 0.1, chosen=True),
    ]
    shuffled = expected.copy()
    random.Random(0).shuffle(shuffled)
    assert shuffled != expected
    assert most_suspicious_first(shuffled) == expected
