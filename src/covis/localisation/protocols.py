"""PoseProtocol: within how many metres and degrees a pose counts as found, and of which groups of queries rates are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from typing import Any, Literal

from covis.errors import InvalidInputError, UnknownNameError
from covis.lookup import suggest

BINS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees of the long-term visual localisation benchmark: high, medium and coarse precision."""
ALL_QUERIES = "all queries"
"""The label of the group that is always there."""
TIE = 1e-9
"""Metres or degrees: an error this close to a threshold counts as equal to it, since poses are stored rounded."""
_SIGNS = ("<=", "<")
_STRICT = "/strict"
_SERVER = (
    "visuallocalization.net (Sattler et al., Benchmarking 6DOF outdoor visual localization in changing conditions, CVPR 2018); "
    "how its server compares at a threshold is not published"
)


@dataclass(frozen=True)
class PoseProtocol:
    """How poses are judged. Printed as a card beside every score.

    Every query counts: one without a pose is a failure. A pose is correct within a bin if both its errors are.

    Attributes:
        name: what the numbers are called.
        bins: (metres, degrees) each.
        comparison: "<=", an error of just the threshold is within (kapture-localization), or "<", it is not (hloc).
        groups: (label, flags) of further groups that rates are given of: the queries that have any of the flags. Rates of all
            queries, of each flag of theirs, and of each scene where there are several, are given in any case.
        source: where the definition comes from.

    Raises:
        InvalidInputError: a field is out of its range.

    >>> print(pose_protocol("poses/0.05/5").card())
    poses/0.05/5
      asked      every query; one without a pose is a failure
      errors     metres between the camera centres; degrees of the rotation between the cameras
      correct    <= 0.05 m and <= 5 degrees, both at once; an error within 1e-09 of its limit counts as equal to it
      groups     all queries, each flag of theirs, each scene where there are several
      source     covis
    """

    name: str
    bins: tuple[tuple[float, float], ...] = BINS
    _: KW_ONLY
    comparison: Literal["<=", "<"] = "<="
    groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    source: str = "covis"

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", tuple((float(metres), float(degrees)) for metres, degrees in self.bins))
        object.__setattr__(self, "groups", tuple((str(label), tuple(map(str, flags))) for label, flags in self.groups))
        fit = all(math.isfinite(metres) and metres > 0 and 0 < degrees <= 180 for metres, degrees in self.bins)
        if not self.bins or not fit or len(set(self.bins)) < len(self.bins):
            raise InvalidInputError(
                f"The bins of pose protocol {self.name!r} must be different pairs of metres above 0 and degrees in (0, 180]; "
                f"got {self.bins}."
            )
        if self.comparison not in _SIGNS:
            raise InvalidInputError(f"The comparison of pose protocol {self.name!r} must be '<=' or '<'; got {self.comparison!r}.")
        labels = [ALL_QUERIES, *(label for label, _ in self.groups)]
        if len(set(labels)) < len(labels):
            raise InvalidInputError(f"The groups of pose protocol {self.name!r} must have labels of their own; got {', '.join(labels)}.")

    def card(self) -> str:
        """The definition in words; two protocols that differ have different cards."""
        sign = self.comparison
        bins = "; ".join(f"{sign} {_number(metres)} m and {sign} {_number(degrees)} degrees" for metres, degrees in self.bins)
        own = "".join(f", {label!r} ({', '.join(flags)})" for label, flags in self.groups)
        lines = {
            "asked": "every query; one without a pose is a failure",
            "errors": "metres between the camera centres; degrees of the rotation between the cameras",
            "correct": f"{bins}, both at once; an error within {TIE:g} of its limit counts as equal to it",
            "groups": f"{ALL_QUERIES}{own}, each flag of theirs, each scene where there are several",
            "source": self.source,
        }
        return "\n".join([self.name, *(f"  {key:<10} {value}" for key, value in lines.items())])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a file."""
        groups = [[label, list(flags)] for label, flags in self.groups]
        return {**asdict(self), "bins": [list(pair) for pair in self.bins], "groups": groups}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> PoseProtocol:
        """The inverse of `as_dict`.

        >>> PoseProtocol.from_dict(pose_protocol("ecmu").as_dict()) == pose_protocol("ecmu")
        True
        """
        return cls(**table)


def _poses(text: str) -> PoseProtocol:
    """Within 0.25 m and 2 degrees, 0.5 m and 5, 5 m and 10, both at once; every query counts."""
    return PoseProtocol("poses")


def _own(text: str) -> PoseProtocol:
    """Within M metres and D degrees, as poses/0.05/5; further pairs behind them, as poses/0.05/5/0.1/10."""
    values = [float(part) for part in text.split("/")]
    if len(values) % 2:
        raise ValueError(f"metres and degrees come in pairs; got {len(values)} numbers")
    bins = tuple(zip(values[::2], values[1::2], strict=True))
    return PoseProtocol("/".join(["poses", *map(_number, values)]), bins)


def _robotcar(text: str) -> PoseProtocol:
    """RobotCar Seasons v2: those bins by condition, by day and by night; its test poses are withheld, so locally of the training poses."""
    day = ("dawn", "dusk", "overcast-summer", "overcast-winter", "rain", "snow", "sun")
    return PoseProtocol("robotcar-v2", groups=(("day all", day), ("night all", ("night", "night-rain"))), source=_SERVER)


def _cmu(text: str) -> PoseProtocol:
    """Extended CMU Seasons: those bins, by slice and condition; poses of about half of its queries are public."""
    return PoseProtocol("ecmu", source=_SERVER)


POSE_PROTOCOLS: dict[str, Callable[[str], PoseProtocol]] = {
    "ecmu": _cmu,
    "poses": _poses,
    "poses/M/D": _own,
    "robotcar-v2": _robotcar,
}
"""Name -> maker; M and D stand for metres and degrees: `poses/0.05/5`. /strict behind any name compares with "<"."""


def pose_protocol(name: str) -> PoseProtocol:
    """A pose protocol by its name.

    Raises:
        UnknownNameError: none has that name; the nearest is suggested.

    >>> pose_protocol("poses/0.05/5").bins, pose_protocol("robotcar-v2/strict").comparison
    (((0.05, 5.0),), '<')
    """
    text = name.removesuffix(_STRICT)
    if text in POSE_PROTOCOLS and text != "poses/M/D":
        found = POSE_PROTOCOLS[text]("")
    elif text.startswith("poses/"):
        try:
            found = _own(text.removeprefix("poses/"))
        except ValueError as error:
            raise UnknownNameError(
                f"The pose protocol poses/M/D takes metres above 0 and degrees in (0, 180], as in poses/0.05/5; got {name!r}."
            ) from error
    else:
        raise UnknownNameError(f"There is no pose protocol called {name!r}. {suggest(name, POSE_PROTOCOLS)}")
    return found if text == name else replace(found, name=found.name + _STRICT, comparison="<")


def _number(value: float) -> str:
    """The shortest text that gives the number back."""
    return repr(float(value)).removesuffix(".0")
