import json
import re

import pytest
import torch

from m3tune import pipeline
from m3tune.config import ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.errors import TrainingError
from m3tune.memory import GIB
from m3tune.model.weights import load_encoder
from m3tune.planning import plan_run
from m3tune.recipe import build_recipe
from m3tune.training import costs as costs_module
from m3tune.training import microbatches
from m3tune.training import plan as plan_module
from m3tune.training.budget import Budget
from m3tune.training.costs import Costs, Probed, largest_table, measure_costs, typical
from m3tune.training.parts import freeze
from m3tune.training.plan import make_plan
from m3tune.training.train import _made_ready, plan_training
from tiny import tiny_collection, write_llamaindex

QUERIES = tuple(f"q{i}" for i in range(40))
MIB = 2**20
COSTS = Costs(fixed_bytes=1 * MIB, token_bytes=MIB, train_s=0.03, forward_s=0.01, loss_bytes=2 * MIB, loss_s=0.5)


@pytest.fixture
def ready(tiny_folders):
    """An encoder with what it is fed; batches have 8 queries of 8 tokens and 8 passages of 10."""
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))

    def made(**config):
        settings = TrainConfig(**{"batch_queries": 8, "precision": "float32"} | config)
        feed, batches, dtype = _made_ready(encoder, tiny_collection(), Similar(), QUERIES, settings, print)
        return encoder, feed, batches, settings, dtype

    return made


@pytest.fixture
def planned(ready, monkeypatch):
    """A plan from costs that are given and not measured: 50 MiB in use, weights that weigh nothing to speak of."""

    def made(costs=COSTS, by_layer=None, free_mib=10**6, **config):
        found = iter([costs, by_layer or costs])
        monkeypatch.setattr(plan_module, "measure_costs", lambda *_: next(found))
        monkeypatch.setattr(plan_module, "in_use_bytes", lambda _: 50 * MIB)
        monkeypatch.setattr(plan_module, "free_bytes", lambda _: free_mib * MIB)
        return make_plan(*ready(**config))

    return made


def test_what_the_probes_load_counts_as_in_use(ready, monkeypatch):
    in_use = [50 * MIB]

    def measured(*_):
        in_use.append(80 * MIB)
        return COSTS

    monkeypatch.setattr(plan_module, "measure_costs", measured)
    monkeypatch.setattr(plan_module, "in_use_bytes", lambda _: in_use[-1])
    monkeypatch.setattr(plan_module, "free_bytes", lambda _: 1000 * MIB)
    plan = make_plan(*ready())
    assert plan.in_use == 80 * MIB
    assert plan.limit == int(80 * MIB + 0.85 * 1000 * MIB)


def test_a_batch_that_fits_is_encoded_once(planned):
    plan = planned()
    assert plan.budget == Budget(144)
    assert plan.largest_tokens == plan.tokens_per_step == 144
    assert plan.activations == 145 * MIB
    assert plan.gradients == 0, "they grow as the activations of the only part go"
    assert plan.peak == 50 * MIB + 145 * MIB + 2 * MIB + plan.optimizer_state
    assert plan.step_s == pytest.approx(144 * 0.03 + 0.5)
    assert plan.steps == 15
    assert "the whole batch fits" in plan.in_words()


def test_what_does_not_fit_is_encoded_twice_and_takes_its_time(planned):
    plan = planned(free_mib=100)
    encoder_bytes = plan.optimizer_state + plan.gradients
    assert plan.gradients > 0
    assert plan.peak <= plan.limit == int(50 * MIB + 0.85 * 100 * MIB)
    assert plan.limit - plan.peak < 2 * MIB, "all that may be taken is"
    held = plan.budget.tokens
    assert held == (plan.limit - 50 * MIB - 3 * MIB - encoder_bytes) // MIB
    assert plan.step_s == pytest.approx(144 * 0.03 + (144 - held) * 0.01 + 0.5)
    assert f"{1 - held / 144:.0%} of the largest batch of 144 is encoded twice" in plan.in_words()


def test_layers_are_recomputed_only_where_a_text_does_not_fit_otherwise(planned):
    smaller = COSTS._replace(token_bytes=MIB / 10)
    plan = planned(by_layer=smaller, free_mib=14)
    assert plan.budget.recompute_layers
    assert plan.budget.tokens > 10
    assert "a text of 10 tokens fits only layer by layer" in plan.in_words()
    assert plan.step_s == pytest.approx(144 * 0.04 + 0.5), "every token goes forward twice"
    assert not planned(by_layer=smaller, free_mib=30).budget.recompute_layers


def test_the_recipe_has_its_way(planned):
    assert planned(budget_tokens=32).budget == Budget(32)
    assert planned(budget_tokens=3).budget == Budget(10), "a text is never cut in two"
    assert planned(gradient_checkpointing=True).budget == Budget(144, recompute_layers=True)
    assert planned(memory_gib=0.25).limit == GIB / 4
    assert planned(accumulate_batches=2).steps == 9


