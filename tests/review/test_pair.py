import pytest

from m3tune.review.pair import _against


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "as the positive's"),
        (0.041, "4.1 % above the positive's"),
        (-0.35, "35.0 % below the positive's"),
        (107.2, "far above the positive's"),
        (-3.0, "far below the positive's"),
    ],
)
def test_a_score_is_told_against_the_positives(share, said):
    assert _against(share) == said
