"""A finished run again from its own recipe, and whether it came out the same: `m3tune replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from m3tune import pipeline
from m3tune.artifact import read_json
from m3tune.errors import ArtifactError
from m3tune.preparation import Say
from m3tune.recipe import load_recipe
from m3tune.record import RUN, Difference, different_origins, different_results


class Replay(NamedTuple):
    """How many figures were compared, those that differ, and what else differs between the two runs."""

    figures: int
    results: list[Difference]
    origins: list[Difference]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        sides = {"results": self.results, "origins": self.origins}
        listed = {
            name: [{"where": of.where, "run": of.first, "replay": of.second} for of in differences]
            for name, differences in sides.items()
        }
        return {"figures": self.figures, "same": not self.results, **listed}


def replay(run_folder: Path, output: Path, say: Say) -> Replay:
    """Run `resolved.toml` of a finished run again into `output` and compare every figure.

    The precision that "auto" found is kept, because it is measured and might come out otherwise. Raises ArtifactError
    where the run is not finished or `output` is the run itself.
    """
    recipe = load_recipe(run_folder / "resolved.toml")
    read_json(run_folder / "verdict.json")
    if output.resolve() == run_folder.resolve():
        raise ArtifactError("a run is not replayed into itself", where=output, fix="name another folder with --out")
    precision = read_json(run_folder / RUN)["precision"]
    train = recipe.train.model_copy(update={"precision": precision})
    pipeline.run(recipe.model_copy(update={"output": str(output), "train": train}), say)
    figures, results = different_results(run_folder, output)
    return Replay(figures, results, different_origins(run_folder, output))
