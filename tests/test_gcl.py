"""GCL's JSON indexes: texts written by hand in every order and layout, damage, and the inverse."""

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from covis.datasets.gcl import draft_gcl, read_gcl, write_gcl
from covis.datasets.pose_orders import CONVENTIONS, ORDERS, poses_of, rows_of
from covis.datasets.seven_scenes import read_7scenes
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.geometry import RIGID_TOLERANCE, check_rigid
from covis.images import Images, Scene


def index(path, names, **more):
    """An index as json.dump in the reference script writes it, with the images that it names left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"im_prefix": "/home/somebody/data/", "im_paths": names, **more}))
    return path


def msls(root, city, part="train_val", **more):
    for side, count in (("query", 2), ("database", 3)):
        names = [f"{part}/{city}/{side}/images/{side[0]}{row}.jpg" for row in range(count)]
        index(root / part / city / f"{side}.json", names, loc=[[600000.5 + row, 6150000.25, 90.5 * row] for row in range(count)], **more)


def read(root, **options):
    return read_gcl(root, missing="ignore", sizes="ignore", **options)  # a garden of two images is not the benchmark's


def test_cities_of_msls(tmp_path):
    for city in ("sf", "cph", "zurich", "trondheim"):
        msls(tmp_path, city)
    msls(tmp_path, "miami", "test")
    scenes = read(tmp_path, split="val")
    assert [(scene.name, scene.split) for scene in scenes] == [("cph", "val"), ("sf", "val")]
    scene = scenes[0]
    assert scene.queries.names == ("train_val/cph/query/images/q0.jpg", "train_val/cph/query/images/q1.jpg")
    assert scene.queries.root == scene.database.root == tmp_path
    assert scene.database.xy.tolist() == [[600000.5, 6150000.25], [600001.5, 6150000.25], [600002.5, 6150000.25]]
    assert scene.database.heading.tolist() == [0, 90.5, 181]
    assert scene.database.crs is scene.database.pose is None
    train = read(tmp_path, split="train")
    assert [scene.name for scene in train] == ["trondheim", "zurich"]  # the benchmark's order
    assert [(len(scene.queries), len(scene.database), scene.training) for scene in train] == [(2, 3, False)] * 2
    with pytest.warns(CovisWarning, match="holds miami of the test split"):
        assert [scene.name for scene in read(tmp_path)] == ["miami"]
    assert read(tmp_path, cities="miami", crs="EPSG:32617")[0].queries.crs == "EPSG:32617"
    assert [scene.name for scene in read(tmp_path, split="val", cities=["zurich", "cph"])] == ["zurich", "cph"]
    assert [scene.name for scene in read(tmp_path, split="val", cities=" zurich, cph,")] == ["zurich", "cph"]


def test_one_city_is_a_root_too(tmp_path):
    msls(tmp_path, "lab")
    (scene,) = read(tmp_path / "train_val" / "lab", split="val")
    assert (scene.name, scene.split, scene.queries.root) == ("lab", "val", tmp_path)
    (scene,) = read(tmp_path, split="train", cities=["lab"])
    assert scene.name == "lab"


def test_a_test_city_without_positions(tmp_path):
    for side in ("query", "database"):
        index(tmp_path / "test" / "miami" / f"{side}.json", [f"{side}.jpg"])
    (scene,) = read(tmp_path, cities="miami")
    assert scene.queries.xy is scene.queries.heading is None


def test_headings_in_loc(tmp_path):
    def angles(*values):
        return index(tmp_path / "a.json", [f"{i}.jpg" for i in range(len(values))], loc=[[0, 0, value] for value in values])

    assert read(angles(360, 0, 359.5))[0].database.heading.tolist() == [0, 0, 359.5]
    np.testing.assert_array_equal(read(angles(None, 10, math.nan))[0].database.heading, [np.nan, 10, np.nan])
    assert read(angles(None, math.nan))[0].database.heading is None
    for wrong in (-1, 361, math.inf):
        with pytest.raises(InvalidInputError, match=r"1\.jpg.*heading"):
            read(angles(5, wrong))
    with pytest.warns(CovisWarning, match="left out"):
        assert read(angles(5, -1), invalid="skip")[0].database.names == ("0.jpg",)


def test_positions_that_are_no_numbers_are_a_matter_of_policy(tmp_path):
    path = index(tmp_path / "a.json", ["a.jpg", "b.jpg", "b.jpg"], loc=[[0, 0, 0], [math.nan, 0, 0], [1, 1, 1]])
    kinds = [(row, problem.kind) for row, problem in draft_gcl(path)[0].database.invalid()]
    assert kinds == [(2, "duplicate name"), (1, "position")]
    with pytest.raises(InvalidInputError, match=r"2 of 3 images of .*a\.json"):
        read(path)
    with pytest.warns(CovisWarning):
        assert read(path, invalid="skip")[0].database.names == ("a.jpg",)


# A quarter turn to the left about z, then 1 2 3: camera x becomes world y.
TURN = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], dtype=float)
HALF = math.sqrt(0.5)


def test_three_orders_of_a_pose(tmp_path):
    """The same pose as each data set spells it."""
    root = tmp_path / "rooms"
    for name in ("train", "test"):
        index(root / "chess" / f"{name}.json", [f"chess/seq-01/{name}.png"], poses=[[1, 2, 3, HALF, 0, 0, HALF]])
    (scene,) = read(root)
    assert (scene.name, scene.database.names, scene.queries.names) == ("chess", ("chess/seq-01/train.png",), ("chess/seq-01/test.png",))
    assert scene.queries.root == root
    np.testing.assert_allclose(scene.database.pose[0], TURN, atol=1e-15)
    np.testing.assert_allclose(scene.queries.pose[0], TURN, atol=1e-15)
    assert scene.database.xy is None
    garden = index(tmp_path / "W17.json", ["cam0/1.jpg"], poses=[[1, 2, 3, 0, 0, HALF, HALF]])
    np.testing.assert_allclose(read(garden, dataset="tb-places")[0].database.pose[0], TURN, atol=1e-15)
    index(tmp_path / "car" / "reference.json", ["r.jpg"], poses=[[HALF, 0, 0, HALF, 1, 2, 3]])
    index(tmp_path / "car" / "test.json", ["images/dawn/rear/1.jpg"])
    (scene,) = read(tmp_path / "car", dataset="robotcar")
    np.testing.assert_allclose(scene.database.pose[0], TURN, atol=1e-15)
    assert scene.queries.pose is None
    assert (scene.name, scene.queries.names) == ("car", ("images/dawn/rear/1.jpg",))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_pose_may_go_either_way(tmp_path, convention):
    inverse = np.linalg.inv(TURN)
    quaternion = {"camera-to-world": [HALF, 0, 0, HALF]}.get(convention, [HALF, 0, 0, -HALF])
    place = inverse[:3, 3] if convention == "world-to-camera" else TURN[:3, 3]
    index(tmp_path / "reference.json", ["r.jpg"], poses=[[*quaternion, *place]])
    index(tmp_path / "test.json", ["t.jpg"])
    (scene,) = read(tmp_path, dataset="cmu", convention=convention)
    np.testing.assert_allclose(scene.database.pose[0], TURN, atol=1e-12)


def test_what_the_names_of_files_do_not_tell_must_be_said(tmp_path):
    index(tmp_path / "car" / "reference.json", ["r.jpg"], poses=[[1, 0, 0, 0, 1, 2, 3]])
    index(tmp_path / "car" / "test.json", ["t.jpg"])
    index(tmp_path / "garden" / "W17.json", ["a.jpg"], poses=[[1, 2, 3, 0, 0, 0, 1]])
    (tmp_path / "empty").mkdir()
    for folder in ("car", "garden", "empty"):
        with pytest.raises(InvalidInputError, match=f"data set of .*{folder} must be said, dataset= one of msls, 7scenes"):
            read(tmp_path / folder)
    with pytest.raises(InvalidInputError, match=r"W17\.json holds poses; say what they are, dataset= one of 7scenes, tb-places"):
        read(tmp_path / "garden" / "W17.json")
    with pytest.raises(InvalidInputError, match=r"reference\.json holds poses; .*convention= one of camera-to-world"):
        read(tmp_path / "car", dataset="cmu")
    for option in ("dataset", "split", "convention"):
        with pytest.raises(InvalidInputError, match=f"The {option} of GCL's indexes must be one of .*; got 'x'"):
            read(tmp_path / "car", **{option: "x"})


def test_rooms(tmp_path):
    for room, names in (("chess", ("train", "test")), ("attic", ("train",))):
        for name in names:
            index(tmp_path / room / f"{name}.json", [f"{room}/{name}.png"], poses=[[0, 0, 0, 1, 0, 0, 0]])
    assert [scene.name for scene in read(tmp_path)] == ["chess"]  # nothing to test in the attic
    scenes = read(tmp_path, split="train")
    assert [(scene.name, scene.training) for scene in scenes] == [("attic", True), ("chess", True)]
    (scene,) = read(tmp_path / "chess")
    assert (scene.name, scene.database.root) == ("chess", tmp_path)
    with pytest.raises(InvalidInputError, match="'train' or 'test'; got 'val'"):
        read(tmp_path, split="val")
    with pytest.raises(MissingFileError, match=r"attic must hold indexes of 7scenes for the test split; found train\.json"):
        read(tmp_path / "attic")


def test_pairs_without_positions(tmp_path):
    """Pittsburgh, Tokyo Time Machine and Tokyo 24/7, by their files' names."""
    pitts = tmp_path / "pitts"
    for name in ("pitts30k_test_q", "pitts30k_test_db", "pitts250k_test_q", "pitts250k_test_db", "val_q", "val_db"):
        index(pitts / f"{name}.json", [f"{name}/1.jpg"])
    assert [(s.name, s.queries.names[0]) for s in read(pitts)] == [
        ("pitts250k_test", "pitts250k_test_q/1.jpg"), ("pitts30k_test", "pitts30k_test_q/1.jpg")
    ]  # fmt: skip
    (scene,) = read(pitts, split="val")
    assert (scene.name, scene.database.names, scene.database.root, scene.database.xy) == ("val", ("val_db/1.jpg",), pitts, None)
    with pytest.raises(MissingFileError, match="for the train split; found pitts250k_test_db"):
        read(pitts, split="train")
    for name in ("query", "database"):
        index(tmp_path / "tokyo247" / f"{name}.json", [f"{name}/1.jpg"])
    (scene,) = read(tmp_path / "tokyo247")
    assert (scene.name, scene.queries.names, scene.database.names) == ("tokyo247", ("query/1.jpg",), ("database/1.jpg",))
    assert read(tmp_path / "tokyo247", split="train")[0].training
    (tmp_path / "tokyo247" / "query.json").unlink()
    with pytest.raises(MissingFileError, match=r"query\.json must be there"):
        read(tmp_path / "tokyo247")


