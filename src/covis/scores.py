"""Scores: per-query values, their mean, their interval, and the protocol that they were measured under."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, read_json, write_json
from covis.protocols import Protocol

FORMAT, VERSION = "covis-scores", 2
WIDTH = 88
"""Characters in a line of the printed table."""


@dataclass(frozen=True)
class Metric:
    """A number with its interval.

    Attributes:
        value: a fraction in [0, 1] for most metrics; metres, >= 0, for `error@…`; in [-1, 1] for `rank-correlation@k`. NaN
            where nothing could be counted.
        low: of the interval, in the value's unit; NaN where there is none.
        high: of the interval, in the value's unit; NaN where there is none.
        n: how many queries were counted.

    >>> print(Metric(0.5, 0.25, 0.75, 40))
    0.500 [0.250, 0.750]
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return self.text()

    def text(self, unit: str = "") -> str:
        """The value and its interval to three decimals; with a unit, which stands behind them, to two.

        >>> Metric(12.34, 10.0, 15.5, 40).text("m")
        '12.34 [10.00, 15.50] m'
        """
        digits = 2 if unit else 3
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}] {unit}".rstrip()


@dataclass(frozen=True, eq=False)
class Scores:
    """What a ranking is worth under a protocol.

    Attributes:
        protocol: the definition.
        metrics: name -> value and interval.
        queries: the names of the queries, those of each scene in order.
        per_query: name -> (q,) values, NaN for a query that is not counted.
        interval: how the intervals were made: method, unit, how many units, samples, level.
        history: what was scored: the descriptors and their whitening, the label rule and its parameters.
        units: (q,) int64, the resampling unit of each query, numbered from 0 without a gap; None where it is not known
            (a file of version 1).

    Raises:
        InvalidInputError: a per-query column, or the units, have another length than the queries; the units are not
            numbered from 0 without a gap.
    """

    protocol: Protocol
    metrics: Mapping[str, Metric]
    queries: tuple[str, ...]
    per_query: Mapping[str, NDArray[np.float64]]
    interval: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)
    units: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for name, values in self.per_query.items():
            if np.shape(values) != (len(self.queries),):
                raise InvalidInputError(
                    f"The per-query {name} must have one value for each of the {len(self.queries)} queries; got shape {np.shape(values)}."
                )
        if self.units is not None:
            object.__setattr__(self, "units", _units(self.units, len(self.queries)))

    def __str__(self) -> str:
        if not self.metrics:
            return self.protocol.card()
        said = f"  queries asked: {len(self.queries)}, counted: n"
        if self.interval:
            how = self.interval
            said += f"; intervals: {how['level']:.0%}, {how['method']} over {how['count']} {how['unit']}"
        scored = what_was_scored(self.history)
        if scored:
            said += "\n" + textwrap.fill(
                f"scored: {scored}", WIDTH + 2, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
        return "\n\n".join([self.protocol.card(), *_tables(self.metrics), said])

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write JSON (NaN becomes null); returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
            InvalidInputError: a value is infinite, or the history holds what JSON cannot.
        """
        metrics = {
            name: {"value": _null(m.value), "low": _null(m.low), "high": _null(m.high), "n": int(m.n)} for name, m in self.metrics.items()
        }
        value = {
            "format": FORMAT,
            "version": VERSION,
            "protocol": self.protocol.as_dict(),
            "metrics": metrics,
            "interval": dict(self.interval),
            "history": dict(self.history),
            "queries": list(self.queries),
            "units": None if self.units is None else self.units.tolist(),
            "per_query": {name: [_null(v) for v in np.asarray(values).tolist()] for name, values in self.per_query.items()},
        }
        return write_json(check_absent(path, overwrite=overwrite), value)

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """The inverse of `save`; a file of version 1 has no units.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        stored = read_json(path, kind=FORMAT, version=VERSION)
        try:
            definition = Protocol.from_dict(stored["protocol"], where=f"{path}: protocol")
            metrics = {name: _metric(m) for name, m in stored["metrics"].items()}
            per_query = {name: np.array([_nan(value) for value in values]) for name, values in stored["per_query"].items()}
            units = _whole(stored["units"]) if stored["version"] > 1 and stored["units"] is not None else None
            interval = _checked_interval(stored["interval"])
            return cls(definition, metrics, _names(stored["queries"]), per_query, interval, dict(stored["history"]), units)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedFileError(f"{path} must hold scores; its parts do not fit ({error}). Evaluate again.") from error


def unit_of(metric: str) -> str:
    """What a metric is measured in: "m" for errors, nothing for fractions.

    >>> unit_of("error@50%"), unit_of("recall@1")
    ('m', '')
    """
    return "m" if metric.partition("@")[0] == "error" else ""


def lower_is_better(metric: str) -> bool:
    """True of errors; every other metric is better when it is higher.

    >>> lower_is_better("error"), lower_is_better("mAP@5")
    (True, False)
    """
    return metric.partition("@")[0] == "error"


def what_was_scored(history: Mapping[str, Any]) -> str:
    """The model, the whitening, the index and what has no descriptor, as far as a history says them; "" where it says nothing.

    >>> whitened = {"dim": 32, "power": 1.0, "fitted_on": "database", "count": 900}
    >>> what_was_scored({"scenes": [{"rankings": {"model": "4f2d", "database": {"whitened": whitened}, "index": "exact"}}]})
    'model 4f2d; whitened to 32 dimensions (power 1), fitted on the database (900 descriptors, transductive); index exact'
    """
    scenes = history.get("scenes")
    stories = [one for scene in (scenes if isinstance(scenes, (list, tuple)) else ()) if (one := _inside(scene, "rankings"))]
    first: Mapping[str, Any] = stories[0] if stories else {}
    said = [f"predictions {first['predictions']}, read as {first.get('policy')}"] if "predictions" in first else []
    if "model" in first:
        made = {**_inside(history, "made", "model"), **_inside(first, "database", "extracted")}
        searched = [scene.get("scene") for scene in scenes if isinstance(scene, Mapping)] if isinstance(scenes, (list, tuple)) else []
        said += [_model(first["model"], made), _whitening(_inside(first, "database", "whitened"), searched, file=_file(history))]
    if "index" in first:
        said.append(f"index {first['index']}" + _recall([_inside(one, "recall against exact") for one in stories]))
    parts = [_inside(one, "without a descriptor") for one in (stories[:1] if first.get("scope") == "joint" else stories)]
    queries, database = (sum(_count(one.get(side)) for one in parts) for side in ("queries", "database"))
    if queries or database:
        said.append(f"{queries} queries and {database} database images have no descriptor and find, or are found by, nothing")
    return "; ".join(said)


def fitted_on_searched(fitted_on: Any, searched: Iterable[Any]) -> bool:
    """True of a whitening that was fitted on a database that is searched, as its record has it: its scores are transductive.

    Args:
        fitted_on: what the whitening says that it was fitted on.
        searched: the names of the scenes that are searched.

    >>> fitted_on_searched("database", ["cph"]), fitted_on_searched("database of cph, sf", ["cph"])
    (True, True)
    >>> fitted_on_searched("database of sf", ["cph"]), fitted_on_searched("database of cph of trained", ["cph"])
    (False, False)
    """
    said = str(fitted_on)
    named = said.removeprefix("database of ")
    if named == said:
        return said.startswith("database")
    return " of " not in named and not {str(one) for one in searched}.isdisjoint(named.split(", "))


def _model(digest: Any, made: Mapping[str, Any]) -> str:
    if not {"spec", "dim", "height", "width", "engine"} <= made.keys():
        return f"model {digest}"
    engine = " and ".join(map(str, made["engine"])) if isinstance(made["engine"], list) else made["engine"]
    return f"model {made['spec']} ({digest}), {made['dim']} dimensions, {made['height']} x {made['width']} pixels, {engine}"


def _whitening(made: Mapping[str, Any], searched: Sequence[Any], *, file: Any) -> str:
    if not {"dim", "fitted_on"} <= made.keys():
        return "whitened" if made else "not whitened"
    power = made.get("power")
    said = f"whitened to {made['dim']} dimensions"
    if power is not None:
        said += f" (power {power:g})" if isinstance(power, (int, float)) else f" (power {power})"
    notes = [f"{made['count']} descriptors"] if "count" in made else []
    if fitted_on_searched(made["fitted_on"], searched):
        notes.append(f"transductive if {file} was fitted on what is searched" if file else "transductive")
    return f"{said}, fitted on the {made['fitted_on']}" + (f" ({', '.join(notes)})" if notes else "")


def _file(history: Mapping[str, Any]) -> Any:
    """The file that held the whitening, where one was given to score with: it may have been fitted on any database."""
    return _inside(history, "made", "whitening").get("file")


def _recall(measured: Sequence[Mapping[str, Any]]) -> str:
    """What the index with the lowest recall finds."""
    known = [one for one in measured if all(isinstance(one.get(name), (int, float)) for name in ("recall", "first"))]
    lowest = min(known, key=lambda one: one["recall"], default=None)
    if lowest is None:
        return ""
    return f", which finds {lowest['recall']:.1%} of the exact {lowest.get('k')} nearest and {lowest['first']:.1%} of the exact first"


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _inside(value: Any, *keys: str) -> Mapping[str, Any]:
    """What lies there, if it is a mapping; else an empty one: a history is whatever its writer put in."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _tables(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """A row a k, a column for each metric that is taken at several k; then a row for each other metric."""
    families: dict[str, dict[int, Metric]] = {}
    others: list[list[str]] = []
    for name, metric in metrics.items():
        family, _, k = name.rpartition("@")
        if family and k.isascii() and k.isdigit() and k == str(int(k)):
            families.setdefault(family, {})[int(k)] = metric
        else:
            others.append([name, metric.text(unit_of(name)), f"n = {metric.n}"])
    ks = sorted({k for values in families.values() for k in values})
    columns = [_family(name, values, ks) for name, values in families.items()]
    if columns:
        label = ["k", *map(str, ks), "n"]
        each = max(1, (WIDTH - 8) // (2 + max(len(cell) for column in columns for cell in column)))
        for start in range(0, len(columns), each):
            yield aligned(zip(label, *columns[start : start + each], strict=True), right=(0,))
    if others:
        yield aligned(others)


def _family(name: str, values: Mapping[int, Metric], ks: Sequence[int]) -> list[str]:
    counted = sorted({metric.n for metric in values.values()})
    cells = [values[k].text(unit_of(name)) if k in values else "" for k in ks]
    return [f"{name}@k", *cells, "-".join(str(n) for n in dict.fromkeys((counted[0], counted[-1])))]


def aligned(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows of cells as lines, two blanks between the columns and before the first; the columns in `right` end together.

    >>> print(aligned([["k", "recall"], ["10", "0.5"]], right=[0]))
       k  recall
      10  0.5
    """
    rows = [list(row) for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        [cell.rjust(width) if place in right else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "\n".join(("  " + "  ".join(line)).rstrip() for line in lines)


def _units(units: Any, count: int) -> NDArray[np.int64]:
    given = np.asarray(units)
    if given.shape != (count,) or (count and not np.issubdtype(given.dtype, np.integer)):
        raise InvalidInputError(
            f"The units must be a whole number for each of the {count} queries; got {given.dtype} of shape {given.shape}."
        )
    if count and (given.min() < 0 or given.max() >= count or np.bincount(given).min() == 0):
        raise InvalidInputError(
            f"The units of the queries must be numbered from 0 without a gap; got numbers from {given.min()} to {given.max()}."
        )
    numbers = given.astype(np.int64)
    numbers.setflags(write=False)
    return numbers


def _metric(stored: Mapping[str, Any]) -> Metric:
    n = stored["n"]
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"a metric's n must be a whole number; found {n!r}")
    return Metric(_nan(stored["value"]), _nan(stored["low"]), _nan(stored["high"]), n)


def _names(stored: Any) -> tuple[str, ...]:
    if not isinstance(stored, list) or not all(isinstance(name, str) for name in stored):
        raise ValueError("the queries must be a list of names")
    return tuple(stored)


def _whole(stored: Any) -> NDArray[np.int64]:
    if not isinstance(stored, list) or not all(type(number) is int for number in stored):
        raise ValueError("the units must be a list of whole numbers")
    return np.array(stored, dtype=np.int64)


def _checked_interval(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing, or all that is printed."""
    interval = dict(stored)
    if interval and not (
        isinstance(interval["level"], (int, float)) and isinstance(interval["count"], int) and f"{interval['method']}{interval['unit']}"
    ):
        raise ValueError("the interval must say its level and count as numbers")
    return interval


def _null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _nan(value: Any) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"a value must be a finite number or null; found {value!r}")
    return float(value)
