"""A training run on the disk: what it was begun with, its checkpoint, and the best model so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_bytes

from covis.config import to_table
from covis.errors import DamagedFileError, OutputExistsError, SettingsDifferError, TrainingDivergedError
from covis.files import atomic_path, digest, read_json, write_json
from covis.images import Scene
from covis.labels import Labels
from covis.models.place import PlaceModel
from covis.models.weights import load_safely, read_weights
from covis.settings import TrainSettings
from covis.training.guides import Guide
from covis.training.journals import row_due
from covis.training.validation import worth

FORMAT, VERSION = "covis-training", 1
CHECKPOINT = "covis-checkpoint"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a run needs to go on.

    Attributes:
        step: optimiser steps taken.
        weights: the network's state dict.
        optimizer: the optimiser's.
        sampler: where the sampler was after the last batch learnt from.
        scaler: of the gradients, with precision "16".
        curve: (step, value) of each validation.
    """

    step: int
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    sampler: Mapping[str, Any]
    scaler: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...] = ()


def best(curve: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
    """The step and the value of the best validation; of equal ones the earliest; None where there was none.

    >>> best([(10, 0.5), (20, 0.75), (30, 0.75)])
    (20, 0.75)
    """
    return max(curve, key=lambda point: worth(point[1]), default=None)


class RunFolder:
    """The folder of one training run: `settings.json`, `last.ckpt`, `best-STEP.safetensors`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write `settings.json`, or hold this call against the one that is there.

        Raises:
            SettingsDifferError: the run was begun with something else; the message shows the difference.
            OutputExistsError: there is a model that no training run left.
        """
        path = self.path / "settings.json"
        if not path.exists():
            if (self.path / "model").exists() or (self.path / "last.ckpt").exists():
                raise OutputExistsError(
                    f"{self.path} holds a model without the settings.json of a training run, and is not overwritten. Choose another --out."
                )
            write_json(path, {"format": FORMAT, "version": VERSION, **header})
            return
        stored = read_json(path, kind=FORMAT, version=VERSION)
        there, here = (_flat({key: value for key, value in one.items() if key not in ("format", "version")}) for one in (stored, header))
        different = [
            f"{key}: {there.get(key)!r} there, {here.get(key)!r} now"
            for key in sorted(there.keys() | here.keys())
            if there.get(key) != here.get(key)
        ]
        if different:
            raise SettingsDifferError(
                f"{self.path} was begun with other settings ({'; '.join(different)}). "
                "Choose another --out, or call with the settings it was begun with."
            )

    def load(self) -> Checkpoint | None:
        """The checkpoint, loaded without running any code of the file's; None where there is none.

        Raises:
            DamagedFileError: it is truncated or foreign, or the best model that it speaks of is not there.
        """
        path = self.path / "last.ckpt"
        if not path.exists():
            return None
        try:
            stored = load_safely(path)
        except DamagedFileError as error:
            raise DamagedFileError(f"{error} Remove it to train from the start.") from error
        if not isinstance(stored, dict) or stored.get("format") != CHECKPOINT or stored.get("version") != VERSION:
            raise DamagedFileError(f"{path} must be a checkpoint of this run; it is something else. Remove it to train from the start.")
        names = ("step", "weights", "optimizer", "sampler", "scaler")
        curve = tuple((int(step), float(value)) for step, value in stored["curve"])
        found = Checkpoint(**{name: stored[name] for name in names}, curve=curve)
        at = best(found.curve)
        if at is not None and not self._best(at[0]).is_file():
            raise DamagedFileError(f"{path} speaks of the best model {self._best(at[0])}, which is not there. Remove it to train anew.")
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        """Write `last.ckpt`, whole at any moment; then remove the best models that are best no longer.

        Raises:
            TrainingDivergedError: a weight is not finite; nothing is written.
        """
        for name, value in checkpoint.weights.items():
            if not torch.isfinite(value).all():
                remedy = "Lower the learning rate, or clip the gradient (gradient_clip = 1)."
                raise TrainingDivergedError(f"After step {checkpoint.step} the weights {name} are no longer finite. {remedy}")
        values = {name: _plain(getattr(checkpoint, name)) for name in Checkpoint.__dataclass_fields__}
        with atomic_path(self.path / "last.ckpt") as temporary:
            torch.save({"format": CHECKPOINT, "version": VERSION, **values}, temporary)
        at = best(checkpoint.curve)
        for file in self.path.glob("best-*.safetensors"):
            if at is None or file != self._best(at[0]):
                file.unlink(missing_ok=True)

    def save_best(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the best model's weights; the one before stays until the checkpoint speaks of this one."""
        with atomic_path(self._best(step)) as temporary:
            temporary.write_bytes(to_bytes({name: value.detach().cpu().contiguous() for name, value in weights.items()}))

    def chosen(self, checkpoint: Checkpoint) -> Mapping[str, torch.Tensor]:
        """The weights that the run is about: the best by validation where there was one, else the last."""
        at = best(checkpoint.curve)
        return checkpoint.weights if at is None else read_weights(self._best(at[0]))

    def tidy(self) -> None:
        """Remove what only an unfinished run needs, but for the last checkpoint."""
        for file in self.path.glob("best-*.safetensors"):
            file.unlink(missing_ok=True)

    def _best(self, step: int) -> Path:
        return self.path / f"best-{step}.safetensors"


@dataclass(frozen=True, eq=False)
class Run:
    """What training was called with, for each process that trains.

    Attributes:
        model: where to start.
        scenes: that teach.
        labels: one a scene.
        settings: of the training.
        folder: where it lies.
        validation: scenes that decide which model is kept, each with its labels or None.
        progress: show a bar.
        guide: what draws the network besides the loss, if anything does.
    """

    model: PlaceModel
    scenes: tuple[Scene, ...]
    labels: tuple[Labels, ...]
    settings: TrainSettings
    folder: RunFolder
    validation: tuple[tuple[Scene, Labels | None], ...]
    progress: bool
    guide: Guide | None = None

    def due(self, step: int) -> bool:
        """Whether a checkpoint is written after this step."""
        return step % self.settings.checkpoint_every == 0 or step == self.settings.steps or self.validates(step)

    def logs(self, step: int) -> bool:
        """Whether a row of the log is written after this step."""
        return row_due(step, self.settings.steps) or self.validates(step)

    def validates(self, step: int) -> bool:
        """Whether the network is validated after this step."""
        rule = self.settings.validate
        return bool(rule.protocol) and (step % rule.every == 0 or step == self.settings.steps)

    def header(self) -> dict[str, Any]:
        """What the run depends on, for `settings.json`."""
        found = {"settings": to_table(self.settings), "model": self.model.digest, "labels": labels_digest(self.labels)}
        if self.settings.validate.protocol:
            sides = [[scene.name, scene.queries.digest(), scene.database.digest()] for scene, _ in self.validation]
            graded = [None if one is None else labels_digest([one]) for _, one in self.validation]
            found["validation"] = digest([sides, graded])
        if self.guide is not None:
            found["guide"] = self.guide.digest
        return found

    def history(self, curve: Sequence[tuple[int, float]]) -> dict[str, Any]:
        """How the weights came to be, kept in `model.json`."""
        return {
            "steps": self.settings.steps,
            "settings": to_table(self.settings),
            "scenes": [scene.name for scene in self.scenes],
            "labels": [{"rule": one.rule, "parameters": dict(one.parameters)} for one in self.labels],
            **({"validation": self._chosen(curve)} if curve else {}),
            **({"guide": self.guide.digest} if self.guide is not None else {}),
            "from": {"digest": self.model.digest, **self.model.history},
        }

    def _chosen(self, curve: Sequence[tuple[int, float]]) -> dict[str, Any]:
        """Protocol, metric, scenes, the step that was best, and every value."""
        points = [{"step": step, "value": value if value == value else None} for step, value in curve]
        at = best(curve)
        kept = next(point for point in points if at is not None and point["step"] == at[0])
        rule, names = self.settings.validate, [scene.name for scene, _ in self.validation]
        return {"protocol": rule.protocol, "metric": rule.metric, "scenes": names, **kept, "curve": points}


def labels_digest(labels: Sequence[Labels]) -> str:
    """A hash of labels: names, similarities and excluded pairs (16 hex digits)."""
    found = hashlib.sha256()
    for one in labels:
        assert one.excluded is not None
        found.update("\n".join([*one.query_names, "", *one.database_names]).encode())
        for matrix in (one.matrix, one.excluded):
            for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data):
                found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, without the outermost name: `learning_rate`, `augment.mirror`."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = before if key == "settings" else f"{before}{key}."
        found |= _flat(value, inner) if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def _plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, which alone load safely."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
