"""What is looked at before a training run starts: an hour of training must not end in a word that was misspelt."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import CovisError, InvalidInputError
from covis.images import Scene
from covis.labels import Labels
from covis.lookup import resolve, with_options
from covis.losses import FLOORS, LOSSES
from covis.models.place import PlaceModel
from covis.pairs import SAMPLERS, Sampler
from covis.settings import AugmentSettings, TrainSettings
from covis.training.feeds import Share
from covis.training.guides import Guide
from covis.training.journals import load_tensorboard
from covis.training.validation import Validation, check_validation

DEFAULT_MARGIN = 0.5
"""By which the spread of descriptors is judged where a loss has no margin."""

_LEAST = {
    "steps": 1,
    "batch": 1,
    "micro_batch": 0,
    "learning_rate": 0,
    "momentum": 0,
    "weight_decay": 0,
    "decay": 0,
    "decay_every": 0,
    "warmup": 0,
    "gradient_clip": 0,
    "devices": 1,
    "checkpoint_every": 1,
    "seed": 0,
}
_CHOICES = {name: get_args(hint) for name, hint in get_type_hints(TrainSettings).items() if get_origin(hint) is Literal}
_BELOW_ONE = ("brightness", "contrast", "saturation")
_UP_TO_ONE = ("grey", "noise", "erase")


def check(
    model: PlaceModel,
    scenes: Sequence[Scene],
    labels: Sequence[Labels],
    settings: TrainSettings,
    validation: Validation = (),
    guide: Guide | None = None,
) -> None:
    """Look at everything that can be looked at before the first step.

    Raises:
        InvalidInputError: labels are of other images than the scenes, a setting is out of its range, or two
            do not go together.
        UnknownNameError: a loss, sampler, stage, protocol or metric has no such name.
        LeakError: a validation query would also teach.
        MissingExtraError: the logger needs an extra that is not installed.
    """
    check_scenes(scenes, labels)
    check_settings(settings)
    if guide is not None and settings.augment.mirror and getattr(guide, "upright", False):
        raise InvalidInputError(
            "[train.augment] mirror must be false where a teacher draws the network, whose descriptors are those of label maps that are "
            "not mirrored. Set it so in [structure.student.train.augment]."
        )
    if model.resize == "labels":
        _check_keeps_numbers(settings.augment)
    check_device(settings)
    _check_learns(model, settings)
    check_loss_and_sampler(model.dim, labels, settings)
    check_validation(validation, settings.validate, training=scenes)
    if settings.logger == "tensorboard":
        load_tensorboard()


def make_loss(settings: TrainSettings) -> Callable[..., torch.Tensor]:
    """The loss that the settings name, with its options."""
    found = with_options(resolve(settings.loss, LOSSES, what="loss"), settings.loss_options, what="loss", given=("a", "b", "similarity"))
    return functools.partial(found, **settings.loss_options)


def make_floor(settings: TrainSettings) -> Callable[[torch.Tensor], torch.Tensor]:
    """The least value of the loss for each similarity; 0 where the loss has none that depends on it."""
    found = FLOORS.get(settings.loss)
    return torch.zeros_like if found is None else functools.partial(found, **settings.loss_options)


def make_sampler(labels: Sequence[Labels], settings: TrainSettings) -> Callable[..., Sampler]:
    """What makes the sampler that the settings name; it still takes `describe`."""
    given = ("labels", "batch", "seed", "describe")
    found = with_options(resolve(settings.sampler, SAMPLERS, what="sampler"), settings.sampler_options, what="sampler", given=given)
    return functools.partial(found, labels, batch=settings.batch, seed=settings.seed, **settings.sampler_options)


def margin_of(settings: TrainSettings) -> float:
    """The margin in force: the option's, else the loss's own default, else 0.5.

    >>> margin_of(TrainSettings()), margin_of(TrainSettings(loss="triplet")), margin_of(TrainSettings(loss_options={"margin": 0.2}))
    (0.5, 0.1, 0.2)
    """
    options = inspect.signature(resolve(settings.loss, LOSSES, what="loss")).parameters
    default = options["margin"].default if "margin" in options else None
    found = settings.loss_options.get("margin", default)
    return float(found) if isinstance(found, (int, float)) and found > 0 else DEFAULT_MARGIN


def share_of(settings: TrainSettings, rank: int) -> Share:
    """Which items of each batch the process with this number takes, and in how many parts."""
    items = settings.batch // settings.devices
    return Share(items, first=rank * items, parts=items // (settings.micro_batch or items))


def check_scenes(scenes: Sequence[Scene], labels: Sequence[Labels]) -> None:
    """Hold that there are scenes, and the labels theirs."""
    if not scenes or len(scenes) != len(labels):
        raise InvalidInputError(
            f"Training needs at least one scene and one Labels a scene; got {len(scenes)} scenes and {len(labels)} labels."
        )
    for scene, one in zip(scenes, labels, strict=True):
        if one.query_names != scene.queries.names or one.database_names != scene.database.names:
            raise InvalidInputError(
                f"The labels of scene {scene.name!r} must be of its images, in their order; {one!r} is of others. Label the scene again."
            )


def check_settings(settings: TrainSettings) -> None:
    """Hold that every setting is in its range, and that they go together."""
    for name, bound in _LEAST.items():
        if not math.inf > getattr(settings, name) >= bound:
            raise InvalidInputError(f"The training setting {name} must be finite and at least {bound}; got {getattr(settings, name)}.")
    for name, known in _CHOICES.items():
        if getattr(settings, name) not in known:
            raise InvalidInputError(
                f"The training setting {name} must be one of {', '.join(map(repr, known))}; got {getattr(settings, name)!r}."
            )
    _check_augmentation(settings.augment)
    _check_schedule(settings)
    _check_parts(settings)


def check_device(settings: TrainSettings) -> None:
    """Hold that the machine has what the settings ask for.

    Raises:
        InvalidInputError: there is no GPU, there are too few, or the precision needs one.
    """
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    other = torch.backends.mps.is_available()
    if settings.accelerator == "gpu" and not cuda and not other:
        raise InvalidInputError('accelerator = "gpu" needs a GPU that torch can use; there is none. Choose "cpu" or "auto".')
    if settings.precision == "16" and (settings.accelerator == "cpu" or not cuda):
        raise InvalidInputError('precision = "16" needs a CUDA GPU; this run would be on another device. Choose "bf16" or "32".')
    if settings.devices > 1 and settings.accelerator != "cpu" and (cuda or other) and settings.devices > max(cuda, 1):
        raise InvalidInputError(
            f'devices = {settings.devices} needs as many GPUs; there are {max(cuda, 1)}. Ask for fewer, or for accelerator = "cpu".'
        )


def _check_augmentation(settings: AugmentSettings) -> None:
    for name in (*_BELOW_ONE, *_UP_TO_ONE):
        value = getattr(settings, name)
        if not (0 <= value < 1 or (value == 1 and name in _UP_TO_ONE)):
            raise InvalidInputError(f"[train.augment] {name} must be in [0, 1{']' if name in _UP_TO_ONE else ')'}; got {value}.")


def _check_keeps_numbers(settings: AugmentSettings) -> None:
    """Hold that label maps are at most mirrored: darker or grey, a class number would be another class."""
    if settings != AugmentSettings(mirror=settings.mirror):
        raise InvalidInputError(
            "[train.augment] may only mirror where a network reads label maps, whose numbers are classes and no colours; "
            f"got {settings}. Set the others to 0."
        )


def _check_schedule(settings: TrainSettings) -> None:
    if (settings.schedule == "step") != (settings.decay_every > 0):
        raise InvalidInputError(
            f'decay_every, the steps between two decays, must be at least 1 with schedule = "step", and 0 otherwise; got '
            f"{settings.decay_every} with {settings.schedule!r}."
        )
    if settings.warmup > settings.steps:
        raise InvalidInputError(f"warmup must not be longer than the run; got {settings.warmup} of {settings.steps} steps.")
    if settings.momentum and settings.optimizer != "sgd":
        raise InvalidInputError(f'momentum is of optimizer = "sgd"; got {settings.momentum} with {settings.optimizer!r}. Set it to 0.')
    if settings.momentum >= 1:
        raise InvalidInputError(f"momentum must be in [0, 1); got {settings.momentum}.")


def _check_parts(settings: TrainSettings) -> None:
    """Hold that a batch can be shared out among devices and micro-batches, all of one size."""
    if settings.batch % settings.devices:
        raise InvalidInputError(
            f"batch must be divisible by devices, since each takes an equal share; got {settings.batch} and {settings.devices}."
        )
    items = settings.batch // settings.devices
    if settings.micro_batch and items % settings.micro_batch:
        raise InvalidInputError(
            f"micro_batch must divide the batch{' of each device' if settings.devices > 1 else ''}, so that all its parts weigh the "
            f"same; got {settings.micro_batch} for {items}."
        )
    if settings.bn_mode == "paper" and settings.devices > 1:
        raise InvalidInputError(
            f'bn_mode = "paper" is the reference\'s way on one device: its running statistics follow one micro-batch after the other. '
            f'Got devices = {settings.devices}; set it to 1, or choose bn_mode = "train" or "eval".'
        )
    if settings.bn_mode == "paper" and (settings.micro_batch or items) == 1:
        raise InvalidInputError(
            'bn_mode = "paper" takes statistics over the queries of a micro-batch, which must be at least 2; got 1. '
            "Raise micro_batch (the reference has 2)."
        )


def _check_learns(model: PlaceModel, settings: TrainSettings) -> None:
    """Hold that the stage to freeze up to is there, and that something is left to learn."""
    trial = copy.deepcopy(model)
    trial.backbone.freeze(settings.freeze)
    if not any(parameter.requires_grad for parameter in trial.parameters()):
        raise InvalidInputError(
            f"Something must be left to learn; freeze = {settings.freeze!r} leaves no parameter. Choose an earlier stage."
        )


def check_loss_and_sampler(dim: int, labels: Sequence[Labels], settings: TrainSettings) -> None:
    """Hold that the loss takes what the sampler draws: tried on one batch, with random descriptors."""
    random = np.random.default_rng(settings.seed)

    def anything(_scene: int, queries: NDArray[np.int64], database: NDArray[np.int64]) -> NDArray[np.float32]:
        return random.standard_normal((len(queries) + len(database), 4), dtype=np.float32)

    loss, sampler = make_loss(settings), make_sampler(labels, settings)
    with _said_of("sampler", settings.sampler, settings.sampler_options):
        pairs = next(sampler(describe=anything))
    if len(pairs) != settings.batch:
        raise InvalidInputError(
            f"The sampler {settings.sampler!r} must draw batch = {settings.batch} items at once; it draws {len(pairs)}."
        )
    a, b = (torch.from_numpy(random.standard_normal((*shape, dim))).float() for shape in (pairs.query.shape, pairs.database.shape))
    a, b = (torch.nn.functional.normalize(side, dim=-1) for side in (a, b))
    drawn = "lists (a query with one positive and several negatives)" if pairs.database.ndim == 2 else "pairs"
    try:
        with _said_of("loss", settings.loss, settings.loss_options):
            losses: Any = loss(a, b, torch.from_numpy(pairs.similarity).float())
    except InvalidInputError as error:
        raise InvalidInputError(
            f"The loss {settings.loss!r} and the sampler {settings.sampler!r} do not go together, or an option is wrong: the sampler draws "
            f"{drawn}. {error}"
        ) from error
    if not isinstance(losses, torch.Tensor) or losses.shape != (len(pairs),):
        found = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise InvalidInputError(f"The loss {settings.loss!r} must give one value an item, ({len(pairs)},); it gives {found}.")


@contextmanager
def _said_of(what: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """An option of another type than it should be fails anywhere within; what is said names the options."""
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CovisError) or not options:
            raise
        raise InvalidInputError(f"The {what} {name!r} cannot work with the options {dict(options)}; {error}.") from error
