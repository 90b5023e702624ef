"""kapture: round trips, rigs, gaps, positions, real poses by hand, and damage."""

import numpy as np
import pytest
from made_poses import bare, close, contents, kitchen, of_quaternion, same_views, view_of_world_to_camera

from covis.datasets import check, guess_layout
from covis.datasets.kapture import read_kapture
from covis.datasets.kapture_writer import write_kapture
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene

HELD = ("names", "pose", "intrinsics", "frame")


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_come_back(town, tmp_path, files):
    with pytest.warns(CovisWarning, match=r"kapture does not keep xy, heading"):
        written = write_kapture(town, tmp_path, files=files)
    assert guess_layout(written[0]) == "kapture"
    for folder, scene in zip(written, town, strict=True):
        (found,) = read_kapture(folder, up="z", missing="ignore" if files == "none" else "stop")
        close(found, scene, *HELD, "xy", "heading")
        if files != "none":
            assert contents(found.database) == contents(scene.database)
        assert found.database.path(0).is_symlink() == (files == "link")
        assert read_kapture(folder, missing="ignore")[0].queries.xy is None


def test_training_scenes_and_images_without_poses_come_back(town, tmp_path):
    one = bare(Scene("one", "train", town[0].database, town[0].database), "pose", "intrinsics", "frame")
    (folder,) = write_kapture([one], tmp_path)
    assert (folder / "sensors" / "sensors.txt").is_file()
    close(read_kapture(folder, split="train")[0], one, *HELD)
    blind = bare(town[0], "frame")
    (folder,) = write_kapture([Scene("blind", "test", blind.database, blind.queries)], tmp_path)
    assert "UNKNOWN_CAMERA, 64, 48" in (folder / "query" / "sensors" / "sensors.txt").read_text()
    (found,) = read_kapture(folder)
    assert found.database.pose is found.queries.intrinsics is None
    with pytest.raises(InvalidInputError, match=r"must have poses for up='z'"):
        read_kapture(folder, up="z")
    (train,) = read_kapture(folder, split="train")
    assert train.training
    assert len(train.database) == 24


def test_frames_that_are_no_timestamps_are_counted(town, tmp_path):
    images = town[0].database.select([0, 1])
    twice = Images(images.root, images.names, frame=[4, 4])
    with pytest.warns(CovisWarning, match=r"images are counted"):
        (folder,) = write_kapture([Scene("s", "test", twice, twice)], tmp_path)
    assert read_kapture(folder)[0].database.frame.tolist() == [0, 1]


def test_real_poses_by_hand(covis_data, tmp_path):
    scene, truth = kitchen(covis_data)
    (folder,) = write_kapture([bare(scene, "pose", "intrinsics")], tmp_path, files="none")
    views = []
    for part in ("mapping", "query"):
        for line in (folder / part / "sensors" / "trajectories.txt").read_text().splitlines()[2:]:
            row = [float(cell) for cell in line.split(",")[2:]]
            views.append(view_of_world_to_camera(of_quaternion(*row[:4]), np.array(row[4:])))
        assert "cam0, , camera, PINHOLE, 640, 480, 585.0, 585.0, 320.5, 240.5" in (folder / part / "sensors" / "sensors.txt").read_text()
    same_views(views, truth)
    (found,) = read_kapture(folder, missing="ignore")
    same_views([(pose[:3, 3], pose[:3, 2]) for pose in np.concatenate([found.database.pose, found.queries.pose])], truth)


SENSORS = "# kapture format: 1.1\n# comment\ncam0, left, camera, PINHOLE, 64, 48, 40, 41, 32, 24\n"
SENSORS += "cam1, , camera, UNKNOWN_CAMERA, 64, 48\ngps, , gnss, \n"
RECORDS = "# kapture format: 1.1\n7, cam0, a.jpg\n8, cam0, sub/b.jpg\n"
TRAJECTORIES = "7, cam0, 1, 0, 0, 0, 1, 2, 3\n8, cam0, 1, 0, 0, 0, 4, 5, 6\n"


