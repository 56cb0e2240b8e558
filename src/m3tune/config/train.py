"""Keys of `[train]` and of `[train.sets.NAME]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from m3tune.config.table import Share, Table, Weight

OF_THE_MACHINE = {"devices", "memory_gib", "budget_tokens", "gradient_checkpointing", "compile"}
"""Settings of training that change its time and memory, and what is learned no more than rounding does."""


class SetConfig(Table):
    """How one of the data's sets trains, `[train.sets.NAME]`."""

    weight: Weight = Field(
        1.0, description="How often a query of the set is drawn an epoch: 0.5 every other epoch, 2 twice, 0 never."
    )
    in_batch_negatives: bool | None = Field(
        None, description="Whether other queries' passages are negatives; None: as the data says of the set."
    )


class TrainConfig(Table):
    """How the encoder is tuned."""

    epochs: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        3.0,
        description="Passes over the training queries; auto: 3, or over few queries as many as make 128 steps, at most "
        "10.",
    )
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps instead.")
    batch_queries: int = Field(
        32,
        ge=1,
        description="Queries whose passages are each other's negatives. Memory does not limit it: what does not fit is "
        "encoded in parts, with the same result.",
    )
    accumulate_batches: int = Field(
        1, ge=1, description="Batches whose gradients make one step. Brings no more negatives; batch_queries does."
    )
    positives_per_query: int = Field(
        1, ge=0, description="Positives a query brings to a batch, taken in turn over the epochs; 0 means all."
    )
    negatives_per_query: int = Field(0, ge=0, description="Hard negatives a query brings to a batch, at most.")
    in_batch_negatives: bool = Field(
        True, description="Whether other queries' passages are negatives, in sets that allow it."
    )
    sets: dict[str, SetConfig] = Field(
        {}, description="A table for each set of the data that trains in another way: [train.sets.NAME], below."
    )
    false_negative_margin: float | None = Field(
        None,
        description="A negative whose score exceeds the best positive's by more than this is left out; None: never. "
        "Qwen3's is 0.1, GISTEmbed's with a guide 0; below zero only with a guide.",
    )
    guide: str | None = Field(
        None,
        validate_default=True,
        description="The model whose dense scores decide that, such as the untuned one: a folder or Hub id; None: the "
        "one that trains, by its scores of the moment.",
    )
    temperature: float = Field(0.05, gt=0, le=10, description="Scores are divided by it; 1/scale elsewhere.")
    loss_weights: tuple[Weight, Weight, Weight, Weight] = Field(
        (1.0, 0.1, 1.0, 1.0),
        description="Weights of the losses of the dense, sparse and multi-vector scores and of their hybrid. Heads "
        "that the model does not have take no part; a hybrid needs two.",
    )
    hybrid_weights: tuple[Weight, Weight, Weight] = Field(
        (1.0, 0.3, 1.0), description="Weights of the dense, sparse and multi-vector scores in the hybrid."
    )
    self_distill: bool = Field(False, description="Whether each head also learns from the hybrid, as M3 does.")
    self_distill_start: Share = Field(0.0, description="Share of the steps after which it begins to.")
    distill: Literal["none", "kl", "ordered", "margin"] = Field(
        "none",
        description="Learn from the teacher scores that the data brings: kl (their distribution), ordered (M3's), "
        "margin (MarginMSE).",
    )
    distill_weight: float = Field(1.0, gt=0, description="Weight of that loss beside the contrastive one.")
    teacher_temperature: float = Field(1.0, gt=0, description="Teacher scores are divided by it.")
    matryoshka_dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Shorter lengths at which dense vectors are trained too, e.g. [256, 128]."
    )
    heads_apart: bool = Field(
        False,
        description="Whether the sparse and multi-vector heads learn beside the encoder without moving it, so that "
        "they cost the dense head nothing: without self_distill it trains as if it were alone.",
    )
    train_part: Literal["all", "no embeddings", "heads"] = Field(
        "all", description="What learns: no embeddings freezes the embedding tables, heads the whole encoder."
    )
    lora_rank: int | None = Field(
        None, ge=1, description="Train low-rank adapters of this rank instead of the encoder; merged at the end."
    )
    lora_alpha: float = Field(32.0, gt=0, description="Adapters are scaled by lora_alpha / lora_rank.")
    lora_targets: tuple[str, ...] = Field(
        (), description='Names of the layers with adapters, e.g. ["query", "value"]; all linear layers if empty.'
    )
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto",
        description="Peak learning rate of AdamW; auto: 2e-5 at a hidden size of 1024, 3.6e-5 at 768, 1.4e-4 at 384.",
    )
    head_learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Peak learning rate of the heads' own layers, where it should be another."
    )
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    warmup: Share = Field(0.1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay, not on biases and norms.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of the encoder while it trains.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where a short measurement finds it faster, else float32."
    )
    devices: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        1,
        description="Devices that share the encoding of each batch; auto: every GPU there is. Changes time, not the "
        "result.",
    )
    memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Memory that the whole process may take, on an accelerator what torch may take of it; None: most "
        "of what is free.",
    )
    budget_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Tokens whose activations are held at once, the rest is computed twice; auto: as many as fit. "
        "Changes time and memory, not the result.",
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto", description="Recompute each layer in the backward pass; auto: only where a long text needs it."
    )
    compile: Literal["off", "on", "auto"] = Field(
        "off",
        description="torch.compile of the layers; auto: where a short measurement finds it faster; off "
        "where it fails. Needs Triton or a C++ compiler.",
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit"] = Field(
        "auto", description="auto: adamw; its 8-bit form where adamw does not fit and bitsandbytes is installed."
    )
    evaluations: int = Field(4, ge=1, description="Evaluations on development data, evenly over the run.")
    patience: int | None = Field(None, ge=1, description="Stop after this many evaluations without a better one.")
    logging_steps: int = Field(5, ge=1, description="Optimizer steps between two lines of the training log.")
    report_to: tuple[str, ...] = Field((), description='Loggers of transformers, e.g. ["tensorboard", "wandb"].')
    deepspeed: str | None = Field(None, description="A DeepSpeed JSON config, as transformers.Trainer takes it.")
    fsdp: str | None = Field(None, description='FSDP options, e.g. "full_shard auto_wrap".')
    fsdp_config: str | None = Field(None, description="An FSDP JSON config, as transformers.Trainer takes it.")
    seed: int = Field(
        0, ge=0, description="Seed of the order of examples and of the choice of positives and negatives."
    )

    @field_validator("guide")
    @classmethod
    def _with_its_margin(cls, guide: str | None, read: ValidationInfo) -> str | None:
        margin = read.data.get("false_negative_margin")
        if guide is not None and margin is None:
            raise ValueError("a guide needs train.false_negative_margin, e.g. 0")
        if guide is None and margin is not None and margin < 0:
            raise ValueError("a train.false_negative_margin below zero needs a guide")
        return guide
