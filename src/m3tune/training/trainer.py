"""transformers' Trainer around our batch, our encoder and our loss. The loop, checkpoints and resume are its own."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from m3tune.config import TrainConfig
from m3tune.errors import TrainingError
from m3tune.model.encoder import Encoder
from m3tune.progress import Advance
from m3tune.training.batches import EpochBatches, EpochLoader, Examples, TrainBatch
from m3tune.training.findings import health_findings
from m3tune.training.health import health
from m3tune.training.objective import Known, Objective, unified
from m3tune.vectors import split_at

LOG_FILE = "log.jsonl"

DevEvaluation = Callable[[Encoder], Mapping[str, float]]
"""The encoder as it is now -> development metrics. Handed in, so that the trainer knows no text and no metric."""


class RetrievalTrainer(Trainer):
    """Trains an Encoder with the recipe's objective."""

    def __init__(
        self,
        encoder: Encoder,
        arguments: TrainingArguments,
        config: TrainConfig,
        examples: Examples,
        batches: EpochBatches,
        collate: Callable[..., TrainBatch],
        evaluate_dev: DevEvaluation,
        advance: Advance,
        say: Callable[[str], None],
    ) -> None:
        self.encoder = encoder
        self.config = config
        self.examples = examples
        self.batches = batches
        self.objective: Objective = Objective.of(config)
        self.looked_at = self.objective.heads(encoder.settings.heads)
        self.collate = collate
        self.evaluate_dev = evaluate_dev
        self._tokens = 0
        self._means: dict[str, list[Tensor]] = {}  # over the steps since the last line of training
        self._health: dict[str, float] = {}  # of the step before the next line
        self._since = time.monotonic()
        callbacks: list[TrainerCallback] = [
            LogToFile(Path(str(arguments.output_dir))),
            FiniteGradients(),
            SayFindings(say),
            ShowProgress(advance),
        ]
        if config.patience is not None:
            callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.patience))
        # The Trainer insists on an evaluation set; `evaluate` below does not read it.
        super().__init__(encoder, arguments, train_dataset=examples, eval_dataset=examples, callbacks=callbacks)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader:
        """Whole batches in the epoch's order."""
        return EpochLoader(self.examples, batch_sampler=self.batches, collate_fn=self.collate)

    def compute_loss(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: TrainBatch, *_: Any, **__: Any
    ) -> Tensor:
        """The loss of one batch. Raises TrainingError, before anything is updated, where it is not finite."""
        queries, passages = split_at(model(inputs.packed, heads=self.looked_at), inputs.num_queries)
        known = Known(inputs.positive, inputs.negative, inputs.teacher)
        # By optimizer steps done, which a resumed run knows.
        begun = self.state.global_step >= self.config.self_distill_start * self.state.max_steps
        distill = self.config.self_distill and begun
        outcome = unified(self.objective, queries, passages, known, self_distill=distill)
        if not torch.isfinite(outcome.loss):
            raise _not_finite("loss", self.state, self.args)
        self._tokens += inputs.packed.num_tokens
        if len(outcome.parts) > 1:
            for name, part in outcome.parts.items():
                self._means.setdefault(f"loss_{name}", []).append(part)
        if outcome.share_suspected is not None:
            self._means.setdefault("negatives_suspected", []).append(outcome.share_suspected)
        if self._is_logged(self.state.global_step + 1):
            self._health = health(queries, passages, outcome.scores, outcome.known.positive, outcome.known.negative)
        return outcome.loss

    def _is_logged(self, step: int) -> bool:
        return step % self.args.logging_steps == 0 or (step == 1 and self.args.logging_first_step)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Give the heads' own layers their own learning rate, where the recipe has one."""
        optimizer = super().create_optimizer(model)
        rate = self.config.head_learning_rate
        heads = {id(parameter) for parameter in self.encoder.heads.parameters()}
        for group in list(optimizer.param_groups) if rate is not None else ():
            of_heads = [parameter for parameter in group["params"] if id(parameter) in heads]
            if of_heads:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in heads]
                optimizer.add_param_group({**group, "params": of_heads, "lr": rate})
        return optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Development metrics under the names the Trainer expects."""
        metrics = {f"eval_{name}": value for name, value in self.evaluate_dev(self.encoder).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._restart_clock()
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss and the real tokens a second since the last line of training, and the health."""
        if "loss" in logs:
            logs |= {name: torch.stack(values).mean().item() for name, values in self._means.items()} | self._health
            logs |= {f"warning_{finding.code}": 1.0 for finding in health_findings(logs)}
            self._means, self._health = {}, {}
            logs["tokens_per_s"] = round(self._tokens / max(time.monotonic() - self._since, 1e-9), 1)
            self._restart_clock()
        super().log(logs, start_time)

    def _restart_clock(self) -> None:
        self._tokens, self._since = 0, time.monotonic()

    def _prepare_inputs(self, inputs: TrainBatch) -> TrainBatch:  # type: ignore[override]
        return inputs.to(self.args.device)

    def floating_point_ops(self, inputs: TrainBatch) -> int:  # type: ignore[override]
        """Not counted; the speed in the log is of real tokens."""
        return 0

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> None:
        """The loss is a mean over the batch already."""


