"""The layout of RobotCar Seasons: .png for .jpg, its three pose conventions, everything that may be wrong, and the inverse."""

import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.datasets import catalogue, check, guess_layout, read
from covis.datasets.catalogue import Dataset, Size
from covis.datasets.pose_lists import read_nvm_cameras, seven_poses, write_nvm
from covis.datasets.pose_orders import poses_of
from covis.datasets.robotcar import NVM, draft_robotcar_seasons, positions_of, read_extrinsics, read_robotcar_seasons
from covis.datasets.robotcar_writer import write_robotcar_seasons
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene
from covis.rasters import write_image

ALONG_X = "0.5 -0.5 -0.5 -0.5"  # world-to-camera of an upright camera that looks along x, in a world whose z points down
REAR, LATER, LEFT = "1417176458999821", "1417176459999821", "1417176458999822"
TRAIN, TEST, RAIN = "1418721355730335", "1418235392061935", "1418840689734892"
MATRIX = "0 0 1 12 1 0 0 -7 0 1 0 -1.5 0 0 0 1"  # camera-to-world: the camera's z is the world's x
LOCATIONS = "3D-models/individual/queries_per_location"


def nvm(*lines, count=None):
    return f"NVM_V3 \r\n\r\n{len(lines) if count is None else count}\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n0\r\n\r\n0\r\n"


LINES = (
    f"./overcast-reference/rear/{REAR}.png\t400.0 {ALONG_X} 10 20 -1.0e+000 0 0",
    f"overcast-reference/rear/{LATER}.png 400 {ALONG_X} 11 20 -1 -0.01 0 ",
    f"./overcast-reference/left/{LEFT}.png 400 {ALONG_X} 10 20 -1 0 0",
)


@pytest.fixture
def robotcar(tmp_path):
    root = tmp_path / "robotcar"
    for shade, name in enumerate([
        f"overcast-reference/rear/{REAR}.jpg", f"overcast-reference/rear/{LATER}.jpg", f"overcast-reference/left/{LEFT}.jpg",
        f"dawn/rear/{TRAIN}.jpg", f"night/rear/{TEST}.jpg", f"night-rain/rear/{RAIN}.png",
    ]):  # fmt: skip
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / "images" / name, np.full((4, 4, 3), shade, dtype=np.uint8))
    (root / NVM).parent.mkdir(parents=True)
    (root / NVM).write_text(nvm(*LINES))
    (root / "robotcar_v2_train.txt").write_text(f"dawn/rear/{TRAIN}.png {MATRIX}\n")
    (root / "robotcar_v2_test.txt").write_text(f"night/rear/{TEST}.png\r\n./night-rain/rear/{RAIN}.jpg\r\n")
    for camera in ("left", "rear", "right"):
        for kind in ("intrinsics", "extrinsics"):
            (root / kind).mkdir(exist_ok=True)
        (root / "intrinsics" / f"{camera}_intrinsics.txt").write_text(f"fx 400.0\nfy 401\r\ncx {len(camera)}\ncy 498.2\n")
        (root / "extrinsics" / f"{camera}_extrinsics.txt").write_text("0,0,1,2\r\n1,0,0,0\r\n0,1,0,-1.5\r\n0,0,0,1\r\n")
    (root / LOCATIONS).mkdir(parents=True)
    (root / LOCATIONS / "queries_location_001.txt").write_text(f"dawn/rear/{TRAIN}.jpg\nnight/rear/{TEST}.jpg\nnight/left/{TEST}.jpg\n")
    (root / LOCATIONS / "queries_location_049.txt").write_text(f"night-rain/rear/{RAIN}.jpg\n")
    return root


