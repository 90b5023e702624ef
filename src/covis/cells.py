"""Cells: what one run of a study left, in files small enough to keep when its folder is gone.

CELLS/<arm>/<seed>/cell.json         settings, state, training, latent space
                   <descriptor>.json its scores under the study's protocol
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from covis import __version__
from covis.errors import DamagedFileError
from covis.files import read_json, read_text, write_json
from covis.latent import Relation
from covis.scores import Scores

FORMAT, VERSION = "covis-cell", 1
State = Literal["begun", "done", "failed"]
LAST = 10
"""The share of null pairs at the end is the mean of the last tenth of the log's rows."""


@dataclass(frozen=True)
class Training:
    """What a training took.

    Attributes:
        steps: optimiser steps.
        pairs: pairs (or triplets) that were drawn.
        seconds: wall-clock seconds of the training alone; NaN where the log says none.
        null: share of the pairs whose loss was exactly 0, mean over the log's last tenth; NaN where the log says none.
    """

    steps: int
    pairs: int
    seconds: float
    null: float


@dataclass(frozen=True)
class Cell:
    """One arm with one seed.

    Attributes:
        arm: the arm's name.
        seed: of the training.
        settings: all that the results depend on, as plain values.
        state: "done", "failed", or "begun" where it was killed.
        message: why it failed; of one that was begun again after that, why it had failed.
        scores: descriptor -> its scores; empty unless done.
        latent: descriptor -> distances by similarity.
        training: what the training took; None unless done.
        data: digests of the images that taught and were asked, sizes and times of their files included ("train",
            "test"); and of what was asked alone, which a moved copy of the data shares ("asked").
    """

    arm: str
    seed: int
    settings: Mapping[str, Any]
    state: State
    message: str = ""
    scores: Mapping[str, Scores] = field(default_factory=dict)
    latent: Mapping[str, Relation] = field(default_factory=dict)
    training: Training | None = None
    data: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write the folder's files, the scores first: a cell that says "done" has them; returns the folder."""
        folder = Path(folder)
        for name, one in self.scores.items():
            one.save(folder / f"{name}.json", overwrite=True)
        training = None if self.training is None else {key: _null(value) for key, value in vars(self.training).items()}
        plain = {
            "arm": self.arm,
            "seed": self.seed,
            "made_by": __version__,
            "state": self.state,
            "message": self.message,
            "scores": sorted(self.scores),
            "latent": {name: one.as_dict() for name, one in self.latent.items()},
            "training": training,
            "data": dict(self.data),
            "settings": dict(self.settings),
        }
        write_json(folder / "cell.json", {"format": FORMAT, "version": VERSION, **plain})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Cell:
        """The inverse of `save`.

        Raises:
            MissingFileError: a file is not there.
            DamagedFileError: one is truncated, foreign or inconsistent.
        """
        path = Path(folder) / "cell.json"
        stored = read_json(path, kind=FORMAT, version=VERSION)
        try:
            training = stored["training"]
            known = None if training is None else Training(**{key: _nan(value) for key, value in training.items()})
            latent = {name: Relation.from_dict(one, where=f"{path}: {name}") for name, one in stored["latent"].items()}
            if stored["state"] not in get_args(State) or not isinstance(stored["settings"], dict):
                raise ValueError("its state or settings are none")
            scores = {name: Scores.load(path.with_name(f"{name}.json")) for name in stored["scores"]}
            said = {key: stored[key] for key in ("arm", "seed", "settings", "state", "message")}
            return cls(**said, scores=scores, latent=latent, training=known, data=dict(stored["data"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DamagedFileError):
                raise
            raise DamagedFileError(
                f"{path} must hold a cell of a study; its parts do not fit ({error}). Remove it to run it again."
            ) from error


def read_log(path: str | Path, *, steps: int, batch: int) -> Training:
    """What a training took, from its `log.csv`.

    Raises:
        MissingFileError: there is no such file.
    """
    rows = list(csv.DictReader(read_text(path).splitlines()))
    columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in ("seconds", "null")}
    null, seconds = columns["null"][-max(1, len(rows) // LAST) :], columns["seconds"][-1:]
    return Training(
        steps, steps * batch, float(seconds[0]) if len(seconds) else float("nan"), float(null.mean()) if len(null) else float("nan")
    )


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan(value: Any) -> Any:
    return float("nan") if value is None else value
