"""The training stage: an encoder and a collection in, the encoder of the best development checkpoint out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from m3tune.data.collection import Collection
from m3tune.errors import TrainingError
from m3tune.machine import pick_device, pick_precision
from m3tune.model.backbone import quiet_transformers
from m3tune.model.encoder import Encoder, set_dropout
from m3tune.progress import track
from m3tune.recipe import TrainConfig
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.training.batches import Collator, Examples, known_relevant, make_examples
from m3tune.training.trainer import DevEvaluation, RetrievalTrainer, resolve_learning_rate, training_arguments
from m3tune.types import Example


@dataclass(frozen=True)
class TrainingResult:
    """What training found: the best step with its development metric, the steps done, and every log line."""

    best_step: int
    best_metric: float
    steps: int
    log: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]


def train(
    encoder: Encoder,
    collection: Collection,
    query_ids: tuple[str, ...],
    config: TrainConfig,
    main_metric: str,
    evaluate_dev: DevEvaluation,
    folder: Path,
    say: Callable[[str], None],
) -> TrainingResult:
    """Tune `encoder` in place on the positives and given negatives of `query_ids`; it ends as the best checkpoint.

    Checkpoints and the log go to `folder`; an interrupted run that left checkpoints there goes on from the last one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "started as one of several processes, which would each train on the same batches",
            where="train",
            fix="start m3tune once; it trains on one device so far",
        )
    examples = make_examples(collection, query_ids)
    collate, counts = _collator(encoder, collection, examples, config)
    if config.negatives_per_query and not any(example.negative_ids for example in examples):
        say("the recipe asks for hard negatives, but the data brings none: only in-batch negatives are used")
    device = pick_device()
    precision = pick_precision(config.precision, device)
    with _settings_explained():
        rate = resolve_learning_rate(config, encoder.dimension)
        arguments = training_arguments(config, rate, folder, len(examples), main_metric, precision, device)
    checkpoint = _last_checkpoint(folder) if folder.is_dir() else None
    if checkpoint:
        say(f"going on from {Path(checkpoint).name}")
    set_dropout(encoder, config.dropout)
    done = int(Path(checkpoint).name.rsplit("-", 1)[-1]) if checkpoint else 0
    with track("train", total=arguments.max_steps, done=done) as advance, quiet_transformers():
        with _settings_explained():
            trainer = RetrievalTrainer(
                encoder, arguments, config, Examples(examples, config), collate, evaluate_dev, advance
            )
        trainer.train(resume_from_checkpoint=checkpoint)
    state = trainer.state
    if state.best_metric is None or state.best_global_step is None:
        raise TrainingError(
            "training ended without one development evaluation", where="train", fix="raise train.epochs"
        )
    encoder.eval()
    return TrainingResult(
        best_step=state.best_global_step,
        best_metric=state.best_metric,
        steps=state.global_step,
        log=tuple(state.log_history),
        counts=counts,
    )


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


def _collator(
    encoder: Encoder, collection: Collection, examples: Sequence[Example], config: TrainConfig
) -> tuple[Collator, dict[str, int]]:
    """The collator over freshly made token tables, and counts of texts and of cut texts."""
    query_ids = [example.query_id for example in examples]
    passage_ids = (p for example in examples for p in (*example.positive_ids, *example.negative_ids))
    canonical = list(dict.fromkeys(collection.canonical_passage[p] for p in passage_ids))
    queries = tokenize_queries(encoder, collection, query_ids)
    passages = tokenize_passages(encoder, collection, canonical)
    collator = Collator(
        query_tokens=queries,
        query_rows={query_id: row for row, query_id in enumerate(query_ids)},
        passage_tokens=passages,
        passage_rows={passage_id: row for row, passage_id in enumerate(canonical)},
        relevant=known_relevant(collection),
        canonical_passage=collection.canonical_passage,
        in_batch_negatives=config.in_batch_negatives,
    )
    counts = {
        "queries": len(queries),
        "queries_cut": queries.num_truncated,
        "passages": len(passages),
        "passages_cut": passages.num_truncated,
    }
    return collator, counts