def test_gardens(tmp_path):
    for number, name in enumerate(("W17", "W18")):
        index(tmp_path / f"{name}.json", ["cam0/1.jpg"], poses=[[number, 0, 0, 0, 0, 0, 1]])
    scenes = read(tmp_path, dataset="tb-places")
    assert [(scene.name, scene.training, scene.database.root) for scene in scenes] == [("W17", True, tmp_path), ("W18", True, tmp_path)]
    (scene,) = read(tmp_path, dataset="tb-places", queries="W18.json", database="W17.json")
    assert (scene.name, scene.training) == ("W18_W17", False)
    assert (scene.queries.pose[0, 0, 3], scene.database.pose[0, 0, 3]) == (1, 0)
    (same,) = read(tmp_path / "W17.json", dataset="tb-places", queries="W18.json")
    assert same == scene
    (scene,) = read(tmp_path, dataset="tb-places", database="W17.json")
    assert (scene.name, scene.training) == ("W17", True)
    (scene,) = read(tmp_path, dataset="tb-places", queries="W18.json", database="W17.json", split="train")
    assert scene.training
    for options in ({"queries": "W18.json"}, {"root": tmp_path / "W17.json", "database": "W18.json"}):
        with pytest.raises(InvalidInputError, match="must be said once"):
            read(**({"root": tmp_path} | options), dataset="tb-places")
    with pytest.raises(MissingFileError, match=r"W16\.json must be there"):
        read(tmp_path, dataset="tb-places", database="W16.json")


