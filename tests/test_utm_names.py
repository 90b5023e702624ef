"""Folders of UTM names: the names of real sets, trees, lists, odd names, and the inverse."""

import contextlib
import os
import re
import shutil
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.coordinates import to_metres
from covis.datasets.utm_names import draft_utm, read_utm, write_utm
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.images import Images, Scene

TOKYO = "@0381523.71@3946790.15@54@S@035.65786@0139.69112@00685.jpg@@@@@@@@.jpg"
ST_LUCIA = "@0499638.99@6958015.36@56@J@-27.50151@0152.99634@100909_0845_03448@@@@@@@@.jpg"
# The names above stand in public lists of those sets; those below are made as the sets' converters make them.
PITTS = "@0585001.22@4476966.91@17@T@040.43815@-079.99745@004@01@090@004@@@@pitch1_yaw2@.jpg"
MSLS = "@0347135.60@6172371.21@33@U@055.67450@0012.56820@yZ-_k3@@@@@@20180528@day_forward_cph@.JPEG"
SF = "@0543256.96@4178906.70@10@S@037.75603@-122.50895@QQvTBk8Ck3oGJQlrAo2nTg@@0@@@@202006@@.jpg"
SPED = "@0@12000@@@@@name@@@@@@@@.jpg"


@pytest.fixture
def tree(tmp_path):
    """A function that makes empty files in a folder; returns the folder."""

    def make(*files, folder="set"):
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).touch()
        return tmp_path / folder

    return make


def images(folder, **options):
    """The images of a folder of one side."""
    (scene,) = read_utm(folder, **options)
    assert scene.training
    return scene.queries


def same(a, b):
    """Equal in everything but the roots."""
    return (a.name, a.split) == (b.name, b.split) and all(
        Images("r", x.names, crs=x.crs, **x._columns()) == Images("r", y.names, crs=y.crs, **y._columns())
        for x, y in ((a.database, b.database), (a.queries, b.queries))
    )


@pytest.mark.parametrize(("name", "xy", "crs", "heading", "time"), [
    (TOKYO, (381523.71, 3946790.15), "EPSG:32654", None, None),
    (ST_LUCIA, (499638.99, 6958015.36), "EPSG:32756", None, None),
    (PITTS, (585001.22, 4476966.91), "EPSG:32617", 90, None),
    (MSLS, (347135.6, 6172371.21), "EPSG:32633", None, datetime(2018, 5, 28, tzinfo=UTC)),
    (SF, (543256.96, 4178906.7), "EPSG:32610", 0, datetime(2020, 6, 1, tzinfo=UTC)),
    (SPED, (0, 12000), None, None, None),
    ("@0@2.381@.jpg", (0, 2.381), None, None, None),
    ("@-12.5@+1e3@54@s@.png", (-12.5, 1000), "EPSG:32654", None, None),
    ("@1@2@01@C@@@@@360@@@@@@.jpg", (1, 2), "EPSG:32701", 0, None),
    ("@1@2@60@X@@@@@359.5@@@@20201231_235958@@.jpg", (1, 2), "EPSG:32660", 359.5, datetime(2020, 12, 31, 23, 59, 58, tzinfo=UTC)),
    ("@1@2@31@M@@@@@@@@@20201231_23@@.jpg", (1, 2), "EPSG:32731", None, datetime(2020, 12, 31, 23, tzinfo=UTC)),
    ("@1@2@31@N@@@@@@@@@1999@@.jpg", (1, 2), "EPSG:32631", None, datetime(1999, 1, 1, tzinfo=UTC)),
])  # fmt: skip
def test_names_of_known_sets(tree, name, xy, crs, heading, time):
    found = images(tree(name))
    assert (found.names, found.xy.tolist(), found.crs) == ((name,), [list(xy)], crs)
    assert (found.heading is None, found.time is None) == (heading is None, time is None)
    assert heading is None or found.heading.tolist() == [heading]
    assert time is None or found.time.tolist() == [time.timestamp()]


def test_the_numbers_of_real_names_fit_each_other():
    """Zone, letter, east and north of these names say the place that their latitude and longitude say."""
    for name, crs in ((TOKYO, "EPSG:32654"), (ST_LUCIA, "EPSG:32756")):
        _, east, north, _, _, lat, lon, *_ = name.split("@")
        np.testing.assert_allclose(to_metres([float(lat)], [float(lon)], crs=crs)[0], [float(east), float(north)], atol=1.2)


