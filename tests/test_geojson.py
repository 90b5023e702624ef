"""GeoJSON: positions that a map agrees with, names that survive, and nothing that is not JSON."""

import itertools
import json
import math

import numpy as np
import polars as pl
import pyproj
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covis.coordinates import common_zone, to_metres
from covis.errors import InvalidInputError, OutputExistsError, OutputFailedError
from covis.images import Images, Scene
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.reports.geojson import write_geojson
from covis.scores import Scores
from covis.truths import join

UTM = "EPSG:32633"
NAN = float("nan")


def side(names, latitude, longitude, *, crs=UTM, **columns):
    return Images("photos", names, xy=to_metres(latitude, longitude, crs=crs), crs=crs, **columns)


def scene(name="copenhagen"):
    """Two queries and three database images around 55.7 north, 12.6 east; the second query is at the third image."""
    database = side(["a.jpg", "b.jpg", "c.jpg"], [55.70, 55.71, 55.72], [12.60, 12.61, 12.62], heading=[0, 90.5, NAN])
    queries = side(["q 0.jpg", "q1.jpg"], [55.7005, 55.72], [12.60, 12.62], heading=[45, NAN])
    return Scene(name, "test", database, queries)


def found_in(one, rows=((0, 1), (2, -1))):
    rows = np.array(rows)
    return Rankings(rows, np.full(rows.shape, NAN), one.queries.names, one.database.names)


def scores_of(columns, queries):
    return Scores(protocol("graded/0.5"), {}, tuple(queries), {name: np.array(values, dtype=float) for name, values in columns.items()})


