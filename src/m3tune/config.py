"""Every key that a recipe may hold, with its unit and its default: one frozen config for each stage.

Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from m3tune.types import Head

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]
Setting = Literal["learning_rate", "temperature", "epochs", "negatives_per_query", "false_negative_margin"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Config):
    """Where the data is and how it is divided."""

    path: str = Field(
        description="LlamaIndex JSON, FlagEmbedding JSONL, BEIR, TREC, pairs (JSONL, CSV, TSV, Parquet), Hugging Face "
        "datasets, a folder of documents, or what m3tune prepare wrote."
    )
    format: Literal["auto", "beir", "llamaindex", "flagembedding", "pairs", "trec", "datasets", "documents"] = Field(
        "auto", description="How to read it; auto looks at the files and says what it took them for."
    )
    columns: dict[str, str] = Field(
        {}, description='What columns of pairs are, where their names do not say it, e.g. {body = "positive"}.'
    )
    skip_bad: bool = Field(False, description="Leave bad records out, into rejected.jsonl, instead of stopping.")
    near_duplicates: bool = Field(
        True, description="Keep texts that are nearly the same on one side of the split, and from being negatives."
    )
    dev: Share = Field(
        0.15, description="Share of the training queries kept to choose the checkpoint, if none is given."
    )
    test: Share = Field(
        0.2, description="Share of all queries kept for the verdict, where the data brings no test split."
    )
    protocol: Literal["auto", "new documents", "new questions"] = Field(
        "auto",
        description="What a carved split asks: about documents that train has not seen, or new questions about the "
        "same ones. auto: new documents, unless the data's own test split shares them with its train split.",
    )
    max_dev_queries: int = Field(400, ge=1, description="At most this many development queries.")
    dev_depth: int = Field(
        10, ge=1, description="Development corpus: this many passages a query from the base model and from BM25 each."
    )
    seed: int = Field(0, ge=0, description="Seed of the split.")

    def preparing(self) -> dict[str, Any]:
        """What changes the prepared data."""
        return self.model_dump(exclude={"path", "dev_depth"})


class ModelConfig(_Config):
    """The encoder and how its vectors are made. What is left out is taken from the model's own folder."""

    path: str = Field(description="A folder, a Hub id, or package:NAME/FOLDER for a model inside a Python package.")
    pooling: Literal["cls", "mean", "last"] | None = Field(None, description="Which token states make the vector.")
    normalize: bool | None = Field(None, description="Whether vectors have length one.")
    query_prompt: str | None = Field(None, description="Text put before every query.")
    passage_prompt: str | None = Field(None, description="Text put before every passage.")
    query_max_tokens: int | None = Field(None, ge=4, description="Longer queries are cut, special tokens included.")
    passage_max_tokens: int | None = Field(None, ge=4, description="Longer passages are cut, special tokens included.")
    heads: Annotated[tuple[Head, ...], Field(min_length=1)] | None = Field(
        None, description='Which of "dense", "sparse" and "multi" to load; None: all that the folder has.'
    )
    new_heads: tuple[Literal["sparse", "multi"], ...] = Field(
        (), description="Heads to start fresh, whether or not the folder has one; training must then teach them."
    )
    multi_dim: int | None = Field(
        None, ge=1, description="Length of a new multi-vector head's vectors; None: the encoder's hidden size."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")


class SetConfig(_Config):
    """How one of the data's sets trains, `[train.sets.NAME]`."""

    weight: Weight = Field(
        1.0, description="How often a query of the set is drawn an epoch: 0.5 every other epoch, 2 twice, 0 never."
    )
    in_batch_negatives: bool | None = Field(
        None, description="Whether other queries' passages are negatives; None: as the data says of the set."
    )


class TrainConfig(_Config):
    """How the encoder is tuned."""

    epochs: float = Field(3.0, gt=0, description="Passes over the training queries.")
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
        description="Peak learning rate of AdamW; auto: 2e-5 at a hidden size of 1024, more for smaller ones.",
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


class EvaluateConfig(_Config):
    """How models are measured and compared."""

    metrics: tuple[str, ...] = Field(
        ("nDCG@10", "RR@10", "AP@100", "Success@1", "Recall@10", "Recall@100"), description="ir-measures' names."
    )
    main_metric: str = Field("nDCG@10", description="The metric that chooses the checkpoint and decides the verdict.")
    head: Literal["auto", "dense", "sparse", "multi", "hybrid", "rrf"] = Field(
        "auto",
        description="What chooses the checkpoint and decides the verdict: a head, hybrid (all heads by weights) or rrf "
        "(by ranks). auto: hybrid, or the only head. A base model without it is measured by its dense head.",
    )
    depth: int = Field(100, ge=1, description="Passages kept for each query.")
    first_stage: Literal["all", "dense", "sparse"] = Field(
        "all", description="Heads that bring candidates for multi-vector and hybrid scores; all: dense and sparse."
    )
    candidates: int = Field(
        200, ge=1, description="Candidates of a query from each of these heads; every head scores all of them exactly."
    )
    exact_passages: int = Field(
        1000, ge=0, description="Among no more passages than this, every passage is a candidate."
    )
    tune_weights: bool = Field(
        True, description="Choose the hybrid's weights on development data; otherwise the model's or the recipe's hold."
    )
    bm25: bool = Field(True, description="Whether BM25 is measured as a baseline.")
    no_worse_margin: float = Field(0.01, ge=0, description="A loss of the main metric below this counts as none.")
    resamples: int = Field(10_000, ge=100, description="Bootstrap and randomisation resamples.")
    seed: int = Field(0, ge=0, description="Seed of the resamples.")

    def measuring(self) -> dict[str, Any]:
        """What changes a measurement, as opposed to the comparison of two."""
        names = {"metrics", "main_metric", "depth", "first_stage", "candidates", "exact_passages"}
        return self.model_dump(include=names)


class SelectConfig(_Config):
    """What is chosen between the base model, the best checkpoint and merges of the two."""

    rule: Literal["guarded", "last"] = Field(
        "guarded",
        description="guarded: the nearest to the base that beats it on development data, and the base where that turns "
        "out worse on the test. last: the last step of training, whatever it is worth, as other tools deliver it.",
    )
    alphas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.3, 0.5, 0.7, 0.85),
        description="Merges base + alpha (checkpoint - base) that are tried beside the checkpoint itself; [] for none.",
    )
    noise: float = Field(
        0.32,
        gt=0,
        le=1,
        description="A difference on development data is more than noise where its two-sided p is at most this; 0.32 "
        "is one standard error, 1 takes any difference.",
    )
    retention: str = Field(
        "auto",
        description="Data that the chosen model must not get worse on, in any format; auto: questions held out of the "
        "corpus, about texts that training does not touch and the base is good at; none: not measured.",
    )
    retention_tolerance: Share = Field(0.02, description="Share of the base's metric there that may be lost.")
    retention_queries: int = Field(200, ge=1, description="At most this many of its queries.")
    retention_passages: int = Field(
        5000, ge=1, description="At most this many of its passages, those judged for the queries always among them."
    )