def test_where_images_are(tmp_path):
    path = index(tmp_path / "idx" / "a.json", ["x/1.jpg"])
    (tmp_path / "photos" / "x").mkdir(parents=True)
    (tmp_path / "photos" / "x" / "1.jpg").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="have no file"):
        read_gcl(path)
    assert read_gcl(path, root_dir=str(tmp_path / "photos"))[0].database.root == tmp_path / "photos"
    for prefix in ("../photos", "../photos/", str(tmp_path / "photos")):
        path.write_text(json.dumps({"im_prefix": prefix, "im_paths": ["x/1.jpg"]}))
        assert read_gcl(path, root_dir="im_prefix")[0].database.path(0).is_file()
    for prefix in (None, 3, "a\0b"):
        path.write_text(json.dumps({"im_prefix": prefix, "im_paths": ["x/1.jpg"]}))
        with pytest.raises(DamagedFileError, match="im_prefix"):
            read_gcl(path, root_dir="im_prefix")


ROW = [1, 2, 3, 1, 0, 0, 0]


@pytest.mark.parametrize(("text", "error", "said"), [
    ("", DamagedFileError, "JSON"),
    ("{", DamagedFileError, "JSON"),
    ("[]", DamagedFileError, "list"),
    ("{}", DamagedFileError, "'im_paths'.*holds nothing"),
    ('{"paths": []}', DamagedFileError, "'im_paths'.*holds paths"),
    ('{"im_paths": "a.jpg"}', DamagedFileError, "list 'im_paths'"),
    ('{"im_paths": ["a.jpg", 3]}', DamagedFileError, "row 1 of im_paths .*found 3"),
    ('{"im_paths": ["a.jpg", ""]}', DamagedFileError, "row 1 of im_paths"),
    ('{"im_paths": ["a\\nb.jpg"]}', DamagedFileError, "row 0 of im_paths"),
    ('{"im_paths": ["a\\u0000b.jpg"]}', DamagedFileError, "row 0 of im_paths"),
    ('{"im_paths": ["\\ud800.jpg"]}', DamagedFileError, "row 0 of im_paths"),
    ('{"im_paths": ["a.jpg"]}', DamagedFileError, "must hold 'poses'"),
    ('{"im_paths": ["a.jpg"], "poses": []}', DamagedFileError, "a row for each of the 1 im_paths; found 0 rows"),
    ('{"im_paths": ["a.jpg"], "poses": {}}', DamagedFileError, "found a dict"),
    ({"poses": [ROW, ROW]}, DamagedFileError, "found 2 rows"),
    ({"poses": [ROW[:6]]}, DamagedFileError, r"row 0 of poses \(from 0; a.jpg\): a row must be 7 numbers, tx ty tz qw"),
    ({"poses": [[*ROW, 1]]}, DamagedFileError, "7 numbers"),
    ({"poses": [7]}, DamagedFileError, "found 7"),
    ({"poses": [["1", *ROW[1:]]]}, DamagedFileError, "7 numbers"),
    ({"poses": [[True, *ROW[1:]]]}, DamagedFileError, "7 numbers"),
    ({"poses": [[None, *ROW[1:]]]}, DamagedFileError, "7 numbers"),
    ({"poses": [[[1], *ROW[1:]]]}, DamagedFileError, "7 numbers"),
    ({"poses": [[10**400, *ROW[1:]]]}, DamagedFileError, "7 numbers"),
    ({"poses": [[math.nan, *ROW[1:]]]}, InvalidInputError, "row 0 of poses .*finite"),
    ({"poses": [[1, 2, 3, 0, 0, 0, 0]]}, InvalidInputError, "length 1"),
    ({"poses": [[1, 2, 3, 1.002, 0, 0, 0]]}, InvalidInputError, r"row 0 of poses \(from 0; a.jpg\).*length 1, within 0.001"),
    ({"poses": [[1, 0, 0, 0, 5, 6, 7]]}, InvalidInputError, "Is it an index of 7scenes"),
    ({"poses": [ROW], "loc": [[1, 2]]}, DamagedFileError, "row 0 of loc .*3 numbers, easting northing angle"),
    ({"poses": [ROW], "loc": [[None, 2, 3]]}, DamagedFileError, "row 0 of loc"),
    ('{"im_paths": ["a.jpg"], "poses": [[' + "1" * 5000 + ", 2, 3, 1, 0, 0, 0]]}", DamagedFileError, "JSON object"),
    ("[" * 100_000, DamagedFileError, "JSON"),
    (b"\xff\xfe", DamagedFileError, "UTF-8"),
])  # fmt: skip
def test_each_fault_is_one_error_that_names_file_and_row(tmp_path, text, error, said):
    good = index(tmp_path / "room" / "train.json", ["a.jpg"], poses=[ROW])
    path = index(tmp_path / "room" / "test.json", ["a.jpg"], poses=[ROW])
    assert read(tmp_path)
    if isinstance(text, dict):
        index(path, ["a.jpg"], **text)
    elif isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text)
    with pytest.raises(error, match=said) as refused:
        read(tmp_path)
    assert str(path) in str(refused.value)
    assert str(good) not in str(refused.value)


