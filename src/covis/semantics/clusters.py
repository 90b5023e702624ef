"""Clusters: which classes share a channel, by their names, and what each channel weighs (StructVPR's clustering)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.semantics.numberings import NUMBERINGS, NUMBERS, Numbering
from covis.semantics.toml_files import Shipped, found, nearest, own_table, shipped_table

EACH = "*"
"""As `rest`: every class that stands in no cluster is a channel of its own."""
NO_CHANNEL = -1
_KEYS = ("clusters", "weights", "rest", "void")


@dataclass(frozen=True)
class Clustering:
    """Which classes go together.

    Attributes:
        name: of the clustering, or the path of its file.
        clusters: cluster -> its classes, by name or by number; their order is that of the channels. Without `rest` a
            name may be of any numbering that covis knows, so that one clustering serves several.
        weights: cluster -> weight, >= 0; 1 where none is given.
        rest: the cluster of the classes that stand nowhere; `EACH`: each its own; None: none may stand nowhere.
        void: the cluster of the numbers that mean nothing; None: they have no channel.

    Raises:
        InvalidInputError: a class stands twice, a weight is negative or of no cluster, or something has the wrong type.
    """

    name: str
    clusters: Mapping[str, tuple[str | int, ...]]
    weights: Mapping[str, float] = field(default_factory=dict)
    rest: str | None = None
    void: str | None = None

    def __post_init__(self) -> None:
        stands: dict[str | int, str] = {}
        for cluster, members in self.clusters.items():
            if not cluster.strip() or cluster == EACH:
                raise InvalidInputError(f"{self.name}: a cluster must have a name; got {cluster!r}.")
            for member in members:
                if isinstance(member, bool) or not isinstance(member, (str, int)):
                    raise InvalidInputError(
                        f"{self.name}: cluster {cluster!r} must list names or numbers of classes; {member!r} is neither."
                    )
                if member in stands:
                    raise InvalidInputError(
                        f"{self.name}: every class must stand in one cluster; {member!r} stands in {stands[member]!r} and {cluster!r}."
                    )
                stands[member] = cluster
        for one in (self.rest, self.void):
            if one is not None and (not isinstance(one, str) or not one.strip()):
                raise InvalidInputError(f"{self.name}: rest and void must be the names of clusters; got {one!r}.")
        if self.void == EACH:
            raise InvalidInputError(f"{self.name}: void must be one cluster; {EACH!r} is for rest alone.")
        object.__setattr__(self, "clusters", {cluster: tuple(members) for cluster, members in self.clusters.items()})
        if self.rest != EACH:
            checked_weights(self.weights, self.channels, where=self.name)

    def __str__(self) -> str:
        """A line for lists."""
        named = [f"{channel} {self.weights.get(channel, 1):g}" for channel in self.channels]
        each = ["each other class a channel" if named else "each class a channel, 1"] if self.rest == EACH else []
        return f"{', '.join([*named, *each])}; void: {self.void or 'no channel'}"

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that this clustering names, in order; `EACH` adds those of a numbering."""
        named = [*self.clusters, *(one for one in (self.rest, self.void) if one is not None and one != EACH)]
        return tuple(dict.fromkeys(named))

    def assign(self, numbering: Numbering) -> tuple[tuple[str, ...], NDArray[np.int16]]:
        """The channels of a numbering's classes.

        Returns:
            C names, and (256,) int16: number -> channel, -1 where there is none.

        Raises:
            InvalidInputError: a name or number is none of the numbering's, or a class stands in no cluster or in two.

        >>> from covis.semantics.numberings import numbering
        >>> channels, lookup = clustering("six").assign(numbering("ade20k"))
        >>> channels[lookup[0]], channels[lookup[4]], channels[lookup[255]]
        ('structure', 'vegetation', 'other')
        """
        placed = self._placed(numbering)
        lost = {number: name for number, name in numbering.meaningful.items() if number not in placed}
        channels = self.channels
        if lost and self.rest is None:
            first = ", ".join(map(repr, list(lost.values())[:3]))
            raise InvalidInputError(
                f"{self.name}: every class of {numbering.name} must stand in a cluster; {len(lost)} of {len(numbering.meaningful)} do not, "
                f'the first {first}. List them in a clustering of your own, or say rest = "other" (or rest = "{EACH}": each its own).'
            )
        if self.rest == EACH:
            if named := [name for name in lost.values() if name in channels]:
                raise InvalidInputError(
                    f"{self.name}: the class {named[0]!r} of {numbering.name} stands in no cluster, and one is called like it. List it."
                )
            channels, placed = (*channels, *lost.values()), placed | lost
        elif self.rest is not None:
            placed |= dict.fromkeys(lost, self.rest)
        if self.void is not None:
            placed = dict.fromkeys(numbering.void, self.void) | placed
        lookup = np.full(NUMBERS, NO_CHANNEL, dtype=np.int16)
        for number, channel in placed.items():
            lookup[number] = channels.index(channel)
        return channels, lookup

    def _placed(self, numbering: Numbering) -> dict[int, str]:
        """Number -> cluster, of the classes that are listed."""
        numbers = {name: number for number, name in numbering.classes.items()}
        placed: dict[int, str] = {}
        for cluster, members in self.clusters.items():
            for member in members:
                if isinstance(member, str) and member not in numbers:
                    elsewhere = member in _all_names()
                    if elsewhere and self.rest is None:
                        continue  # no class of this numbering can be lost by it
                    why = " It is one of another numbering, which a file with rest does not skip: a class would be lost in the rest."
                    raise InvalidInputError(
                        f"{self.name}: {member!r} in cluster {cluster!r} is no class of {numbering.name}. {nearest(member, numbers)}"
                        f"{why if elsewhere else ''}"
                    )
                number = member if isinstance(member, int) else numbers[member]
                if not (0 <= number < NUMBERS and numbering.known[number]):
                    raise InvalidInputError(f"{self.name}: {number} in cluster {cluster!r} is no number of {numbering.name}.")
                if number in placed:
                    raise InvalidInputError(
                        f"{self.name}: every class must stand in one cluster; {number} ({numbering.classes.get(number, 'void')!r}) "
                        f"stands in {placed[number]!r}, and by its name or number in {cluster!r} again."
                    )
                placed[number] = cluster
        return placed


