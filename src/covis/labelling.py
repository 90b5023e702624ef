"""The rules that grade how much two images see of the same place: by view, by surface, by distance.

Each is `(queries, database, *, …) -> Labels`, sparse from the start: nothing of size queries × database is ever made. An image
with itself (the same file on both sides) is excluded: never a pair.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from covis.errors import CovisWarning, InvalidInputError
from covis.geometry import ground_heading
from covis.images import Images
from covis.labels import Labels, self_pairs
from covis.neighbours import Neighbours
from covis.rasters import read_depth
from covis.sectors import Measure, Sectors, overlaps
from covis.surfaces import Overlap, View, reprojection_overlap, voxel_overlap

Handling: TypeAlias = Literal["stop", "all-round", "exclude"]
MOST_EXCLUDED = 100_000_000
"""Pairs that labels list as no pairs, at most: about 40 bytes each while they are made."""
BLOCK = 500_000
"""Candidate pairs in memory at once and core."""


def label_by_view(
    queries: Images,
    database: Images,
    *,
    fov: float = 90.0,
    reach: float = 50.0,
    overlap: Measure = "iou",
    max_heading_difference: float | None = None,
    panoramas: Handling = "exclude",
    without_heading: Handling = "stop",
    block: int = BLOCK,
) -> Labels:
    """Grade pairs by the overlap of their view sectors: position, heading, opening angle and reach.

    The area is exact (`covis.sectors`). Images that face each other share ground too, though they see opposite sides of
    it: only the position, heading and opening are known here; `max_heading_difference=90` leaves such pairs out.

    Args:
        queries: with `xy` and `heading`, or `pose`: the position is then the camera's and the heading its optical axis
            projected on the ground (x east, y north, z up). In one coordinate frame with the database.
        database: likewise.
        fov: opening angle of images whose table gives none, degrees in (0, 360].
        reach: how far images see whose table gives none, metres. 50 with 90 degrees is GCL's choice for streets.
        overlap: "iou", or "fraction" of the query's sector.
        max_heading_difference: pairs that turn further apart share nothing, degrees (all-round views pass); None: no gate.
        panoramas: images flagged "panorama": "exclude" (never a pair, as in the reference), "all-round" (a full circle, so that they
            overlap by position alone), or "stop".
        without_heading: images whose heading is unknown: "stop", "exclude", or "all-round".
        block: candidate pairs in memory at once and core; the result does not depend on it.

    Returns:
        Labels with the rule "view" and these parameters.

    Raises:
        InvalidInputError: positions or headings are absent, a parameter is out of its range, or `without_heading` or `panoramas` is
            "stop" and there are such images.

    Follows methods A.2.1 of GCL.

    >>> here = Images("r", ["q.jpg"], xy=[[0.0, 0.0]], heading=[0.0])
    >>> there = Images("r", ["a.jpg", "b.jpg"], xy=[[0.0, 10.0], [0.0, 0.0]], heading=[0.0, 30.0])
    >>> label_by_view(here, there).matrix.toarray().round(3)
    array([[0.5, 0.5]])
    """
    _check_frames(queries, database)
    if overlap not in ("iou", "fraction"):
        raise InvalidInputError(f"The overlap of the rule 'view' must be 'iou' or 'fraction'; got {overlap!r}.")
    asked, left_out = _sectors(queries, fov=fov, reach=reach, panoramas=panoramas, without_heading=without_heading)
    same = queries is database
    searched, also_left_out = (
        (asked, left_out) if same else _sectors(database, fov=fov, reach=reach, panoramas=panoramas, without_heading=without_heading)
    )
    found = overlaps(asked, searched, measure=overlap, max_heading_difference=max_heading_difference, block=block)
    parameters = {
        "fov": fov if queries.fov is None or database.fov is None else "per image",
        "reach": reach if queries.reach is None or database.reach is None else "per image",
        "overlap": overlap,
        "max_heading_difference": max_heading_difference,
        "panoramas": panoramas,
        "without_heading": without_heading,
        "left_out": {"queries": int(left_out.sum()), "database": int(also_left_out.sum())},
    }
    return Labels(
        sparse.csr_array((found.values, (found.rows, found.columns)), shape=(len(queries), len(database))),
        queries.names,
        database.names,
        rule="view",
        parameters=parameters,
        excluded=_excluded(queries, database, left_out, also_left_out),
    )


def label_by_distance(
    queries: Images,
    database: Images,
    *,
    half: float = 25.0,
    decay: Literal["linear", "exponential", "step"] = "linear",
    max_heading_difference: float | None = None,
    panoramas: Literal["keep", "exclude"] = "keep",
    cut: float = 0.01,
    block: int = BLOCK,
) -> Labels:
    """Grade pairs by the distance of their positions, for sets without headings; or call them similar or not, as the field does.

    Similarity is 1 at 0 m and ½ at `half`: linear, 1 - d / (2 half), is 0 from 2 half on; exponential, 2^(-d / half), is
    taken for 0 below `cut`. With half = 25 the pairs of at least ½ are those that the field's 25 m radius counts as correct.
    Step: 1 up to and including `half`, 0 beyond; with 25 m and `max_heading_difference=40` it is MSLS's binary label, on
    which the contrastive baseline learns.

    Args:
        queries: with `xy` (or `pose`), in one coordinate frame with the database.
        database: likewise.
        half: metres at which the similarity is ½.
        decay: "linear", "exponential" or "step".
        max_heading_difference: pairs that turn further apart are not similar, degrees in [0, 180]; None: headings are not looked at.
        panoramas: images flagged "panorama": "keep" them, or "exclude" them: never a pair, as in the reference of GCL.
        cut: least similarity of the exponential decay that is kept, in (0, ½].
        block: candidate pairs in memory at once and core; the result does not depend on it.

    Returns:
        Labels with the rule "distance" and these parameters.

    Raises:
        InvalidInputError: positions are absent, a parameter is out of its range, or headings are asked for and an image has none.

    >>> here = Images("r", ["q.jpg"], xy=[[0.0, 0.0]])
    >>> there = Images("r", ["a.jpg", "b.jpg", "c.jpg"], xy=[[0.0, 0.0], [25.0, 0.0], [50.0, 0.0]])
    >>> label_by_distance(here, there).matrix.toarray()
    array([[1. , 0.5, 0. ]])
    """
    _check_frames(queries, database)
    if not all(isinstance(value, (int, float)) for value in (half, cut)):
        raise InvalidInputError(f"half and cut must be numbers; got {half!r} and {cut!r}.")
    if not (half > 0 and np.isfinite(half)) or not 0 < cut <= 0.5 or block < 1:
        raise InvalidInputError(f"half must be > 0 metres, cut in (0, 0.5] and block >= 1; got {half}, {cut} and {block}.")
    farthest = {"linear": 2 * half, "exponential": half * np.log2(1 / cut), "step": half}
    if decay not in farthest:
        raise InvalidInputError(f"The decay of the rule 'distance' must be one of {', '.join(map(repr, farthest))}; got {decay!r}.")
    if panoramas not in ("keep", "exclude"):
        raise InvalidInputError(f"panoramas must be 'keep' or 'exclude'; got {panoramas!r}.")
    asked, searched = _positions(queries), _positions(database)
    left_out = [_panoramas(images) & (panoramas == "exclude") for images in (queries, database)]
    turned = None if max_heading_difference is None else _Turned(queries, database, max_heading_difference, left_out=left_out)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    if len(asked) and len(searched):
        near = Neighbours(asked, searched, farthest[decay])

        def graded(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
            row, column = near.pairs(rows)
            if turned is not None:
                kept = turned.within(row, column)
                row, column = row[kept], column[kept]
            return row, column, _decayed(near.distances(row, column) / half, decay)

        parts = near.each(graded, block=block)
    rows, columns, values = (np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, dtype=int) for i in range(3))
    parameters: dict[str, Any] = {"half": half, "decay": decay} | ({"cut": cut} if decay == "exponential" else {})
    parameters |= {} if max_heading_difference is None else {"max_heading_difference": max_heading_difference}
    parameters |= {} if panoramas == "keep" else {"panoramas": panoramas}
    return Labels(
        sparse.csr_array((values, (rows, columns)), shape=(len(queries), len(database))),
        queries.names,
        database.names,
        rule="distance",
        parameters=parameters,
        excluded=_excluded(queries, database, *left_out),
    )


def label_by_surface(
    queries: Images,
    database: Images,
    *,
    method: Literal["reprojection", "voxels"] = "reprojection",
    nearest: float = 0.1,
    reach: float = 6.0,
    tolerance: float = 0.05,
    relative_tolerance: float = 0.01,
    voxel: float = 0.1,
    step: int | None = None,
    overlap: Overlap = "iou",
) -> Labels:
    """Grade pairs by the 3D surface that both depth images see.

    "reprojection" carries each view's depth into the other, with an occlusion test, each pixel weighted by the surface
    that it covers; it holds in rooms and in streets, and is the default because its parameters are errors of
    measurement, not a choice of resolution. "voxels" intersects sets of voxels: faster, for rooms, and the number
    depends on the voxel's edge (in the 7-Scenes kitchen 2 of 125 queries have a positive at 2 cm, 95 at 20 cm).

    Args:
        queries: with depth, pose and intrinsics, in one coordinate frame with the database. The same object as
            `database` for a training scene: all pairs of one set, each image with itself excluded.
        database: likewise.
        method: see above.
        nearest: least depth that counts, metres.
        reach: largest depth that counts, metres; 6 for a room, 30 for a street.
        tolerance: how far two depths of one surface may differ, metres ("reprojection").
        relative_tolerance: added to it for each metre of depth ("reprojection").
        voxel: edge of a voxel, metres ("voxels").
        step: pixels between two samples of a depth map; default 8 ("reprojection") or 2 ("voxels", which must leave no
            holes: keep step × depth / focal length at half a voxel or less).
        overlap: "iou": intersection over union; "fraction": the share of the query's surface that the database image
            sees too; "database-fraction": the share of the database image's.

    Returns:
        Labels with the rule "surface" and the parameters that the method uses.

    Raises:
        InvalidInputError: images lack depth, pose or intrinsics, a depth map has no pixel in range, or a parameter is
            out of its range.
        MissingFileError: a depth map is not there.
        DamagedFileError: a depth map does not decode.

    Follows methods A.2.3 of GCL (3D surface overlap); the weighting by covered surface is ours.
    """
    for images in (queries, database):
        images.need("depth", "pose", "intrinsics")
    asked = _DepthViews(queries)
    searched = asked if queries is database else _DepthViews(database)
    step = step if step is not None else 2 if method == "voxels" else 8
    parameters: dict[str, Any] = {"method": method, "nearest": nearest, "reach": reach, "step": step, "overlap": overlap}
    if method == "reprojection":
        parameters |= {"tolerance": tolerance, "relative_tolerance": relative_tolerance}
        matrix = reprojection_overlap(
            asked,
            searched,
            nearest=nearest,
            reach=reach,
            tolerance=tolerance,
            relative_tolerance=relative_tolerance,
            step=step,
            overlap=overlap,
        )
    elif method == "voxels":
        parameters |= {"voxel": voxel}
        matrix = voxel_overlap(asked, searched, voxel=voxel, nearest=nearest, reach=reach, step=step, overlap=overlap)
    else:
        raise InvalidInputError(f"The method of the rule 'surface' must be 'reprojection' or 'voxels'; got {method!r}.")
    return Labels(matrix, queries.names, database.names, rule="surface", parameters=parameters, excluded=self_pairs(queries, database))


def fitting_rule(images: Sequence[Images]) -> str:
    """The rule that these images have the data for: "view" with positions and headings, else "surface" with depth, else "distance".

    Images with neither headings nor depth, but with poses, are graded by view.

    Raises:
        InvalidInputError: they have no position at all.

    >>> fitting_rule([Images("r", ["a.jpg"], xy=[[0, 0]], heading=[90])])
    'view'
    """
    if all(one.xy is not None and one.heading is not None for one in images):
        return "view"
    if all(column is not None for one in images for column in (one.depth, one.pose, one.intrinsics)):
        return "surface"
    if all(one.pose is not None or (one.xy is not None and one.heading is not None) for one in images):
        return "view"
    if all(one.xy is not None or one.pose is not None for one in images):
        return "distance"
    where = next(one.root for one in images if one.xy is None and one.pose is None)
    raise InvalidInputError(f"Images must have positions to be labelled; those in {where} have none.")


def _check_frames(queries: Images, database: Images) -> None:
    if queries.crs != database.crs:
        raise InvalidInputError(f"Queries and database must lie in one coordinate frame; got {queries.crs} and {database.crs}.")


def _positions(images: Images) -> NDArray[np.float64]:
    if images.xy is None and images.pose is not None:
        return images.pose[:, :2, 3]
    (xy,) = images.need("xy")
    return np.asarray(xy)


def _decayed(ratio: NDArray[np.float64], decay: str) -> NDArray[np.float64]:
    """Similarity at a distance of `ratio` halves."""
    if decay == "step":
        return (ratio <= 1).astype(np.float64)
    return np.maximum(1 - ratio / 2, 0) if decay == "linear" else np.exp2(-ratio)


class _Turned:
    """Which pairs look in nearly the same direction."""

    def __init__(self, queries: Images, database: Images, most: float, *, left_out: Sequence[NDArray[np.bool_]]) -> None:
        if not 0 <= most <= 180:
            raise InvalidInputError(f"max_heading_difference must be degrees in [0, 180]; got {most}.")
        self.most = most
        self.headings = [_headings(images) for images in (queries, database)]
        for images, heading, out in zip((queries, database), self.headings, left_out, strict=True):
            unknown = np.isnan(heading) & ~out
            if unknown.any():
                raise InvalidInputError(
                    f"Every image in {images.root} must have a heading or a pose where headings are compared; "
                    f"{images.names[int(unknown.argmax())]} has none. Leave out max_heading_difference."
                )

    def within(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) whether each pair turns by no more than the most."""
        apart = np.abs(self.headings[0][row] - self.headings[1][column]) % 360
        return np.asarray(np.minimum(apart, 360 - apart) <= self.most)