@given(
    damage=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda part: st.lists(part, max_size=3), max_leaves=6
    ),
    place=st.integers(0, 10**4),
    key=st.sampled_from(["im_paths", "loc", "poses", "im_prefix"]),
)
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage, place, key):
    folder = tmp_path_factory.mktemp("g")
    path = index(folder / "a.json", ["a.jpg", "b.jpg"], loc=[[1, 2, 3], [4, 5, 6]], poses=[ROW, ROW])
    if isinstance(damage, bytes):
        data = path.read_bytes()
        place %= len(data)
        path.write_bytes(data[:place] + damage + data[place + len(damage) :])
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: damage}))
    for root_dir in (None, "im_prefix"):
        with contextlib.suppress(CovisError):
            read_gcl(path, dataset="7scenes", missing="ignore", root_dir=root_dir)
        with contextlib.suppress(CovisError):
            read_gcl(path, dataset="7scenes", root_dir=root_dir)


def test_a_cut_index_is_refused(tmp_path, refuses_every_cut):
    path = index(tmp_path / "W17.json", ["a.jpg", "b.jpg"], poses=[ROW, ROW])
    refuses_every_cut(path, lambda: read(path, dataset="7scenes"))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere must be a folder"):
        read(tmp_path / "nowhere")
    msls(tmp_path, "cph")
    with pytest.raises(MissingFileError, match=r"city of the train split, as trondheim; found those of cph\."):
        read(tmp_path, split="train")
    with pytest.raises(MissingFileError, match=r"zurich/database\.json must be there"):
        read(tmp_path, cities="zurich")
    for cities in (3, ["cph", 3]):
        with pytest.raises(InvalidInputError, match="cities must be a list of names"):
            read(tmp_path, cities=cities)
    (tmp_path / "train_val" / "cph" / "query.json").unlink()
    with pytest.raises(MissingFileError, match=r"cph/query\.json must be there"):
        read(tmp_path, split="val", cities="cph")
    assert (tmp_path / "train_val" / "cph").is_dir()