def read(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def of_side(collection, which):
    return [feature for feature in collection["features"] if feature["properties"]["side"] == which]


def valid(collection):
    """What RFC 7946 asks of a collection, checked member by member."""
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    for feature in collection["features"]:
        assert feature.keys() == {"type", "geometry", "properties"}
        assert feature["type"] == "Feature"
        geometry = feature["geometry"]
        assert geometry.keys() == {"type", "coordinates"}
        depth = {"Point": 0, "LineString": 1, "MultiLineString": 2}[geometry["type"]]
        positions = [geometry["coordinates"]]
        for _ in range(depth):
            positions = [position for part in positions for position in part]
        if depth:
            lines = [geometry["coordinates"]] if depth == 1 else geometry["coordinates"]
            assert all(len(line) >= 2 for line in lines)
            assert all(abs(a[0] - b[0]) <= 180 for line in lines for a, b in itertools.pairwise(line))
        for longitude, latitude in positions:
            assert -180 <= longitude <= 180
            assert -90 <= latitude <= 90
            assert round(longitude, 7) == longitude
            assert round(latitude, 7) == latitude
    return collection


def test_points_are_where_the_images_were(tmp_path):
    out = write_geojson(scene(), tmp_path / "map.geojson")
    assert out == tmp_path / "map.geojson"
    collection = valid(read(out))
    assert [feature["geometry"] for feature in of_side(collection, "query")] == [
        {"type": "Point", "coordinates": [12.6, 55.7005]},
        {"type": "Point", "coordinates": [12.62, 55.72]},
    ]
    assert [feature["geometry"]["coordinates"] for feature in of_side(collection, "database")] == [
        [12.6, 55.7], [12.61, 55.71], [12.62, 55.72],
    ]  # fmt: skip
    assert [feature["properties"] for feature in collection["features"]] == [
        {"name": "a.jpg", "scene": "copenhagen", "side": "database", "heading": 0},
        {"name": "b.jpg", "scene": "copenhagen", "side": "database", "heading": 90.5},
        {"name": "c.jpg", "scene": "copenhagen", "side": "database", "heading": None},
        {"name": "q 0.jpg", "scene": "copenhagen", "side": "query", "heading": 45},
        {"name": "q1.jpg", "scene": "copenhagen", "side": "query", "heading": None},
    ]


def test_a_line_leads_from_a_query_to_its_best_match(tmp_path):
    one = scene()
    collection = valid(read(write_geojson([one], tmp_path / "map.geojson", rankings=[found_in(one)], k=2)))
    first, second = of_side(collection, "match")
    assert first["geometry"] == {"type": "LineString", "coordinates": [[12.6, 55.7005], [12.6, 55.7]]}
    assert (first["properties"]["name"], first["properties"]["found"]) == ("q 0.jpg", "a.jpg")
    assert second["geometry"]["coordinates"] == [[12.62, 55.72]] * 2
    assert second["properties"]["metres"] == 0
    ellipsoid = pyproj.Geod(ellps="WGS84").inv(12.6, 55.7005, 12.6, 55.7)[2]
    assert first["properties"]["metres"] == pytest.approx(ellipsoid, rel=2e-3)  # a map's metre is not quite the ground's
    query, other = (feature["properties"] for feature in of_side(collection, "query"))
    xy, there = one.queries.xy[0], one.database.xy
    assert query["found"] == ["a.jpg", "b.jpg"]
    assert query["metres"] == [round(math.hypot(*(there[row] - xy)), 3) for row in (0, 1)]
    assert (other["found"], other["metres"]) == (["c.jpg", None], [0, None])


def test_a_best_match_that_is_no_image_of_the_database_has_no_line(tmp_path):
    one = scene()
    found = found_in(one, [(-1, 0), (1, 2)])
    collection = valid(read(write_geojson(one, tmp_path / "map.geojson", rankings=found)))
    assert [feature["properties"]["name"] for feature in of_side(collection, "match")] == ["q1.jpg"]
    assert [feature["properties"]["found"] for feature in of_side(collection, "query")] == [[None], ["b.jpg"]]


def test_values_stand_beside_their_query_and_nan_is_null(tmp_path):
    one = scene()
    scores = scores_of({"recall@1": [1, NAN], "error": [12.5, NAN]}, one.queries.names)
    collection = valid(read(write_geojson(one, tmp_path / "map.geojson", rankings=found_in(one), scores=scores)))
    for which in ("query", "match"):
        first, second = (feature["properties"] for feature in of_side(collection, which))
        assert (first["recall@1"], first["error"]) == (1, 12.5)
        assert (second["recall@1"], second["error"]) == (None, None)
    assert "recall@1" not in of_side(collection, "database")[0]["properties"]
    assert collection["protocol"]["name"] == "graded/0.5"
    assert "protocol" not in read(write_geojson(one, tmp_path / "bare.geojson"))


def test_rankings_and_scores_of_some_queries_leave_the_others_empty(tmp_path):
    one = scene()
    some = Rankings([[1]], [[NAN]], ("q1.jpg",), ("c.jpg", "a.jpg"))
    collection = valid(read(write_geojson(one, tmp_path / "m.geojson", rankings=some, scores=scores_of({"recall@1": [1]}, ["q1.jpg"]))))
    first, second = (feature["properties"] for feature in of_side(collection, "query"))
    assert (first["found"], first["metres"], first["recall@1"]) == ([], [], None)
    assert (second["found"], second["recall@1"]) == (["a.jpg"], 1)
    (match,) = of_side(collection, "match")
    assert match["geometry"]["coordinates"] == [[12.62, 55.72], [12.6, 55.7]]


def test_scenes_share_a_map_and_keep_their_values_apart(tmp_path):
    one, other = scene("one"), scene("other")
    names = [f"{each.name}/{name}" for each in (one, other) for name in each.queries.names]
    scores = scores_of({"recall@1": [1, 2, 3, 4]}, names)
    collection = valid(read(write_geojson([one, other], tmp_path / "m.geojson", scores=scores)))
    found = {(f["properties"]["scene"], f["properties"]["name"]): f["properties"]["recall@1"] for f in of_side(collection, "query")}
    assert found == {("one", "q 0.jpg"): 1, ("one", "q1.jpg"): 2, ("other", "q 0.jpg"): 3, ("other", "q1.jpg"): 4}


def city(name, latitude, longitude, crs):
    """Three frames a side, a hundredth of a degree apart, in folders of their own."""
    north = latitude + np.arange(3) / 100
    columns = {"sequence": ["s"] * 3, "frame": range(3)}
    sides = [side([f"{which}/{i}.jpg" for i in range(3)], north, [longitude] * 3, crs=crs, **columns) for which in ("database", "query")]
    return Scene(name, "val", *(Images(f"photos/{name}", one.names, xy=one.xy, crs=crs, **columns) for one in sides))


def test_names_may_be_keys_and_sequences_stand_at_their_middle_frame(tmp_path):
    one = city("cph", 55.7, 12.6, UTM)
    found = Rankings([[1, 0]], [[NAN, NAN]], ("query/0.jpg,query/1.jpg,query/2.jpg",), ("0,1,2", "2"))
    scores = scores_of({"recall@1": [1]}, ["query/0.jpg,query/1.jpg,query/2.jpg"])
    collection = valid(read(write_geojson(one, tmp_path / "m.geojson", rankings=found, scores=scores, k=2)))
    (match,) = of_side(collection, "match")
    assert match["geometry"]["coordinates"] == [[12.6, 55.71], [12.6, 55.72]]
    before, query, after = (feature["properties"] for feature in of_side(collection, "query"))
    assert (query["name"], query["found"], query["recall@1"]) == ("query/1.jpg", ["database/2.jpg", "database/1.jpg"], 1)
    assert query["metres"] == [pytest.approx(1113, rel=0.01), 0]
    assert before["found"] == after["found"] == []
    assert before["recall@1"] is None


ACROSS = pyproj.Geod(ellps="WGS84").inv(12.6, 55.71, 10.2, 56.16)[2]


@pytest.mark.parametrize(("frame", "metres"), [("EPSG:32632", None), (UTM, pytest.approx(ACROSS, rel=5e-3))])
def test_one_ranking_over_all_scenes_may_cross_them(tmp_path, frame, metres):
    cities = [city("cph", 55.7, 12.6, UTM), city("aarhus", 56.15, 10.2, frame)]
    whole = join(cities)
    found = Rankings([[4, 0]], [[0.5, 0.6]], (whole.queries.names[1],), whole.database.names)
    scores = scores_of({"recall@1": [0]}, ["cph/query/1.jpg"])
    collection = valid(read(write_geojson(cities, tmp_path / "m.geojson", rankings=found, scores=scores, k=2)))
    (match,) = of_side(collection, "match")
    assert match["geometry"]["coordinates"] == [[12.6, 55.71], [10.2, 56.16]]
    query = of_side(collection, "query")[1]["properties"]
    assert query["found"] == ["aarhus/database/1.jpg", "cph/database/0.jpg"]
    assert query["metres"] == [metres, pytest.approx(1113, rel=0.01)]
    assert query["recall@1"] == match["properties"]["recall@1"] == 0
    assert len(of_side(collection, "database")) == len(of_side(collection, "query")) == 6


def test_the_database_can_be_left_out(tmp_path):
    one = scene()
    collection = valid(read(write_geojson(one, tmp_path / "m.geojson", rankings=found_in(one), database=False)))
    assert not of_side(collection, "database")
    assert len(of_side(collection, "match")) == 2
    blind = Scene("x", "test", Images("r", ["a.jpg"], crs=UTM), one.queries)
    assert len(read(write_geojson(blind, tmp_path / "blind.geojson", database=False))["features"]) == 2
    assert read(write_geojson([], tmp_path / "none.geojson"))["features"] == []


def test_a_feature_has_a_line_of_its_own(tmp_path):
    lines = write_geojson(scene(), tmp_path / "m.geojson").read_text().splitlines()
    assert len(lines) == 7
    assert all(json.loads(line.removesuffix(","))["type"] == "Feature" for line in lines[1:-1])


@pytest.mark.parametrize(
    ("start", "end", "cut"),
    [
        (179.9, -179.8, [[[179.9, -17.0], [180.0, -16.9]], [[-180.0, -16.9], [-179.8, -16.7]]]),
        (-179.8, 179.9, [[[-179.8, -17.0], [-180.0, -16.8]], [[180.0, -16.8], [179.9, -16.7]]]),
        (179.9, 179.8, [[179.9, -17.0], [179.8, -16.7]]),
    ],
)
def test_a_line_across_the_antimeridian_is_cut_there(tmp_path, start, end, cut):
    """Fiji lies on both sides of 180 degrees; an uncut line would run around the world."""
    crs = "EPSG:3832"
    one = Scene("fiji", "test", side(["d"], [-16.7], [end], crs=crs), side(["q"], [-17.0], [start], crs=crs))
    collection = valid(read(write_geojson(one, tmp_path / "m.geojson", rankings=found_in(one, [(0,)]))))
    (line,) = of_side(collection, "match")
    assert line["geometry"]["coordinates"] == cut
    assert line["properties"]["metres"] < 60_000


def test_there_is_no_minus_zero(tmp_path):
    crs = "EPSG:3857"
    images = Images("r", ["a", "b"], xy=[[-1e-9, -1e-9], [0, 0]], crs=crs)
    out = write_geojson(Scene("null island", "test", images, images), tmp_path / "m.geojson")
    assert "-0.0" not in out.read_text()
    valid(read(out))


NAMES = st.text(st.characters(exclude_characters="\n"), min_size=1, max_size=12)  # lone surrogates too: file names that are no UTF-8


@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), metric=NAMES.map(lambda text: f"{text}@1"))
@example(names=["caf\udce9.jpg", 'a "b"\\c\u2028.jpg', "</script>.jpg"], metric="é@1")
def test_every_name_comes_back(tmp_path_factory, names, metric):
    images = side(names, [55.7] * len(names), [12.6] * len(names))
    one = Scene("ü", "test", images, images)
    out = tmp_path_factory.mktemp("m") / "m.geojson"
    write_geojson(one, out, rankings=found_in(one, [[0]] * len(names)), scores=scores_of({metric: [0.5] * len(names)}, names))
    collection = valid(read(out))
    assert [feature["properties"]["name"] for feature in of_side(collection, "query")] == names
    assert {feature["properties"]["found"] for feature in of_side(collection, "match")} == {names[0]}
    assert all(feature["properties"][metric] == 0.5 for feature in of_side(collection, "query"))


