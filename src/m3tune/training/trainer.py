"""transformers' Trainer around our batch, our encoder and our loss. The loop, checkpoints and resume are its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from m3tune.config import TrainConfig
from m3tune.errors import TrainingError
from m3tune.fitting import longest_that_fits
from m3tune.memory import clear_cache, is_out_of_memory
from m3tune.model.encoder import Encoder
from m3tune.progress import Advance
from m3tune.training.batches import EpochBatches, EpochLoader, Examples, TrainBatch
from m3tune.training.budget import Budget, smaller
from m3tune.training.callbacks import FiniteGradients, LogToFile, SayFindings, ShowProgress, not_finite
from m3tune.training.costs import probe
from m3tune.training.devices import Devices
from m3tune.training.findings import health_findings
from m3tune.training.health import health
from m3tune.training.objective import Known, Objective, unified
from m3tune.vectors import split_at

DevEvaluation = Callable[[Encoder], Mapping[str, float]]
"""The encoder as it is now -> development metrics. Handed in, so that the trainer knows no text and no metric."""


class _Figures(NamedTuple):
    """What one batch adds to the next line of the log."""

    tokens: int
    means: Mapping[str, Tensor]
    health: Mapping[str, float]  # empty unless the line is of this step


class RetrievalTrainer(Trainer):
    """Trains an Encoder with the recipe's objective, within a budget of tokens that shrinks where memory runs out."""

    def __init__(
        self,
        encoder: Encoder,
        arguments: TrainingArguments,
        config: TrainConfig,
        examples: Examples,
        batches: EpochBatches,
        collate: Callable[..., TrainBatch],
        budget: Budget,
        devices: Devices,
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
        self.budget = budget
        self.devices = devices
        self.evaluate_dev = evaluate_dev
        self.say = say
        self._batches_of_step: list[TrainBatch] = []  # those whose gradients the next update is made of
        self._figures = _Figures(0, {}, {})  # of the batch at hand
        self._tokens = 0
        self._means: dict[str, list[Tensor]] = {}  # over the batches since the last line of training
        self._health: Mapping[str, float] = {}  # of the step before the next line
        self._since = time.monotonic()
        encoder.recompute_layers(budget.recompute_layers)
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

    def training_step(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: TrainBatch, num_items_in_batch: Any = None
    ) -> Tensor:
        """Forward and backward of one batch. Where memory runs out, again under a smaller budget.

        Gradients of a half-made backward pass are dropped, and with them those of the batches before it that the same
        update is made of; all of these are repeated.
        """
        self._batches_of_step.append(inputs)
        again = [inputs]
        while True:
            try:
                for batch in again:
                    loss = super().training_step(model, batch, num_items_in_batch)  # type: ignore[arg-type]
                if self.accelerator.sync_gradients:
                    self.devices.collect()
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Here and not in the handler, where the error still holds on to the activations.
            model.zero_grad()
            self.devices.forget()
            clear_cache()
            self._shrink_budget(inputs)
            again = self._batches_of_step
        if self.accelerator.sync_gradients:
            self._batches_of_step = []
        self._take_figures()
        return loss

    def compute_loss(  # type: ignore[override]
        self, model: torch.nn.Module, inputs: TrainBatch, *_: Any, **__: Any
    ) -> Tensor:
        """The loss of one batch. Raises TrainingError, before anything is updated, where it is not finite."""
        drops = self.config.dropout > 0
        vectors = self.devices.encode(model, inputs.texts, self.budget, self.looked_at, dropout=drops)
        queries, passages = split_at(vectors, inputs.num_queries)
        known = Known(inputs.positive, inputs.negative, inputs.soft, inputs.teacher, inputs.guide)
        # By optimizer steps done, which a resumed run knows.
        begun = self.state.global_step >= self.config.self_distill_start * self.state.max_steps
        distill = self.config.self_distill and begun
        outcome = unified(self.objective, queries, passages, known, self_distill=distill)
        if not torch.isfinite(outcome.loss):
            raise not_finite("loss", self.state, self.args)
        means = {f"loss_{name}": part for name, part in outcome.parts.items()} if len(outcome.parts) > 1 else {}
        if outcome.share_suspected is not None:
            means["negatives_suspected"] = outcome.share_suspected
        of_health: Mapping[str, float] = {}
        if self._is_logged(self.state.global_step + 1):
            of_health = health(queries, passages, outcome.scores, outcome.known.positive, outcome.known.negative)
        self._figures = _Figures(inputs.num_tokens, means, of_health)
        return outcome.loss

    def _shrink_budget(self, batch: TrainBatch) -> None:
        """Take the next smaller budget and say so. Raises TrainingError where there is none."""
        before, after = self.budget, smaller(self.budget, batch.texts)
        if after is None:
            raise self._nothing_fits(batch)
        self.budget = after
        self.encoder.recompute_layers(after.recompute_layers)
        self.say(
            f"out of memory in step {self.state.global_step + 1}; it is repeated with activations of {after} at once "
            f"instead of {before}, which changes its time and not its result"
        )

    def _nothing_fits(self, batch: TrainBatch) -> TrainingError:
        longest = max(batch.texts, key=len)

        fitting = longest_that_fits(
            lambda tokens: probe(self.encoder, [longest[:tokens]], self.looked_at, self._dtype), len(longest)
        )
        if fitting == len(longest):
            queries, passages = batch.positive.shape
            return TrainingError(
                f"out of memory in step {self.state.global_step + 1}: each text fits, but not the scores and vectors "
                f"of {queries:,} queries and {passages:,} passages together",
                where="train.batch_queries",
                fix="lower it, or train.negatives_per_query",
            )
        return TrainingError(
            f"out of memory in step {self.state.global_step + 1}: one text of {len(longest):,} tokens does not fit, "
            f"even layer by layer; about {fitting:,} tokens would",
            where="model.passage_max_tokens",
            fix=f"set it to {fitting:,} or less" if fitting >= 4 else "use a smaller model or a larger machine",
        )

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32

    def _take_figures(self) -> None:
        """Count the batch that has just been made; a failed attempt leaves no trace in the log."""
        tokens, means, of_health = self._figures
        self._tokens += tokens
        for name, value in means.items():
            self._means.setdefault(name, []).append(value)
        self._health = of_health or self._health

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

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        """With heads apart, theirs by itself, so that it has no say in how much of the encoder's is cut off."""
        if not self.config.heads_apart:
            norm: torch.Tensor = super()._clip_grad_norm(model)
            return norm
        norm = self.accelerator.clip_grad_norm_(self.encoder.backbone.parameters(), self.args.max_grad_norm)
        # Not by the accelerator, which unscales float16 gradients, all of them, and must do so once.
        torch.nn.utils.clip_grad_norm_(self.encoder.heads.parameters(), self.args.max_grad_norm)
        return norm

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
            logs |= {name: torch.stack(values).mean().item() for name, values in self._means.items()}
            logs |= self._health
            logs |= {f"warning_{finding.code}": 1.0 for finding in health_findings(logs)}
            self._means, self._health = {}, {}
            logs["tokens_per_s"] = round(self._tokens / max(time.monotonic() - self._since, 1e-9), 1)
            logs["budget_tokens"] = self.budget.tokens
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
