import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from m3tune import pipeline
from m3tune.config import EvaluateConfig, ModelConfig, TrainConfig
from m3tune.data.similar import Similar
from m3tune.errors import TrainingError
from m3tune.evaluation.measure import measure_encoder
from m3tune.evaluation.metrics import mean
from m3tune.model.weights import load_encoder
from m3tune.recipe import build_recipe
from m3tune.training import arguments as arguments_module
from m3tune.training import trainer as trainer_module
from m3tune.training.arguments import resolve_epochs, resolve_learning_rate, total_steps, training_arguments
from m3tune.training.callbacks import LOG_FILE
from m3tune.training.train import train
from tiny import tiny_collection, write_llamaindex

METRIC = "nDCG@10"
TRAIN_QUERIES = tuple(f"q{i}" for i in range(40))
DEV_QUERIES = tuple(f"q{i}" for i in range(40, 60))
BASE = {"epochs": 8, "batch_queries": 8, "learning_rate": 5e-3, "precision": "float32", "logging_steps": 1}


@pytest.fixture
def encoder(tiny_folders):
    return load_encoder(ModelConfig(path=str(tiny_folders["bert"])))[0]


def dev_metric(encoder, collection):
    config = EvaluateConfig(metrics=(METRIC,))
    measured = measure_encoder(
        encoder, "dev", collection, list(collection.passages), {"dev": DEV_QUERIES}, config, "float32"
    )
    return mean(measured.searched["dev"].evaluation("dense", {}).per_query)


def tuned(encoder, collection, folder, similar=None, **config):
    """Train the encoder in place; returns the result and what was said."""
    folder.mkdir(exist_ok=True)
    said = []
    result = train(
        encoder, collection, similar or Similar(), TRAIN_QUERIES, TrainConfig(**BASE | config), METRIC,
        lambda current: dev_metric(current, collection), folder, said.append,
    )  # fmt: skip
    return result, said


def weights_of(encoder):
    return {name: weight.clone() for name, weight in encoder.state_dict().items()}


def losses_of(result):
    return [line["loss"] for line in result.log if "loss" in line]


# --- it learns


def test_the_loss_falls_and_what_was_learned_holds_for_other_queries(encoder, collection, tmp_path):
    before = dev_metric(encoder, collection)[METRIC]
    result, said = tuned(encoder, collection, tmp_path)
    losses = losses_of(result)
    assert len(losses) == result.steps == 40  # 8 epochs of 5 batches
    assert sum(losses[-5:]) < sum(losses[:5]) / 10
    assert result.best_metric > before + 0.3
    assert dev_metric(encoder, collection)[METRIC] == result.best_metric, "it ends as the best checkpoint"
    evaluated = {line["step"]: line[f"eval_{METRIC}"] for line in result.log if f"eval_{METRIC}" in line}
    assert list(evaluated) == [10, 20, 30, 40]
    assert evaluated[result.best_step] == max(evaluated.values())
    assert not encoder.training
    assert [line.partition(":")[0] for line in said] == ["plan"]
    assert result.counts == {"queries": 40, "queries_cut": 0, "passages": 40, "passages_cut": 0}


def test_the_log_file_holds_every_line_with_real_tokens_a_second(encoder, collection, tmp_path):
    result, _ = tuned(encoder, collection, tmp_path, epochs=1)
    lines = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert lines == list(result.log)[: len(lines)]
    assert sum("loss" in line for line in lines) == 5
    assert all(line["tokens_per_s"] > 0 for line in lines if "loss" in line)
    assert {"grad_norm", "learning_rate", "epoch", "step"} <= lines[0].keys()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_folders, collection, tmp_path):
    weights = []
    for run, seed in enumerate((0, 0, 1)):
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        tuned(encoder, collection, tmp_path / str(run), max_steps=4, dropout=0.1, seed=seed)
        weights.append(weights_of(encoder))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.filterwarnings("error::FutureWarning")