def test_the_benchmark_is_read(robotcar):
    (scene,) = read_robotcar_seasons(robotcar, sizes="ignore")
    assert (scene.name, scene.split) == ("robotcar", "test")
    assert scene.database.names == (f"overcast-reference/rear/{REAR}.jpg", f"overcast-reference/rear/{LATER}.jpg")
    assert scene.queries.names == (f"night/rear/{TEST}.jpg", f"night-rain/rear/{RAIN}.png")  # the file that is there
    np.testing.assert_allclose(scene.database.pose[0], [[0, 0, 1, 10], [1, 0, 0, 20], [0, 1, 0, -1], [0, 0, 0, 1]], atol=1e-12)
    assert scene.database.xy.tolist() == [[20, 10], [20, 11]]
    np.testing.assert_allclose(scene.database.heading, 0, atol=1e-9)
    assert scene.database.intrinsics.tolist() == [[400, 401, 4, 498.2]] * 2
    assert scene.database.time.tolist() == [1417176458.999821, 1417176459.999821]
    assert scene.database.sequence == ("overcast-reference/rear",) * 2
    assert scene.database.flags["overcast-reference"].all()
    assert scene.queries.pose is scene.queries.xy is scene.database.place is None
    assert scene.queries.place.tolist() == [1, 49]
    assert scene.queries.flags["night"].tolist() == [True, False]
    assert scene.queries.flags["night-rain"].tolist() == [False, True]
    assert not scene.queries.flags["sun"].any()
    assert guess_layout(robotcar) == "robotcar-seasons"
    assert read("auto", robotcar, sizes="ignore") == [scene]


def test_queries_with_poses_are_the_split_val(robotcar):
    (scene,) = read_robotcar_seasons(robotcar, split="val", sizes="ignore")
    assert scene.queries.names == (f"dawn/rear/{TRAIN}.jpg",)
    assert scene.queries.pose[0].tolist() == [[0, 0, 1, 12], [1, 0, 0, -7], [0, 1, 0, -1.5], [0, 0, 0, 1]]
    assert scene.queries.xy.tolist() == [[-7, 12]]
    assert scene.queries.heading.tolist() == [0]
    with pytest.raises(InvalidInputError, match=r"'test' or 'val' \(robotcar_v2_train.txt"):
        read_robotcar_seasons(robotcar, split="train")


def test_cameras_are_chosen(robotcar):
    everything = read_robotcar_seasons(robotcar, camera="all")[0].database
    assert everything.sequence[2] == "overcast-reference/left"
    assert len(everything) == 3
    with pytest.raises(MissingFileError, match=r"robotcar_v2_test.txt must list images of the camera 'left'"):
        read_robotcar_seasons(robotcar, camera="left")
    with pytest.raises(InvalidInputError, match=r"camera must be one of left, rear, right, all; got 'front'"):
        read_robotcar_seasons(robotcar, camera="front")


def test_files_that_may_be_absent(robotcar):
    shutil.rmtree(robotcar / "intrinsics")
    shutil.rmtree(robotcar / LOCATIONS)
    (scene,) = read_robotcar_seasons(robotcar, sizes="ignore")
    assert scene.queries.place is scene.queries.intrinsics is None
    (robotcar / NVM).rename(robotcar / "mine.nvm")
    assert read_robotcar_seasons(robotcar, model="mine.nvm", sizes="ignore") == [scene]


def test_extrinsics_are_camera_to_car(robotcar):
    path = robotcar / "extrinsics" / "rear_extrinsics.txt"
    assert read_extrinsics(path).tolist() == [[0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, -1.5], [0, 0, 0, 1]]
    for text, error, said in [
        ("1,2\n3,4", DamagedFileError, "found 2 lines"),
        ("1,x", DamagedFileError, "'x'"),
        ("", DamagedFileError, "4x4"),
        ("1,2\n3", DamagedFileError, "4x4"),
        ("2,0,0,0\n" * 4, InvalidInputError, "rear_extrinsics"),
    ]:
        path.write_text(text)
        with pytest.raises(error, match=said):
            read_extrinsics(path)


TRAINED = "robotcar_v2_train.txt"
ASKED = "robotcar_v2_test.txt"


