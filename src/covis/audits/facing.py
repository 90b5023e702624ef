"""Queries that a protocol counts as answerable though every positive looks elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.audits.views import Pairing
from covis.errors import InvalidInputError
from covis.images import Scene
from covis.labels import TIE, Labels
from covis.protocols import Protocol
from covis.protocols import protocol as protocol_by_name
from covis.truths import truth


@dataclass(frozen=True, eq=False)
class FacingAway:
    """How the positives of each query look, compared with the query.

    Attributes:
        protocol: its name.
        heading: degrees: more is away.
        names: q names of the queries.
        answerable: (q,) bool: is asked and has a positive.
        asked: how many queries are asked.
        turn: (q,) degrees, the smallest between the query and a positive; NaN without a positive, or where none is known.
        away: (q,) bool: every positive is known to look more than `heading` degrees away.
        unknown: (q,) bool: answerable, no positive is known to look the same way, and of some nobody knows.
        positives: pairs that are positives, and those that are away.
        distance: (q,) metres to the nearest positive; NaN where unknown.
        nothing: (q,) bool: the labels give every positive similarity 0; None without labels.
    """

    protocol: str
    heading: float
    names: tuple[str, ...]
    answerable: NDArray[np.bool_]
    asked: int
    turn: NDArray[np.float64]
    away: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    positives: tuple[int, int]
    distance: NDArray[np.float64]
    nothing: NDArray[np.bool_] | None = None

    @property
    def share(self) -> float:
        """Of the answerable queries those that are away; NaN where none is answerable."""
        counted = int(self.answerable.sum())
        return int(self.away.sum()) / counted if counted else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, the farthest turned first."""
        rows = np.flatnonzero(self.away)
        rows = rows[np.argsort(-self.turn[rows], kind="stable")]
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "heading": self.heading,
            "asked": self.asked,
            "answerable": int(self.answerable.sum()),
            "away": len(rows),
            "unknown": int(self.unknown.sum()),
            "positives": {"pairs": self.positives[0], "away": self.positives[1]},
            "list": [
                {
                    "query": self.names[row],
                    "smallest turn": round(float(self.turn[row]), 3),
                    "nearest metres": None if np.isnan(self.distance[row]) else round(float(self.distance[row]), 3),
                }
                for row in rows.tolist()
            ],
        }
        if self.nothing is not None:
            found["similarity 0"] = {
                "queries": int(self.nothing.sum()),
                "list": [self.names[row] for row in np.flatnonzero(self.nothing).tolist()],
            }
        return found


def facing_away(scene: Scene, protocol: str | Protocol = "radius/25", *, heading: float = 90.0, labels: Labels | None = None) -> FacingAway:
    """Find the queries all of whose positives look more than `heading` degrees away.

    A protocol by distance calls a database image correct that looks the other way: it shows the other side of the street. A query
    that has only such positives is in the denominator, and nothing that it shows is in them. With labels the queries are found too
    all of whose positives share nothing (similarity 0).

    Args:
        scene: with headings, or poses. Panoramas look everywhere.
        protocol: says who is asked and what is positive; of single images.
        heading: degrees in [0, 180].
        labels: of the scene.

    Raises:
        InvalidInputError: there are no headings and no poses, the protocol is of windows, or `heading` is out of its range; and
            as of `covis.truths.truth`.

    >>> from covis.images import Images
    >>> there = Images("r", ["a.jpg"], xy=[[0, 0]], heading=[180])
    >>> asked = Images("r", ["q.jpg", "p.jpg"], xy=[[3, 4], [0, 1]], heading=[10, 170])
    >>> facing_away(Scene("s", "test", there, asked), "radius/25").away.tolist()
    [True, False]
    """
    rule = protocol if isinstance(protocol, Protocol) else protocol_by_name(protocol)
    check_rule(rule, heading)
    pairing = Pairing.of(scene.queries, scene.database)
    if not pairing.turned:
        raise InvalidInputError(f"The images of scene {scene.name!r} must have headings or poses for this; the layout gives none.")
    found = truth(scene, rule, labels)
    rows, columns = (one.astype(np.int64) for one in sparse.coo_array(found.positives).coords)
    turns, count = pairing.turns(rows, columns), len(scene.queries)
    turn = _least(rows, turns, count)
    known = np.isfinite(turns)
    lacking = np.bincount(rows[~known], minlength=count) > 0
    same_way = turn <= heading + TIE  # NaN is not
    nothing = None
    if labels is not None and rule.positive != "similarity":
        nothing = _share_nothing(found.positives, labels, found.answerable)
    return FacingAway(
        rule.name,
        heading,
        scene.queries.names,
        found.answerable,
        int(found.asked.sum()),
        turn,
        found.answerable & ~same_way & ~lacking,
        found.answerable & ~same_way & lacking,
        (len(rows), int((turns[known] > heading + TIE).sum())),
        _least(rows, pairing.distances(rows, columns), count),
        nothing,
    )


def check_rule(rule: Protocol, heading: float) -> None:
    """Refuse a protocol or a turn by which nothing can face away.

    Raises:
        InvalidInputError: the protocol is of windows, or `heading` is out of its range.
    """
    if not 0 <= heading <= 180:
        raise InvalidInputError(f"heading must be degrees in [0, 180]; got {heading}.")
    if tuple(rule.windows) != (1, 1):
        raise InvalidInputError(f"Queries that face away are found among single images; the protocol {rule.name} is of windows.")


def _least(rows: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count,) the least known value of each row, NaN where there is none."""
    least = np.full(count, np.inf)
    known = np.isfinite(values)
    np.minimum.at(least, rows[known], values[known])
    return np.where(np.isinf(least), np.nan, least)


def _share_nothing(positives: sparse.csr_array, labels: Labels, answerable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which answerable queries have graded positives, all of similarity 0."""
    graded = sparse.csr_array(positives, dtype=np.int32)
    if labels.excluded is not None:
        graded = sparse.csr_array(graded - graded.multiply(labels.excluded))
        graded.eliminate_zeros()
    shared = sparse.csr_array(graded.multiply(labels.matrix > TIE))
    shared.eliminate_zeros()
    return np.asarray(answerable & (np.diff(graded.indptr) > 0) & (np.diff(shared.indptr) == 0))
