"""KITTI odometry and TUM RGB-D: round trips, conventions by hand and on real poses, association by time, and damage."""

import numpy as np
import pytest
from made_poses import bare, close, contents, kitchen, of_quaternion, same_views

from covis.datasets import check, guess_layout
from covis.datasets.kitti import read_kitti, write_kitti
from covis.datasets.tum import read_tum, write_tum
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene

TWO = {"database": "00", "queries": "01", "one_world": True}


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_come_back_from_kitti(town, tmp_path, files):
    with pytest.warns(CovisWarning, match=r"kitti does not keep xy, heading.*sequence, frame"):
        written = write_kitti(town, tmp_path, files=files)
    assert guess_layout(written[0]) == "kitti"
    for folder, scene in zip(written, town, strict=True):
        (found,) = read_kitti(folder, up="z", missing="ignore" if files == "none" else "stop", **TWO)
        close(found, scene, "pose", "intrinsics", "time", "xy", "heading")
        np.testing.assert_array_equal(found.database.pose, scene.database.pose)  # a matrix is written as it is
        if files != "none":
            assert contents(found.queries) == contents(scene.queries)
            assert found.database.names[5] == "image_0/000005.jpg"
        assert found.queries.sequence == ("01",) * 16
        assert found.queries.frame.tolist() == list(range(16))
        with pytest.raises(InvalidInputError, match=r"a world of its own"):
            read_kitti(folder, database="00", queries="01")
    scenes = read_kitti(written[0], missing="ignore")
    assert [scene.name for scene in scenes] == ["00", "01"]
    assert scenes[0].training
    assert read_kitti(written[0], missing="ignore", split="train", **TWO)[0].training


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_come_back_from_tum(town, tmp_path, files):
    with pytest.warns(CovisWarning, match=r"tum does not keep xy, heading.*intrinsics, depth"):
        written = write_tum(town, tmp_path, files=files)
    assert guess_layout(written[0]) == "tum"
    for folder, scene in zip(written, town, strict=True):
        (found,) = read_tum(folder, up="z", intrinsics=scene.database.intrinsics[0], missing="ignore" if files == "none" else "stop")
        close(found, scene, "pose", "time", "xy", "heading", "intrinsics")
        assert found.database.names == tuple(f"rgb/{name}" for name in scene.database.names)
        if files != "none":
            assert contents(found.database) == contents(scene.database)
        assert read_tum(folder, split="train", missing="ignore")[0].training
        assert read_tum(folder, missing="ignore")[0].database.intrinsics is None


def test_training_scenes_come_back(town, tmp_path):
    one = Scene("one", "train", town[0].database, town[0].database)
    (folder,) = write_tum([bare(one, "pose", "time")], tmp_path / "t")
    assert (folder / "rgb.txt").is_file()
    close(read_tum(folder, split="train")[0], one, "pose", "time")
    (folder,) = write_kitti([bare(one, "pose", "time")], tmp_path / "k")
    (found,) = read_kitti(folder, database="00", split="train")
    assert (found.name, found.training, found.database.intrinsics) == ("00", True, None)
    np.testing.assert_array_equal(found.database.pose, one.database.pose)


def test_real_poses_by_hand(covis_data, tmp_path):
    """Both are camera-to-world: the centre is the last column, or tx ty tz; the direction is the rotation's third column."""
    scene, truth = kitchen(covis_data)
    (folder,) = write_kitti([bare(scene, "pose", "intrinsics")], tmp_path / "k", files="none")
    matrices = np.concatenate([np.loadtxt(folder / "poses" / name).reshape(-1, 3, 4) for name in ("00.txt", "01.txt")])
    same_views([(matrix[:, 3], matrix[:, 2]) for matrix in matrices], truth)
    timed = [
        Images(side.root, side.names, pose=side.pose, time=np.arange(len(side)) / 30 + 1e9) for side in (scene.database, scene.queries)
    ]
    (folder,) = write_tum([Scene("kitchen", "test", *timed)], tmp_path / "t", files="none")
    rows = np.concatenate([np.loadtxt(folder / side / "groundtruth.txt") for side in ("database", "queries")])
    same_views([(row[1:4], of_quaternion(row[7], *row[4:7])[:, 2]) for row in rows], truth)
    (found,) = read_tum(folder, missing="ignore")
    same_views([(pose[:3, 3], pose[:3, 2]) for pose in np.concatenate([found.database.pose, found.queries.pose])], truth)


