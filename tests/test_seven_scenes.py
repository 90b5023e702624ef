"""The 7-Scenes layout: the benchmark's odd files, everything that may be missing or wrong, and the inverse."""

import contextlib
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from covis.datasets import guess_layout, read
from covis.datasets.seven_scenes import read_7scenes, write_7scenes, write_frame
from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.geometry import check_rigid
from covis.images import Images, Scene
from covis.rasters import read_depth, read_image, write_image


def alike(a, b):
    """Equal in everything but the root."""
    return (a.name, a.split) == (b.name, b.split) and all(
        Images("r", x.names, **x._columns()) == Images("r", y.names, **y._columns())
        for x, y in ((a.database, b.database), (a.queries, b.queries))
    )


def test_a_room_is_read(room):
    folder = room(train=(1, 3), test=(2,))
    (scene,) = read_7scenes(folder)
    assert (scene.name, scene.split) == ("room", "test")
    assert scene.database.names == tuple(f"seq-0{s}/frame-00000{f}.color.png" for s in (1, 3) for f in range(3))
    assert scene.queries.sequence == ("seq-02",) * 3
    assert scene.queries.frame.tolist() == [0, 1, 2]
    assert scene.queries.depth[1] == "seq-02/frame-000001.depth.png"
    assert scene.database.intrinsics.tolist() == [[15, 15, 7.5, 5.5]] * 6
    np.testing.assert_allclose(scene.queries.pose[2, :3, 3], [0.8, 0, 0])
    assert read_image(scene.queries.path(0)).shape == (12, 16, 3)
    (train,) = read_7scenes(folder, split="train")
    assert train.training
    assert train.queries == scene.database
    assert read_7scenes(folder, intrinsics=(1, 2, 3, 4))[0].queries.intrinsics[0].tolist() == [1, 2, 3, 4]


def test_the_benchmarks_odd_text_is_read(room):
    """CRLF, tabs, leading blanks, three-digit exponents, no padding in split files."""
    folder = room()
    (folder / "TestSplit.txt").write_bytes(b"  sequence2\t\r\n\r\n")
    pose = (
        b" 9.9998480e-001\t 3.9105420e-003\t-3.8871230e-003\t 1.1e-001\t\r\n-3.9e-003\t 9.9998e-001\t-2.1e-003\t 0\t\r\n"
        b"  3.88e-003\t  2.1e-003\t 9.9999e-001\t -1.5e+000\t\r\n0 \t0\t0\t 1.0000000e+000\t\r\n"
    )
    (folder / "seq-02" / "frame-000001.pose.txt").write_bytes(pose)
    (scene,) = read_7scenes(folder)
    np.testing.assert_allclose(scene.queries.pose[1, :3, 3], [0.11, 0, -1.5])
    assert scene.queries.pose[1, 0, 0] == 0.999984800


def test_jpeg_colour_is_read(room):
    folder = room()
    for path in (folder / "seq-02").glob("*.color.png"):
        write_image(path.with_suffix(".jpg"), read_image(path))
        path.unlink()
    (scene,) = read_7scenes(folder)
    assert all(name.endswith(".color.jpg") for name in scene.queries.names)
    assert len(scene.queries) == 3


def test_scenes_without_intrinsics_are_the_kinects(room):
    folder = room()
    (folder / "intrinsics.txt").unlink()
    assert read_7scenes(folder)[0].queries.intrinsics[0].tolist() == [585, 585, 320, 240]


def test_a_folder_of_scenes(room, tmp_path):
    room("kitchen"), room("office", test=()), room("attic")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    assert [scene.name for scene in read_7scenes(tmp_path)] == ["attic", "kitchen"]
    assert [scene.name for scene in read_7scenes(tmp_path, split="train")] == ["attic", "kitchen", "office"]


def test_a_scene_without_any_depth_has_none(room):
    folder = room()
    for path in folder.rglob("*.depth.png"):
        path.unlink()
    (scene,) = read_7scenes(folder)
    assert scene.queries.depth is scene.database.depth is None


def test_other_files_do_not_matter(room):
    folder = room()
    for name in ("._frame-000000.color.png", "Thumbs.db", "frame-000000.color.png.bak", "frame-x.pose.txt"):
        (folder / "seq-01" / name).write_bytes(b"x")
    assert len(read_7scenes(folder)[0].database) == 3


POSE = "frame-000001.pose.txt"
SCALED = "2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1"
MIRROR = "-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
TRANSPOSED = "1 0 0 0 0 1 0 0 0 0 1 0 1 2 3 1"
NAN = "1 0 0 nan 0 1 0 0 0 0 1 0 0 0 0 1"


