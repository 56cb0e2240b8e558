"""Another model's word on who is suspected: its scores of the pairs of a batch, from vectors that are made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from m3tune.config import ModelConfig
from m3tune.data.collection import Collection
from m3tune.errors import TrainingError
from m3tune.machine import pick_device
from m3tune.model.weights import load_encoder
from m3tune.retrieval.encode import tokenize_passages, tokenize_queries
from m3tune.retrieval.store import store_vectors


class Guide(NamedTuple):
    """Dense vectors of all queries and passages that train, and where each one's row is."""

    queries: np.ndarray  # (N, D) float32
    passages: np.ndarray  # (M, D) float32
    query_rows: Mapping[str, int]
    passage_rows: Mapping[str, int]

    def scores(self, query_ids: Sequence[str], passage_ids: Sequence[str]) -> Tensor:
        """(Q, P) float32 inner products."""
        queries = self.queries[[self.query_rows[query_id] for query_id in query_ids]]
        passages = self.passages[[self.passage_rows[passage_id] for passage_id in passage_ids]]
        return torch.from_numpy(queries @ passages.T)


def make_guide(
    spec: str,
    collection: Collection,
    query_ids: Sequence[str],
    passage_ids: Sequence[str],
    dtype: torch.dtype,
    place: Path,
) -> Guide:
    """Encode the texts with the model that `spec` names, its own prompts before them, or open what lies in `place`.

    Raises ModelError, and TrainingError for a model without a dense head.
    """
    encoder, _ = load_encoder(ModelConfig(path=spec))
    if "dense" not in encoder.settings.heads:
        raise TrainingError(
            "a guide compares dense vectors, and this model has none", where="train.guide", fix="name another model"
        )
    encoder.to(pick_device())
    tokens = {
        "queries": tokenize_queries(encoder, collection, query_ids),
        "passages": tokenize_passages(encoder, collection, passage_ids),
    }
    vectors = [
        store_vectors(encoder, of_side, dtype, place / side, heads=("dense",), label=f"encode {side} (guide)").dense
        for side, of_side in tokens.items()
    ]
    rows = ({id_: row for row, id_ in enumerate(ids)} for ids in (query_ids, passage_ids))
    return Guide(*vectors, *rows)  # type: ignore[arg-type]