def test_recomputing_layers_changes_no_result(tiny_folders, collection, tmp_path):
    start = load_file(tiny_folders["bert"] / "model.safetensors")
    weights, passes = {}, {False: [], True: []}
    for on in (False, True):
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        layer = encoder.backbone.encoder.layer[0].intermediate
        layer.register_forward_hook(lambda module, *_, seen=passes[on]: seen.append(1) if module.training else None)
        tuned(encoder, collection, tmp_path / str(on), max_steps=3, gradient_checkpointing=on, evaluations=1)
        weights[on] = weights_of(encoder)
    # Three steps; the passes of the plan's probes come to both alike.
    planned = len(passes[False]) - 3
    assert planned > 0
    assert len(passes[True]) > planned + 6
    for name, weight in weights[False].items():
        torch.testing.assert_close(weights[True][name], weight, atol=1e-5, rtol=1e-4, msg=lambda t, n=name: f"{n}: {t}")
    moved = (
        weights[False]["backbone.encoder.layer.0.output.dense.weight"] - start["encoder.layer.0.output.dense.weight"]
    )
    assert moved.abs().max() > 1e-3


def test_patience_ends_a_run_that_gets_no_better(encoder, collection, tmp_path):
    result, _ = tuned(encoder, collection, tmp_path, learning_rate=1e-12, evaluations=8, patience=2)
    assert result.steps == 15  # the first of eight evaluations is the best; two more are not better
    assert result.best_step == 5


def test_a_recipe_that_asks_for_negatives_that_are_not_there_is_told_so(encoder, collection, tmp_path):
    _, said = tuned(encoder, collection, tmp_path, max_steps=1, negatives_per_query=4)
    assert said[0] == "the recipe asks for hard negatives, but the data brings none: only in-batch negatives are used"


def test_long_texts_are_counted_as_cut(encoder, collection, tmp_path):
    limited, _ = load_encoder(ModelConfig(path=str(encoder.backbone.name_or_path), passage_max_tokens=5))
    result, _ = tuned(limited, collection, tmp_path, max_steps=1)
    assert result.counts["passages_cut"] == result.counts["passages"] == 40
    assert result.counts["queries_cut"] == 0


# --- what must stop it


def finite_checkpoints(folder):
    files = list(folder.glob("checkpoint-*/model.safetensors"))
    return files and all(torch.isfinite(weight).all() for file in files for weight in load_file(file).values())


def test_a_loss_that_is_not_finite_stops_before_anything_is_updated(encoder, collection, tmp_path, monkeypatch):
    calls, before = [], []
    original = trainer_module.unified

    def overflowing(*args, **options):
        calls.append(1)
        before[:] = [weights_of(encoder)]
        outcome = original(*args, **options)
        return outcome._replace(loss=outcome.loss * (float("inf") if len(calls) == 4 else 1))

    monkeypatch.setattr(trainer_module, "unified", overflowing)
    with pytest.raises(TrainingError, match="the loss of step 4 is not finite; nothing was updated") as caught:
        tuned(encoder, collection, tmp_path, max_steps=8)
    assert "train.learning_rate" in caught.value.fix
    after = weights_of(encoder)
    assert all(torch.equal(after[name], before[0][name]) for name in after)
    assert finite_checkpoints(tmp_path)


