"""What each location of a feature map adds to the descriptor, or to the similarity of two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from covis.attention.inputs import as_pixels, working
from covis.errors import InvalidInputError
from covis.models.aggregators import Features, NetVLAD
from covis.models.describers import Describer
from covis.models.place import PlaceModel
from covis.pixels import ImageLike

ADDS_UP = 0.01
"""What the locations of an aggregator add up to may differ from the whole by this share of it."""


def contributions(model: Describer, image: ImageLike, *, other: ImageLike | None = None) -> list[NDArray[np.float32]]:
    """The similarity of two descriptors, split over the locations of the first image's feature maps.

    With g the vector that the aggregator makes of the maps x_c(i), channels c and locations i, location i adds to it

        g(i) = Σ_c x_c(i) ∂g / ∂x_c(i).

    Where twice the features give twice the vector (average, GeM, maximum: Euler's theorem) Σ_i g(i) = g, exactly: g(i) is
    x(i) / N of the average, g_c x_c(i)^p / Σ_j x_c(j)^p of GeM, and g_c where the maximum lies. NetVLAD is a sum over locations by
    definition, and g(i) is what stands below its sums, divided by the norms of the whole. With v = W g + b the
    descriptor before its L2 norm (W and b of the projection, if there is one), location i adds

        c(i) = ⟨W g(i), w⟩ / (‖v‖ ‖w‖)

    where w is the other image's v, or v itself without one. Thus Σ_i c(i) is the cosine of the two descriptors (1
    without another), less what b adds, which belongs to no location. GeM leaves out what is below its eps.

    An aggregator of another kind (the class token, one's own) is none of these if its Σ_i g(i) is not g: then c(i) is the
    L2 norm of the features at i, and there is no split of a similarity.

    Args:
        model: a `PlaceModel`.
        image: a path, a uint8 array or a Pillow image.
        other: another, for the split of the similarity; absent, the image itself.

    Returns:
        one (height, width) float32 a level of feature maps, at its size, of either sign.

    Raises:
        InvalidInputError: the model is none of covis, or its aggregator does not add up over locations and `other` is given.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.
    """
    if not isinstance(model, PlaceModel):
        raise InvalidInputError(
            f"The method 'activation' looks inside a model of covis (a PlaceModel); got {type(model).__name__}. "
            "Take 'gradient' for another network of torch, or 'occlusion', which needs descriptors alone."
        )
    with working(model):
        features = _features(model, image)
        with torch.no_grad():
            mine = model.projection(model.aggregator(features))
            theirs = mine if other is None else model.projection(model.aggregator(_features(model, other)))
            target = F.normalize(theirs, dim=1) / mine.norm(dim=1, keepdim=True).clamp(min=1e-12)
        found = _split_netvlad(model, features, target) if isinstance(model.aggregator, NetVLAD) else _split(model, features, target)
    if found is None and other is not None:
        raise InvalidInputError(
            f"The method 'activation' splits the similarity of two images over locations; the aggregator {model.settings.aggregator!r} "
            "does not add up over locations. Take the method 'gradient' or 'occlusion' for what two images share."
        )
    levels = found if found is not None else [level.norm(dim=1)[0] for level in features.maps]
    return [level.float().cpu().numpy() for level in levels]


def _features(model: PlaceModel, image: ImageLike) -> Features:
    with torch.no_grad():
        found: Features = model.see(as_pixels(model, image))
    return found


def _split(model: PlaceModel, features: Features, target: torch.Tensor) -> list[torch.Tensor] | None:
    """Features times gradient, summed over channels; None where they do not add up to the vector."""
    leaves = [level.detach().requires_grad_() for level in features.maps]
    whole = model.aggregator(features._replace(maps=tuple(leaves)))
    own = _times_gradient((whole * whole.detach()).sum(), leaves)
    strength = float(whole.detach().square().sum())
    if abs(sum(float(level.sum()) for level in own) - strength) > ADDS_UP * strength:
        return None
    return _times_gradient((model.projection(whole) * target).sum(), leaves)


def _times_gradient(scalar: torch.Tensor, leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not scalar.requires_grad:  # the aggregator takes the class token alone
        return [torch.zeros_like(leaf[0, 0]) for leaf in leaves]
    slopes = torch.autograd.grad(scalar, list(leaves), retain_graph=True, allow_unused=True, materialize_grads=True)
    return [(leaf * slope).sum(dim=1)[0].detach() for leaf, slope in zip(leaves, slopes, strict=True)]


@torch.no_grad()
def _split_netvlad(model: PlaceModel, features: Features, target: torch.Tensor) -> list[torch.Tensor]:
    """Σ_k a_k(x_i) ⟨x_i - c_k, t_k⟩, with t the target seen from before both normalisations."""
    aggregator = model.aggregator
    assert isinstance(aggregator, NetVLAD)
    local = F.normalize(features.maps[-1], dim=1, eps=1e-6)
    weights = aggregator.assign(local).flatten(2).softmax(dim=1)[0]  # (clusters, locations)
    local = local.flatten(2)[0]  # (channels, locations)
    sums = weights @ local.T - weights.sum(dim=1, keepdim=True) * aggregator.centroids
    norms = sums.norm(dim=1, keepdim=True).clamp(min=1e-6)
    if not isinstance(model.projection, torch.nn.Identity):
        target = target @ model.projection.weight  # type: ignore[operator] # a Linear's is a tensor
    wanted = target.reshape(sums.shape) / norms / (sums / norms).norm()
    added = weights * (wanted @ local - (wanted * aggregator.centroids).sum(dim=1, keepdim=True))
    return [added.sum(dim=0).reshape(features.maps[-1].shape[-2:])]
