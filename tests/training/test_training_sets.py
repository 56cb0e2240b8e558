"""Which set a query trains in and how, and whole runs on mixed data."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from m3tune import pipeline, tuning
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.prepared import load_prepared
from m3tune.data.read import read_collection
from m3tune.data.similar import Similar
from m3tune.errors import RecipeError
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe
from m3tune.training.batches import EpochBatches
from m3tune.training.feed import make_feed
from m3tune.training.sets import TrainSet, training_sets
from m3tune.training.train import train
from m3tune.types import Judgment, Negative, Passage, Query, QuerySet
from tiny import tiny_collection

IDS = ("q0", "q1", "q2", "q3", "q4")


def collection_of(sets, negatives=()):
    """Query i answered by passage i, in the sets given as name -> QuerySet."""
    return Collection(
        {q: Query(q, f"text of {q}") for q in IDS},
        {f"p{i}": Passage(f"p{i}", f"passage {i}") for i in range(5)},
        tuple(Judgment(f"q{i}", f"p{i}") for i in range(5)),
        tuple(Negative(*pair) for pair in negatives),
        sets=sets,
    )


def made(sources, query_ids=IDS, **config):
    return {s.name: s for s in training_sets(collection_of(sources), query_ids, TrainConfig(**config))}


BANK = {"bank": QuerySet(("q0", "q1"), in_batch_negatives=False), "web": QuerySet(("q2", "q3"))}


def test_data_without_sets_is_one():
    assert made({}, negatives_per_query=2) == {"all": TrainSet("all", IDS, negatives_per_query=2)}
    assert not made({}, in_batch_negatives=False)["all"].in_batch_negatives


def test_sets_are_those_of_the_data_and_one_for_the_rest():
    found = made(BANK)
    assert {name: s.query_ids for name, s in found.items()} == {
        "bank": ("q0", "q1"), "web": ("q2", "q3"), "rest": ("q4",),
    }  # fmt: skip
    assert [s.in_batch_negatives for s in found.values()] == [False, True, True]
    assert list(made(BANK, query_ids=("q3", "q0"))) == ["bank", "web"], "sets without a training query are not there"


@pytest.mark.parametrize(
    ("everywhere", "of_set", "bank", "web"),
    [(True, None, False, True), (False, None, False, False), (True, True, True, True), (False, True, True, False)],
)
def test_in_batch_negatives_are_the_sets_own_setting_or_what_recipe_and_data_both_allow(everywhere, of_set, bank, web):
    found = made(BANK, in_batch_negatives=everywhere, sets={"bank": {"in_batch_negatives": of_set}})
    assert (found["bank"].in_batch_negatives, found["web"].in_batch_negatives) == (bank, web)


def test_a_query_of_several_sets_trains_once_and_without_in_batch_negatives_if_one_of_them_has_none():
    shared = {"web": QuerySet(("q0", "q1", "q2")), "bank": QuerySet(("q1",), False), "more": QuerySet(("q2", "q3"))}
    found = made(shared, query_ids=IDS[:4])
    assert {name: s.query_ids for name, s in found.items()} == {"web": ("q0", "q2"), "bank": ("q1",), "more": ("q3",)}
    without = made(shared, query_ids=IDS[:4], sets={"bank": {"weight": 0}})
    assert {name: s.query_ids for name, s in without.items()} == {"web": ("q0", "q1", "q2"), "more": ("q3",)}


def test_weights_and_types():
    options = {"type": "only_1neg"}, {"type": "symmetric_sts"}, {"type": "normal"}
    sets = {f"s{i}": QuerySet((f"q{i}",), options=option) for i, option in enumerate(options)}
    found = made(sets, negatives_per_query=7, sets={"s1": {"weight": 3}, "rest": {"weight": 0}})
    assert [s.negatives_per_query for s in found.values()] == [1, 7, 7]
    assert [s.symmetric for s in found.values()] == [False, True, False]
    assert [s.draws for s in found.values()] == [1, 3, 1]
    assert made(sets)["s0"].negatives_per_query == 0, "at most"


def test_a_set_that_the_data_does_not_have_is_an_error_that_names_the_nearest():
    with pytest.raises(RecipeError, match="the data has no set 'bnak'") as caught:
        made(BANK, sets={"bnak": {}})
    assert (caught.value.where, caught.value.fix) == ("train.sets.bnak", "did you mean 'bank'?")
    with pytest.raises(RecipeError) as caught:
        made(BANK, sets={"zzzz": {}})
    assert caught.value.fix == "its sets: 'bank', 'web'"
    with pytest.raises(RecipeError) as caught:
        made({}, sets={"rest": {}})
    assert caught.value.fix == "its sets: none"


def test_sets_that_all_weigh_nothing_are_an_error():
    with pytest.raises(RecipeError, match="weighs nothing"):
        made(BANK, query_ids=("q0",), sets={"bank": {"weight": 0}})


# --- whole runs

METRIC = "nDCG@10"


def words(collection, *rows):
    """The texts of passages."""
    return [collection.passages[f"p{i}"].text for i in rows]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """FlagEmbedding's rows as its example data has them: a folder of files of different types."""
    folder = tmp_path_factory.mktemp("mixed") / "rows"
    folder.mkdir()
    source = tiny_collection()
    kinds = {
        "web": ("normal", range(30), 4), "class-no_in_batch_neg": ("symmetric_class", range(30, 42), 6),
        "nli": ("only_1neg", range(42, 51), 3), "sts": ("symmetric_sts", range(51, 60), 2),
    }  # fmt: skip
    for name, (kind, numbers, num_negatives) in kinds.items():
        rows = []
        for i in numbers:
            negatives = words(source, *((i + 1 + n) % 90 for n in range(num_negatives)))
            row = {"query": source.queries[f"q{i}"].text, "pos": words(source, i), "neg": negatives}
            row |= {"pos_scores": [2.0], "neg_scores": [0.5] * num_negatives} if name in ("web", "nli") else {}
            rows.append(row | {"prompt": "c00 c01 " if name == "sts" else "c02 ", "type": kind})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def encoder(tiny_folders):
    return load_encoder(ModelConfig(path=str(tiny_folders["bert"])))[0]