def kapture(tmp_path, **texts):
    """A kapture of these files; None takes one away."""
    folder = tmp_path / "k"
    data = folder / "sensors" / "records_data"
    (data / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (data / name).touch()
    for name, text in ({"sensors": SENSORS, "records_camera": RECORDS, "trajectories": TRAJECTORIES} | texts).items():
        if text is not None:
            (folder / "sensors" / f"{name}.txt").write_text(text)
    return folder


def test_rigs_are_composed_by_hand(tmp_path):
    """World to rig: minus (1, 0, 0). Rig to arm: a quarter turn about y. Arm to camera: minus (0, 0, 2).

    The camera's centre is the point that comes out as 0: (0, 0, 2) before the arm's shift; the turn takes (-2, 0, 0) there, since it takes
    -x to z; so (-1, 0, 0) in the world. The camera looks along -x.
    """
    half = np.sqrt(0.5)
    folder = kapture(
        tmp_path,
        trajectories="7, rig, 1, 0, 0, 0, -1, 0, 0\n8, cam0, 1, 0, 0, 0, 0, 0, -9\n",
        rigs=f"# kapture format: 1.1\nrig, arm, {half}, 0, {half}, 0, 0, 0, 0\narm, cam0, 1, 0, 0, 0, 0, 0, -2\n",
    )
    poses = read_kapture(folder)[0].database.pose
    np.testing.assert_allclose(poses[0, :3, 3], (-1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(poses[0, :3, 2], (-1, 0, 0), atol=1e-12)
    assert poses[1, :3, 3].tolist() == [0, 0, 9]  # its own pose comes before that of a rig
    with pytest.raises(CovisError, match=r"no rig may carry itself"):
        read_kapture(
            kapture(
                tmp_path,
                trajectories="7, cam1, 1, 0, 0, 0, 0, 0, 0\n",
                rigs="arm, cam0, 1, 0, 0, 0, 0, 0, 0\ncam0, arm, 1, 0, 0, 0, 0, 0, 0\n",
            )
        )


def test_gaps_are_a_policy(tmp_path):
    folder = kapture(tmp_path, trajectories="7, cam0, 1, 0, 0, 0, 1, 2, 3\n8, cam0, , , , , 1, 2, 3\n")
    with pytest.raises(InvalidInputError, match=r"1 of 2 images.*sub/b\.jpg.*gaps='skip'"):
        read_kapture(folder)
    with pytest.warns(CovisWarning, match=r"left out"):
        (scene,) = read_kapture(folder, gaps="skip")
    assert scene.database.names == ("a.jpg",)
    assert scene.database.pose[0, :3, 3].tolist() == [-1, -2, -3]
    with pytest.warns(CovisWarning, match=r"All are read without"):
        (scene,) = read_kapture(folder, gaps="none")
    assert scene.database.pose is None
    assert scene.database.frame.tolist() == [7, 8]


def test_positions_of_gnss(tmp_path):
    gnss = "7, gps, 9.0, 0.0, 10, 0, 0\n8, gps, 9.0, 0.001, 10, 0, 0\n"
    found = read_kapture(kapture(tmp_path, records_gnss=gnss), positions="gnss")[0].database
    assert found.crs == "EPSG:32632"
    np.testing.assert_allclose(found.xy, [[500000, 0], [500000, 110.53]], atol=0.01)  # x is the longitude: 9 is a zone's middle
    assert read_kapture(kapture(tmp_path, records_gnss=gnss))[0].database.xy is None
    folder = kapture(tmp_path, records_gnss=gnss.splitlines()[0])
    with pytest.raises(InvalidInputError, match=r"the position is \[nan, nan\]"):
        read_kapture(folder, positions="gnss")
    with pytest.warns(CovisWarning, match=r"left out"):
        assert len(read_kapture(folder, positions="gnss", invalid="skip")[0].database) == 1
    for bad, said in [
        ("7, cam0, 9, 0, 0, 0, 0\n", "must stand in sensors.txt as gnss"),
        ("7, gps, 9, 0\n", "found 4 fields"),
        ("7, gps, 9, 0, 0, 0, 0\n7, gps, 9, 1, 0, 0, 0\n", "one timestamp must have one position"),
    ]:
        with pytest.raises(CovisError, match=said):
            read_kapture(kapture(tmp_path, records_gnss=bad), positions="gnss")


def test_unknown_cameras_and_distortion_are_said(tmp_path):
    with pytest.warns(CovisWarning, match=r"1 of 2 images.*UNKNOWN_CAMERA.*without intrinsics"):
        found = read_kapture(kapture(tmp_path, records_camera=RECORDS.replace("8, cam0", "8, cam1"), trajectories=None))
    assert found[0].database.intrinsics is None
    with pytest.warns(CovisWarning, match=r"distortion is dropped"):
        (scene,) = read_kapture(
            kapture(tmp_path, sensors=SENSORS.replace("PINHOLE, 64, 48, 40, 41, 32, 24", "OPENCV,64,48,40,41,32,24,.1,0,0,0"))
        )
    assert scene.database.intrinsics[0].tolist() == [40, 41, 31.5, 23.5]


@pytest.mark.parametrize(("name", "text", "said"), [
    ("sensors", SENSORS.removeprefix("# kapture format: 1.1\n"), r"sensors\.txt, line 1: the file must begin with '# kapture format"),
    ("sensors", SENSORS.replace("1.1", "2.0"), r"one of 1\.0, 1\.1; found '# kapture format: 2\.0'"),
    ("sensors", "", r"line 1: the file must begin"),
    ("sensors", SENSORS.replace("PINHOLE, 64, 48, 40, 41, 32, 24", "PINHOLE, 64, 48, 40"), r"line 3: .*fx fy cx cy; found 1 numbers"),
    ("sensors", SENSORS.replace("PINHOLE, 64, 48, 40, 41, 32, 24", "PINHOLE"), r"model, width and height; found 'PINHOLE'"),
    ("sensors", SENSORS.replace("40, 41", "forty, 41"), r"line 3: .*finite number; found 'forty'"),
    ("sensors", SENSORS.replace("cam1", "cam0"), r"line 4: a sensor's id must stand once; 'cam0'"),
    ("records_camera", "# only this\n", r"must hold an image"),
    ("records_camera", "7, cam0\n", r"line 1: .*timestamp, device_id, image_path.*found 2 fields"),
    ("records_camera", "7, cam0, a,b.jpg\n", r"found 4 fields.*comma in a name"),
    ("records_camera", "7.5, cam0, a.jpg\n", r"whole number; found '7\.5'"),
    ("records_camera", "7, cam9, a.jpg\n", r"line 1: the camera 'cam9' must stand in sensors\.txt"),
    ("records_camera", "7, gps, a.jpg\n", r"the camera 'gps' must stand in sensors\.txt as a camera"),
    ("records_camera", "7, cam0, ../a.jpg\n", r"inside the images' folder"),
    ("records_camera", "7, cam0, a.jpg\n8, cam0, a.jpg\n", r"line 2\): the name stands at .*line 1 too"),
    ("records_camera", "7, cam0, a.jpg\n8, cam0, c.jpg\n", r"c\.jpg \(.*records_camera\.txt, line 2\)"),
    ("trajectories", "7, cam0, 1, 0, 0, 0, 1, 2\n", r"trajectories\.txt, line 1: .*found 8 fields"),
    ("trajectories", "7, cam0, 1, 0, 0, 0, 1, 2, nan\n", r"line 1: a pose must be a finite number; found 'nan'"),
    ("trajectories", "7, cam0, 1, 1, 0, 0, 1, 2, 3\n", r"line 1: a quaternion must have the length 1"),
    ("trajectories", TRAJECTORIES + TRAJECTORIES, r"line 3: timestamp, device_id must stand once; 7, cam0"),
    ("rigs", "rig, cam0, 1, 0, 0, 0, 0, 0,\n", r"rigs\.txt, line 1: .*finite number; found ''"),
])  # fmt: skip
def test_damage_is_refused(tmp_path, name, text, said):
    with pytest.raises(CovisError, match=said):
        read_kapture(kapture(tmp_path, **{name: text}))


def test_windows_files_and_zero_padded_timestamps_are_taken(tmp_path):
    folder = kapture(tmp_path, records_camera=RECORDS.replace("7,", "0007,"))
    for path in (folder / "sensors").glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (scene,) = read_kapture(folder)
    assert scene.database.pose[0, :3, 3].tolist() == [-1, -2, -3]
    assert not check("kapture", folder, decode=False).problems


def test_what_is_no_kapture_or_cannot_be_written_is_refused(town, tmp_path):
    with pytest.raises(MissingFileError, match=r"found neither"):
        read_kapture(tmp_path)
    (tmp_path / "query" / "sensors").mkdir(parents=True)
    with pytest.raises(MissingFileError, match=r"must hold mapping too"):
        read_kapture(tmp_path)
    folder = kapture(tmp_path)
    for options in ({"gaps": "fill"}, {"positions": "exif"}, {"positions": "gnss", "up": "z"}, {"split": "x"}):
        with pytest.raises(InvalidInputError, match=r"must be"):
            read_kapture(folder, **options)
    (folder / "sensors" / "records_camera.txt").unlink()
    with pytest.raises(MissingFileError, match=r"records_camera\.txt must exist"):
        read_kapture(folder)
    one = town[0].database.select([0])
    comma = Images(one.root, ("a,b.jpg",))
    with pytest.raises(InvalidInputError, match=r"'a,b\.jpg'"):
        write_kapture([Scene("s", "test", comma, comma)], tmp_path / "out")
    plain = Images(one.root, one.names)
    write_kapture([Scene("s", "test", plain, plain)], tmp_path / "out")
    with pytest.raises(OutputExistsError, match=r"already there"):
        write_kapture([Scene("s", "test", plain, plain)], tmp_path / "out")
