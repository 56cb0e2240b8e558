"""Recipes against one another on tiny encoders: what is made once, made equal, refused and found."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from m3tune import comparing, contending, measuring, tuning
from m3tune.artifact import MANIFEST, read_json
from m3tune.comparing import Way, check_same, compare_recipes, load_ways
from m3tune.data.prepared import load_prepared
from m3tune.errors import M3TuneError, RecipeError
from m3tune.evaluation.contest import contest
from m3tune.evaluation.store import load_evaluation
from m3tune.mining import mine_recipe
from m3tune.negatives.table import read_candidates
from m3tune.recipe import load_recipe
from m3tune.report.contest_words import is_better
from m3tune.retrieval import encode as encode_module
from m3tune.retrieval import store as store_module
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

ROOT = Path(__file__).parents[1]
SEEDS = 2
PLAIN = """
[train]
epochs = 2
batch_queries = 8
learning_rate = 5e-3
logging_steps = 1
[evaluate]
resamples = 200
[select]
alphas = [0.5]
"""
MINING = PLAIN.replace("epochs = 2", "epochs = 1\nnegatives_per_query = 2").replace("alphas = [0.5]", 'rule = "last"')
MINING += '[mine]\nthreshold = "none"\nnegatives_per_query = 4\n[mine.sources.model]\nlast = 20\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, an encoder, and three recipes that train in different ways."""
    folder = tmp_path_factory.mktemp("comparing")
    write_llamaindex(folder / "data.json", tiny_collection(50, 70))
    save_tiny_encoder(folder / "encoder")
    about = f'[data]\npath = "{folder / "data.json"}"\n[model]\npath = "{folder / "encoder"}"\n'
    for name, text in (("plain", PLAIN), ("mining", MINING), ("hotter", MINING)):
        (folder / f"{name}.toml").write_text(about + text)
    (folder / "hotter.toml").write_text(about + MINING.replace("epochs = 1", "epochs = 1\ntemperature = 0.2"))
    return folder


def ways_of(place, *names, overrides=(), said=None):
    files = [str(place / f"{name}.toml") for name in names or ("plain", "mining", "hotter")]
    return load_ways(files, overrides, (said if said is not None else []).append)


@pytest.fixture(scope="module")
def finished(place):
    """(folder, facts, what was said, models measured, what was encoded) of a whole comparison. Never written to."""
    said, measured, encoded, fill = [], [], [], encode_module.fill
    with pytest.MonkeyPatch.context() as patch:
        for module in (encode_module, store_module):
            patch.setattr(module, "fill", lambda *a, **k: (encoded.append(a[4]), fill(*a, **k))[1])
        for module in (measuring, contending):
            real = module.measure_encoder
            patch.setattr(
                module, "measure_encoder", lambda *a, real=real, **k: (measured.append(a[1]), real(*a, **k))[1]
            )
        facts = compare_recipes(ways_of(place), SEEDS, None, place / "out", said.append)
    return place / "out", facts, said, measured, encoded


def manifests(folder):
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.glob(f"*/*/{MANIFEST}")
    }


# --- what is made once


def test_the_base_is_measured_once_and_stands_in_every_run(finished):
    folder, _, _, measured, _ = finished
    assert measured.count("base") == 1
    runs = sorted(run.name for run in folder.iterdir() if run.is_dir())
    assert runs == sorted(f"{name}-{seed}" for name in ("plain", "mining", "hotter") for seed in range(SEEDS))
    for stage in ("data", "bm25", "base"):
        assert all(os.path.samefile(folder / "plain-0" / stage / MANIFEST, folder / r / stage / MANIFEST) for r in runs)
    models = {(folder / run / "train" / "model" / "model.safetensors").read_bytes() for run in runs}
    assert len(models) == len(runs)


def test_negatives_mined_alike_are_shared_but_not_over_seeds(finished):
    folder = finished[0]
    shared = [folder / f"{name}-0" / "negatives" / MANIFEST for name in ("mining", "hotter")]
    assert os.path.samefile(*shared)
    prints = {read_json(folder / f"mining-{seed}" / "negatives" / MANIFEST)["fingerprint"] for seed in range(SEEDS)}
    assert len(prints) == SEEDS
    assert not (folder / "plain-0" / "negatives").exists()


def test_the_untuned_model_encodes_the_corpus_and_the_training_queries_once_and_mines_the_same(finished, tmp_path):
    """Four minings, two of which are shared stages, by the vectors of the one measuring."""
    folder, encoded = finished[0], finished[4]
    once = ("encode passages (base)", "encode queries (mining)")
    assert [encoded.count(label) for label in (*once, "encode passages (mining)")] == [1, 1, 0]
    for seed in range(SEEDS):
        recipe = load_recipe(folder / f"mining-{seed}" / "resolved.toml", [f'output="{tmp_path / str(seed)}"'])
        alone, _ = mine_recipe(recipe, print)
        candidates = read_candidates(alone)
        assert read_candidates(folder / f"mining-{seed}" / "negatives") == candidates
        assert len(candidates) > 100


