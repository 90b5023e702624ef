"""COLMAP models: round trips in text and binary, conventions by hand and on real poses, and damage."""

import struct

import numpy as np
import pytest
from made_poses import bare, close, contents, kitchen, of_quaternion, same_views, view_of_world_to_camera

from covis.datasets import check, guess_layout, read
from covis.datasets.camera_models import MODELS, ModelCamera
from covis.datasets.colmap import read_colmap, write_colmap
from covis.datasets.colmap_files import model_bytes
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene

FORMS = ["text", "binary"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_towns_come_back(town, tmp_path, form, files):
    with pytest.warns(CovisWarning, match=r"colmap does not keep xy, heading.*flags"):
        written = write_colmap(town, tmp_path, files=files, form=form)
    assert guess_layout(written[0]) == "colmap"
    for folder, scene in zip(written, town, strict=True):
        options = {"images": scene.database.root} if files == "none" else {}
        (found,) = read_colmap(folder, up="z", **options)
        close(found, scene, "names", "pose", "intrinsics", "xy", "heading")
        assert contents(found.queries) == contents(scene.queries)
        assert found.database.path(0).is_symlink() == (files == "link")
        assert read_colmap(folder, **options)[0].database.xy is None  # which way is up is never guessed
        (metadata,) = read_colmap(folder, missing="ignore")
        assert metadata.database.names == scene.database.names


def test_a_training_scene_comes_back_as_one_side(town, tmp_path):
    scene = bare(town[0], "pose", "intrinsics")
    both = scene.database.select([0, 1])
    mixed = Images(both.root, both.names, pose=both.pose, intrinsics=both.intrinsics)
    (folder,) = write_colmap([Scene("one", "train", mixed, mixed)], tmp_path)
    (found,) = read_colmap(folder, split="train")
    assert found.training
    assert found.database.names == mixed.names
    root = both.root
    names = (town[0].database.names[0], town[0].queries.names[0])
    two = Images(root, names, pose=both.pose, intrinsics=both.intrinsics)  # in both folders, and still one side
    (folder,) = write_colmap([Scene("two", "test", two, two)], tmp_path)
    (found,) = read_colmap(folder)
    assert found.training
    assert found.database.names == tuple(f"all/{name}" for name in names)


def test_names_get_their_side_and_the_train_split_has_no_query(town, tmp_path):
    scene = bare(town[0], "pose", "intrinsics")
    names = [name.removeprefix("database/") for name in scene.database.names]
    database = Images(scene.database.root / "database", names, pose=scene.database.pose, intrinsics=scene.database.intrinsics)
    (folder,) = write_colmap([Scene("side", "test", database, scene.queries)], tmp_path)
    (found,) = read_colmap(folder)
    assert found.database.names == scene.database.names
    (train,) = read_colmap(folder, split="train")
    assert train.training
    assert train.database.names == scene.database.names


@pytest.mark.parametrize("form", FORMS)
def test_real_poses_by_hand(covis_data, tmp_path, form):
    """The kitchen's camera-to-world matrices, written, and the raw file read with formulas of this test's own."""
    scene, truth = kitchen(covis_data)
    (folder,) = write_colmap([bare(scene, "pose", "intrinsics")], tmp_path, files="none", form=form)
    model = folder / "sparse" / "0"
    if form == "text":
        lines = [line.split() for line in (model / "images.txt").read_text().splitlines() if line and not line.startswith("#")]
        rows = np.array([line[1:8] for line in lines], dtype=np.float64)
        camera = [float(word) for word in (model / "cameras.txt").read_text().splitlines()[1].split()[4:]]
    else:
        raw, at, rows = (model / "images.bin").read_bytes(), 8, []
        for _ in range(struct.unpack_from("<Q", raw)[0]):
            rows.append(struct.unpack_from("<7d", raw, at + 4))
            at = raw.index(b"\0", at + 64) + 1 + 8
        rows = np.array(rows)
        camera = struct.unpack_from("<4d", (model / "cameras.bin").read_bytes(), 8 + 24)
    assert list(camera) == [585, 585, 320.5, 240.5]
    same_views([view_of_world_to_camera(of_quaternion(*row[:4]), row[4:]) for row in rows], truth)
    (found,) = read_colmap(folder, missing="ignore")
    poses = np.concatenate([found.database.pose, found.queries.pose])
    same_views([(pose[:3, 3], pose[:3, 2]) for pose in poses], truth)
    assert found.database.intrinsics[0].tolist() == [585, 585, 320, 240]


def model(tmp_path, *, cameras="1 PINHOLE 64 48 40 41 32 24\n", images=None, name="m"):
    folder = tmp_path / name
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for file in ("a.jpg", "b.jpg"):
        (folder / "images" / file).touch()
    (folder / "cameras.txt").write_text(cameras)
    (folder / "images.txt").write_text(images or "1 1 0 0 0 1 2 3 1 a.jpg\n\n2 1 0 0 0 1 2 3 1 b.jpg\n\n")
    return folder


@pytest.mark.parametrize(("line", "expected", "warned"), [
    ("SIMPLE_PINHOLE 64 48 40 32 24", (40, 40, 31.5, 23.5), False),
    ("PINHOLE 64 48 40 41 32 24", (40, 41, 31.5, 23.5), False),
    ("SIMPLE_RADIAL 64 48 40 32 24 0.1", (40, 40, 31.5, 23.5), True),
    ("SIMPLE_RADIAL 64 48 40 32 24 0", (40, 40, 31.5, 23.5), False),
    ("RADIAL 64 48 40 32 24 0 0.1", (40, 40, 31.5, 23.5), True),
    ("OPENCV 64 48 40 41 32 24 0 0 0 1e-3", (40, 41, 31.5, 23.5), True),
    ("FULL_OPENCV 64 48 40 41 32 24 0 0 0 0 0 0 0 0", (40, 41, 31.5, 23.5), False),
    ("OPENCV_FISHEYE 64 48 40 41 32 24 0 0 0 0", (40, 41, 31.5, 23.5), True),
    ("SIMPLE_RADIAL_FISHEYE 64 48 40 32 24 0", (40, 40, 31.5, 23.5), True),
    ("RADIAL_FISHEYE 64 48 40 32 24 0 0", (40, 40, 31.5, 23.5), True),
    ("THIN_PRISM_FISHEYE 64 48 40 41 32 24 0 0 0 0 0 0 0 0", (40, 41, 31.5, 23.5), True),
    ("FOV 64 48 40 41 32 24 0.9", (40, 41, 31.5, 23.5), True),
])  # fmt: skip
def test_every_camera_model_gives_a_pinhole(tmp_path, line, expected, warned, recwarn):
    (scene,) = read_colmap(model(tmp_path, cameras=f"1 {line}\n"))
    assert scene.database.intrinsics[1].tolist() == list(expected)
    assert ["distortion is dropped" in str(warning.message) for warning in recwarn] == [True] * warned


def test_binary_knows_every_model_by_its_number(tmp_path):
    """The numbers are COLMAP's own: 0 SIMPLE_PINHOLE … 10 THIN_PRISM_FISHEYE."""
    assert list(MODELS)[:11] == [
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
        "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
    ]  # fmt: skip
    cameras = {
        key: ModelCamera(name, 64, 48, tuple(map(float, range(1, len(MODELS[name].split()) + 1)))) for key, name in enumerate(MODELS, 7)
    }
    row = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for name, content in model_bytes(cameras, [(f"{key}.jpg", row, key) for key in cameras], ".bin").items():
        (tmp_path / name).write_bytes(content)
    with pytest.warns(CovisWarning, match=r"1 of 18 images.*without focal length \(EQUIRECTANGULAR\)"):
        (scene,) = read_colmap(tmp_path, missing="ignore")
    assert scene.database.intrinsics is None
    assert len(scene.database) == len(MODELS)


def test_points_comments_and_windows_lines_are_taken(tmp_path):
    folder = model(tmp_path, images="x")
    text = "# a comment\n1 1 0 0 0 1 2 3 1 a.jpg\n10.5 20.25 -1 30 40 17\n# between\n2 1 0 0 0 4 5 6 1 b.jpg"
    (folder / "images.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (scene,) = read_colmap(folder)
    assert scene.training
    assert scene.database.names == ("a.jpg", "b.jpg")
    assert scene.database.pose[1, :3, 3].tolist() == [-4, -5, -6]
    raw = {"cameras.bin": struct.pack("<QiiQQ4d", 1, 1, 1, 64, 48, 40, 41, 32, 24)}
    raw["images.bin"] = struct.pack("<Qi7di", 1, 5, 1, 0, 0, 0, 7, 8, 9, 1) + b"a.jpg\0" + struct.pack("<QddQddQ", 2, 1, 2, 3, 4, 5, 6)
    for name, content in raw.items():
        (folder / name).write_bytes(content)
    with pytest.warns(CovisWarning, match=r"binary and in text; the binary one is read"):
        (scene,) = read_colmap(folder)
    assert scene.database.pose[0, :3, 3].tolist() == [-7, -8, -9]
    assert len(read_colmap(folder, form="text")[0].database) == 2
    (folder / "cameras.bin").unlink()
    with pytest.raises(MissingFileError, match=r"form='binary'"):
        read_colmap(folder, form="binary")


def test_who_asks_is_a_list_or_a_folder(town, tmp_path):
    scene = bare(town[0], "pose", "intrinsics")
    (folder,) = write_colmap([scene], tmp_path)
    (folder / "asked.txt").write_text(f"./{scene.database.names[3]} SIMPLE_RADIAL 64 48 40 32 24 0\n{scene.queries.names[0]}\n")
    (found,) = read_colmap(folder, queries="asked.txt")
    assert found.queries.names == (scene.database.names[3], scene.queries.names[0])
    assert len(found.database) == 38
    (found,) = read_colmap(folder, queries="queries/")
    assert found.queries.names == scene.queries.names
    for queries, said in [("night", "no image of 40"), ("asked.txt", "line 2: a query must be an image")]:
        (folder / "asked.txt").write_text(f"{scene.queries.names[0]}\nother.jpg\n")
        with pytest.raises(InvalidInputError, match=said):
            read_colmap(folder, queries=queries)
    (folder / "asked.txt").write_text("".join(f"{name}\n" for name in (*scene.database.names, *scene.queries.names)))
    with pytest.raises(InvalidInputError, match=r"every image of 40"):
        read_colmap(folder, queries="asked.txt")


def test_several_models_are_several_scenes(town, tmp_path):
    written = write_colmap([bare(scene, "pose", "intrinsics") for scene in town], tmp_path / "out", files="none")
    for place, folder in enumerate(written):
        (folder / "sparse" / "0").rename(tmp_path / str(place))
    (tmp_path / "city" / "sparse").mkdir(parents=True)
    for place in ("0", "1"):
        (tmp_path / place).rename(tmp_path / "city" / "sparse" / place)
    scenes = read("colmap", tmp_path / "city", missing="ignore")
    assert [scene.name for scene in scenes] == ["city-0", "city-1"]
    (one,) = read_colmap(tmp_path / "city" / "sparse" / "1", missing="ignore")
    assert one.name == "city"
    np.testing.assert_array_equal(one.database.pose, scenes[1].database.pose)


GOOD = "1 1 0 0 0 1 2 3 1 a.jpg\n\n"
CAMERA = "1 PINHOLE 64 48 40 41 32 24\n"


@pytest.mark.parametrize(("cameras", "images", "said"), [
    ("", GOOD, r"camera 1 of a\.jpg must stand in cameras\.txt"),
    ("1 PINHOLE 64 48 40 41 32\n", GOOD, r"cameras\.txt, line 1: .*fx fy cx cy; found 3"),
    ("1 PINHOLE 64\n", GOOD, r"line 1: a camera must be CAMERA_ID"),
    ("1 POLYNOMIAL 64 48 40\n", GOOD, r"one of COLMAP's .*'POLYNOMIAL'"),
    ("x PINHOLE 64 48 40 41 32 24\n", GOOD, r"whole number; found 'x'"),
    ("1 PINHOLE 64 48 0 41 32 24\n", GOOD, r"more than 0 pixels"),
    ("1 PINHOLE 64 48 nan 41 32 24\n", GOOD, r"finite number; found 'nan'"),
    (CAMERA + CAMERA, GOOD, r"cameras\.txt, line 2: a camera's id must stand once"),
    (CAMERA, "# nothing\n", r"must hold an image"),
    (CAMERA, "1 1 0 0 0 1 2 3 1\n\n", r"images\.txt, line 1: .*must have 10 fields; found 9"),
    (CAMERA, "1 1 0 0 0 1 2 x 1 a.jpg\n\n", r"line 1: an image's pose must be a finite number; found 'x'"),
    (CAMERA, "1 1 0 0 0 1 2 nan 1 a.jpg\n\n", r"found 'nan'"),
    (CAMERA, "1 0 0 0 0 1 2 3 1 a.jpg\n\n", r"line 1: the quaternion of a\.jpg must have the length 1"),
    (CAMERA, "1 1 0 0 0 1 2 3 1 a.jpg\n2 1 0 0 0 1 2 3 1 b.jpg\n", r"line 2: every second line .*empty line behind each image gone"),
    (CAMERA, "1 1 0 0 0 1 2 3 1 a.jpg\n1 2 x\n", r"line 2: every second line"),
    (CAMERA, "1 1 0 0 0 1 2 3 1 ../a.jpg\n\n", r"inside the images' folder.*\.\./a\.jpg"),
    (CAMERA, "1 1 0 0 0 1 2 3 1 /a.jpg\n\n", r"inside the images' folder"),
    (CAMERA, GOOD + GOOD, r"line 3\): the name stands at .*line 1 too"),
    (CAMERA, "1 1 0 0 0 1 2 3 1 c.jpg\n\n", r"1 of 1 images.*c\.jpg \(.*images\.txt, line 1\)"),
    (CAMERA, "{}\n", r"must have 10 fields"),
])  # fmt: skip
def test_damaged_text_is_refused(tmp_path, cameras, images, said):
    with pytest.raises(CovisError, match=said):
        read_colmap(model(tmp_path, cameras=cameras, images=images))


def test_policies_and_check(tmp_path):
    folder = model(tmp_path, images=GOOD + "2 1 0 0 0 1 2 3 1 c.jpg\n\n" + GOOD)
    with pytest.warns(CovisWarning, match=r"left out"):
        (scene,) = read_colmap(folder, missing="skip", invalid="skip")
    assert scene.database.names == ("a.jpg",)
    report = check("colmap", folder, decode=False)
    assert sorted({problem.kind for problem in report.problems}) == ["duplicate name", "missing image"]


def test_truncated_binary_is_refused_at_every_byte(town, tmp_path, refuses_every_cut):
    scene = bare(town[0], "pose", "intrinsics")
    small = Scene("s", "test", scene.database.select([0, 1, 2]), scene.queries.select([0]))
    (folder,) = write_colmap([small], tmp_path, files="none", form="binary")
    for name in ("cameras.bin", "images.bin"):
        refuses_every_cut(folder / "sparse" / "0" / name, lambda: read_colmap(folder, missing="ignore"))
    images = folder / "sparse" / "0" / "images.bin"
    images.write_bytes(images.read_bytes() + b"\0")
    with pytest.raises(DamagedFileError, match=r"1 bytes stand behind"):
        read_colmap(folder, missing="ignore")
    images.write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(DamagedFileError, match=r"it ends before"):
        read_colmap(folder, missing="ignore")


@pytest.mark.parametrize(("name", "content", "said"), [
    ("cameras.bin", struct.pack("<QiiQQ", 1, 1, 77, 64, 48), r"0 to 17; found 77"),
    ("cameras.bin", struct.pack("<QiiQQ4d", 1, 1, 1, 64, 48, np.nan, 1, 1, 1), r"more than 0 pixels"),
    ("images.bin", struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, np.inf, 0, 0, 1) + b"a\0" + bytes(8), r"image 1: an image's pose must"),
    ("images.bin", struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"\xff\0" + bytes(8), r"must be UTF-8"),
    ("images.bin", struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 9) + b"a\0" + bytes(8), r"camera 9 of a must stand in cameras\.bin"),
    ("images.bin", struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"../a\0" + bytes(8), r"inside the images' folder"),
    ("images.bin", b"", r"cannot be read"),
])  # fmt: skip
def test_foreign_binary_is_refused(tmp_path, name, content, said):
    good = {"cameras.bin": struct.pack("<QiiQQ4d", 1, 1, 1, 64, 48, 40, 41, 32, 24)}
    good["images.bin"] = struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a\0" + bytes(8)
    for file, raw in (good | {name: content}).items():
        (tmp_path / file).write_bytes(raw)
    with pytest.raises(CovisError, match=said):
        read_colmap(tmp_path, missing="ignore")


