"""Latitude and longitude to metres and back, through pyproj: the only file that imports it.

Metres are east and north in a UTM zone of WGS84, named by its EPSG code ("EPSG:32633"), unless another frame is asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.errors import InvalidInputError

WIDEST = 3.0
"""Degrees of longitude beyond its own 6 that a zone is stretched for a set that spans zones.

At 6 degrees from a zone's central meridian a metre on the map is up to 0.5 % longer than on the ground (0.1 % within the zone).
"""


def utm_zones(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.int64]:
    """The EPSG code of the UTM zone of each position (WGS84), with the exceptions for Norway and Svalbard.

    Args:
        latitude: (n,) degrees, in [-80, 84].
        longitude: (n,) degrees, in [-180, 180].

    Returns:
        (n,) int64: 32601 to 32660 in the north, 32701 to 32760 in the south.

    Raises:
        InvalidInputError: a position is not finite or outside the range; the message names its row.

    >>> utm_zones([55.7, 37.8, -33.9, 60.4], [12.6, -122.4, 151.2, 5.3]).tolist()
    [32633, 32610, 32756, 32632]
    """
    latitude, longitude = _degrees(latitude, longitude)
    zone = np.minimum((longitude + 180) // 6, 59).astype(np.int64) + 1
    zone[(latitude >= 56) & (latitude < 64) & (longitude >= 3) & (longitude < 12)] = 32
    svalbard = (latitude >= 72) & (longitude >= 0) & (longitude < 42)
    zone[svalbard] = 31 + 2 * ((longitude[svalbard] + 3) // 12).astype(np.int64)
    return np.where(latitude >= 0, 32600, 32700) + zone


def common_zone(latitude: ArrayLike, longitude: ArrayLike) -> tuple[str, str | None]:
    """The one frame in which all these positions get their metres, and a remark where they lie in several zones.

    Positions of one zone get that zone. A set that crosses a border gets the zone where most of it lies, as long as the
    zone need not be stretched by more than 3 degrees (a city or a journey at a border); the remark says so.

    Returns:
        (EPSG code, remark or None).

    Raises:
        InvalidInputError: there is no position, or the set spans more than one frame can hold: read its parts one by one.

    >>> common_zone([55.6, 55.7], [11.9, 12.1])
    ('EPSG:32632', '1 of 2 positions lie in another UTM zone (EPSG:32633); metres are those of EPSG:32632, where most lie.')
    """
    latitude, longitude = _degrees(latitude, longitude)
    if not latitude.size:
        raise InvalidInputError("There must be a position to choose a UTM zone by; got none.")
    zones, counts = np.unique(utm_zones(latitude, longitude), return_counts=True)
    chosen = int(zones[np.argmax(counts)])
    if len(zones) == 1:
        return f"EPSG:{chosen}", None
    others = ", ".join(f"EPSG:{zone}" for zone in zones if zone != chosen)
    away = np.abs((longitude - (6 * (chosen % 100) - 183) + 180) % 360 - 180)
    hemispheres = latitude.max() > 1 and latitude.min() < -1
    if away.max() > 3 + WIDEST or hemispheres:
        raise InvalidInputError(
            f"Positions in one frame must lie in one UTM zone, or within {WIDEST:g} degrees of it; these span EPSG:{chosen} and {others}. "
            "Read the parts one by one (a table each), or say which frame to use."
        )
    remark = f"{counts.sum() - counts.max()} of {counts.sum()} positions lie in another UTM zone ({others}); "
    return f"EPSG:{chosen}", remark + f"metres are those of EPSG:{chosen}, where most lie."


def to_metres(latitude: ArrayLike, longitude: ArrayLike, *, crs: str) -> NDArray[np.float64]:
    """(n, 2) metres east and north in the frame `crs` of positions in degrees (WGS84).

    Raises:
        InvalidInputError: a position is outside the globe or the frame, or pyproj does not know the frame.

    >>> to_metres([0.0], [3.0], crs="EPSG:32631").round(3).tolist()
    [[500000.0, 0.0]]
    """
    latitude, longitude = _degrees(latitude, longitude)
    return _finite(np.column_stack(_transformer(crs).transform(longitude, latitude)), crs)


def to_degrees(xy: ArrayLike, *, crs: str | None) -> NDArray[np.float64]:
    """(n, 2) latitude and longitude in degrees (WGS84) of metres in the frame `crs`: the inverse of `to_metres`.

    Raises:
        InvalidInputError: the frame is unknown (None, or not one of pyproj's), or a position lies outside it.

    >>> to_degrees([[500000.0, 0.0]], crs="EPSG:32631").round(6).tolist()
    [[0.0, 3.0]]
    """
    if crs is None:
        raise InvalidInputError("Metres can become latitude and longitude only in a known frame; these images say none (crs).")
    try:
        xy = np.asarray(xy, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"Positions must be numbers; {error}.") from error
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InvalidInputError(f"Positions must be (n, 2), metres east and north; got shape {xy.shape}.")
    longitude, latitude = _transformer(crs).transform(xy[:, 0], xy[:, 1], direction="INVERSE")
    return _finite(np.column_stack([latitude, longitude]), crs)


@lru_cache(maxsize=64)
def _transformer(crs: str) -> Any:
    import pyproj

    try:
        frame = pyproj.CRS.from_user_input(crs)
        if any(axis.unit_name not in ("metre", "meter") for axis in frame.axis_info[:2]):
            raise InvalidInputError(f"A coordinate frame must be in metres, as 'EPSG:32633' is; {crs!r} ({frame.name}) is not.")
        return pyproj.Transformer.from_crs("EPSG:4326", frame, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise InvalidInputError(f"A coordinate frame must be one that pyproj knows, as in 'EPSG:32633'; got {crs!r}.") from error


def _degrees(latitude: ArrayLike, longitude: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        lat, lon = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (latitude, longitude))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"Latitudes and longitudes must be numbers; {error}.") from error
    if lat.ndim != 1 or lat.shape != lon.shape:
        raise InvalidInputError(f"There must be one latitude for each longitude; got shapes {lat.shape} and {lon.shape}.")
    bad = np.flatnonzero(~((lat >= -80) & (lat <= 84) & (lon >= -180) & (lon <= 180)))
    if bad.size:
        raise InvalidInputError(
            f"A position must have a latitude in [-80, 84] and a longitude in [-180, 180] degrees; row {bad[0]} has {lat[bad[0]]}, "
            f"{lon[bad[0]]}. Are the two exchanged, or do they need a scale?"
        )
    return lat, lon


def _finite(values: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise InvalidInputError(f"Every position must lie within the frame {crs}; row {bad[0]} does not.")
    return values