def _panoramas(images: Images) -> NDArray[np.bool_]:
    return np.asarray(images.flags.get("panorama", np.zeros(len(images), dtype=bool)))


def _headings(images: Images) -> NDArray[np.float64]:
    """Degrees clockwise from north, of the pose where there is no heading; NaN where there is neither."""
    if images.heading is not None:
        return np.asarray(images.heading)
    return np.full(len(images), np.nan) if images.pose is None else ground_heading(images.pose)


def _sectors(
    images: Images, *, fov: float, reach: float, panoramas: Handling, without_heading: Handling
) -> tuple[Sectors, NDArray[np.bool_]]:
    """The images' sectors, and which images are left out (they keep a sector of no consequence)."""
    xy = _positions(images)
    if images.heading is None and images.pose is not None and len(images) and images.pose[:, 2, 1].mean() > -0.5:
        warnings.warn(
            f"The cameras in {images.root} have headings by their poses alone, and their downward axis does not point down: "
            "x must be east, y north and z up. Label by surface, or turn the poses.",
            CovisWarning,
            stacklevel=3,
        )
    if images.heading is None and images.pose is None and without_heading == "stop":
        raise InvalidInputError(
            f"The images in {images.root} must have headings or poses to be labelled by view; they have none. Label by distance, "
            "or take them as all-round views (without_heading='all-round')."
        )
    heading = _headings(images)
    opening = np.array(np.broadcast_to(fov if images.fov is None else images.fov, (len(images),)), dtype=np.float64)
    panorama = _panoramas(images)
    left_out = np.zeros(len(images), dtype=bool)
    for which, handling, name, what in (
        (panorama, panoramas, "panoramas", "are panoramas"),
        (np.isnan(heading) & ~panorama, without_heading, "without_heading", "have no heading"),
    ):
        if handling not in ("stop", "all-round", "exclude"):
            raise InvalidInputError(f"{name} must be 'stop', 'all-round' or 'exclude'; got {handling!r}.")
        if handling == "stop" and which.any():
            raise InvalidInputError(
                f"{which.sum()} of {len(images)} images in {images.root} {what} ({images.names[int(which.argmax())]} first); take them as "
                f"all-round views ({name}='all-round') or leave them out ({name}='exclude')."
            )
        if handling == "exclude":
            left_out |= which
        else:
            opening[which] = 360.0
    return Sectors.of(
        xy,
        heading=np.where(np.isnan(heading), 0.0, heading),
        fov=opening,
        reach=reach if images.reach is None else images.reach,
    ), left_out


