"""OpenSfM: round trips, cameras and poses by hand and on real poses, the reference on earth, and damage."""

import json
from copy import deepcopy

import numpy as np
import pytest
from made_poses import bare, close, contents, kitchen, of_rotvec, same_views, view_of_world_to_camera

from covis.coordinates import to_degrees
from covis.datasets import check, guess_layout
from covis.datasets.opensfm import read_opensfm
from covis.datasets.opensfm_writer import write_opensfm
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_come_back(town, tmp_path, files):
    with pytest.warns(CovisWarning, match=r"opensfm does not keep xy, heading.*crs"):
        written = write_opensfm(town, tmp_path, files=files)
    assert guess_layout(written[0]) == guess_layout(written[0] / "reconstruction.json") == "opensfm"
    for folder, scene in zip(written, town, strict=True):
        options = {"images": scene.database.root} if files == "none" else {}
        (found,) = read_opensfm(folder, up="z", **options)
        close(found, scene, "names", "pose", "intrinsics", "time", "xy", "heading")
        assert contents(found.queries) == contents(scene.queries)
        assert read_opensfm(folder, missing="ignore")[0].database.xy is None  # without a reference nothing says which way is up
        assert read_opensfm(folder, missing="ignore", split="train")[0].training


def test_real_poses_by_hand(covis_data, tmp_path):
    scene, truth = kitchen(covis_data)
    (folder,) = write_opensfm([bare(scene, "pose", "intrinsics")], tmp_path, files="none")
    ((value),) = json.loads((folder / "reconstruction.json").read_text())
    same_views(
        [view_of_world_to_camera(of_rotvec(shot["rotation"]), np.array(shot["translation"])) for shot in value["shots"].values()], truth
    )
    (camera,) = value["cameras"].values()
    assert (camera["focal_x"], camera["focal_y"]) == (585 / 640, 585 / 640)
    assert (camera["c_x"], camera["c_y"]) == (0.5 / 640, 0.5 / 640)  # (320, 240) is half a pixel off the middle (319.5, 239.5)
    (found,) = read_opensfm(folder, missing="ignore")
    same_views([(pose[:3, 3], pose[:3, 2]) for pose in np.concatenate([found.database.pose, found.queries.pose])], truth)
    np.testing.assert_allclose(found.queries.intrinsics[0], (585, 585, 320, 240), rtol=1e-14)


SHOT = {"camera": "c", "rotation": [np.pi / 2, 0, 0], "translation": [1.0, 2.0, 3.0], "capture_time": 12.5}
GOOD = {
    "cameras": {"c": {"projection_type": "perspective", "width": 64, "height": 48, "focal": 0.75, "k1": 0.0, "k2": 0.0}},
    "shots": {"a.jpg": SHOT, "b.jpg": SHOT | {"rotation": [0.0, 0.0, 0.0], "capture_time": 0.0}},
    "reference_lla": {"latitude": 63.4, "longitude": 10.4, "altitude": 50.0},
}


def project(tmp_path, value=None, name="p"):
    folder = tmp_path / name
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image in ("a.jpg", "b.jpg"):
        (folder / "images" / image).touch()
    text = value if isinstance(value, str) else json.dumps([GOOD] if value is None else value)
    (folder / "reconstruction.json").write_text(text)
    return folder


def test_a_shot_by_hand(tmp_path):
    """A quarter turn about x takes the world's y to the camera's z: it looks north, upright. C = -R^T t = -(1, 3, -2)."""
    found = read_opensfm(project(tmp_path))[0].database
    np.testing.assert_allclose(found.pose[0, :3, 3], (-1, -3, 2), atol=1e-12)
    np.testing.assert_allclose(found.pose[0, :3, 2], (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(found.xy, [(-1, -3), (-1, -2)], atol=1e-12)
    np.testing.assert_array_equal(found.heading, [0, np.nan])  # the second looks straight up
    np.testing.assert_array_equal(found.time, [12.5, np.nan])
    np.testing.assert_allclose(found.intrinsics[0], (48, 48, 31.5, 23.5))  # 0.75 of 64; the middle of 64 x 48 pixels
    assert found.crs == "+proj=aeqd +lat_0=63.4 +lon_0=10.4 +datum=WGS84 +units=m +no_defs"


def of_lla(latitude, longitude, altitude):
    """Earth-centred metres of WGS84, and the rotation to east, north, up there."""
    a, f = 6378137.0, 1 / 298.257223563
    lat, lon = np.deg2rad([latitude, longitude])
    n = a / np.sqrt(1 - f * (2 - f) * np.sin(lat) ** 2)
    place = (n + altitude) * np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), 0])
    place[2] = (n * (1 - f) ** 2 + altitude) * np.sin(lat)
    east = np.array([-np.sin(lon), np.cos(lon), 0])
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    return place, np.array([east, np.cross(up, east), up])


