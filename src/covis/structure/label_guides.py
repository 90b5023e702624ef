"""Label guides: training drawn to a teacher's label features and to label maps, by the losses of `label_losses`. OUR OWN DESIGN."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from covis.errors import CovisError, InvalidInputError
from covis.files import digest
from covis.models.label_features import LabelFeatures
from covis.pairs import Pairs
from covis.structure.label_losses import feature_size, label_distillation, mask_loss

if TYPE_CHECKING:
    from covis.models.place import PlaceModel
    from covis.structure.distillation import Distillation


class MaskRecorder:
    """Keeps the logits of a model's predicted masks, forward call by forward call, while it learns.

    Calls in eval mode or without gradients (validation, mining) are not recorded. The model is not changed but for a hook, which
    `remove` takes away; a copy of the model, or a pickled one, has a hook that does nothing.

    Args:
        model: with the aggregator `LabelFeatures`.

    Raises:
        InvalidInputError: the model has another aggregator.
    """

    def __init__(self, model: nn.Module) -> None:
        aggregator = getattr(model, "aggregator", None)
        if not isinstance(aggregator, LabelFeatures):
            raise InvalidInputError(
                f"Predicted masks are those of the aggregator 'label-features'; the model has {type(aggregator).__name__}."
            )
        self._hook = _Hook()
        self._handle = aggregator.classify.register_forward_hook(self._hook)

    def take(self) -> list[torch.Tensor]:
        """The logits (B, C, h, w) of each call since the last `take`, in order."""
        taken, self._hook.calls = self._hook.calls, []
        return taken

    def remove(self) -> None:
        """Record no longer, and forget."""
        self._handle.remove()
        self._hook.calls = []


class _Hook:
    """Notes what a module gives; a copy of it is `_nothing`, so that copies of a model are free of it."""

    def __init__(self) -> None:
        self.calls: list[torch.Tensor] = []

    def __call__(self, module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if module.training and torch.is_grad_enabled():
            self.calls.append(output)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _idle, ()


def _idle() -> Any:
    return _nothing


def _nothing(_module: nn.Module, _inputs: Any, _output: torch.Tensor) -> None:
    """A hook that does nothing."""


def label_strengths(*, eta: float = 1.0, whole: float = 1.0, labels: float = 1.0) -> dict[str, float]:
    """How much each part of the label losses counts, by name: the options of 'label-features', after a look at them.

    Args:
        eta: the cross-entropy, >= 0.
        whole: lambda_g, >= 0.
        labels: lambda_l, >= 0.

    Raises:
        InvalidInputError: one is no finite number, at least 0.

    >>> label_strengths(eta=2)
    {'eta': 2.0, 'whole': 1.0, 'labels': 1.0}
    """
    found = {name: _number(value) for name, value in (("eta", eta), ("whole", whole), ("labels", labels))}
    if wrong := {name: value for name, value in found.items() if not isinstance(value, float) or not 0 <= value < math.inf}:
        raise InvalidInputError(f"The weights of label losses must be finite numbers >= 0; got {wrong}.")
    return found


def _number(value: Any) -> Any:
    """A number as a float; what is none stays as it is, and is refused."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return float(value) if number and abs(value) <= sys.float_info.max else value


