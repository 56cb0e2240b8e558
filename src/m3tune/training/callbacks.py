"""What happens around the steps of the Trainer: the log, the bar, warnings, and a stop before weights break."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from m3tune.errors import TrainingError
from m3tune.progress import Advance
from m3tune.training.findings import health_findings

LOG_FILE = "log.jsonl"


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
            raise not_finite("gradient", state, args)


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


class AfterStep(TrainerCallback):
    """Tells of every step done, and of how many there are; who is told may end the training by raising."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self.tell = tell

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell."""
        self.tell(state.global_step, state.max_steps)


def not_finite(what: str, state: TrainerState, args: TrainingArguments) -> TrainingError:
    """The error of a loss or gradient that is not a finite number."""
    return TrainingError(
        f"the {what} of step {state.global_step + 1} is not finite; nothing was updated with it",
        where="train",
        fix=f"lower train.learning_rate (it is {args.learning_rate:g}) or raise train.warmup; with float16 set "
        "train.precision to bfloat16 or float32",
    )