def clustering(name_or_path: str | Path) -> Clustering:
    """A clustering of `CLUSTERINGS` by its name, or a user's by the path of its TOML file.

    The file: `[clusters]` with `CLUSTER = ["class", …]`, and optionally `[weights]`, `rest = "CLUSTER"` and `void = "CLUSTER"`.

    Raises:
        UnknownNameError: there is no such clustering; the nearest is suggested.
        MissingFileError: there is no such file.
        DamagedFileError: it is no TOML, or a cluster stands in it twice.
        InvalidInputError: it has an unknown key, or breaks a rule of `Clustering`.
    """
    return found(name_or_path, CLUSTERINGS, _own, what="clustering")


def checked_weights(weights: Mapping[str, Any], channels: tuple[str, ...], *, where: str) -> dict[str, float]:
    """The weights, after a look that each is of a channel, finite and >= 0.

    Raises:
        InvalidInputError: one is not.
    """
    for channel, weight in weights.items():
        if channel not in channels:
            raise InvalidInputError(
                f"{where}: a weight must be of a channel; {channel!r} is none. {nearest(channel, channels)} "
                f"Channels: {', '.join(channels[:12])}{', …' if len(channels) > 12 else ''}."
            )
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise InvalidInputError(f"{where}: the weight of {channel!r} must be a number >= 0; got {weight!r}.")
    return {channel: float(weight) for channel, weight in weights.items()}


def _own(path: Path) -> Clustering:
    return _from_table(str(path), own_table(path, what="clustering", keys=_KEYS))


def _shipped(name: str) -> Clustering:
    return Clustering(name, {}, rest=EACH) if name == "none" else _from_table(name, shipped_table("clusterings", name))


CLUSTERINGS: Mapping[str, Clustering] = Shipped(("six", "none"), _shipped)
"""The clusterings that covis knows by name. "six": StructVPR's; "none": each class a channel, what means nothing none."""


def _from_table(name: str, table: Mapping[str, Any]) -> Clustering:
    clusters, weights = table.get("clusters", {}), table.get("weights", {})
    if not isinstance(clusters, Mapping) or not (clusters or "rest" in table):
        raise InvalidInputError(f'{name} must have a table [clusters] of lines such as structure = ["building", "wall"]; it has none.')
    for cluster, members in clusters.items():
        if not isinstance(members, list):
            raise InvalidInputError(f"{name}: cluster {cluster!r} must be a list of names or numbers of classes; got {members!r}.")
    if not isinstance(weights, Mapping):
        raise InvalidInputError(f"{name}: [weights] must be a table of lines such as structure = 2.0; got {weights!r}.")
    return Clustering(name, clusters, weights, table.get("rest"), table.get("void"))


@cache
def _all_names() -> frozenset[str]:
    return frozenset(name for numbering in NUMBERINGS.values() for name in numbering.classes.values())
