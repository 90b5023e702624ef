"""Weights: how much each pair of a partition teaches."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisError, InvalidInputError
from covis.structure.named import named
from covis.structure.partition import Partition, grouped

Ranks: TypeAlias = NDArray[np.integer[Any]]
Numbers: TypeAlias = NDArray[np.float64]
Weighting: TypeAlias = Callable[..., Numbers]
"""`(teacher (n,), student (n,), similarity (n,), *, threshold, **options) -> (n,)` weights >= 0 of the pairs of all scenes."""


def takes_similarity(weighting: Weighting) -> Weighting:
    """Give a weighting the option `gamma`, by which the graded similarity ψ enters (ours): w · ψ^gamma.

    The result is scaled so that the mean over the pairs with w > 0 stays what it was. 0 (default) changes nothing.
    """

    @wraps(weighting)
    def graded(teacher: Ranks, student: Ranks, similarity: Numbers, *, gamma: float = 0.0, **options: Any) -> Numbers:
        _check_least("gamma", gamma)
        weights = weighting(teacher, student, similarity, **options)
        if gamma == 0:
            return weights
        taught = weights > 0
        scaled = weights * np.asarray(similarity, dtype=np.float64) ** gamma
        if not taught.any():
            return scaled
        if not (total := scaled[taught].sum()) > 0:
            raise InvalidInputError(f"With gamma = {gamma:g} every weight is 0: the similarities are too small. Choose a smaller gamma.")
        with np.errstate(all="ignore"):  # what is no finite weight is refused in words
            found = np.asarray(scaled * (weights[taught].sum() / total))
        if not np.isfinite(found).all():
            raise InvalidInputError(f"With gamma = {gamma:g} weights are not finite: those before it are too large. Choose smaller ones.")
        return found

    known = inspect.signature(weighting)
    extra = inspect.Parameter("gamma", inspect.Parameter.KEYWORD_ONLY, default=0.0, annotation="float")
    graded.__signature__ = known.replace(parameters=[*known.parameters.values(), extra])  # type: ignore[attr-defined]
    return graded


@takes_similarity
def weigh_none(teacher: Ranks, student: Ranks, similarity: Numbers, *, threshold: int) -> Numbers:
    """1 for each pair: everything is distilled alike."""
    return np.ones(len(teacher))


@takes_similarity
def weigh_selected(
    teacher: Ranks,
    student: Ranks,
    similarity: Numbers,
    *,
    threshold: int,
    by: Literal["teacher", "student"] = "teacher",
    matched: bool = False,
    wrong: bool = False,
    seed: int = 0,
) -> Numbers:
    """1 for pairs that a branch ranks up to N_t, 0 for the others.

    By the teacher it keeps D1, D2 and D3 (A1 of StructVPR's ablation), by the student D2, D3 and the part of D4 that the student
    ranks well (B1).

    Args:
        teacher: (n,) ranks.
        student: (n,) ranks.
        similarity: (n,), not looked at.
        threshold: N_t.
        by: whose rank decides.
        matched: by the student, as many pairs as the teacher would select, those of the least ranks, so that the two can be
            compared (ours). Pairs of one rank are drawn at random. By the teacher there is nothing to match.
        wrong: the other pairs: by the teacher D4 (A2), by the student those that it ranks beyond N_t, or beyond as many (B2).
        seed: of that draw.

    Raises:
        InvalidInputError: `by` is neither, `matched` or `wrong` is no truth, `matched` goes with the teacher, or the seed is negative.

    >>> weigh_selected(np.array([1, 1, 20]), np.array([30, 2, 1]), np.ones(3), threshold=10, by="student", matched=True)
    array([0., 1., 1.])
    """
    if by not in ("teacher", "student"):
        raise InvalidInputError(f"by must be 'teacher' or 'student'; got {by!r}.")
    _check_truth("matched", matched)
    _check_truth("wrong", wrong)
    if matched and by == "teacher":
        raise InvalidInputError("matched = true selects as many pairs by the student as the teacher would; set by = 'student' too.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInputError(f"seed must be a whole number, at least 0; got {seed!r}.")
    x, y = np.asarray(teacher), np.asarray(student)
    weights = ((x if by == "teacher" else y) <= threshold).astype(np.float64)
    if matched:
        chosen = np.lexsort((np.random.default_rng(seed).permutation(len(y)), y))[: int((x <= threshold).sum())]
        weights = np.zeros(len(y))
        weights[chosen] = 1
    return 1 - weights if wrong else weights


@takes_similarity
def weigh_groups(
    teacher: Ranks,
    student: Ranks,
    similarity: Numbers,
    *,
    threshold: int,
    D1: float = 2.0,  # noqa: N803 - the groups' names
    D2: float = 1.0,  # noqa: N803
    D3: float = 0.5,  # noqa: N803
    D4: float = 0.0,  # noqa: N803
) -> Numbers:
    """A constant for each group of the partition. Which is ours; one group alone is D1 = 1 and the others 0.

    Raises:
        InvalidInputError: a constant is negative or not finite.

    >>> weigh_groups(np.array([1, 1, 3, 11]), np.array([11, 1, 2, 1]), np.ones(4), threshold=10)
    array([2. , 1. , 0.5, 0. ])
    """
    for name, value in (("D1", D1), ("D2", D2), ("D3", D3), ("D4", D4)):
        _check_least(name, value)
    return np.array([D1, D2, D3, D4], dtype=np.float64)[grouped(teacher, student, threshold) - 1]


@takes_similarity
def weigh_function(
    teacher: Ranks, student: Ranks, similarity: Numbers, *, threshold: int, a: float = 1.0, b: float = 1.0, normalise: bool = True
) -> Numbers:
    """The better the teacher, and the larger its lead over the student, the larger the weight.

    With N = N_t, x the teacher's rank and y the student's: t = (N + 1 - x) / N, g = (min(y, 2N) - x) / N within [-1, 2], and
    w = t^a · exp(b · g) where x ≤ N, else 0; divided by its mean over x ≤ N. The two principles are those of StructVPR's poster (CVPR
    2023); its closed form is not known, and this one is ours.

    Args:
        teacher: (n,) ranks x, from 1.
        student: (n,) ranks y, from 1.
        similarity: (n,), not looked at.
        threshold: N_t.
        a: how much the teacher's rank counts, at least 0.
        b: how much its lead counts, at least 0.
        normalise: divide by the mean, so that the strength of the distillation means the same as without weights.

    Raises:
        InvalidInputError: an option is out of its range, or no pair has x ≤ N_t, so that there is no mean.

    >>> weigh_function(np.array([1, 10, 11]), np.array([1, 11, 1]), np.ones(3), threshold=10, normalise=False).round(2)
    array([1.  , 0.11, 0.  ])
    """
    _check_least("a", a)
    _check_least("b", b)
    _check_truth("normalise", normalise)
    x, y = np.asarray(teacher, dtype=np.float64), np.asarray(student, dtype=np.float64)
    right = x <= threshold
    level = np.maximum(threshold + 1 - x, 0) / threshold
    gap = np.clip((np.minimum(y, 2 * threshold) - x) / threshold, -1, 2)
    with np.errstate(all="ignore"):  # an infinite weight is refused in words
        weights = np.where(right, level**a * np.exp(b * gap), 0.0)
        if not normalise:
            return weights
        if not right.any():
            raise InvalidInputError(_none_right(len(x), threshold))
        mean = weights[right].mean()
    if not 0 < mean < np.inf:
        raise InvalidInputError(f"With a = {a:g} and b = {b:g} the weights have the mean {mean}. Choose smaller ones.")
    return np.asarray(weights / mean)


WEIGHTINGS: dict[str, Weighting] = {"none": weigh_none, "select": weigh_selected, "group": weigh_groups, "function": weigh_function}
"""Name -> `(teacher, student, similarity, *, threshold, **options) -> (n,)`; each takes `gamma`, as `takes_similarity` says."""


def weigh(partition: Partition, name: str = "function", options: Mapping[str, Any] | None = None) -> list[Numbers]:
    """How much each pair of a partition teaches, one array a scene; means are taken over the pairs of all scenes.

    Args:
        partition: of the pairs.
        name: of `WEIGHTINGS`, or `module:function`.
        options: its keyword arguments.

    Returns:
        (n,) float64 >= 0 a scene, in the order of the partition's pairs; at least one is above 0.

    Raises:
        UnknownNameError: there is no such weighting.
        InvalidInputError: it does not take the options, gives something else than finite weights >= 0, or all weights are 0.

    >>> found = Partition([[0, 0], [1]], [[1, 2], [0]], [[0.9, 0.5], [0.9]], [[1, 12], [3]], [[11, 1], [2]], scenes=("a", "b"))
    >>> weigh(found, "select")
    [array([1., 0.]), array([1.])]
    """
    columns = (np.concatenate(partition.teacher), np.concatenate(partition.student), np.concatenate(partition.similarity))
    weights = weigh_ranks(columns, name, options or {}, threshold=partition.threshold)
    return np.split(weights, np.cumsum([len(rows) for rows in partition.query])[:-1])


def weigh_ranks(columns: tuple[Ranks, Ranks, Numbers], name: str, options: Mapping[str, Any], *, threshold: int) -> Numbers:
    """How much each of n pairs teaches, held to be weights: what `weigh` does for all scenes at once.

    Args:
        columns: (n,) ranks under the teacher, (n,) under the student, (n,) similarities.
        name: of `WEIGHTINGS`, or `module:function`.
        options: its keyword arguments.
        threshold: N_t.

    Raises:
        UnknownNameError: there is no such weighting.
        InvalidInputError: as `weigh`, or a function of the user's fails.
    """
    teacher, student, _ = columns
    weighting = named(name, WEIGHTINGS, options, what="weighting", given=("teacher", "student", "similarity"), keywords=("threshold",))
    try:
        with np.errstate(all="ignore"):  # what is no finite weight is refused below
            weights = np.asarray(weighting(*columns, threshold=threshold, **options))
    except CovisError:
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise InvalidInputError(
            f"The weighting {name!r} must give weights for (teacher, student, similarity, *, threshold); with the options {dict(options)} "
            f"it fails with {type(error).__name__}: {error}."
        ) from error
    if weights.shape != teacher.shape or weights.dtype.kind not in "fiub":
        raise InvalidInputError(f"The weighting {name!r} must give a number a pair, {teacher.shape}; got {weights.dtype} {weights.shape}.")
    bad = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    if bad.size:
        at = int(bad[0])
        raise InvalidInputError(
            f"Weights must be finite and at least 0; {name!r} gives {weights[at]} to a pair of rank {teacher[at]} under the teacher and "
            f"{student[at]} under the student. Choose other options."
        )
    if not weights.any():
        none = "Choose other options." if (teacher <= threshold).any() else _none_right(len(teacher), threshold)
        raise InvalidInputError(f"At least one pair must have a weight above 0; {name!r} gives 0 to all {len(teacher)}. {none}")
    return weights.astype(np.float64)


def _none_right(pairs: int, threshold: int) -> str:
    return (
        f"At least one pair must have a rank of at most N_t = {threshold} under the teacher; of {pairs} none has. The teacher has not "
        "learnt: look at its recall, train it longer, or raise the threshold."
    )


def _check_least(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= sys.float_info.max:
        raise InvalidInputError(f"{name} must be a finite number, at least 0; got {value!r}.")


def _check_truth(name: str, value: bool) -> None:  # noqa: FBT001 - it is the value that is looked at
    if not isinstance(value, bool | np.bool_):
        raise InvalidInputError(f"{name} must be true or false; got {value!r}.")
