"""Comparison of two scores, query by query: paired differences, intervals, a test, wins and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, read_json, write_json
from covis.intervals import Units, bootstrap_means, sign_flips
from covis.lookup import suggest
from covis.protocols import Protocol
from covis.scores import Scores, aligned, lower_is_better, unit_of

FORMAT, VERSION = "covis-comparison", 1
FEW_UNITS = 10
NUMBERS = ("a", "b", "difference", "low", "high", "p")
_GRADED = ("graded-recall", "nDCG", "rank-correlation")
DOUBTFUL = 0.05
"""A p above this leaves two scores not told apart, whatever the interval says: with few units it cannot be small."""
ROUNDING = 1e-12
"""Two values of a query count as equal within this part of the larger: the same sum in another order."""


@dataclass(frozen=True)
class Difference:
    """One metric of two scores, over the queries that are counted in both.

    Attributes:
        a: mean of the first scores.
        b: mean of the second scores.
        difference: b - a, in the metric's unit; NaN, as all numbers here, where no query is counted in both.
        low: of the difference's interval; NaN where there are fewer than two units.
        high: of the difference's interval.
        p: p-value of the sign-flip test, in (0, 1].
        n: queries counted in both.
        won: the queries on which b is better.
        lost: the queries on which a is better; on the others they are equal.
        lower_is_better: true of errors in metres.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    won: tuple[str, ...]
    lost: tuple[str, ...]
    lower_is_better: bool = False

    @property
    def wins(self) -> int:
        """On how many queries b is better."""
        return len(self.won)

    @property
    def losses(self) -> int:
        """On how many queries a is better."""
        return len(self.lost)

    @property
    def ties(self) -> int:
        """On how many queries they are equal."""
        return self.n - self.wins - self.losses

    @property
    def verdict(self) -> str:
        """In words: "b is better", "a is better", or "cannot be told apart" where the interval holds 0 or p is above 0.05.

        >>> Difference(0.5, 0.6, 0.1, 0.02, 0.18, 0.01, 90, ("q",) * 12, ("r",) * 3).verdict
        'b is better'
        """
        if not (self.low > 0 or self.high < 0) or self.p > DOUBTFUL:
            return "cannot be told apart"
        return "b is better" if (self.low > 0) != self.lower_is_better else "a is better"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        protocol: that of both scores.
        differences: metric -> what differs.
        queries: how many both were asked.
        interval: how interval and p-value were made: method, unit, count, samples, level, seed.
        history: "a" and "b": the history of each of the scores.
    """

    protocol: Protocol
    differences: Mapping[str, Difference]
    queries: int
    interval: Mapping[str, Any]
    history: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        how = self.interval
        level = f"{how['level'] * 100:g}% interval"
        rows = [["metric", "a", "b", "b - a", level, "p", "n", "won", "lost", "equal", ""]]
        rows += [_row(name, one) for name, one in self.differences.items()]
        count = len(self.differences)
        notes = [
            f"{self.queries} queries; {how['method']} over {how['count']} {how['unit']} ({how['samples']} samples, seed {how['seed']}).",
            "p: two-sided sign-flip test of the paired differences, summed by unit. won: b is better.",
        ]
        if count > 1:
            notes.append(f"{count} metrics are {count} tests: where nothing differs, one test in 20 has p <= 0.05 all the same.")
        if how["count"] < FEW_UNITS:
            least = 2 / 2 ** max(1, how["count"])
            notes.append(f"Few units ({how['count']}): the interval may be too narrow, and no p is below {least:.2g}. Go by p.")
        return "\n\n".join([self.protocol.card(), aligned(rows, right=range(1, 10)), "\n".join(f"  {note}" for note in notes)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in the file; NaN is None. The words and counts are there for the reader's sake."""
        return {
            "protocol": self.protocol.as_dict(),
            "queries": self.queries,
            "interval": dict(self.interval),
            "history": dict(self.history),
            "differences": {name: _plain(one) for name, one in self.differences.items()},
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write JSON (NaN becomes null); returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        return write_json(check_absent(path, overwrite=overwrite), {"format": FORMAT, "version": VERSION, **self.as_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        stored = read_json(path, kind=FORMAT, version=VERSION)
        try:
            protocol = Protocol.from_dict(stored["protocol"], where=f"{path}: protocol")
            differences = {name: _difference(one) for name, one in stored["differences"].items()}
            queries, how = _count(stored["queries"]), dict(stored["interval"])
            if not 0 < _number(how["level"]) < 1 or not all(isinstance(how[key], str) for key in ("method", "unit")):
                raise ValueError("its interval must say a level in (0, 1), a method and a unit")
            for key in ("count", "samples", "seed"):
                _count(how[key])
            return cls(protocol, differences, queries, how, dict(stored["history"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedFileError(f"{path} must hold a comparison; its parts do not fit ({error}). Compare again.") from error


def compare(
    a: Scores, b: Scores, *, metrics: Sequence[str] | None = None, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare two scores of the same queries under the same protocol, query by query.

    For each metric with per-query values in both, over the queries that are counted in both: the means, the difference
    b - a, its percentile bootstrap interval (units are drawn, as for the scores themselves: sequences, blocks or
    queries), and a p-value.

    What the p-value tests: that a and b are exchangeable within each unit, as they are if they are equally good. Then a
    unit's summed difference would as likely have the other sign. T is the sum over units; p is the share of sign flips
    whose |T| is at least the observed one: two-sided, (1 + hits) / (1 + samples) for random flips, exact over all 2^n
    flips where at most 14 units differ (Fisher's randomisation test; Good, Permutation Tests, 2000). The signs do not
    depend on which metrics are asked for. With n units no p is below 2 / 2^n, whatever the interval says.

    Many metrics and many k are many tests: of 20 that measure nothing, one has p <= 0.05. Choose the metric before you
    look, or divide the level by their number (Bonferroni). Neither interval nor p says anything about another seed of
    the training.

    Args:
        a: the first scores, the baseline.
        b: the second scores; their queries may stand in another order.
        metrics: names of per-query metrics; default all that both have, in the order of `a`.
        samples: bootstrap samples, and random sign flips.
        seed: of both.
        level: of the interval, in (0, 1).

    Raises:
        InvalidInputError: the protocols, the queries or the units differ, or, for a metric that they decide, the labels; a
            metric is not in both; `samples` < 1,
            `seed` < 0, or `level` outside (0, 1).

    >>> from covis.protocols import protocol
    >>> def scores(*hits):
    ...     return Scores(protocol("graded/0.5"), {}, tuple("abcdef"), {"recall@1": np.array(hits, dtype=float)})
    >>> one = compare(scores(0, 0, 0, 0, 0, 1), scores(1, 1, 1, 1, 1, 1)).differences["recall@1"]
    >>> one.wins, one.losses, one.ties, round(one.difference, 3), one.p
    (5, 0, 1, 0.833, 0.0625)
    """
    _check_protocols(a.protocol, b.protocol)
    order = _order(a.queries, b.queries)
    units = _units(a, b, order)
    names = _shared(a, b, metrics)
    _check_labels(a, b, names)
    columns = {name: (_values(a, name), _values(b, name)[order]) for name in names}
    paired = {name: _paired(*both) for name, both in columns.items()}
    intervals = bootstrap_means(paired, units, samples=samples, seed=seed, level=level)
    tested = sign_flips(paired, units, samples=samples, seed=seed)
    differences = {
        name: _measured(*columns[name], queries=a.queries, interval=intervals[name], p=tested[name], lower=lower_is_better(name))
        for name in names
    }
    how = {
        "method": "percentile bootstrap",
        "unit": units.what,
        "count": units.count,
        "samples": samples,
        "level": level,
        "seed": seed,
    }
    return Comparison(a.protocol, differences, len(a.queries), how, {"a": dict(a.history), "b": dict(b.history)})


def _check_protocols(a: Protocol, b: Protocol) -> None:
    mine, theirs = a.as_dict(), b.as_dict()
    differing = [f"{key}: {mine[key]!r} against {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]
    if differing:
        raise InvalidInputError(
            f"Scores must be of one protocol to be compared; {a.name!r} and {b.name!r} differ in {'; '.join(differing)}. "
            "Evaluate both under the same one."
        )


def _check_labels(a: Scores, b: Scores, names: Sequence[str]) -> None:
    """Scores under other labels are not scores of the same thing, where labels decide."""
    mine, theirs = ([scene.get("labels") for scene in scores.history.get("scenes", [])] for scores in (a, b))
    graded = [name for name in names if name.split("@")[0] in _GRADED]
    if mine == theirs or not (graded or a.protocol.positive == "similarity"):
        return
    raise InvalidInputError(
        f"Scores must be made with the same labels to be compared in {', '.join((graded or names)[:3])}; a has {_said(mine)}, "
        f"b {_said(theirs)}. Evaluate both with one set of labels, or compare other metrics (covis compare --metric recall@1)."
    )


def _said(labels: Sequence[Any]) -> str:
    return "; ".join("none" if one is None else f"{one.get('rule')} {one.get('parameters')}" for one in labels[:1]) or "none"


def _order(a: tuple[str, ...], b: tuple[str, ...]) -> NDArray[np.int64]:
    """(q,) for each query of `a` its row in `b`."""
    if a == b:
        return np.arange(len(a))
    rows = {name: row for row, name in enumerate(b)}
    known = set(a)
    lost = next((f"{name!r} is asked in the first alone" for name in a if name not in rows), None)
    lost = lost or next((f"{name!r} is asked in the second alone" for name in b if name not in known), None)
    if lost is None and (len(rows) < len(b) or len(known) < len(a)):
        lost = "a name stands twice, and they stand in another order"
    if lost:
        raise InvalidInputError(
            f"Scores must be of the same queries to be compared; {lost} ({len(a)} and {len(b)} queries). Evaluate both on the same data."
        )
    return np.array([rows[name] for name in a], dtype=np.int64)


def _units(a: Scores, b: Scores, order: NDArray[np.int64]) -> Units:
    """The units of the queries in the order of `a`. They belong to the queries: where one file does not say them, the other does."""
    mine, theirs = a.units, None if b.units is None else b.units[order]
    if mine is None or theirs is None:
        known, scores = (theirs, b) if mine is None else (mine, a)
        if known is None:
            return Units(np.arange(len(a.queries)), "queries")
        return Units(known, str(scores.interval.get("unit", "units")))
    differing = np.flatnonzero(_firsts(mine) != _firsts(theirs))
    if differing.size:
        said = [f"{int(units.max()) + 1} {scores.interval.get('unit', 'units')}" for units, scores in ((mine, a), (theirs, b))]
        raise InvalidInputError(
            f"Scores must have the same resampling units to be compared; they have {said[0]} and {said[1]}, and differ from "
            f"{a.queries[differing[0]]!r} on. Evaluate both on the same data."
        )
    return Units(mine, str(a.interval.get("unit", "units")))


def _firsts(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """(q,) the first query of each query's unit: the same for the same groups, however they are numbered."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return first[inverse]


def _shared(a: Scores, b: Scores, metrics: Sequence[str] | None) -> list[str]:
    both = [name for name in a.per_query if name in b.per_query]
    if metrics is None and not both:
        raise InvalidInputError(
            f"Scores must share a metric with per-query values to be compared; the first have {', '.join(a.per_query) or 'none'}, the "
            f"second {', '.join(b.per_query) or 'none'}."
        )
    for name in metrics or ():
        if name not in both:
            raise InvalidInputError(f"Both scores must have per-query values of {name!r}; they do not. {suggest(name, both)}")
    return both if metrics is None else list(dict.fromkeys(metrics))


def _values(scores: Scores, name: str) -> NDArray[np.float64]:
    values = np.asarray(scores.per_query[name], dtype=np.float64)
    if np.isinf(values).any():
        query = scores.queries[int(np.flatnonzero(np.isinf(values))[0])]
        raise InvalidInputError(
            f"The per-query {name} must be finite, or NaN for a query that is not counted; that of {query!r} is infinite."
        )
    return values


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The differences b - a; NaN where a query is not counted in both, 0 where they differ by rounding alone."""
    difference = b - a
    return np.where(np.abs(difference) <= ROUNDING * np.maximum(np.abs(a), np.abs(b)), 0.0, difference)


def _measured(
    a: NDArray[np.float64], b: NDArray[np.float64], *, queries: tuple[str, ...], interval: tuple[float, float], p: float, lower: bool
) -> Difference:
    difference = _paired(a, b)
    both = ~np.isnan(difference)
    n = int(both.sum())
    means = {key: float(values[both].mean()) if n else float("nan") for key, values in (("a", a), ("b", b), ("difference", difference))}
    better = -difference if lower else difference
    won, lost = (tuple(queries[row] for row in np.flatnonzero(chosen)) for chosen in (better > 0, better < 0))
    return Difference(**means, low=interval[0], high=interval[1], p=p, n=n, won=won, lost=lost, lower_is_better=lower)


def _row(name: str, one: Difference) -> list[str]:
    unit, digits = unit_of(name), 2 if unit_of(name) else 3
    p = "<0.0001" if one.p < 0.00005 else f"{one.p:.4f}"
    interval = f"[{one.low:+.{digits}f}, {one.high:+.{digits}f}]"
    counts = (one.n, one.wins, one.losses, one.ties)
    numbers = [f"{one.a:.{digits}f}", f"{one.b:.{digits}f}", f"{one.difference:+.{digits}f}", interval, p, *map(str, counts)]
    return [f"{name} ({unit})" if unit else name, *numbers, one.verdict]


def _plain(one: Difference) -> dict[str, Any]:
    numbers = {key: getattr(one, key) for key in NUMBERS}
    return {
        **{key: None if np.isnan(value) else value for key, value in numbers.items()},
        "n": one.n,
        "wins": one.wins,
        "losses": one.losses,
        "ties": one.ties,
        "verdict": one.verdict,
        "lower_is_better": one.lower_is_better,
        "won": list(one.won),
        "lost": list(one.lost),
    }


def _difference(stored: Mapping[str, Any]) -> Difference:
    numbers = {key: float("nan") if stored[key] is None else _number(stored[key]) for key in NUMBERS}
    won, lost = (tuple(stored[key]) for key in ("won", "lost"))
    if not all(isinstance(name, str) for name in (*won, *lost)) or type(stored["lower_is_better"]) is not bool:
        raise ValueError("a name must be text, and lower_is_better true or false")
    one = Difference(**numbers, n=_count(stored["n"]), won=won, lost=lost, lower_is_better=stored["lower_is_better"])
    if _plain(one) != stored or one.ties < 0:  # the counts and the verdict follow from the rest
        raise ValueError("its counts and verdict do not follow from its numbers")
    return one


def _count(stored: Any) -> int:
    if type(stored) is not int or stored < 0:
        raise ValueError(f"a count must be a whole number >= 0; found {stored!r}")
    return stored


def _number(stored: Any) -> float:
    if type(stored) not in (int, float) or not np.isfinite(stored):
        raise ValueError(f"a value must be a finite number or null; found {stored!r}")
    return float(stored)