def feed_of(encoder, collection, **config):
    said = []
    feed = make_feed(encoder, collection, Similar(), list(collection.queries), TrainConfig(**config), said.append)
    return feed, said


def test_every_type_of_flagembeddings_rows_comes_to_the_batch_as_its_set_says(encoder, mixed):
    collection, _ = read_collection(str(mixed))
    feed, said = feed_of(encoder, collection, batch_queries=4, negatives_per_query=3)
    assert said == [
        "training sets: class 12 queries, no in-batch negatives; nli 9 queries; "
        "sts 9 queries, query prompt on both sides; web 30 queries"
    ]
    assert feed.counts["queries_by_set"] == {"class": 12, "nli": 9, "sts": 9, "web": 30}
    set_of = [s.name for s in feed.sets for _ in s.query_ids]
    prompts = {name: encoder.tokenizer(text)["input_ids"][1:-1] for name, text in (("sts", "c00 c01"), ("web", "c02"))}
    seen = set()
    for draws in EpochBatches(feed.sets, TrainConfig(batch_queries=4)):
        (name,) = {set_of[draw.index] for draw in draws}
        examples = [feed.examples[draw] for draw in draws]
        batch = feed.collate(examples)
        assert {len(example.negative_ids) for example in examples} == {{"nli": 1, "sts": 2}.get(name, 3)}
        assert len({len(example.negative_ids) for example in examples}) == 1, "rows lie by length, not in this order"
        own = torch.tensor([len(example.negative_ids) for example in examples])
        others = batch.negative.sum(dim=1) - own
        assert (others == 0).all() if name == "class" else (others >= 3).all(), name
        texts = [text.tolist() for text in batch.texts]
        prompt = prompts.get(name, prompts["web"])
        queries, passages = texts[: batch.num_queries], texts[batch.num_queries :]
        assert all(text[1 : 1 + len(prompt)] == prompt for text in queries)
        assert [text[1 : 1 + len(prompt)] == prompt for text in passages].count(True) == (
            len(passages) if name == "sts" else 0
        )
        seen.add(name)
    assert seen == {"class", "nli", "sts", "web"}


@pytest.mark.parametrize(
    ("settings", "teaches"),
    [
        ({"in_batch_negatives": False}, False),
        ({"batch_queries": 1}, False),
        ({"in_batch_negatives": False, "negatives_per_query": 2}, True),
        ({"batch_queries": 1, "negatives_per_query": 2}, True),
        ({"batch_queries": 2}, True),
    ],
)
def test_where_no_query_has_a_negative_training_does_not_begin(encoder, settings, teaches):
    collection = collection_of({}, [("q0", "p1")])
    if teaches:
        assert feed_of(encoder, collection, **settings)[0].counts["queries"] == 5
        return
    with pytest.raises(RecipeError, match="no query has anything to learn from"):
        feed_of(encoder, collection, **settings)


