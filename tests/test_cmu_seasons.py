"""The layout of the CMU Seasons: its odd files, its pose convention on real poses, everything that may be wrong, and the inverse."""

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.datasets import catalogue, check, guess_layout, read
from covis.datasets.catalogue import Dataset, Size
from covis.datasets.cmu_seasons import CONDITIONS, draft_cmu_seasons, read_cameras, read_cmu_seasons
from covis.datasets.cmu_seasons_writer import write_cmu_seasons
from covis.datasets.pose_lists import read_list, seven_poses
from covis.datasets.pose_orders import poses_of
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.geometry import ground_heading
from covis.images import Images, Scene
from covis.rasters import write_image

NORTH = "0.70710678 0.70710678 0 0"  # world-to-camera of a camera that stands upright and looks along y
EAST = "0.5 0.5 -0.5 0.5"
FIRST = "img_00001_c0_1303399106316091us.jpg"
SECOND = "img_00002_c1_1303399106449469us.jpg"
ASKED = "img_00007_c0_1283348635532952us.jpg"
POSED = "img_00009_c1_1292959617198274us.jpg"
INTRINSICS = "# camera model w h fx fy cx cy …\r\nc0 OPENCV 40 30 20 21 20.5 15.5 -0.4 0.2 0 0\r\n\r\nc1 OPENCV 40 30 22 23 19 14 0 0 0 0\n"


@pytest.fixture
def seasons(tmp_path):
    """A function that writes slices with two images in the database and two queries, one with a pose; returns the root."""

    def write(*numbers):
        root = tmp_path / "seasons"
        root.mkdir()
        (root / "intrinsics.txt").write_text(INTRINSICS)
        for number in numbers or (2,):
            folder = root / f"slice{number}"
            for side, names in (("database", (FIRST, SECOND)), ("query", (ASKED, POSED))):
                (folder / side).mkdir(parents=True)
                for shade, name in enumerate(names):
                    write_image(folder / side / name, np.full((30, 40, 3), shade, dtype=np.uint8))
            truth = f"\ufeff./{FIRST}\t{NORTH} 1.0e+001 20 1.5\r\n\r\n  {SECOND} {EAST} 10\t2.1e+001 1.5 \r\n"
            (folder / f"ground-truth-database-images-slice{number}.txt").write_text(truth)
            (folder / f"test-images-slice{number}.txt").write_text(f"{ASKED}\r\n{POSED}\r\n")
            (folder / "camera-poses").mkdir()
            (folder / "camera-poses" / "a-empty.txt").write_text("")
            (folder / "camera-poses" / "b.txt").write_text(f"{POSED} {EAST} 11 22 1.25\n")
        return root

    return write


def test_a_slice_is_read(seasons):
    (scene,) = read_cmu_seasons(seasons())
    assert (scene.name, scene.split) == ("slice2", "test")
    assert scene.database.names == (f"slice2/database/{FIRST}", f"slice2/database/{SECOND}")
    assert scene.queries.names == (f"slice2/query/{ASKED}", f"slice2/query/{POSED}")
    assert scene.database.xy.tolist() == [[10, 20], [10, 21]]  # the centre as it stands, not -R^T t
    np.testing.assert_allclose(scene.database.heading, [0, 90], atol=1e-9)
    np.testing.assert_allclose(scene.database.pose[1], [[0, 0, 1, 10], [-1, 0, 0, 21], [0, -1, 0, 1.5], [0, 0, 0, 1]], atol=1e-12)
    assert scene.database.intrinsics.tolist() == [[20, 21, 20.5, 15.5], [22, 23, 19, 14]]
    assert scene.database.time.tolist() == [1303399106.316091, 1303399106.449469]
    assert scene.database.frame.tolist() == [1, 2]
    assert scene.database.sequence == ("2011-04-21", "2011-04-21")
    assert scene.queries.sequence == ("2010-09-01", "2010-12-21")
    assert scene.queries.pose is scene.queries.xy is scene.queries.heading is None
    assert {name for name, flag in scene.queries.flags.items() if flag[1]} == {"low-sun", "no-foliage", "snow", "urban"}
    assert {name for name, flag in scene.database.flags.items() if flag.all()} == {"sunny", "no-foliage", "urban"}


