"""Aggregators: from feature maps to one vector an image.

An aggregator is `(channels, *, …) -> Module` with `.dim`; it is called with `Features` and returns (B, dim). A built-in
is a class here and a line in `AGGREGATORS`; one's own is `package.module:Class` in the recipe. One that starts from data
has `initialise(features, *, seed)` too, one that needs a class token says `needs_token = True`, and one that looks at the masks
of a network that reads label maps says `needs_masks = True`: others get none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import nn
from torch.nn import functional as F

from covis.errors import InvalidInputError
from covis.models.features import Features
from covis.models.label_features import LabelFeatures

__all__ = ["AGGREGATORS", "NEEDS_A_TOKEN", "Average", "Features", "GeM", "LabelFeatures", "Max", "MultiLevel", "NetVLAD", "Token"]


class Average(nn.Module):
    """Mean over the positions of the last map.

    Args:
        channels: of the maps that the backbone gives.

    >>> Average((2,))(Features((torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]),))).tolist()
    [[2.0, 2.0]]
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = channels[-1]

    def forward(self, features: Features) -> torch.Tensor:
        """(B, channels) from the last map."""
        return features.maps[-1].mean(dim=(-2, -1))


class Max(nn.Module):
    """Maximum over the positions of the last map (MAC); positions that share it share its gradient.

    Tolias, Sicre, Jégou: "Particular Object Retrieval with Integral Max-Pooling of CNN Activations", ICLR 2016.

    Args:
        channels: of the maps that the backbone gives.

    >>> Max((2,))(Features((torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]),))).tolist()
    [[3.0, 2.0]]
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = channels[-1]

    def forward(self, features: Features) -> torch.Tensor:
        """(B, channels) from the last map."""
        return features.maps[-1].amax(dim=(-2, -1))


class GeM(nn.Module):
    """Generalised mean over the positions of the last map: mean(clamp(x, eps)^p)^(1/p), p learnable.

    p = 1 is the average, p to infinity the maximum. Radenović, Tolias, Chum: "Fine-tuning CNN Image Retrieval with No
    Human Annotation", TPAMI 2019.

    Args:
        channels: of the maps that the backbone gives.
        p: the exponent at the start, > 0.
        eps: activations below it count as it, > 0.

    Raises:
        InvalidInputError: `p` or `eps` is not above 0.

    >>> pool = GeM((2,), p=1.0)
    >>> pool.dim, pool(Features((torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]]),))).tolist()
    (2, [[2.0, 2.0]])
    """

    def __init__(self, channels: tuple[int, ...], *, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if not p > 0 or not eps > 0:
            raise InvalidInputError(f"GeM's exponent and eps must be above 0; got p={p}, eps={eps}.")
        self.dim = channels[-1]
        self.eps = eps
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, features: Features) -> torch.Tensor:
        """(B, channels) from the last map."""
        powers = features.maps[-1].clamp(min=self.eps).pow(self.p)
        return powers.mean(dim=(-2, -1)).pow(1 / self.p)


class MultiLevel(nn.Module):
    """Every map pooled, each divided by its L2 norm, one after the other: the levels of a network count alike.

    StructVPR, CVPR 2023: three maps of MobileNetV2, at strides 8, 16 and 32 (`levels = [2, 3, 4]`), give 32 + 96 + 320 = 448
    dimensions. That is pieced together from its poster; the pooling, which no source gives, is our choice. Of one map it is
    that map's pooling, normalised.

    Args:
        channels: of the maps that the backbone gives.
        pool: "gem", with an exponent of its own for each level; "average"; or "max".
        p: GeM's exponents at the start, > 0.

    Raises:
        InvalidInputError: there is no such pooling, or `p` is not above 0.

    >>> MultiLevel((32, 96, 320)).dim
    448
    >>> maps = (torch.ones(1, 1, 4, 4), torch.tensor([[[[3.0]], [[4.0]]]]))
    >>> [round(value, 4) for value in MultiLevel((1, 2), pool="average")(Features(maps))[0].tolist()]
    [1.0, 0.6, 0.8]
    """

    def __init__(self, channels: tuple[int, ...], *, pool: Literal["gem", "average", "max"] = "gem", p: float = 3.0) -> None:
        super().__init__()
        pools: dict[str, Callable[[int], nn.Module]] = {
            "gem": lambda one: GeM((one,), p=p),
            "average": lambda one: Average((one,)),
            "max": lambda one: Max((one,)),
        }
        if pool not in pools:
            raise InvalidInputError(f"The pooling of levels must be one of {', '.join(pools)}; got {pool!r}.")
        self.dim = sum(channels)
        self.pools = nn.ModuleList([pools[pool](one) for one in channels])

    def forward(self, features: Features) -> torch.Tensor:
        """(B, sum of channels), level by level."""
        return torch.cat([_unit(pool(Features((one,))), dim=1) for pool, one in zip(self.pools, features.maps, strict=True)], dim=1)


NEEDS_A_TOKEN = 'a backbone with a class token (a vision transformer: "dinov2-small")'


class Token(nn.Module):
    """The class token of a transformer. Dosovitskiy et al.: "An Image Is Worth 16x16 Words", ICLR 2021.

    Args:
        channels: of the maps that the backbone gives; the token has as many as the last.

    >>> Token((2,))(Features((torch.zeros(1, 2, 3, 3),), torch.tensor([[1.0, 2.0]]))).tolist()
    [[1.0, 2.0]]
    """

    needs_token = True

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = channels[-1]

    def forward(self, features: Features) -> torch.Tensor:
        """(B, channels), the token.

        Raises:
            InvalidInputError: the backbone has none.
        """
        if features.token is None:
            raise InvalidInputError(f"The aggregator 'token' needs {NEEDS_A_TOKEN}; this one gives feature maps alone.")
        return features.token


class NetVLAD(nn.Module):
    """Residuals to cluster centres, summed under a soft assignment that is learned.

    With local descriptors x_i (the positions of the last map, each divided by its L2 norm) and centres c_k,

        a_k(x) = softmax_k(w_k · x + b_k),    V_k = Σ_i a_k(x_i) (x_i - c_k),

    each V_k divided by its L2 norm (intra-normalisation), then all of them, one after the other, by theirs. w, b and c
    are learned apart from one another; they start at w_k = 2 α c_k, b_k = -α ‖c_k‖², so that a_k is proportional to
    exp(-α ‖x - c_k‖²). Arandjelović, Gronat, Torii, Pajdla, Sivic: "NetVLAD: CNN Architecture for Weakly Supervised Place
    Recognition", CVPR 2016.

    Args:
        channels: of the maps that the backbone gives.
        clusters: how many centres, at least 1.
        alpha: how hard the assignment is at the start, > 0. Absent: 100 with random centres, and `initialise` takes what
            makes the largest weight about 100 times the second, as the paper does.

    Attributes:
        initialised: whether the centres come from data (a buffer, stored with the weights).

    Raises:
        InvalidInputError: `clusters` or `alpha` is out of range.

    >>> NetVLAD((8,), clusters=4).dim
    32
    """

    def __init__(self, channels: tuple[int, ...], *, clusters: int = 64, alpha: float | None = None) -> None:
        super().__init__()
        if clusters < 1 or (alpha is not None and not 0 < alpha < math.inf):
            raise InvalidInputError(f"NetVLAD needs at least 1 cluster and an alpha above 0; got clusters={clusters}, alpha={alpha}.")
        self.dim = clusters * channels[-1]
        self.alpha = alpha
        self.assign = nn.Conv2d(channels[-1], clusters, kernel_size=1)
        self.centroids = nn.Parameter(torch.empty(clusters, channels[-1]))
        self.initialised: torch.Tensor
        self.register_buffer("initialised", torch.tensor(False))  # noqa: FBT003 - a tensor's value
        self._start(F.normalize(torch.randn(clusters, channels[-1])), 100.0 if alpha is None else alpha)

    def forward(self, features: Features) -> torch.Tensor:
        """(B, clusters * channels), cluster by cluster, from the last map."""
        local = _unit(features.maps[-1], dim=1)
        weights = self.assign(local).flatten(2).softmax(dim=1)  # (B, clusters, positions)
        sums = weights @ local.flatten(2).transpose(1, 2)
        residuals = sums - weights.sum(dim=2, keepdim=True) * self.centroids
        return _unit(_unit(residuals, dim=2).flatten(1), dim=1)

    def initialise(self, features: Iterator[Features], *, seed: int) -> None:
        """Put the centres where the local descriptors of images gather (k-means, started by k-means++).

        Args:
            features: of some images, a batch at a time; up to 100 positions of each image are drawn.
            seed: of the positions and of k-means.

        Raises:
            InvalidInputError: there are fewer different local descriptors than clusters.
        """
        rng = np.random.default_rng(seed)
        clusters = len(self.centroids)
        local = np.concatenate([np.zeros((0, self.dim // clusters), np.float32), *(_drawn(one.maps[-1], rng) for one in features)])
        different = len(np.unique(local, axis=0))
        if different < clusters:
            raise InvalidInputError(
                f"NetVLAD with {clusters} clusters must start from at least as many different local descriptors; "
                f"the images give {different}. Give more images, or fewer clusters."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")  # it stays where it was
            centroids, _ = kmeans2(local, clusters, iter=25, minit="++", seed=rng)
        self._start(torch.from_numpy(np.float32(centroids)), _hardness(local, centroids) if self.alpha is None else self.alpha)
        self.initialised.fill_(True)  # noqa: FBT003 - a tensor's value

    @torch.no_grad()
    def _start(self, centroids: torch.Tensor, alpha: float) -> None:
        self.centroids.copy_(centroids)
        assert self.assign.bias is not None
        self.assign.weight.copy_(2 * alpha * centroids[:, :, None, None])
        self.assign.bias.copy_(-alpha * centroids.square().sum(dim=1))


def _unit(vectors: torch.Tensor, *, dim: int) -> torch.Tensor:
    # Near zero the gradient of x / ‖x‖ explodes; a cluster to which nothing is assigned has such a residual.
    return F.normalize(vectors, dim=dim, eps=1e-6)


def _drawn(maps: torch.Tensor, rng: np.random.Generator, *, each: int = 100) -> NDArray[np.float32]:
    """Up to `each` unit local descriptors of each image, (n, channels)."""
    local = _unit(maps.float(), dim=1).flatten(2).transpose(1, 2).cpu().numpy()
    return np.concatenate([image[rng.permutation(len(image))[:each]] for image in local])


def _hardness(local: NDArray[np.float32], centroids: NDArray[np.floating[Any]]) -> float:
    """The alpha with which the largest weight is, on the (geometric) average, 100 times the second largest."""
    if len(centroids) == 1:
        return 100.0
    distances = (local**2).sum(axis=1)[:, None] - 2 * local @ centroids.T + (centroids**2).sum(axis=1)
    nearest = np.partition(distances, 1, axis=1)[:, :2]
    return math.log(100) / max(float((nearest[:, 1] - nearest[:, 0]).mean()), 1e-4)


AGGREGATORS: dict[str, Callable[..., Any]] = {
    "average": Average,
    "gem": GeM,
    "label-features": LabelFeatures,
    "max": Max,
    "multi-level": MultiLevel,
    "netvlad": NetVLAD,
    "token": Token,
}
"""Name -> aggregator: `(channels: tuple[int, ...], *, …) -> Module` with `.dim`."""