class LabelGuide:
    """A guide of training: a teacher's label features, weighted pair by pair, and cross-entropy against label maps. Our own design.

    To the loss of item i it adds

        strength w_i Σ (lambda_g ||g - g_T||² + lambda_l Σ_c a_c,T ||v_c - v_c,T||²) + eta CE(A, label map),

    the sum over the query and its positive (and, with `negatives` of the distillation, the mean over the negatives), CE the mean over all
    images of the item. The strength does not multiply the cross-entropy: with strength 0 the label maps still teach the masks; eta = 0
    leaves them out. Masks do not move with the picture: training that mirrors images (`augment.mirror`) is refused.

    Args:
        distillation: w, strength and the teacher's targets, of `covis.structure.distillation`; absent: cross-entropy alone.
        masks: of each scene, (queries, database) as `feature_masks` gives them; of a training scene one array twice.
        eta: how much the cross-entropy counts, >= 0.
        whole: lambda_g, >= 0.
        labels: lambda_l, >= 0.

    Attributes:
        digest: a hash of all that decides a value (16 hex digits).
        upright: True: the pictures that teach must lie as their label maps do.

    Raises:
        InvalidInputError: a weight is below 0 or not finite, or the masks are not of one form.
    """

    upright = True

    def __init__(
        self,
        distillation: Distillation | None,
        masks: Sequence[tuple[NDArray[Any], NDArray[Any]]],
        *,
        eta: float = 1.0,
        whole: float = 1.0,
        labels: float = 1.0,
    ) -> None:
        settings = label_strengths(eta=eta, whole=whole, labels=labels)
        forms = sorted({one.shape[1:] for sides in masks for one in sides})
        if len(forms) != 1 or len(forms[0]) != 3:
            raise InvalidInputError(f"The masks of all scenes must be (n, C, h, w) with one C, h and w; got {forms}.")
        if distillation is not None and len(distillation.targets) != len(masks):
            raise InvalidInputError(
                f"Masks and targets must be of the same scenes; got masks of {len(masks)} and targets of {len(distillation.targets)}."
            )
        self.distillation, self.masks = distillation, tuple(masks)
        self.form: tuple[int, ...] = forms[0]
        self.eta, self.whole, self.labels = settings.values()
        self.digest = digest(
            {
                "label losses": settings,
                "distillation": None if distillation is None else distillation.digest,
                "masks": [[_hash(one) for one in sides] for sides in masks],
            }
        )
        self._recorder: MaskRecorder | None = None
        self._options: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recorder": None, "_options": {}}  # each process, and each copy, attaches its own

    def __deepcopy__(self, memo: dict[int, Any]) -> LabelGuide:
        copied = object.__new__(LabelGuide)
        memo[id(self)] = copied
        copied.__dict__.update(self.__getstate__())  # the arrays, which nothing changes, are shared
        return copied

    def attach(self, model: PlaceModel) -> None:
        """Begin to record what the network predicts; one network at a time.

        Raises:
            InvalidInputError: it has no label features, or a projection after them, or masks of another number or size; or the
                distillation refuses it.
        """
        self.detach()
        recorder = MaskRecorder(model)
        aggregator = model.aggregator
        assert isinstance(aggregator, LabelFeatures)
        try:
            if model.encoder is not None:
                raise InvalidInputError(
                    "Masks are predicted from photographs; a network that reads label maps has them. Guide the student."
                )
            if model.settings.projection:
                raise InvalidInputError(
                    "Label features are taken out of the descriptor, so nothing may stand after them; set projection to 0."
                )
            predicted = (aggregator.classes, *feature_size(model))
            if predicted != self.form:
                raise InvalidInputError(
                    "The masks must have the classes and the size of what the network predicts, (C, h, w) = "
                    f"{predicted}; got {self.form}. Make them with feature_masks(paths, encoding, feature_size(model))."
                )
            if self.distillation is not None:
                self.distillation.attach(model)
        except CovisError:
            recorder.remove()
            raise
        self._recorder = recorder
        self._options = {"classes": aggregator.classes, "mu": aggregator.mu, "weights": aggregator.weights}

    def detach(self) -> None:
        """Let go of the network."""
        if self._recorder is not None:
            self._recorder.remove()
        self._recorder, self._options = None, {}

    def loss(self, pairs: Pairs, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What is added to the loss of each item.

        Args:
            pairs: the P items, whose images the network saw just now: the queries, then the database images item by item, in one
                forward call or in several.
            a: (P, D) the student's descriptors of the queries.
            b: (P, D), or (P, 1 + N, D) of lists.

        Returns:
            (P,) on the device of `a`.

        Raises:
            InvalidInputError: no network is attached, or it saw other images.
        """
        surprise = self._surprise(pairs).to(a)
        return self._drawn(pairs, a, b) + self.eta * surprise

    def _surprise(self, pairs: Pairs) -> torch.Tensor:
        """(P,) the mean cross-entropy of each item's images."""
        calls = self._recorder.take() if self._recorder is not None else []
        images = len(pairs) + pairs.database.size
        if sum(map(len, calls)) != images:
            raise InvalidInputError(
                f"A label guide must be attached to the network that learns, and asked after each of its steps; the {len(pairs)} items "
                f"have {images} images, and the network saw {sum(map(len, calls))} since it was last asked."
            )
        true = np.empty((images, *self.form), dtype=np.float32)
        scene = np.concatenate([pairs.scene, np.repeat(pairs.scene, pairs.database.size // max(len(pairs), 1))])
        rows = np.concatenate([pairs.query, pairs.database.reshape(-1)])
        side = np.arange(images) >= len(pairs)
        for one, other in {(int(s), int(d)) for s, d in zip(scene, side, strict=True)}:
            here = (scene == one) & (side == other)
            true[here] = self.masks[one][other][rows[here]]
        losses = mask_loss(torch.cat(calls), torch.from_numpy(true)) if calls else torch.zeros(0)
        first, others = losses.tensor_split([len(pairs)])
        return torch.cat([first[:, None], others.reshape(len(pairs), -1)], dim=1).mean(dim=1)

    def _drawn(self, pairs: Pairs, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(P,) the weighted distillation; items of weight 0 have no gradient."""
        found = a.new_zeros(len(pairs))
        if self.distillation is None:
            return found
        weight = self.distillation.strength * self.distillation.weight(pairs)
        kept = np.flatnonzero(weight)
        if not kept.size:
            return found
        count = 1 if pairs.database.ndim == 1 or not self.distillation.negatives else pairs.database.shape[1]
        database = pairs.database.reshape(len(pairs), -1)[kept, :count]
        rows = torch.from_numpy(kept).to(a.device)
        queries = self._apart(a[rows], self._targets(0, pairs.scene[kept], pairs.query[kept]))
        others = self._apart(b.reshape(len(pairs), -1, a.shape[1])[rows, :count], self._targets(1, pairs.scene[kept], database))
        values = queries + others[:, 0] + (others[:, 1:].mean(dim=1) if count > 1 else 0)
        return found.index_copy(0, rows, torch.from_numpy(weight[kept]).to(a) * values)

    def _apart(self, student: torch.Tensor, teacher: NDArray[np.float32]) -> torch.Tensor:
        return label_distillation(student, torch.from_numpy(teacher).to(student), **self._options, whole=self.whole, labels=self.labels)

    def _targets(self, side: int, scene: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The teacher's descriptors of these rows, (*rows.shape, D)."""
        assert self.distillation is not None
        found = np.empty((*rows.shape, self.distillation.dim), dtype=np.float32)
        for one in np.unique(scene):
            here = scene == one
            found[here] = self.distillation.targets[one][side][rows[here]]
        return found


def _hash(masks: NDArray[Any]) -> str:
    found = hashlib.sha256(f"{masks.dtype} {masks.shape}".encode())
    for start in range(0, len(masks), 256):
        found.update(np.ascontiguousarray(masks[start : start + 256]).data)
    return found.hexdigest()