def test_queries_with_poses_are_the_split_val(seasons):
    root = seasons()
    (scene,) = read_cmu_seasons(root, split="val")
    assert scene.queries.names == (f"slice2/query/{POSED}",)
    assert scene.queries.xy.tolist() == [[11, 22]]
    assert scene.queries.pose[0, 2, 3] == 1.25
    assert scene.queries.heading.round(9).tolist() == [90]
    with pytest.raises(InvalidInputError, match=r"'test' .* or 'val' .*; got 'train'"):
        read_cmu_seasons(root, split="train")


def test_slices_are_chosen(seasons):
    root = seasons(3, 2, 7, 18)
    assert [scene.name for scene in read_cmu_seasons(root)] == ["slice2", "slice3", "slice7", "slice18"]
    assert [scene.name for scene in read_cmu_seasons(root, slices=[7, 3, 7])] == ["slice3", "slice7"]
    assert [scene.name for scene in read_cmu_seasons(root, slices="test")] == ["slice2", "slice3", "slice18"]
    assert read_cmu_seasons(root, slices=18)[0].database.flags["park"].all()
    (alone,) = read("auto", root / "slice7")
    assert alone == read_cmu_seasons(root, slices=7)[0]
    assert guess_layout(root) == guess_layout(root / "slice7") == "cmu-seasons"
    for slices in ([], "tset", 1.5, ["2"]):
        with pytest.raises(InvalidInputError, match="slices must be numbers, or 'test'"):
            read_cmu_seasons(root, slices=slices)
    with pytest.raises(MissingFileError, match=r"must hold slice 9; found 2, 3, 7, 18"):
        read_cmu_seasons(root, slices=[2, 9])


def test_a_slice_without_queries_of_the_split_is_left_out_and_said(seasons):
    root = seasons(2, 3)
    shutil.rmtree(root / "slice3" / "camera-poses")
    with pytest.warns(CovisWarning, match="camera-poses/ holds no pose in slice 3"):
        (scene,) = read_cmu_seasons(root, split="val")
    assert scene.name == "slice2"
    with pytest.raises(MissingFileError, match="in slice 3"):
        read_cmu_seasons(root, split="val", slices=[2, 3])
    (root / "slice2" / "camera-poses" / "b.txt").write_text("\n")
    with pytest.raises(MissingFileError, match="in slice 2, 3, so that there is no query"):
        read_cmu_seasons(root, split="val")
    (root / "slice2" / "test-images-slice2.txt").unlink()
    with pytest.warns(CovisWarning, match=r"test-images-slice<N>.txt names none in slice 2"):
        assert [scene.name for scene in read_cmu_seasons(root)] == ["slice3"]


def test_names_may_say_their_folder_and_files_may_be_elsewhere(seasons, tmp_path):
    root = seasons()
    folder = root / "slice2"
    (folder / "test-images-slice2.txt").write_text(f"slice2/query/{ASKED}\n./query/{POSED}\n")
    (scene,) = read_cmu_seasons(root)
    assert scene.queries.names[1] == f"slice2/query/{POSED}"
    folder.rename(root / "renamed")
    (scene,) = read_cmu_seasons(root / "renamed")
    assert scene.name == "slice2"
    assert scene.queries.path(0).is_file()
    (root / "intrinsics.txt").unlink()
    assert read_cmu_seasons(root / "renamed")[0].database.intrinsics is None


TRUTH = "ground-truth-database-images-slice2.txt"
TEST = "test-images-slice2.txt"