NUMBERS = st.floats(-1e4, 1e4)


@given(
    seed=st.integers(0, 10**6), place=st.lists(NUMBERS, min_size=3, max_size=3), order=st.sampled_from(sorted(ORDERS.values())),
)  # fmt: skip
def test_rows_and_poses_are_inverses_and_agree_with_scipy(seed, place, order):
    rotation = Rotation.random(random_state=seed)
    parts = dict(zip(("qx", "qy", "qz", "qw"), rotation.as_quat(), strict=True)) | dict(zip(("tx", "ty", "tz"), place, strict=True))
    row = [parts[name] for name in order.split()]
    (pose,) = poses_of([row], order=order)
    np.testing.assert_allclose(pose[:3, :3], rotation.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(pose[:3, 3], place)
    np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])
    (again,) = rows_of(pose[None], order=order)
    sign = 1 if parts["qw"] >= 0 else -1
    expected = [parts[name] * (sign if name[0] == "q" else 1) for name in order.split()]
    np.testing.assert_allclose(again, expected, atol=1e-9)
    (third,) = poses_of([again], order=order)
    np.testing.assert_allclose(third, pose, atol=1e-9)
    for convention in CONVENTIONS[1:]:
        (other,) = poses_of([row], order=order, convention=convention)
        check_rigid(other[None])
        np.testing.assert_allclose(other[:3, :3], rotation.as_matrix().T, atol=1e-12)
        centre = -rotation.as_matrix().T @ place if convention == "world-to-camera" else np.array(place)
        np.testing.assert_allclose(other[:3, 3], centre, atol=1e-9)


