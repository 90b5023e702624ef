"""Queries, database images and matches on the map, as GeoJSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.coordinates import to_degrees
from covis.errors import InvalidInputError
from covis.files import atomic_path, check_absent
from covis.images import Images, Scene
from covis.predictions import Lookup
from covis.rankings import Rankings
from covis.scores import Scores
from covis.truths import join

DECIMALS = 7
"""Of a degree: about a centimetre."""

PROPERTIES = ("name", "scene", "side", "heading", "found", "metres")

Feature = dict[str, Any]

_LEGIBLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_ESCAPED = json.JSONEncoder(allow_nan=False)


def write_geojson(
    scenes: Scene | Sequence[Scene],
    out: str | Path,
    *,
    rankings: Rankings | Sequence[Rankings] | None = None,
    scores: Scores | None = None,
    k: int = 1,
    database: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write scenes, what was found in them and what it is worth as one GeoJSON FeatureCollection; returns the path.

    As RFC 7946 asks: longitude before latitude, WGS84, no `crs` member, seven decimals; a line across the antimeridian is
    cut there. One feature a line, each of a `side`:

    * "database": a Point for each database image: `name`, `scene`, `side`, `heading` (degrees clockwise from north).
    * "query": a Point for each query, with the same and, where rankings are given, `found` (names of the first `k`, best
      first; `<scene>/<name>` of a joint search) and `metres` (from the query to each); where scores are given, each
      per-query value under its metric's name.
    * "match": a line from a query to the first image found, with `name`, `scene`, `side`, `found`, `metres` of that one and the
      query's values.

    What is unknown is null: a heading, an image found that is not of the database, the distance to one in another frame, the
    value of a query that is not counted. A sequence of frames, as a query or as found, stands where its middle frame does.

    Args:
        scenes: one or more; both sides need positions and a coordinate frame (the database only if it is drawn or searched).
        out: the file, as in "map.geojson".
        rankings: one a scene, or one in all, named as in `covis.truths.join`; of all images or of some. Names match exactly
            or by key (`covis.predictions`). Without rankings there is no match.
        scores: of these scenes' queries or of some of them, as `evaluate` names them.
        k: how many found images to name, from 1 to those that the rankings hold.
        database: write the database's points.
        overwrite: replace a file that is there.

    Raises:
        InvalidInputError: a scene lacks positions or the frame, two scenes share a name, `k` is out of its range, or the
            rankings or scores are of other images.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    drawn = [scenes] if isinstance(scenes, Scene) else list(scenes)
    _check_apart(drawn)
    found = None if rankings is None else _found([rankings] if isinstance(rankings, Rankings) else list(rankings), drawn, k)
    out = check_absent(out, overwrite=overwrite)
    values = _values(scores, drawn)
    places = [_places(scene, both=database or found is not None) for scene in drawn]
    # Whoever reads the values must know by which rule they were made; GeoJSON allows members of one's own.
    head: Feature = {"type": "FeatureCollection"} | ({"protocol": scores.protocol.as_dict()} if scores is not None else {})
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(_json(head)[:-1] + ', "features": [')
        separator = "\n"
        for number in range(len(drawn)):
            for feature in _features(drawn, number, places, values=values[number], found=found, database=database):
                stream.write(separator + _json(feature))
                separator = ",\n"
        stream.write("\n]}\n")
    return out


Places = dict[str, NDArray[np.float64]]
"""Side -> (n, 2) degrees, longitude and latitude, rounded."""

Hit = tuple[str, int, int] | None
"""A name, the number of a scene and the row in its database; None for what is no image of the database."""


def _features(
    scenes: Sequence[Scene],
    number: int,
    places: Sequence[Places],
    *,
    values: Sequence[Feature],
    found: Mapping[tuple[int, int], Sequence[Hit]] | None,
    database: bool,
) -> Iterator[Feature]:
    scene, queries = scenes[number], places[number]["queries"]
    if database:
        for row, name in enumerate(scene.database.names):
            yield _feature(_point(places[number]["database"][row]), _about(scene, "database", row, name))
    for row, name in enumerate(scene.queries.names):
        best = next(iter((found or {}).get((number, row), ())), None)
        if best is not None:
            there, where = places[best[1]]["database"][best[2]], _metres(scenes, (number, row), best)
            match = {"name": name, "scene": scene.name, "side": "match", "found": best[0], "metres": where}
            yield _feature(_line(queries[row], there), match | values[row])
    for row, name in enumerate(scene.queries.names):
        about = _about(scene, "query", row, name)
        if found is not None:
            hits = found.get((number, row), ())
            about["found"] = [hit and hit[0] for hit in hits]
            about["metres"] = [hit and _metres(scenes, (number, row), hit) for hit in hits]
        yield _feature(_point(queries[row]), about | values[row])


def _feature(geometry: Feature, properties: Mapping[str, Any]) -> Feature:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _about(scene: Scene, side: str, row: int, name: str) -> Feature:
    heading = (scene.queries if side == "query" else scene.database).heading
    return {"name": name, "scene": scene.name, "side": side, "heading": None if heading is None else _null(float(heading[row]))}


def _point(position: NDArray[np.float64]) -> Feature:
    return {"type": "Point", "coordinates": position.tolist()}


def _line(start: NDArray[np.float64], end: NDArray[np.float64]) -> Feature:
    """From start to end the short way; a line that crosses the antimeridian is cut into two, as RFC 7946 (3.1.9) advises."""
    (west, south), (east, north) = start.tolist(), end.tolist()
    if abs(east - west) <= 180:
        return {"type": "LineString", "coordinates": [[west, south], [east, north]]}
    edge = math.copysign(180.0, west)
    beyond = east + 2 * edge  # where the end lies, counted on beyond the edge
    crossing = round(south + (north - south) * ((edge - west) / (beyond - west)), DECIMALS) if beyond != west else south
    return {"type": "MultiLineString", "coordinates": [[[west, south], [edge, crossing]], [[-edge, crossing], [east, north]]]}


def _metres(scenes: Sequence[Scene], query: tuple[int, int], hit: tuple[str, int, int]) -> float | None:
    """The distance on the map between a query and a database image, to the millimetre; None where their frames differ."""
    mine, theirs = scenes[query[0]].queries, scenes[hit[1]].database
    if mine.crs != theirs.crs or mine.xy is None or theirs.xy is None:
        return None
    return round(math.dist(mine.xy[query[1]], theirs.xy[hit[2]]), 3)


def _found(ranked: Sequence[Rankings], scenes: Sequence[Scene], k: int) -> dict[tuple[int, int], list[Hit]]:
    """(scene, query's row) -> the first k images found."""
    if len(ranked) not in (1, len(scenes)) or not scenes:
        raise InvalidInputError(f"One ranking a scene, or one over all, must be given; got {len(ranked)} for {len(scenes)} scenes.")
    groups = [[number] for number in range(len(scenes))] if len(ranked) == len(scenes) else [list(range(len(scenes)))]
    hits: dict[tuple[int, int], list[Hit]] = {}
    for found, numbers in zip(ranked, groups, strict=True):
        whole = join([scenes[number] for number in numbers])
        if not 1 <= k <= found.k:
            raise InvalidInputError(f"k must be from 1 to {found.k}, what the ranking of scene {whole.name!r} holds; got {k}.")
        asked = [(number, row) for number in numbers for row in range(len(scenes[number].queries))]
        searched: list[Hit] = [
            (f"{scenes[number].name}/{name}" if len(numbers) > 1 else name, number, row)
            for number in numbers
            for row, name in enumerate(scenes[number].database.names)
        ]
        whose = f"of scene {whole.name!r}"
        rows = _rows(whole.queries.names, found.query_names, f"A ranking's queries must be those {whose}")
        there = _rows(whole.database.names, found.database_names, f"What a ranking found must be of the database {whose}")
        for row, entry in zip(rows, found.rows[:, :k].tolist(), strict=True):
            hits[asked[row]] = [searched[there[one]] if one >= 0 else None for one in entry]
    return hits


def _rows(names: Sequence[str], words: Sequence[str], rule: str) -> list[int]:
    """The row of each word: an image's name or key, or those of a sequence, which stands for its middle frame."""
    if words == names:
        return list(range(len(names)))
    lookup = Lookup(names)
    rows = lookup.rows(words)
    for place in np.flatnonzero(rows < 0).tolist():
        frames = words[place].split(",")
        rows[place] = lookup.rows([frames[len(frames) // 2]])[0]
        if rows[place] < 0:
            raise InvalidInputError(
                f"{rule}, by name or by key; {words[place]!r} is none, or the key of several. Were they made from other data?"
            )
    found: list[int] = rows.tolist()
    return found


def _values(scores: Scores | None, scenes: Sequence[Scene]) -> list[list[Feature]]:
    """For each scene and query metric -> value, None where it is not counted or not asked."""
    columns = {} if scores is None else {name: np.asarray(values, dtype=np.float64) for name, values in scores.per_query.items()}
    taken = [metric for metric in columns if metric in PROPERTIES]
    if taken:
        raise InvalidInputError(f"A metric on a map must not be called {', '.join(PROPERTIES)}; found {taken[0]!r}.")
    infinite = next((metric for metric, values in columns.items() if np.isinf(values).any()), None)
    if infinite is not None:
        raise InvalidInputError(f"The per-query {infinite} must be finite, or NaN for a query that is not counted; one is infinite.")
    values: list[list[Feature]] = [[dict.fromkeys(columns) for _ in scene.queries.names] for scene in scenes]
    for row, place in enumerate(_asked(scores, scenes) if scores is not None else ()):
        values[place[0]][place[1]] = {metric: _null(float(column[row])) for metric, column in columns.items()}
    return values


def _asked(scores: Scores, scenes: Sequence[Scene]) -> list[tuple[int, int]]:
    """The scene and the row of each scored query: `<scene>/<name>` where there are several scenes."""
    numbers = {scene.name: number for number, scene in enumerate(scenes)} if len(scenes) > 1 else {}
    words = [name.partition("/")[::2] if numbers else ("", name) for name in scores.queries]
    places: list[tuple[int, int]] = [(0, 0)] * len(words)
    rule = "Scores must be of the queries of these scenes (all that were evaluated, and no other)"
    stranger = next((query for query, (name, _) in zip(scores.queries, words, strict=True) if numbers and name not in numbers), None)
    if stranger is not None or (words and not scenes):
        raise InvalidInputError(f"{rule}; {stranger or scores.queries[0]!r} is of none of them. Were they made from other data?")
    for number, scene in enumerate(scenes):
        mine = [row for row, (name, _) in enumerate(words) if not numbers or numbers[name] == number]
        for row, found in zip(mine, _rows(scene.queries.names, tuple(words[row][1] for row in mine), rule), strict=True):
            places[row] = number, found
    return places


def _check_apart(scenes: Sequence[Scene]) -> None:
    names = [scene.name for scene in scenes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"The scenes on a map must have different names; {twice!r} stands twice.")


def _places(scene: Scene, *, both: bool) -> Places:
    sides = {"queries": scene.queries} | ({"database": scene.database} if both else {})
    return {side: _degrees(images, f"{side} of scene {scene.name!r}") for side, images in sides.items()}


def _degrees(images: Images, whose: str) -> NDArray[np.float64]:
    if images.xy is None or images.crs is None:
        lacking = " and no ".join(what for what, value in (("positions (xy)", images.xy), ("frame (crs)", images.crs)) if value is None)
        raise InvalidInputError(
            f"A map needs positions in a known coordinate frame; the {whose} have no {lacking}. Read them from a layout that has "
            "latitude and longitude, or say the frame when reading."
        )
    try:
        latitude, longitude = to_degrees(images.xy, crs=images.crs).T
    except InvalidInputError as error:
        raise InvalidInputError(f"The {whose} cannot be drawn. {error}") from error
    return np.round(np.column_stack([longitude, latitude]), DECIMALS) + 0.0  # no "-0.0"


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _json(value: Mapping[str, Any]) -> str:
    text = _LEGIBLE.encode(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is no UTF-8 holds lone surrogates: as escapes they come back as they were
        return _ESCAPED.encode(value)
    return text
