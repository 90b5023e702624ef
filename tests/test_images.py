"""Images and Scene: what goes in comes back, and every rule names the image that breaks it."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError
from covis.images import Images, Scene

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0"), min_size=1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
ODD = ("0012", "ü 1.jpg", 'a"b.png', "x,y.png", "#c.png", "'", "0.50", "true", "null", " lead", "1e5", "日本.png")


@st.composite
def tables(draw):
    names = draw(st.lists(TEXT, unique=True, max_size=4))
    n = len(names)

    def column(values):
        return draw(st.none() | st.lists(values, min_size=n, max_size=n))

    pose = None
    if draw(st.booleans()):
        pose = np.tile(np.eye(4), (n, 1, 1))
        pose[:, :3, 3] = np.array(draw(st.lists(NUMBER, min_size=3 * n, max_size=3 * n))).reshape(n, 3)
    xy = draw(st.none() | st.lists(NUMBER, min_size=2 * n, max_size=2 * n))
    flags = draw(
        st.dictionaries(
            st.from_regex('[^"\r\n\0\ud800-\udfff]+', fullmatch=True), st.lists(st.booleans(), min_size=n, max_size=n), max_size=2
        )
    )
    return Images(
        draw(TEXT),
        names,
        xy=None if xy is None else np.array(xy).reshape(n, 2),
        heading=column(st.floats(0, 360, exclude_max=True)),
        reach=column(st.floats(1e-3, 1e9)),
        pose=pose,
        depth=column(TEXT | st.just("")),
        sequence=column(TEXT | st.just("") | st.from_regex("[0-9]{1,5}", fullmatch=True)),
        frame=column(st.integers(-(2**63), 2**63 - 1)),
        time=column(NUMBER),
        crs=draw(st.none() | TEXT),
        flags=flags,
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@given(images=tables())
def test_a_table_comes_back(tmp_path_factory, suffix, images):
    path = tmp_path_factory.mktemp("t") / f"images.{suffix}"
    found = Images.read(images.write(path))
    assert found == images
    assert found.digest() == images.digest()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_odd_names_come_back(tmp_path, suffix):
    images = Images(
        tmp_path, ODD, sequence=ODD, depth=ODD, place=range(len(ODD)), fov=[90] * len(ODD), intrinsics=[[1, 2, 3, 4]] * len(ODD)
    )
    assert Images.read(images.write(tmp_path / f"a.{suffix}")) == images
    moved = Images.read(tmp_path / f"a.{suffix}", root="elsewhere")
    assert moved.path(0).as_posix() == "elsewhere/0012"
    assert moved.digest() == images.digest()
    assert moved != images


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_empty_table_comes_back(tmp_path, suffix):
    none = np.zeros(0)
    images = Images(
        "r",
        (),
        xy=none.reshape(0, 2),
        heading=none,
        pose=none.reshape(0, 4, 4),
        intrinsics=none.reshape(0, 4),
        frame=(),
        depth=(),
        flags={"night": ()},
    )
    assert len(images) == 0
    assert Images.read(images.write(tmp_path / f"a.{suffix}")) == images
    assert Images("r", ()).write(tmp_path / f"b.{suffix}")
    assert Images.read(tmp_path / f"b.{suffix}") == Images("r", ())


def full(n=3, root="r"):
    pose = np.tile(np.eye(4), (n, 1, 1))
    pose[:, 0, 3] = np.arange(n)
    names = [f"{i}.png" for i in range(n)]
    return Images(
        root,
        names,
        xy=np.arange(2.0 * n).reshape(n, 2),
        pose=pose,
        frame=range(n),
        sequence=["s"] * n,
        flags={"night": [True] * n},
        heading=[359.5] * n,
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_every_cut_is_refused(tmp_path, suffix, refuses_every_cut):
    path = full(40).write(tmp_path / f"a.{suffix}")
    refuses_every_cut(path, lambda: Images.read(path), cuts=120)


def rewritten(path, change):
    """Write the table's file with a changed header."""
    if path.suffix == ".csv":
        first, _, rest = path.read_text().partition("\n")
        path.write_text("# " + json.dumps(change(json.loads(first[1:]))) + "\n" + rest)
    else:
        header = json.loads(pl.read_parquet_metadata(path)["covis"])
        pl.read_parquet(path).write_parquet(path, metadata={"covis": json.dumps(change(header))})


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(("change", "said"), [
    (lambda h: h | {"version": 99}, "version 99"),
    (lambda h: h | {"format": "covis-labels"}, "covis-images"),
    (lambda h: {k: v for k, v in h.items() if k != "root"}, "root"),
    (lambda h: h | {"rows": 7}, "header says 7"),
    (lambda h: [1], "header says"),
])  # fmt: skip
def test_foreign_headers_are_refused(tmp_path, suffix, change, said):
    path = full().write(tmp_path / f"a.{suffix}")
    rewritten(path, change)
    with pytest.raises(DamagedFileError, match=said):
        Images.read(path)