def kitti(tmp_path, *, poses=None, calib=None, times=None, camera=2, images=("000000.png", "000001.png")):
    folder = tmp_path / "dataset"
    (folder / "sequences" / "00" / f"image_{camera}").mkdir(parents=True, exist_ok=True)
    (folder / "poses").mkdir(exist_ok=True)
    for name in images:
        (folder / "sequences" / "00" / f"image_{camera}" / name).touch()
    (folder / "poses" / "00.txt").write_text(poses or "1 0 0 0 0 1 0 0 0 0 1 0\n0 0 1 2 0 1 0 0 -1 0 0 5\n")
    for name, text in (("calib.txt", calib), ("times.txt", times)):
        if text is not None:
            (folder / "sequences" / "00" / name).write_text(text)
    return folder


CALIB = "P0: 700 0 600 0 0 700 180 0 0 0 1 0\nP2: 700 0 600 42 0 700 180 0.7 0 0 1 0\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\n"


def test_the_pose_of_camera_2_by_hand(tmp_path):
    """P2's last column is K b: b = (42 / 700, 0.7 / 700, 0), and a point in camera 2's axes is that in camera 0's plus b.

    So camera 2 is at -b: 6 cm to the left. The second frame is turned by 90 degrees about y at (2, 0, 5): its left is the world's +z.
    """
    (scene,) = read_kitti(kitti(tmp_path, calib=CALIB, times="0.0\n1.036e-01\n"), up="-y")
    found = scene.database
    assert found.names == ("image_2/000000.png", "image_2/000001.png")
    assert found.intrinsics[1].tolist() == [700, 700, 600, 180]
    np.testing.assert_allclose(found.pose[0, :3, 3], (-0.06, -0.001, 0), atol=1e-12)
    np.testing.assert_allclose(found.pose[1, :3, 3], (2, -0.001, 5.06), atol=1e-12)
    np.testing.assert_allclose(found.xy, [(-0.06, 0), (2, 5.06)], atol=1e-12)
    np.testing.assert_allclose(found.heading, [0, 90], atol=1e-9)  # it turns to the right, seen from above clockwise
    assert found.time.tolist() == [0, 0.1036]
    assert read_kitti(kitti(tmp_path))[0].database.xy is None
    p = np.array([700, 0, 600, 42, 0, 700, 180, 0.7, 0, 0, 1, 0]).reshape(3, 4)
    point = np.array([1.0, 2.0, 30.0, 1.0])  # in camera 0's axes, which is the world of the first frame
    seen = p @ point
    inside = np.linalg.inv(found.pose[0]) @ point
    np.testing.assert_allclose(seen[:2] / seen[2], inside[:2] / inside[2] * 700 + (600, 180), atol=1e-9)


def test_one_camera_for_all_that_is_read(tmp_path):
    """00 has both, 01 has camera 0 alone: together both are read by camera 0, and 00 alone by camera 2."""
    root = kitti(tmp_path, calib=CALIB)
    kitti(tmp_path, calib=CALIB, camera=0)
    (root / "sequences" / "01").mkdir()
    (root / "sequences" / "00" / "image_0").rename(root / "sequences" / "01" / "image_0")
    (root / "poses" / "01.txt").write_text((root / "poses" / "00.txt").read_text())
    (root / "sequences" / "00" / "image_0").mkdir()
    for name in ("000000.png", "000001.png"):
        (root / "sequences" / "00" / "image_0" / name).touch()
    (both,) = read_kitti(root, database="00", queries="01", one_world=True)
    assert {name.partition("/")[0] for images in (both.database, both.queries) for name in images.names} == {"image_0"}
    (alone,) = read_kitti(root, database="00")
    assert alone.database.names[0] == "image_2/000000.png"


def test_camera_0_needs_no_calibration_and_camera_2_does(tmp_path):
    with pytest.raises(MissingFileError, match=r"calib\.txt must be there for image_2"):
        read_kitti(kitti(tmp_path / "a"))
    (scene,) = read_kitti(kitti(tmp_path / "b", camera=0))
    assert scene.database.intrinsics is None
    assert scene.database.pose[1, :3, 3].tolist() == [2, 0, 5]