def test_tokens_and_vectors_are_gone_when_all_is_done(finished):
    assert not [place for name in ("tokens", "vectors") for place in finished[0].rglob(name)]


def test_seeds_change_training_and_mining_and_not_the_split(finished):
    for name in ("plain", "mining"):
        for seed in range(SEEDS):
            recipe = load_recipe(finished[0] / f"{name}-{seed}" / "resolved.toml")
            assert (recipe.train.seed, recipe.data.seed) == (seed, 0)
            assert recipe.mine is None or recipe.mine.seed == seed


# --- an interruption


def test_a_comparison_that_was_killed_in_the_middle_goes_on(finished, place, tmp_path, monkeypatch):
    """The second of four trainings ends it; the same command then trains the three that are missing, and no more."""
    trained, real = [], tuning.tune_on_dev

    def train(*arguments, **options):
        trained.append(arguments)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(tuning, "tune_on_dev", train)
    ways = ways_of(place, "plain", "mining")
    with pytest.raises(KeyboardInterrupt):
        compare_recipes(ways, SEEDS, None, tmp_path / "out", print)
    before = manifests(tmp_path / "out")
    assert not (tmp_path / "out" / "comparison.json").exists()
    facts = compare_recipes(ways, SEEDS, None, tmp_path / "out", print)
    assert len(trained) == 5
    after = manifests(tmp_path / "out")
    assert before.items() <= after.items()
    assert len(before) >= 7
    whole = {recipe["name"]: [run["value"] for run in recipe["runs"]] for recipe in finished[1]["recipes"]}
    assert {recipe["name"]: [run["value"] for run in recipe["runs"]] for recipe in facts["recipes"]} == {
        name: whole[name] for name in ("plain", "mining")
    }
    compare_recipes(ways, SEEDS, None, tmp_path / "out", print)
    assert len(trained) == 5
    assert manifests(tmp_path / "out") == after


# --- what is made equal, and what is refused


def test_the_budget_is_the_first_recipes_and_others_train_as_long(finished):
    folder, facts, said, *_ = finished
    train = len(load_prepared(folder / "plain-0" / "data").split.train)
    assert facts["budget"] == 2 * train
    assert {recipe["pairs"] for recipe in facts["recipes"]} == {2 * train}
    mining = load_recipe(folder / "mining-0" / "resolved.toml").train
    assert mining.max_steps == 2 * -(-train // 8)
    assert f"budget: {2 * train} training pairs, as plain asks" in said
    assert any(line.startswith("mining: ") and f"instead of {-(-train // 8)} that see {train}" in line for line in said)
    assert all(note in said for note in facts["notes"])


def test_a_budget_of_ones_own_holds_for_all_recipes(place, finished):
    prepared = load_prepared(finished[0] / "plain-0" / "data")
    ways, budget, notes = comparing.equalised(ways_of(place), prepared, 40)
    assert budget == 40
    assert [way.recipe.train.max_steps for way in ways] == [6, 6, 6]
    assert "as --pairs says" in notes[0]
    assert len(notes) == 4


def test_recipes_that_agree_keep_their_epochs(place, finished):
    prepared = load_prepared(finished[0] / "plain-0" / "data")
    ways, _, notes = comparing.equalised(ways_of(place, "mining", "hotter"), prepared, None)
    assert [way.recipe.train.max_steps for way in ways] == [None, None]
    assert len(notes) == 1
    assert "as every recipe asks" in notes[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.path", "other.json"), ("data.seed", 1), ("model.pooling", "cls"), ("model.passage_max_tokens", 16),
     ("evaluate.main_metric", "RR@10"), ("train.precision", "bfloat16")],
)  # fmt: skip
def test_recipes_on_other_ground_are_refused_with_the_key(place, key, value):
    ways = ways_of(place, "plain", "mining")
    section, name = key.split(".")
    changed = getattr(ways[1].recipe, section).model_copy(update={name: value})
    ways[1] = Way("mining", ways[1].recipe.model_copy(update={section: changed}))
    with pytest.raises(RecipeError, match=f"{key}: .* in plain, {value!r} in mining") as caught:
        check_same(ways)
    assert "--set" in caught.value.fix


def test_one_recipe_two_of_a_name_and_keys_of_the_comparison_are_refused(place, tmp_path):
    with pytest.raises(RecipeError, match="nothing to compare"):
        ways_of(place, "plain")
    shutil.copy(place / "plain.toml", tmp_path / "plain.toml")
    with pytest.raises(RecipeError, match="two recipes are called 'plain'"):
        load_ways([str(place / "plain.toml"), str(tmp_path / "plain.toml")], [], print)
    for key, option in (("train.seed=3", "--seeds"), ("output=x", "--out"), ("mine.seed = 1", "--seeds")):
        with pytest.raises(RecipeError) as caught:
            ways_of(place, overrides=[key])
        assert option in caught.value.fix