@pytest.mark.parametrize(("file", "content", "error", "said"), [
    (NVM, None, MissingFileError, "all.nvm"),
    (NVM, "", DamagedFileError, "NVM_V3.*an empty file"),
    (NVM, "NVM_V3_R9T\n1\n", DamagedFileError, "begins with NVM_V3.*R9T"),
    (NVM, "NVM_V3\n", DamagedFileError, "how many cameras.*the end of the file"),
    (NVM, "NVM_V3\n1.5\n", DamagedFileError, "how many cameras it holds; found line 2: '1.5'"),
    (NVM, "NVM_V3\n99999999999999999999\n", DamagedFileError, "how many cameras"),
    (NVM, nvm(*LINES, count=4), DamagedFileError, "line 8: .*found 1 fields: '0'"),
    (NVM, "\n".join(["NVM_V3", "4", *LINES]), DamagedFileError, "says that it holds 4 cameras; found 3"),
    (NVM, "NVM_V3\n0\n", MissingFileError, "lists none"),
    (NVM, nvm(LINES[0], LINES[1][:-20]), DamagedFileError, "line 5.*found"),
    (NVM, nvm(LINES[0], LINES[1].replace("400", "f")), DamagedFileError, "line 5.*'f'"),
    (NVM, nvm(LINES[0], LINES[1].replace(" 11 ", " nan ")), DamagedFileError, "line 5.*'nan'"),
    (NVM, nvm(LINES[0], LINES[1].replace("0.5", "0.7")), DamagedFileError, f"line 5.*length 1.*{LATER}"),
    (NVM, nvm(LINES[0], LINES[1].replace("rear", "front")), DamagedFileError, "line 5.*must be called <condition>.*front"),
    (NVM, nvm(LINES[0], "../" + LINES[1]), DamagedFileError, r"line 5.*'\.\./overcast"),
    (NVM, nvm(LINES[0], LINES[0][2:].replace("png", "jpg")), InvalidInputError, r"line 5\): the name stands at .*line 4"),
    (NVM, b"\xff\xd8\xff\xe0", DamagedFileError, "readable NVM"),
    (ASKED, None, MissingFileError, ASKED),
    (ASKED, "", MissingFileError, "lists none"),
    (ASKED, f"night/rear/{TEST}.png {MATRIX}\n", DamagedFileError, "line 1: a line must hold one name; found 17 fields"),
    (ASKED, f"night/rear/{TEST}.png\n./night/rear/{TEST}.jpg\n", InvalidInputError, "line 2.*stands at"),
    (ASKED, f"/night/rear/{TEST}.png\n", DamagedFileError, "line 1.*must be called"),
    (ASKED, f"rear/{TEST}.png\n", DamagedFileError, "line 1.*must be called"),
    (TRAINED, None, MissingFileError, TRAINED),
    (TRAINED, f"dawn/rear/{TRAIN}.png {MATRIX[:-2]}\n", DamagedFileError, "line 1.*16 numbers .a 4x4.*found 16 fields"),
    (TRAINED, f"dawn/rear/{TRAIN}.png 0 1 0 0 0 0 1 0 1 0 0 0 12 -7 -1.5 1\n", DamagedFileError, "line 1.*last row.*transposed"),
    (TRAINED, f"dawn/rear/{TRAIN}.png 0 0 2 12 1 0 0 -7 0 1 0 -1.5 0 0 0 1\n", InvalidInputError, f"{TRAINED}, line 1.*is"),
    ("intrinsics/rear_intrinsics.txt", None, MissingFileError, "rear_intrinsics"),
    ("intrinsics/rear_intrinsics.txt", "fx 1\nfy 1\ncx 1\n", DamagedFileError, "'fx v', 'fy v'"),
    ("intrinsics/rear_intrinsics.txt", "fx 1\nfy 1\ncx 1\ncx 2\n", DamagedFileError, "'fx v', 'fy v'"),
    ("intrinsics/rear_intrinsics.txt", "fx 0\nfy 1\ncx 1\ncy 1\n", DamagedFileError, "above 0"),
    ("intrinsics/rear_intrinsics.txt", "fx one\nfy 1\ncx 1\ncy 1\n", DamagedFileError, "line 1.*'one'"),
    (f"{LOCATIONS}/queries_location_049.txt", f"night/rear/{TEST}.jpg\n", InvalidInputError, "049.txt, line 1.*in location 1 too"),
    (f"{LOCATIONS}/queries_location_049.txt", "photo.jpg\n", DamagedFileError, "049.txt, line 1"),
])  # fmt: skip
def test_each_fault_is_one_error_that_names_the_file(robotcar, file, content, error, said):
    if content is None:
        (robotcar / file).unlink()
    elif isinstance(content, bytes):
        (robotcar / file).write_bytes(content)
    else:
        (robotcar / file).write_text(content)
    with pytest.raises(error, match=said):
        read_robotcar_seasons(robotcar, split="val" if file == TRAINED else "test", sizes="ignore")


def test_points_of_a_model_are_not_read(robotcar):
    with (robotcar / NVM).open("a") as file:
        file.write("1\n0.5 0.5 nothing that a camera's line would be\n\xff")
    assert len(read_nvm_cameras(robotcar / NVM)) == 3


