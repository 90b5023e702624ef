"""PoseScores: rates, medians and errors of poses, with the protocol that they were measured under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, read_json, write_json
from covis.localisation.protocols import PoseProtocol
from covis.scores import Metric, aligned

FORMAT, VERSION = "covis-pose-scores", 1

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class GroupRates:
    """What was measured of a group of queries.

    Attributes:
        label: "all queries", a flag, a group of the protocol, or "scene" and its name.
        n: how many queries, all of which count.
        without_pose: how many of them have none.
        metres: the median error; infinity where half of them or more have no pose.
        degrees: the median error.
        rates: one a bin of the protocol, each a fraction with its interval.
    """

    label: str
    n: int
    without_pose: int
    metres: float
    degrees: float
    rates: tuple[Metric, ...]


@dataclass(frozen=True, eq=False)
class PoseScores:
    """What poses are worth under a protocol.

    Attributes:
        protocol: the definition.
        groups: all queries first, then those of the protocol, the flags and the scenes.
        scenes: (q,) the scene of each query.
        queries: (q,) the names.
        metres: (q,) errors; infinity where there is no pose.
        degrees: (q,) errors, 180 where there is none.
        interval: how the intervals were made: method, unit, how many units, samples, seed, level.
        history: how the poses were made, one a scene.

    Raises:
        InvalidInputError: a column has another length than the queries.
    """

    protocol: PoseProtocol
    groups: tuple[GroupRates, ...]
    scenes: tuple[str, ...]
    queries: tuple[str, ...]
    metres: Values
    degrees: Values
    interval: Mapping[str, Any] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if {len(self.scenes), len(self.metres), len(self.degrees)} != {len(self.queries)}:
            raise InvalidInputError(f"Scores of poses must have a scene and two errors for each of the {len(self.queries)} queries.")
        if any(len(group.rates) != len(self.protocol.bins) for group in self.groups):
            raise InvalidInputError("Scores of poses must have a rate for each bin of their protocol.")

    def __str__(self) -> str:
        sign = "" if self.protocol.comparison == "<=" else "< "
        titles = [f"{sign}{metres:g} m, {degrees:g} deg" for metres, degrees in self.protocol.bins]
        rows = [["group", *titles, "median m", "median deg", "without", "n"]]
        for one in self.groups:
            rows.append([one.label, *map(str, one.rates), f"{one.metres:.2f}", f"{one.degrees:.2f}", str(one.without_pose), str(one.n)])
        how = self.interval
        said = f"  rates as fractions; intervals: {how['level']:.0%}, {how['method']} over {how['count']} {how['unit']}" if how else ""
        width = len(rows[0])
        table = aligned(rows, right=range(width - 4, width))
        return "\n\n".join(part for part in (self.protocol.card(), table, said) if part)

    def as_dict(self) -> dict[str, Any]:
        """Plain values without those of single queries; an infinite median is None."""
        return {
            "protocol": self.protocol.as_dict(),
            "groups": [_plain(group, self.protocol) for group in self.groups],
            "interval": dict(self.interval),
            "history": dict(self.history),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write JSON (metres of a query without a pose are null); returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        columns = {
            "scenes": list(self.scenes),
            "queries": list(self.queries),
            "metres": [_finite(value) for value in self.metres.tolist()],
            "degrees": self.degrees.tolist(),
        }
        return write_json(check_absent(path, overwrite=overwrite), {"format": FORMAT, "version": VERSION, **self.as_dict(), **columns})

    @classmethod
    def load(cls, path: str | Path) -> PoseScores:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        stored = read_json(path, kind=FORMAT, version=VERSION)
        try:
            groups = tuple(_group(one) for one in stored["groups"])
            metres = np.array([_number(value, none=math.inf) for value in stored["metres"]], dtype=np.float64)
            degrees = np.array([_number(value) for value in stored["degrees"]], dtype=np.float64)
            names = tuple(map(str, stored["scenes"])), tuple(map(str, stored["queries"]))
            definition = PoseProtocol.from_dict(stored["protocol"])
            return cls(definition, groups, *names, metres, degrees, dict(stored["interval"]), dict(stored["history"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{path} must hold scores of poses; its parts do not fit ({error}). Score again.") from error


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(group: GroupRates, rule: PoseProtocol) -> dict[str, Any]:
    rates = [
        {"metres": metres, "degrees": degrees, "value": rate.value, "low": _finite(rate.low), "high": _finite(rate.high)}
        for (metres, degrees), rate in zip(rule.bins, group.rates, strict=True)
    ]
    medians = {"median_metres": _finite(group.metres), "median_degrees": _finite(group.degrees)}
    return {"group": group.label, "n": group.n, "without_pose": group.without_pose, **medians, "rates": rates}


def _group(stored: Mapping[str, Any]) -> GroupRates:
    n, without = stored["n"], stored["without_pose"]
    if type(n) is not int or type(without) is not int:
        raise ValueError(f"numbers of queries must be whole; found {n!r} and {without!r}")
    rates = tuple(
        Metric(_number(one["value"]), _number(one["low"], none=math.nan), _number(one["high"], none=math.nan), n) for one in stored["rates"]
    )
    medians = _number(stored["median_metres"], none=math.inf), _number(stored["median_degrees"])
    return GroupRates(str(stored["group"]), n, without, *medians, rates)


def _number(value: Any, *, none: float | None = None) -> float:
    if value is None and none is not None:
        return none
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"a value must be a finite number; found {value!r}")
    return float(value)
