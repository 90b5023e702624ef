"""Plain tables: every column and option, odd and damaged files, real sets, and the inverse."""

import contextlib
import csv
import io
import shutil
import time
import warnings
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from covis.coordinates import to_degrees, to_metres
from covis.datasets.sheets import read_sheet
from covis.datasets.tables import draft_table, read_table, write_table
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene

PLAIN = "name,x,y,heading\na.jpg,1,2,0\nb.jpg,3,4,90\n"


@pytest.fixture
def table(tmp_path):
    """A function that writes a table, and empty files for its images; returns its path."""

    def write(text, *, name="walk.csv", files=()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return path

    return write


def one(path, **options):
    (scene,) = read_table(path, **{"missing": "ignore", **options})
    return scene


def images(path, **options):
    """The images of a table of one side."""
    scene = one(path, **options)
    assert scene.training
    return scene.queries


def alike(a, b):
    """Equal in everything but the roots."""
    return (a.name, a.split) == (b.name, b.split) and all(
        Images("r", x.names, crs=x.crs, flags=x.flags, **x._columns()) == Images("r", y.names, crs=y.crs, flags=y.flags, **y._columns())
        for x, y in ((a.database, b.database), (a.queries, b.queries))
    )


def test_every_column_is_read(table):
    header = "name,x,y,heading,fov,reach,time,sequence,frame,place,depth,segmentation,fx,fy,cx,cy,flag_night,flag_Any thing,remark"
    rows = (
        "b/1.jpg,1.5,-2e3,359.5,60,30,0,007,12,5,1.png,,500,501,320,240,true,No,what else\n"
        "a/2.jpg,.25,+4,,360,0.5,1e9,,-1,9223372036854775807,,x y.png,1,2,3,4,0,YES,\n"
    )
    found = images(table(f"{header}\n{rows}"), crs="EPSG:32633")
    assert found.names == ("b/1.jpg", "a/2.jpg")
    assert found.xy.tolist() == [[1.5, -2000], [0.25, 4]]
    np.testing.assert_array_equal(found.heading, [359.5, np.nan])
    assert (found.fov.tolist(), found.reach.tolist(), found.time.tolist()) == ([60, 360], [30, 0.5], [0, 1e9])
    assert (found.sequence, found.depth, found.segmentation) == (("007", ""), ("1.png", ""), ("", "x y.png"))
    assert (found.frame.tolist(), found.place.tolist()) == ([12, -1], [5, 2**63 - 1])
    assert found.intrinsics.tolist() == [[500, 501, 320, 240], [1, 2, 3, 4]]
    assert {name: flag.tolist() for name, flag in found.flags.items()} == {"night": [True, False], "Any thing": [False, True]}
    assert found.crs == "EPSG:32633"


def test_latitude_and_longitude_become_metres(table):
    path = table("FileName,Longitude,LATITUDE\na.jpg,12.4924,41.8902\nb.jpg,12.4925,41.8902\n", name="rome.csv")
    scene = one(path)
    assert (scene.name, scene.split, scene.queries.crs) == ("rome", "test", "EPSG:32633")
    np.testing.assert_array_equal(scene.queries.xy, to_metres([41.8902] * 2, [12.4924, 12.4925], crs="EPSG:32633"))
    assert np.hypot(*np.diff(scene.queries.xy, axis=0)[0]) == pytest.approx(8.3, abs=0.1)  # 0.0001 degrees at 41.89 north
    forced = images(path, zone="EPSG:32632")
    assert forced.crs == "EPSG:32632"
    np.testing.assert_array_equal(forced.xy, to_metres([41.8902] * 2, [12.4924, 12.4925], crs="EPSG:32632"))
    scaled = images(table("name,lat,lon\na.jpg,41890200,12492400\nb.jpg,41890200,12492500\n"), scale=1e-6)
    np.testing.assert_allclose(scaled.xy, scene.queries.xy, atol=1e-6)
    assert images(table("name,x,y\na.jpg,1,2\n"), scale=10).xy.tolist() == [[10, 20]]


def test_a_set_that_spans_zones_is_handled_or_refused(table):
    near = table("name,lat,lon\na.jpg,55.6,11.99\nb.jpg,55.6,12.01\nc.jpg,55.6,12.02\n")
    with pytest.warns(CovisWarning, match="1 of 3 positions lie in another UTM zone"):
        found = images(near)
    assert found.crs == "EPSG:32633"
    assert np.hypot(*(found.xy[1] - found.xy[0])) == pytest.approx(1260, rel=0.01)
    far = table("name,lat,lon\na.jpg,48.85,2.35\nb.jpg,35.68,139.69\n")
    with pytest.raises(InvalidInputError, match=r"walk\.csv.*one UTM zone.*parts"):
        one(far)
    two = table("name,lat,lon,side\na.jpg,48.85,2.35,db\nb.jpg,35.68,139.69,query\n")
    with pytest.raises(InvalidInputError, match="one UTM zone"):
        one(two)


def test_columns_are_found_by_common_names_or_by_a_map(table):
    path = table("Image_Path;UTM_east;NORTHING;Compass_Angle;Timestamp\na.jpg;1;2;3;4\n")
    found = images(path, delimiter=";")
    assert (found.xy.tolist(), found.heading.tolist(), found.time.tolist()) == ([[1, 2]], [3], [4])
    mapped = images(path, delimiter=";", columns={"name": "Image_Path", "y": "UTM_east", "x": "NORTHING", "flag_a": "UTM_east"})
    assert (mapped.xy.tolist(), mapped.heading, mapped.time, mapped.flags["a"].tolist()) == ([[2, 1]], None, None, [True])


def test_a_table_without_header_has_numbered_columns(table):
    path = table("1.5 a.jpg 7\n2.5 b.jpg 8\n", name="poses.txt")
    found = images(path, header=False, delimiter=" ", columns={"name": "2", "y": "1", "x": "3"})
    assert (found.names, found.xy.tolist()) == (("a.jpg", "b.jpg"), [[7, 1.5], [8, 2.5]])
    with pytest.raises(InvalidInputError, match=r"poses\.txt must have a column with the images' names.*columns.*Columns: 1, 2, 3"):
        read_table(path, header=False, delimiter=" ")


def test_two_sides(table, tmp_path):
    sided = table(
        "name,x,y,side\na.jpg,1,2,Database\nb.jpg,3,4,queries\nc.jpg,5,6,map\nd.jpg,7,8,query\ne.jpg,9,0,reference\nf.jpg,0,0,db\n"
    )
    scene = one(sided)
    assert (scene.database.names, scene.queries.names) == (("a.jpg", "c.jpg", "e.jpg", "f.jpg"), ("b.jpg", "d.jpg"))
    assert scene.queries.xy.tolist() == [[3, 4], [7, 8]]
    (draft,) = draft_table(sided, missing="ignore")
    assert draft.queries.where(1) == f"{sided}, line 5"
    train = one(sided, split="train")
    assert train.training
    assert train.database.names == scene.database.names  # nothing says what teaches, so the queries do not
    assert one(table("name,x,y,side\na.jpg,1,2,db\n")).training

    table("name,x,y\na.jpg,1,2\n", name="set/database.csv")
    pl.DataFrame({"name": ["q.jpg"], "x": [1], "y": [2.5]}).write_parquet(tmp_path / "set" / "queries.parquet")
    scene = one(tmp_path / "set", split="val")
    assert (scene.name, scene.split, scene.database.names, scene.queries.names) == ("set", "val", ("a.jpg",), ("q.jpg",))
    assert one(tmp_path / "set", split="train").queries.names == ("a.jpg",)
    table("name,x,y\nz.jpg,1,2\n", name="set/other.csv")
    assert one(tmp_path / "set" / "database.csv", queries="other.csv").queries.names == ("z.jpg",)
    assert one(tmp_path / "set", queries="other.csv").queries.names == ("z.jpg",)


def test_splits(table):
    path = table(
        "name,x,y,split,side\na.jpg,1,2,Training,db\nb.jpg,1,2,train,query\nc.jpg,1,2,test,db\nd.jpg,1,2,test,query\ne.jpg,1,2,fold 3,db\n"
    )
    assert one(path, split="train").queries.names == one(path, split="train").database.names == ("a.jpg", "b.jpg")
    assert (one(path).database.names, one(path).queries.names) == (("c.jpg",), ("d.jpg",))
    assert one(path, split="fold 3").queries.names == ("e.jpg",)
    with pytest.raises(InvalidInputError, match=r"rows of the split 'val'.*'fold 3', 'test', 'train'"):
        one(path, split="val")
    with pytest.raises(InvalidInputError, match="'train', 'val' or 'test'; got 'tset'"):
        one(table(PLAIN), split="tset")


def test_times_are_seconds_or_iso_8601(table):
    texts = [
        "2020-12-31T23:59:59Z",
        "2020-12-31 23:59:59",
        "2021-01-01T01:59:59+02:00",
        "2021-01-01",
        "86400.5",
        "",
        "1969-12-31T23:59:59.250",
    ]
    found = images(table("name,x,y,time\n" + "".join(f"{row}.jpg,0,0,{text}\n" for row, text in enumerate(texts))))
    new_year = 1609459200
    np.testing.assert_array_equal(found.time, [new_year - 1, new_year - 1, new_year - 1, new_year, 86400.5, np.nan, -0.75])
    with pytest.warns(CovisWarning, match=r"walk\.csv, line 2: 1609459200000 s .* milliseconds"):
        images(table("name,x,y,time\na.jpg,0,0,1609459200000\n"))


def test_times_as_they_are_written(table):
    text = "shot,x,y\n20201231_235959.jpg,0,0\n20210101_000000(0).jpg,1,0\n20210101_000001_edited.jpeg,2,0\n"
    found = images(table(text), columns={"name": "shot", "time": "shot", "x": "x", "y": "y"}, time_format="%Y%m%d_%H%M%S*")
    assert found.names[1] == "20210101_000000(0).jpg"
    np.testing.assert_array_equal(found.time, np.array([-1, 0, 1]) + 1609459200)
    zoned = images(table("name,x,y,time\na.jpg,0,0,1.1.2021 01:00 +0200\nb.jpg,1,0,\n"), time_format="%d.%m.%Y %H:%M %z")
    np.testing.assert_array_equal(zoned.time, [1609459200 - 3600, np.nan])
    numbers = images(table("name,x,y,time\na.jpg,0,0,2021\n"), time_format="%Y")  # not seconds since 1970
    assert numbers.time.tolist() == [1609459200]


def test_a_time_without_a_zone_is_utc_wherever_it_is_read(table, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert images(table("name,x,y,time\na.jpg,0,0,2021-01-01 00:00\n")).time.tolist() == [1609459200]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_empty_headings_and_times_are_unknown_and_360_is_north(table):
    found = images(table("name,x,y,heading,time\na.jpg,1,2,360,\nb.jpg,1,2,,5\nc.jpg,1,2,NaN,nan\nd.jpg,1,2, 45.5 ,6\n"))
    np.testing.assert_array_equal(found.heading, [0, np.nan, np.nan, 45.5])
    np.testing.assert_array_equal(found.time, [np.nan, 5, np.nan, 6])


def plain_pose(quaternion, translation):
    """[R | t] from a quaternion (scalar last), by the textbook's formula."""
    x, y, z, w = quaternion
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array([[*row, t] for row, t in zip(rotation, translation, strict=True)] + [[0, 0, 0, 1]])


@given(seed=st.integers(0, 10**6))
def test_three_conventions_say_one_pose(tmp_path_factory, seed):
    folder, random = tmp_path_factory.mktemp("p"), np.random.default_rng(seed)
    quaternion = Rotation.random(random_state=seed).as_quat()
    centre = random.normal(size=3) * 50
    camera_to_world = plain_pose(quaternion, centre)
    conjugate = quaternion * [-1, -1, -1, 1]
    world_to_camera = [-sum(camera_to_world[k, i] * centre[k] for k in range(3)) for i in range(3)]  # t = -R^T C
    texts = {"c2w": (centre, quaternion), "w2c": (world_to_camera, conjugate), "centre": (centre, conjugate)}
    for pose, (t, q) in texts.items():
        path = folder / f"{pose}.csv"
        path.write_text("name,tx,ty,tz,qx,qy,qz,qw\na.jpg," + ",".join(repr(float(v)) for v in (*t, *q)) + "\n")
        np.testing.assert_allclose(images(path, pose=pose).pose[0], camera_to_world, atol=1e-9)
    path.write_text(
        ",".join(["name", *(f"pose_{i}" for i in range(16))]) + "\na.jpg," + ",".join(map(repr, camera_to_world.ravel().tolist()))
    )
    np.testing.assert_array_equal(images(path).pose[0], camera_to_world)


def test_a_pose_of_extended_cmu(table):
    """name qw qx qy qz and the camera's centre; the numbers of this quarter turn are by hand."""
    path = table("img.jpg 0.7071067811865476 0 0 0.7071067811865476 10 20 30\n")  # world-to-camera: +90 degrees about z
    columns = dict(zip(("name", "qw", "qx", "qy", "qz", "tx", "ty", "tz"), "12345678", strict=True))
    found = images(path, header=False, delimiter=" ", pose="centre", columns=columns)
    np.testing.assert_allclose(found.pose[0], [[0, 1, 0, 10], [-1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], atol=1e-12)


ODD = {
    "crlf": PLAIN.replace("\n", "\r\n").encode(),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "no end": PLAIN.encode()[:-1],
    "blank lines": b"\n\nname,x,y,heading\n\na.jpg,1,2,0\n\r\n,,,\nb.jpg,3,4,90\n\n\n",
    "quotes": b'"name","x",y,heading\n"a.jpg","1",2,"0"\n"b.jpg",3,"4",90\n',
    "blanks": b"name, x , y, heading\na.jpg, 1 ,\t2,0\nb.jpg,3,4, 90\n",
    "another column of texts": b'note,name,x,y,heading\n"x, ""y""\n",a.jpg,1,2,0\n5" wheel,b.jpg,3,4,90\n',
    "columns without a name": b"name,x,y,heading,,\na.jpg,1,2,0,,\nb.jpg,3,4,90,,5\n",
    "exponents": b"name,x,y,heading\na.jpg,1e0,2.000,+0\nb.jpg,0.3e1,4.,9.0E+1\n",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_is_the_same_table(table, text):
    found = images(table(text))
    assert (found.names, found.xy.tolist(), found.heading.tolist()) == (("a.jpg", "b.jpg"), [[1, 2], [3, 4]], [0, 90])


FAULTS = [
    ("name,x,y\na.jpg,1,2\nb.jpg,one,2\n", {}, DamagedFileError, ["line 3", "'x'", "'one'", "number"]),
    ("name;x;y\na.jpg;1,5;2\n", {"delimiter": ";"}, DamagedFileError, ["line 2", "'1,5'", "decimal point"]),
    ("name,x,y\na.jpg,1,2\nb.jpg,1\n", {}, DamagedFileError, ["line 3", "3; found 2"]),
    ("name,x,y\na.jpg,1,2\nb.jpg,1,2,3\n", {}, DamagedFileError, ["line 3", "3; found 4"]),
    ("name,x,y\n\na.jpg,1,2\nb.jpg,1,2,3\n", {}, DamagedFileError, ["line 4", "3; found 4"]),
    ('name,x,y\n"a\nb,",1,2\n"b.jpg,x",1\n', {}, DamagedFileError, ["line 4", "3; found 2"]),
    ('name,x,y\na,1,2\n"a,b",1\n', {}, DamagedFileError, ["line 3", "3; found 2"]),
    ("name,x,y\na.jpg,1,2,3\nb.jpg,1,2,3\n", {}, DamagedFileError, ["line 2", "3; found 4"]),
    ('name,x,y\na.jpg,1,2\n"b.jpg,1,2\nc.jpg,1,2\n', {}, DamagedFileError, ["line 3", "quote"]),
    ('name,x,y\na.jpg,1,"2\n', {}, DamagedFileError, ["line 2", "quote"]),
    ('na"me,"x,y\n', {}, DamagedFileError, ["line 1", "quote"]),
    ("name;x;y\na.jpg;1;2\n", {}, InvalidInputError, ["images' names", "delimiter=';'"]),
    ("name,x,y\na.jpg,1,2\n", {"delimiter": "\t"}, InvalidInputError, ["images' names", "name,x,y"]),
    ("name,x,X,y\na.jpg,1,2,3\n", {}, InvalidInputError, ["one column for x", "'x' and 'X'", "columns"]),
    ("name,lat,latitude,lon\na.jpg,1,2,3\n", {}, InvalidInputError, ["'lat' and 'latitude'"]),
    ("name,x,x,y\na.jpg,1,2,3\n", {}, DamagedFileError, ["line 1", "'x' stands twice"]),
    ("name,x,y,lat,lon\na.jpg,1,2,3,4\n", {}, InvalidInputError, ["positions twice", "columns"]),
    ("name,x\na.jpg,1\n", {}, InvalidInputError, ["x, y", "gives y"]),
    ("name,heading\na.jpg,1\n", {}, InvalidInputError, ["where its images are", "Columns: name, heading"]),
    (PLAIN, {"columns": {"name": "nmae", "x": "x", "y": "y"}}, InvalidInputError, ["'nmae'", "Did you mean 'name'", "x, y"]),
    (PLAIN, {"columns": {"nam": "name"}}, InvalidInputError, ["'nam'", "Did you mean 'name'"]),
    (PLAIN, {"columns": {"name": "name", "x": "x", "xy_0": "y"}}, InvalidInputError, ["one column for x"]),
    (PLAIN, {"columns": {"x": "x", "y": "y"}}, InvalidInputError, ["images' names"]),
    (PLAIN, {"columns": {}}, InvalidInputError, ["columns"]),
    (PLAIN, {"columns": "name"}, InvalidInputError, ["columns"]),
    ("name,x,y\n,1,2\n", {}, DamagedFileError, ["line 2", "'name'", "empty"]),
    ('name,x,y\n"a\nb",1,2\n', {}, DamagedFileError, ["line 2", "one line"]),
    ("name,x,y,fov\na.jpg,1,2,60\nb.jpg,1,2,\n", {}, DamagedFileError, ["line 3", "'fov'", "empty"]),
    ("name,x,y,fov\na.jpg,1,2,361\n", {}, DamagedFileError, ["line 2", "'fov'", "360"]),
    ("name,x,y,reach\na.jpg,1,2,0\n", {}, DamagedFileError, ["line 2", "'reach'", "above 0"]),
    ("name,x,y,frame\na.jpg,1,2,1.5\n", {}, DamagedFileError, ["line 2", "'frame'", "whole"]),
    ("name,x,y,frame\na.jpg,1,2,\n", {}, DamagedFileError, ["line 2", "'frame'", "empty"]),
    ("name,x,y,place\na.jpg,1,2,9223372036854775808\n", {}, DamagedFileError, ["line 2", "'place'", "64 bits"]),
    ("name,x,y,time\na.jpg,1,2,15:04\n", {}, DamagedFileError, ["line 2", "'time'", "ISO 8601", "15:04"]),
    ("name,x,y,time\na.jpg,1,2,2021-02-29\n", {}, DamagedFileError, ["line 2", "'time'"]),
    ("name,x,y,time\na.jpg,1,2,12h\n", {"time_format": "%H:%M"}, DamagedFileError, ["line 2", "'time'", "'%H:%M'", "'12h'"]),
    ("name,x,y,time\na.jpg,1,2,12h\n", {"time_format": "*"}, InvalidInputError, ["time_format", "strptime", "'*'"]),
    ("name,x,y,time\na.jpg,1,2,12h\n", {"time_format": "%Y%Y"}, InvalidInputError, ["time_format", "'%Y%Y'"]),
    ("name,x,y,time\na.jpg,1,2,12h\n", {"time_format": 5}, InvalidInputError, ["time_format", "5"]),
    (PLAIN, {"time_format": "%Y"}, InvalidInputError, ["time_format", "a column of times"]),
    ("name,x,y,flag_night\na.jpg,1,2,perhaps\n", {}, DamagedFileError, ["line 2", "'flag_night'", "'perhaps'"]),
    ("name,x,y,fx,fy,cx,cy\na.jpg,1,2,0,1,1,1\n", {}, DamagedFileError, ["line 2", "'fx'", "focal"]),
    ("name,x,y,fx,fy\na.jpg,1,2,0,1\n", {}, InvalidInputError, ["cx, cy"]),
    ("name,x,y,side\na.jpg,1,2,left\n", {}, DamagedFileError, ["line 2", "'side'", "'left'", "queries"]),
    ("name,tx,ty,tz,qx,qy,qz,qw\na.jpg,1,2,3,0,0,0,1\n", {}, InvalidInputError, ["option pose", "w2c"]),
    ("name,tx,ty,tz,qx,qy,qz,qw\na.jpg,1,2,3,0,0,1,1\n", {"pose": "c2w"}, DamagedFileError, ["line 2", "norm 1"]),
    ("name,tx,ty,tz,qx,qy,qz,qw\na.jpg,1,2,,0,0,0,1\n", {"pose": "c2w"}, DamagedFileError, ["line 2", "'tz'", "empty"]),
    (PLAIN, {"pose": "w2c"}, InvalidInputError, ["option pose"]),
    (PLAIN, {"pose": "both"}, InvalidInputError, ["option pose", "centre", "'both'"]),
    (PLAIN, {"match": "stems"}, InvalidInputError, ["option match", "stem"]),
    (PLAIN, {"scale": 0}, InvalidInputError, ["scale"]),
    (PLAIN, {"scale": "1e-6"}, InvalidInputError, ["scale"]),
    (PLAIN, {"within": 0}, InvalidInputError, ["within"]),
    (PLAIN, {"within": "5"}, InvalidInputError, ["within"]),
    (PLAIN, {"delimiter": ", "}, InvalidInputError, ["delimiter"]),
    (PLAIN, {"delimiter": '"'}, InvalidInputError, ["delimiter"]),
    (PLAIN, {"header": "no"}, InvalidInputError, ["header", "'no'"]),
    (PLAIN, {"crs": 32633}, InvalidInputError, ["crs", "text"]),
    (PLAIN, {"queries": 3}, InvalidInputError, ["queries", "path"]),
    (PLAIN, {"images": True}, InvalidInputError, ["images", "path"]),
    (PLAIN, {"zone": "33"}, InvalidInputError, ["zone", "EPSG:"]),
    (PLAIN, {"zone": "EPSG:32633"}, InvalidInputError, ["zone", "lat and lon"]),
    (PLAIN, {"missing": "perhaps"}, InvalidInputError, ["missing", "'perhaps'"]),
    (PLAIN, {"queries": "nowhere.csv"}, MissingFileError, ["nowhere.csv"]),
    ("name,lat,lon\na.jpg,1,2\n", {"crs": "EPSG:32633"}, InvalidInputError, ["crs", "x and y"]),
    ("name,lat,lon\na.jpg,1,2\n", {"zone": "EPSG:1"}, InvalidInputError, ["EPSG:1"]),
    ("name,place\na.jpg,1\n", {"within": 5}, InvalidInputError, ["within", "none"]),
    (b"name,x,y\na.jpg,1,2\n\xff.jpg,1,2\n", {}, DamagedFileError, ["line 3", "UTF-8"]),
    (b"name,x,y\na.jpg,1,2\n\0.jpg,1,2\n", {}, DamagedFileError, ["line 3", "zero byte"]),
    (PLAIN.encode("utf-16"), {}, DamagedFileError, ["line 1", "UTF-8"]),
    (b"", {}, DamagedFileError, ["empty"]),
    (b"\n \n", {}, DamagedFileError, ["empty"]),
    ("name,x,y\n\n,,\n", {}, DamagedFileError, ["no row"]),
    (b"name,x,y\ra.jpg,1,2\r", {}, DamagedFileError, ["line 1", "new-line"]),
    ('# {"format": "covis-images", "version": 1, "rows": 2, "root": "r", "crs": null}\nname\n"a"\n', {}, DamagedFileError, ["2 rows"]),
    ('# {"format": "covis-images", "version": 1, "crs": null}\nname\n"a"\n', {}, DamagedFileError, ["root"]),
    ('# {"format": "covis-labels", "version": 1, "root": "r"}\nname\n"a"\n', {}, DamagedFileError, ["covis-images"]),
    ('# {"format": "covis-images", "version": 2, "root": "r"}\nname\n"a"\n', {}, DamagedFileError, ["version 2"]),
    ('# {"format": "covis-images", "ver\nname\n"a"\n', {}, DamagedFileError, ["header"]),
    ('# {"format": "covis-images", "version": 1, "root": "r", "crs": "EPSG:1"}\nname,xy_0,xy_1\n"a",1,2\n', {"crs": "EPSG:2"},
     InvalidInputError, ["EPSG:1", "EPSG:2"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "error", "named"), FAULTS)
def test_each_fault_is_one_error_that_names_the_place(table, text, options, error, named):
    path = table(text)
    with pytest.raises(error) as refused:
        one(path, **options)
    for part in (*named, *(["walk.csv"] if "line" in named[0] else [])):
        assert part in str(refused.value)


def test_a_pose_that_is_no_rotation_is_named_with_its_line(table):
    header = ",".join(["name", *(f"pose_{i}" for i in range(16))])
    path = table(f"{header}\na.jpg,1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1\nb.jpg,1,0,0,0,0,1,0,0,0,0,-1,0,0,0,0,1\n")
    with pytest.raises(InvalidInputError, match=r"reflection.*b\.jpg \(.*walk\.csv, line 3\)"):
        one(path)


def test_folders_must_say_which_table(table, tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        one(tmp_path / "nowhere.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="empty must hold"):
        one(tmp_path / "empty")
    table(PLAIN, name="s/one.csv")
    assert one(tmp_path / "s").name == "s"
    table(PLAIN, name="s/two.csv")
    with pytest.raises(InvalidInputError, match=r"one\.csv, two\.csv"):
        one(tmp_path / "s")
    table(PLAIN, name="s/database.csv")
    table(PLAIN, name="s/database.parquet")
    with pytest.raises(InvalidInputError, match=r"database\.csv and database\.parquet"):
        one(tmp_path / "s")
    table("name,x,y,side\na.jpg,1,2,db\n", name="t/database.csv")
    table("name,x,y\na.jpg,1,2\n", name="t/queries.csv")
    with pytest.raises(InvalidInputError, match="'side' holds both sides"):
        one(tmp_path / "t")
    table("name,lat,lon\na.jpg,1,2\n", name="t/database.csv")
    with pytest.raises(InvalidInputError, match=r"in one way.*lat and lon.*x and y"):
        one(tmp_path / "t")


def test_rows_that_cannot_be_used_are_a_policy(table):
    path = table("name,x,y,heading\na.jpg,1,2,0\nb.jpg,,2,0\nc.jpg,1,2,361\na.jpg,1,2,0\nd.jpg,1,nan,0\ne.jpg,inf,2,-1\nf.jpg,1,2,\n")
    with pytest.raises(InvalidInputError, match=r"5 of 7 images.*line 5"):
        one(path)
    with pytest.warns(CovisWarning, match="5 of 7 images"):
        assert images(path, invalid="skip").names == ("a.jpg", "f.jpg")
    (draft,) = draft_table(path)
    kinds = sorted((problem.kind, problem.where.rpartition(", ")[2]) for _, problem in draft.database.invalid())
    assert kinds == [
        ("duplicate name", "line 5"),
        ("heading", "line 4"),
        ("heading", "line 7"),
        *(("position", f"line {n}") for n in (3, 6, 7)),
    ]
    with pytest.warns(CovisWarning, match="1 of 2"):
        assert images(table("name,lat,lon\na.jpg,50,8\nb.jpg,,8\n"), invalid="skip").names == ("a.jpg",)


def test_images_are_looked_up_by_name(table, tmp_path):
    path = table("name,x,y\na.jpg,1,2\nb.jpg,3,4\n", name="d/walk.csv", files=["d/a.jpg"])
    with pytest.raises(InvalidInputError, match=r"1 of 2 images.*b\.jpg.*line 3.*missing='skip'"):
        read_table(path)
    with pytest.warns(CovisWarning, match="1 of 2 images"):
        (scene,) = read_table(path, missing="skip")
    assert scene.queries.names == ("a.jpg",)
    assert scene.queries.path(0).is_file()
    (tmp_path / "d/images").mkdir()
    (tmp_path / "d/images/b.jpg").touch()
    with pytest.raises(InvalidInputError, match="1 of 2 images"):
        read_table(path)  # the table's folder has one of the names: it is the images' folder
    (tmp_path / "d/a.jpg").rename(tmp_path / "d/images/a.jpg")
    (scene,) = read_table(path)
    assert scene.queries.path(1) == tmp_path / "d/images/b.jpg"
    assert one(path).queries.root == tmp_path / "d"  # nothing is looked up
    assert read_table(path, images="images")[0].queries.root == one(path, images="images").queries.root == tmp_path / "d/images"
    with pytest.raises(MissingFileError, match="photos"):
        read_table(path, images="photos")


def test_images_are_matched_by_stem(table, tmp_path):
    files = ["d/a.jpg", "d/sub/b.x.PNG", "d/c.jpg", "d/c.png", "d/a.txt", "d/key.webp", "d/e.tar.jpg"]
    path = table("name,x,y\na.jpeg,1,2\nsub/b.x.jpg,1,2\nc.jpg,1,2\nkey,1,2\ne.tar,1,2\nnone.jpg,1,2\n", name="d/walk.csv", files=files)
    with pytest.warns(CovisWarning, match=r"1 of 6 images.*none\.jpg"):
        (scene,) = read_table(path, match="stem", missing="skip")
    assert scene.queries.names == ("a.jpg", "sub/b.x.PNG", "c.jpg", "key.webp", "e.tar.jpg")
    assert images(path, match="stem").names[0] == "a.jpeg"  # nothing is looked up
    path.write_text("name,x,y\na.jpg,1,2\nc.jpeg,1,2\n")
    with pytest.raises(InvalidInputError, match=r"line 3.*'c\.jpeg'.*c\.jpg and c\.png"):
        read_table(path, match="stem")
    path.write_text("name,x,y\na.jpg,1,2\na.png,1,2\n")
    with pytest.raises(InvalidInputError, match="stands at"):
        read_table(path, match="stem")
    inside = table("name,x,y\nq.jpeg,1,2\n", name="e/walk.csv", files=["e/images/q.jpg"])
    assert read_table(inside, match="stem")[0].queries.path(0) == tmp_path / "e/images/q.jpg"


def test_outliers_are_left_out_and_reported(table):
    metres = table("name,x,y\na,0,0\nb,3,4\nc,6,0\nd,1000,0\ne,,\n")
    with (
        pytest.warns(CovisWarning, match=r"1 of 5 images.*more than 900 m.*d \(.*line 5\): 996 m"),
        pytest.raises(InvalidInputError, match="1 of 4"),
    ):
        one(metres, within=900)  # the empty position is another matter
    rows = [
        "a,48.8584,2.2945",
        "b,48.8585,2.2946",
        "c,48.8583,2.2944",
        "d,48.8738,2.2950",
        "e,0,0",
    ]  # the Eiffel tower, the Arc de Triomphe
    path = table("name,lat,lon\n" + "\n".join(rows))
    with pytest.warns(CovisWarning, match=r"2 of 5 images.*d \(.*line 5\): 17[0-4]\d m; e"):
        assert images(path, within=1500).names == ("a", "b", "c")
    with pytest.warns(CovisWarning, match="1 of 5 images"):
        assert images(path, within=2000).names == ("a", "b", "c", "d")
    sides = table("name,x,y,side\na,0,0,db\nb,1,0,db\nc,0,1,query\nd,99,0,query\n")
    with pytest.warns(CovisWarning, match=r"1 of 2 images.*d \("):
        scene = one(sides, within=50)
    assert (len(scene.database), len(scene.queries)) == (2, 1)


@given(centre=st.tuples(st.floats(-79, 79), st.floats(6, 12)), bearing=st.floats(0, 6.28), metres=st.floats(10, 5000))
def test_distances_of_degrees_are_metres(tmp_path_factory, centre, bearing, metres):
    """Three images at one place, and one so far away by the tangent plane of the ellipsoid (the zone's metres, unscaled)."""
    crs = "EPSG:32632" if centre[0] >= 0 else "EPSG:32732"
    xy = to_metres([centre[0]], [centre[1]], crs=crs) + metres * np.array([[np.sin(bearing), np.cos(bearing)]])
    lat, lon = to_degrees(xy, crs=crs)[0].tolist()
    path = tmp_path_factory.mktemp("w") / "t.csv"
    path.write_text("name,lat,lon\n" + "".join(f"{n},{centre[0]!r},{centre[1]!r}\n" for n in range(3)) + f"far,{lat!r},{lon!r}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        assert len(draft_table(path, missing="ignore", within=metres * 1.012)[0].database.names) == 4
        assert len(draft_table(path, missing="ignore", within=metres * 0.988)[0].database.names) == 3


def test_parquet_is_read_by_type(tmp_path):
    path = tmp_path / "t.parquet"
    moments = [datetime(2021, 1, 1, tzinfo=UTC), None]
    frame = pl.DataFrame({
        "name": pl.Series(["a.jpg", "b.jpg"], dtype=pl.Categorical), "lat": [50, 50], "lon": pl.Series([8.1, 8.2], dtype=pl.Float32),
        "heading": [None, 360.0], "time": moments, "frame": [1.0, 2.0], "place": pl.Series([1, 2], dtype=pl.UInt64),
        "flag_night": [True, False], "sequence": [7, None], "other": [[1], [2]],
    })  # fmt: skip
    frame.write_parquet(path)
    found = images(path)
    np.testing.assert_array_equal(found.heading, [np.nan, 0])
    np.testing.assert_array_equal(found.time, [1609459200, np.nan])
    assert (found.frame.tolist(), found.place.tolist(), found.sequence) == ([1, 2], [1, 2], ("7", ""))
    assert found.flags["night"].tolist() == [True, False]
    frame.with_columns(time=pl.col("time").dt.date(), frame=pl.Series([1.5, 2.0])).write_parquet(path)
    with pytest.raises(DamagedFileError, match=r"t\.parquet, row 1: 'frame' must be a whole number"):
        one(path)
    for column, value, said in (
        ("heading", [[1], [2]], r"column 'heading' must hold.*List"),
        ("time", [True, False], "row 1: 'time' must be seconds"),
        ("lat", [None, None], "2 of 2"),
    ):
        frame.with_columns(pl.Series(column, value)).write_parquet(path)
        with pytest.raises(CovisError, match=said):
            one(path)
    frame.with_columns(name=pl.Series(["a\0/b", "c"])).write_parquet(path)
    with pytest.raises(DamagedFileError, match="row 1: 'name'"):
        read_table(path)


def full(root, names, *, seed=0):
    """Images with every column."""
    random, count = np.random.default_rng(seed), len(names)
    pose = np.tile(np.eye(4), (count, 1, 1))
    if count:
        pose[:, :3, :3], pose[:, :3, 3] = Rotation.random(count, random_state=seed).as_matrix(), random.normal(size=(count, 3))
    unknown = random.random(count) < 0.3
    return Images(
        root, names, xy=random.normal(size=(count, 2)) * 1e6, heading=np.where(unknown, np.nan, random.random(count) * 360),
        fov=random.random(count) * 300 + 1, reach=random.random(count) + 1e-9, pose=pose, intrinsics=random.random((count, 4)) * 500 + 1,
        depth=[f"d{n}.png" for n in range(count)], segmentation=[""] * count, sequence=["0" + str(n // 3) for n in range(count)],
        time=np.where(unknown, np.nan, random.normal(size=count) * 1e9), frame=random.integers(-(2**62), 2**62, count),
        place=random.integers(0, 9, count),
        crs="EPSG:32633", flags={"night": unknown, "x y": ~unknown},
    )  # fmt: skip


def on_disk(images):
    for name in (*images.names, *(images.depth or ())):
        (images.root / name).parent.mkdir(parents=True, exist_ok=True)
        (images.root / name).write_text(f"{images.root} {name}")
    return images


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_covis_table_is_a_plain_table(tmp_path, suffix):
    stored = on_disk(full(tmp_path / "photos", [f"s/{n}.jpg" for n in range(7)]))
    path = stored.write(tmp_path / "tables" / f"t{suffix}")
    (scene,) = read_table(path, header=False, delimiter=";")  # it says itself how it is to be read
    assert scene.queries == stored
    assert read_table(path, images="../photos")[0].queries.names == stored.names
    scene.write(tmp_path / "scene")
    assert read_table(tmp_path / "scene")[0].database == stored


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_cut_table_is_never_another_table(tmp_path, suffix):
    stored = full(tmp_path, [f"{n}.jpg" for n in range(5)])
    path = stored.write(tmp_path / f"t{suffix}")
    whole = path.read_bytes()
    for place in {*np.linspace(0, len(whole) - 1, 60).astype(int).tolist(), *range(len(whole) - 12, len(whole))}:
        path.write_bytes(whole[:place])
        with pytest.raises(CovisError) as refused:
            read_table(path, missing="ignore")
        assert path.name in str(refused.value), f"cut at {place}"


@given(data=st.data(), seed=st.integers(0, 10**6))
def test_what_is_written_is_read(tmp_path_factory, data, seed):
    folder = tmp_path_factory.mktemp("r")
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
    keys = data.draw(st.lists(text.filter(lambda t: t and not {"\n", "/"} & set(t) and t not in (".", "..")), unique=True, max_size=5))
    queries = data.draw(st.none() | st.just(["q", *keys[:2]]))
    split = data.draw(st.sampled_from(["train", "val", "test"] if queries is None else ["val", "test"]))
    sides = [full(folder / "a", keys, seed=seed)] + ([] if queries is None else [full(folder / "b", queries, seed=seed + 1)])
    some = data.draw(st.sets(st.sampled_from(["xy", "heading", "pose", "time", "depth", "sequence", "intrinsics", "fov"])))
    crs = data.draw(st.sampled_from([None, "EPSG:32633", "local"]))
    flags = data.draw(st.booleans())
    sequence = data.draw(st.lists(text, min_size=len(keys), max_size=len(keys)))
    less = [
        Images(
            side.root, side.names, crs=crs, flags=side.flags if flags else {}, **{k: v for k, v in side._columns().items() if k not in some}
        )
        for side in sides
    ]
    if "sequence" not in some:
        less[0] = Images(less[0].root, less[0].names, crs=crs, flags=less[0].flags, **{**less[0]._columns(), "sequence": sequence})
    scene = Scene("a.b", split, less[0], less[-1])
    (written,) = write_table([scene], folder / "out", files="none")
    (found,) = read_table(written, split=split, missing="ignore")
    assert alike(found, scene)
    assert [side.root for side in (found.database, found.queries)] == [less[0].root, less[-1].root]


def test_files_are_written_beside_the_tables(tmp_path):
    database, queries = on_disk(full(tmp_path / "a", ["1.jpg", "s/2.jpg"])), on_disk(full(tmp_path / "b", ["1.jpg"]))
    (written,) = write_table([Scene("s", "test", database, queries)], tmp_path / "out")
    written = shutil.move(written, tmp_path / "moved" / "s")
    (found,) = read_table(written)
    assert alike(found, Scene("s", "test", database, queries))
    for here, there in ((found.database, database), (found.queries, queries)):
        for row in range(len(here)):
            assert here.path(row).read_bytes() == there.path(row).read_bytes()
            assert (here.root / here.depth[row]).read_bytes() == (there.root / there.depth[row]).read_bytes()


def test_images_on_both_sides_stay_the_same_files(tmp_path):
    both = on_disk(full(tmp_path / "a", ["1.jpg", "2.jpg", "3.jpg"]))
    scene = Scene("s", "test", both.select([0, 1]), both.select([1, 2]))
    for files in ("copy", "link", "none"):
        (written,) = write_table([scene], tmp_path / files, files=files)
        (found,) = read_table(written)
        assert alike(found, scene)
        assert found.queries.same_files(found.database).tolist() == [1, -1]
        assert found.queries.path(0).resolve() == (both.path(1) if files != "copy" else written / "images" / "2.jpg")
    assert sorted(path.name for path in (tmp_path / "none" / "s").iterdir()) == ["database.csv", "queries.csv"]
    training = Scene("t", "train", both, both)
    (written,) = write_table([training], tmp_path / "copy")
    assert sorted(path.name for path in written.iterdir()) == ["database.csv", "images"]
    assert read_table(written, split="train")[0].training


def test_what_would_not_be_read_back_is_refused(tmp_path):
    both = on_disk(full(tmp_path / "a", ["1.jpg", "2.jpg"]))
    for number, (scenes, said) in enumerate([
        ([Scene("s", "test", both, both)] * 2, "different names"),
        ([Scene("s", "train", both.select([0]), both.select([1]))], "split train"),
        ([Scene("s", "fold1", both, both)], "split"),
        ([Scene("s", "test", full(tmp_path, ["../a/1.jpg"]), both)], "inside|lie in"),
        ([Scene("s", "test", full(tmp_path, [str(both.path(0))]), both)], "lie in"),
    ]):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_table(scenes, tmp_path / f"out{number}")
        assert not (tmp_path / f"out{number}" / "s").exists()
    with pytest.raises(InvalidInputError, match="files"):
        write_table([Scene("s", "test", both, both)], tmp_path / "out", files="move")
    both.path(0).unlink()
    with pytest.raises(MissingFileError, match=r"1\.jpg must be there"):
        write_table([Scene("s", "test", both, both)], tmp_path / "out")
    assert not (tmp_path / "out" / "s").exists()
    write_table([Scene("s", "test", both, both)], tmp_path / "out", files="none")
    with pytest.raises(OutputExistsError, match="s is already there"):
        write_table([Scene("s", "test", both, both)], tmp_path / "out", files="none")
    write_table([Scene("s", "test", both, both)], tmp_path / "out", files="none", overwrite=True)


CELLS = st.text(st.sampled_from(' ab1.,;"\n\r\té'), max_size=4)


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=6), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
       delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]))  # fmt: skip
@example(rows=[["a", "b", ""], ["", "", ""], ["", "", "c"]], quoting=csv.QUOTE_MINIMAL, delimiter=",", end="\n")
def test_cells_and_lines_are_those_of_pythons_own_reader(tmp_path_factory, rows, quoting, delimiter, end):
    assume(quoting == csv.QUOTE_ALL or not any("\r" in cell for row in rows for cell in row))  # outside quotes it would be a line's end
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=quoting, delimiter=delimiter, lineterminator=end)
    expected = []
    writer.writerow(["k", "l", "m"])
    for row in rows:
        line = stream.getvalue().count("\n") + 1
        writer.writerow(row)
        if any(row):
            expected.append((line, row))
    path = tmp_path_factory.mktemp("c") / "t.csv"
    path.write_bytes(stream.getvalue().encode())
    if not expected:
        with pytest.raises(DamagedFileError, match="no row"):
            read_sheet(path, delimiter=delimiter)
        return
    sheet = read_sheet(path, delimiter=delimiter)
    assert list(zip(sheet.lines.tolist(), map(list, sheet.frame.rows()), strict=True)) == expected


@given(value=st.floats(-1e300, 1e300), form=st.sampled_from(["{!r}", "{:.17g}", "{:.3e}", " {:+.2f}"]))
def test_numbers_are_pythons(tmp_path_factory, value, form):
    path = tmp_path_factory.mktemp("n") / "t.csv"
    path.write_text(f"v\n{form.format(value)}\n")
    assert read_sheet(path).numbers("v").tolist() == [float(form.format(value))]


@given(damage=st.binary(max_size=120) | st.text(st.sampled_from('name,xylaton"\n\r;. 012-#{}:é'), max_size=80).map(str.encode))
@example(damage=b'# {"format": "covis-images"}\n')
@example(damage=b"PAR1")
@example(damage=b"x^\x01,y\n")
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("g")
    for name in ("t.csv", "t.parquet"):
        (folder / name).write_bytes(damage)
        with contextlib.suppress(CovisError), warnings.catch_warnings():
            warnings.simplefilter("ignore", CovisWarning)
            read_table(folder / name, missing="skip", match="stem", invalid="skip")


@given(place=st.integers(0, 400), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_table_is_ours_or_an_error_of_ours(tmp_path_factory, place, byte, cut):
    whole = (
        b'name,lat,lon,heading,time,frame,fov,flag_a,side\n"a.jpg",50.1,8.2,10,2020-01-01,1,60,true,db\nb.jpg,50.1,8.3,,1e9,2,70,no,query\n'
    )
    place %= len(whole)
    path = tmp_path_factory.mktemp("d") / "t.csv"
    path.write_bytes(whole[:place] + bytes([byte]) + (b"" if cut else whole[place + 1 :]))
    with contextlib.suppress(CovisError), warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        (draft,) = draft_table(path, missing="ignore")
        assert sum(len(side.names) for side in draft.sides) in (1, 2)
        draft.scene(missing="ignore", invalid="skip")


def headings(covis_data, name):
    """The rows of a real table, and how many lie more than 500 m from the median, by a flat earth."""
    with (covis_data / "headings" / name).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    xy = 0.11111 * np.array([[float(row["longitude"]), float(row["latitude"])] for row in rows])
    return rows, np.hypot(*(xy - np.median(xy, axis=0)).T) > 500


MAPPED = {"columns": {"name": "filename", "lat": "latitude", "lon": "longitude", "heading": "angle"}, "scale": 1e-6}


def test_the_real_headings(covis_data):
    path = covis_data / "headings" / "labels_val.csv"
    with pytest.raises(InvalidInputError, match=r"124 of 369 images.*img_\d+\.\w+.*line \d+"):
        read_table(path, **MAPPED)  # .jpeg or .png where the file is .jpg, one of them without any file
    with pytest.warns(CovisWarning, match="124 of 369 images"):
        assert len(read_table(path, missing="skip", **MAPPED)[0].queries) == 245
    with pytest.raises(InvalidInputError, match=r"1 of 369 images.*img_0325"):
        read_table(path, match="stem", **MAPPED)
    with pytest.warns(CovisWarning, match=r"1 of 369 images.*img_0325"):
        (scene,) = read_table(path, match="stem", missing="skip", **MAPPED)
    assert (scene.name, len(scene.queries), scene.training, scene.queries.crs) == ("labels_val", 368, True, "EPSG:32631")
    assert all(scene.queries.path(row).is_file() for row in range(368))
    assert scene.queries.root == covis_data / "headings" / "images"
    rows, far = headings(covis_data, "labels_val.csv")
    assert scene.queries.heading.tolist() == [float(row["angle"]) for row in rows if row["filename"][:8] != "img_0325"]
    with pytest.warns(CovisWarning) as said:
        near = read_table(path, match="stem", missing="skip", within=500, **MAPPED)[0].queries
    assert [str(warning.message).split(" of 369")[0] for warning in said if "500 m from the median" in str(warning.message)] == [
        str(far.sum())
    ]
    assert len(near) == 368 - far.sum() == 361
    assert np.ptp(near.xy, axis=0).max() < 1000


def test_the_real_headings_without_images(covis_data):
    path = covis_data / "headings" / "labels_train.csv"
    options = {**MAPPED, "missing": "ignore", "split": "train"}
    rows, far = headings(covis_data, "labels_train.csv")
    wrong, north = (sum(test(float(row["angle"])) for row in rows) for test in (lambda a: a > 360, lambda a: a in (0, 360)))
    with pytest.raises(InvalidInputError, match=rf"{wrong} of 6542 images.*heading is \d+.*line \d+|heading is"):
        read_table(path, **options)
    with pytest.warns(CovisWarning, match=f"{wrong} of 6542 images"):
        (scene,) = read_table(path, invalid="skip", **options)
    assert (len(scene.queries), int((scene.queries.heading == 0).sum())) == (6542 - wrong, north)
    with pytest.warns(CovisWarning) as said:
        (draft,) = draft_table(path, within=500, **options)
    assert f"{far.sum()} of 6542 images" in str(said[0].message)
    assert len(draft.database.names) == 6542 - far.sum() == 6467


def test_the_real_campus(covis_data):
    columns = {"name": "1", "lat": "2", "lon": "3"}
    (scene,) = read_table(covis_data / "campus", header=False, columns=columns)
    assert (scene.name, len(scene.queries), scene.queries.crs) == ("campus", 691, "EPSG:32636")
    assert scene.queries.path(0) == covis_data / "campus" / "images" / "20251222_094711.jpg"
    assert np.ptp(scene.queries.xy, axis=0) == pytest.approx([315.8, 55.4], abs=0.1)
    forced = one(covis_data / "campus" / "gt.csv", header=False, columns=columns, zone="EPSG:32636")
    np.testing.assert_array_equal(forced.queries.xy, scene.queries.xy)
    timed = one(covis_data / "campus" / "gt.csv", header=False, columns={**columns, "time": "1"}, time_format="%Y%m%d_%H%M%S*")
    assert np.unique(timed.queries.time // 3600 % 24, return_counts=True)[1].tolist() == [204, 36, 451]


def test_a_folder_of_folders_is_several_scenes(tmp_path, town):
    """As `write_table` leaves them: those without queries teach, the others are asked."""
    taught = [Scene(name, "train", scene.database, scene.database) for name, scene in zip(("lisbon", "porto"), town, strict=True)]
    write_table([*taught, *town], tmp_path / "all")
    assert read_table(tmp_path / "all", split="train") == [
        read_table(tmp_path / "all" / name, split="train")[0] for name in ("lisbon", "porto")
    ]
    assert [scene.name for scene in read_table(tmp_path / "all", split="test")] == ["athens", "miami"]
    shutil.rmtree(tmp_path / "all" / "lisbon")
    shutil.rmtree(tmp_path / "all" / "porto")
    alone = read_table(tmp_path / "all", split="train")  # all have both sides: as of a single folder, no query teaches
    assert [(scene.name, len(scene.database)) for scene in alone] == [("athens", 24), ("miami", 24)]
    with pytest.raises(MissingFileError, match=r"must hold database.csv"):
        read_table(tmp_path / "nothing" if (tmp_path / "nothing").mkdir() is None else "")
