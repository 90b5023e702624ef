"""Training: pairs are drawn, both sides are described, the loss pulls or pushes. It resumes exactly.

The only file that imports lightning. From top to bottom: `fit` is the story, `_learn` what each process does, `_Siamese`
one step of it. What is looked at before is in `preflight`, what lies on the disk in `state`.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from covis.errors import TrainingDivergedError
from covis.images import Scene
from covis.labels import Labels
from covis.models import checkpoints
from covis.models.batch_norm import set_batch_norm
from covis.models.place import PlaceModel
from covis.settings import AugmentSettings, TrainSettings
from covis.training import preflight
from covis.training.augmentation import augment, draw
from covis.training.descriptions import describe_rows
from covis.training.feeds import Batch, Feed, Part
from covis.training.guides import Guide
from covis.training.journals import Journal
from covis.training.optimisers import learning_rate, make_optimiser
from covis.training.preparation import SceneFiles, journal, leave_out_unused, network, own_random_state, pixel_store, seed_part
from covis.training.processes import in_processes
from covis.training.state import Checkpoint, Run, RunFolder, best
from covis.training.tallies import Seen, Tally, in_words
from covis.training.validation import Judge, Validation, worth

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}

PATIENCE = 50
"""Steps in a row whose gradient may overflow with precision "16", while the scale of the loss is being found."""


def fit(
    model: PlaceModel,
    scenes: Sequence[Scene],
    labels: Sequence[Labels],
    settings: TrainSettings,
    *,
    out: str | Path,
    validation: Validation = (),
    guide: Guide | None = None,
    progress: bool = True,
) -> PlaceModel:
    """Train a model; a killed run that is started again ends as it would have.

    In `out`: `settings.json`, `log.csv` (a row every 10 steps), `last.ckpt` every `checkpoint_every` steps, and at the
    end `model/`. On a CPU a resumed run ends with the same bits as an uninterrupted one. A finished `out` of the same
    settings is returned without training.

    Args:
        model: where to start; it is copied, not changed.
        scenes: that teach: queries against database, the same images (`scene.training`) or two sides (a city of MSLS).
        labels: one a scene, queries x database.
        settings: loss, sampler, optimiser, steps and all else; docs/training.md.
        out: the folder of the run.
        validation: scenes that decide which model is kept, each with its labels or None; used where
            `settings.validate` names a protocol.
        guide: what is added to the loss of each item, besides the loss: a teacher (`covis.structure.distillation`).
        progress: show a bar with step, loss and speed on stderr.

    Returns:
        The trained model (the best by validation where there is one, else the last), on the CPU, in eval mode, with its
        history.

    Raises:
        InvalidInputError: labels are of other images than the scenes, a setting is out of its range, or
            two do not go together.
        UnknownNameError: the loss, the sampler, the stage, the protocol or the metric is in no table.
        LeakError: a validation query would also teach.
        SettingsDifferError: `out` was begun with other settings, another model or other labels.
        OutputExistsError: `out` holds a model that is not from here.
        DamagedFileError: `last.ckpt` is truncated or foreign.
        TrainingDivergedError: a loss or a gradient is no longer finite; the message names the step and the images.
        MissingExtraError: the logger needs an extra that is not installed.
    """
    preflight.check(model, scenes, labels, settings, validation, guide)
    folder = RunFolder(Path(out))
    run = Run(model, tuple(scenes), tuple(labels), settings, folder, tuple(validation), progress, guide)
    folder.begin(run.header())
    if (folder.path / "model").exists():
        return checkpoints.load(folder.path / "model")

    kept = folder.load()
    if kept is None or kept.step < settings.steps:
        if settings.devices > 1:
            in_processes(_learn, run, count=settings.devices)
        else:
            _learn(run)
        kept = folder.load()
    if kept is None or kept.step < settings.steps:  # the processes were interrupted, and said nothing
        raise KeyboardInterrupt
    trained = copy.deepcopy(model).cpu().eval()
    trained.load_state_dict(folder.chosen(kept))
    trained.history = run.history(kept.curve)
    saved = checkpoints.load(checkpoints.save(trained, folder.path / "model"))
    folder.tidy()
    return saved


def _learn(run: Run) -> None:
    """What each process does: go on from the last checkpoint, to the last step."""
    settings, kept = run.settings, run.folder.load()
    done = kept.step if kept else 0
    rank = int(os.environ["LOCAL_RANK"]) if settings.devices > 1 else 0
    if settings.devices > 1 and settings.accelerator != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(rank)
    with ExitStack() as stack:
        stack.enter_context(_quiet_lightning())
        stack.enter_context(own_random_state())
        model = network(run, kept)
        store = stack.enter_context(pixel_store(run))
        feed = Feed(
            preflight.make_sampler(run.labels, settings),
            store,
            lambda scene, rows: describe_rows(model, store, scene, rows),
            share=preflight.share_of(settings, rank),
            first_of_database=[SceneFiles(scene).first_of_database for scene in run.scenes],
            restored=kept.sampler if kept else None,
            keep=run.due,
            done=done,
            pin=settings.accelerator != "cpu" and torch.cuda.is_available(),
        )
        siamese = _Siamese(run, model, stack.enter_context(feed), kept)
        if settings.validate.protocol:
            siamese.judge = stack.enter_context(Judge(run.validation, settings.validate, model))
        if rank == 0:
            siamese.journal = stack.enter_context(journal(run, done))
        trainer = _trainer(settings, run.folder.path, steps=settings.steps - done)
        try:
            trainer.fit(siamese, itertools.repeat(0))  # a token a micro-batch: the batches come from the feed
        except SystemExit:  # what Lightning makes of an interrupt
            raise KeyboardInterrupt from None
        if siamese.step < settings.steps:  # older Lightnings return from one as if nothing had happened
            raise KeyboardInterrupt


class _Siamese(pl.LightningModule):
    """One network for all images of a pair or a list; a batch a step, in one or several parts."""

    def __init__(self, run: Run, model: PlaceModel, feed: Feed, kept: Checkpoint | None) -> None:
        super().__init__()
        self.run, self.settings, self.model, self.feed, self.kept = run, run.settings, model, feed, kept
        self.loss, self.floor = preflight.make_loss(run.settings), preflight.make_floor(run.settings)
        self.step, self.curve = (kept.step, list(kept.curve)) if kept else (0, [])
        self.journal: Journal | None = None
        self.judge: Judge | None = None
        self.batch: Batch
        self.tally = Tally()
        self.norm, self.overflows = 0.0, 0
        model.backbone.freeze(run.settings.freeze)
        if run.guide is not None:
            run.guide.attach(model)
        if run.settings.devices > 1:
            leave_out_unused(model)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = make_optimiser(self.model.parameters(), self.settings)
        if self.kept:
            optimizer.load_state_dict(dict(self.kept.optimizer))
        return optimizer

    def on_train_start(self) -> None:
        self.model.train()
        set_batch_norm(self.model, self.settings.bn_mode)
        if self.kept and self.kept.scaler:
            self.trainer.precision_plugin.load_state_dict(dict(self.kept.scaler))
        self.kept = None  # all of it was taken over: a second copy of weights and moments is not kept

    def on_train_batch_start(self, _token: int, index: int) -> None:
        if index % self.parts == 0:
            self.batch = self.feed.next()
            self.tally = Tally()

    def training_step(self, _token: int, index: int) -> torch.Tensor:
        """The loss of one part of the batch; Lightning adds up the gradients and divides by the number of parts."""
        part = self.batch.parts[index % self.parts]
        seed_part(self.settings.seed, self.step, part.first)
        a, b = self._described(part)
        with torch.autocast(self.device.type, enabled=False):
            a, b = a.float(), b.float()
            similarity, weight = (torch.from_numpy(values).to(a) for values in (part.pairs.similarity, part.pairs.weight))
            losses = self.loss(a, b, similarity)
            guided = torch.zeros_like(losses) if self.run.guide is None else self.run.guide.loss(part.pairs, a, b)
            summed = losses + guided
            if not torch.isfinite(summed).all():
                raise TrainingDivergedError(self._diverged(part, summed.detach()))
            total: torch.Tensor = (weight * summed).mean()
        if self.run.logs(self.step + 1):
            self.tally.add(Seen(a.detach(), b.detach(), similarity, weight, losses.detach(), self.floor(similarity), guided.detach()))
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The whole batch's gradient is there: set this step's learning rate, look at the gradient, clip it."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        learning = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in learning if parameter.grad is not None])
        self.norm = float(norm)
        finite = np.isfinite(self.norm)
        # With precision "16" gradients that overflow are how the scale is found: the step is left out, and the scale lowered.
        self.overflows = 0 if finite else self.overflows + 1
        if not finite and (self.settings.precision != "16" or self.overflows > PATIENCE):
            raise TrainingDivergedError(self._gradient_diverged())
        if self.settings.gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(learning, self.settings.gradient_clip, norm)

    def on_train_batch_end(self, _outputs: Any, _token: int, index: int) -> None:
        if (index + 1) % self.parts:
            return
        self.step += 1
        value = self._validated() if self.run.validates(self.step) else float("nan")
        if self.run.logs(self.step):
            self._write_row(value)
        if self.run.due(self.step) and self.journal is not None:
            self._save()

    @property
    def parts(self) -> int:
        """Micro-batches a step."""
        return preflight.share_of(self.settings, 0).parts

    def _described(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """(p, D) and (p, D) or (p, M, D): the queries' descriptors, and those of their database images."""
        items, pixels = len(part.pairs), part.pixels.to(self.device, non_blocking=True)
        if self.settings.augment != AugmentSettings():
            drawn = draw(self.settings.augment, seed=self.settings.seed, step=self.step, items=self.settings.batch, images=part.images)
            pixels = augment(pixels, drawn.part(part.first, items, images=part.images))
        if self.settings.bn_mode == "paper":  # one side after the other, each with statistics of its own
            queries, database = self.model(pixels[:items]), self.model(pixels[items:])
        else:
            queries, database = self.model(pixels).tensor_split([items])
        return queries, database.reshape(*part.pairs.database.shape, -1)

    def _validated(self) -> float:
        """The metric now; the weights are kept beside the checkpoint where it is better than ever before."""
        assert self.judge is not None
        with ExitStack() as stack:
            if self.journal is not None:
                stack.enter_context(self.journal.paused())
            value = self.judge.value(self.model)
        before = best(self.curve)
        self.curve.append((self.step, value))
        if self.journal is not None and (before is None or worth(value) > worth(before[1])):
            self.run.folder.save_best(self.step, self.model.state_dict())
        return value

    def _save(self) -> None:
        """Checkpoint; weights that are no numbers are never kept."""
        state, optimizer = self.batch.state, self.optimizers()
        assert state is not None
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        scaler = self.trainer.precision_plugin.state_dict()
        checkpoint = Checkpoint(self.step, self.model.state_dict(), optimizer.state_dict(), state, scaler, tuple(self.curve))
        self.run.folder.save(checkpoint)

    def _write_row(self, value: float) -> None:
        means = self.tally.means()
        if self.run.guide is None:
            del means["guided"]
        if self.journal is not None:
            values = {
                **means,
                "gradient_norm": self.norm,
                "learning_rate": learning_rate(self.settings, self.step - 1),
                "validation": value,
            }
            self.journal.write(self.step, values, fed={"waited": self.feed.waited, "mined": self.feed.mined, "mining": self.feed.mining})

    def _diverged(self, part: Part, losses: torch.Tensor) -> str:
        first = int(torch.nonzero(~torch.isfinite(losses))[0])
        return (
            f"At step {self.step + 1} the loss of {in_words(self.run.scenes, part, first)} is {float(losses[first])}. "
            "Lower the learning rate, clip the gradient (gradient_clip = 1), or, where BatchNorm is folded into the weights, "
            'set bn_mode = "eval".'
        )

    def _gradient_diverged(self) -> str:
        named = [name for name, one in self.model.named_parameters() if one.grad is not None and not torch.isfinite(one.grad).all()]
        part = self.batch.parts[0]
        seen = "; ".join(in_words(self.run.scenes, part, row) for row in range(min(3, len(part.pairs))))
        return (
            f"At step {self.step + 1} the losses are finite and the gradient is not, first in {named[0] if named else 'its norm'}. The "
            f"batch of {self.settings.batch} begins with {seen}. Lower the learning rate, or start from other weights."
        )


def _trainer(settings: TrainSettings, out: Path, *, steps: int) -> pl.Trainer:
    several = settings.devices > 1
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=DDPStrategy() if several else "auto",
        plugins=[LightningEnvironment()],  # processes are ours to start, whatever a cluster's variables say
        precision=_PRECISIONS[settings.precision],
        max_steps=steps,
        accumulate_grad_batches=preflight.share_of(settings, 0).parts,
        default_root_dir=out,
        # Log, bar and checkpoints are ours; Lightning's own cost time in every step.
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )


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