def test_names_are_legible(tmp_path):
    images = side(['Ærø "1".jpg'], [55.7], [12.6])
    assert "Ærø" in write_geojson(Scene("x", "test", images, images), tmp_path / "m.geojson").read_text(encoding="utf-8")


# -- refusals --


@pytest.mark.parametrize(
    ("queries", "database", "what"),
    [
        (Images("r", ["q"], xy=[[5e5, 6e6]]), Images("r", ["d"], xy=[[5e5, 6e6]]), "queries of scene 's' have no frame"),
        (Images("r", ["q"], crs=UTM), Images("r", ["d"], xy=[[5e5, 6e6]], crs=UTM), r"queries of scene 's' have no positions \(xy\)\."),
        (Images("r", ["q"], xy=[[5e5, 6e6]], crs=UTM), Images("r", ["d"], crs=UTM), r"database of scene 's' have no positions \(xy\)\."),
        (Images("r", ["q"]), Images("r", ["d"]), "no positions .xy. and no frame"),
        (
            Images("r", ["q"], xy=[[5e5, 6e6]], crs="UTM 33"),
            Images("r", ["d"], crs="UTM 33"),
            "queries of scene 's' cannot be drawn.*'UTM 33'",
        ),
        (Images("r", ["q"], xy=[[1e30, 0]], crs=UTM), Images("r", ["d"], crs=UTM), "cannot be drawn.*within the frame"),
    ],
)
def test_positions_in_a_known_frame_are_needed(tmp_path, queries, database, what):
    with pytest.raises(InvalidInputError, match=what):
        write_geojson(Scene("s", "test", database, queries), tmp_path / "m.geojson")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    one, out = scene(), tmp_path / "m.geojson"
    strange = Rankings([[0]], [[NAN]], ("other.jpg",), one.database.names)
    stranger = Rankings([[0]], [[NAN]], ("q1.jpg",), ("z.jpg",))
    names = one.queries.names
    for options, what in (
        ({"rankings": []}, "got 0 for 1 scenes"),
        ({"rankings": strange}, "queries must be those of scene 'copenhagen', by name or by key; 'other.jpg' is none"),
        ({"rankings": stranger}, "database of scene 'copenhagen', by name or by key; 'z.jpg' is none"),
        ({"rankings": found_in(one), "k": 0}, "k must be from 1 to 2.*got 0"),
        ({"rankings": found_in(one), "k": 3}, "k must be from 1 to 2.*got 3"),
        ({"scores": scores_of({"x": [1]}, ["oslo/q7.jpg"])}, "Scores must be of the queries of these scenes.*'oslo/q7.jpg' is none"),
        ({"scores": scores_of({"side": [1, 1]}, names)}, "must not be called .* found 'side'"),
        ({"scores": scores_of({"error": [1, np.inf]}, names)}, "per-query error must be finite"),
    ):
        with pytest.raises(InvalidInputError, match=what):
            write_geojson(one, out, **options)
    with pytest.raises(InvalidInputError, match="'copenhagen' stands twice"):
        write_geojson([one, scene()], out)
    for query in ("oslo/q1.jpg", "q1.jpg"):
        with pytest.raises(InvalidInputError, match=f"'{query}' is of none of them"):
            write_geojson([one, scene("other")], out, scores=scores_of({"x": [1]}, [query]))
    with pytest.raises(InvalidInputError, match=r"'q1\.jpg' is of none of them"):
        write_geojson([], out, scores=scores_of({"x": [1]}, ["q1.jpg"]))
    with pytest.raises(InvalidInputError, match="got 2 for 3 scenes"):
        write_geojson([one, scene("b"), scene("c")], out, rankings=[found_in(one)] * 2)
    with pytest.raises(InvalidInputError, match="got 1 for 0 scenes"):
        write_geojson([], out, rankings=found_in(one))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked_and_nothing_half_written(tmp_path, full_disk):
    out = write_geojson(scene(), tmp_path / "m.geojson")
    before = out.read_text()
    with pytest.raises(OutputExistsError):
        write_geojson(scene("other"), out)
    with full_disk(300), pytest.raises(OutputFailedError):
        write_geojson(scene("other"), out, overwrite=True)
    assert out.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.geojson"]
    assert "other" in write_geojson(scene("other"), out, overwrite=True).read_text()


def test_real_positions_come_back(covis_data, tmp_path):
    """A campus by phone: degrees to metres, and onto the map as they were, to the seventh decimal."""
    table = pl.read_csv(covis_data / "campus" / "gt.csv", has_header=False, new_columns=["name", "latitude", "longitude"])
    crs, _ = common_zone(table["latitude"], table["longitude"])
    images = side(table["name"].to_list(), table["latitude"], table["longitude"], crs=crs)
    collection = valid(read(write_geojson(Scene("campus", "test", images, images), tmp_path / "m.geojson", database=False)))
    found = [feature["geometry"]["coordinates"] for feature in of_side(collection, "query")]
    np.testing.assert_allclose(found, table.select("longitude", "latitude").to_numpy(), rtol=0, atol=0.6e-7)
    assert len(found) > 100