def test_the_handedness_of_quaternions_is_pinned():
    """Not by scipy: a quarter turn about x takes y to z."""
    for order in sorted(set(ORDERS.values())):
        row = [{"qw": HALF, "qx": HALF}.get(name, 0.0) for name in order.split()]
        np.testing.assert_allclose(poses_of([row], order=order)[0, :3, :3] @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    assert poses_of(np.zeros((0, 7)), order=ORDERS["cmu"]).shape == (0, 4, 4)
    assert rows_of(np.zeros((0, 4, 4)), order=ORDERS["cmu"]).shape == (0, 7)


def placed(root, names, **columns):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return Images(root, names, **columns)


def alike(a, b):
    """Equal up to the root and a rotation's last digits."""
    assert (a.name, a.split) == (b.name, b.split)
    for x, y in ((a.database, b.database), (a.queries, b.queries)):
        assert x.names == y.names
        for column in ("xy", "heading", "pose"):
            mine, theirs = getattr(x, column), getattr(y, column)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12 if column == "pose" else 0)
    return True


def in_msls(root, name, count=3, **columns):
    random = np.random.default_rng(count)
    sides = []
    for side in ("database", "query"):
        names = [f"train_val/{name}/{side}/images/{side}{row}.jpg" for row in range(count)]
        heading = np.where(np.arange(count) == 1, np.nan, random.random(count) * 360)
        sides.append(placed(root, names, xy=random.random((count, 2)) * 1e6, heading=heading, **columns))
    return Scene(name, "val", *sides)


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_cities_come_back(tmp_path, files):
    scenes = [in_msls(tmp_path / "data", name, count) for name, count in (("cph", 3), ("sf", 2))]
    out = tmp_path / "data" if files == "none" else tmp_path / "out"
    written = write_gcl(scenes, out, files=files)
    assert written == [out / "train_val" / "cph", out / "train_val" / "sf"]
    for found, scene in zip(read_gcl(out, split="val"), scenes, strict=True):
        assert alike(found, scene)
        assert found.queries.path(0).read_bytes() == scene.queries.path(0).read_bytes()
    for path, scene in zip(written, scenes, strict=True):
        assert alike(read_gcl(path, split="val")[0], scene)
        assert alike(read_gcl(path, split="val", root_dir="im_prefix")[0], scene)
    text = json.loads((written[1] / "query.json").read_text())
    assert list(text) == ["im_prefix", "im_paths", "loc"]
    assert text["im_prefix"] == f"{out}/"
    assert text["im_paths"] == list(scenes[1].queries.names)
    assert text["loc"][0] == [*scenes[1].queries.xy[0].tolist(), scenes[1].queries.heading[0]]
    assert text["loc"][1][2] is None


