"""Models of one shape merged into one folder: `m3tune merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m3tune import __version__
from m3tune.artifact import StageKey, is_complete, writing
from m3tune.config import ModelConfig
from m3tune.errors import RecipeError
from m3tune.model.merge import average_into, distance, move_to, weights_of
from m3tune.model.weights import load_encoder, model_fingerprint, save_encoder
from m3tune.preparation import Say


def merge_models(models: Sequence[ModelConfig], alpha: float | None, folder: Path, say: Say) -> None:
    """Save the first model + `alpha` (the second - the first) to `folder`, or without an alpha the mean of all.

    Nothing is done where the folder holds this very merge. Raises RecipeError for a wrong number of models, ModelError
    where they do not fit.
    """
    if alpha is not None and len(models) != 2:
        raise RecipeError(f"--alpha lies between two models, not {len(models)}", where="merge", fix="use --average")
    if len(models) < 2:
        raise RecipeError("one model alone cannot be merged", where="merge", fix="name two or more")
    fingerprints = {f"model {number}": model_fingerprint(model) for number, model in enumerate(models, start=1)}
    key = StageKey(
        "merge",
        {"models": [model.path for model in models], "alpha": alpha},
        fingerprints | {"m3tune": __version__},
    )
    if is_complete(folder, key):
        say(f"{folder} holds this merge already")
        return
    encoders = []
    for model in models:
        encoder, why = load_encoder(model)
        say(f"{model.path}: {why}")
        encoders.append(encoder)
    first, last = encoders[0], encoders[-1]
    before = weights_of(first)
    merged = first if alpha is None else last
    if alpha is None:
        average_into(first, encoders[1:])
    else:
        move_to(first, last, alpha)
        alone = [head for head in last.settings.heads if head not in first.settings.heads]
        if alone:
            say(f"{', '.join(alone)}: only {models[-1].path} has it, so it stays as it is there")
    with writing(folder, key) as (partial, _):
        save_encoder(merged, partial)
    moved = distance(before, merged.state_dict())
    say(f"moved from {models[0].path} by {moved:.4f} of its weights' length")