def test_a_person_hears_of_what_is_left_out_not_honoured_or_teaches_nothing(encoder):
    sets = {
        "bank": QuerySet(("q0", "q1"), False, {"batch_size": 8}),
        "web": QuerySet(("q2", "q3", "q4"), True, {"train_group_size": 4, "batch_size": 8}),
    }
    collection = collection_of(sets, [("q0", "p1"), ("q0", "p0"), ("q2", "p3"), ("q3", "p3")])
    feed, said = feed_of(encoder, collection, negatives_per_query=2, sets={"web": {"weight": 0.5}})
    assert said[0] == (
        "training sets: bank 2 queries, no in-batch negatives; web 3 queries, 2 of them an epoch"
    )  # fmt: skip
    assert said[1] == "batch_size of the data ('bank', 'web') is not used; train.batch_queries is"
    assert said[2] == "train_group_size of the data ('web') is not used; train.negatives_per_query is"
    assert said[3].startswith("1 of 2 queries of 'bank' teach nothing")
    assert said[4] == "2 of 4 given negatives are known to be relevant, or a copy of what is: left out"
    assert len(said) == 5
    assert (feed.counts["given_negatives"], feed.counts["given_negatives_known_relevant"]) == (4, 2)
    _, said = feed_of(encoder, collection)
    assert any(line.startswith("2 of 2 queries of 'bank' teach nothing") for line in said)
    feed, _ = feed_of(encoder, collection, sets={"bank": {"weight": 0}})
    assert (feed.counts["queries"], feed.counts["queries_of_sets_without_weight"]) == (3, 2)
    assert len(feed.collate.passage_tokens) == 3, "what is not drawn is not tokenised"


def trained(folder, tiny_folders, rows, fails_at=None, **config):
    """Train on mixed rows; stop with a KeyboardInterrupt in an evaluation, if one is named."""
    folder.mkdir(exist_ok=True)
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"]), new_heads=("sparse", "multi"), multi_dim=16))
    collection, _ = read_collection(str(rows))
    calls, said = [], []

    def evaluate_dev(_):
        calls.append(1)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        return {METRIC: 0.5}

    settings = {
        "batch_queries": 8, "negatives_per_query": 3, "precision": "float32", "learning_rate": 5e-3,
        "logging_steps": 1, "self_distill": True, "distill": "kl", "false_negative_margin": 0.1,
        "sets": {"web": {"weight": 0.5}, "sts": {"weight": 2}, "nli": {"in_batch_negatives": False}},
    }  # fmt: skip
    result = train(
        encoder, collection, Similar(), tuple(collection.queries), TrainConfig(**settings | config), METRIC,
        evaluate_dev, folder, said.append,
    )  # fmt: skip
    return encoder, result, said


def test_mixed_data_trains_all_heads_and_an_interrupted_run_ends_with_the_same_weights(tiny_folders, mixed, tmp_path):
    config = {"epochs": 3, "evaluations": 6}
    whole, result, _ = trained(tmp_path / "whole", tiny_folders, mixed, **config)
    lines = [line for line in result.log if "loss" in line]
    assert len(lines) == result.steps == 3 * 9  # web 2 batches of 15 draws, class 2, nli 2, sts 3 of 18 draws
    assert sum(line["loss"] for line in lines[-9:]) < sum(line["loss"] for line in lines[:9]) * 0.75
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", tiny_folders, mixed, fails_at=4, **config)
    again, resumed, said = trained(tmp_path / "cut", tiny_folders, mixed, **config)
    assert "going on from checkpoint-15" in said, "in the middle of an epoch"
    weights = again.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in whole.state_dict().items())
    assert [line["loss"] for line in resumed.log if "loss" in line] == [line["loss"] for line in lines]


def test_a_whole_run_on_mixed_rows_with_tables_for_its_sets(tiny_folders, mixed, tmp_path, monkeypatch):
    recipe = build_recipe(
        {
            "output": str(tmp_path / "run"),
            "data": {"path": str(mixed)},
            "model": {"path": str(tiny_folders["bert"])},
            "train": {"epochs": 1, "batch_queries": 8, "negatives_per_query": 2, "precision": "float32"},
            "evaluate": {"resamples": 100},
        },
        ["train.sets.class.weight=0.5"],
    )
    said = []
    pipeline.run(recipe, said.append)
    assert any(line.startswith("training sets: class") and "of them an epoch" in line for line in said)
    assert "[train.sets.class]\nweight = 0.5" in (tmp_path / "run" / "resolved.toml").read_text()

    class Handed(Exception):
        """Ends the stage with what it was given."""

    def refuse(*arguments, **_):
        raise Handed(*arguments)

    shutil.rmtree(tmp_path / "run" / "train")
    monkeypatch.setattr(tuning, "train", refuse)
    similar = Similar(passages={"a": "b"})
    with pytest.raises(Handed) as handed:
        pipeline.tune(tmp_path / "run", recipe, replace(load_prepared(tmp_path / "run" / "data"), similar=similar))
    assert any(argument is similar for argument in handed.value.args), "what is nearly the same reaches training"
