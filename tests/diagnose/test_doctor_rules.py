"""Every rule of the doctor finds the illness planted in a healthy case, and names it first; health is silent."""

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from patients import (
    FOLLOWS,
    ILL,
    RISING,
    W,
    codes,
    positives_of_others,
    verdict,
    without_gain,
)
from typer.main import get_command

from m3tune.cli import app
from m3tune.config import MineConfig
from m3tune.diagnose.doctor.registry import CASE_RULES, ORDER, case_findings
from m3tune.diagnose.registry import RULES
from m3tune.recipe import build_recipe

COMMANDS = get_command(app).commands


def test_every_rule_is_tested_here():
    assert set(ILL) == set(CASE_RULES)
    assert len(ILL) >= 20


def test_a_healthy_run_has_no_finding_at_all():
    assert codes(W) == []


@pytest.mark.parametrize("code", ILL)
def test_a_planted_illness_is_found_and_what_follows_comes_after_it(code):
    found = codes(ILL[code])
    assert code in found
    assert set(found) <= {code} | FOLLOWS.get(code, set())
    severe = [f.code for f in case_findings(ILL[code]) if f.severity != "note"]
    assert not severe or severe[0] == code


@pytest.mark.parametrize("code", ILL)
def test_a_finding_has_a_figure_evidence_and_what_to_do(code):
    (finding,) = [f for f in case_findings(ILL[code]) if f.code == code]
    assert any(character.isdigit() for character in finding.what) or code in ("conflicting-files", "stale-vectors",
                                                                              "differing-settings")  # fmt: skip
    assert finding.evidence["count"] is not None
    assert finding.fix
    assert finding.where
    assert len(finding.examples) <= 3
    json.dumps(asdict(finding))


def test_causes_stand_before_what_follows_from_them():
    place = ORDER.index
    assert set(ORDER) == set(CASE_RULES) | set(RULES)
    assert len(set(ORDER)) == len(ORDER)
    for cause in ("shuffled-labels", "false-negatives", "high-learning-rate", "positive-template"):
        for symptom in ("pushed-negatives", "overfitting", "dense-vectors-collapse", "hubs", "small-test", "bm25-wins"):
            assert place(cause) < place(symptom)


def test_all_at_once_the_labels_are_named_before_the_learning_rate_and_that_before_the_collapse():
    ill = without_gain(positives_of_others(W), log=[{**line, "dense_cosine": 1.0} for line in RISING])
    found = [code for code in codes(ill) if code in ("shuffled-labels", "high-learning-rate", "dense-vectors-collapse")]
    assert found == ["shuffled-labels", "high-learning-rate", "dense-vectors-collapse"]


def test_what_could_be_better_is_a_note_in_a_run_that_came_out_better():
    ill = ILL["small-dev"]
    assert [f.severity for f in case_findings(ill)] == ["note"]
    worse = replace(ill, verdict=verdict("no worse", 0.0))
    assert [f.severity for f in case_findings(worse) if f.code == "small-dev"] == ["warning"]


@pytest.mark.parametrize("code", ["small-dev", "lost-gain"])
def test_where_nothing_was_chosen_no_choice_is_blamed(code):
    ill = ILL[code]
    select = ill.recipe.select.model_copy(update={"rule": "last"})
    assert code in codes(ill)
    assert code not in codes(replace(ill, recipe=ill.recipe.model_copy(update={"select": select})))


def test_the_next_command_names_the_run_and_another_folder():
    (finding,) = [f for f in case_findings(ILL["high-learning-rate"]) if f.code == "high-learning-rate"]
    assert finding.fix == (
        "m3tune run runs/it/resolved.toml --set output=runs/it-next --set train.learning_rate=2.0e-06"
    )
    spaced = replace(ILL["high-learning-rate"], folder=Path("my runs/it"))
    assert "'my runs/it/resolved.toml'" in case_findings(spaced)[0].fix


def commands_of(fix):
    """The words of every command of m3tune in a text, up to where the sentence goes on."""
    shown = re.findall(rf"m3tune (?:{'|'.join(COMMANDS)}) .*?(?=; |, or |, then |$)", fix)
    return [shlex.split(command)[1:] for command in shown]


@pytest.mark.parametrize("code", ILL)
@pytest.mark.parametrize("mined", [False, True])
def test_a_finding_ends_with_a_command_that_can_be_typed_as_it_is(code, mined):
    case = replace(ILL[code], folder=Path("my runs/it"))
    if mined:
        case = replace(case, recipe=case.recipe.model_copy(update={"mine": MineConfig()}))
    (finding,) = [f for f in case_findings(case) if f.code == code]
    commands = commands_of(finding.fix)
    assert commands, finding.fix
    assert finding.fix.endswith(shlex.join(["m3tune", *commands[-1]])), finding.fix
    for name, *words in commands:
        context = COMMANDS[name].make_context(name, list(words))
        for setting in context.params.get("overrides") or ():
            build_recipe({"data": {"path": "d"}, "model": {"path": "m"}}, [setting])
        assert not any(word.isupper() for word in words), f"{words} has a word to fill in"


@pytest.mark.parametrize(
    ("code", "mined", "name"),
    [("false-negatives", False, "mine"), ("false-negatives", True, "review"), ("pushed-negatives", True, "review"),
     ("easy-negatives", False, "mine"), ("small-batch", False, "plan"), ("lost-gain", False, "compare")],
)  # fmt: skip
def test_the_command_that_is_for_an_illness_is_named(code, mined, name):
    recipe = ILL[code].recipe.model_copy(update={"mine": MineConfig() if mined else None})
    (finding,) = [f for f in case_findings(replace(ILL[code], recipe=recipe)) if f.code == code]
    assert name in [words[0] for words in commands_of(finding.fix)]