def test_weights_that_are_not_numbers_stop_the_first_step(encoder, collection, tmp_path):
    with torch.no_grad():
        encoder.backbone.encoder.layer[0].output.dense.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="the loss of step 1 is not finite"):
        tuned(encoder, collection, tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(encoder, collection, tmp_path, value):
    # In one bias of the last layer: clipping spreads nan to every gradient, but inf to none.
    bias = encoder.backbone.encoder.layer[1].output.dense.bias
    bias.register_hook(lambda gradient: torch.full_like(gradient, value))
    before = weights_of(encoder)
    with pytest.raises(TrainingError, match="the gradient of step 1 is not finite"):
        tuned(encoder, collection, tmp_path)
    after = weights_of(encoder)
    assert all(torch.equal(after[name], before[name]) for name in after)


# --- transformers' own options


def test_tensorboard_writes_its_events(encoder, collection, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tuned(encoder, collection, tmp_path, max_steps=4, report_to=["tensorboard"])
    (events,) = tmp_path.glob("runs/*/events.out.tfevents.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert {"train/loss", f"eval/{METRIC}"} <= set(accumulator.Tags()["scalars"])
    assert len(accumulator.Scalars("train/loss")) == 4


def arguments(tmp_path, batches_per_epoch=5, precision=torch.float32, optimizer="adamw", **config):
    settings = TrainConfig(**BASE | config)
    rate, steps = resolve_learning_rate(settings, hidden_size=32), total_steps(settings, batches_per_epoch)
    return training_arguments(settings, rate, tmp_path, steps, METRIC, precision, torch.device("cpu"), optimizer)


@pytest.mark.parametrize("hidden_size, rate", [(1024, 2e-5), (768, 3.5556e-5), (384, 1.4222e-4), (32, 2e-4)])
def test_the_automatic_learning_rate_falls_with_the_square_of_the_width(hidden_size, rate):
    assert resolve_learning_rate(TrainConfig(), hidden_size) == pytest.approx(rate, rel=1e-4)
    assert resolve_learning_rate(TrainConfig(learning_rate=3e-6), hidden_size) == 3e-6


@pytest.mark.parametrize(
    ("batches", "accumulate", "passes"),
    [(1, 1, 10), (13, 1, 10), (22, 1, 6), (43, 1, 3), (44, 2, 6), (45, 2, 6), (10_000, 1, 3)],
)
def test_automatic_epochs_pass_over_few_queries_more_often(batches, accumulate, passes):
    auto = TrainConfig(epochs="auto", accumulate_batches=accumulate)
    assert resolve_epochs(auto, batches) == passes
    assert total_steps(auto, batches) == passes * math.ceil(batches / accumulate)
    assert total_steps(auto.model_copy(update={"max_steps": 7}), batches) == 7
    assert resolve_epochs(TrainConfig(epochs=0.5), batches) == 0.5


def test_the_recipe_reaches_the_trainers_arguments(tmp_path):
    args = arguments(
        tmp_path, batches_per_epoch=6, schedule="cosine", warmup=0.25, weight_decay=0.2, max_grad_norm=0.5, seed=7,
        evaluations=5,
    )  # fmt: skip
    assert args.max_steps == 48  # 8 epochs of 6 batches
    assert args.warmup_steps == 12
    assert args.eval_steps == args.save_steps == 10
    assert (args.learning_rate, args.weight_decay, args.max_grad_norm, args.seed) == (5e-3, 0.2, 0.5, 7)
    assert args.lr_scheduler_type == "cosine"
    assert args.metric_for_best_model == f"eval_{METRIC}"
    assert args.load_best_model_at_end
    assert args.report_to == []
    assert (args.bf16, args.fp16, args.gradient_accumulation_steps) == (False, False, 1)
    assert arguments(tmp_path, precision=torch.bfloat16).bf16
    assert arguments(tmp_path, max_steps=3).max_steps == 3
    assert arguments(tmp_path, epochs=0.01).max_steps == 1
    accumulated = arguments(tmp_path, batches_per_epoch=7, accumulate_batches=3)
    assert (accumulated.gradient_accumulation_steps, accumulated.max_steps) == (3, 24)  # 8 epochs of 3, 3 and 1
    assert args.optim == "adamw_torch_fused"
    assert arguments(tmp_path, optimizer="adamw_8bit").optim == "adamw_bnb_8bit"


def test_fsdp_options_reach_the_trainers_arguments(tmp_path):
    file = tmp_path / "fsdp.json"
    file.write_text(json.dumps({"cpu_offload": True, "transformer_layer_cls_to_wrap": "BertLayer"}))
    args = arguments(tmp_path, fsdp="full_shard auto_wrap", fsdp_config=str(file))
    assert args.fsdp
    assert args.fsdp_config["cpu_offload"] is True
    assert args.fsdp_config["transformer_layer_cls_to_wrap"] == ["BertLayer"]
    assert args.fsdp_plugin_args["cpu_offload"] is True
    assert not arguments(tmp_path).fsdp


def test_the_deepspeed_file_reaches_the_trainers_arguments(tmp_path, monkeypatch):
    taken = Mock(return_value=Mock(n_gpu=1))
    monkeypatch.setattr(arguments_module, "TrainingArguments", taken)
    arguments(tmp_path, deepspeed="zero2.json")
    assert taken.call_args.kwargs["deepspeed"] == "zero2.json"


# --- resume

COMMAND = [sys.executable, "-c", "from m3tune.cli import main; main()"]


def recipe_tables(folder, model, data):
    return {
        "output": str(folder),
        "data": {"path": str(data)},
        "model": {"path": str(model)},
        "train": {**BASE, "max_steps": 120, "evaluations": 12, "dropout": 0.1, "positives_per_query": 1},
        "evaluate": {"resamples": 100},
    }


def recipe_arguments(tables):
    flat = [f"output={tables['output']}"]
    flat += [f"{section}.{key}={value}" for section in ("data", "model", "train", "evaluate")
             for key, value in tables[section].items()]  # fmt: skip
    return [argument for item in flat for argument in ("--set", item)]


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ({"budget_tokens": 48, "memory_gib": 30, "gradient_checkpointing": True, "devices": 2}, True),
        ({"warmup": 0.2}, False),
    ],
)
def test_a_training_goes_on_with_other_settings_of_the_machine_alone(
    tiny_folders, tmp_path, monkeypatch, changed, goes_on
):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = recipe_tables(tmp_path / "run", tiny_folders["bert"], data)
    tables["train"] |= {"max_steps": 8, "evaluations": 4, "dropout": 0.0}
    evaluate, evaluated = trainer_module.RetrievalTrainer.evaluate, []

    def cut_off(self, *arguments, **options):
        evaluated.append(self.state.global_step)
        if evaluated == [2, 4]:
            raise KeyboardInterrupt
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(trainer_module.RetrievalTrainer, "evaluate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(build_recipe(tables))
    tables["train"] |= changed
    said = []
    pipeline.run(build_recipe(tables), said.append)
    assert ("going on from checkpoint-2" in said) is goes_on
    assert evaluated == [2, 4, *([] if goes_on else [2]), 4, 6, 8]


def test_a_run_killed_while_it_saves_goes_on_to_the_very_same_weights(tiny_folders, tmp_path):
    data = write_llamaindex(tmp_path / "data.json", tiny_collection())
    tables = recipe_tables(tmp_path / "killed", tiny_folders["bert"], data)
    (tmp_path / "recipe.toml").write_text('[data]\npath = "-"\n[model]\npath = "-"\n')
    command = [*COMMAND, "run", str(tmp_path / "recipe.toml"), *recipe_arguments(tables)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "killed" / "train.partial"
    wait_for((partial / "checkpoint-20").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert partial.is_dir()
    assert not (tmp_path / "killed" / "train").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode in (0, 1), again.stderr
    assert "going on from checkpoint-" in again.stderr

    tables["output"] = str(tmp_path / "whole")
    pipeline.run(build_recipe(tables))
    killed, whole = (Path(tmp_path) / name / "train" for name in ("killed", "whole"))
    assert not partial.exists()
    interrupted, expected = (load_file(folder / "model" / "model.safetensors") for folder in (killed, whole))
    assert set(interrupted) == set(expected)
    assert [name for name in expected if not torch.equal(interrupted[name], expected[name])] == []
    start = load_file(tiny_folders["bert"] / "model.safetensors")
    assert any(not torch.equal(start[name], expected[name]) for name in expected)
    timings = ("tokens_per_s", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key not in timings}
            for line in (folder / LOG_FILE).read_text().splitlines()
        ]
        for folder in (killed, whole)
    ]
    assert logs[0] == logs[1], "no line is lost or written twice"
    assert (killed / "selection.json").read_text() == (whole / "selection.json").read_text()


def test_half_a_checkpoint_is_not_gone_on_from(tiny_folders, collection, tmp_path):
    finished = []
    for broken in (False, True):
        folder = tmp_path / str(broken)
        encoder, _ = load_encoder(ModelConfig(path=str(tiny_folders["bert"])))
        if broken:
            (folder / "checkpoint-3").mkdir(parents=True)
            (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"cut off")
            (folder / "checkpoint-2").mkdir()
            (folder / "checkpoint-2" / "trainer_state.json").write_text("{")
        _, said = tuned(encoder, collection, folder, max_steps=4)
        assert not any("going on" in line for line in said)
        finished.append(weights_of(encoder))
    assert all(torch.equal(finished[0][name], finished[1][name]) for name in finished[0])
