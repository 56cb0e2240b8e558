"""Data sets of the Hugging Face Hub, by `owner/name` or `owner/name:config`, through the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from m3tune.data.collection import Collection
from m3tune.data.intake import Intake, Row
from m3tune.data.pairs import EXTENSIONS
from m3tune.data.saved import QRELS_TABLES, Splits, collect_splits, collect_tables, rows_of_tables
from m3tune.errors import DataError, listed
from m3tune.paths import looks_like_path

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?::([\w.-]+))?")
_BATCH_ROWS = 1000
_Answer = TypeVar("_Answer")


def is_hub_id(spec: str, asked_for: bool) -> bool:
    """Whether `spec` names a data set of the Hub: `owner/name`, which neither is nor looks like a path.

    A name that ends as data does is a path, and so is one in a folder that is there, unless the Hub is `asked_for`.
    """
    if looks_like_path(spec) or not _HUB_ID.fullmatch(spec) or Path(spec).exists():
        return False
    return asked_for or not (spec.endswith(EXTENSIONS) or Path(spec).parent.is_dir())


def read_hub(spec: str, intake: Intake, columns: Mapping[str, str]) -> Collection:
    """The collection in a data set of the Hub, downloaded or from the local cache; see `saved.read_saved`.

    A data set with the configs corpus, queries and default is BEIR's tables. Raises DataError where it is not there,
    the Hub cannot be reached, the library is missing, or several configs are there and none is named.
    """
    name, _, config = spec.partition(":")
    configs = [config] if config else _configs(name)
    qrels = [table for table in QRELS_TABLES if table in configs]
    if {"corpus", "queries"} <= set(configs) and qrels and not columns:
        return collect_tables({table: _load(name, table) for table in ("corpus", "queries", qrels[0])}, intake)
    chosen = configs[0] if len(configs) == 1 else "default"
    if chosen not in configs:
        raise DataError(
            f"the data set has several configs: {listed(configs)}",
            where=name,
            fix=f"name one, as in {name}:{configs[0] if configs else 'config'}",
        )
    return collect_splits(_load(name, chosen), spec, intake, columns)


def _configs(name: str) -> list[str]:
    library = _library(name)
    return _asking(name, lambda: library.get_dataset_config_names(name))


def _load(name: str, config: str) -> Splits:
    library = _library(name)
    splits = _asking(name, lambda: library.load_dataset(name, config))
    return {split: _rows(data, f"{name}:{config} {split}") for split, data in splits.items()}


def _rows(data: Any, where: str) -> Iterator[Row]:
    return rows_of_tables(data.with_format("arrow").iter(_BATCH_ROWS), where)


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            "the Python package datasets is needed for data sets of the Hub, and is not installed",
            where=name,
            fix="pip install 'm3tune[hub]'; or name a folder that save_to_disk wrote, which needs no package",
        ) from None
    return datasets


def _asking(name: str, ask: Callable[[], _Answer]) -> _Answer:
    """The answer of the Hub or the cache, or the error in words."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        return ask()
    except DatasetNotFoundError:
        raise DataError(
            "the Hub has no such data set, or it is private or gated; and nothing of this name is a file here",
            where=name,
            fix="check the spelling; for a private data set log in with `hf auth login`; a path may begin with ./",
        ) from None
    except (ConnectionError, OSError) as error:
        raise DataError(
            f"no such file is here; as a data set of the Hub it is not in the cache {_cache()}, and the Hub cannot be "
            f"reached ({type(error).__name__})",
            where=name,
            fix="check the path, or connect to the network; or set HF_HOME to a cache that holds the data set",
        ) from None
    except (ValueError, RuntimeError) as error:  # such as an unknown config, or a data set that is Python code
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"datasets cannot load it ({first_line})",
            where=name,
            fix="name another config, as in owner/name:config; or load it yourself and name what save_to_disk wrote",
        ) from None


def _cache() -> str:
    from datasets import config

    return str(config.HF_DATASETS_CACHE)
