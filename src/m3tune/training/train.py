"""The training stage: an encoder and a collection in, the encoder of the best development checkpoint out.

Or that of the last step, where the recipe wants what training ends with.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from m3tune.config import TrainConfig
from m3tune.data.collection import Collection
from m3tune.data.similar import Similar
from m3tune.errors import TrainingError
from m3tune.machine import pick_device, pick_precision
from m3tune.memory import GIB, peak_of_work
from m3tune.model.backbone import quiet_transformers
from m3tune.model.encoder import Encoder, set_dropout
from m3tune.progress import track
from m3tune.training.arguments import resolve_learning_rate, training_arguments
from m3tune.training.batches import EpochBatches
from m3tune.training.callbacks import AfterStep
from m3tune.training.compiling import compiled
from m3tune.training.devices import count_devices, devices_there, started
from m3tune.training.feed import Feed, guided, make_feed
from m3tune.training.objective import Objective
from m3tune.training.parts import training_parts
from m3tune.training.plan import Plan, make_plan
from m3tune.training.trainer import DevEvaluation, RetrievalTrainer
from m3tune.training.warm_start import warm_start_sparse

_GUIDE = "guide"  # the folder of its vectors


@dataclass(frozen=True)
class TrainingResult:
    """What training found: the step that was kept and its development metric, the steps done, and every log line."""

    best_step: int
    best_metric: float
    steps: int
    log: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, Any]
    memory: Mapping[str, float]  # planned and measured, of the process or of what torch took of an accelerator


def train(
    encoder: Encoder,
    collection: Collection,
    similar: Similar,
    query_ids: tuple[str, ...],
    config: TrainConfig,
    main_metric: str,
    evaluate_dev: DevEvaluation,
    folder: Path,
    say: Callable[[str], None],
    *,
    keep_best: bool = True,
    after_step: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Tune `encoder` in place on the positives and given negatives of `query_ids`; it ends as the best checkpoint.

    Without `keep_best` it ends as the last step left it. What `similar` holds to be nearly the same as a known relevant
    passage is no negative. Checkpoints and the log go to `folder`, a guide's vectors too until the end; an interrupted
    run that left checkpoints there goes on from the last. With `after_step` this is a trial: that is told of every step
    and of how many there are, and may raise to end the training; no checkpoint is written, and the encoder ends as the
    last step left it.
    """
    check_alone()
    feed, batches, precision = _made_ready(encoder, collection, similar, query_ids, config, say)
    if config.guide is not None:
        feed = guided(feed, config.guide, collection, precision, folder / _GUIDE)
    device, rate = encoder.device, resolve_learning_rate(config, encoder.dimension)
    count, config = _shared_by(config, device, say)
    checkpoint = _start(encoder, feed, precision, folder, say)
    with training_parts(encoder, config), quiet_transformers():
        plan = make_plan(encoder, feed, batches, config, precision, count)
        say(plan.in_words())
        done = int(Path(checkpoint).name.rsplit("-", 1)[-1]) if checkpoint else 0
        texts = feed.collate([feed.examples[draw] for draw in next(iter(batches))]).texts
        with (
            started(encoder, count, precision, config.seed) as devices,
            compiled(encoder, texts, plan, config, precision) as compiling,
            track("train", total=plan.steps, done=done) as advance,
            peak_of_work(device) as peak,
        ):
            if compiling:
                say(compiling)
            with _settings_explained():
                arguments = training_arguments(
                    config, rate, folder, plan.steps, main_metric, precision, device, plan.optimizer,
                    checkpoints=after_step is None, keep_best=keep_best,
                )  # fmt: skip
                trainer = RetrievalTrainer(
                    encoder, arguments, config, feed.examples, batches, feed.collate, plan.budget, devices,
                    evaluate_dev, advance, say,
                )  # fmt: skip
            if after_step is not None:
                trainer.add_callback(AfterStep(after_step))
            trainer.train(resume_from_checkpoint=checkpoint)
    shutil.rmtree(folder / _GUIDE, ignore_errors=True)
    encoder.recompute_layers(False)
    encoder.eval()
    state = trainer.state
    best_step, best_metric = _kept_evaluation(state.log_history, f"eval_{main_metric}", keep_best)
    return TrainingResult(
        best_step=best_step,
        best_metric=best_metric,
        steps=state.global_step,
        log=tuple(state.log_history),
        counts=feed.counts,
        memory={
            "planned_gib": round(plan.peak / GIB, 3),
            "peak_gib": round(peak.total / GIB, 3),
            "budget_tokens": trainer.budget.tokens,
        },
    )