@pytest.mark.parametrize(("file", "content", "error", "named"), [
    (f"seq-02/{POSE}", None, MissingFileError, ["seq-02", "frame-000001", "pose"]),
    ("seq-02/frame-000001.color.png", None, MissingFileError, ["seq-02", "frame-000001", "color"]),
    ("seq-02/frame-000001.depth.png", None, MissingFileError, ["frame-000001", "depth"]),
    (f"seq-02/{POSE}", "1 0 0 0 0 1", DamagedFileError, [POSE, "16 numbers", "holds 6"]),
    (f"seq-02/{POSE}", "", DamagedFileError, [POSE, "holds 0"]),
    (f"seq-02/{POSE}", "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 one", DamagedFileError, [POSE, "one"]),
    (f"seq-02/{POSE}", b"\xff\xd8\xff", DamagedFileError, [POSE]),
    (f"seq-02/{POSE}", NAN, InvalidInputError, ["frame-000001", "finite"]),
    (f"seq-02/{POSE}", SCALED, InvalidInputError, ["seq-02/frame-000001", "scale"]),
    (f"seq-02/{POSE}", MIRROR, InvalidInputError, ["seq-02/frame-000001", "reflection"]),
    (f"seq-02/{POSE}", TRANSPOSED, InvalidInputError, ["seq-02/frame-000001", "transposed"]),
    ("TestSplit.txt", "sequence2\nsequence two\n", DamagedFileError, ["TestSplit.txt, line 2", "sequence two"]),
    ("TestSplit.txt", "sequence2\nsequence2\n", InvalidInputError, ["twice"]),
    ("TestSplit.txt", "sequence7\n", MissingFileError, ["seq-07", "split"]),
    ("TestSplit.txt", b"\xff\xfe", DamagedFileError, ["TestSplit.txt"]),
    ("TestSplit.txt", None, MissingFileError, ["TestSplit.txt"]),
    ("TestSplit.txt", "", MissingFileError, ["test split"]),
    ("TrainSplit.txt", None, MissingFileError, ["TrainSplit.txt"]),
    ("intrinsics.txt", "585 585 320", DamagedFileError, ["intrinsics.txt", "4 numbers"]),
    ("intrinsics.txt", "0 585 320 240", InvalidInputError, ["focal"]),
    ("seq-02/frame-000001.color.jpg", b"x", InvalidInputError, ["seq-02", "frame-000001.color.jpg", "one color file"]),
])  # fmt: skip
def test_each_fault_is_one_error_that_names_the_file(room, file, content, error, named):
    folder = room()
    if content is None:
        (folder / file).unlink()
    elif isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        (folder / file).write_text(content)
    with pytest.raises(error) as refused:
        read_7scenes(folder)
    for text in named:
        assert text in str(refused.value)