@pytest.mark.parametrize(("altitude", "away", "within"), [(0, 1000, 1e-5), (100, 1000, 0.017), (0, 10_000, 0.005)])
def test_the_frame_is_that_of_the_reference(tmp_path, altitude, away, within):
    """A point of the tangent plane, by WGS84's own formulas, lies where the crs says, within centimetres."""
    value = deepcopy(GOOD)
    value["reference_lla"]["altitude"] = altitude
    crs = read_opensfm(project(tmp_path, [value]))[0].database.crs
    origin, axes = of_lla(63.4, 10.4, altitude)
    for direction in np.deg2rad([20.0, 140.0, 260.0]):
        xy = away * np.array([np.sin(direction), np.cos(direction)])
        latitude, longitude = to_degrees([xy], crs=crs)[0]
        place, _ = of_lla(latitude, longitude, altitude)
        assert np.hypot(*((axes @ (place - origin))[:2] - xy)) < within


def test_a_reference_comes_back(tmp_path):
    (scene,) = read_opensfm(project(tmp_path))
    from covis.rasters import write_image

    for name in ("a.jpg", "b.jpg"):
        write_image(scene.database.root / name, np.zeros((48, 64, 3), dtype=np.uint8))
    (folder,) = write_opensfm([scene], tmp_path / "out")
    close(read_opensfm(folder)[0], scene, "names", "pose", "intrinsics", "xy")
    assert read_opensfm(folder)[0].database.crs == scene.database.crs


def test_a_reference_of_zeros_is_none(tmp_path):
    value = deepcopy(GOOD)
    value["reference_lla"] = dict.fromkeys(value["reference_lla"], 0)
    found = read_opensfm(project(tmp_path, [value]))[0].database
    assert found.xy is found.heading is found.crs is None


@pytest.mark.parametrize(("camera", "expected", "warned"), [
    ({"projection_type": "perspective", "focal": 0.5, "k1": 0.01, "k2": 0}, (50, 50, 49.5, 39.5), True),
    ({"focal": 0.5}, (50, 50, 49.5, 39.5), False),
    ({"projection_type": "brown", "focal_x": 0.5, "focal_y": 0.6, "c_x": 0.1, "c_y": -0.1, "k1": 0, "p1": 0}, (50, 60, 59.5, 29.5), False),
    ({"projection_type": "brown", "focal_x": 0.5, "focal_y": 0.6, "c_x": 0, "c_y": 0, "k3": 1e-3}, (50, 60, 49.5, 39.5), True),
    ({"projection_type": "simple_radial", "focal_x": 0.5, "focal_y": 0.6, "c_x": 0, "c_y": 0, "k1": 0}, (50, 60, 49.5, 39.5), False),
    ({"projection_type": "fisheye", "focal": 0.5, "k1": 0, "k2": 0}, (50, 50, 49.5, 39.5), True),
    ({"projection_type": "fisheye_opencv", "focal_x": 0.5, "focal_y": 0.6}, (50, 60, 49.5, 39.5), True),
    ({"projection_type": "dual", "focal": 0.5, "transition": 0.5}, (50, 50, 49.5, 39.5), True),
])  # fmt: skip
def test_every_camera_gives_a_pinhole(tmp_path, recwarn, camera, expected, warned):
    (scene,) = read_opensfm(project(tmp_path, [GOOD | {"cameras": {"c": {"width": 100, "height": 80} | camera}}]))
    np.testing.assert_allclose(scene.database.intrinsics[1], expected)
    assert ["distortion is dropped" in str(warning.message) for warning in recwarn] == [True] * warned


def test_panoramas_have_a_flag_and_no_intrinsics(tmp_path):
    cameras = GOOD["cameras"] | {"s": {"projection_type": "spherical", "width": 64, "height": 32}}
    shots = GOOD["shots"] | {"b.jpg": SHOT | {"camera": "s"}}
    with pytest.warns(CovisWarning, match=r"1 of 2 shots.*panoramas"):
        found = read_opensfm(project(tmp_path, [GOOD | {"cameras": cameras, "shots": shots}]))[0].database
    assert found.flags["panorama"].tolist() == [False, True]
    assert found.intrinsics is None


def test_several_reconstructions_are_several_scenes(tmp_path):
    other = GOOD | {"shots": {"b.jpg": SHOT}}
    scenes = read_opensfm(project(tmp_path, [GOOD | {"shots": {"a.jpg": SHOT}}, other], name="city"))
    assert [(scene.name, scene.database.names) for scene in scenes] == [("city-0", ("a.jpg",)), ("city-1", ("b.jpg",))]


