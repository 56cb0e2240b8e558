"""What the report says of the choice between the base, the checkpoint and merges."""

import re

import pytest
from finished import make_run, selection_of, terminal_text

from m3tune.artifact import read_json, write_json
from m3tune.report import selection_words, verdict_words
from m3tune.report.gather import gather
from m3tune.report.html import render
from m3tune.report.terminal import print_verdict


@pytest.mark.parametrize("why", ["no gain", "noise", "forgets"])
def test_why_the_base_was_chosen_is_said_in_words_of_its_own(tmp_path, why):
    folder = make_run(tmp_path / "run", chosen="base", why_base=why)
    data = gather(folder)
    others = {
        reason: data | {"selection": data["selection"] | {"why_base": reason}} for reason in selection_words._WHY_BASE
    }
    for say in (verdict_words.headline, verdict_words.meaning, verdict_words.next_step, verdict_words.delivered):
        assert say(data) == say(others[why])
        assert len({say(other) for other in others.values()}) == 3
    page = render(data)
    assert verdict_words.headline(data) in page
    assert selection_words.why_base(data["selection"]) in terminal_text(print_verdict, folder).replace("\n", " ")


def test_a_merge_is_named_in_the_sentence_and_the_meaning(tmp_path):
    data = gather(make_run(tmp_path / "run", chosen="merged 0.7"))
    assert verdict_words.sentence(data).endswith("; delivered: checkpoint 5 merged 0.7")
    assert "model/ holds the merge of base and tuned model at 0.7" in verdict_words.meaning(data)
    assert "holds the tuned model" in verdict_words.meaning(gather(make_run(tmp_path / "tuned")))


def test_the_candidates_stand_in_a_table_with_what_became_of_them(better):
    page = " ".join(re.sub(r"<[^>]+>", " ", render(gather(better))).split())
    for part in ("merged 0.7 0.570 0.010 0.140 0.930 as good, but further from the base", "tuned 0.600", "chosen"):
        assert part in page
    assert "What else the model may have forgotten was not measured" in page
    assert "Retention (upwards)" not in page


def test_retention_is_drawn_against_development_with_the_line_that_nothing_may_fall_below(tmp_path):
    folder = make_run(tmp_path / "run", chosen="merged 0.7")
    selection = read_json(folder / "select" / "selection.json")
    write_json(
        folder / "select" / "selection.json",
        selection | selection_of("merged 0.7", None, {0: 0.8, 0.7: 0.79, 1: 0.5}),
    )
    page = render(gather(folder))
    assert "What is gained and lost: base 0.5, 0.8; merged 0.7 0.57, 0.79; tuned 0.6, 0.5" in page
    assert "loses at most 2 % of the base&#39;s nDCG@10 on the retention data" in page
    assert "data/general" in page
