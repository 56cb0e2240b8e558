"""The finding of a comparison in sentences, and its pages, from figures made up for each case."""

import copy
import io

import pytest
from rich.console import Console

from m3tune.report.contest_page import render_contest
from m3tune.report.contest_words import best_of, finding, is_better, results_markdown
from m3tune.report.terminal import print_contest


def recipe(name, mean, guarded=True, delivered=0):
    runs = [{"value": mean - 0.01}, {"value": mean + 0.01}]
    return {
        "name": name, "mean": mean, "deviation": 0.014, "guarded": guarded, "base_delivered": delivered, "dev": 0.6,
        "pairs": 1234.0, "own_negatives": 3.0, "batch_negatives": 60.0, "train_seconds": 61.0, "seconds": 100.0,
        "peak_gib": 1.5, "runs": runs,
    }  # fmt: skip


def difference(first, second, value, half):
    return {
        "first": first, "second": second, "difference": value, "interval": [value - half, value + half],
        "p_value": 0.01, "p_holm": 0.03, "by_seed": [value, -value],
    }  # fmt: skip


FACTS = {
    "metric": "nDCG@10", "queries": 300, "groups": 250, "seeds": 2, "budget": 1234, "notes": ["budget: 1,234"],
    "data": "data.json", "model": "encoder", "max_tokens": 64, "base": 0.5, "base_dev": 0.55, "bm25": 0.45,
    "recipes": [recipe("ours", 0.55, delivered=1), recipe("batch", 0.53, guarded=False), recipe("mined", 0.48)],
    "differences": [
        difference("ours", "base", 0.05, 0.02), difference("batch", "base", 0.03, 0.04),
        difference("mined", "base", -0.02, 0.01), difference("ours", "batch", 0.02, 0.03),
        difference("ours", "mined", 0.07, 0.01), difference("batch", "mined", 0.05, 0.01),
    ],
    "machine": {"device_name": "x86_64"}, "versions": {"m3tune": "0.1.0"}, "finished": "2026-11-25T05:00:00+0000",
    "best": "ours",
}  # fmt: skip


def changed(**keys):
    return copy.deepcopy(FACTS) | keys


def test_the_finding_says_what_was_seen_and_what_was_not():
    assert finding(FACTS) == [
        "ours has the highest nDCG@10, 0.550 on average over 2 seeds; the base has 0.500, on 300 test queries.",
        "ours beats mined by +0.070 [0.060, 0.080]; between ours and others no difference could be seen: batch by "
        "+0.020 [-0.010, 0.050].",
        "Better than the base: ours by +0.050 [0.030, 0.070]; worse than the base: mined by -0.020 [-0.030, -0.010]; "
        "no difference from the base could be seen: batch by +0.030 [-0.010, 0.070].",
        "batch: the last step of training, without selection or guard.",
        "ours delivered the base in 1 of 2 seeds.",
    ]
    assert is_better(FACTS)


def test_a_difference_is_turned_round_where_the_second_recipe_is_the_best():
    facts = changed(recipes=[recipe("ours", 0.5), recipe("batch", 0.53), recipe("mined", 0.58)])
    facts["differences"] = [
        difference("ours", "base", 0.0, 0.01), difference("batch", "base", 0.03, 0.01),
        difference("mined", "base", 0.08, 0.1), difference("ours", "batch", -0.03, 0.01),
        difference("ours", "mined", -0.08, 0.01), difference("batch", "mined", -0.05, 0.07),
    ]  # fmt: skip
    assert best_of(facts)["name"] == "mined"
    assert finding(facts)[1] == (
        "mined beats ours by +0.080 [0.070, 0.090]; between mined and others no difference could be seen: batch by "
        "+0.050 [-0.020, 0.120]."
    )
    assert not is_better(facts)


def test_one_seed_is_said_to_be_one():
    lines = finding(changed(seeds=1))
    assert "with one seed" in lines[0]
    assert lines[-1] == "One seed cannot tell what is the recipe's and what is chance in training."
    assert 'class="dot"' not in render_contest(changed(seeds=1, finding=lines))


@pytest.mark.parametrize("name", ["<script>x</script>", "a|b", "[bold]x[/bold]"])
def test_names_of_recipes_are_text_everywhere(name):
    facts = changed(recipes=[recipe(name, 0.55), *FACTS["recipes"][1:]], best=name)
    for of in facts["differences"]:
        of.update({side: name for side in ("first", "second") if of[side] == "ours"})
    facts["finding"] = finding(facts)
    page = render_contest(facts)
    assert "<script>" not in page
    assert "1 of 2" in page
    assert "| a|b |" not in results_markdown(facts)
    console = Console(record=True, width=200, file=io.StringIO())
    print_contest(console, facts, "page.html")
    assert name in console.export_text()


def test_every_table_names_its_recipes_in_a_terminal_of_80_columns():
    """Three tables: four names, three names, six differences of which each begins with one."""
    facts = changed(recipes=[recipe("native-filtered", 0.55), *FACTS["recipes"][1:]], best="native-filtered")
    for of in facts["differences"]:
        of.update({side: "native-filtered" for side in ("first", "second") if of[side] == "ours"})
    console = Console(record=True, width=80, file=io.StringIO())
    print_contest(console, facts | {"finding": []}, "page.html")
    lines = console.export_text().splitlines()
    assert [line for line in lines if line.startswith(" native-filter") and "1,234" in line]
    assert sum(line.startswith(" native-filter") for line in lines) == 5
    assert not any("…" in line for line in lines)