def test_policies(robotcar):
    (robotcar / "images" / "night" / "rear" / f"{TEST}.jpg").unlink()
    with pytest.raises(InvalidInputError, match=rf"1 of 2 images.*have no file: night/rear/{TEST}.jpg .*test.txt, line 1"):
        read_robotcar_seasons(robotcar, sizes="ignore")
    with pytest.warns(CovisWarning, match="left out"):
        (scene,) = read_robotcar_seasons(robotcar, missing="skip", sizes="ignore")
    assert len(scene.queries) == 1
    shutil.rmtree(robotcar / "images" / "night")
    with pytest.raises(MissingFileError, match=r"must hold the images of night/rear, since .*test.txt.*Unpack"):
        read_robotcar_seasons(robotcar, sizes="ignore")
    assert len(read_robotcar_seasons(robotcar, missing="ignore", sizes="ignore")[0].queries) == 2
    (robotcar / ASKED).write_text(f"night/rear/{TEST}.png\nnight/rear/{TEST}.jpg\n")
    with pytest.warns(CovisWarning, match="left out"):
        (scene,) = read_robotcar_seasons(robotcar, missing="ignore", invalid="skip", sizes="ignore")
    assert len(scene.queries) == 1
    report = check("robotcar-seasons", robotcar, sizes="ignore")
    assert {problem.kind for problem in report.problems} == {"duplicate name", "missing image"}
    assert len(draft_robotcar_seasons(robotcar, sizes="ignore")[0].sides) == 2


def test_queries_in_no_location_are_said(robotcar):
    (robotcar / LOCATIONS / "queries_location_049.txt").write_text("")
    (robotcar / LOCATIONS / "queries_location_notes.txt").write_text("read me\n")
    with pytest.warns(CovisWarning, match=rf"1 of 2 queries .* in no list .*night-rain/rear/{RAIN}.png"):
        (scene,) = read_robotcar_seasons(robotcar, sizes="ignore")
    assert scene.queries.place is None


def test_sizes_are_those_of_the_benchmark(robotcar, monkeypatch):
    sizes = (Size("test", 1872, 2), Size("val", 1, 2))
    monkeypatch.setitem(catalogue.DATASETS, "robotcar-seasons-v2", Dataset("x", "robotcar-seasons", "x", "x", sizes))
    with pytest.raises(InvalidInputError, match=r"1,872 queries and 2 database images; found 2 queries"):
        read_robotcar_seasons(robotcar)
    assert read_robotcar_seasons(robotcar, split="val")
    assert read_robotcar_seasons(robotcar, camera="all")  # the sizes are those of the rear camera


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        read_robotcar_seasons(tmp_path / "nowhere")


@given(
    damage=st.binary(max_size=80),
    file=st.sampled_from([NVM, ASKED, TRAINED, "intrinsics/rear_intrinsics.txt", f"{LOCATIONS}/queries_location_001.txt"]),
)
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage, file):
    root = tmp_path_factory.mktemp("g")
    for name in (NVM, LOCATIONS + "/x", "intrinsics/x"):
        (root / name).parent.mkdir(parents=True)
    (root / NVM).write_text(nvm(*LINES))
    (root / ASKED).write_text(f"night/rear/{TEST}.png\n")
    (root / TRAINED).write_text(f"dawn/rear/{TRAIN}.png {MATRIX}\n")
    (root / "intrinsics" / "rear_intrinsics.txt").write_text("fx 1\nfy 1\ncx 1\ncy 1\n")
    (root / file).write_bytes((b"NVM_V3\n2\n" if file == NVM else b"") + damage)
    for split in ("test", "val"):
        with contextlib.suppress(CovisError, CovisWarning):
            read_robotcar_seasons(root, split=split, missing="ignore", sizes="ignore")


