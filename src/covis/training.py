"""Training: pairs are drawn, both sides are described in one pass, the loss pulls or pushes. It resumes exactly.

The only file that imports lightning. From top to bottom: `fit` is the story, `_Siamese` one step of it, then what is
kept beside (log, progress, checkpoints), then what is checked before.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from lightning import pytorch as pl

from covis.config import to_table
from covis.errors import (
    DamagedFileError,
    InvalidInputError,
    OutputExistsError,
    SettingsDifferError,
    TrainingDivergedError,
)
from covis.files import atomic_path, read_json, write_json
from covis.images import Scene
from covis.journals import Journal
from covis.labels import Labels
from covis.lookup import resolve, with_options
from covis.losses import LOSSES
from covis.models import checkpoints
from covis.models.place import PlaceModel
from covis.models.weights import load_safely
from covis.pairs import SAMPLERS, Pairs
from covis.pixels import PixelStore
from covis.settings import TrainSettings

FORMAT, VERSION = "covis-training", 1

_Batch: TypeAlias = tuple[torch.Tensor, Pairs, Mapping[str, int]]
"""(2P, 3, height, width) uint8, queries first; their pairs; and where the sampler was after drawing them."""


def fit(
    model: PlaceModel, scenes: Sequence[Scene], labels: Sequence[Labels], settings: TrainSettings, *, out: str | Path, progress: bool = True
) -> PlaceModel:
    """Train a model on graded pairs; a killed run that is started again ends as it would have.

    In `out`: `settings.json`, `log.csv` (a row every 10 steps), `last.ckpt` every `checkpoint_every` steps, and at
    the end `model/`. On a CPU a resumed run ends with the same bits as an uninterrupted one. A finished `out` of the
    same settings is returned without training.

    Args:
        model: where to start; it is copied, not changed.
        scenes: training scenes (the same images on both sides).
        labels: one a scene, queries x database.
        settings: loss, sampler, optimiser, steps.
        out: the folder of the run.
        progress: show a bar with step and loss on stderr.

    Returns:
        The trained model, on the CPU, in eval mode, with its history.

    Raises:
        InvalidInputError: a scene is no training scene, labels are of other images, or a setting is out of range.
        UnknownNameError: the loss or the sampler is in no table.
        SettingsDifferError: `out` was begun with other settings, another model or other labels.
        OutputExistsError: `out` holds a model that is not from here.
        DamagedFileError: `last.ckpt` is truncated or foreign.
        TrainingDivergedError: a loss is no longer finite; the message names the step and the images.
        MissingExtraError: the logger needs an extra that is not installed.
    """
    out = Path(out)
    _check(scenes, labels, settings)
    loss = functools.partial(
        with_options(resolve(settings.loss, LOSSES, what="loss"), settings.loss_options, what="loss"), **settings.loss_options
    )
    make_sampler = with_options(resolve(settings.sampler, SAMPLERS, what="sampler"), settings.sampler_options, what="sampler")
    sampler = make_sampler(labels, batch=settings.batch, seed=settings.seed, **settings.sampler_options)
    _begin(out, {"settings": to_table(settings), "model": model.digest, "labels": _labels_digest(labels)})
    if (out / "model").exists():
        return checkpoints.load(out / "model")

    checkpoint, done = out / "last.ckpt", 0
    if checkpoint.exists():
        stored = _resumable(checkpoint)
        done = int(stored["global_step"])
        sampler.restore(stored["sampler"])
    siamese = _Siamese(copy.deepcopy(model).train(), loss, settings, scenes)
    journal = Journal(out, steps=settings.steps, done=done, tensorboard=settings.logger == "tensorboard", shown=progress)
    store = PixelStore([scene.queries for scene in scenes], model.settings.height, model.settings.width)
    with journal, store, _quiet_lightning(), _own_random_state():
        trainer = _trainer(settings, out, _Keeper(settings, journal, checkpoint))
        _train(trainer, siamese, _batches(sampler, store), checkpoint if done else None)
    trained = siamese.model.cpu().eval()
    trained.history = _history(model, scenes, labels, settings)
    return checkpoints.load(checkpoints.save(trained, out / "model"))


def _train(trainer: pl.Trainer, siamese: _Siamese, batches: Iterator[_Batch], checkpoint: Path | None) -> None:
    """Lightning's fit, which loads the checkpoint again; before 2.6 it could not be told how, but ours was loaded safely first."""
    safely: dict[str, Any] = {"weights_only": True} if "weights_only" in inspect.signature(trainer.fit).parameters else {}
    try:
        trainer.fit(siamese, batches, ckpt_path=None if checkpoint is None else str(checkpoint), **safely)
    except SystemExit:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt from None
    if trainer.global_step < siamese.settings.steps:  # older Lightnings return from one as if nothing had happened
        raise KeyboardInterrupt