def plan_training(
    encoder: Encoder,
    collection: Collection,
    similar: Similar,
    query_ids: tuple[str, ...],
    config: TrainConfig,
    say: Callable[[str], None],
) -> Plan:
    """What `train` with the same arguments would take."""
    feed, batches, precision = _made_ready(encoder, collection, similar, query_ids, config, say)
    with training_parts(encoder, config), quiet_transformers():
        return make_plan(encoder, feed, batches, config, precision, count_devices(config, encoder.device))


def _made_ready(
    encoder: Encoder,
    collection: Collection,
    similar: Similar,
    query_ids: tuple[str, ...],
    config: TrainConfig,
    say: Callable[[str], None],
) -> tuple[Feed, EpochBatches, torch.dtype]:
    """What the encoder is fed, in which batches, and the dtype of its products; the encoder is put on the device."""
    _check_objective(encoder, config)
    feed = make_feed(encoder, collection, similar, query_ids, config, say)
    device = pick_device()
    encoder.to(device)
    set_dropout(encoder, config.dropout)
    return feed, EpochBatches(feed.sets, config), pick_precision(config.precision, device)


def _shared_by(config: TrainConfig, device: torch.device, say: Callable[[str], None]) -> tuple[int, TrainConfig]:
    """How many devices train, and what the recipe comes to with so many."""
    count, there = count_devices(config, device), devices_there(device)
    if count == 1 and there > 1:
        say(f'{there} GPUs are there: train.devices = "auto" has them share each batch')
    if count > 1 and config.compile != "off":
        say("compile: off, for several devices train")
        config = config.model_copy(update={"compile": "off"})
    return count, config


def _kept_evaluation(log: Sequence[Mapping[str, Any]], name: str, keep_best: bool) -> tuple[int, float]:
    """Step and value of the evaluation of what is kept: the first best one, as the Trainer does, or the last step's."""
    evaluated = [line for line in log if name in line]
    if not evaluated:
        raise TrainingError(
            "training ended without one development evaluation", where="train", fix="raise train.epochs"
        )
    kept = max(evaluated, key=lambda line: line[name]) if keep_best else evaluated[-1]
    return kept["step"], kept[name]


def check_alone() -> None:
    """Raises TrainingError where this process is one of several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "started as one of several processes, which would each train on the same batches",
            where="train",
            fix='start m3tune once, without torchrun or accelerate launch; train.devices = "auto" uses every GPU',
        )


def _check_objective(encoder: Encoder, config: TrainConfig) -> None:
    """Raises TrainingError for an objective that this encoder's heads cannot follow."""
    present, objective = encoder.settings.heads, Objective.of(config)
    if not objective.heads(present):
        raise TrainingError(
            f"every loss of this model's heads ({', '.join(present)}) weighs nothing",
            where="train.loss_weights",
            fix="give one of them a weight above zero",
        )
    if config.self_distill and not objective.mixed(present):
        raise TrainingError(
            "self-distillation teaches heads by their hybrid, which needs two heads with a weight",
            where="train.self_distill",
            fix="load or start another head (model.heads, model.new_heads), or set it to false",
        )
    too_long = [dim for dim in config.matryoshka_dims if dim >= encoder.dimension]
    if too_long:
        raise TrainingError(
            f"{too_long[0]} is not shorter than this encoder's {encoder.dimension} dimensions",
            where="train.matryoshka_dims",
            fix="name shorter lengths; the whole one is always trained",
        )


def _start(
    encoder: Encoder, feed: Feed, precision: torch.dtype, folder: Path, say: Callable[[str], None]
) -> str | None:
    """The checkpoint to go on from; where there is none a new sparse head gets its first weights."""
    checkpoint = _last_checkpoint(folder) if folder.is_dir() else None
    if checkpoint:
        say(f"going on from {Path(checkpoint).name}")
    elif "sparse" in encoder.new_heads:
        explained = warm_start_sparse(encoder, feed.collate.passage_tokens, precision)
        say(f"the new sparse head starts from inverse document frequency (R squared {explained:.2f})")
    return checkpoint


@contextlib.contextmanager
def _settings_explained() -> Iterator[None]:
    """What the Trainer says of a logger, DeepSpeed or FSDP setting, as an error of the recipe."""
    try:
        yield
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        raise TrainingError(
            f"transformers' Trainer refuses a setting: {error}",
            where="train",
            fix="check train.report_to, train.deepspeed, train.fsdp and train.fsdp_config, and that what they name is "
            "installed",
        ) from error


def _last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint. What a killed process left half-written, without its state, is deleted."""
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text())  # the Trainer writes it last
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(folder))