def test_z_points_down_and_the_map_is_no_mirror_image():
    """Poses that others published: the README's example, and three of pixloc's (issue 7); their images stand upright."""
    rows = [
        [0.655230866337965, -0.536609290501044, -0.340346549997501, -0.408516459863989, 24.0944, 24.8552, -120.244],
        [0.11704475375741745, 0.03295656318232015, -0.6387011805495836, -0.759786280822208, -125.372, -23.193, -7.491],
        [0.7276782815863018, -0.5911740329291926, -0.23252374914543117, -0.2587088853928167, -100.589, -41.866, 207.121],
        [0.6205097424969388, -0.6552427198975653, -0.20077227393455488, -0.3812022186540521, 24.565, 7.399, -221.696],
    ]
    poses = poses_of(rows, order="qw qx qy qz tx ty tz", convention="world-to-camera")
    assert (poses[:, 2, 1] > 0.95).all()  # the image's down is the world's z
    assert (np.abs(poses[:, 2, 3]) < 3).all()  # and the camera's height is that of a car's over a town: metres
    ahead = poses.copy()
    ahead[:, :3, 3] += 5 * poses[:, :3, 2]
    ahead_right = poses.copy()
    ahead_right[:, :3, 3] += 5 * poses[:, :3, 0]
    here, there, right = (positions_of(some)["xy"] for some in (poses, ahead, ahead_right))
    heading = np.deg2rad(positions_of(poses)["heading"])
    way = there - here
    np.testing.assert_allclose(
        way / np.linalg.norm(way, axis=1, keepdims=True), np.column_stack([np.sin(heading), np.cos(heading)]), atol=1e-9
    )
    side = right - here
    assert (way[:, 0] * side[:, 1] - way[:, 1] * side[:, 0] < -10).all()  # what is right in the image is clockwise on the map


