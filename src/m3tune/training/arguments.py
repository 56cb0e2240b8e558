"""What the recipe says of training, in the words of transformers' Trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from transformers import TrainingArguments

from m3tune.config import TrainConfig

OptimizerName = Literal["adamw", "adamw_8bit"]
_PASSES, _MOST_PASSES, _ENOUGH_STEPS = 3, 10, 128  # of epochs = "auto" (docs/decisions/0024-default-recipe.md)
_OPTIMIZERS: dict[OptimizerName, str] = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit"}


def resolve_learning_rate(config: TrainConfig, hidden_size: int) -> float:
    """The peak learning rate; "auto" falls with the square of the encoder's width and is 2e-4 at most.

    It is 2e-5 at BGE-M3's width of 1024, which its authors and others use, and 1.4e-4 at 384: cross-validation there
    (docs/decisions/0021-learning-rate.md) found twice and four times the 1 / width of Yang et al. (2022) better.
    """
    return min(2e-5 * (1024 / hidden_size) ** 2, 2e-4) if config.learning_rate == "auto" else config.learning_rate


def resolve_epochs(config: TrainConfig, batches_per_epoch: int) -> float:
    """Passes over the training queries; "auto" makes more of them over few queries."""
    if config.epochs != "auto":
        return config.epochs
    enough = math.ceil(_ENOUGH_STEPS / _steps_per_epoch(config, batches_per_epoch))
    return float(min(max(_PASSES, enough), _MOST_PASSES))


def total_steps(config: TrainConfig, batches_per_epoch: int) -> int:
    """Optimizer steps of the whole training."""
    passes = resolve_epochs(config, batches_per_epoch)
    return config.max_steps or math.ceil(passes * _steps_per_epoch(config, batches_per_epoch))


def _steps_per_epoch(config: TrainConfig, batches_per_epoch: int) -> int:
    return math.ceil(batches_per_epoch / config.accumulate_batches)


def training_arguments(
    config: TrainConfig,
    learning_rate: float,
    output: Path,
    steps: int,
    main_metric: str,
    precision: torch.dtype,
    device: torch.device,
    optimizer: OptimizerName,
    *,
    checkpoints: bool = True,
    keep_best: bool = True,
) -> TrainingArguments:
    """What the recipe says, in the Trainer's words; without `checkpoints` nothing is saved.

    The model ends as the best checkpoint, where there are any and `keep_best`, else as the last step left it.
    """
    every = math.ceil(steps / config.evaluations)
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=config.batch_queries,
        gradient_accumulation_steps=config.accumulate_batches,
        optim=_OPTIMIZERS[optimizer],
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=precision == torch.bfloat16,
        fp16=precision == torch.float16,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps" if checkpoints else "no",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=checkpoints and keep_best,
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
    # With several GPUs the Trainer would copy the model to all of them and split packed rows as if they were tensors
    # (DataParallel). `devices.py` is what uses them; there is no public way to say so.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
