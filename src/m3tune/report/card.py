"""The model card of a delivered model: `README.md` in Hugging Face's format, from the facts of the run's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3tune.artifact import read_json
from m3tune.evaluation.select import BASE
from m3tune.model.settings import SETTINGS_FILE
from m3tune.paths import looks_like_path
from m3tune.report import data_words, selection_words, verdict_words
from m3tune.report.page import environment, write_page

CARD = "README.md"
_TEMPLATE = "card.md.j2"
_TAGS = ("m3tune", "sentence-transformers", "feature-extraction", "retrieval")
_FLAG_POOLING = ("cls", "mean")  # what FlagEmbedding's FlagModel can do


def card(data: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The text of the card, front matter first.

    `data` is what `gather` returned for the run, `settings` what m3tune.json of the delivered model holds. The figures
    are those of the delivered model: the base's own where the base is delivered.
    """
    from huggingface_hub import ModelCard  # takes a second to import

    name = _name(data)
    facts = {
        "data": data,
        "verdict": data["verdict"],
        "name": name,
        "settings": settings,
        "is_base": data["verdict"]["delivered"] == BASE,
        "delivered": verdict_words.delivered(data),
        "rule": selection_words.rule(data["selection"]),
        "retention": selection_words.retention(data["selection"]),
        "protocol": data_words.PROTOCOLS.get(data["data"]["protocol"], ""),
        "base_model": _last_part(data["model"]),
        "data_name": _last_part(data["data"]["path"]),
        "flag": _flag_class(settings),
    }
    text = environment().overlay(autoescape=False).get_template(_TEMPLATE).render(facts)
    return str(ModelCard(f"---\n{_front_matter(data, name, settings)}\n---\n\n{text}"))


def write_card(model_folder: Path, data: Mapping[str, Any]) -> Path:
    """Write the card into the folder of the delivered model; returns its path."""
    file = model_folder / CARD
    write_page(file, card(data, read_json(model_folder / SETTINGS_FILE)))
    return file


def _front_matter(data: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> str:
    """YAML; the base model only where it is a name of the Hub, for the Hub takes nothing else."""
    from huggingface_hub import EvalResult, ModelCardData

    side = "base" if data["verdict"]["delivered"] == BASE else "tuned"
    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information retrieval",
            dataset_type="custom",
            dataset_name=_last_part(data["data"]["path"]),
            dataset_split="test",
            metric_type=row["metric"].lower().replace("@", "_at_"),
            metric_name=row["metric"],
            metric_value=round(row[side], 6),
        )
        for row in data["metrics"]
    ]
    on_hub = not looks_like_path(data["model"]) and not Path(data["model"]).exists()
    return ModelCardData(
        base_model=data["model"] if on_hub else None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[*_TAGS, *settings["heads"]],
        model_name=name,
        eval_results=results,
    ).to_yaml()


def _name(data: Mapping[str, Any]) -> str:
    base = _last_part(data["model"])
    return base if data["verdict"]["delivered"] == BASE else f"{base} tuned on {_last_part(data['data']['path'])}"


def _last_part(path: str) -> str:
    """A name for a card that does not tell where things lie on somebody's disk."""
    return Path(path.rstrip("/")).name.replace("`", "'") or path


def _flag_class(settings: Mapping[str, Any]) -> str | None:
    """The class of FlagEmbedding that gives the same vectors, if one does."""
    if set(settings["heads"]) == {"dense", "sparse", "multi"} and settings["pooling"] == "cls":
        return "BGEM3FlagModel"
    return "FlagModel" if list(settings["heads"]) == ["dense"] and settings["pooling"] in _FLAG_POOLING else None