def alike(found, scene):
    """Whether all that the layout holds came back."""
    for mine, theirs in ((scene.database, found.database), (scene.queries, found.queries)):
        assert len(mine) == len(theirs)
        np.testing.assert_array_equal(theirs.intrinsics, mine.intrinsics)
        np.testing.assert_allclose(theirs.time, mine.time, rtol=0, atol=6e-7)
        if theirs.pose is not None:
            np.testing.assert_allclose(theirs.pose, mine.pose, rtol=0, atol=1e-9)
            np.testing.assert_allclose(theirs.xy, mine.pose[:, [1, 0], 3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_round_trip(town, tmp_path, files):
    towns = [replace(scene, split="val") for scene in town]
    with pytest.warns(CovisWarning, match=r"z down, xy = \(y, x\)"):
        written = write_robotcar_seasons(towns, tmp_path / "out", files=files)
    missing = "ignore" if files == "none" else "stop"
    for path, scene in zip(written, towns, strict=True):
        (found,) = read_robotcar_seasons(path, split="val", missing=missing, sizes="ignore")
        assert found.name == scene.name
        alike(found, scene)
        assert {name for name, flag in found.queries.flags.items() if flag.all()} == {"dusk"}
        if files != "none":
            assert found.queries.path(3).read_bytes() == scene.queries.path(3).read_bytes()
            assert found.queries.path(3).is_symlink() == (files == "link")
        (again,) = write_robotcar_seasons([found], tmp_path / "again" / path.name, files=files)  # no warning: the frame is kept
        (back,) = read_robotcar_seasons(again, split="val", missing=missing, sizes="ignore")
        assert replace(back.queries, root=found.queries.root).names == found.queries.names
        np.testing.assert_allclose(back.database.pose, found.database.pose, rtol=0, atol=1e-9)


def test_a_data_set_of_the_layout_comes_back_whole(robotcar, tmp_path):
    for split in ("test", "val"):
        (scene,) = read_robotcar_seasons(robotcar, split=split, sizes="ignore")
        (path,) = write_robotcar_seasons([scene], tmp_path / split)
        (found,) = read_robotcar_seasons(path, split=split, sizes="ignore")
        for mine, theirs in ((scene.database, found.database), (scene.queries, found.queries)):
            if mine.pose is not None:
                np.testing.assert_allclose(theirs.pose, mine.pose, rtol=0, atol=1e-12)
            assert replace(theirs, root=mine.root, pose=None, xy=None, heading=None) == replace(mine, pose=None, xy=None, heading=None)


def test_a_test_scene_leaves_its_queries_poses(town, tmp_path):
    with pytest.warns(CovisWarning) as said:
        (path,) = write_robotcar_seasons(town[:1], tmp_path / "out", files="none")
    assert any("poses of the queries of 'miami' are not written" in str(one.message) for one in said)
    (found,) = read_robotcar_seasons(path, missing="ignore", sizes="ignore")
    assert found.queries.pose is None
    alike(found, town[0])


def photos(folder, names, **columns):
    folder.mkdir()
    for name in names:
        write_image(folder / name, np.zeros((2, 2, 3), dtype=np.uint8))
    return Images(folder, names, pose=np.tile(np.eye(4), (len(names), 1, 1)), **columns)


def test_conditions_come_from_flags_and_stamps_from_frames(tmp_path):
    flags = {"rain": [True, False, False], "night": [True, False, False], "night-rain": [True, False, False], "foggy": [False, True, False]}
    queries = photos(tmp_path / "q", ["a.jpg", "b.png", "c.jpg"], flags=flags, frame=[5, 6, 7], place=[3, 3, 12])
    (path,) = write_robotcar_seasons([Scene("s", "val", photos(tmp_path / "d", ["a.jpg"]), queries)], tmp_path / "out")
    (found,) = read_robotcar_seasons(path, split="val", sizes="ignore")
    assert found.queries.names == ("night-rain/rear/5.jpg", "foggy/rear/6.png", "unknown/rear/7.jpg")
    assert found.queries.flags["foggy"].tolist() == [False, True, False]
    assert found.queries.place.tolist() == [3, 3, 12]
    assert found.queries.time is found.queries.intrinsics is None


def test_what_the_layout_cannot_hold_is_refused(tmp_path):
    one, other = photos(tmp_path / "a", ["a.jpg"]), photos(tmp_path / "b", ["b.jpg"])
    cameras = photos(tmp_path / "c", ["a.jpg", "b.jpg"], intrinsics=[[1, 1, 0, 0], [2, 2, 0, 0]])
    for number, (scenes, said) in enumerate([
        ([Scene("s", "train", one, other)], "'test' or 'val'"),
        ([Scene("s", "val", one, one)], "'test' or 'val'"),
        ([Scene("s", "val", one, other)] * 2, "different names"),
        ([Scene("s", "val", one, replace(other, pose=None))], "must have pose"),
        ([Scene("s", "test", replace(one, pose=None), other)], "must have pose"),
        ([Scene("s", "val", one, photos(tmp_path / "d", ["a.bmp"]))], r"must be a .jpg or .png"),
        ([Scene("s", "val", one, replace(other, flags={"rain": [True], "sun": [True]}))], "one condition.*rain, sun"),
        ([Scene("s", "val", one, photos(tmp_path / "e", ["a.jpg", "b.jpg"], frame=[3, 3]))], "would both be 'unknown/rear/3'"),
        ([Scene("s", "val", one, replace(other, time=[3.0]))], "time from 12 January 1970"),
        ([Scene("s", "val", one, replace(other, frame=[-3]))], "a frame from 0"),
        ([Scene("s", "val", one, replace(other, place=[-3]))], "location must be a number"),
        ([Scene("s", "val", cameras, cameras.select([0]))], "one set of intrinsics"),
        ([Scene("s", "val", one, cameras.select([0]))], "one set of intrinsics"),
    ]):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_robotcar_seasons(scenes, tmp_path / f"out{number}")
        assert not (tmp_path / f"out{number}" / "s").exists()
    scene = Scene("s", "val", one, other)
    write_robotcar_seasons([scene], tmp_path / "out")
    with pytest.raises(OutputExistsError, match="s is already there"):
        write_robotcar_seasons([scene], tmp_path / "out")
    write_robotcar_seasons([scene], tmp_path / "out", overwrite=True)
    other.path(0).unlink()
    with pytest.raises(MissingFileError, match="must be there"):
        write_robotcar_seasons([scene], tmp_path / "new")
    assert not (tmp_path / "new" / "s").exists()


def test_an_nvm_model_comes_back_to_the_last_digits(tmp_path):
    random = np.random.default_rng(4)
    quaternions = random.normal(size=(5, 4))
    rows = np.column_stack([quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True), random.normal(scale=1e3, size=(5, 3))])
    poses = poses_of(rows, order="qw qx qy qz tx ty tz", convention="centre")
    path = write_nvm(tmp_path / "a.nvm", [f"./{row}.png" for row in range(5)], focals=[400.0] * 5, poses=poses)
    listing = read_nvm_cameras(path)
    assert listing.names == tuple(f"{row}.png" for row in range(5))
    np.testing.assert_allclose(seven_poses(listing, form="nvm", first=1), poses, rtol=0, atol=1e-12)