def test_the_header_says_version_format_and_units(tmp_path):
    first = full().write(tmp_path / "a.csv").read_text().splitlines()[0]
    header = json.loads(first[1:])
    assert (header["format"], header["version"]) == ("covis-images", 1)
    assert "metres" in header["units"]["xy"]
    assert (first[0], "camera-to-world" in header["units"]["pose"]) == ("#", True)


def test_foreign_tables_are_refused(tmp_path):
    for text in ("", "name\na.png\n", "5\na\n", "\x00\x01", '# {"format": "covis-images", "version": 1, "root": "r"}\nx\n1\n'):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DamagedFileError, match=r"a\.csv"):
            Images.read(tmp_path / "a.csv")
    pl.DataFrame({"name": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DamagedFileError, match=r"a\.parquet"):
        Images.read(tmp_path / "a.parquet")
    (tmp_path / "f.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedFileError, match=r"f\.csv"):
        Images.read(tmp_path / "f.csv")
    for suffix in ("csv", "parquet"):
        with pytest.raises(MissingFileError, match="none"):
            Images.read(tmp_path / f"none.{suffix}")
        (tmp_path / f"folder.{suffix}").mkdir()
        with pytest.raises(DamagedFileError, match="folder"):
            Images.read(tmp_path / f"folder.{suffix}")


def test_half_a_column_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text('# {"format": "covis-images", "version": 1, "root": "r"}\nname,xy_0\na,1.0\n')
    with pytest.raises(DamagedFileError, match="xy_1 is missing"):
        Images.read(tmp_path / "a.csv")


def test_a_table_by_hand_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(
        '# {"format": "covis-images", "version": 1, "root": "r"}\nname,xy_0,xy_1,flag_night,frame\n0012,1,2,true,3\n'
    )
    expected = Images("r", ["0012"], xy=[[1, 2]], flags={"night": [True]}, frame=[3])
    assert Images.read(tmp_path / "a.csv") == expected


BROKEN = [
    ({"heading": [0.0, 360.0]}, r"b\.png.*360"),
    ({"heading": [0.0, -1.0]}, r"heading.*b\.png"),
    ({"fov": [90.0, 0.0]}, r"fov.*b\.png"),
    ({"fov": [90.0, 361.0]}, r"fov.*b\.png"),
    ({"reach": [1.0, 0.0]}, r"reach.*b\.png"),
    ({"xy": [[0, 0], [np.nan, 0]]}, r"xy of b\.png.*finite|finite; xy of b\.png"),
    ({"time": [0, np.inf]}, r"time of b\.png"),
    ({"xy": [[0, 0]]}, r"xy must have the shape \(2, 2\).*\(1, 2\)"),
    ({"xy": [0, 0]}, "xy must have the shape"),
    ({"heading": ["north", "east"]}, "heading must be numbers"),
    ({"intrinsics": [[1, 1, 0, 0], [0, 1, 0, 0]]}, r"focal.*b\.png"),
    ({"frame": [0.5, 1.5]}, "frame must hold whole numbers"),
    ({"frame": [1]}, "frame must have the shape"),
    ({"depth": ["x"]}, "depth must have one value for each of the 2 images; got 1"),
    ({"depth": "ab"}, "depth must be a sequence of str"),
    ({"sequence": [1, 2]}, "sequence must be a sequence of str"),
    ({"flags": {"night": [True]}}, "night.*shape"),
    ({"flags": {'a"b': [True, True]}}, "name must be one line without quotes"),
    ({"flags": {"night": ["False", "True"]}}, "'night' must hold true or false"),
    ({"pose": [np.eye(4), np.diag([1, 1, -1, 1])]}, r"b\.png"),
    ({"pose": [np.eye(4), np.diag([2, 2, 2, 1])]}, r"b\.png"),
    ({"pose": [np.eye(4), np.full((4, 4), np.nan)]}, r"b\.png"),
    ({"pose": np.eye(4)}, "pose must have the shape"),
]


@pytest.mark.parametrize(("columns", "said"), BROKEN)
def test_every_rule_names_the_image(columns, said):
    with pytest.raises(InvalidInputError, match=said):
        Images("r", ["a.png", "b.png"], **columns)


@pytest.mark.parametrize(("names", "said"), [
    (["a", "b", "a"], "'a' stands twice among the images of r"),
    (["a", ""], "file name"),
    (["a\nb"], "one line"),
    ("ab", "sequence of str"),
    ([1], "sequence of str"),
])  # fmt: skip
def test_names_are_names(names, said):
    with pytest.raises(InvalidInputError, match=said):
        Images("r", names)


def test_images_are_frozen_and_arguments_untouched():
    xy = np.zeros((1, 2))
    images = Images("r", ["a"], xy=xy)
    with pytest.raises(ValueError, match="read-only"):
        images.xy[0, 0] = 1
    xy[0, 0] = 5
    assert images.xy[0, 0] == 0


def test_making_a_table_touches_no_file(tmp_path):
    assert len(Images(tmp_path / "nowhere", ["a"], depth=["b"])) == 1


def test_absent_columns_are_named():
    with pytest.raises(InvalidInputError, match="images in r must have pose and depth"):
        Images("r", ["a"], xy=[[0, 0]]).need("xy", "pose", "depth")


def test_rows_are_chosen_in_order():
    images = full(4)
    assert images.select([2, 0]).names == ("2.png", "0.png")
    assert images.select(np.array([False, True, False, True])).frame.tolist() == [1, 3]
    assert images.select([-1]).pose[0, 0, 3] == 3
    assert images.select(range(4)) == images
    assert len(images.select([])) == len(images.select(np.zeros(4, dtype=bool))) == 0
    with pytest.raises(InvalidInputError, match="twice"):
        images.select([1, 1])


def test_the_same_files_are_found():
    a, b = Images("r/x", ["1", "2"]), Images("r", ["x/2", "y", "x/1"])
    assert a.same_files(b).tolist() == [2, 0]
    assert b.same_files(a).tolist() == [1, -1, 0]


def test_equality_and_hashes_see_every_column():
    assert full() == full()
    assert hash(full()) == hash(full())
    assert full() != full(4)
    for other in (Images("r", full().names), full().select([1, 0, 2])):
        assert other != full()
        assert other.digest() != full().digest()
    assert full() != "images"
    assert "night" in repr(full())


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_nothing_is_overwritten_unasked(tmp_path, suffix, full_disk):
    path = full().write(tmp_path / f"a.{suffix}")
    with pytest.raises(OutputExistsError, match="a"):
        full(4).write(path)
    with full_disk(500), pytest.raises(OutputFailedError, match="could not be written"):
        full(500).write(path, overwrite=True)
    assert Images.read(path) == full()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    full(4).write(path, overwrite=True)
    assert len(Images.read(path)) == 4


def test_only_parquet_and_csv(tmp_path):
    for call in (full().write, Images.read):
        with pytest.raises(InvalidInputError, match=r"\.parquet or \.csv"):
            call(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_scene_comes_back(tmp_path, training):
    database = full(5)
    scene = Scene("kitchen 1", "train", database, database if training else full(2, root="q"))
    found = Scene.read(scene.write(tmp_path / "scene"))
    assert found == scene
    assert found.training is training
    assert (found.queries is found.database) is training
    assert (tmp_path / "scene" / "queries.parquet").exists() is not training
    with pytest.raises(OutputExistsError, match="scene"):
        scene.write(tmp_path / "scene")
    assert Scene.read(scene.write(tmp_path / "scene", overwrite=True)) == scene
    assert [p.name for p in tmp_path.iterdir()] == ["scene"]


def test_equal_sides_make_a_training_scene():
    assert Scene("x", "train", full(), full()).training
    assert not Scene("x", "test", full(), full(root="other")).training


def test_damaged_scenes_are_refused(tmp_path, refuses_every_cut):
    path = Scene("k", "test", full(3), full(2, root="q")).write(tmp_path / "scene")
    refuses_every_cut(path / "scene.json", lambda: Scene.read(path), harmless=1)
    refuses_every_cut(path / "queries.parquet", lambda: Scene.read(path), cuts=20)
    for lacking in ("name", "split"):
        header = json.loads((path / "scene.json").read_text())
        kept = {k: v for k, v in header.items() if k != lacking}
        (path / "scene.json").write_text(json.dumps(kept))
        with pytest.raises(DamagedFileError, match="name and split"):
            Scene.read(path)
        (path / "scene.json").write_text(json.dumps(header))
    (path / "queries.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"queries\.parquet"):
        Scene.read(path)
    with pytest.raises(MissingFileError, match="nowhere"):
        Scene.read(tmp_path / "nowhere")


def test_a_scene_has_one_frame_and_a_plain_name():
    with pytest.raises(InvalidInputError, match=r"'k' must share one coordinate frame.*EPSG:1.*None"):
        Scene("k", "test", Images("r", ["a"], crs="EPSG:1"), Images("r", ["b"]))
    for name in ("", "a/b", "..", ".", "a\\b", "a\nb"):
        with pytest.raises(InvalidInputError, match="folder name"):
            Scene(name, "test", full(), full())
