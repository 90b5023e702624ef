"""Bootstrap intervals: whole sequences, blocks of consecutive frames, or queries are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.images import Images

MIN_SEQUENCES = 10
BLOCK_FRAMES = 10


@dataclass(frozen=True)
class Units:
    """What is drawn again: (q,) the unit of each query, and what a unit is, in words."""

    unit: NDArray[np.int64]
    what: str

    @property
    def count(self) -> int:
        """How many units there are."""
        return int(self.unit.max()) + 1 if len(self.unit) else 0


def resampling_units(queries: Sequence[Images], *, block: int = BLOCK_FRAMES) -> Units:
    """Choose what the bootstrap draws, for the queries of one or more scenes, in their order.

    Neighbouring frames are not independent, so an interval over single queries is too narrow. Sequences where there
    are ten or more; else blocks of `block` consecutive frames of a sequence (or of a scene); else, where the frames
    are not numbered, single queries.

    >>> images = Images("r", [f"{i}.jpg" for i in range(25)], frame=range(25))
    >>> units = resampling_units([images])
    >>> units.count, units.what
    (3, 'blocks of 10 consecutive frames')
    """
    names = [(number, (images.sequence or [""] * len(images))[row]) for number, images in enumerate(queries) for row in range(len(images))]
    if len(set(names)) >= MIN_SEQUENCES and all(images.sequence is not None for images in queries):
        return Units(_numbered(names), "sequences")
    if not all(images.frame is not None for images in queries):
        return Units(np.arange(len(names)), "queries")
    frames = np.concatenate([images.frame for images in queries if images.frame is not None]) if queries else np.zeros(0, dtype=np.int64)
    sequence = _numbered(names)
    position = np.empty(len(names), dtype=np.int64)
    for one in np.unique(sequence):
        here = np.flatnonzero(sequence == one)
        position[here[np.argsort(frames[here], kind="stable")]] = np.arange(len(here))
    return Units(
        _numbered(list(zip(sequence.tolist(), (position // block).tolist(), strict=True))), f"blocks of {block} consecutive frames"
    )


def draws(units: Units, *, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`samples` times: (q,) how often each query is in a bootstrap sample."""
    random = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(random.integers(units.count, size=units.count), minlength=units.count)[units.unit].astype(np.float64)


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], float], units: Units, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of query weights.

    Args:
        statistic: (q,) weights -> value; NaN where it is not defined for a sample.
        units: what is drawn.
        samples: how often.
        seed: of the draws.
        level: of the interval, in (0, 1).

    Returns:
        (low, high); NaN both where the statistic is defined for no sample, or there are fewer than two units: one says
        nothing about how others would differ.

    Raises:
        InvalidInputError: `samples` < 1 or `level` outside (0, 1).

    >>> units = Units(np.arange(4), "queries")
    >>> bootstrap(lambda w: float((w * [0, 1, 1, 1]).sum() / w.sum()), units, samples=2000)
    (0.25, 1.0)
    """
    if samples < 1 or seed < 0 or not 0 < level < 1:
        raise InvalidInputError(f"samples must be >= 1, the seed >= 0 and level in (0, 1); got {samples}, {seed} and {level}.")
    values = (
        np.array([statistic(weights) for weights in draws(units, samples=samples, seed=seed)]) if units.count > 1 else np.array([np.nan])
    )
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _numbered(keys: Sequence[object]) -> NDArray[np.int64]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
