"""Label features: a descriptor of a whole image and of each class in it, so that like is compared with like. OUR OWN DESIGN.

StructVPR++ (TPAMI 2025, arXiv 2503.06601) says that label features are taken apart from the global descriptor, so that two images are
aligned by meaning without segmentation when it is used. Its formulas were not at hand, and no code is published. What stands here is a
design of ours after that idea, and no claim about theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from covis.errors import InvalidInputError
from covis.models.features import Features

_ABSENT = 1e-12  # a class with a smaller share of the image is not there: the root's gradient would have no bound
_LEAST = 1e-30  # of a mean of powers, for the same reason
_EPS = 1e-6  # of a norm


class LabelFeatures(nn.Module):
    """The whole image's descriptor, and one of each class, scaled by how much of the image the class has. Our own design.

    With F the last map (D channels), C classes, and A_c(i) how much of class c is at position i,

        A = softmax_c(1 x 1 convolution of F)          predicted; of a label map instead, as it is
        g = L2(GeM(F)),  v_c = L2((Σ_i A_c(i) max(F(i), ε)^p / Σ_i A_c(i))^(1/p)),  a_c = mean_i A_c(i)
        descriptor = [g, sqrt(mu w_c a_c) v_c for each c]

    so that the inner product of two descriptors is

        score(q, r) = g_q · g_r + mu Σ_c w_c sqrt(a_c(q) a_c(r)) v_c(q) · v_c(r):

    a class that one of the two does not show drops out, and an ordinary index serves. With all weights w alike and Σ a_c = 1 (always so
    of predicted masks) every descriptor has the norm sqrt(1 + mu w): L2-normalised ones rank exactly as the score does. With
    unequal weights, or label maps with pixels of no class, normalising makes a cosine of it, which is not the score.

    It has the parameters of GeM and those of the 1 x 1 convolution, (D + 1) C: 1926 for D = 320 and C = 6. Where `Features` has masks
    (of a network that reads label maps) those are taken, averaged over the area of each position, and the convolution is not
    used. Without a loss on it (`covis.structure.label_losses`) nothing says that a predicted class means what its name says.

    Args:
        channels: of the maps that the backbone gives.
        classes: C, at least 1.
        mu: how much classes count beside the whole, >= 0.
        weights: w, one a class, >= 0; absent: 1 each.
        pool: "gem", or "average" (p = 1 and no clamping; nothing learned).
        p: the exponent at the start, > 0, learned; one for the whole and the classes.

    Attributes:
        dim: D (1 + C).
        needs_masks: a network that reads label maps hands over its masks.
        classify: the 1 x 1 convolution.

    Raises:
        InvalidInputError: an option is out of its range.

    >>> LabelFeatures((320,)).dim, sum(one.numel() for one in LabelFeatures((320,)).classify.parameters())
    (2240, 1926)
    """

    needs_masks = True

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        classes: int = 6,
        mu: float = 1.0,
        weights: Sequence[float] | None = None,
        pool: Literal["gem", "average"] = "gem",
        p: float = 3.0,
    ) -> None:
        super().__init__()
        if classes < 1 or not 0 <= mu < math.inf or not 0 < p < math.inf or pool not in ("gem", "average"):
            raise InvalidInputError(
                "Label features need at least 1 class, mu >= 0, p > 0, and pool 'gem' or 'average'; "
                f"got classes={classes}, mu={mu}, p={p}, pool={pool!r}."
            )
        self.dim = channels[-1] * (1 + classes)
        self.classes, self.mu = classes, float(mu)
        self.weights = tuple(float(one) for one in (weights if weights is not None else [1.0] * classes))
        if len(self.weights) != classes or not all(0 <= one < math.inf for one in self.weights):
            raise InvalidInputError(f"The weights of label features must be {classes} finite numbers >= 0, one a class; got {weights}.")
        self.classify = nn.Conv2d(channels[-1], classes, kernel_size=1)
        self.p = nn.Parameter(torch.tensor(float(p))) if pool == "gem" else None
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.tensor(self.weights).mul(self.mu).sqrt(), persistent=False)

    def forward(self, features: Features) -> torch.Tensor:
        """(B, D (1 + classes)) from the last map, and from `features.masks` where they are.

        Raises:
            InvalidInputError: the masks are of another number of classes.
        """
        level = features.maps[-1]
        logits = self.classify(level) if features.masks is None else None
        with torch.autocast(level.device.type, enabled=False):  # powers overflow half precision
            level = level.float()
            masks = self._shown(features.masks, level) if logits is None else logits.float().softmax(dim=1)
            whole, parts = self._pooled(level, masks.flatten(2))
            shares = masks.mean(dim=(-2, -1))
            present = shares.clamp(min=_ABSENT).sqrt() * (shares > _ABSENT)
            scaled = (self.scale * present)[..., None] * _unit(parts)
            return torch.cat([_unit(whole), scaled.flatten(1)], dim=1)

    def _shown(self, masks: torch.Tensor | None, level: torch.Tensor) -> torch.Tensor:
        """The masks of label maps, (B, C, H, W), at the size of the feature map."""
        assert masks is not None
        if masks.shape[:2] != (len(level), self.classes):
            raise InvalidInputError(
                f"Label features of {self.classes} classes must get as many masks; got {masks.shape[1]}. "
                "Set the aggregator's option `classes` to the number of channels of the encoding."
            )
        return F.adaptive_avg_pool2d(masks.float(), (level.shape[-2], level.shape[-1]))

    def _pooled(self, level: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, D) of all positions and (B, C, D) of each class's."""
        powers = (level if self.p is None else level.clamp(min=_EPS).pow(self.p)).flatten(2)
        whole = powers.mean(dim=2)
        parts = (masks / masks.sum(dim=2, keepdim=True).clamp(min=_ABSENT)) @ powers.transpose(1, 2)
        if self.p is None:
            return whole, parts
        return whole.clamp(min=_LEAST).pow(1 / self.p), parts.clamp(min=_LEAST).pow(1 / self.p)