@pytest.mark.filterwarnings("ignore:The names in:covis.errors.CovisWarning")
def test_two_sides_in_every_tree(tree):
    for folder, inner in (("a", "images/test/"), ("b", "test/"), ("c", ""), ("d", "images/")):
        (scene,) = read_utm(tree(f"{inner}database/x/{TOKYO}", f"{inner}database/{SF}", f"{inner}queries/{TOKYO}", folder=folder))
        assert (scene.name, scene.split) == (folder, "test")
        assert scene.database.names == (f"database/{SF}", f"database/x/{TOKYO}")
        assert scene.queries.names == (f"queries/{TOKYO}",)
        assert scene.queries.path(0).is_file()


def test_splits(tree, tmp_path):
    parts = [
        f"images/{split}/{side}/@{n}@{m}@.jpg" for n, split in enumerate(("train", "val")) for m, side in enumerate(("database", "queries"))
    ]
    folder = tree(*parts)
    (train,) = read_utm(folder, split="train")
    assert train.training
    assert train.queries.names == ("database/@0@0@.jpg", "queries/@0@1@.jpg")
    (val,) = read_utm(folder, split="val")
    assert (val.database.names, val.queries.names, val.split) == (("database/@1@0@.jpg",), ("queries/@1@1@.jpg",), "val")
    for part in ("images", "images/val"):
        assert read_utm(folder / part, split="val")[0].name == "set"
    with pytest.raises(MissingFileError, match=r"set must hold the split 'test'; found train, val"):
        read_utm(folder)
    (folder / "images" / "test").symlink_to(folder / "images" / "val")
    assert read_utm(folder)[0].queries.names == val.queries.names
    with pytest.raises(InvalidInputError, match="'train', 'val' or 'test'; got 'trian'"):
        read_utm(folder, split="trian")
    (tmp_path / "flat" / "database").mkdir(parents=True)
    flat = tree("database/@1@2@.jpg", "queries/@3@4@.jpg", folder="flat")
    assert read_utm(flat, split="train")[0].queries.names == ("database/@1@2@.jpg",)  # nothing says what teaches: the queries do not
    assert read_utm(flat / "queries")[0].queries.names == ("@3@4@.jpg",)
    (sf,) = read_utm(tree("test/database/@1@2@.jpg", "test/queries_v1/@3@4@.jpg", "train/a/b/@5@6@.jpg", folder="sf"), queries="queries_v1")
    assert sf.queries.names == ("queries_v1/@3@4@.jpg",)
    assert read_utm(tmp_path / "sf", split="train")[0].queries.names == ("a/b/@5@6@.jpg",)


def test_files_are_sorted_as_text_and_others_do_not_count(tree):
    folder = tree(
        "b/@1@1@.jpg", "b-c/@2@2@.PNG", "B/@3@3@.Jpeg", "a@b/@4@4@.jpg", "a@b/notes.txt", ".hidden/@5@5@.jpg", "._@6@6@.jpg", "b/@7@7@.gif"
    )
    (folder / "b" / "up").symlink_to(folder)
    found = images(folder)
    assert found.names == ("B/@3@3@.Jpeg", "a@b/@4@4@.jpg", "b-c/@2@2@.PNG", "b/@1@1@.jpg")
    assert found.xy[:, 0].tolist() == [3, 4, 2, 1]  # the folder's "@" is none of the name's