def test_what_cannot_fit_says_what_takes_the_memory_and_what_would_help(planned):
    with pytest.raises(TrainingError, match=r"one text of 10 tokens at a time, and 0\.1 GiB are there") as caught:
        planned(free_mib=2)
    assert "train.lora_rank" in caught.value.fix
    assert "activations" in caught.value.what


def test_the_8_bit_optimizer_is_taken_where_it_is_installed_and_needed(planned, monkeypatch):
    with pytest.raises(TrainingError, match="bitsandbytes"):
        planned(optimizer="adamw_8bit")
    monkeypatch.setattr(plan_module.importlib.util, "find_spec", lambda name: object())
    assert planned().optimizer == "adamw"
    state = planned().optimizer_state
    tight = COSTS._replace(token_bytes=0, fixed_bytes=0, loss_bytes=0)
    needed_mib = state * 1.2 / MIB / 0.85
    found = planned(costs=tight, free_mib=needed_mib)
    assert (found.optimizer, found.optimizer_state) == ("adamw_8bit", state // 4)
    assert "8-bit" in found.in_words()
    with pytest.raises(TrainingError, match="for gradients and the optimizer"):
        planned(costs=tight, free_mib=needed_mib, optimizer="adamw")


def test_typical_texts_are_of_all_lengths_alike():
    texts = [torch.zeros(n).numpy() for n in range(1, 101)]
    lengths = [len(text) for text in typical(texts, 505)]
    assert sum(lengths) == pytest.approx(505, rel=0.15)
    assert lengths[0] < 10
    assert lengths[-1] > 90
    assert sum(len(text) for text in typical(texts, 12_000)) == pytest.approx(12_000, rel=0.05)
    assert len(typical(texts, 1)) == 1


def test_probes_leave_the_encoder_as_it_was(ready):
    encoder, feed, batches, config, dtype = ready(self_distill=False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    batch = feed.collate([feed.examples[draw] for draw in next(iter(batches))])
    costs = measure_costs(encoder, batch, config, dtype)
    assert not encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert costs.train_s > 0
    assert costs.forward_s > 0
    assert costs.loss_s > 0


@pytest.mark.parametrize("layer_share", [0.0, 0.5])
def test_activations_beyond_the_probes_are_foretold_though_gradients_rule_the_short_ones(
    ready, monkeypatch, layer_share
):
    """Passes that hold 1 MiB and a MiB for each token, and take `layer_share` MiB a token more on the way back."""
    encoder, feed, batches, config, dtype = ready()
    batch = feed.collate([feed.examples[draw] for draw in next(iter(batches))])
    gradients = 90 * MIB  # more than the shorter probe of 72 tokens holds, less than the longer one of 144
    monkeypatch.setattr(costs_module, "learning_weights", lambda _: gradients // 4)

    def passing(encoder, texts, *_, backward=True):
        tokens = sum(map(len, texts))
        held = (1 + tokens) * MIB
        whole = max(held, gradients) + int(layer_share * tokens * MIB) if backward else held
        return Probed(tokens, held, whole, 0.01 * tokens)

    monkeypatch.setattr(costs_module, "probe", passing)
    costs = measure_costs(encoder, batch, config, dtype)
    with_gaps = 1.2 * (1 + 10_000 * (1 + layer_share)) * MIB
    assert costs.activations(10_000) == pytest.approx(with_gaps, rel=1e-3)


def test_gradients_count_where_they_are_more_than_the_activations_that_they_follow(planned):
    small = COSTS._replace(token_bytes=1.0, fixed_bytes=10.0)
    plan = planned(costs=small)
    gradients = plan.optimizer_state // 2
    assert plan.activations == 154
    assert plan.activations + plan.gradients == gradients
    assert planned(costs=small, accumulate_batches=2).gradients == gradients


def test_the_largest_table_is_one_that_learns(ready):
    encoder, *_ = ready()
    assert largest_table(encoder) == 64 * 32
    freeze(encoder, TrainConfig(train_part="no embeddings"))
    assert largest_table(encoder) == 0


def test_each_part_has_a_gradient_of_the_whole_embedding_table_for_a_moment(planned, monkeypatch):
    small, table = COSTS._replace(token_bytes=1.0, fixed_bytes=10.0), 64 * 32 * 4  # words, width, bytes of a number
    whole, in_parts = planned(costs=small), planned(costs=small, budget_tokens=40)
    gradients = whole.optimizer_state // 2
    assert whole.activations + whole.gradients == gradients
    assert (in_parts.activations, in_parts.gradients) == (table, gradients)
    assert planned(budget_tokens=40).activations == 41 * MIB, "which is more"
    monkeypatch.setitem(microbatches._PART_TOKENS, "cpu", 40)
    held_in_parts = planned(costs=small)
    assert held_in_parts.activations + held_in_parts.gradients == gradients + table


@pytest.mark.parametrize(("most", "probed"), [(10**9, 144), (100, 72)])
def test_a_probe_that_does_not_fit_is_made_smaller(ready, monkeypatch, most, probed):
    encoder, feed, batches, config, dtype = ready()
    batch = feed.collate([feed.examples[draw] for draw in next(iter(batches))])
    sizes = []
    original = costs_module.probe

    def limited(encoder, texts, *arguments, **options):
        tokens = sum(map(len, texts))
        if tokens > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(tokens)
        return original(encoder, texts, *arguments, **options)

    monkeypatch.setattr(costs_module, "probe", limited)
    monkeypatch.setattr(costs_module, "_PROBE_S", 0.0)
    measure_costs(encoder, batch, config, dtype)
    assert not encoder.training
    assert max(sizes) == pytest.approx(probed, rel=0.1)


def test_memory_that_runs_out_in_the_first_probe_is_an_error_for_people(ready, monkeypatch):
    def none_left(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(costs_module, "probe", none_left)
    with pytest.raises(TrainingError, match="a probe of some hundred tokens"):
        make_plan(*ready())


def test_the_plan_of_a_run_is_made_from_its_data_and_leaves_them_for_the_run(tiny_folders, tmp_path, m3tune):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = {
        "output": str(tmp_path / "run"), "data": {"path": str(data)}, "model": {"path": str(tiny_folders["bert"])},
        "train": {"precision": "float32", "epochs": 1}, "evaluate": {"resamples": 100},
    }  # fmt: skip
    recipe = build_recipe(tables)
    plan = plan_run(recipe, lambda _: None)
    assert plan.corpus_tokens == 90 * 10
    assert plan.dev_tokens <= plan.corpus_tokens
    assert set(plan.seconds) == {"base", "training steps", "development", "selection", "tuned"}
    assert plan.gib["peak"] < plan.gib["limit"]
    prepared = (tmp_path / "run" / "data" / "manifest.json").stat().st_mtime_ns
    pipeline.run(recipe)
    assert (tmp_path / "run" / "data" / "manifest.json").stat().st_mtime_ns == prepared
    trained = json.loads((tmp_path / "run" / "train" / "manifest.json").read_text())["counts"]["memory"]
    assert trained["peak_gib"] > 0
    (tmp_path / "recipe.toml").write_text('[data]\npath = "-"\n[model]\npath = "-"\n')
    settings = [f"output={tmp_path / 'run'}", f"data.path={data}", f"model.path={tiny_folders['bert']}"]
    arguments = ["plan", tmp_path / "recipe.toml", *(part for item in settings for part in ("--set", item))]
    code, out, err = m3tune(*arguments, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["largest_tokens"] >= plan.train.largest_tokens
    code, out, _ = m3tune(*arguments)
    assert code == 0
    assert "peak" in out
    assert "plan: " in out
    code, _, err = m3tune(*arguments, "--set", "train.memory_gib=0.001")
    assert code == 2
    assert "fix: any of" in err


@pytest.mark.parametrize(
    ("select", "dev_times", "retained_passages"),
    [
        ({"rule": "last"}, 1, 0),
        ({"retention": "none"}, 5, 0),
        ({"retention": "none", "alphas": []}, 1, 0),
        ({"alphas": []}, 1, 90 / 2 * 3),  # the checkpoint and the base on one half of each text, the base on the other
        ({"retention": "other.json", "retention_passages": 30}, 5, 30 * 6),
    ],
)
def test_the_time_of_a_selection_is_planned(tiny_folders, tmp_path, select, dev_times, retained_passages):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = {
        "output": str(tmp_path / "run"), "data": {"path": str(data)}, "model": {"path": str(tiny_folders["bert"])},
        "train": {"precision": "float32", "max_steps": 1}, "select": select,
    }  # fmt: skip
    plan = plan_run(build_recipe(tables), lambda _: None)
    assert plan.selection_tokens == pytest.approx(dev_times * plan.dev_tokens + retained_passages * 10)


def test_what_is_still_to_be_mined_is_planned_for(tiny_folders, tmp_path):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = {
        "output": str(tmp_path / "run"), "data": {"path": str(data)}, "model": {"path": str(tiny_folders["bert"])},
        "train": {"precision": "float32", "batch_queries": 8, "max_steps": 2}, "evaluate": {"resamples": 100},
    }  # fmt: skip
    plain = plan_run(build_recipe(tables), lambda _: None)
    mining = tables | {"mine": {"threshold": "none"}, "train": tables["train"] | {"negatives_per_query": 3}}
    planned = plan_run(build_recipe(mining), lambda _: None)
    said = []
    pipeline.run(build_recipe(mining), said.append)
    (of_the_run,) = [line for line in said if line.startswith("plan: ")]
    assert planned.train.tokens_per_step > 1.5 * plain.train.tokens_per_step
    tokens = int(re.search(r"steps of ([\d,]+) tokens", of_the_run)[1].replace(",", ""))
    assert tokens == pytest.approx(planned.train.tokens_per_step, rel=0.1)


def test_a_plan_and_a_training_use_the_same_numbers(tiny_folders):
    encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
    config = TrainConfig(batch_queries=8, precision="float32", budget_tokens=50)
    plan = plan_training(encoder, tiny_collection(), Similar(), QUERIES, config, print)
    assert plan.budget == Budget(50)
    assert plan.step_s > 0
