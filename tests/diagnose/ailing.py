"""Genuine tiny runs for the doctor: a healthy one, and ones that were made to go wrong in a known way."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from m3tune import pipeline
from m3tune.artifact import StageKey, write_json, writing
from m3tune.data.intake import Intake
from m3tune.data.prepared import FINDINGS, STAGE, save_prepared
from m3tune.data.similar import find_similar
from m3tune.diagnose.check import context_of
from m3tune.diagnose.registry import findings_of
from m3tune.recipe import build_recipe
from m3tune.types import Judgment, Negative, Passage, Split
from tiny import COMMON, save_tiny_encoder, tiny_collection

QUERIES, PASSAGES = 240, 400
TRAIN = slice(0, 140)
SIDES = (TRAIN, slice(140, 180), slice(180, QUERIES))
HEALTHY = {"epochs": 4, "batch_queries": 20, "learning_rate": 1e-3, "precision": "float32", "logging_steps": 1}


def collection():
    return tiny_collection(QUERIES, PASSAGES)


def shuffled(whole, seed=1):
    """The collection with the labels of its training queries dealt out anew."""
    judgments = list(whole.judgments)
    order = np.random.default_rng(seed).permutation(len(judgments[TRAIN]))
    dealt = [Judgment(pair.query_id, judgments[i].passage_id) for pair, i in zip(judgments[TRAIN], order, strict=True)]
    return replace(whole, judgments=(*dealt, *judgments[TRAIN.stop :]))


def half_false(whole, seed=2):
    """The collection with four negatives a training query, of which two say what the positive says in other words."""
    generator = np.random.default_rng(seed)
    passages, negatives = dict(whole.passages), []
    others = [p for p in whole.passages if int(p[1:]) >= QUERIES]
    for query_id, (positive,) in list(whole.positives.items())[TRAIN]:
        rare = whole.passages[positive].text.split()[:2]
        for number in range(2):
            id_ = f"f{query_id}-{number}"
            passages[id_] = Passage(id_, " ".join([*rare, *generator.choice(COMMON, 6)]))
            negatives.append(Negative(query_id, id_))
        negatives += [Negative(query_id, str(p)) for p in generator.choice(others, 2, replace=False)]
    return replace(whole, passages=passages, negatives=tuple(negatives))


def prepared_data(folder: Path, whole):
    """The collection as prepared data with a split of its own, checked as preparing checks it."""
    ids, similar = list(whole.queries), find_similar(whole)
    split = Split(*(tuple(ids[rows]) for rows in SIDES))
    with writing(folder, StageKey(STAGE, {}, {"data": whole.fingerprint})) as (partial, counts):
        counts |= {"passages": len(whole.passages), "records": {}, "ignored": {}}
        save_prepared(partial, whole, similar, split)
        found = findings_of(whole, context_of(whole, Intake(), similar))
        write_json(partial / FINDINGS, [asdict(finding) for finding in found])
    return folder


def base_model(place: Path):
    """A folder with an encoder that knows something of such questions, learned on other ones."""
    if not (place / "knowing").is_dir():
        save_tiny_encoder(place / "random")
        data = prepared_data(place / "other", tiny_collection(QUERIES, PASSAGES, seed=9))
        run_of(place, "before", data, place / "random", learning_rate=5e-3, epochs=2)
        shutil.copytree(place / "before" / "train" / "model", place / "knowing")
    return place / "knowing"


def run_of(place: Path, name: str, data: Path, base: Path, **train):
    """The folder of a whole run."""
    recipe = build_recipe(
        {
            "output": str(place / name),
            "data": {"path": str(data)},
            "model": {"path": str(base)},
            "train": HEALTHY | train,
            "evaluate": {"resamples": 200},
        }
    )
    pipeline.run(recipe)
    return place / name
