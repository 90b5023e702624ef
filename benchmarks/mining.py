"""What mining costs: processor seconds of a training step by the arms of the evidence's study `graded`, on its towns.

    OMP_NUM_THREADS=1 python benchmarks/mining.py --data evidence/runs/town

Each arm learns for a few steps and for many, in turns; a step's cost is the difference by the number of steps between, so that reading and
starting do not count, and decoding, which ends with the first pass, counts for both alike. Processor seconds do not grow with other work
on the machine as a clock's do. The sampler of triplets describes candidates anew every so often: that is in it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from covis import fit
from covis.datasets import read
from covis.images import Scene
from covis.labelling import label_by_view
from covis.labels import Labels
from covis.models.place import PlaceModel
from covis.settings import Recipe
from covis.studies import load_study
from covis.training.preparation import start_from_data

STUDY = Path(__file__).resolve().parent.parent / "evidence" / "studies" / "graded.toml"
ARMS = ("GCL", "CL", "triplet, mined")
FEW, MANY = 40, 240


def seconds(recipe: Recipe, scenes: list[Scene], labels: list[Labels], *, steps: int) -> float:
    """Processor seconds of a training."""
    model = PlaceModel(recipe.model, seed=0)
    start_from_data(model, scenes, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        fit(model, scenes, labels, replace(recipe.train, steps=steps, checkpoint_every=steps), out=Path(folder) / "train")
        return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="towns of covis world --layout table --preset stand --seed 11")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    recipes = load_study(STUDY).recipes()
    scenes = read("table", given.data, split="train")
    labels = [label_by_view(scene.queries, scene.database, fov=75.0, reach=50.0) for scene in scenes]
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(given.rounds):
        for arm in ARMS:
            few, many = (seconds(recipes[arm], scenes, labels, steps=steps) for steps in (FEW, MANY))
            found[arm].append((many - few) / (MANY - FEW))
    for arm, values in found.items():
        ratio = median(values) / median(found["GCL"])
        step = f"{1000 * median(values):6.1f} ms of one processor a step"
        print(f"{arm:16s} {step} ({ratio:.2f} of GCL's); {MANY - FEW} steps, {len(values)} rounds")


if __name__ == "__main__":
    main()