def test_what_is_no_model_or_cannot_be_written_is_refused(town, tmp_path):
    for root, said in [(tmp_path / "nowhere", "no such folder"), (tmp_path, r"sparse/0; found none")]:
        with pytest.raises(MissingFileError, match=said):
            read_colmap(root)
    folder = model(tmp_path)
    for options, said in [
        ({"split": "fold"}, "'train', 'val'"),
        ({"form": "xml"}, "'binary' or 'text'"),
        ({"images": "no"}, "no such folder"),
    ]:
        with pytest.raises(CovisError, match=said):
            read_colmap(folder, **options)
    scene = bare(town[0], "pose", "intrinsics")
    one = scene.database.select([0])
    blank = Images(one.root, ("a b.jpg",), pose=one.pose, intrinsics=one.intrinsics)
    outside = Images(one.root, ("../a.jpg",), pose=one.pose, intrinsics=one.intrinsics)
    absent = Images(one.root, ("no.jpg",), pose=one.pose, intrinsics=one.intrinsics)
    for scenes, said in [
        ([bare(town[0], "pose")], "must have intrinsics"),
        ([bare(town[0], "intrinsics")], "must have pose"),
        ([Scene("s", "test", blank, blank)], r"none of .*'a b\.jpg'"),
        ([Scene("s", "test", outside, outside)], "inside the images' folder"),
        ([Scene("s", "test", absent, absent)], r"no\.jpg must be there"),
        ([Scene("s", "test", one, one.select([]))], "queries of 's' has none"),
        ([scene, scene], "different names"),
    ]:
        with pytest.raises(CovisError, match=said):
            write_colmap(scenes, tmp_path / "out", files="none")
        assert not (tmp_path / "out").exists()
    write_colmap([scene], tmp_path / "out", files="none")
    with pytest.raises(OutputExistsError, match=r"already there"):
        write_colmap([scene], tmp_path / "out", files="none")
    write_colmap([scene], tmp_path / "out", files="none", overwrite=True)
