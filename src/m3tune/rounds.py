"""Rounds of mining and training: what one round tuned mines for the next, until development stops improving.

rounds/N/negatives, rounds/N/train   what round N mined and trained, as stages of their own
rounds/rounds.json                   each round's development metric, share of suspects and share of old negatives

The best round's two stages stand in the run itself as well, where all that follows finds them. A recipe without rounds
has those alone. Each round trains from the base; docs/decisions/0019-rounds.md says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from m3tune.artifact import MANIFEST, read_json, share_stage, write_json
from m3tune.config import ModelConfig, Recipe
from m3tune.data.prepared import Prepared
from m3tune.mining import FOLDER, mine
from m3tune.negatives.filters import SUSPECTS
from m3tune.negatives.table import read_negatives
from m3tune.preparation import Say
from m3tune.report.gather import ROUNDS
from m3tune.stages import without_new_heads

TRAIN = "train"
Tune = Callable[[Path, Recipe, Prepared, Say, Path], None]
"""run folder, recipe, data with negatives, say, the folder to write train/ into"""


class Round(NamedTuple):
    """What a round came to. `old` is the share of its negatives that the round before had too, None for the first."""

    number: int
    dev: float
    candidates: int
    suspected: float  # share of the candidates
    old: float | None

    def in_words(self, metric: str) -> str:
        """One line for a person."""
        old = "" if self.old is None else f", {self.old:.1%} of the negatives are those of the round before"
        return f"round {self.number}: dev {metric} {self.dev:.4f}, {self.suspected:.1%} of candidates suspected{old}"


def mine_and_tune(folder: Path, recipe: Recipe, prepared: Prepared, tune: Tune, say: Say) -> None:
    """Mine and train as often as the recipe says at most; negatives/ and train/ are then those of the best round."""
    if recipe.mine is None or recipe.mine.rounds == 1:
        tune(folder, recipe, mine_first(folder, recipe, prepared, say), say, folder)
        return
    done: list[Round] = []
    for found in _rounds(folder, recipe, prepared, tune, say):
        improves = not done or found.dev > max(before.dev for before in done)
        done.append(found)
        say(found.in_words(recipe.evaluate.main_metric))
        if not improves:
            break
    best = max(done, key=lambda found: found.dev)  # the first of several
    say(f"round {best.number} is kept, of {len(done)} made and at most {recipe.mine.rounds}")
    rows = [found._asdict() for found in done]
    write_json(folder / ROUNDS, {"metric": recipe.evaluate.main_metric, "kept": best.number, "rounds": rows})
    for name in (FOLDER, TRAIN):
        share_stage(_place(folder, best.number) / name, folder / name)


def mine_first(folder: Path, recipe: Recipe, prepared: Prepared, say: Say) -> Prepared:
    """The data with the negatives that the untuned model mines: the first round's, or those of a run without rounds."""
    place = folder if recipe.mine is None or recipe.mine.rounds == 1 else _place(folder, 1)
    place.mkdir(parents=True, exist_ok=True)
    return mine(folder, recipe, prepared, without_new_heads(recipe.model), say, place)


def tuned_model(place: Path, recipe: Recipe) -> ModelConfig:
    """The best checkpoint in `place`; its folder holds the settings, prompts and limits it was trained with."""
    path = str(place.resolve() / TRAIN / "model")
    return ModelConfig(path=path, trust_remote_code=recipe.model.trust_remote_code)


def _rounds(folder: Path, recipe: Recipe, prepared: Prepared, tune: Tune, say: Say) -> Iterator[Round]:
    """Make one round after another, or find it made already."""
    assert recipe.mine is not None
    # A model of its own mines the first time; what it found is trained on, and then the tuned one shall mine.
    later = recipe.model_copy(update={"mine": recipe.mine.model_copy(update={"model": None})})
    before: Path | None = None
    for number in range(1, recipe.mine.rounds + 1):
        place = _place(folder, number)
        if before is None:
            mined = mine_first(folder, recipe, prepared, say)
        else:
            place.mkdir(exist_ok=True)
            mined = mine(folder, later, prepared, tuned_model(before, recipe), say, place, before / FOLDER)
        tune(folder, recipe, mined, say, place)
        yield _summary(number, place, before)
        before = place


def _summary(number: int, place: Path, before: Path | None) -> Round:
    counts = read_json(place / FOLDER / MANIFEST)["counts"]
    suspected = sum(count for reason, count in counts["removed"].items() if reason in SUSPECTS)
    old = None
    if before is not None:
        ours, theirs = ({of[:2] for of in read_negatives(at / FOLDER)} for at in (place, before))
        old = len(ours & theirs) / max(len(ours), 1)
    dev = read_json(place / TRAIN / "selection.json")["tuned"]
    return Round(number, dev, counts["candidates"], suspected / counts["candidates"], old)


def _place(folder: Path, number: int) -> Path:
    return folder / Path(ROUNDS).parent / str(number)