@pytest.mark.parametrize(("file", "content", "error", "said"), [
    (f"slice2/{TRUTH}", None, MissingFileError, TRUTH),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2\n", DamagedFileError, f"{TRUTH}, line 1.*7 numbers .qw qx qy qz x y z.; found 7 fields"),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2 3 4\n", DamagedFileError, "line 1.*found 9 fields"),
    (f"slice2/{TRUTH}", f"\n{FIRST} {NORTH} 1 2 x\n", DamagedFileError, "line 2.*finite number.*'x'"),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2 nan\n", DamagedFileError, "line 1.*finite number.*'nan'"),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2 1_0\n", DamagedFileError, "line 1.*finite number.*'1_0'"),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2 1e999\n", DamagedFileError, "line 1.*finite number"),
    (f"slice2/{TRUTH}", f"{FIRST} 0 0 0 0 1 2 3\n", DamagedFileError, "line 1.*length 1"),
    (f"slice2/{TRUTH}", f"{FIRST} 10 20 1.5 {NORTH[:16]} 0 0\n", DamagedFileError, "line 1"),
    (f"slice2/{TRUTH}", b"\xff\xd8\xff\xe0\x00", DamagedFileError, TRUTH),
    (f"slice2/{TRUTH}", f"photo.jpg {NORTH} 1 2 3\n", DamagedFileError, "line 1.*must be called img_.*'photo.jpg'"),
    (f"slice2/{TRUTH}", f"../../{FIRST} {NORTH} 1 2 3\n", DamagedFileError, "line 1.*must be called img_"),
    (f"slice2/{TRUTH}", f"slice3/database/{FIRST} {NORTH} 1 2 3\n", DamagedFileError, "of slice 2; found 'slice3"),
    (f"slice2/{TRUTH}", f"query/{FIRST} {NORTH} 1 2 3\n", DamagedFileError, "in database/"),
    (f"slice2/{TRUTH}", f"{FIRST} {NORTH} 1 2 3\n./{FIRST} {NORTH} 1 2 3\n", InvalidInputError, "line 2.*stands at .*line 1"),
    (f"slice2/{TEST}", f"{ASKED} {NORTH} 1 2 3\n", DamagedFileError, f"{TEST}, line 1: a line must hold one name"),
    (f"slice2/{TEST}", f"{ASKED}\n{ASKED}\n", InvalidInputError, f"{TEST}, line 2"),
    (f"slice2/{TEST}", "a\0b\n", DamagedFileError, "zero byte"),
    (f"slice2/{TEST}", "", MissingFileError, "no query"),
    ("intrinsics.txt", "c0 OPENCV 40 30 20 21 20 15 0 0 0\n", DamagedFileError, "intrinsics.txt, line 1.*OPENCV w h and 8 numbers"),
    ("intrinsics.txt", "c0 FISHEYE 40 30 20 21 20 15 0 0 0 0\n", DamagedFileError, "line 1.*FISHEYE"),
    ("intrinsics.txt", "c0 OPENCV 40 30 20 21 20 fifteen 0 0 0 0\n", DamagedFileError, "line 1.*fifteen"),
    ("intrinsics.txt", "c0 OPENCV 40 30 0 21 20 15 0 0 0 0\n", DamagedFileError, "focal lengths"),
    ("intrinsics.txt", "c0 PINHOLE 40 30 20 21 20 15\nc0 PINHOLE 40 30 20 21 20 15\n", DamagedFileError, "line 2.*c0 stands twice"),
    ("intrinsics.txt", "c0 PINHOLE 40 30 20 21 20 15\n", InvalidInputError, "line 3: .*camera c1.*it gives c0"),
])  # fmt: skip
def test_each_fault_is_one_error_that_names_the_file(seasons, file, content, error, said):
    root = seasons()
    if content is None:
        (root / file).unlink()
    elif isinstance(content, bytes):
        (root / file).write_bytes(content)
    else:
        (root / file).write_text(content)
    with pytest.raises(error, match=said):
        read_cmu_seasons(root)


def test_policies(seasons):
    root = seasons()
    (root / "slice2" / "query" / ASKED).unlink()
    with pytest.raises(InvalidInputError, match=rf"1 of 2 images.*have no file.*{ASKED}.*{TEST}, line 1"):
        read_cmu_seasons(root)
    with pytest.warns(CovisWarning, match="left out"):
        (scene,) = read_cmu_seasons(root, missing="skip")
    assert len(scene.queries) == 1
    assert len(read_cmu_seasons(root, missing="ignore")[0].queries) == 2
    (root / "slice2" / "camera-poses" / "c.txt").write_text(f"\n{POSED} {NORTH} 0 0 0\n")
    with pytest.raises(InvalidInputError, match=r"c.txt, line 2\): the name stands at .*b.txt, line 1"):
        read_cmu_seasons(root, split="val")
    with pytest.warns(CovisWarning, match="left out"):
        (scene,) = read_cmu_seasons(root, split="val", invalid="skip")
    assert scene.queries.xy.tolist() == [[11, 22]]
    assert len(draft_cmu_seasons(root, split="val")[0].queries.names) == 2
    problems = check("cmu-seasons", root, split="val").problems
    assert [problem.kind for problem in problems] == ["duplicate name"]
    assert not check("cmu-seasons", root / "slice2", split="test", missing="ignore").problems


def test_folders_that_are_not_the_layout(tmp_path, seasons):
    with pytest.raises(MissingFileError, match="no such folder"):
        read_cmu_seasons(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingFileError, match=r"must hold slices .* found none"):
        read_cmu_seasons(tmp_path / "none")
    folder = seasons() / "slice2"
    (folder / "test-images-slice3.txt").write_text("")
    with pytest.raises(InvalidInputError, match=r"lists of slices \[2, 3\]"):
        read_cmu_seasons(folder)


