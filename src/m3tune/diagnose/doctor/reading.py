"""From a run directory, or a model and data, to a `Case`: what is there is read, and what is not is left out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3tune.artifact import MANIFEST, read_json
from m3tune.config import DataConfig, ModelConfig, Recipe
from m3tune.data.collection import Collection
from m3tune.data.prepared import BALANCE, FINDINGS, load_prepared
from m3tune.data.similar import Similar
from m3tune.diagnose.check import examine
from m3tune.diagnose.doctor.case import Case
from m3tune.diagnose.doctor.sampling import base_config, how_far, read_texts, take_sample
from m3tune.errors import ArtifactError, ModelError
from m3tune.evaluation.store import METRICS, Evaluation, load_evaluation, measured_heads
from m3tune.model.encoder import Encoder
from m3tune.model.heads import HEAD_FILES
from m3tune.model.settings import SETTINGS_FILE, read_sentence_transformers
from m3tune.model.weights import load_encoder, model_folder
from m3tune.negatives.mined import keeps_given, with_mined
from m3tune.recipe import load_recipe
from m3tune.retrieval.store import OF_QUERIES, differing_from, is_vectors
from m3tune.types import SOFT, Finding, Split

RESOLVED = "resolved.toml"
_PLACES = ("base", "train/model", "model")  # of settings in a run
_ENDLESS = 2**31  # stands for a limit that nobody set


def is_run(folder: Path) -> bool:
    """Whether a folder is a run, finished or not."""
    return (folder / RESOLVED).is_file()


def read_run(folder: Path, queries: int = 256, vectors: Sequence[Path] = ()) -> Case:
    """The case of a run: its artefacts and, unless `queries` is zero, a sample of so many queries a side.

    `vectors` are folders that m3tune encode wrote, to be compared with the delivered model. Raises ArtifactError where
    there is no run, or one without data, and ModelError.
    """
    if not is_run(folder):
        raise ArtifactError("this is no run directory", where=folder, fix="name the folder that m3tune run wrote")
    recipe, prepared = load_recipe(folder / RESOLVED), load_prepared(folder / "data")
    train = _training(folder)
    selection, verdict = _json(train / "selection.json"), _json(folder / "verdict.json")
    if train == folder / "train":  # what is chosen after training that was begun anew is not known yet
        selection |= _json(folder / "select" / "selection.json")
    case = Case(
        folder=folder,
        recipe=recipe,
        collection=_with_mined(prepared.collection, recipe, train.parent / "negatives"),
        similar=prepared.similar,
        split=prepared.split,
        data_findings=tuple(_findings(folder / "data" / FINDINGS)),
        balance=_json(folder / "data" / BALANCE) or (),
        log=_log(train / "log.jsonl"),
        selection=selection,
        verdict=verdict,
        measured=dict(_measured(folder, selection, verdict)),
        settings=dict(_settings(folder)),
        statements=statements(folder / "model") if (folder / "model").is_dir() else {},
    )
    return _examined(case, base_config(recipe.model), folder / "train" / "model", folder / "model", queries, vectors)


def read_model(model: str, data: str, queries: int = 256, vectors: Sequence[Path] = ()) -> Case:
    """The case of a model beside data that it shall train on or be measured with. Raises DataError and ModelError."""
    config, folder = ModelConfig(path=model), model_folder(model)
    examination = examine(data, model=config)
    collection, context = examination.collection, examination.context
    given = {side: tuple(collection.splits.get(side, ())) for side in ("train", "dev", "test")}
    if not given["train"]:
        known = {*given["dev"], *given["test"]}
        given["train"] = tuple(q for q in collection.positives if q not in known)
    case = Case(
        folder=folder,
        recipe=Recipe(data=DataConfig(path=data), model=config),
        collection=collection,
        similar=Similar(context.near_passages, context.near_queries),
        split=Split(given["train"], given["dev"], given["test"]),
        is_run=False,
        data_findings=examination.findings,
        statements=statements(folder),
    )
    return _examined(case, config, folder, folder, queries, vectors)


def statements(folder: Path) -> dict[str, dict[str, Any]]:
    """File of a model folder -> what it says of pooling, normalize, prompts and limits, in m3tune's words.

    A folder in BGE-M3's layout says CLS pooling by its head files, which sentence-transformers does not look at:
    without modules.json it takes the mean.
    """
    said: dict[str, dict[str, Any]] = {}
    own = _json(folder / SETTINGS_FILE)
    if own:
        said[SETTINGS_FILE] = {
            name: own.get(name) for name in ("pooling", "normalize", "query_prompt", "passage_prompt")
        }
        said[SETTINGS_FILE]["max_tokens"] = max(own.get("query_max_tokens", 0), own.get("passage_max_tokens", 0))
    if (folder / "modules.json").is_file():
        settings = read_sentence_transformers(folder, _ENDLESS)
        said["modules.json"] = {"pooling": settings.pooling, "normalize": settings.normalize}
        if (folder / "config_sentence_transformers.json").is_file():
            said["config_sentence_transformers.json"] = {
                "query_prompt": settings.query_prompt, "passage_prompt": settings.passage_prompt
            }  # fmt: skip
        if settings.query_max_tokens < _ENDLESS:
            said["sentence_bert_config.json"] = {"max_tokens": settings.query_max_tokens}
    heads = [name for name in HEAD_FILES.values() if (folder / name).is_file()]
    if heads and "modules.json" not in said:
        said[heads[0]] = {"pooling": "cls"}
        said["no modules.json"] = {"pooling": "mean"}
    return said


def _training(folder: Path) -> Path:
    """The training of a run, or as far as it got, in the newest of its rounds where none was chosen yet."""
    numbered = (place for place in (folder / "rounds").glob("*") if place.name.isdigit())
    rounds = sorted(numbered, key=lambda place: int(place.name), reverse=True)
    places = [place / name for place in (folder, *rounds) for name in ("train", "train.partial")]
    return next((place for place in places if place.is_dir()), folder / "train.partial")


def _with_mined(collection: Collection, recipe: Recipe, mined: Path) -> Collection:
    """The collection with the negatives that the run mined, where it did; soft labels are none."""
    if recipe.mine is None or not (mined / MANIFEST).is_file():
        return collection
    trained = with_mined(collection, mined, keep_given=keeps_given(recipe.mine))
    hard = tuple(negative for negative in trained.negatives if negative.source != SOFT)
    return dataclasses.replace(trained, negatives=hard)


def _examined(
    case: Case, base: ModelConfig, tuned: Path, delivered: Path, queries: int, vectors: Sequence[Path]
) -> Case:
    """The case with what takes a model: the sample, how far training went, how texts are read, stale vectors."""
    facts: dict[str, Any] = {}
    if queries:
        encoder = _base(base)
        facts["sample"] = sample = take_sample(case, encoder, queries)
        saved = tuned if (tuned / "config.json").is_file() else None
        if sample is not None and saved is not None:
            after = _load(saved, case) if case.is_run else encoder
            if case.is_run:
                facts["moved"] = how_far(encoder, after, case.collection, sample)
            facts["reading"] = read_texts(case, encoder, after, sample, str(saved))
    stores = [*vectors, *(place for place in sorted((case.folder / "vectors").glob("*")) if is_vectors(place))]
    if stores and (delivered / "config.json").is_file():
        facts["stale"] = dict(_stale(stores, _load(delivered, case)))
    return dataclasses.replace(case, **facts)


def _base(config: ModelConfig) -> Encoder:
    """The untuned model. Raises ModelError where it is not there any more, saying how to do without."""
    try:
        return load_encoder(config)[0]
    except ModelError as error:
        raise ModelError(error.what, where=error.where, fix=f"{error.fix}; or do without it: --sample 0") from None


def _stale(stores: Sequence[Path], encoder: Encoder) -> Iterator[tuple[str, list[str]]]:
    for place in stores:
        parts = [part for part in (place, place / "passages", place / "queries") if is_vectors(part)]
        if not parts:
            raise ArtifactError("no finished vectors here", where=place, fix="name a folder that m3tune encode wrote")
        for part in parts:
            ignored = OF_QUERIES if part.name == "passages" else ()
            if differing := differing_from(part, encoder, ignored):
                yield str(part), differing


def _load(folder: Path, case: Case) -> Encoder:
    remote = case.recipe.model.trust_remote_code
    return load_encoder(ModelConfig(path=str(folder.resolve()), trust_remote_code=remote))[0]


def _measured(
    folder: Path, selection: Mapping[str, Any], verdict: Mapping[str, Any]
) -> Iterator[tuple[str, Evaluation]]:
    """What was measured on the test queries, each model by the head that decides."""
    heads = {"base": selection.get("base_head"), "tuned": verdict.get("head"), "bm25": "bm25"}
    for name, head in heads.items():
        if head and (folder / name / METRICS).is_file() and head in measured_heads(folder / name):
            yield name, load_evaluation(folder / name, head)


def _settings(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for place in _PLACES:
        name = "settings.json" if place == "base" else SETTINGS_FILE
        if settings := _json(folder / place / name):
            yield place, settings


def _findings(file: Path) -> Iterator[Finding]:
    for stored in _json(file) or ():
        yield Finding(**{**stored, "examples": tuple(stored["examples"])})


def _log(file: Path) -> list[dict[str, Any]]:
    """The lines of the training log, a half-written last one left out."""
    lines: list[dict[str, Any]] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _json(file: Path) -> Any:
    return read_json(file) if file.is_file() else {}
