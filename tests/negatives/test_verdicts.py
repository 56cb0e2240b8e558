"""A file of verdicts as people write it."""

import pytest

from m3tune.errors import DataError
from m3tune.negatives.verdicts import read_verdicts
from m3tune.types import PairVerdict


def test_only_the_pair_and_the_word_are_needed(tmp_path):
    file = tmp_path / "v.jsonl"
    file.write_text('\ufeff{"query_id": "q", "passage_id": "p", "judged": "unsure"}\n\n', encoding="utf-8")
    assert read_verdicts(file) == [PairVerdict("q", "p", "unsure", "")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"query": "q", "passage_id": "p", "judged": "relevant"}', "'query', 'query_id' unknown, missing or no text"),
        (b'{"query_id": 1, "passage_id": "p", "judged": "relevant"}', "'query_id' unknown, missing or no text"),
        (b'{"query_id": "q", "passage_id": "p", "judged": "yes"}', "judged 'yes' by 'person'"),
        (b'["q", "p", "relevant"]', "not a JSON object"),
        (b'{"query_id": "q"', "broken JSON"),
        (b'{"query_id": "\xff"}', "not UTF-8"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_write(tmp_path, line, said):
    file = tmp_path / "v.jsonl"
    file.write_bytes(b'{"query_id": "q", "passage_id": "p", "judged": "relevant"}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        read_verdicts(file)
    assert said in caught.value.what
    assert caught.value.where == f"{file}:2"
    assert "PairVerdict" not in str(caught.value)
