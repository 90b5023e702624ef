"""A study's cells as numbers: means over seeds, paired differences to the baseline, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from covis.cells import Cell
from covis.comparison import DOUBTFUL, FEW_UNITS, Difference, compare
from covis.errors import InvalidInputError
from covis.intervals import Units, bootstrap_means
from covis.scores import Metric, Scores

SAMPLES = 10_000
"""Bootstrap samples, and random sign flips."""

LEVEL = 0.95
UNDECIDED = "cannot be told apart"


@dataclass(frozen=True)
class Row:
    """One arm, scored in one way, over its seeds.

    Attributes:
        arm: the arm's name.
        descriptor: what was scored: trained, whitened, and so on.
        values: seed -> the metric's mean over the queries.
        metric: the mean over the seeds, with an interval over the queries for these seeds.
        also: other metrics, mean over the seeds.
        difference: to the baseline arm, query by query, of the means over the seeds that both have; None for the baseline itself.
        by_seed: seed -> difference to the baseline with the same seed.
    """

    arm: str
    descriptor: str
    values: Mapping[int, float]
    metric: Metric
    also: Mapping[str, float] = field(default_factory=dict)
    difference: Difference | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (divided by n - 1); NaN of a single one."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else float("nan")

    @property
    def verdict(self) -> str:
        """In words: "higher" or "lower" than the baseline, or that the two cannot be told apart; empty for the baseline.

        Higher or lower needs all of: the interval over the queries leaves out 0, p <= 0.05, and the difference has the same
        sign with every seed.
        """
        if self.difference is None:
            return ""
        one = self.difference
        if not (one.low > 0 or one.high < 0) or not one.p <= DOUBTFUL:
            return UNDECIDED
        if any(value * one.difference <= 0 for value in self.by_seed.values()):
            return f"{UNDECIDED}: seeds disagree"
        return ("higher" if one.difference > 0 else "lower") + (", one seed" if len(self.by_seed) == 1 else "")


@dataclass(frozen=True)
class Effort:
    """What training an arm took, mean over the seeds, and the order of its latent space.

    Attributes:
        arm: the arm's name.
        pairs: that were drawn, a seed.
        seconds: of training, a seed.
        null: share of pairs without a gradient at the end.
        spearman: descriptor -> rank correlation of distance and similarity over pairs above 0.
    """

    arm: str
    pairs: float
    seconds: float
    null: float
    spearman: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """A study's results.

    Attributes:
        title: name and description.
        facts: recipe, metric, protocol, in words.
        baseline: the arm that the others are compared with.
        metric: its name.
        rows: by descriptor, then by arm.
        efforts: one an arm.
        notes: what the reader must know.
        protocol: the protocol's card.
    """

    title: str
    facts: str
    baseline: str
    metric: str
    rows: tuple[Row, ...]
    efforts: tuple[Effort, ...]
    notes: tuple[str, ...]
    protocol: str


def summarise(
    cells: Sequence[Cell],
    *,
    arms: Sequence[str],
    baseline: str,
    metric: str,
    descriptors: Sequence[str] = ("trained",),
    also: Sequence[str] = (),
    title: str = "",
    recipe: str = "",
) -> Summary:
    """Put cells side by side.

    Args:
        cells: those that are done.
        arms: all arms of the study, in the order of the table; those without a cell are left out.
        baseline: the arm that the others are compared with.
        metric: what is compared: one with a value a query.
        descriptors: what was scored, in the order of the tables.
        also: metrics whose mean is shown too.
        title: name and description of the study.
        recipe: what the arms change.

    Raises:
        InvalidInputError: there is no cell, or cells were asked other queries, or judged in other ways;
            or the metric is defined of other queries in some of them.
    """
    found = {arm: sorted((cell for cell in cells if cell.arm == arm), key=lambda cell: cell.seed) for arm in arms}
    found = {arm: members for arm, members in found.items() if members}
    if not found:
        raise InvalidInputError("A study's table needs a cell that is done; there is none.")
    scores = _same(found, descriptors, metric)
    rows = tuple(row for name in descriptors for row in _rows(name, found, baseline=baseline, metric=metric, also=also))
    seeds = sorted({cell.seed for cell in cells})
    facts = f"recipe {recipe}; {metric} under {scores.protocol.name}; {_counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})"
    missing = [] if baseline in found else [f"no differences: the baseline {baseline!r} has no finished cell"]
    efforts = tuple(_effort(arm, members) for arm, members in found.items())
    return Summary(title, facts, baseline, metric, rows, efforts, (*missing, *_notes(rows, scores, cells)), scores.protocol.card())


def _same(found: Mapping[str, Sequence[Cell]], descriptors: Sequence[str], metric: str) -> Scores:
    """The first of all scores, after a look that all are of the same queries and protocol, and have the metric."""
    every = [(arm, cell.scores[name]) for arm, cells in found.items() for cell in cells for name in descriptors]
    first = every[0][1]
    for arm, one in every:
        if metric not in one.per_query:
            raise InvalidInputError(f"The cells of the arm {arm!r} must have {metric} a query; one has {', '.join(one.per_query)}.")
        if one.queries != first.queries or one.protocol != first.protocol:
            raise InvalidInputError(
                f"The cells of a study must be asked the same queries under the same protocol; those of the arm {arm!r} are not. "
                "Was the data changed in between? Run the study again in another --out."
            )
        if not np.array_equal(np.isnan(one.per_query[metric]), np.isnan(first.per_query[metric])):
            raise InvalidInputError(
                f"The cells of a study must have {metric} of the same queries, or no seed and no arm could be paired; those of the arm "
                f"{arm!r} lack other ones. Compare another metric."
            )
    return first


def _rows(descriptor: str, found: Mapping[str, Sequence[Cell]], *, baseline: str, metric: str, also: Sequence[str]) -> Iterator[Row]:
    """A row an arm; the intervals of all arms come from the same draws."""
    scores = {arm: {cell.seed: cell.scores[descriptor] for cell in cells} for arm, cells in found.items()}
    pooled = {arm: _pooled(list(mine.values()), metric) for arm, mine in scores.items()}
    columns = {arm: one.per_query[metric] for arm, one in pooled.items()}
    intervals = bootstrap_means(columns, _units(next(iter(pooled.values()))), samples=SAMPLES, level=LEVEL)
    base = scores.get(baseline, {})
    for arm, mine in scores.items():
        values = {seed: one.metrics[metric].value for seed, one in mine.items()}
        counted = columns[arm][~np.isnan(columns[arm])]
        mean = Metric(_mean(counted.tolist()), *intervals[arm], len(counted))
        others = {name: _mean([one.metrics[name].value for one in mine.values() if name in one.metrics]) for name in also}
        both = [seed for seed in mine if seed in base and arm != baseline]
        difference = None
        if both:
            sides = (_pooled([part[seed] for seed in both], metric) for part in (base, mine))
            difference = compare(*sides, metrics=[metric], samples=SAMPLES, level=LEVEL).differences[metric]
        by_seed = {seed: values[seed] - base[seed].metrics[metric].value for seed in both}
        yield Row(arm, descriptor, values, mean, others, difference, by_seed)


def _pooled(scores: Sequence[Scores], metric: str) -> Scores:
    """Scores of several seeds as one: of each query the mean."""
    first, means = scores[0], np.mean([one.per_query[metric] for one in scores], axis=0)
    return Scores(first.protocol, {}, first.queries, {metric: means}, first.interval, first.history, first.units)


def _units(scores: Scores) -> Units:
    return Units(np.arange(len(scores.queries)) if scores.units is None else scores.units, str(scores.interval.get("unit", "queries")))


def _effort(arm: str, cells: Sequence[Cell]) -> Effort:
    trainings = [cell.training for cell in cells if cell.training is not None]
    pairs, seconds, null = (_mean([getattr(one, name) for one in trainings]) for name in ("pairs", "seconds", "null"))
    names = dict.fromkeys(name for cell in cells for name in cell.latent)
    spearman = {name: _mean([cell.latent[name].spearman for cell in cells if name in cell.latent]) for name in names}
    return Effort(arm, pairs, seconds, null, spearman)


def _notes(rows: Sequence[Row], scores: Scores, cells: Sequence[Cell]) -> list[str]:
    how, notes = scores.interval, []
    counted = f"{rows[0].metric.n} of {len(scores.queries)} queries counted"
    if how:
        notes.append(f"{counted}; {LEVEL:.0%} intervals: {how['method']} over {how['count']} {how['unit']} ({SAMPLES:,} samples),")
        notes.append(
            "of the mean over the seeds: they say how other queries would differ, for these seeds. Spread: standard deviation over seeds."
        )
    tests = sum(row.difference is not None for row in rows)
    if tests:
        notes.append(
            "p: two-sided sign-flip test over the same units. Higher or lower: the interval leaves out 0, p <= 0.05, and every seed agrees."
        )
    if tests > 1:
        notes.append(f"{tests} differences are {tests} tests: where nothing differs, one test in 20 has p <= 0.05 all the same.")
    if how and how["count"] < FEW_UNITS:
        notes.append(f"Few units ({how['count']}): the intervals may be too narrow, and no p is below {2 / 2 ** max(1, how['count']):.2g}.")
    count = max(len(row.values) for row in rows)
    if count == 1:
        notes.append("One seed: whether another seed of the training would show the same was not tested.")
    elif count <= 5:
        notes.append(f"{count} seeds agree by chance alone in {2 / 2**count:.0%} of cases: signs over seeds are a check, not a test.")
    arms = {cell.arm for cell in cells}
    taught = [{cell.data.get("train") for cell in cells if cell.arm == arm} for arm in arms]  # arms may be taught by different scenes
    if any(len(one) > 1 for one in [*taught, {cell.data.get("test") for cell in cells}]):
        notes.append(
            "Cells were run on data whose images, or their sizes or times, differ: look whether the data set was changed in between."
        )
    return notes


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
