"""Losses: pure functions of descriptors and their similarity, one value an item; whoever calls them reduces.

An item is a pair, (D,) with (D,), or a list: a query's (D,) with its positive and its negatives, (1 + N, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from covis.errors import InvalidInputError
from covis.labels import TIE
from covis.metric_learning import metric_learning

EPS = 1e-6
"""Added to each component of the difference before its norm, as in the reference implementation."""


def generalized_contrastive(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor, *, margin: float = 0.5) -> torch.Tensor:
    """Generalized contrastive loss: ½ ψ d² + ½ (1 − ψ) max(τ − d, 0)².

    d is the distance of the two descriptors, ψ their graded similarity and τ the margin. With ψ in {0, 1} it is the
    contrastive loss. Below the margin it is least-squares regression of d on τ (1 − ψ), so its least value for graded
    pairs is `loss_floor`, not 0. Leyva-Vallina, Strisciuglio, Petkov: "Data-efficient Large Scale Place Recognition
    with Graded Similarity Supervision", CVPR 2023.

    The distance is |a − b + 1e-6|, as in the reference: identical descriptors of ψ < 1 have a finite gradient (of
    norm about τ (1 − ψ), the same in every component) and are pushed apart, never NaN. d(a, b) and d(b, a) differ by
    up to 2e-6 √D.

    Args:
        a: (P, D) descriptors.
        b: (P, D) descriptors.
        similarity: (P,) in [0, 1]; not looked at value by value, `Pairs` has checked it.
        margin: τ, > 0.

    Returns:
        (P,) one loss a pair.

    Raises:
        InvalidInputError: the shapes do not fit, or the margin is not above 0.

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.4, 0.0]])
    >>> [round(float(generalized_contrastive(a, b, torch.tensor([psi]))), 4) for psi in (0.0, 0.5, 1.0)]
    [0.005, 0.0425, 0.08]
    """
    if a.ndim != 2 or a.shape != b.shape or similarity.shape != a.shape[:1]:
        raise InvalidInputError(
            f"A loss of pairs takes (P, D), (P, D) and (P,); got {_shapes(a, b, similarity)}. "
            "Lists of the sampler triplets go with the losses triplet and metric-learning."
        )
    _check_margin(margin)
    distance = F.pairwise_distance(a, b, p=2.0, eps=EPS)
    similarity = similarity.to(distance)
    return 0.5 * similarity * distance.square() + 0.5 * (1 - similarity) * (margin - distance).clamp(min=0).square()


def contrastive(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor, *, margin: float = 0.5, threshold: float = 0.5) -> torch.Tensor:
    """Contrastive loss: ½ y d² + ½ (1 − y) max(τ − d, 0)², with y = 1 where the similarity is >= `threshold`, else 0.

    A graded similarity is cut: ψ = 0.49 repels like ψ = 0. Where ψ is 0 or 1 it is `generalized_contrastive`, with the
    same bits and the same distance. Hadsell, Chopra, LeCun: "Dimensionality Reduction by Learning an Invariant
    Mapping", CVPR 2006.

    Args:
        a: (P, D) descriptors.
        b: (P, D) descriptors.
        similarity: (P,) in [0, 1].
        margin: τ, > 0.
        threshold: in (0, 1]; similarities within 1e-9 of it count as equal to it.

    Returns:
        (P,) one loss a pair.

    Raises:
        InvalidInputError: the shapes do not fit, or a parameter is out of its range.

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.4, 0.0]])
    >>> [round(float(contrastive(a, b, torch.tensor([psi]))), 4) for psi in (0.0, 0.49, 0.5, 1.0)]
    [0.005, 0.005, 0.08, 0.08]
    """
    if not 0 < threshold <= 1:
        raise InvalidInputError(f"The threshold must be a similarity in (0, 1]; got {threshold}.")
    return generalized_contrastive(a, b, (similarity >= threshold - TIE).to(a), margin=margin)


def triplet(
    a: torch.Tensor,
    b: torch.Tensor,
    similarity: torch.Tensor,
    *,
    margin: float = 0.1,
    squared: bool = False,
    reduce: Literal["sum", "mean"] = "sum",
) -> torch.Tensor:
    """Triplet loss of a query q, its positive p and N negatives n_j: Σ_j max(0, d(q, p) − d(q, n_j) + m).

    The gradient of each term that is above 0 pulls p and pushes n_j with the same strength. Which column is what is
    the sampler's word: column 0 is the positive, whatever the similarities say. Distances are |q − x + 1e-6| as in
    `generalized_contrastive`, so identical descriptors have a finite gradient. Schroff, Kalenichenko, Philbin:
    "FaceNet", CVPR 2015; with several negatives and squared distances Arandjelović et al.: "NetVLAD", CVPR 2016.

    Args:
        a: (P, D) descriptors of the queries.
        b: (P, 1 + N, D) of each query's positive, then its N >= 1 negatives.
        similarity: (P, 1 + N); its values are not used.
        margin: m, >= 0, in the units of the distance.
        squared: take d² for d (of unit descriptors 2 − 2 cos), as NetVLAD does.
        reduce: over the negatives of a query.

    Returns:
        (P,) one loss a query.

    Raises:
        InvalidInputError: the shapes do not fit, or a parameter is out of its range.

    >>> q, x = torch.zeros(1, 2), torch.tensor([[[0.3, 0.0], [0.35, 0.0], [0.0, 0.9]]])
    >>> round(float(triplet(q, x, torch.tensor([[1.0, 0.0, 0.0]]))), 4)
    0.05
    """
    if a.ndim != 2 or b.ndim != 3 or b.shape[1] < 2 or (len(a), a.shape[1]) != (len(b), b.shape[2]) or similarity.shape != b.shape[:2]:
        raise InvalidInputError(
            f"The triplet loss takes (P, D), (P, 1 + negatives, D) and (P, 1 + negatives); got {_shapes(a, b, similarity)}. "
            "The sampler triplets gives such lists."
        )
    if not margin >= 0 or reduce not in ("sum", "mean"):
        raise InvalidInputError(f"The margin must be >= 0 and reduce 'sum' or 'mean'; got {margin} and {reduce!r}.")
    query = a[:, None].expand_as(b)
    distance = (query - b).square().sum(dim=2) if squared else F.pairwise_distance(query, b, p=2.0, eps=EPS)
    terms = (distance[:, :1] - distance[:, 1:] + margin).clamp(min=0)
    return terms.sum(dim=1) if reduce == "sum" else terms.mean(dim=1)


def loss_floor(similarity: torch.Tensor, *, margin: float = 0.5) -> torch.Tensor:
    """The least value that `generalized_contrastive` takes over all distances: ½ τ² ψ (1 − ψ), at d = τ (1 − ψ).

    Args:
        similarity: of any shape, in [0, 1].
        margin: τ, > 0.

    Returns:
        The floors, of the same shape.

    Raises:
        InvalidInputError: the margin is not above 0.

    >>> loss_floor(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0.0, 0.03125, 0.0]
    """
    _check_margin(margin)
    return 0.5 * margin**2 * similarity * (1 - similarity)


def _check_margin(margin: float) -> None:
    if not isinstance(margin, (int, float)) or not 0 < margin < math.inf:
        raise InvalidInputError(f"The margin must be a number above 0; got {margin!r}.")


def _shapes(*tensors: torch.Tensor) -> str:
    first, *others, last = (str(tuple(tensor.shape)) for tensor in tensors)
    return f"{', '.join([first, *others])} and {last}"


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "contrastive": contrastive,
    "gcl": generalized_contrastive,
    "metric-learning": metric_learning,
    "triplet": triplet,
}
"""Name -> loss: `(a (P, D), b (P, D) or (P, 1 + N, D), similarity (P,) or (P, 1 + N), *, …) -> (P,)`."""

FLOORS: dict[str, Callable[..., torch.Tensor]] = {"gcl": loss_floor}
"""Name -> the least value of that loss for each similarity, `(similarity, *, …) -> floors` with the loss's own options;
a loss that is not here has no floor that depends on the similarity (contrastive and triplet reach 0)."""
