"""Scores: per-query values, their mean, their interval, and the protocol that they were measured under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.config import from_table
from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, read_json, write_json
from covis.protocols import Protocol

FORMAT, VERSION = "covis-scores", 1


@dataclass(frozen=True)
class Metric:
    """A number with its interval.

    Attributes:
        value: a fraction in [0, 1]; NaN where nothing could be counted.
        low: of the interval.
        high: of the interval.
        n: how many queries were counted.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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

    Raises:
        InvalidInputError: a per-query column has another length than the queries.
    """

    protocol: Protocol
    metrics: Mapping[str, Metric]
    queries: tuple[str, ...]
    per_query: Mapping[str, NDArray[np.float64]]
    interval: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.per_query.items():
            if np.shape(values) != (len(self.queries),):
                raise InvalidInputError(
                    f"The per-query {name} must have one value for each of the {len(self.queries)} queries; got shape {np.shape(values)}."
                )

    def __str__(self) -> str:
        width = max((len(name) for name in self.metrics), default=0)
        rows = [f"  {name:<{width}}  {metric}  n = {metric.n}" for name, metric in self.metrics.items()]
        units = self.interval
        said = f"  intervals: {units['level']:.0%}, {units['method']} over {units['count']} {units['unit']}" if units else ""
        return "\n".join([self.protocol.card(), *rows, said]).rstrip()

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write JSON (NaN becomes null); returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        metrics = {
            name: {"value": _null(m.value), "low": _null(m.low), "high": _null(m.high), "n": m.n} for name, m in self.metrics.items()
        }
        value = {
            "format": FORMAT,
            "version": VERSION,
            "protocol": self.protocol.as_dict(),
            "metrics": metrics,
            "interval": dict(self.interval),
            "history": dict(self.history),
            "queries": list(self.queries),
            "per_query": {name: [_null(v) for v in np.asarray(values).tolist()] for name, values in self.per_query.items()},
        }
        return write_json(check_absent(path, overwrite=overwrite), value)

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        stored = read_json(path, kind=FORMAT, version=VERSION)
        try:
            definition = from_table(Protocol, stored["protocol"], where=f"{path}: protocol")
            metrics = {
                name: Metric(_nan(m["value"]), _nan(m["low"]), _nan(m["high"]), int(m["n"])) for name, m in stored["metrics"].items()
            }
            per_query = {name: _column(values) for name, values in stored["per_query"].items()}
            return cls(definition, metrics, tuple(stored["queries"]), per_query, dict(stored["interval"]), dict(stored["history"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{path} must hold scores; its parts do not fit ({error}). Evaluate again.") from error


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _column(values: list[float | None]) -> NDArray[np.float64]:
    numbers: ArrayLike = [_nan(value) for value in values]
    return np.asarray(numbers, dtype=np.float64)