class LabelParts(NamedTuple):
    """A stored descriptor, taken apart.

    Attributes:
        whole: (..., D), g, of norm 1.
        labels: (..., C, D), v_c, of norm 1; 0 where the class is absent.
        shares: (..., C), a_c, in [0, 1]; 0 where the class has no weight: it is not stored.
    """

    whole: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor


def take_apart(vectors: torch.Tensor, *, classes: int, mu: float = 1.0, weights: Sequence[float] | None = None) -> LabelParts:
    """g, v_c and a_c of descriptors that `LabelFeatures` made, whether or not they were L2-normalised since. Our own design.

    Args:
        vectors: (..., D (1 + classes)), without a projection.
        classes: C, as the aggregator has it.
        mu: as the aggregator has it.
        weights: as the aggregator has them.

    Raises:
        InvalidInputError: the dimensions are not a multiple of 1 + classes.

    >>> parts = take_apart(torch.tensor([[0.6, 0.8, 0.0, 0.5]]) / 2, classes=1)
    >>> parts.labels.tolist(), parts.shares.tolist()
    ([[[0.0, 1.0]]], [[0.25]])
    """
    if classes < 1 or vectors.shape[-1] % (1 + classes):
        raise InvalidInputError(
            f"A descriptor of label features must have a multiple of 1 + classes = {1 + classes} dimensions; got {vectors.shape[-1]}. "
            "Give the classes of the aggregator that made it, and no projection."
        )
    blocks = vectors.reshape(*vectors.shape[:-1], 1 + classes, -1)
    whole, labels = blocks[..., 0, :], blocks[..., 1:, :]
    scale = mu * torch.tensor([1.0] * classes if weights is None else list(weights)).to(vectors)
    ratio = labels.square().sum(dim=-1) / whole.square().sum(dim=-1, keepdim=True).clamp(min=_ABSENT)
    shares = torch.where(scale > 0, ratio / scale.clamp(min=_ABSENT), 0.0)
    return LabelParts(_unit(whole), _unit(labels), shares)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return F.normalize(vectors, dim=-1, eps=_EPS)