class SourceConfig(_Config):
    """Which ranks of a source are candidates, `[mine.sources.NAME]`."""

    first: int = Field(1, ge=1, description="Candidates begin at this rank; 10 skips the nine best.")
    last: int = Field(100, ge=1, description="And end at this one.")
    run: str | None = Field(None, description="A TREC run file to take the ranking from, for a NAME of your own.")

    @model_validator(mode="after")
    def _in_order(self) -> SourceConfig:
        if self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class MineConfig(_Config):
    """How hard negatives are found for the training queries, and which may not be negatives."""

    model: str | None = Field(None, description="The model that searches and scores; None: the one that is tuned.")
    head: Literal["auto", "dense", "sparse", "multi", "hybrid"] = Field(
        "auto", description="Whose scores decide: a head's or the hybrid's; auto: hybrid, or the only head."
    )
    sources: dict[str, SourceConfig] = Field(
        {"model": SourceConfig()},
        description="A table for each place that candidates come from. NAME is model (what mine.head names), dense, "
        "sparse, multi, hybrid, bm25, document (other passages of a positive's document), given (the data's own "
        "negatives), or your own with a run file.",
    )
    pool: str | None = Field(None, description="A file with a passage id a line to search in; None: the whole corpus.")
    threshold: Literal["auto", "none"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="A candidate whose score exceeds this times its lowest positive's is removed, e.g. 0.95; auto: "
        "calibrated on the data, by the teacher's scores where there is one; none: never.",
    )
    risk: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="auto removes from the score on at which there is a known positive for every 1 / risk candidates.",
    )
    margin: float | None = Field(
        None, description="A candidate whose score exceeds its lowest positive's minus this is removed; None: never."
    )
    min_score: float | None = Field(None, description="A candidate with a lower score is removed.")
    max_score: float | None = Field(None, description="A candidate with a higher score is removed.")
    same_document: bool = Field(False, description="Remove other passages of a positive's document.")
    verdicts: str | None = Field(
        None,
        description="Verdicts on pairs, JSON lines: what is relevant is removed; what a person calls not relevant is "
        "never suspected.",
    )
    promote: bool = Field(True, description="Whether what a person calls relevant there trains as a positive.")
    teacher: str | None = Field(
        None, description="A cross-encoder with one output that scores candidates and positives: a folder or Hub id."
    )
    teacher_threshold: Annotated[float, Field(gt=0)] | None = Field(
        None, description="As threshold, by the teacher's scores; None: never."
    )
    teacher_margin: float | None = Field(None, description="As margin, by the teacher's scores; None: never.")
    teacher_max_tokens: int = Field(512, ge=8, description="Longer pairs of query and passage are cut.")
    suspects: Literal["drop", "soft"] = Field(
        "drop",
        description="What becomes of candidates removed for a high score: drop, or soft: they are sampled as others "
        "are, but never negatives; only their teacher's scores are learned (needs mine.teacher and train.distill).",
    )
    negatives_per_query: int = Field(8, ge=0, description="Negatives mined for a query, random ones aside.")
    random_per_query: int = Field(0, ge=0, description="Random passages of the pool beside them.")
    sample: Literal["top", "uniform", "around"] = Field(
        "uniform",
        description="Which of the candidates that are left: the best, any, or those that score most like the lowest "
        "positive (SimANS).",
    )
    around_offset: float = Field(0.0, description="SimANS's b: around this much above the positive's score.")
    around_decay: Annotated[float, Field(gt=0)] | None = Field(
        None, description="SimANS's a; None: one over twice the variance of what candidates score below the positive."
    )
    fill: Literal["nothing", "random"] = Field(
        "nothing", description="What takes the place of negatives that are missing."
    )
    keep_given: bool = Field(
        True, description="Whether the data's own negatives train beside the mined ones, where they are no source."
    )
    seed: int = Field(0, ge=0, description="Seed of the samples; each query has its own.")
    rounds: int = Field(
        1,
        ge=1,
        description="Rounds of mining and training at most: from the second on the newly tuned model mines, and the "
        "base is tuned anew, until development data stops improving.",
    )


