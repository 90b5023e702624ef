"""Validation while a network learns: the scenes that decide which model is kept, judged under a named protocol."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError, TrainingDivergedError, UnknownNameError
from covis.evaluation import evaluate
from covis.images import Images, Scene, files_of
from covis.indexes import index
from covis.labels import Labels
from covis.leaks import check_no_leak
from covis.lookup import suggest
from covis.metrics import METRICS, NEEDS
from covis.models.place import PlaceModel
from covis.pixels import PixelStore
from covis.protocols import Protocol, protocol
from covis.rankings import Rankings
from covis.settings import ValidateSettings
from covis.training.descriptions import describe_rows
from covis.truths import depth, join, truth

Validation: TypeAlias = Sequence[tuple[Scene, Labels | None]]
"""Scenes that are asked, each with its labels where the protocol or the metric needs them."""

POOLED = ("AP", "match-AP", "recall@100%precision")
"""Metrics of all queries together; like those of `METRICS`, the greater the better."""

_SAMPLES = 1  # of the bootstrap: nobody looks at the interval here


class Judge:
    """What the network is worth on the validation scenes; to be used in a `with` statement.

    Args:
        validation: the scenes, checked by `check_validation`.
        settings: protocol, metric and search depth.
        model: whose pixels they become.
    """

    def __init__(self, validation: Validation, settings: ValidateSettings, model: PlaceModel) -> None:
        self._scenes, self._labels = [scene for scene, _ in validation], _labels(validation)
        self._metric, self._rule = settings.metric, _narrowed(protocol(settings.protocol), settings)
        self._depths = [depth(scene, self._rule, labels, k=settings.k) for scene, labels in validation]
        self._k = settings.k
        sides = [files_of(side, model.resize) for scene in self._scenes for side in (scene.queries, scene.database)]
        self._store = PixelStore(sides, model.height, model.width, resize=model.resize)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def value(self, model: PlaceModel) -> float:
        """The metric of the network as it is now; NaN where it is defined for no query.

        Raises:
            TrainingDivergedError: a weight, and so every descriptor, is not finite.
        """
        _check_finite(model)
        described = [
            (self._side(model, 2 * number, scene.queries), self._side(model, 2 * number + 1, scene.database))
            for number, scene in enumerate(self._scenes)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CovisWarning)  # what a protocol cannot compute was said of the metric that counts, before
            scores = evaluate(
                self._searched(described),
                self._scenes,
                labels=self._labels,
                protocol=self._rule,
                descriptors=described if self._metric == "AP" else None,
                samples=_SAMPLES,
            )
        return float(scores.metrics[self._metric].value)

    def _side(self, model: PlaceModel, number: int, images: Images) -> Descriptors:
        return Descriptors(describe_rows(model, self._store, number, np.arange(len(images))), images.names, model="validation")

    def _searched(self, described: Sequence[tuple[Descriptors, Descriptors]]) -> list[Rankings]:
        """A ranking a scene, or one over all of them where the protocol searches a joint index."""
        if self._rule.scope == "scene":
            return [
                index(database, kind="exact").search(queries, k=deep)
                for (queries, database), deep in zip(described, self._depths, strict=True)
            ]
        whole, deep = join(self._scenes), self._k + sum(one - self._k for one in self._depths)
        queries, database = (_stacked(sides) for sides in zip(*described, strict=True))
        joint = index(Descriptors(database, whole.database.names, model="validation"), kind="exact")
        return [joint.search(Descriptors(queries, whole.queries.names, model="validation"), k=deep)]


def check_validation(validation: Validation, settings: ValidateSettings, *, training: Sequence[Scene]) -> None:
    """Look at all that validation needs, before the first step.

    Args:
        validation: the scenes.
        settings: protocol, metric, every, k. Without a protocol nothing is looked at.
        training: the scenes that teach.

    Raises:
        UnknownNameError: there is no such protocol, or the protocol has no such metric.
        InvalidInputError: there is no scene, labels are missing or of other images, no query has a positive, `every` or
            `k` is out of its range, or the metric looks deeper than `k`.
        LeakError: an image that is asked would also teach.
    """
    if not settings.protocol:
        return
    rule = check_judging(settings)
    assert rule is not None
    if not validation:
        raise InvalidInputError(
            f"[train.validate] names the protocol {rule.name!r}, so there must be scenes to validate on; there are none. "
            "Give fit(validation=…), or leave the protocol empty."
        )
    _check_metric(rule, settings, graded=all(labels is not None for _, labels in validation))
    check_no_leak(training, [scene for scene, _ in validation])
    answerable = [truth(scene, rule, labels).answerable.any() for scene, labels in validation]  # each scene is looked at
    if not any(answerable):
        names = ", ".join(scene.name for scene, _ in validation)
        raise InvalidInputError(f"No validation query has a positive under {rule.name} in {names}: every model would be worth the same.")


def check_judging(settings: ValidateSettings) -> Protocol | None:
    """Look at all of it that can be judged without scenes; returns the protocol, None where there is none.

    Raises:
        UnknownNameError: there is no such protocol, or the protocol has no such metric.
        InvalidInputError: `every` or `k` is out of its range, or the protocol compares windows of frames.
    """
    if not settings.protocol:
        return None
    rule = protocol(settings.protocol)
    if settings.every < 1 or settings.k < 1:
        raise InvalidInputError(f"[train.validate] every and k must be at least 1; got every = {settings.every}, k = {settings.k}.")
    if rule.windows != (1, 1):
        raise InvalidInputError(f"Validation compares image to image; the protocol {rule.name} compares windows of frames. Choose another.")
    _check_metric(rule, settings, graded=True)
    return rule


def _check_metric(rule: Protocol, settings: ValidateSettings, *, graded: bool) -> None:
    lacking = [] if graded else [name for name, needs in NEEDS.items() if "similarity" in needs]
    known = [f"{name}@{k}" for name in METRICS if name not in lacking for k in rule.ks]
    known += [name for name in POOLED if name != "AP" or rule.scope == "scene"]
    if settings.metric not in known:
        raise UnknownNameError(
            f"[train.validate] metric must be one of the protocol {rule.name}, the greater the better; got {settings.metric!r}. "
            f"{suggest(settings.metric, known)}{' Those of graded similarity need labels.' if lacking else ''}"
        )
    if (k := _depth_of(settings.metric)) is not None and k > settings.k:
        raise InvalidInputError(
            f"[train.validate] k, how many images are found, must be at least {k} for {settings.metric}; got {settings.k}."
        )


def _check_finite(model: PlaceModel) -> None:
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise TrainingDivergedError(
                f"The weights {name} are no longer finite, so there is nothing to validate. Lower the learning rate, or clip the gradient "
                "(gradient_clip = 1)."
            )


def _narrowed(rule: Protocol, settings: ValidateSettings) -> Protocol:
    """The protocol, asked for no more than the metric needs."""
    k = _depth_of(settings.metric)
    return dataclasses.replace(rule, ks=(k,) if k is not None else (1,))


def _depth_of(metric: str) -> int | None:
    """The k of `name@k`; None for a metric without.

    >>> _depth_of("recall@5"), _depth_of("recall@100%precision")
    (5, None)
    """
    found = re.fullmatch(r".+@(\d+)", metric)
    return int(found[1]) if found else None


def _labels(validation: Validation) -> list[Labels] | None:
    """One a scene, or None where a scene has none: then nothing graded is computed."""
    given = [labels for _, labels in validation if labels is not None]
    return given if len(given) == len(validation) else None


def _stacked(sides: Sequence[Descriptors]) -> NDArray[np.float32]:
    return np.concatenate([side.vectors for side in sides])


def worth(value: float) -> float:
    """By which values are compared: one that is not defined is worth least."""
    return -math.inf if math.isnan(value) else value