def test_missing_folders_are_named(room, tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        read_7scenes(tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingFileError, match=r"none must hold a 7-Scenes scene.*layout"):
        read_7scenes(tmp_path / "none")
    folder = room()
    shutil.rmtree(folder / "seq-02")
    with pytest.raises(MissingFileError, match="seq-02 must be there"):
        read_7scenes(folder)
    (folder / "seq-02").mkdir()
    assert len(read_7scenes(folder)[0].queries) == 0


def test_arguments_are_checked(room):
    with pytest.raises(InvalidInputError, match="'train' or 'test'; got 'val'"):
        read_7scenes(room(), split="val")
    with pytest.raises(InvalidInputError, match="four numbers"):
        read_7scenes(room(), intrinsics=(1, 2, 3))


@given(damage=st.binary(max_size=80), file=st.sampled_from(["TestSplit.txt", "TrainSplit.txt", "intrinsics.txt", f"seq-02/{POSE}"]))
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage, file):
    folder = tmp_path_factory.mktemp("g")
    for sequence in (1, 2):
        (folder / f"seq-0{sequence}").mkdir()
        write_image(folder / f"seq-0{sequence}" / "frame-000001.color.png", np.zeros((2, 2, 3), dtype=np.uint8))
        (folder / f"seq-0{sequence}" / POSE).write_text("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    (folder / "TrainSplit.txt").write_text("sequence1")
    (folder / "TestSplit.txt").write_text("sequence2")
    (folder / file).write_bytes(damage)
    with contextlib.suppress(CovisError):
        read_7scenes(folder)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("train", [(1, 3), (12, 4)])
def test_what_is_written_is_read(room, tmp_path, split, train):
    folder = room(train=train, test=(2,))
    (folder / "TrainSplit.txt").write_text("".join(f"sequence{n}\n" for n in train))
    scenes = read_7scenes(folder, split=split)
    (written,) = write_7scenes(scenes, tmp_path / "copy")
    (found,) = read_7scenes(written, split=split)
    assert alike(found, scenes[0])
    for row in range(len(found.queries)):
        assert found.queries.path(row).read_bytes() == scenes[0].queries.path(row).read_bytes()
    assert (read_depth(found.queries.root / found.queries.depth[0]) == 2).all()


@given(seed=st.integers(0, 10**6))
def test_poses_come_back_to_the_last_bit(tmp_path_factory, seed):
    folder, random = tmp_path_factory.mktemp("p"), np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.random(random_state=seed).as_matrix(), random.normal(scale=10.0 ** random.integers(-9, 6), size=3)
    (folder / "seq-01").mkdir()
    write_frame(folder / "seq-01", 7, rgb=np.zeros((2, 2, 3), dtype=np.uint8), depth=np.ones((2, 2), dtype=np.float32), pose=pose)
    (folder / "TrainSplit.txt").write_text("sequence1")
    np.testing.assert_array_equal(read_7scenes(folder, split="train")[0].queries.pose[0], pose)


def photos(folder, count, *, sequence=None, frame=None, suffix="png", shade=0, **columns):
    """Images of one shade each, so that a copy can be told from another."""
    folder.mkdir()
    for row in range(count):
        write_image(folder / f"{row}.{suffix}", np.full((2, 2, 3), shade + row, dtype=np.uint8))
    pose = np.tile(np.eye(4), (count, 1, 1))
    return Images(folder, [f"{row}.{suffix}" for row in range(count)], pose=pose, sequence=sequence, frame=frame, **columns)


def shades(images):
    return [int(read_image(images.path(row))[0, 0, 0]) for row in range(len(images))]


@pytest.mark.parametrize(("mine", "theirs"), [
    (["x", "seq-01"], ["seq-02", "y"]),  # a free number must not be one that is kept
    (["seq-01", "seq-01"], ["seq-01", "seq-01"]),  # both sides' sequences have one name
    (["seq-1", "seq-01"], ["seq-001", "x"]),  # three names of one number
    (None, None),
])  # fmt: skip
def test_no_sequence_is_written_over_another(tmp_path, mine, theirs):
    database, queries = photos(tmp_path / "d", 2, sequence=mine), photos(tmp_path / "q", 2, sequence=theirs, shade=100)
    (written,) = write_7scenes([Scene("s", "test", database, queries)], tmp_path / "out")
    (found,) = read_7scenes(written)
    assert sorted(shades(found.database)) == [0, 1]
    assert sorted(shades(found.queries)) == [100, 101]
    assert not set(found.database.names) & set(found.queries.names)


def test_what_the_layout_cannot_hold_is_refused(tmp_path):
    camera = {"intrinsics": [[1, 1, 0, 0], [2, 2, 0, 0]]}
    alone = {"intrinsics": [[1, 1, 0, 0]] * 2}
    for number, (database, said) in enumerate([
        (photos(tmp_path / "a", 2, **camera), "one camera a scene"),
        (photos(tmp_path / "b", 2, frame=[3, 3]), "frame of its number"),
        (photos(tmp_path / "c", 2, suffix="bmp"), "PNG or JPEG"),
        (photos(tmp_path / "d", 2, frame=[-1, 0]), "numbered from 0"),
        (Images(tmp_path, ["x.png"]), "must have pose"),
    ]):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_7scenes([Scene("s", "train", database, database)], tmp_path / f"out{number}")
        assert not (tmp_path / f"out{number}" / "s").exists()
    mixed = Scene("s", "test", photos(tmp_path / "e", 2, **alone), photos(tmp_path / "f", 2))
    with pytest.raises(InvalidInputError, match="one camera a scene"):
        write_7scenes([mixed], tmp_path / "out")
    both = photos(tmp_path / "g", 1)
    scene = Scene("s", "train", both, both)
    with pytest.raises(InvalidInputError, match="different names"):
        write_7scenes([scene, scene], tmp_path / "out")
    both.path(0).unlink()
    with pytest.raises(MissingFileError, match=r"0\.png must be there"):
        write_7scenes([scene], tmp_path / "out")
    assert not (tmp_path / "out" / "s").exists()


def test_nothing_is_overwritten_unasked(tmp_path):
    both = photos(tmp_path / "a", 1)
    scene = Scene("s", "train", both, both)
    (written,) = write_7scenes([scene], tmp_path / "out")
    (written / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="s is already there"):
        write_7scenes([scene], tmp_path / "out")
    assert (written / "mine.txt").exists()
    write_7scenes([scene], tmp_path / "out", overwrite=True)
    assert not (written / "mine.txt").exists()


def test_the_layout_is_guessed_where_it_is_plain(room, tmp_path):
    folder = room()
    assert guess_layout(folder) == guess_layout(tmp_path) == "7scenes"
    assert read("auto", folder)[0].name == "room"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"not plain.*7scenes"):
        guess_layout(tmp_path / "empty")
    with pytest.raises(MissingFileError):
        guess_layout(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="'7scenes'"):
        read("7scene", folder)
    assert read("covis.datasets.seven_scenes:read_7scenes", folder)[0].name == "room"


def test_the_real_kitchen(covis_data):
    (scene,) = read_7scenes(covis_data / "7scenes" / "redkitchen")
    assert (scene.name, len(scene.database), len(scene.queries)) == ("redkitchen", 125, 125)
    for images in (scene.database, scene.queries):
        check_rigid(images.pose)
        assert len(images.depth) == 125
        assert (images.root / images.depth[0]).is_file()
    assert not set(scene.database.sequence) & set(scene.queries.sequence)
    depth = read_depth(scene.queries.root / scene.queries.depth[0])
    assert depth.shape == (480, 640)
    assert 0.5 < np.median(depth[depth > 0]) < 6
    (train,) = read_7scenes(covis_data / "7scenes" / "redkitchen", split="train")
    assert train.training