@pytest.mark.parametrize("files", ["copy", "link"])
def test_rooms_come_back(room, tmp_path, files):
    folder = room()
    scenes = [*read_7scenes(folder), *(Scene("other", "test", s.database, s.queries) for s in read_7scenes(folder))]
    written = write_gcl(scenes, tmp_path / "out", dataset="7scenes", files=files)
    assert written == [tmp_path / "out" / "room", tmp_path / "out" / "other"]
    found = {scene.name: scene for scene in read_gcl(tmp_path / "out")}
    assert found["room"].queries.names == tuple(f"room/{name}" for name in scenes[0].queries.names)
    np.testing.assert_allclose(found["room"].queries.pose, scenes[0].queries.pose, atol=1e-12)
    assert found["other"].queries.path(1).read_bytes() == scenes[0].queries.path(1).read_bytes()
    text = json.loads((written[0] / "train.json").read_text())
    assert list(text) == ["im_prefix", "im_paths", "poses"]
    assert [len(row) for row in text["poses"]] == [7] * 3
    assert text["poses"][1] == [*scenes[0].database.pose[1, :3, 3].tolist(), 1, 0, 0, 0]
    again = write_gcl([found["room"]], tmp_path / "again", dataset="7scenes", files=files)
    assert alike(read_gcl(again[0])[0], found["room"])
    (train,) = read_gcl(again[0], split="train")
    (alone,) = write_gcl([train], tmp_path / "train", dataset="7scenes")
    assert [path.name for path in alone.glob("*.json")] == ["train.json"]
    assert alike(read_gcl(alone, split="train")[0], train)


def test_gardens_come_back(tmp_path):
    random = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = Rotation.random(4, random_state=1).as_matrix(), random.normal(size=(4, 3))
    both = placed(tmp_path / "a", [f"W17/{row}.jpg" for row in range(4)], pose=poses)
    one = Scene("W17", "test", both, both)
    sides = [placed(tmp_path / "b", [f"{side}/{row}.jpg" for row in range(2)], pose=poses[:2]) for side in ("database", "query")]
    two = Scene("W18_W17", "test", *sides)
    written = write_gcl([one, two], tmp_path / "out", dataset="tb-places")
    assert written == [tmp_path / "out" / "W17.json", tmp_path / "out" / "W18_W17"]
    for path, scene in zip(written, (one, two), strict=True):
        assert alike(read_gcl(path, dataset="tb-places", sizes="ignore")[0], scene)
    found = read_gcl(tmp_path / "out", dataset="tb-places", sizes="ignore")
    assert [scene.name for scene in found] == ["W17", "W18_W17"]
    row = json.loads(written[0].read_text())["poses"][2]
    np.testing.assert_allclose(Rotation.from_quat(row[3:]).as_matrix(), poses[2, :3, :3], atol=1e-12)  # x y z w, as scipy has it


def test_a_pose_that_is_nearly_rigid_becomes_the_nearest_rotation(tmp_path):
    pose = np.eye(4)
    pose[0, 1] = RIGID_TOLERANCE / 2
    both = placed(tmp_path, ["s/a.png"], pose=pose[None])
    (written,) = write_gcl([Scene("s", "train", both, both)], tmp_path / "out", dataset="7scenes")
    (found,) = read_gcl(written, split="train")
    assert np.abs(found.database.pose[0] - pose).max() < RIGID_TOLERANCE
    np.testing.assert_allclose(found.database.pose[0, :3, :3].T @ found.database.pose[0, :3, :3], np.eye(3), atol=1e-12)


def test_a_scene_of_one_city_name_reads_with_its_frame(tmp_path):
    scene = in_msls(tmp_path / "data", "cph", crs="EPSG:32633")
    (written,) = write_gcl([scene], tmp_path / "out")
    (found,) = read_gcl(written, split="val", crs="EPSG:32633")
    assert found.queries == Images(
        tmp_path / "out", scene.queries.names, xy=scene.queries.xy, heading=scene.queries.heading, crs="EPSG:32633"
    )


