"""What the tests of training share: a street of noisy colours, a network of a few thousand weights, and a way to stop a run."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from covis.images import Images, Scene
from covis.labels import Labels, self_pairs
from covis.models.place import PlaceModel
from covis.settings import ModelSettings, TrainSettings
from covis.training import fitting as training
from covis.training.fitting import fit

MODEL = ModelSettings(
    backbone="resnet10t", backbone_options={"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}, height=24, width=32
)
SETTINGS = TrainSettings(steps=12, batch=8, learning_rate=3e-3, checkpoint_every=5)
TRIPLETS = {"loss": "triplet", "sampler": "triplets", "sampler_options": {"negatives": 2, "cache": 12, "pool": 16, "positives": 2}}
PLACES, VIEWS = 8, 4


def make_scene(root: Path, name: str = "street", seed: int = 0) -> tuple[Scene, Labels]:
    """Eight places of coarse random colours, four noisy views of each; the same place is similar by 0.9, the next one by 0.3."""
    rng = np.random.default_rng(seed)
    (root / name).mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (PLACES, 3, 4, 3))
    for place in range(PLACES):
        for view in range(VIEWS):
            large = np.kron(coarse[place], np.ones((8, 8, 1)))
            noisy = np.clip(large * rng.uniform(0.6, 1.2) + rng.normal(0, 25, large.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(root / name / f"{place}-{view}.png")
    images = Images(root / name, [f"{place}-{view}.png" for place in range(PLACES) for view in range(VIEWS)])
    return Scene(name, "train", images, images), _labels(images, images)


def make_asked(root: Path, name: str = "asked", seed: int = 5) -> tuple[Scene, Labels]:
    """Another street of this kind: the first two views of each place are searched, the others ask."""
    whole = make_scene(root, name, seed)[0].queries
    view = np.arange(PLACES * VIEWS) % VIEWS
    database, queries = whole.select(np.flatnonzero(view < 2)), whole.select(np.flatnonzero(view >= 2))
    return Scene(name, "val", database, queries), _labels(queries, database)


def _labels(queries: Images, database: Images) -> Labels:
    here, there = (np.array([int(name[0]) for name in images.names]) for images in (queries, database))
    apart = np.abs(here[:, None] - there[None])
    similarity = np.where(apart == 0, 0.9, np.where(apart == 1, 0.3, 0.0))
    excluded = self_pairs(queries, database)
    return Labels(sparse.csr_array(similarity), queries.names, database.names, rule="by hand", parameters={"k": 1}, excluded=excluded)


def changed(**values: object) -> TrainSettings:
    """The settings of these tests, but for some."""
    return dataclasses.replace(SETTINGS, **values)  # type: ignore[arg-type]


def run(model: PlaceModel, street: tuple[Scene, Labels], out: Path, settings: TrainSettings = SETTINGS, **options: object) -> PlaceModel:
    return fit(model, [street[0]], [street[1]], settings, out=out, progress=False, **options)  # type: ignore[arg-type]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


class StopError(Exception):
    """What a test stops a run with."""


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run end with an error when this step (from 0) is due."""
    learn = training._Siamese.training_step

    def stopping(self: training._Siamese, token: int, index: int) -> object:
        if self.step == step:
            raise StopError
        return learn(self, token, index)

    monkeypatch.setattr(training._Siamese, "training_step", stopping)
