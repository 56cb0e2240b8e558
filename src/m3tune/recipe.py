"""A run's recipe: TOML in, one frozen config per stage out. An unknown key is an error that names the nearest one.

Every key a recipe may hold stands in this file, with its unit and its default. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m3tune.errors import RecipeError, existing_path, nearest
from m3tune.types import Head

_KEY_PART = re.compile(r'"([^"]*)"|([^."]+)')
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]


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
    batch_queries: int = Field(32, ge=1, description="Queries a step; their passages are each other's negatives.")
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
        ge=0,
        description="A negative whose score exceeds the best positive's by more than this is left out; None: never. "
        "Qwen3's is 0.1.",
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
    gradient_checkpointing: bool = Field(False, description="Recompute layers in the backward pass to save memory.")
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


class Recipe(_Config):
    """Everything one `m3tune run` needs to know."""

    output: str = Field("runs/m3tune", description="The run directory.")
    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe at `path` with each `section.key=value` of `overrides` laid over it.

    Relative `data.path`, `model.path` and `output` are relative to the current folder. Raises RecipeError.
    """
    file = existing_path(path, "the recipe")
    if file.is_dir():
        raise RecipeError("this is a folder, not a recipe", where=file, fix="name the .toml file")
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"not valid TOML: {error}", where=file, fix="strings need quotes; see recipes/") from None
    return build_recipe(tables, overrides, where=str(file))


def build_recipe(tables: Mapping[str, Any], overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """A checked recipe from parsed TOML tables and `section.key=value` overrides. Raises RecipeError."""
    merged = _copied(tables)
    for override in overrides:
        _lay_over(merged, override)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error.errors())), where=where) from None


def _copied(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tables.items()}


def _lay_over(tables: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into `tables`; the value is TOML, or a bare string."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"{override!r} has no '='", where="--set", fix="write --set train.learning_rate=1e-5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = (quoted or bare for quoted, bare in _KEY_PART.findall(dotted.strip()))
    table = tables
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{section!r} is a value, not a table", where=f"--set {override}")
    table[key] = value


def _explain(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a key for a person, from pydantic's errors."""
    by_key: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        by_key.setdefault(_key_of(error["loc"])[0], []).append(error)
    return [_explain_key(key, of_key) for key, of_key in by_key.items()]


def _key_of(location: Sequence[str | int]) -> tuple[tuple[str, ...], type[BaseModel]]:
    """The recipe's key that pydantic's location is in, without the steps into its value, and the table it stands in."""
    table: type[BaseModel] = Recipe
    length = 1
    while length < len(location):
        field = table.model_fields.get(str(location[length - 1]))
        inner = field.annotation if field else None
        if get_origin(inner) is dict and _is_table(get_args(inner)[1]):
            inner = get_args(inner)[1]
            length += 1  # the name that the person chose
        if not _is_table(inner) or length == len(location):
            break
        table, length = inner, length + 1  # type: ignore[assignment]
    return tuple(str(part) for part in location[:length]), table


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _explain_key(key: tuple[str, ...], errors: Sequence[Mapping[str, Any]]) -> str:
    name, error = ".".join(key), errors[0]
    if error["type"] == "extra_forbidden":
        known = _key_of(error["loc"])[1].model_fields
        close = nearest(key[-1], known)
        return f"unknown key {name!r}; " + (f"did you mean {close!r}?" if close else f"known keys: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{name!r} is missing"
    return f"{name} = {error['input']!r}: {', or '.join(item['msg'].lower() for item in errors)}"


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML that `load_recipe` reads back to an equal recipe."""
    lines = [f"output = {toml_value(recipe.output)}"]
    for section in ("data", "model", "train", "evaluate"):
        lines += _table_lines(section, getattr(recipe, section).model_dump())
    return "\n".join(lines) + "\n"


def _table_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """A table under its heading, and after it the tables that it holds by name."""
    below = {key: value for key, value in values.items() if _holds_tables(value)}
    plain = {key: value for key, value in values.items() if value is not None and key not in below}
    lines = ["", f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in plain.items())]
    for key, tables in below.items():
        for inner, table in tables.items():
            lines += _table_lines(f"{name}.{key}.{_toml_key(inner)}", table)
    return lines


def _holds_tables(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values())


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """`value` as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too; JSON alone lets the delete character stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
