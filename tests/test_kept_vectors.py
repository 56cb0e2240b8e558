"""A run that mines encodes the corpus with the untuned model once, and never mines with another model's vectors."""

import pytest

from m3tune import mining, pipeline
from m3tune.artifact import MANIFEST
from m3tune.negatives import miner
from m3tune.negatives.table import CANDIDATES, read_candidates
from m3tune.recipe import build_recipe
from m3tune.retrieval import encode as encode_module
from m3tune.retrieval import store as store_module
from tiny import save_tiny_encoder, tiny_collection, write_llamaindex

BASE, MINING = "encode passages (base)", "encode passages (mining)"


@pytest.fixture
def encoded(monkeypatch):
    """The label of everything that is encoded."""
    labels, real = [], encode_module.fill
    for module in (encode_module, store_module):
        monkeypatch.setattr(module, "fill", lambda *of, **options: (labels.append(of[4]), real(*of, **options))[1])
    return labels


@pytest.fixture
def place(tmp_path):
    write_llamaindex(tmp_path / "data.json", tiny_collection(40, 60))
    save_tiny_encoder(tmp_path / "encoder")
    return tmp_path


def recipe_for(place, output, mines=True, **mine):
    """A recipe of two steps."""
    train = {"max_steps": 2, "batch_queries": 8, "precision": "float32", "evaluations": 1}
    sections = {"mine": {"negatives_per_query": 3} | mine} if mines else {}
    return build_recipe(
        {
            "output": str(place / output),
            "data": {"path": str(place / "data.json")},
            "model": {"path": str(place / "encoder")},
            "train": train | {"negatives_per_query": 2 if mines else 0},
            "evaluate": {"resamples": 100},
            "select": {"alphas": []},
            **sections,
        }
    )


def mined_alone(place, recipe):
    """The candidates that the mining stage finds by vectors of its own."""
    folder, _ = mining.mine_recipe(recipe.model_copy(update={"output": str(place / "alone")}), pipeline.silent)
    return read_candidates(folder)


def test_a_run_encodes_the_corpus_once_with_the_base_and_mines_the_same(place, encoded):
    recipe = recipe_for(place, "run")
    pipeline.run(recipe)
    assert (encoded.count(BASE), encoded.count(MINING)) == (1, 0)
    assert not (place / "run" / "vectors").exists()
    found = read_candidates(place / "run" / "negatives")
    assert found == mined_alone(place, recipe)
    assert encoded.count(MINING) == 1, "else nothing was compared"
    assert len(found) > 100


def test_a_run_that_does_not_mine_keeps_no_vectors(place, encoded, monkeypatch):
    monkeypatch.setattr(pipeline, "vectors_kept", lambda folder: pytest.fail(f"vectors are kept in {folder}"))
    pipeline.run(recipe_for(place, "run", mines=False))
    assert encoded.count(BASE) == 1


def test_a_run_that_was_cut_off_goes_on_with_its_vectors_but_not_with_another_models(place, encoded, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    def cut_off():
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "mine_and_tune", killed)
            with pytest.raises(KeyboardInterrupt):
                pipeline.run(recipe)

    recipe, kept = recipe_for(place, "run"), place / "run" / "vectors" / "kept"
    cut_off()
    assert len(list(kept.glob(f"*/*/{MANIFEST}"))) == 1
    cut_off()
    assert encoded.count(BASE) == 1
    save_tiny_encoder(place / "encoder", seed=1)
    pipeline.run(recipe)
    assert (encoded.count(BASE), encoded.count(MINING)) == (2, 0)
    assert read_candidates(place / "run" / "negatives") == mined_alone(place, recipe)
    assert not (place / "run" / "vectors").exists()


def test_another_mining_model_and_a_pool_have_vectors_of_their_own(place, encoded):
    save_tiny_encoder(place / "other", seed=1)
    (place / "pool.txt").write_text("".join(f"p{number}\n" for number in range(20, 60)))
    for name, mine in (("other", {"model": str(place / "other")}), ("pool", {"pool": str(place / "pool.txt")})):
        encoded.clear()
        recipe = recipe_for(place, name, **mine)
        pipeline.run(recipe)
        assert encoded.count(MINING) == 1
        assert read_candidates(place / name / "negatives") == mined_alone(place, recipe)


def test_rounds_keep_no_vectors_of_tuned_models(place, encoded, monkeypatch):
    """The second round mines with what the first tuned: encoded for itself, and thrown away."""
    seen, real = [], miner.corpus_vectors

    def spied(*of, **options):
        seen.append((of[4], options["keep"]))
        return real(*of, **options)

    monkeypatch.setattr(miner, "corpus_vectors", spied)
    pipeline.run(recipe_for(place, "run", rounds=2))
    assert [keep for label, keep in seen if label == MINING] == [True, False]
    assert encoded.count(MINING) == 1
    assert (place / "run" / "rounds" / "2" / "negatives" / CANDIDATES).is_file()