def test_sizes_are_those_of_the_benchmark(seasons, monkeypatch):
    root = seasons(2, 3)
    sizes = (Size("test", 2, 2, "slice2"), Size("test", 2, 3, "slice3"))
    monkeypatch.setitem(catalogue.DATASETS, "extended-cmu-seasons", Dataset("x", "cmu-seasons", "x", "x", sizes))
    assert len(read_cmu_seasons(root, slices=2)) == 1
    with pytest.raises(InvalidInputError, match=r"slice3: the test split .*3 database images; found 2 queries and 2"):
        read_cmu_seasons(root)
    assert len(read_cmu_seasons(root, sizes="ignore")) == 2


@given(damage=st.binary(max_size=80), file=st.sampled_from([TRUTH, TEST, "camera-poses/a.txt", "../intrinsics.txt"]))
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage, file):
    folder = tmp_path_factory.mktemp("g") / "slice2"
    (folder / "camera-poses").mkdir(parents=True)
    (folder / TRUTH).write_text(f"{FIRST} {NORTH} 1 2 3\n")
    (folder / TEST).write_text(f"{ASKED}\n")
    (folder / "camera-poses" / "a.txt").write_text(f"{ASKED} {NORTH} 1 2 3\n")
    (folder / file).write_bytes(damage)
    for split in ("test", "val"):
        with contextlib.suppress(CovisError):
            read_cmu_seasons(folder, split=split, missing="ignore", sizes="ignore")


def alike(found, scene):
    """Whether all that the layout holds came back."""
    for mine, theirs in ((scene.database, found.database), (scene.queries, found.queries)):
        assert len(mine) == len(theirs)
        np.testing.assert_array_equal(theirs.intrinsics, mine.intrinsics)
        np.testing.assert_array_equal(theirs.frame, mine.frame)
        np.testing.assert_allclose(theirs.time, mine.time, rtol=0, atol=6e-7)
        if theirs.pose is not None:
            np.testing.assert_allclose(theirs.pose, mine.pose, rtol=0, atol=1e-9)
            np.testing.assert_allclose(theirs.xy, mine.xy, rtol=0, atol=1e-9)
            np.testing.assert_allclose(theirs.heading, mine.heading, rtol=0, atol=1e-5)


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_round_trip(town, tmp_path, files):
    towns = [replace(scene, split="val") for scene in town]
    written = write_cmu_seasons(towns, tmp_path / "out", files=files)
    assert [path.name for path in written] == ["slice2", "slice3"]
    for path, scene in zip(written, towns, strict=True):
        (found,) = read_cmu_seasons(path, split="val", missing="ignore" if files == "none" else "stop")
        alike(found, scene)
        if files != "none":
            assert found.queries.path(3).read_bytes() == scene.queries.path(3).read_bytes()
            assert found.queries.path(3).is_symlink() == (files == "link")
            assert read_cameras(tmp_path / "out" / "intrinsics.txt")[0].width == 64
            assert read_cameras(tmp_path / "out" / "intrinsics.txt")[0].height == 48
    found = read_cmu_seasons(tmp_path / "out", split="val", missing="ignore")
    again = write_cmu_seasons(found, tmp_path / "again", files="none")
    for path, scene in zip(again, found, strict=True):
        (back,) = read_cmu_seasons(path, split="val", missing="ignore")
        assert back.queries.names == scene.queries.names
        alike(back, scene)


def test_a_test_slice_leaves_its_queries_poses(town, tmp_path):
    with pytest.warns(CovisWarning, match="poses of the queries of 'miami' are not written"):
        (path,) = write_cmu_seasons(town[:1], tmp_path / "out", files="none")
    (found,) = read_cmu_seasons(path, missing="ignore")
    assert found.queries.pose is None
    alike(found, town[0])


def test_a_slice_of_the_layout_comes_back_whole(seasons, tmp_path):
    root = seasons(7, 2)
    for split in ("test", "val"):
        scenes = read_cmu_seasons(root, split=split)
        write_cmu_seasons(scenes, tmp_path / split)
        found = read_cmu_seasons(tmp_path / split, split=split)
        for mine, theirs in zip(scenes, found, strict=True):
            assert mine.name == theirs.name
            assert mine.queries.names == theirs.queries.names
            assert mine.queries.flags.keys() == theirs.queries.flags.keys()
            np.testing.assert_allclose(mine.database.pose, theirs.database.pose, rtol=0, atol=1e-12)
    assert read_cameras(tmp_path / "val" / "intrinsics.txt") == read_cameras(root / "intrinsics.txt")  # distortion too