@pytest.mark.parametrize(("options", "said"), [
    ({"poses": "1 0 0 0 0 1 0 0 0 0 1\n"}, r"poses/00\.txt, line 1: a pose must have 12 fields; found 11"),
    ({"poses": "1 0 0 0 0 1 0 0 0 0 1 x\n"}, r"line 1: a pose must be a finite number; found 'x'"),
    ({"poses": "1 0 0 0 0 1 0 0 0 0 1 inf\n"}, r"found 'inf'"),
    ({"poses": "2 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0 0 1 0 0 0 0 1 0\n"}, r"R\^T R = I.*000000\.png"),
    ({"poses": "\n"}, r"must hold a pose a line; it is empty"),
    ({"poses": "1 0 0 0 0 1 0 0 0 0 1 0\n"}, r"must hold a pose for each image.*holds 1, and the last image is 000001\.png"),
    ({"calib": "P0: 1\n"}, r"must hold one line 'P2: '.*found 0"),
    ({"calib": CALIB + CALIB}, r"must hold one line 'P2: '.*found 2"),
    ({"calib": "P2: 700 0 600 42 0 700 180\n"}, r"calib\.txt, line 1: a projection must have 13 fields; found 8"),
    ({"calib": CALIB.replace("42", "nan")}, r"line 2: a projection must be a finite number"),
    ({"calib": CALIB.replace("P2: 700 0", "P2: 700 3")}, r"a projection must be fx 0 cx"),
    ({"times": "0.0\n"}, r"times\.txt must hold a time for each of 2 poses; it holds 1"),
    ({"times": "0.0\nlater\n"}, r"times\.txt, line 2: a time must be a finite number; found 'later'"),
    ({"images": ("000000.png", "000000.jpg")}, r"a frame must have one file"),
    ({"images": ("000000.png",)}, r"1 of 2 images.*image_2/000001\.png \(.*00\.txt, line 2\)"),
])  # fmt: skip
def test_damaged_kitti_is_refused(tmp_path, options, said):
    with pytest.raises(CovisError, match=said):
        read_kitti(kitti(tmp_path, **({"calib": CALIB} | options)))


def test_kitti_with_windows_lines_and_what_is_none(town, tmp_path):
    folder = kitti(tmp_path, calib="\ufeff" + CALIB.replace("\n", "\r\n"))
    assert len(read_kitti(folder)[0].database) == 2
    assert not check("kitti", folder, decode=False).problems
    for options, said in [
        ({"camera": 4}, "0, 1, 2 or 3"),
        ({"database": "07"}, r"must hold the sequence '07' with poses; it holds 00"),
        ({"queries": "00", "one_world": True}, "pass database= too"),
        ({"split": "x"}, "'train', 'val'"),
    ]:
        with pytest.raises(CovisError, match=said):
            read_kitti(folder, **options)
    with pytest.raises(MissingFileError, match=r"must hold sequences and poses"):
        read_kitti(tmp_path)
    (folder / "poses" / "00.txt").unlink()
    with pytest.raises(MissingFileError, match=r"found none"):
        read_kitti(folder)
    one = bare(town[0], "pose", "intrinsics").database
    focal = one.intrinsics.copy()
    focal[3, 0] += 1
    for images, said in [
        (Images(one.root, one.names, pose=one.pose, intrinsics=focal), "one camera a sequence"),
        (Images(one.root, [f"{name}.tif" for name in one.names], pose=one.pose), "PNG or JPEG"),
        (Images(one.root, one.names), "must have pose"),
    ]:
        with pytest.raises(InvalidInputError, match=said):
            write_kitti([Scene("s", "test", images, images)], tmp_path / "out", files="none")
        assert not (tmp_path / "out").exists()


def tum(tmp_path, *, rgb=None, truth=None, name="desk", depth=False):
    folder = tmp_path / name
    (folder / "rgb").mkdir(parents=True, exist_ok=True)
    for image in ("a.png", "b.png", "c.png"):
        (folder / "rgb" / image).touch()
    (folder / "rgb.txt").write_text(rgb or "# color images\n10.00 rgb/a.png\n10.50 rgb/b.png\n11.00 rgb/c.png\n")
    (folder / "groundtruth.txt").write_text(
        truth or "# truth\n11.01 7 8 9 0 0 0 1\n10.515 4 5 6 0 0 1 0\n9.99 1 2 3 0 0 0 1\n10.49 0 0 0 0 0 0 1\n"
    )
    if depth:
        (folder / "depth.txt").touch()
    return folder


