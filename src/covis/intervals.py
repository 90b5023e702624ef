"""Bootstrap intervals and sign flips: whole sequences, blocks of consecutive frames, or queries are drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.images import Images

MIN_SEQUENCES = 10
BLOCK_FRAMES = 10
BUFFER_BYTES = 40_000_000
"""What `bootstrap_means` holds at once of the draws, and as much again of the columns."""

ENUMERATED = 14
"""Up to so many units that differ, `sign_flips` tries all 2^n flips instead of random ones."""

ROUNDING = 1e-12
"""Sums of the same differences with other signs count as equal within this part of the sum of their sizes."""


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

    Args:
        queries: those that are asked, a table a scene. Where only some of a scene's images ask, consecutive means
            next to each other among those.
        block: frames in a block, >= 1.

    Returns:
        The unit of each query, numbered from 0 in the order in which they first appear.

    Raises:
        InvalidInputError: `block` < 1.

    >>> images = Images("r", [f"{i}.jpg" for i in range(25)], frame=range(25))
    >>> units = resampling_units([images])
    >>> units.count, units.what
    (3, 'blocks of 10 consecutive frames')
    """
    if block < 1:
        raise InvalidInputError(f"A block must have at least one frame; got {block}.")
    sequence = _sequences(queries)
    if all(images.sequence is not None for images in queries) and (sequence.max(initial=-1) + 1) >= MIN_SEQUENCES:
        return Units(sequence, "sequences")
    frames = [images.frame for images in queries if images.frame is not None]
    if len(frames) < len(queries):
        return Units(np.arange(len(sequence)), "queries")
    order = np.lexsort((np.concatenate([np.zeros(0, dtype=np.int64), *frames]), sequence))
    starts = np.cumsum(np.bincount(sequence)) - np.bincount(sequence)
    position = np.empty(len(sequence), dtype=np.int64)
    position[order] = np.arange(len(sequence)) - starts[sequence[order]]
    # No position reaches the number of queries, so the two make one number that no other sequence and block have.
    return Units(_renumbered(sequence * len(sequence) + position // block), f"blocks of {block} consecutive frames")


def draws(units: Units, *, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """`samples` times: (q,) how often each query is in a bootstrap sample."""
    for counts in _drawn(units.count, samples=samples, seed=seed):
        yield counts[units.unit].astype(np.float64)


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
    _check(samples, seed, level)
    if units.count < 2:
        return float("nan"), float("nan")
    return _percentiles(np.array([statistic(weights) for weights in draws(units, samples=samples, seed=seed)]), level)


def bootstrap_means(
    columns: Mapping[str, NDArray[np.float64]], units: Units, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The percentile bootstrap intervals of the means of many columns, from the same draws as `bootstrap`.

    The mean of a sample is the sum over its counted queries by their number, so a unit's sum and count are all that a
    draw needs: one matrix product for all columns. The intervals are those that `bootstrap` gives, to rounding.

    Args:
        columns: name -> (q,) float64; NaN for a query that is not counted.
        units: what is drawn.
        samples: how often.
        seed: of the draws.
        level: of the interval, in (0, 1).

    Returns:
        name -> (low, high); NaN both as in `bootstrap`.

    Raises:
        InvalidInputError: a column has not one value a query or holds an infinity, `samples` < 1, `seed` < 0, or `level`
            outside (0, 1).

    >>> units = Units(np.arange(4), "queries")
    >>> bootstrap_means({"recall@1": np.array([0.0, 1, 1, 1])}, units, samples=2000)
    {'recall@1': (0.25, 1.0)}
    """
    _check(samples, seed, level)
    values = {name: _column(name, column, units) for name, column in columns.items()}
    if units.count < 2:
        return dict.fromkeys(values, (float("nan"), float("nan")))
    group = max(1, BUFFER_BYTES // (16 * units.count))  # a sum and a count, 8 bytes each
    names = list(values)
    intervals: dict[str, tuple[float, float]] = {}
    for start in range(0, len(names), group):
        means = _drawn_means([values[name] for name in names[start : start + group]], units, samples=samples, seed=seed)
        intervals |= {name: _percentiles(column, level) for name, column in zip(names[start:], means.T, strict=False)}
    return intervals


def sign_flips(columns: Mapping[str, NDArray[np.float64]], units: Units, *, samples: int = 10_000, seed: int = 0) -> dict[str, float]:
    """The two-sided p-values of the sign-flip test of many columns of paired differences.

    T is the sum of a column, p the share of flips whose |T| is at least the observed one: exact over all 2^n flips, or
    (1 + hits) / (1 + samples) of random ones, which is never 0 (Phipson and Smyth, 2010).

    Args:
        columns: name -> (q,) differences; NaN for a query that is not counted.
        units: whose summed differences change sign together.
        samples: random flips, where more than 14 units differ; else all flips are tried.
        seed: of the flips; all columns get the same.

    Returns:
        name -> p in (0, 1]; 1 where nothing differs, NaN where no query is counted.

    Raises:
        InvalidInputError: a column has not one value a query or holds an infinity, `samples` < 1, or `seed` < 0.

    >>> units = Units(np.arange(4), "queries")
    >>> sign_flips({"x": np.array([1.0, 1, 1, 1]), "y": np.array([1.0, -1, 0, np.nan])}, units)
    {'x': 0.125, 'y': 1.0}
    """
    _check(samples, seed, 0.5)
    values = {name: _column(name, column, units) for name, column in columns.items()}
    sums = {name: _differing(np.nan_to_num(column), units) for name, column in values.items()}
    found = {name: _exact(one[one != 0]) for name, one in sums.items() if np.count_nonzero(one) <= ENUMERATED}
    drawn = [name for name in sums if name not in found]
    if drawn:
        found |= dict(zip(drawn, _sampled(np.column_stack([sums[name] for name in drawn]), samples, seed), strict=True))
    return {name: found[name] if not np.isnan(column).all() else float("nan") for name, column in values.items()}


def _drawn_means(columns: Sequence[NDArray[np.float64]], units: Units, *, samples: int, seed: int) -> NDArray[np.float64]:
    """(samples, columns) the mean of each column in each sample; NaN where a sample counts no query."""
    counted = [~np.isnan(column) for column in columns]
    masks = list({mask.tobytes(): mask for mask in counted}.values())  # most metrics count the same queries
    which = {mask.tobytes(): number for number, mask in enumerate(masks)}
    sums = np.column_stack([_summed(np.where(mask, column, 0), units) for column, mask in zip(columns, counted, strict=True)])
    numbers = np.column_stack([_summed(mask, units) for mask in masks])
    means = np.full((samples, len(columns)), np.nan)
    rows = min(samples, max(1, BUFFER_BYTES // (8 * units.count)))
    block = np.empty((rows, units.count))
    places = [which[mask.tobytes()] for mask in counted]
    drawn = _drawn(units.count, samples=samples, seed=seed)
    for start in range(0, samples, rows):
        here = block[: min(rows, samples - start)]
        for row in here:
            row[:] = next(drawn)
        count = (here @ numbers)[:, places]
        np.divide(here @ sums, count, out=means[start : start + rows], where=count > 0)
    return means


def _drawn(count: int, *, samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """`samples` times: (count,) how often each unit is drawn, of as many draws as there are units."""
    random = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(random.integers(count, size=count), minlength=count)


def _differing(values: NDArray[np.float64], units: Units) -> NDArray[np.float64]:
    """(units,) the sum of each; 0 where it is nothing but rounding."""
    sums = _summed(values, units)
    return np.where(np.abs(sums) <= ROUNDING * _summed(np.abs(values), units), 0.0, sums)


def _exact(sums: NDArray[np.float64]) -> float:
    signs = 1.0 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    reached = np.abs(signs @ sums) >= abs(sums.sum()) - ROUNDING * np.abs(sums).sum()
    return float(reached.mean())


def _sampled(sums: NDArray[np.float64], samples: int, seed: int) -> list[float]:
    """Of (units, columns) sums the p of each column, from random signs, a bit each; blocked so that memory stays bounded."""
    random = np.random.default_rng(seed)
    count, total = len(sums), sums.sum(axis=0)
    observed = np.abs(total) - ROUNDING * np.abs(sums).sum(axis=0)
    hits = np.zeros(sums.shape[1], dtype=np.int64)
    width = -(-count // 64) * 8  # whole words of random bits a sample, so that the block's size changes no sign
    rows = max(1, BUFFER_BYTES // (8 * count))
    for start in range(0, samples, rows):
        here = min(rows, samples - start)
        packed = np.frombuffer(random.bytes(here * width), dtype=np.uint8).reshape(here, width)
        positive = np.unpackbits(packed, axis=1, count=count).astype(np.float64)
        hits += (np.abs(2 * (positive @ sums) - total) >= observed).sum(axis=0)
    return [(1 + int(hit)) / (1 + samples) for hit in hits]


def _summed(values: NDArray[Any], units: Units) -> NDArray[np.float64]:
    return np.bincount(units.unit, weights=values, minlength=units.count).astype(np.float64, copy=False)


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(samples: int, seed: int, level: float) -> None:
    if samples < 1 or seed < 0 or not 0 < level < 1:
        raise InvalidInputError(f"samples must be >= 1, the seed >= 0 and level in (0, 1); got {samples}, {seed} and {level}.")


def _column(name: str, values: NDArray[np.float64], units: Units) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != units.unit.shape:
        raise InvalidInputError(
            f"The column {name} must have one value for each of the {len(units.unit)} queries; got shape {column.shape}."
        )
    if np.isinf(column).any():
        raise InvalidInputError(
            f"The column {name} must be finite, or NaN for a query that is not counted; row "
            f"{np.flatnonzero(np.isinf(column))[0]} is infinite."
        )
    return column


def _sequences(queries: Sequence[Images]) -> NDArray[np.int64]:
    """(q,) the number of each query's sequence, those of different scenes apart; a scene without sequences is one."""
    parts, before = [np.zeros(0, dtype=np.int64)], 0
    for images in queries:
        numbers: dict[str, int] = {}
        names = images.sequence if images.sequence is not None else ("",) * len(images)
        parts.append(before + np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64))
        before += len(numbers)
    return np.concatenate(parts)


def _renumbered(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups, numbered from 0 in the order in which they first appear."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