def photos(folder, names, **columns):
    folder.mkdir()
    for name in names:
        write_image(folder / name, np.zeros((2, 2, 3), dtype=np.uint8))
    return Images(folder, names, pose=np.tile(np.eye(4), (len(names), 1, 1)), **columns)


def test_what_the_layout_cannot_hold_is_refused(tmp_path):
    whole = photos(tmp_path / "a", ["a.jpg", "b.jpg"])
    other = photos(tmp_path / "b", ["c.jpg"])
    camera = photos(tmp_path / "c", [FIRST, FIRST.replace("00001", "00002")], intrinsics=[[1, 1, 0, 0], [2, 2, 0, 0]])
    for number, (scenes, said) in enumerate([
        ([Scene("s", "train", whole, other)], "'test' or 'val'"),
        ([Scene("s", "val", whole, whole)], "'test' or 'val'"),
        ([Scene("slice4", "val", whole, other)] * 2, "different slices"),
        ([Scene("s", "val", whole, Images(tmp_path, ["x.jpg"]))], "must have pose"),
        ([Scene("s", "val", Images(tmp_path, ["x.jpg"]), other)], "must have pose"),
        ([Scene("s", "val", whole, photos(tmp_path / "d", ["a.bmp"]))], r"must be a .jpg or .png"),
        ([Scene("s", "val", whole, photos(tmp_path / "e", ["a.jpg", "b.jpg"], frame=[3, 3]))], "would both be 'img_00003_c0_0us.jpg'"),
        ([Scene("s", "val", whole, photos(tmp_path / "f", ["a.jpg"], frame=[-1]))], "frame from 0"),
        ([Scene("s", "val", camera, camera.select([0]))], "one set of intrinsics"),
        ([Scene("s", "val", whole, camera.select([0]))], "intrinsics, or none"),
    ]):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_cmu_seasons(scenes, tmp_path / f"out{number}")
        assert not [*tmp_path.glob(f"out{number}/slice*")]
    other.path(0).unlink()
    with pytest.raises(MissingFileError, match="must be there"):
        write_cmu_seasons([Scene("s", "val", whole, other)], tmp_path / "out")
    assert not (tmp_path / "out" / "slice2").exists()


def test_images_without_time_or_intrinsics(tmp_path):
    scene = Scene("slice9", "val", photos(tmp_path / "a", ["a.jpg", "b.png"]), photos(tmp_path / "b", ["c.jpg"]))
    (path,) = write_cmu_seasons([scene], tmp_path / "out")
    (found,) = read_cmu_seasons(path, split="val")
    assert found.database.names == ("slice9/database/img_00000_c0_0us.jpg", "slice9/database/img_00001_c0_0us.png")
    assert found.database.time is found.database.sequence is found.database.intrinsics is None
    assert not found.database.flags


def test_positions_that_are_not_the_poses_are_said(tmp_path):
    moved = photos(tmp_path / "a", ["a.jpg"], xy=[[5.0, 0.0]])
    with pytest.warns(CovisWarning, match="not those of their poses"):
        write_cmu_seasons([Scene("s", "val", moved, photos(tmp_path / "b", ["b.jpg"]))], tmp_path / "out")


def test_nothing_is_overwritten_unasked(seasons, tmp_path):
    scenes = read_cmu_seasons(seasons(2))
    write_cmu_seasons(scenes, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="slice2 is already there"):
        write_cmu_seasons(scenes, tmp_path / "out")
    write_cmu_seasons([replace(scenes[0], name="slice3")], tmp_path / "out")  # the same cameras: a slice more
    (tmp_path / "out" / "intrinsics.txt").write_text("c0 PINHOLE 1 1 1 1 1 1\n")
    with pytest.raises(OutputExistsError, match=r"intrinsics.txt is already there"):
        write_cmu_seasons([replace(scenes[0], name="slice4")], tmp_path / "out")
    with pytest.raises(InvalidInputError, match=r"slice3 is there, of other cameras"):
        write_cmu_seasons(scenes, tmp_path / "out", overwrite=True)
    write_cmu_seasons([scenes[0], replace(scenes[0], name="slice3")], tmp_path / "out", overwrite=True)
    assert len(read_cmu_seasons(tmp_path / "out")) == 2
    bare = photos(tmp_path / "bare", ["a.jpg"])
    with pytest.raises(InvalidInputError, match="of other cameras"):
        write_cmu_seasons([Scene("slice2", "val", bare, photos(tmp_path / "more", ["b.jpg"]))], tmp_path / "out", overwrite=True)


