import shutil
from pathlib import Path

import pytest

from m3tune import pipeline
from m3tune.artifact import MANIFEST, StageKey, is_complete, read_json, write_json, writing
from m3tune.diagnose.doctor.reading import read_run
from m3tune.negatives.filters import EARLIER, SUSPECTS
from m3tune.negatives.table import read_candidates, read_negatives
from m3tune.recipe import build_recipe
from m3tune.replaying import replay
from m3tune.rounds import mine_and_tune
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

SILENT = pipeline.silent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and two encoders. Never written to."""
    folder = tmp_path_factory.mktemp("rounds")
    write_llamaindex(folder / "data.json", tiny_collection(40, 60))
    save_tiny_encoder(folder / "encoder")
    save_tiny_encoder(folder / "other", seed=3)
    return folder


def recipe_for(place, output, train=(), **mine):
    return build_recipe(
        {
            "output": str(output),
            "data": {"path": str(place / "data.json"), "near_duplicates": False},
            "model": {"path": str(place / "encoder")},
            "mine": {"negatives_per_query": 4, "sources": {"model": {"last": 30}}} | mine,
            "train": {
                "max_steps": 6, "batch_queries": 8, "precision": "float32", "evaluations": 1, "negatives_per_query": 2,
                "learning_rate": 5e-3,
            } | dict(train),
            "select": {"alphas": []},
            "evaluate": {"resamples": 100},
        }
    )  # fmt: skip


def times(folder):
    """When each stage of the rounds, and of the run, was finished."""
    return {file: file.stat().st_mtime_ns for file in sorted(Path(folder).rglob(MANIFEST))}


@pytest.fixture(scope="module")
def two_rounds(place, tmp_path_factory):
    """A finished run of two rounds and what was said. Never written to."""
    output, said = tmp_path_factory.mktemp("run") / "run", []
    pipeline.run(recipe_for(place, output, rounds=2, threshold=0.9), said.append)
    return output, said


def test_the_second_round_is_mined_by_the_model_that_the_first_tuned(two_rounds, place):
    folder, _ = two_rounds
    first, second = (read_candidates(folder / "rounds" / n / "negatives") for n in "12")
    scores = [{(c.query_id, c.passage_id): c.score for c in candidates} for candidates in (first, second)]
    shared = scores[0].keys() & scores[1].keys()
    assert len(shared) > 50
    assert sum(abs(scores[0][pair] - scores[1][pair]) > 1e-3 for pair in shared) > len(shared) / 2
    inputs = [read_json(folder / "rounds" / n / "negatives" / MANIFEST)["inputs"]["model"] for n in "12"]
    assert inputs[0] == read_json(folder / "base" / MANIFEST)["inputs"]["model"] != inputs[1]


def test_whom_a_round_suspects_the_next_suspects_too(two_rounds):
    folder, _ = two_rounds
    first, second = (read_candidates(folder / "rounds" / n / "negatives") for n in "12")
    suspected = {(c.query_id, c.passage_id) for c in first if c.removed in SUSPECTS}
    again = [c for c in second if (c.query_id, c.passage_id) in suspected]
    assert len(again) > 20
    assert {c.removed for c in again} <= SUSPECTS
    assert any(c.removed == EARLIER for c in again), "else the guard of the second round alone was as good"
    assert not any(c.removed == EARLIER for c in first)


def test_the_best_round_stands_in_the_run_and_all_that_follows_takes_it(two_rounds, m3tune):
    folder, said = two_rounds
    made = read_json(folder / "rounds" / "rounds.json")
    dev = [read_json(folder / "rounds" / n / "train" / "selection.json")["tuned"] for n in "12"]
    assert [row["dev"] for row in made["rounds"]] == dev
    kept = made["kept"]
    assert kept == 1 + dev.index(max(dev))
    for stage in ("negatives", "train"):
        theirs, ours = folder / "rounds" / str(kept) / stage, folder / stage
        assert read_json(ours / MANIFEST) == read_json(theirs / MANIFEST)
        assert {p.relative_to(ours) for p in ours.rglob("*")} == {p.relative_to(theirs) for p in theirs.rglob("*")}
    weights = "train/model/model.safetensors"
    assert (folder / weights).samefile(folder / "rounds" / str(kept) / weights), "not twice on the disk"
    assert read_json(folder / "select" / "selection.json")["best_checkpoint"] == max(dev)
    rows = made["rounds"]
    ours, theirs = ({n[:2] for n in read_negatives(folder / "rounds" / n / "negatives")} for n in "21")
    assert (rows[0]["old"], rows[1]["old"]) == (None, len(ours & theirs) / len(ours))
    assert any(line.startswith("round 2: dev nDCG@10") for line in said)
    page = (folder / "report.html").read_text()
    assert 'href="rounds/2/negatives/negatives.html"' in page
    code, text, _ = m3tune("report", folder)
    assert code == 0
    assert "(kept)" in text
    assert read_run(folder, queries=0).selection["checkpoint"] == read_json(folder / "verdict.json")["checkpoint"]


def test_a_run_of_rounds_comes_out_the_same_again(two_rounds, tmp_path):
    found = replay(two_rounds[0], tmp_path / "again", SILENT)
    assert found.figures > 20
    assert not found.results
    made = [read_json(at / "rounds" / "rounds.json") for at in (two_rounds[0], tmp_path / "again")]
    assert made[0] == made[1]


def test_a_run_of_rounds_is_skipped_when_up_to_date(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run", rounds=2)
    pipeline.run(recipe)
    before = times(tmp_path / "run")
    assert len(before) > 8
    pipeline.run(recipe)
    assert times(tmp_path / "run") == before


def stub(place, values, made, fails_in=None):
    """A training that takes no time: the other encoder, as good on development data as `values` say of each round."""

    def tune(folder, recipe, prepared, say, into):
        key = StageKey("train", {}, {"data": prepared.fingerprint})
        number = int(into.name) if into != folder else 1
        if is_complete(into / "train", key):
            return
        if number == fails_in:
            raise KeyboardInterrupt
        made.append(number)
        with writing(into / "train", key) as (partial, _):
            shutil.copytree(place / "other", partial / "model")
            write_json(partial / "selection.json", {"tuned": values[number - 1]})

    return tune


@pytest.mark.parametrize(
    ("values", "made", "kept"),
    [
        ([0.5, 0.4, 0.9], [1, 2], 1),
        ([0.5, 0.6, 0.7], [1, 2, 3], 3),
        ([0.5, 0.5, 0.9], [1, 2], 1),
        ([0.5, 0.6, 0.6], [1, 2, 3], 2),
    ],
)
def test_rounds_end_when_development_stops_improving_and_the_best_is_kept(place, tmp_path, values, made, kept):
    recipe, trained = recipe_for(place, tmp_path, rounds=3), []
    prepared = pipeline.prepare(recipe.data, tmp_path / "data", SILENT)
    mine_and_tune(tmp_path, recipe, prepared, stub(place, values, trained), SILENT)
    assert trained == made
    assert read_json(tmp_path / "rounds" / "rounds.json")["kept"] == kept
    assert read_json(tmp_path / "train" / "selection.json")["tuned"] == values[kept - 1]


def test_a_round_that_was_cut_off_is_gone_on_with_and_more_rounds_begin_after_those_made(place, tmp_path):
    recipe, trained = recipe_for(place, tmp_path, rounds=2), []
    prepared = pipeline.prepare(recipe.data, tmp_path / "data", SILENT)
    with pytest.raises(KeyboardInterrupt):
        mine_and_tune(tmp_path, recipe, prepared, stub(place, [0.5, 0.6], trained, fails_in=2), SILENT)
    assert not (tmp_path / "train").exists()
    assert not (tmp_path / "rounds" / "rounds.json").exists()
    before = times(tmp_path)
    assert len(before) == 4, "data, and mined twice, trained once"
    mine_and_tune(tmp_path, recipe, prepared, stub(place, [0.5, 0.6], trained), SILENT)
    assert trained == [1, 2]
    assert times(tmp_path).items() >= before.items()
    before = times(tmp_path / "rounds")
    mine_and_tune(tmp_path, recipe_for(place, tmp_path, rounds=3), prepared, stub(place, [0, 0, 0.7], trained), SILENT)
    assert trained == [1, 2, 3]
    assert times(tmp_path / "rounds").items() >= before.items()
    assert read_json(tmp_path / "train" / "selection.json")["tuned"] == 0.7


def test_a_run_that_was_moved_has_its_rounds_still(place, tmp_path):
    recipe, trained = recipe_for(place, tmp_path / "a", rounds=2), []
    prepared = pipeline.prepare(recipe.data, tmp_path / "a" / "data", SILENT)
    mine_and_tune(tmp_path / "a", recipe, prepared, stub(place, [0.5, 0.6], trained), SILENT)
    (tmp_path / "a").rename(tmp_path / "b")
    before = times(tmp_path / "b")
    mine_and_tune(tmp_path / "b", recipe, prepared, stub(place, [0.5, 0.6], trained), SILENT)
    assert times(tmp_path / "b") == before
    assert trained == [1, 2]


def test_without_rounds_there_is_no_folder_of_them(place, tmp_path):
    once, twice = (recipe_for(place, tmp_path / name, rounds=n) for name, n in (("once", 1), ("twice", 2)))
    for recipe in (once, twice):
        folder = Path(recipe.output)
        prepared = pipeline.prepare(recipe.data, folder / "data", SILENT)
        mine_and_tune(folder, recipe, prepared, stub(place, [0.5, 0.4], []), SILENT)
    assert not (tmp_path / "once" / "rounds").exists()
    tables = [tmp_path / name / "negatives" / "candidates.parquet" for name in ("once", "twice")]
    assert tables[0].read_bytes() == tables[1].read_bytes(), "the first round is what it is alone"


def test_the_teachers_scores_are_shared_by_the_rounds(place, tmp_path, monkeypatch):
    from m3tune.negatives.cross_encoder import CrossEncoder
    from test_mining import save_tiny_teacher

    teacher = save_tiny_teacher(tmp_path / "teacher")
    asked = []
    logits = CrossEncoder.logits
    monkeypatch.setattr(CrossEncoder, "logits", lambda self, pairs: asked.extend(pairs) or logits(self, pairs))
    recipe = recipe_for(place, tmp_path / "run", rounds=2, teacher=str(teacher))
    prepared = pipeline.prepare(recipe.data, tmp_path / "run" / "data", SILENT)
    mine_and_tune(tmp_path / "run", recipe, prepared, stub(place, [0.5, 0.6], []), SILENT)
    assert len(asked) == len(set(asked)) > 100


def test_the_doctor_looks_at_the_newest_round_of_a_run_that_is_not_done(place, tmp_path):
    recipe = recipe_for(place, tmp_path / "run", rounds=2)
    pipeline.run(recipe)
    for stage in ("train", "negatives", "select", "tuned"):
        shutil.rmtree(tmp_path / "run" / stage)
    (tmp_path / "run" / "verdict.json").unlink()
    case = read_run(tmp_path / "run", queries=0)
    newest = tmp_path / "run" / "rounds" / "2"
    assert case.selection == read_json(newest / "train" / "selection.json")
    assert {n[:2] for n in case.collection.negatives} == {n[:2] for n in read_negatives(newest / "negatives")}
