"""Trials: a weighting and a distillation are called once on made-up values, before hours of training have led to the first real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from covis.errors import CovisError, InvalidInputError
from covis.structure.weights import weigh_ranks

_STEPS = 30
_LARGEST = 2**31 - 1  # of a rank: what int32 holds


def try_weighting(name: str, options: Mapping[str, Any], *, threshold: int, positive_threshold: float = 0.5) -> None:
    """Weigh made-up pairs, which go through the same validation as real ones.

    Their ranks reach from 1 to 3 N_t under both branches, N_t and N_t + 1 included, so that each group that there can be has pairs.

    Raises:
        UnknownNameError: there is no such weighting.
        InvalidInputError: it does not take the options or their values, fails, or gives no finite weights >= 0, one of them above 0.

    >>> try_weighting("group", {"D4": 1.0}, threshold=1000)
    >>> try_weighting("function", {"a": -1}, threshold=10)
    Traceback (most recent call last):
    ...
    covis.errors.InvalidInputError: a must be a finite number, at least 0; got -1.
    """
    least = min(3 * max(threshold, 10), _LARGEST)
    some = np.unique(np.rint(np.geomspace(1, least, _STEPS))).astype(np.int64)
    some = np.unique([*some, threshold, threshold + 1]).astype(np.int32)
    teacher, student = (one.ravel() for one in np.meshgrid(some, some, indexing="ij"))
    # neighbouring pairs differ in similarity: else whole ranks would be of one
    similarity = np.linspace(positive_threshold, 1, 7)[np.arange(len(teacher)) % 7]
    weigh_ranks((teacher, student, similarity), name, options, threshold=threshold)


def try_distillation(name: str, *, negatives: bool, lists: bool | None) -> None:
    """Distil made-up unit vectors, and look at the values and their gradients.

    Args:
        name: of `DISTILLATIONS`, or `module:function`.
        negatives: as training will ask.
        lists: whether training gives lists of negatives (else pairs); None: that is not known, and one of the two must go.

    Raises:
        UnknownNameError: there is no such distillation.
        InvalidInputError: it fails on them, gives something else than a finite number an item, or these have no gradient.

    >>> try_distillation("relational", negatives=True, lists=True)
    """
    if lists is not None:
        _distil(name, negatives=negatives, shape=(3, 4 if negatives else 1, 8) if lists else (3, 8))
        return
    try:
        _distil(name, negatives=negatives, shape=(3, 8))
    except InvalidInputError:
        _distil(name, negatives=negatives, shape=(3, 4 if negatives else 1, 8))


def _distil(name: str, *, negatives: bool, shape: tuple[int, ...]) -> None:
    import torch

    from covis.structure.distillation import distilled

    random = torch.Generator().manual_seed(0)
    shapes = ((3, 8), shape, (3, 8), shape)
    a, b, ta, tb = (torch.nn.functional.normalize(torch.randn(one, generator=random), dim=-1) for one in shapes)
    a.requires_grad_()
    b.requires_grad_()
    where = f"The distillation {name!r}, tried on made-up descriptors {', '.join(str(one) for one in shapes)},"
    try:
        values = distilled(name, a, b, ta, tb, negatives=negatives)
        gradients = torch.autograd.grad(values.sum(), (a, b), allow_unused=True) if values.requires_grad else ()
    except CovisError:
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise InvalidInputError(
            f"{where} must give (P,) numbers for (a, b, ta, tb, *, negatives); it fails with {type(error).__name__}: {error}."
        ) from error
    if not torch.isfinite(values).all():
        raise InvalidInputError(f"{where} must give finite numbers; got {values.tolist()}.")
    taught = [one for one in gradients if one is not None]
    if not taught or not all(torch.isfinite(one).all() for one in taught):
        raise InvalidInputError(f"{where} must have finite gradients in the student's descriptors; it has none.")