def turn(a, b):
    """Degrees from b to a, in [-180, 180)."""
    return (a - b + 180) % 360 - 180


@pytest.fixture(scope="module")
def real(covis_data, tmp_path_factory):
    """The root of slices 6, 7, 8 and 22 with their real poses and no image."""
    root = tmp_path_factory.mktemp("cmu")
    for number in (6, 7, 8, 22):
        source, folder = covis_data / "metadata" / "cmu_poses" / str(number), root / f"slice{number}"
        (folder / "camera-poses").mkdir(parents=True)
        shutil.copyfile(source / "c0_db.txt", folder / f"ground-truth-database-images-slice{number}.txt")
        for path in source.glob("c0_[0-9]*.txt"):
            shutil.copyfile(path, folder / "camera-poses" / path.name)
    return root


def test_real_poses_are_read(real):
    scenes = read_cmu_seasons(real, split="val", missing="ignore", sizes="ignore")
    assert [scene.name for scene in scenes] == ["slice6", "slice7", "slice8", "slice22"]
    assert [len(scene.database) for scene in scenes] == [272, 190, 241, 160]
    assert sum(len(scene.queries) for scene in scenes) == 8442 - 863
    assert {day for scene in scenes for day in scene.database.sequence} == {"2011-04-21"}
    assert {day for scene in scenes for day in scene.queries.sequence} == CONDITIONS.keys() - {"2011-04-21"}


def test_real_poses_are_rotation_world_to_camera_and_centre(real):
    """Taken so, a drive is flat, goes about a metre a step, and its camera looks 44 degrees left of the way; else it does not."""
    for scene in read_cmu_seasons(real, split="val", missing="ignore", sizes="ignore"):
        path = real / scene.name / f"ground-truth-database-images-{scene.name}.txt"
        rows = read_list(path, numbers=7).values
        as_translation = poses_of(rows, order="qw qx qy qz tx ty tz", convention="world-to-camera")
        as_camera_to_world = poses_of(rows, order="qw qx qy qz tx ty tz", convention="camera-to-world")
        np.testing.assert_array_equal(scene.database.pose, seven_poses(read_list(path, numbers=7), form="cmu"))
        spread, relief = {}, {}
        for name, poses in (("centre", scene.database.pose), ("translation", as_translation), ("camera-to-world", as_camera_to_world)):
            step = np.diff(poses[:, :2, 3], axis=0)
            off = turn(ground_heading(poses)[:-1], np.rad2deg(np.arctan2(step[:, 0], step[:, 1])))[np.linalg.norm(step, axis=1) > 0.3]
            spread[name], relief[name] = np.ptp(np.quantile(off, [0.1, 0.9])), np.ptp(poses[:, 2, 3])
            if name == "centre":
                assert 0.5 < np.median(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)) < 1.5
                assert -46 < np.median(off) < -43
        assert relief["centre"] < 8 < 20 < relief["translation"]
        assert spread["centre"] < 4 < 60 < spread["translation"]
        assert (scene.database.pose[:, 2, 1] < -0.99).all()  # the image's down is the world's -z: z is up
        assert (as_camera_to_world[:, 2, 1] > -0.1).any()  # a car that lies on its side


def test_the_readmes_own_line_has_z_up():
    """The example of the data set's README, from slice 2."""
    row = [0.636779, 0.569692, 0.379586, -0.354792, -85.392177, 55.210379, -2.980700]
    (pose,) = poses_of(row, order="qw qx qy qz tx ty tz", convention="centre")
    assert pose[2, 1] < -0.97


def test_a_failure_leaves_old_slices_under_their_own_cameras(seasons, tmp_path):
    scenes = read_cmu_seasons(seasons(2))
    write_cmu_seasons(scenes, tmp_path / "out")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
    database = replace(scenes[0].database, intrinsics=np.asarray(scenes[0].database.intrinsics) + 1)
    queries = replace(scenes[0].queries, intrinsics=np.asarray(scenes[0].queries.intrinsics) + 1)
    queries.path(0).unlink()
    with pytest.raises(MissingFileError, match="must be there to be written"):
        write_cmu_seasons([replace(scenes[0], database=database, queries=queries)], tmp_path / "out", overwrite=True)
    assert before == {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