def _batches(sampler: Any, store: PixelStore) -> Iterator[_Batch]:
    """Batches without end: the pairs of the sampler, with their pixels, each side's images gathered in one go."""
    for pairs in sampler:
        scene, row = np.tile(pairs.scene, 2), np.concatenate([pairs.query, pairs.database])
        yield store.take(scene, row), pairs, sampler.state()


class _Siamese(pl.LightningModule):
    """One network for both sides of a pair."""

    def __init__(self, model: PlaceModel, loss: Callable[..., torch.Tensor], settings: TrainSettings, scenes: Sequence[Scene]) -> None:
        super().__init__()
        self.model, self.loss, self.settings, self.scenes = model, loss, settings, scenes
        self.sampler_state: Mapping[str, int] = {}
        self.losses = torch.zeros(0)  # of the last step, one a pair

    def on_train_start(self) -> None:
        if self.settings.bn_mode == "eval":
            for module in self.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()  # running statistics are used and kept; scale and shift still learn

    def training_step(self, batch: _Batch, _index: int) -> torch.Tensor:
        pixels, pairs, self.sampler_state = batch
        _seed_step(self.settings.seed, self.global_step)
        queries, database = self.model(_mirrored(pixels) if self.settings.augment.mirror else pixels).chunk(2)
        similarity, weight = (torch.from_numpy(values).to(queries) for values in (pairs.similarity, pairs.weight))
        losses: torch.Tensor = self.loss(queries, database, similarity)
        self.losses = losses.detach()
        if not torch.isfinite(self.losses).all():
            raise TrainingDivergedError(self._diverged(pairs))
        return (weight * losses).mean()

    def configure_optimizers(self) -> Any:
        settings = self.settings
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = kinds[settings.optimizer](parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(_rate, settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: _Batch, device: torch.device, _loader: int) -> _Batch:
        pixels, pairs, state = batch
        return pixels.to(device, non_blocking=True), pairs, state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning draws one batch ahead: what is stored is where the sampler was after the last batch learnt from.
        checkpoint["sampler"] = dict(self.sampler_state)

    def _diverged(self, pairs: Pairs) -> str:
        first = int(torch.nonzero(~torch.isfinite(self.losses))[0])
        images = self.scenes[int(pairs.scene[first])].queries
        query, database = images.path(int(pairs.query[first])), images.path(int(pairs.database[first]))
        return (
            f"At step {self.global_step + 1} the loss of the pair {query}, {database} "
            f"(similarity {pairs.similarity[first]:.3f}) is {float(self.losses[first])}. "
            "Lower the learning rate, clip the gradient (gradient_clip = 1), or, where BatchNorm is folded into the weights, "
            'set bn_mode = "eval".'
        )


def _mirrored(pixels: torch.Tensor) -> torch.Tensor:
    """Mirror both sides of one pair in two: how much two views share does not change, and there are twice as many places."""
    chosen = (torch.rand(len(pixels) // 2) < 0.5).repeat(2).to(pixels.device)
    return torch.where(chosen[:, None, None, None], pixels.flip(3), pixels)


def _rate(settings: TrainSettings, step: int) -> float:
    """The share of the peak learning rate that step number `step` (from 0) runs at."""
    return 0.5 * (1 + math.cos(math.pi * step / settings.steps)) if settings.schedule == "cosine" else 1.0


def _seed_step(seed: int, step: int) -> None:
    """What a step draws (dropout) depends on the seed and its number alone, so that a resumed run draws the same."""
    number = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


@contextmanager
def _own_random_state() -> Iterator[None]:
    """The caller's random state, as it was, afterwards."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield


def _trainer(settings: TrainSettings, out: Path, keeper: _Keeper) -> pl.Trainer:
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=settings.steps,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=[keeper],
        default_root_dir=out,
        # Log, bar and checkpoints are the keeper's; Lightning's own cost time in every step.
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


class _Keeper(pl.Callback):
    """After each step: the journal's row, and `last.ckpt`, whole at any moment; weights that are no numbers are never kept."""

    def __init__(self, settings: TrainSettings, journal: Journal, checkpoint: Path) -> None:
        self.settings, self.journal, self.checkpoint = settings, journal, checkpoint

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if self.journal.due(step):
            assert isinstance(module, _Siamese)
            null = float((module.losses == 0).float().mean())
            rate = self.settings.learning_rate * _rate(self.settings, step - 1)
            self.journal.write(step, loss=float(module.losses.mean()), null=null, learning_rate=rate)
        if step % self.settings.checkpoint_every == 0 or step == self.settings.steps:
            _check_finite(module, step)
            with atomic_path(self.checkpoint) as temporary:
                trainer.save_checkpoint(temporary)


def _check_finite(module: torch.nn.Module, step: int) -> None:
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            remedy = "Lower the learning rate, or clip the gradient (gradient_clip = 1)."
            raise TrainingDivergedError(f"After step {step} the weights {name} are no longer finite. {remedy}")


def _check(scenes: Sequence[Scene], labels: Sequence[Labels], settings: TrainSettings) -> None:
    if not scenes or len(scenes) != len(labels):
        raise InvalidInputError(
            f"Training needs at least one scene and one Labels a scene; got {len(scenes)} scenes and {len(labels)} labels."
        )
    for scene, one in zip(scenes, labels, strict=True):
        if not scene.training:
            raise InvalidInputError(
                f"A training scene must have the same images on both sides; {scene!r} has not. Train on Scene(name, split, images, images)."
            )
        if one.query_names != scene.queries.names or one.database_names != scene.database.names:
            raise InvalidInputError(
                f"The labels of scene {scene.name!r} must be of its images, in their order; {one!r} is of others. Label the scene again."
            )
    least = {"steps": 1, "batch": 1, "checkpoint_every": 1, "learning_rate": 0, "weight_decay": 0, "gradient_clip": 0, "seed": 0}
    for name, bound in least.items():
        if not math.inf > getattr(settings, name) >= bound:
            raise InvalidInputError(f"The training setting {name} must be finite and at least {bound}; got {getattr(settings, name)}.")


def _begin(out: Path, header: Mapping[str, Any]) -> None:
    """Write `settings.json`, or hold this call against the one that is there."""
    path = out / "settings.json"
    if not path.exists():
        if (out / "model").exists() or (out / "last.ckpt").exists():
            raise OutputExistsError(
                f"{out} holds a model without the settings.json of a training run, and is not overwritten. Choose another --out."
            )
        write_json(path, {"format": FORMAT, "version": VERSION, **header})
        return
    stored = read_json(path, kind=FORMAT, version=VERSION)
    there, here = ({**one.get("settings", {}), "model": one.get("model"), "labels": one.get("labels")} for one in (stored, header))
    different = [
        f"{key}: {there.get(key)!r} there, {here.get(key)!r} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    if different:
        raise SettingsDifferError(
            f"{out} was begun with other settings ({'; '.join(different)}). "
            "Choose another --out, or call with the settings it was begun with."
        )


def _history(model: PlaceModel, scenes: Sequence[Scene], labels: Sequence[Labels], settings: TrainSettings) -> dict[str, Any]:
    """How the weights came to be, kept in `model.json`."""
    return {
        "steps": settings.steps,
        "settings": to_table(settings),
        "scenes": [scene.name for scene in scenes],
        "labels": [{"rule": one.rule, "parameters": dict(one.parameters)} for one in labels],
        "from": {"digest": model.digest, **model.history},
    }


def _resumable(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, loaded without running any code of the file's."""
    try:
        stored = load_safely(path)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} Remove it to train from the start.") from error
    if not isinstance(stored, dict) or not {"sampler", "global_step", "state_dict"} <= stored.keys():
        raise DamagedFileError(f"{path} must be a checkpoint of this run; it is something else. Remove it to train from the start.")
    return stored


def _labels_digest(labels: Sequence[Labels]) -> str:
    found = hashlib.sha256()
    for one in labels:
        assert one.excluded is not None
        found.update("\n".join([*one.query_names, "", *one.database_names]).encode())
        for matrix in (one.matrix, one.excluded):
            for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data):
                found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's chatter (devices found, tips, why it stopped) is held back while it runs, and only then."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # Lightning 2.6 on torch 2.15
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