def test_a_list_gives_names_and_order(tree, tmp_path):
    folder = tree("test/database/a/@1@1@.jpg", "test/database/@2@2@.jpg", "test/database/@9@9@.jpg", "test/queries/@3@3@.jpg")
    listed = folder / "test" / "database_images_paths.txt"
    listed.write_bytes(b"@2@2@.jpg\r\na/@1@1@.jpg\r\n")
    (scene,) = read_utm(folder)
    assert scene.database.names == ("database/@2@2@.jpg", "database/a/@1@1@.jpg")
    assert scene.queries.names == ("queries/@3@3@.jpg",)
    listed.write_text("@2@2@.jpg\n\n@8@8@.jpg\n@2@2@.jpg\n")
    with pytest.raises(InvalidInputError, match=r"1 of 3 images.*@8@8@\.jpg \(.*database_images_paths\.txt, line 3\)"):
        read_utm(folder)
    with pytest.warns(CovisWarning) as said:
        (scene,) = read_utm(folder, missing="skip", invalid="skip")
    assert scene.database.names == ("database/@2@2@.jpg",)
    assert any("line 1 too" in str(warning.message) for warning in said)
    with pytest.raises(InvalidInputError, match="stands at"):
        read_utm(folder, missing="ignore")
    listed.write_text("@2@2@.jpg\nphoto.jpg\n")
    with pytest.raises(InvalidInputError, match=r"database_images_paths\.txt, line 2: .*photo\.jpg"):
        read_utm(folder)
    listed.write_bytes(b"@2@2@.jpg\n@1@2@\0/a.jpg\n")
    with pytest.raises(InvalidInputError, match=r"line 2.*zero byte"):
        read_utm(folder)
    shutil.rmtree(folder / "test" / "database")
    listed.write_text("@2@2@.jpg\n")
    assert read_utm(folder, missing="ignore")[0].database.xy.tolist() == [[2, 2]]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare_images_paths.txt").write_text("@2@2@.jpg\n")
    assert images(tmp_path / "bare", missing="ignore").xy.tolist() == [[2, 2]]


@pytest.mark.parametrize(("names", "counted"), [
    (["@1@2@54@S@.jpg", "@3@2@54@S@.jpg", "@1@2@55@S@.jpg"], "EPSG:32654 (2), EPSG:32655 (1)"),
    (["@1@2@54@S@.jpg", "@1@2@54@M@.jpg"], "EPSG:32654 (1), EPSG:32754 (1)"),
    (["@1@2@54@S@.jpg", "@1@2@.jpg"], "EPSG:32654 (1), none (1)"),
    (["@1@2@61@S@.jpg"], "'61S' (1)"),
    (["@1@2@54@I@.jpg"], "'54I' (1)"),
    (["@1@2@54@@.jpg"], "'54' (1)"),
    (["@1@2@@S@.jpg"], "'S' (1)"),
    (["@1@2@0@S@.jpg"], "'0S' (1)"),
])  # fmt: skip
def test_zones_that_differ_leave_the_frame_unknown(tree, names, counted):
    folder = tree(*names)
    with pytest.warns(CovisWarning, match=f"set must all say one UTM zone.*{re.escape(counted)}"):
        found = images(folder)
    assert found.crs is None
    assert sorted(found.xy[:, 0].tolist()) == sorted(float(name.split("@")[1]) for name in names)


def test_zones_of_the_two_sides_are_compared(tree):
    with pytest.warns(CovisWarning, match="one UTM zone"):
        (scene,) = read_utm(tree(f"database/{TOKYO}", f"queries/{SF}"))
    assert scene.database.crs is scene.queries.crs is None


@pytest.mark.parametrize(
    "name", ["photo.jpg", "@1@.jpg", "@1@2.jpg", "@x@2@.jpg", "@1@@.jpg", "@nan@2@.jpg", "@1_0@2@.jpg", "@ 1@2@.jpg", "@1@٢@.jpg"]
)
def test_a_name_without_a_position_is_one_error_that_names_the_file(tree, name):
    with pytest.raises(InvalidInputError, match=r"@easting@northing@.*" + re.escape(name)):
        read_utm(tree("@1@2@.jpg", f"sub/{name}"))


@pytest.mark.parametrize(("name", "column"), [
    ("@1@2@@@@@@@north@@@@@@.jpg", "heading"),
    ("@1@2@@@@@@@@@@@2018-05-28@@.jpg", "time"),
    ("@1@2@@@@@@@@@@@20180230@@.jpg", "time"),
    ("@1@2@@@@@@@@@@@201@@.jpg", "time"),
    ("@1@2@@@@@@@@@@@0000@@.jpg", "time"),
])  # fmt: skip
def test_other_fields_that_do_not_read_are_unknown_and_reported(tree, name, column):
    with pytest.warns(CovisWarning, match=f"1 of 2 names .* have a {column} that does not read.*{re.escape(name)}"):
        found = images(tree(name, "@3@4@@@@@@@7@@@@1970@@.jpg"))
    np.testing.assert_array_equal(getattr(found, column), [np.nan, {"heading": 7, "time": 0}[column]])


