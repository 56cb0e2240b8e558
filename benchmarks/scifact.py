"""Test nDCG@10 on SciFact with a recipe, dense, over several seeds of split and training.

python benchmarks/scifact.py [--recipe default] [--seeds 0 1 2] [--set train.epochs=1 ...]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from m3tune import pipeline
from m3tune.progress import shown
from m3tune.recipe import load_recipe
from m3tune.starter import DEMO, recipe_file
from peers import print_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    print_machine()
    results = []
    with tempfile.TemporaryDirectory() as folder, shown(Console(stderr=True)):
        for seed in arguments.seeds:
            built_in = [f"{key}={value}" for key, value in DEMO.items()]
            seeded = [f"data.seed={seed}", f"train.seed={seed}", f"output={Path(folder) / str(seed)}"]
            recipe = load_recipe(recipe_file(arguments.recipe), [*built_in, *seeded, *arguments.overrides])
            result = pipeline.run(recipe, print)
            results.append(result)
            print(f"seed {seed}: {result}", flush=True)
    tuned = np.array([result.tuned for result in results])
    print(
        f"{arguments.recipe}: {results[0].metric} base {results[0].base:.4f}, tuned mean {tuned.mean():.4f}, "
        f"standard deviation {tuned.std(ddof=1) if len(tuned) > 1 else 0:.4f}, lowest {tuned.min():.4f}"
    )


if __name__ == "__main__":
    main()
