"""How token states become vectors: stored beside the weights, so that training, evaluation and serving agree.

Three layouts are read: m3tune's own `m3tune.json`, a sentence-transformers folder (`modules.json`), and a plain Hugging
Face folder, where BAAI/bge-m3's (recognised by a head's file) means CLS pooling and anything else mean pooling. The
heads are those that `m3tune.json` names or, without it, those whose files are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from m3tune.config import ModelConfig
from m3tune.errors import ModelError
from m3tune.model.heads import HEAD_FILES
from m3tune.types import Head, Side

SETTINGS_FILE = "m3tune.json"
Pooling = Literal["cls", "mean", "last"]

_SBERT_POOLING: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
M3_WEIGHTS: Mapping[Head, float] = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}
"""The hybrid's weights where nobody chose others: those that BGE-M3 was trained with."""

_HEADS = get_args(Head)
_PASSAGE_PROMPT_NAMES = ("document", "passage", "corpus")


@dataclass(frozen=True)
class EncoderSettings:
    """Everything beside the weights that changes a vector. Token limits include special tokens."""

    pooling: Pooling
    normalize: bool
    query_prompt: str
    passage_prompt: str
    query_max_tokens: int
    passage_max_tokens: int
    heads: tuple[Head, ...] = ("dense",)
    hybrid_weights: Mapping[Head, float] | None = None  # as tuned on development data

    def prompt(self, side: Side) -> str:
        """The text put before each text of this side."""
        return self.query_prompt if side == "query" else self.passage_prompt

    def max_tokens(self, side: Side) -> int:
        """The limit of this side."""
        return self.query_max_tokens if side == "query" else self.passage_max_tokens


def read_settings(folder: Path, longest_tokens: int) -> tuple[EncoderSettings, str]:
    """The settings a model folder brings, and a sentence saying where they come from.

    `longest_tokens` is what the architecture can take; it is the limit where the folder names none. Raises ModelError.
    """
    own = folder / SETTINGS_FILE
    if own.is_file():
        return _read_own(own), f"settings from {SETTINGS_FILE}"
    found = [head for head, name in HEAD_FILES.items() if (folder / name).is_file()]
    if (folder / "modules.json").is_file():
        settings = read_sentence_transformers(folder, longest_tokens)
        why = "settings from the sentence-transformers files"
    else:
        pooling: Pooling = "cls" if found else "mean"
        settings = EncoderSettings(pooling, True, "", "", longest_tokens, longest_tokens)
        why = "BGE-M3 layout: CLS pooling" if found else "plain encoder without pooling settings: mean pooling assumed"
    if len(found) == 1:
        why += f"; of the two head files only {HEAD_FILES[found[0]]} is there"
    return replace(settings, heads=("dense", *found)), why


def _read_own(file: Path) -> EncoderSettings:
    try:
        settings = EncoderSettings(**_read(file))
        if not set(settings.heads) <= set(_HEADS):
            raise TypeError(f"heads are {', '.join(_HEADS)}, not {settings.heads}")
        if settings.hybrid_weights is not None and not set(settings.hybrid_weights) <= set(_HEADS):
            raise TypeError(f"hybrid_weights are of {', '.join(_HEADS)}, not {settings.hybrid_weights}")
    except TypeError as error:
        raise ModelError(f"broken settings ({error})", where=file, fix="save the model again") from None
    return replace(settings, heads=tuple(settings.heads))


def apply_overrides(settings: EncoderSettings, config: ModelConfig, longest_tokens: int) -> EncoderSettings:
    """`settings` with what the recipe sets itself. Raises ModelError for a limit beyond the architecture's."""
    names = ("pooling", "normalize", "query_prompt", "passage_prompt", "query_max_tokens", "passage_max_tokens")
    changes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    for name in ("query_max_tokens", "passage_max_tokens"):
        if changes.get(name, 0) > longest_tokens:
            raise ModelError(
                f"model.{name} = {changes[name]} is more than this encoder's {longest_tokens} positions",
                where=config.path,
                fix=f"set it to at most {longest_tokens}",
            )
    wanted = {*(settings.heads if config.heads is None else config.heads), *config.new_heads}
    return replace(settings, **changes, heads=tuple(head for head in _HEADS if head in wanted))


def _read(file: Path, expected: type = dict) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, expected):
            raise ValueError(f"not {'an object' if expected is dict else 'a list'}")
    except (OSError, ValueError) as error:
        raise ModelError(f"broken JSON ({error})", where=file, fix="download or save the model again") from None
    return content


def read_sentence_transformers(folder: Path, longest_tokens: int) -> EncoderSettings:
    """The settings that a sentence-transformers folder's own files say. Raises ModelError."""
    pooling: Pooling | None = None
    normalize = False
    modules = _read(folder / "modules.json", list)
    if not all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules):
        raise ModelError(
            "broken: a module without type and path", where=folder / "modules.json", fix="save the model again"
        )
    for module in modules:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_mode(folder / module["path"] / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise ModelError(
                f"this model has a {kind} module after its encoder, which m3tune does not run",
                where=folder / "modules.json",
                fix="use a model made of Transformer, Pooling and Normalize",
            )
    if pooling is None:
        raise ModelError(
            "no Pooling module",
            where=folder / "modules.json",
            fix="add one, or delete modules.json and set model.pooling",
        )
    limits = folder / "sentence_bert_config.json"
    max_tokens = (_read(limits).get("max_seq_length") if limits.is_file() else None) or longest_tokens
    extra = folder / "config_sentence_transformers.json"
    prompts = (_read(extra).get("prompts") if extra.is_file() else None) or {}
    passage_prompt = next((prompts[name] for name in _PASSAGE_PROMPT_NAMES if prompts.get(name)), "")
    limit = min(max_tokens, longest_tokens)
    return EncoderSettings(pooling, normalize, prompts.get("query") or "", passage_prompt, limit, limit)


def _pooling_mode(file: Path) -> Pooling:
    config = _read(file)
    named = config.get("pooling_mode")
    modes = {named} if named else {key for key, on in config.items() if key.startswith("pooling_mode_") and on}
    known = {_SBERT_POOLING.get(mode, {"cls": "cls", "mean": "mean", "lasttoken": "last"}.get(mode)) for mode in modes}
    if len(known) != 1 or None in known:
        raise ModelError(
            f"pooling by {', '.join(sorted(modes)) or 'nothing'} is not supported",
            where=file,
            fix="m3tune pools by cls, mean or last token",
        )
    return known.pop()  # type: ignore[return-value]


def write_settings(settings: EncoderSettings, folder: Path, dimension: int) -> None:
    """Write `settings` for m3tune and, in its own files, for sentence-transformers."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] * settings.normalize)]
    prompts = {"query": settings.query_prompt, "document": settings.passage_prompt}
    files: dict[str, Any] = {
        SETTINGS_FILE: asdict(settings),
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": dimension,
            **{key: mode == settings.pooling for key, mode in _SBERT_POOLING.items()},
        },
        "sentence_bert_config.json": {
            "max_seq_length": max(settings.query_max_tokens, settings.passage_max_tokens),
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "prompts": prompts if any(prompts.values()) else {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine" if settings.normalize else "dot",
        },
    }
    for path, _ in modules[1:]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