def test_image_list_says_where_images_are(tmp_path):
    folder = project(tmp_path)
    (folder / "images").rename(folder / "photos")
    (folder / "image_list.txt").write_text(f"photos/a.jpg\r\n{folder}/photos/b.jpg\r\n")
    (scene,) = read_opensfm(folder)
    assert scene.database.names == ("photos/a.jpg", "photos/b.jpg")
    assert read_opensfm(folder, images=folder / "photos")[0].database.names == ("a.jpg", "b.jpg")
    for text, said in [
        ("/elsewhere/a.jpg\n", "must lie inside"),
        ("../a.jpg\n", "inside the images' folder"),
        ("photos/a.jpg\nb/a.jpg\n", "stands again"),
    ]:
        (folder / "image_list.txt").write_text(text)
        with pytest.raises(CovisError, match=said):
            read_opensfm(folder)


def changed(*path, to):
    """The good reconstruction with one value changed, or taken away (`to` None)."""
    value = deepcopy(GOOD)
    place = value
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return [value]


@pytest.mark.parametrize(("value", "said"), [
    ("", r"must be JSON; it is truncated"),
    (json.dumps([GOOD])[:-40], r"must be JSON; it is truncated"),
    (json.dumps(GOOD), r"a JSON list of reconstructions"),
    ("[]", r"a JSON list of reconstructions"),
    ('[{"features": 1}]', r"a JSON list of reconstructions"),
    ('[{"cameras": {}, "shots": {"a": {}, "a": {}}}]', r"'a' stands again"),
    (changed("cameras", to=None), r"reconstruction 1 of 1: 'cameras' must be a JSON object"),
    (changed("shots", to={}), r"there must be a shot"),
    (changed("shots", "a.jpg", to=[1]), r"'a\.jpg' must be a JSON object; found list"),
    (changed("shots", "a.jpg", "rotation", to=None), r"shot 'a\.jpg': 'rotation' must be three finite numbers; found None"),
    (changed("shots", "a.jpg", "rotation", to=[0, 0, float("nan")]), r"'rotation' must be three finite numbers"),
    (changed("shots", "a.jpg", "translation", to=[0, 0]), r"'translation' must be three finite numbers; found \[0, 0\]"),
    (changed("shots", "a.jpg", "camera", to=3), r"'camera' must be text; found 3"),
    (changed("shots", "a.jpg", "camera", to="d"), r"its camera 'd' must stand among the cameras"),
    (changed("shots", "a.jpg", "capture_time", to="noon"), r"'capture_time' must be a finite number; found 'noon'"),
    (changed("shots", "a.jpg", "capture_time", to=10**400), r"'capture_time' must be a finite number"),
    (changed("shots", to={"../a.jpg": SHOT}), r"inside the images' folder"),
    (changed("shots", to={"c.jpg": SHOT}), r"1 of 1 images.*c\.jpg"),
    (changed("cameras", "c", "focal", to=None), r"camera 'c': 'focal' must be a finite number; found None"),
    (changed("cameras", "c", "width", to=0), r"must be more than 0"),
    (changed("cameras", "c", "projection_type", to="pushbroom"), r"one of OpenSfM's; found 'pushbroom'"),
    (changed("reference_lla", "latitude", to=95), r"latitude in \[-80, 84\]"),
    (changed("reference_lla", "altitude", to=None), r"reference_lla: 'altitude' must be a finite number"),
])  # fmt: skip
def test_damage_is_refused(tmp_path, value, said):
    with pytest.raises(CovisError, match=said):
        read_opensfm(project(tmp_path, value))


def test_what_is_none_or_cannot_be_written_is_refused(town, tmp_path):
    with pytest.raises(MissingFileError, match=r"reconstruction\.json must exist"):
        read_opensfm(tmp_path)
    folder = project(tmp_path)
    assert not check("opensfm", folder, decode=False).problems
    with pytest.raises(MissingFileError, match=r"images='no'"):
        read_opensfm(folder, images="no")
    with pytest.raises(InvalidInputError, match=r"'train', 'val'"):
        read_opensfm(folder, split="x")
    with pytest.raises(InvalidInputError, match=r"must have intrinsics"):
        write_opensfm([bare(town[0], "pose")], tmp_path / "out")
    one = bare(town[0], "pose", "intrinsics").database.select([0])
    absent = Images(one.root, ("no.jpg",), pose=one.pose, intrinsics=one.intrinsics)
    with pytest.raises(MissingFileError, match=r"no\.jpg must be there"):
        write_opensfm([Scene("s", "test", absent, absent)], tmp_path / "out", files="none")
    write_opensfm([Scene("s", "test", one, one)], tmp_path / "out")
    with pytest.raises(OutputExistsError, match=r"already there"):
        write_opensfm([Scene("s", "test", one, one)], tmp_path / "out")


def test_a_number_of_thousands_of_digits_is_damage(tmp_path):
    folder = project(tmp_path, [GOOD])
    path = folder / "reconstruction.json"
    path.write_text(path.read_text().replace("12.5", "1" * 5001))
    with pytest.raises(DamagedFileError, match="must be JSON"):
        read_opensfm(folder)