def _excluded(queries: Images, database: Images, asked_out: NDArray[np.bool_], searched_out: NDArray[np.bool_]) -> sparse.csr_array:
    """Self-pairs, and every pair of an image that is left out."""
    excluded = self_pairs(queries, database)
    if not asked_out.any() and not searched_out.any():
        return excluded
    pairs = int(asked_out.sum()) * len(database) + int(searched_out.sum()) * len(queries)
    if pairs > MOST_EXCLUDED:
        raise InvalidInputError(
            f"Leaving out {asked_out.sum():,} queries and {searched_out.sum():,} database images makes {pairs:,} excluded pairs, "
            "too many to keep. Read the data without them (MSLS: panoramas=drop), or take them as all-round views."
        )
    every_row, every_column = np.arange(len(queries)), np.arange(len(database))
    out_rows, out_columns = np.flatnonzero(asked_out), np.flatnonzero(searched_out)
    rows = np.concatenate([np.repeat(out_rows, len(database)), np.repeat(every_row, len(out_columns))])
    columns = np.concatenate([np.tile(every_column, len(out_rows)), np.tile(out_columns, len(queries))])
    both = sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(queries), len(database)))
    return sparse.csr_array(excluded + both)


class _DepthViews(Sequence[View]):
    """The depth views of images, decoded when they are asked for."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[View]: ...
    def __getitem__(self, row: int | slice) -> View | Sequence[View]:
        images = self.images
        if isinstance(row, slice):
            return _DepthViews(images.select(range(*row.indices(len(self)))))
        if not -len(self) <= row < len(self):
            raise IndexError(row)  # what ends a loop over a sequence
        depth, poses, intrinsics = images.need("depth", "pose", "intrinsics")
        path = images.root / depth[row]
        try:
            return View(read_depth(path), poses[row], intrinsics[row])
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error}") from error


LABEL_RULES: dict[str, Callable[..., Labels]] = {"distance": label_by_distance, "surface": label_by_surface, "view": label_by_view}
"""Name -> rule: `(queries, database, *, …) -> Labels`."""
