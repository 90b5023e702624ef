"""Label losses: what teaches label features, from a teacher's descriptors and from label maps. OUR OWN DESIGN.

The formulas of StructVPR++ (TPAMI 2025) were not at hand. These losses go with `covis.models.label_features`, a design of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from covis.errors import InvalidInputError
from covis.models.label_features import take_apart
from covis.rasters import read_label_map

if TYPE_CHECKING:
    from pathlib import Path

    from covis.models.place import PlaceModel
    from covis.semantics.encodings import Encoding


def label_distillation(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    classes: int,
    mu: float = 1.0,
    weights: Sequence[float] | None = None,
    whole: float = 1.0,
    labels: float = 1.0,
) -> torch.Tensor:
    """lambda_g ||g - g_T||² + lambda_l Σ_c a_c,T ||v_c - v_c,T||², of descriptors with label features. Our own design.

    Both are taken apart first, so that it makes no difference whether they were L2-normalised as a whole. Each norm is of unit vectors:
    in [0, 4]. How much a class counts is the teacher's share of it; no gradient reaches the teacher. A class that the teacher does not
    show, or that has no weight, teaches nothing.

    Args:
        student: (..., D (1 + classes)), as `LabelFeatures` gives it.
        teacher: of the same shape.
        classes: C.
        mu: as in `LabelFeatures`, > 0; with 0 the classes are not in the descriptor, and only g is distilled.
        weights: as in `LabelFeatures`.
        whole: lambda_g, >= 0.
        labels: lambda_l, >= 0.

    Returns:
        (...) one value a descriptor, in [0, 4 (lambda_g + lambda_l)].

    Raises:
        InvalidInputError: the shapes differ, or are not those of label features.

    >>> one, other = torch.tensor([1.0, 0.0, 0.5, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.5])
    >>> float(label_distillation(one, other, classes=1)), float(label_distillation(one, other, classes=1, labels=0))
    (2.5, 2.0)
    """
    if student.shape != teacher.shape:
        raise InvalidInputError(
            f"A student of label features must have its teacher's dimensions; got {tuple(student.shape)} and {tuple(teacher.shape)}. "
            "Give both the same aggregator and options."
        )
    own = take_apart(student, classes=classes, mu=mu, weights=weights)
    target = take_apart(teacher.detach(), classes=classes, mu=mu, weights=weights)
    apart = (target.shares * (own.labels - target.labels).square().sum(dim=-1)).sum(dim=-1)
    return whole * (own.whole - target.whole).square().sum(dim=-1) + labels * apart


def mask_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of predicted label masks against true ones, the mean over what is labelled of each image. Our own design.

    With t_c(i) the share of class c at position i and A = softmax_c(logits): - Σ_i Σ_c t_c(i) log A_c(i) / Σ_i Σ_c t_c(i). Positions
    of no class do not count; an image without any has the value 0.

    Args:
        logits: (B, C, h, w), before the softmax.
        masks: (B, C, h, w), >= 0, at most 1 in sum over c.

    Returns:
        (B,) >= 0, in nats; log C where every class is as likely as another.

    Raises:
        InvalidInputError: the shapes differ.

    >>> sky = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    >>> round(float(mask_loss(torch.zeros(1, 2, 1, 1), sky)), 4)
    0.6931
    """
    if logits.shape != masks.shape or logits.ndim != 4:
        raise InvalidInputError(
            f"Predicted and true masks must both be (B, C, h, w); got {tuple(logits.shape)} and {tuple(masks.shape)}. "
            "Make the true ones with feature_masks at the size that feature_size gives."
        )
    masks = masks.to(logits.device).float()
    surprise = -(masks * logits.float().log_softmax(dim=1)).sum(dim=(1, 2, 3))
    return surprise / masks.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def feature_size(model: PlaceModel) -> tuple[int, int]:
    """(h, w) of the map from which a model's label features are read, for images of the model's size."""
    from covis.models.place import evaluating

    channels = model.backbone.channels_in
    image = torch.zeros((1, channels, model.settings.height, model.settings.width), device=model.device)
    with evaluating(model), torch.no_grad():
        level = model.backbone(image).maps[-1]
    return int(level.shape[-2]), int(level.shape[-1])


def feature_masks(paths: Sequence[str | Path], encoding: Encoding, size: tuple[int, int]) -> NDArray[np.float16]:
    """Label maps as shares of each channel at each position of a feature map: the area that the channel has there.

    Args:
        paths: label maps, of any size.
        encoding: which channel each number belongs to; its weights are not multiplied in.
        size: (h, w) of the feature map, as `feature_size` gives it.

    Returns:
        (n, C, h, w) float16, in [0, 1], rounded to 5e-4; at each position at most 1 in sum, the rest being of no channel.

    Raises:
        MissingFileError: a map is not there.
        DamagedFileError: a map does not decode, or is none.
        InvalidInputError: a map has a number that the numbering does not have.
    """
    found = np.empty((len(paths), len(encoding), *size), dtype=np.float16)
    for row, path in enumerate(paths):
        numbers = read_label_map(path)
        if (strange := np.unique(numbers[~encoding.known[numbers]])).size:
            raise InvalidInputError(
                f"Every number of a label map must be one of the numbering's classes; {path} has {strange[:6].tolist()}. "
                "Name the numbering that the maps were made with."
            )
        channels = torch.from_numpy(encoding.lookup.astype(np.int64)[numbers])
        for channel in range(len(encoding)):
            shown = (channels == channel).float()[None, None]
            found[row, channel] = F.adaptive_avg_pool2d(shown, size)[0, 0].numpy()
    return found
