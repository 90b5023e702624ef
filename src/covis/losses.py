"""Losses: pure functions of two descriptors and their similarity, one value a pair; whoever calls them reduces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from covis.errors import InvalidInputError

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
            f"A loss takes (P, D), (P, D) and (P,); got {tuple(a.shape)}, {tuple(b.shape)} and {tuple(similarity.shape)}."
        )
    _check_margin(margin)
    distance = F.pairwise_distance(a, b, p=2.0, eps=EPS)
    similarity = similarity.to(distance)
    return 0.5 * similarity * distance.square() + 0.5 * (1 - similarity) * (margin - distance).clamp(min=0).square()


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
    if not margin > 0:
        raise InvalidInputError(f"The margin must be above 0; got {margin}.")


LOSSES: dict[str, Callable[..., torch.Tensor]] = {"gcl": generalized_contrastive}
"""Name -> loss: `(a (P, D), b (P, D), similarity (P,), *, …) -> (P,)`."""