class SearchConfig(_Config):
    """What `m3tune run --search` tries on development data before it trains; the recipe's own values always."""

    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Search for so long; --search 20m sets it. None: train with the recipe's own values."
    )
    settings: Annotated[tuple[Setting, ...], Field(min_length=1)] = Field(
        get_args(Setting),
        description="Keys of [train] that are searched. epochs stays where train.max_steps is set, negatives_per_query "
        "where there are no negatives.",
    )
    learning_rate: Range = Field(
        (0.25, 4.0), description="Lowest and highest, as factors of what auto means for the model."
    )
    temperature: Range = Field((0.01, 0.1), description="Lowest and highest.")
    epochs: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (1.0, 2.0, 3.0, 5.0), description="What is tried."
    )
    negatives_per_query: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        (1, 2, 4, 8), description="What is tried, of it what the data has."
    )
    false_negative_margin: Annotated[tuple[Literal["never"] | Weight, ...], Field(min_length=1)] = Field(
        ("never", 0.05, 0.1, 0.2), description="What is tried; never leaves no negative out."
    )
    trials: int | None = Field(None, ge=1, description="At most so many trainings, the first with the recipe's values.")
    seed: int = Field(0, ge=0, description="Seed of the values that are tried.")

    @model_validator(mode="after")
    def _low_before_high(self) -> SearchConfig:
        for name in ("learning_rate", "temperature"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name}: {low:g} is not below {high:g}")
        return self


class Recipe(_Config):
    """Everything one `m3tune run` needs to know."""

    output: str = Field("runs/m3tune", min_length=1, description="The run directory.")
    data: DataConfig
    model: ModelConfig
    mine: MineConfig | None = Field(None, description="Mine hard negatives before training; without it none are.")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    select: SelectConfig = SelectConfig()
    search: SearchConfig = SearchConfig()
