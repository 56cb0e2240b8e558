"""Rules about what must agree: settings of base, tuned and delivered model, files of a folder, tokenizers, vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3tune.diagnose.doctor.case import Case, command
from m3tune.diagnose.wording import found
from m3tune.errors import excerpt
from m3tune.recipe import toml_value
from m3tune.types import Finding

# The hybrid's weights and the heads differ between base and tuned model for good reason.
_COMPARED = ("pooling", "normalize", "query_prompt", "passage_prompt", "query_max_tokens", "passage_max_tokens")
_LIMITS = ("query_max_tokens", "passage_max_tokens")
_UNKNOWN = 0.01  # share of unknown tokens
_MUCH_UNKNOWN = 0.1


def differing_settings(case: Case) -> Iterator[Finding]:
    """Prompts, pooling or limits that are not the same for the base, the trained and the delivered model."""
    differing = {
        name: by_place for name in _COMPARED if len(set(map(repr, (by_place := _said(case, name)).values()))) > 1
    }
    if differing:
        name, by_place = next(iter(differing.items()))
        yield found(
            "differing-settings",
            "error",
            ", ".join(case.settings),
            f"{name} is {_in_words(by_place)}"
            + (f"; {', '.join(list(differing)[1:])} differ too" if len(differing) > 1 else "")
            + ": the models were not measured as they were trained, or are not served as they were measured",
            "decide which holds and write it into the recipe: " + case.again(f"model.{name}={_trained(by_place)}"),
            (f"{name}: {_in_words(by_place)}" for name, by_place in differing.items()),
            count=len(differing),
            differing=differing,
        )


def conflicting_files(case: Case) -> Iterator[Finding]:
    """Files of one model folder that say different things: each library reads another of them."""
    names = dict.fromkeys(name for said in case.statements.values() for name in said)
    differing = {}
    for name in names:
        values = {file: said[name] for file, said in case.statements.items() if name in said}
        if len(set(map(repr, values.values()))) > 1:
            differing[name] = values
    if differing:
        name, values = next(iter(differing.items()))
        yield found(
            "conflicting-files",
            "error",
            "model folder",
            f"{name} is {_in_words(values)}: whoever loads it with another library gets other vectors",
            "save the folder again from one of them, or correct the file that is wrong, then " + case.look_again,
            (f"{name}: {_in_words(values)}" for name, values in differing.items()),
            count=len(differing),
            differing=differing,
        )


def differing_tokenizer(case: Case) -> Iterator[Finding]:
    """A saved tokenizer that reads texts in another way than the base model's, or cuts them earlier."""
    if case.reading is None:
        return
    texts, limit = case.reading.differing_texts, case.reading.tokenizer_limit
    wanted = max(
        (settings[name] for settings in case.settings.values() for name in _LIMITS if name in settings), default=0
    )
    if texts or limit < wanted:
        told = [f"{len(texts):,} sampled texts have other tokens than with the base model's tokenizer"] * bool(texts)
        told += [f"it cuts at {limit:,} tokens by itself, the settings say {wanted:,}"] * (limit < wanted)
        yield found(
            "differing-tokenizer",
            "error",
            "saved tokenizer",
            "; ".join(told),
            "save the model with the tokenizer that it was trained with: copy tokenizer.json and tokenizer_config.json "
            "of the base model, then " + case.look_again,
            map(excerpt, texts),
            count=len(texts) or 1,
            limit=limit,
            wanted=wanted,
        )


def unknown_tokens(case: Case) -> Iterator[Finding]:
    """Words that the model's tokenizer cannot write."""
    if case.reading is not None and case.reading.unknown > _UNKNOWN:
        yield found(
            "unknown-tokens",
            "error" if case.reading.unknown > _MUCH_UNKNOWN else "warning",
            "texts",
            f"{case.reading.unknown:.1%} of the tokens are unknown to the model: what they say is lost",
            "start from a model that knows this language: " + case.again("model.path=BAAI/bge-m3"),
            map(excerpt, case.reading.unknown_texts),
            count=len(case.reading.unknown_texts),
            share=round(case.reading.unknown, 5),
        )


def stale_vectors(case: Case) -> Iterator[Finding]:
    """Vectors on disk that another model made, or this one with other settings."""
    for folder, differing in case.stale.items():
        yield found(
            "stale-vectors",
            "error",
            folder,
            f"these vectors were made by another model than {case.folder}; what differs: {', '.join(differing)}",
            command(
                "encode",
                str(case.folder / "model" if case.is_run else case.folder),
                case.data,
                "--out",
                f"{folder}-new",
            ),
            count=len(differing),
            differing=list(differing),
        )


def _said(case: Case, name: str) -> dict[str, Any]:
    return {place: settings[name] for place, settings in case.settings.items() if name in settings}


def _trained(values: Mapping[str, Any]) -> str:
    """The value that the model was trained with, where that is known, as a recipe has it."""
    return toml_value(values.get("train/model", next(iter(values.values()))))


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{excerpt(value)} in {place}" for place, value in values.items())