def test_names_of_ones_own_get_a_place(tmp_path):
    sides = [placed(tmp_path / side, ["x/1.jpg", "2.jpg"], xy=[[0, 0], [1, 1]]) for side in ("d", "q")]
    (written,) = write_gcl([Scene("miami", "test", *sides)], tmp_path / "out")
    assert written == tmp_path / "out" / "test" / "miami"
    (found,) = read_gcl(written)
    assert found.queries.names == ("test/miami/query/images/x/1.jpg", "test/miami/query/images/2.jpg")
    assert found.queries.path(0).read_bytes() == b"x/1.jpg"
    (written,) = write_gcl([Scene("miami", "test", *sides)], tmp_path / "alone", files="none")
    assert sorted(path.name for path in (tmp_path / "alone").rglob("*.*")) == ["database.json", "query.json"]
    (found,) = read_gcl(written, root_dir="im_prefix")
    assert found.queries.names == ("x/1.jpg", "2.jpg")
    assert found.queries.path(0) == tmp_path / "q" / "x" / "1.jpg"


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    both = placed(tmp_path / "a", ["1.jpg"], xy=[[0, 0]], pose=np.eye(4)[None])
    other = placed(tmp_path / "b", ["1.jpg"], xy=[[0, 0]], pose=np.eye(4)[None])
    up = placed(tmp_path / "c", ["../up.jpg"], xy=[[0, 0]], pose=np.eye(4)[None])
    bare = placed(tmp_path / "d", ["1.jpg"])
    gone = Images(tmp_path / "e", ["1.jpg"], xy=[[0, 0]])
    for scene, options, error, said in (
        (Scene("s", "test", both, both), {}, InvalidInputError, "must have two sides"),
        (Scene("s", "test", both, other), {"dataset": "7scenes"}, InvalidInputError, "would both be written as"),
        (Scene("s", "test", both, up), {}, InvalidInputError, r"plain relative path to be written; got .*\.\./up\.jpg"),
        (Scene("s", "train", bare, bare), {"dataset": "7scenes"}, InvalidInputError, "must have pose"),
        (Scene("s", "test", both, gone), {}, MissingFileError, r"e/1\.jpg must be there"),
        (Scene("s", "test", both, other), {"dataset": "pairs"}, InvalidInputError, "'pairs'"),
        (Scene("s", "test", both, other), {"files": "move"}, InvalidInputError, "'move'"),
    ):
        with pytest.raises(error, match=said):
            write_gcl([scene], tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
    scene = Scene("s", "test", both, other)
    with pytest.raises(InvalidInputError, match="different names"):
        write_gcl([scene, scene], tmp_path / "out")


def test_nothing_is_overwritten_unasked_and_the_users_images_never(tmp_path):
    scene = in_msls(tmp_path / "data", "cph")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "data").rglob("*.jpg")}
    write_gcl([scene], tmp_path / "data", files="copy")  # onto themselves: they are there
    with pytest.raises(OutputExistsError, match=r"database\.json is already there"):
        write_gcl([scene], tmp_path / "data", files="none")
    write_gcl([scene], tmp_path / "data", files="link", overwrite=True)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "data").rglob("*.jpg")}
    assert not any(path.is_symlink() for path in before)
    target = tmp_path / "out" / scene.database.names[0]
    target.parent.mkdir(parents=True)
    target.write_bytes(b"another")
    with pytest.raises(OutputExistsError, match=r"database0\.jpg is already there"):
        write_gcl([scene], tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [target]
    write_gcl([scene], tmp_path / "out", overwrite=True)
    assert target.read_bytes() == scene.database.path(0).read_bytes()


def test_the_real_kitchen_goes_through_an_index(covis_data, tmp_path):
    (scene,) = read_7scenes(covis_data / "7scenes" / "redkitchen")
    (written,) = write_gcl([scene], tmp_path, dataset="7scenes", files="none")
    (found,) = read_gcl(written, root_dir="im_prefix")
    assert found.queries.names == scene.queries.names
    assert found.queries.path(3).samefile(scene.queries.path(3))
    difference = np.abs(found.queries.pose - scene.queries.pose)
    assert difference[:, :3, 3].max() == 0
    assert difference.max() < 4e-4  # its pose files are rigid within 3.8e-4