def test_a_mistake_of_the_last_recipe_shows_before_anything_is_done(place, tmp_path):
    ways = ways_of(place, "plain", "mining")
    train = ways[1].recipe.train.model_copy(update={"negatives_per_query": 0})
    ways[1] = Way("mining", ways[1].recipe.model_copy(update={"train": train}))
    with pytest.raises(M3TuneError, match="training would use none"):
        compare_recipes(ways, 1, None, tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_settings_of_negatives_reach_only_recipes_that_have_them(place):
    said = []
    overrides = ["mine.negatives_per_query=3", "train.negatives_per_query=1", "train.temperature=0.1"]
    plain, mining = (way.recipe for way in ways_of(place, "plain", "mining", overrides=overrides, said=said))
    assert (plain.mine, plain.train.negatives_per_query, plain.train.temperature) == (None, 0, 0.1)
    assert (mining.mine.negatives_per_query, mining.train.negatives_per_query, mining.train.temperature) == (3, 1, 0.1)
    assert len(said) == 2
    assert all(line.startswith("plain: --set ") for line in said)


# --- what is found


def test_figures_are_those_of_the_runs_and_differences_those_of_their_queries(finished):
    folder, facts, *_ = finished
    metric, systems = facts["metric"], {}
    for recipe in facts["recipes"]:
        values = []
        for run in recipe["runs"]:
            at = folder / run["folder"]
            verdict = read_json(at / "verdict.json")
            values.append(load_evaluation(at / "tuned", verdict["head"]).per_query[metric])
            assert run["value"] == pytest.approx(verdict["tuned"], abs=1e-6)
            assert run["delivered"] == verdict["delivered"]
        systems[recipe["name"]] = values
        means = [np.mean(list(of.values())) for of in values]
        assert recipe["mean"] == pytest.approx(np.mean(means))
        assert recipe["deviation"] == pytest.approx(np.std(means, ddof=1))
        assert recipe["base_delivered"] == sum(run["delivered"] == "base" for run in recipe["runs"])
    base = load_evaluation(folder / "plain-0" / "base", "dense").per_query[metric]
    clusters = {query_id: number for number, query_id in enumerate(base)}  # no two share a passage here
    assert facts["groups"] == facts["queries"] == len(base)
    expected = contest({**systems, "base": [base]}, "base", clusters, 200, 0)
    assert (
        json.loads(json.dumps([of._asdict() for of in expected]))
        == read_json(folder / "comparison.json")["differences"]
    )


def test_costs_and_negatives_stand_beside_the_figures(finished):
    plain, mining, _ = finished[1]["recipes"]
    assert (plain["own_negatives"], mining["own_negatives"]) == (0, 2)
    assert (plain["batch_negatives"], mining["batch_negatives"]) == (7, 21)
    assert plain["guarded"]
    assert not mining["guarded"]
    assert plain["seconds"] > plain["train_seconds"] > 0
    assert plain["peak_gib"] > 0


def test_page_and_markdown_say_what_was_found(finished):
    folder, facts, *_ = finished
    page, results = ((folder / name).read_text() for name in ("comparison.html", "results.md"))
    for line in facts["finding"]:
        assert line in results
    assert "mining, hotter: the last step of training, without selection or guard." in results
    for name in ("plain", "mining", "hotter"):
        assert f"| {name} |" in results
        assert f'<th scope="row">{name}</th>' in page
    assert page.count('class="dot"') == 6 * SEEDS
    assert not any(loaded in page for loaded in ("http://", "https://", "src=", "<script"))
    better = next(of for of in facts["differences"] if (of["first"], of["second"]) == (facts["best"], "base"))
    assert is_better(facts) == (better["interval"][0] > 0)


# --- the example


def command_in(file):
    """The words of the m3tune compare that a file shows, broken over lines."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if "m3tune compare llamaindex" in line)
    return line[line.index("compare") :].partition("||")[0].split()


def test_the_example_compares_what_can_be_compared_and_both_places_say_the_same():
    words = command_in("Makefile")
    assert words == command_in("examples/two-ways/README.md")
    names = words[1 : words.index("--seeds")]
    options = [(words[at], words[at + 1]) for at in range(1 + len(names), len(words), 2)]
    given = {"--data": "data.path", "--model": "model.path"}
    overrides = [f"{given.get(option, '')}={value}".removeprefix("=") for option, value in options
                 if option in (*given, "--set")]  # fmt: skip
    said = []
    ways = load_ways(names, overrides, said.append)
    check_same(ways)
    assert [way.recipe.train.epochs for way in ways] == [2, 2, 2, 2]
    assert [way.recipe.train.negatives_per_query for way in ways] == [0, 2, 2, 2]
    (note,) = said
    assert note.startswith("llamaindex: --set train.negatives_per_query=2 is not for it")
    native, filtered, _ = (way.recipe for way in ways if way.recipe.mine)
    ours, theirs = native.mine.model_dump(), filtered.mine.model_dump()
    different = {key for key, value in ours.items() if value != theirs[key]}
    assert (different, native.train, native.select) == ({"threshold"}, filtered.train, filtered.select)
