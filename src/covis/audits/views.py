"""Where images were taken and which way they look, from positions and headings or from poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.images import Images


@dataclass(frozen=True, eq=False)
class Views:
    """Positions and directions of images.

    Attributes:
        centres: (n, 2) metres east and north; of images with poses alone (n, 3); None: unknown.
        heading: (n,) degrees clockwise from north, NaN where unknown; None without headings.
        axis: (n, 3) unit vectors, the optical axes of poses; None where headings are known, or neither is.
        all_round: (n,) bool: a panorama looks everywhere.
    """

    centres: NDArray[np.float64] | None
    heading: NDArray[np.float64] | None
    axis: NDArray[np.float64] | None
    all_round: NDArray[np.bool_]

    @classmethod
    def of(cls, images: Images) -> Views:
        """Those of a table."""
        centres = images.xy
        if centres is None and images.pose is not None:
            centres = images.pose[:, :3, 3]
        axis = images.pose[:, :3, 2] if images.heading is None and images.pose is not None else None
        all_round = np.array(images.flags.get("panorama", np.zeros(len(images), dtype=bool)))
        if images.fov is not None:
            all_round = all_round | (images.fov == 360)
        return cls(centres, images.heading, axis, all_round)


@dataclass(frozen=True, eq=False)
class Pairing:
    """Distances and turns between the images of two tables.

    >>> both = Images("r", ["a", "b"], xy=[[0, 0], [3, 4]], heading=[350, 20])
    >>> pairing = Pairing.of(both, both)
    >>> float(pairing.distances(np.array([0]), np.array([1]))[0]), float(pairing.turns(np.array([0]), np.array([1]))[0])
    (5.0, 30.0)
    """

    queries: Views
    database: Views

    @classmethod
    def of(cls, queries: Images, database: Images) -> Pairing:
        """Of two tables in one frame.

        Raises:
            InvalidInputError: positions of one lie on a plane and those of the other in space.
        """
        a, b = Views.of(queries), Views.of(database)
        if a.centres is not None and b.centres is not None and a.centres.shape[1] != b.centres.shape[1]:
            raise InvalidInputError("Queries and database must both have xy, or both have poses alone; got one of each.")
        return cls(a, b)

    @property
    def placed(self) -> bool:
        """Whether distances are known."""
        return self.queries.centres is not None and self.database.centres is not None

    @property
    def turned(self) -> bool:
        """Whether turns are known, of some images at least."""
        headings = self.queries.heading is not None and self.database.heading is not None
        return headings or (self.queries.axis is not None and self.database.axis is not None)

    def distances(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """(p,) metres between query `rows` and database image `columns`; NaN where positions are not known."""
        if self.queries.centres is None or self.database.centres is None:
            return np.full(np.broadcast(rows, columns).shape, np.nan)
        return np.asarray(np.linalg.norm(self.queries.centres[rows] - self.database.centres[columns], axis=-1))

    def turns(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """(p,) degrees in [0, 180] between their headings, or without headings the optical axes; NaN: unknown; 0: a panorama."""
        if self.queries.heading is not None and self.database.heading is not None:
            apart = np.abs(self.queries.heading[rows] - self.database.heading[columns]) % 360
            apart = np.minimum(apart, 360 - apart)
        elif self.queries.axis is not None and self.database.axis is not None:
            cosine = np.einsum("...i,...i->...", self.queries.axis[rows], self.database.axis[columns])
            apart = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
        else:
            apart = np.full(np.broadcast(rows, columns).shape, np.nan)
        return np.where(self.queries.all_round[rows] | self.database.all_round[columns], 0.0, apart)