def test_images_get_the_nearest_pose_in_time(tmp_path):
    folder = tum(tmp_path)
    (scene,) = read_tum(folder)
    assert scene.name == "desk"
    assert scene.database.pose[:, :3, 3].tolist() == [[1, 2, 3], [0, 0, 0], [7, 8, 9]]  # 10.49 is nearer to 10.50 than 10.515
    with pytest.warns(CovisWarning, match=r"1 of 3 images.*no pose within 0\.012 s: rgb/c\.png \(0\.014 s\)"):
        (scene,) = read_tum(tum(tmp_path, truth="10.49 0 0 0 0 0 0 1\n9.99 1 2 3 0 0 0 1\n11.014 7 8 9 0 0 0 1\n"), tolerance=0.012)
    assert scene.database.names == ("rgb/a.png", "rgb/b.png")
    assert scene.database.time.tolist() == [10, 10.5]
    with pytest.raises(InvalidInputError, match=r"no image of rgb\.txt has a pose within 0\.02 s; the nearest is 89 s away"):
        read_tum(tum(tmp_path, truth="100 0 0 0 0 0 0 1\n"))


def test_several_sequences_and_depth(tmp_path):
    for name in ("desk", "desk2"):
        tum(tmp_path, name=name, depth=True)
    with pytest.warns(CovisWarning, match=r"depth maps of 5000 a metre"):
        scenes = read_tum(tmp_path)
    assert [scene.name for scene in scenes] == ["desk", "desk2"]
    (scene,) = read_tum(tmp_path, database="desk", queries="desk2", depth="ignore")
    assert scene.queries.root.name == "desk2"
    assert scene.database.depth is None
    assert scene.queries.sequence == ("desk2",) * 3


@pytest.mark.parametrize(("options", "said"), [
    ({"rgb": "10.0\n"}, r"rgb\.txt, line 1: an image must have 2 fields; found 1"),
    ({"rgb": "x rgb/a.png\n"}, r"line 1: a timestamp must be a finite number; found 'x'"),
    ({"rgb": "nan rgb/a.png\n"}, r"found 'nan'"),
    ({"rgb": "# none\n"}, r"must hold an image"),
    ({"rgb": "10 ../a.png\n"}, r"inside the images' folder"),
    ({"rgb": "10 rgb/a.png\n10.5 rgb/a.png\n"}, r"line 2\): the name stands at"),
    ({"rgb": "10 rgb/z.png\n"}, r"rgb/z\.png \(.*rgb\.txt, line 1\)"),
    ({"truth": "# none\n"}, r"groundtruth\.txt must hold a pose"),
    ({"truth": "10 1 2 3 0 0 0\n"}, r"groundtruth\.txt, line 1: .*must have 8 fields; found 7"),
    ({"truth": "10 1 2 3 0 0 0 1 5\n"}, r"found 9"),
    ({"truth": "10 1 2 nan 0 0 0 1\n"}, r"finite number; found 'nan'"),
    ({"truth": "10 1 2 3 0 0 0 0\n"}, r"line 1: a quaternion must have the length 1"),
    ({"truth": "10,1,2,3,0,0,0,1\n"}, r"must have 8 fields; found 1"),
])  # fmt: skip
def test_damaged_tum_is_refused(tmp_path, options, said):
    with pytest.raises(CovisError, match=said):
        read_tum(tum(tmp_path, **options))


def test_tum_with_windows_lines_and_what_is_none(town, tmp_path):
    folder = tum(tmp_path)
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_tum(folder)[0].database) == 3
    for options, said in [
        ({"tolerance": -1}, "0 seconds or more"), ({"tolerance": np.nan}, "0 seconds or more"), ({"depth": "read"}, "'warn' or 'ignore'"),
        ({"database": "desk"}, "is one sequence"), ({"intrinsics": [1, 2]}, "four finite numbers"),
    ]:  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            read_tum(folder, **options)
    for root, said in [(tmp_path / "no", "no such folder"), (folder / "rgb", "found none")]:
        with pytest.raises(MissingFileError, match=said):
            read_tum(root)
    (folder / "rgb.txt").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(DamagedFileError, match=r"UTF-8"):
        read_tum(folder)
    one = town[0].database.select([0, 1])
    for columns, said in [
        ({"time": [1.0, 1.0]}, "a time of its own"), ({"time": [1.0, np.nan]}, "must have a time"), ({}, "must have time"),
    ]:  # fmt: skip
        images = Images(one.root, one.names, pose=one.pose, **columns)
        with pytest.raises(InvalidInputError, match=said):
            write_tum([Scene("s", "test", images, images)], tmp_path / "out", files="none")
    images = Images(one.root, one.names, pose=one.pose, time=[1.0, 2.0])
    for _ in range(2):
        write_tum([Scene("s", "test", images, images)], tmp_path / "out", files="none", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"already there"):
        write_tum([Scene("s", "test", images, images)], tmp_path / "out", files="none")