def resolve_learning_rate(config: TrainConfig, hidden_size: int) -> float:
    """The peak learning rate; "auto" falls with the width of the encoder as 1 / width (Yang et al., 2022).

    The constant makes it 2e-5 at BGE-M3's width of 1024, which its authors and others use, and was checked at 384.
    """
    return 2e-5 * 1024 / hidden_size if config.learning_rate == "auto" else config.learning_rate


def training_arguments(
    config: TrainConfig,
    learning_rate: float,
    output: Path,
    steps_per_epoch: int,
    main_metric: str,
    precision: torch.dtype,
    device: torch.device,
) -> TrainingArguments:
    """What the recipe says, in the Trainer's words."""
    total_steps = config.max_steps or math.ceil(config.epochs * steps_per_epoch)
    every = math.ceil(total_steps / config.evaluations)
    renamed = hasattr(TrainingArguments, "activation_checkpointing")  # in the course of transformers 5
    name = "activation_checkpointing" if renamed else "gradient_checkpointing"
    on: dict[str, Any] = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=config.batch_queries,
        max_steps=total_steps,
        learning_rate=learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup * total_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=precision == torch.bfloat16,
        fp16=precision == torch.float16,
        **(on if config.gradient_checkpointing else {}),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{main_metric}",
        greater_is_better=True,
        logging_steps=config.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to),
        deepspeed=config.deepspeed,
        fsdp=config.fsdp,
        fsdp_config=config.fsdp_config,
        seed=config.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
    )


class LogToFile(TrainerCallback):
    """Every log line as one JSON line of `log.jsonl`; a resumed run goes on from the lines of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOG_FILE

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep what the checkpoint knows, drop what came after it."""
        self.file.write_text("".join(json.dumps(line) + "\n" for line in state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the newest line."""
        with self.file.open("a") as file:
            file.write(json.dumps(state.log_history[-1]) + "\n")


class FiniteGradients(TrainerCallback):
    """Stops before an update that would make the weights not a number."""

    def on_pre_optimizer_step(  # type: ignore[override]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        """Clipping spreads a gradient that is not a number to all of them, but not an infinite one."""
        if args.fp16:
            return  # the gradient scaler skips such steps itself
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise _not_finite("gradient", state, args)


class SayFindings(TrainerCallback):
    """Says each illness the first time that a line of the log shows it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.said: set[str] = set()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Read the newest line."""
        for finding in health_findings(state.log_history[-1]):
            if finding.code not in self.said:
                self.said.add(finding.code)
                self.say(f"warning: {finding.where}: {finding.what}; {finding.fix}")


class ShowProgress(TrainerCallback):
    """One unit of the bar a step, with loss, learning rate, speed and the last development metric beside it."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance
        self.parts: dict[str, str] = {}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance."""
        self.advance(1)

    def on_log(  # type: ignore[override]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Change the note."""
        if "loss" in logs:
            self.parts["loss"] = f"loss {logs['loss']:.3f}"
            self.parts["rate"] = f"lr {logs['learning_rate']:.1e}"
            self.parts["speed"] = f"{logs['tokens_per_s']:,.0f} tokens/s"
        metric = (args.metric_for_best_model or "").removeprefix("eval_")
        if f"eval_{metric}" in logs:
            self.parts["dev"] = f"dev {metric} {logs[f'eval_{metric}']:.4f}"
        self.advance(0, note=" | ".join(self.parts.values()))


def _not_finite(what: str, state: TrainerState, args: TrainingArguments) -> TrainingError:
    return TrainingError(
        f"the {what} of step {state.global_step + 1} is not finite; nothing was updated with it",
        where="train",
        fix=f"lower train.learning_rate (it is {args.learning_rate:g}) or raise train.warmup; with float16 set "
        "train.precision to bfloat16 or float32",
    )
