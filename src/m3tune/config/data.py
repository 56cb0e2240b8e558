"""Keys of `[data]`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from m3tune.config.table import Share, Table


class DataConfig(Table):
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