def test_an_at_too_many_makes_the_later_fields_unknown(tree):
    with pytest.warns(CovisWarning, match="1 of 1 names .* an '@' too many, heading and time, taken as unknown"):
        found = images(tree("@1@2@54@S@@@pano@id@@90@@@@2018@@.jpg"))
    assert (found.xy.tolist(), found.crs, found.heading, found.time) == ([[1, 2]], "EPSG:32654", None, None)


def test_headings_and_positions_out_of_range_are_a_policy(tree):
    folder = tree("@1@2@@@@@@@361@@@@@@.jpg", "@1@2@@@@@@@-90@@@@@@.jpg", "@1e999@2@.jpg", "@5@6@.jpg")
    with pytest.raises(InvalidInputError, match="3 of 4 images"):
        read_utm(folder)
    with pytest.warns(CovisWarning, match="3 of 4 images"):
        assert images(folder, invalid="skip").names == ("@5@6@.jpg",)
    (draft,) = draft_utm(folder)
    assert sorted(problem.kind for _, problem in draft.database.invalid()) == ["heading", "heading", "position"]


def test_missing_folders_are_named(tree, tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        read_utm(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="empty must hold images named"):
        read_utm(tmp_path / "empty")
    folder = tree("database/@1@2@.jpg")
    (folder / "queries").mkdir()
    with pytest.raises(MissingFileError, match="queries must hold images named"):
        read_utm(folder)


@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=40)
    | st.text(st.sampled_from("@0159.-eNZ_é"), max_size=30)
)
def test_any_name_is_read_or_an_error_of_ours(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("f")
    try:
        (folder / f"@{name}.jpg").touch()
    except OSError:
        return
    (folder.with_name(f"{folder.name}_images_paths.txt")).write_bytes(f"@{name}.jpg".encode())
    with warnings.catch_warnings(), contextlib.suppress(CovisError):
        warnings.simplefilter("ignore", CovisWarning)
        (scene,) = read_utm(folder, invalid="skip", missing="ignore")
        assert len(scene.queries) <= len(f"{name}.jpg".splitlines())


@given(damage=st.binary(max_size=60))
def test_a_damaged_list_is_an_error_of_ours(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("l")
    (folder.with_name(f"{folder.name}_images_paths.txt")).write_bytes(damage)
    with warnings.catch_warnings(), contextlib.suppress(CovisError):
        warnings.simplefilter("ignore", CovisWarning)
        read_utm(folder, invalid="skip", missing="skip")


def photos(root, names, *, touch=True, **columns):
    for name in names if touch else ():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{root.name} {name}")
    return Images(root, names, **columns)


def test_a_written_name_is_as_the_format_says(tmp_path):
    """The real Tokyo and St Lucia positions, written by us, are the real names."""
    for name, crs in ((TOKYO, "EPSG:32654"), (ST_LUCIA, "EPSG:32756")):
        _, east, north, _, _, _, _, pano, *_ = name.split("@")
        both = photos(tmp_path / crs, [f"{pano}.jpg"], xy=[[float(east), float(north)]], crs=crs)
        (written,) = write_utm([Scene("s", "test", both, both)], tmp_path / f"out{crs}")
        (file,) = (written / "images" / "test" / "database").iterdir()
        assert [part for place, part in enumerate(file.name.split("@")) if place not in (5, 6)] == [
            part for place, part in enumerate(name.split("@")) if place not in (5, 6)
        ]
        for mine, theirs in zip(file.name.split("@")[5:7], name.split("@")[5:7], strict=True):
            assert len(mine) == len(theirs)
            assert float(mine) == pytest.approx(float(theirs), abs=2e-5)


def test_every_field_is_written(tmp_path):
    moment = datetime(2021, 2, 3, 4, 5, 6, 900_000, tzinfo=UTC).timestamp()
    both = photos(
        tmp_path / "p", ["a b.jpg", "s/c@d.PNG", "x.jpeg"], xy=[[-5.004, 1234.567], [0.001, -0.001], [500000, 9999999.999]],
        crs="EPSG:32733", heading=[359.99, np.nan, 0], time=[moment, -1.0, np.nan],
    )  # fmt: skip
    (written,) = write_utm([Scene("s", "val", both, both)], tmp_path / "out")
    names = (written / "images" / "val" / "database_images_paths.txt").read_text().splitlines()
    fields = [[part for place, part in enumerate(name.split("@")) if place not in (5, 6)] for name in names]
    assert fields == [
        ["", "-000005.00", "0001234.57", "33", "C", "a b", "", "359", "", "", "", "20210203_040506", "", ".jpg"],
        ["s/", "0000000.00", "0000000.00", "33", "C", "c_d", "", "", "", "", "", "19691231_235959", "", ".PNG"],
        ["", "0500000.00", "10000000.00", "33", "M", "x", "", "000", "", "", "", "", "", ".jpeg"],
    ]
    assert names[2].split("@")[5:7] == ["000.00000", "0015.00000"]
    found = read_utm(written, split="val")[0].queries
    assert found.xy.tolist() == [[-5, 1234.57], [0, 0], [500000, 1e7]]
    np.testing.assert_array_equal(found.heading, [359, np.nan, 0])
    np.testing.assert_array_equal(found.time, [np.floor(moment), -1, np.nan])
    assert found.path(1).read_text() == "p s/c@d.PNG"


FLOAT = st.floats(-1e9, 1e9)
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\n"), min_size=1, max_size=6).filter(
    lambda t: t not in (".", "..")
)


@given(data=st.data())
def test_written_digits_come_back_exactly(tmp_path_factory, data):
    """read(write(x)) has the printed digits; from then on nothing changes, not even a name."""
    folder = tmp_path_factory.mktemp("r")
    crs = data.draw(st.sampled_from([None, "EPSG:32601", "EPSG:32633", "EPSG:32760"]))

    def side(root):
        names = data.draw(st.lists(st.tuples(NAME, st.sampled_from([".jpg", ".PNG", ".jpeg"])).map("".join), unique=True, max_size=5))
        names = [f"{data.draw(st.sampled_from(['', 'database/', 'queries/x/', 'é@/']))}{row}{name}" for row, name in enumerate(names)]
        count = len(names)
        near = st.tuples(st.floats(2e5, 8e5), st.floats(1e4, 9e6)) if crs else st.tuples(FLOAT, FLOAT)
        some = {"heading": st.floats(0, 360, exclude_max=True) | st.just(np.nan), "time": st.floats(-6e10, 2.5e11) | st.just(np.nan)}
        columns = {
            column: data.draw(st.lists(value, min_size=count, max_size=count)) for column, value in some.items() if data.draw(st.booleans())
        }
        xy = np.array(data.draw(st.lists(near, min_size=count, max_size=count)), dtype=float).reshape(-1, 2)
        return Images(folder / root, names, xy=xy, crs=crs, **columns)

    database = side("a")
    queries = side("b") if data.draw(st.booleans()) else database
    split = data.draw(st.sampled_from(["train", "val", "test"] if queries is database else ["val", "test"]))
    (first,) = write_utm([Scene("s", split, database, queries)], folder / "1", files="none")
    (once,) = read_utm(first, split=split, missing="ignore")
    for here, there in ((once.database, database), (once.queries, queries)):
        assert len(here) == len(there)
        assert here.crs == (crs if len(database) + len(queries) else None)
        np.testing.assert_array_equal(here.xy, np.array([[float(f"{v:.2f}") for v in row] for row in there.xy]).reshape(-1, 2))
        for column in ("heading", "time"):
            values = getattr(there, column)
            if values is None or np.isnan(values).all():
                assert getattr(here, column) is None
            else:
                np.testing.assert_array_equal(getattr(here, column), np.floor(values))
    (second,) = write_utm([once], folder / "2", files="none")
    (twice,) = read_utm(second, split=split, missing="ignore")
    assert same(twice, once)


def test_a_real_tree_comes_back_whole(tree, tmp_path):
    """Names that are complete and printed as the format says stay as they are."""
    folder = tree(f"images/test/database/x/{PITTS}", f"images/test/queries/{PITTS.replace('4476966', '4476967')}")
    (scene,) = read_utm(folder)
    (written,) = write_utm([scene], tmp_path / "out", files="link")
    (found,) = read_utm(written)
    assert [re.sub(r"@040\.\d+@-079\.\d+@", "@", name) for name in (*found.database.names, *found.queries.names)] == [
        re.sub(r"@040\.\d+@-079\.\d+@", "@", name) for name in (*scene.database.names, *scene.queries.names)
    ]
    assert found.queries.path(0).is_symlink()
    assert os.path.samefile(found.queries.path(0), scene.queries.path(0))


def test_a_short_name_keeps_what_it_says(tmp_path):
    both = photos(tmp_path / "p", ["@1@2@left@.jpg", "@1@2@right@.jpg"], xy=[[1, 2], [1, 2]])
    (written,) = write_utm([Scene("s", "test", both, both)], tmp_path / "out")
    assert [name.split("@")[7] for name in read_utm(written)[0].queries.names] == ["_1_2_left_", "_1_2_right_"]


def test_what_names_cannot_hold_is_refused_or_reported(tmp_path):
    def scene(names, split="test", **columns):
        both = photos(tmp_path / "p", names, touch=False, **{"xy": np.zeros((len(names), 2)), **columns})
        return Scene("s", split, both, both)

    other = photos(tmp_path / "q", ["q.jpg"], xy=[[0, 0]])
    for scenes, said in [
        ([scene(["a.jpg"], xy=None)], "must have xy"),
        ([scene(["a.jpg"], crs="EPSG:28992")], "UTM zone.*EPSG:28992"),
        ([scene(["a.jpg"], crs="EPSG:32661")], "UTM zone"),
        ([scene(["a.bmp"])], r"a\.bmp"),
        ([scene(["../a.jpg"])], "inside its folder"),
        ([scene(["/a.jpg"])], "inside its folder"),
        ([scene(["a@b.jpg", "a_b.jpg"])], r"'a@b\.jpg' and 'a_b\.jpg'"),
        ([scene(["a.jpg"], time=[1e15])], "years 1 to 9999"),
        ([scene(["a.jpg"], split="fold")], "train"),
        ([Scene("s", "train", scene(["a.jpg"]).database, other)], "split train"),
        ([scene(["a.jpg"]), scene(["b.jpg"])], "different names"),
    ]:
        with pytest.raises(InvalidInputError, match=said):
            write_utm(scenes, tmp_path / "out", files="none")
        assert not (tmp_path / "out" / "s").exists()
    with pytest.raises(MissingFileError, match=r"a\.jpg must be there"):
        write_utm([scene(["a.jpg"])], tmp_path / "out")
    with pytest.warns(CovisWarning, match=r"does not keep fov, frame, night\."):
        write_utm([scene(["a.jpg"], fov=[60], frame=[1], flags={"night": np.array([True])})], tmp_path / "out", files="none")
    with pytest.raises(OutputExistsError, match="s is already there"):
        write_utm([scene(["a.jpg"])], tmp_path / "out", files="none")
    write_utm([scene([])], tmp_path / "out", files="none", overwrite=True)
    assert len(read_utm(tmp_path / "out" / "s")[0].queries) == 0


def test_a_named_benchmark_has_its_sizes(tmp_path):
    for side, count in (("database", 2), ("queries", 1)):
        folder = tmp_path / "images" / "test" / side
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"@{number}@0@.jpg").touch()
    with pytest.raises(InvalidInputError, match=r"pitts30k must have 6,816 queries and 10,000 database images; found 1 queries and 2 data"):
        read_utm(tmp_path, dataset="pitts30k")
    with pytest.warns(CovisWarning, match="published numbers do not apply"):
        read_utm(tmp_path, dataset="pitts30k", sizes="warn")
    (scene,) = read_utm(tmp_path, dataset="pitts30k", sizes="ignore")
    assert (len(scene.queries), len(scene.database)) == (1, 2)
    with pytest.warns(CovisWarning, match="no size of the test split of eynsham is known; nothing is asserted"):
        read_utm(tmp_path, dataset="eynsham")
    with pytest.raises(UnknownNameError, match="Did you mean 'pitts30k'"):
        read_utm(tmp_path, dataset="pits30k")
