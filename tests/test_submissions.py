"""Submissions: what is written, read back equal; and every damage that the check knows."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from covis.datasets.pose_orders import FORMS, poses_of, rows_of
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.images import Images, Scene
from covis.localisation import Poses, localise, pose_errors
from covis.predictions import Predictions, Side
from covis.rankings import Rankings
from covis.submissions import (
    check_submission,
    match_submission,
    read_submission,
    submission_names,
    write_msls_submission,
    write_submission,
)

ORDER = "qw qx qy qz tx ty tz"
CMU = tuple(f"slice2/query/img_0011{i}_c1_130339847477943{i}us.jpg" for i in range(6))
ROBOTCAR = tuple(f"images/night/rear/141813373274492{i}.jpg" for i in range(6))


def street(names, *, seed=0):
    """Cameras 5 m apart along a line far from the world's origin, and queries beside them."""
    random = np.random.default_rng(seed)
    there = np.tile(np.eye(4), (20, 1, 1))
    there[:, :3, :3] = Rotation.random(20, random_state=random).as_matrix()
    there[:, :3, 3] = [400, 900, 10] + np.arange(20)[:, None] * [5, 0, 0]
    here = there[: len(names)].copy()
    here[:, 1, 3] += 1
    database = Images("r", [f"database/d{i}.jpg" for i in range(20)], pose=there)
    return Scene("street", "test", database, Images("r", names, pose=here))


@pytest.fixture(params=["cmu", "robotcar"])
def style(request):
    return request.param


@pytest.fixture
def scene(style):
    return street(CMU if style == "cmu" else ROBOTCAR)


def truth(scene):
    return Poses(scene.queries.names, scene.queries.pose)


def kinds(report):
    return [(problem.kind, problem.line) for problem in report.problems]


# Pose files.


def test_poses_come_back(scene, style, tmp_path):
    path = write_submission(truth(scene), tmp_path / "found.txt", style=style)
    found = read_submission(path)
    assert found.names == submission_names(scene.queries.names, style=style)
    np.testing.assert_allclose(found.pose, scene.queries.pose, atol=1e-9)
    (matched,) = match_submission(found, [scene])
    assert matched.names == scene.queries.names
    np.testing.assert_array_equal(matched.pose, found.pose)
    report = check_submission(path, scenes=[scene])
    assert (report.kind, report.entries, report.problems, report.remarks) == (style, 6, (), ())
    again = write_submission(truth(scene), tmp_path / "again.txt", style=style)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_submission(truth(scene), path, style=style)


def test_a_line_by_hand(tmp_path):
    """A camera at (10, 20, 30) that looks east: its x is south, its y down; t = -R C."""
    looking = np.array([[0.0, 0, 1, 10], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1]])
    path = write_submission(Poses(("images/dusk/rear/7.jpg",), looking[None]), tmp_path / "f.txt", style="robotcar")
    name, *numbers = path.read_text().split()
    assert name == "rear/7.jpg"
    np.testing.assert_allclose([float(word) for word in numbers], [0.5, 0.5, -0.5, 0.5, 20, 30, -10], atol=1e-12)
    point = np.array([11.0, 20, 30])  # a metre before the camera
    np.testing.assert_allclose(Rotation.from_quat([0.5, -0.5, 0.5, 0.5]).apply(point), [-20, -30, 11], atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(looking)[:3] @ [*point, 1], [0, 0, 1], atol=1e-12)


def test_the_format_is_that_of_pose_orders(scene, style, tmp_path):
    path = write_submission(truth(scene), tmp_path / "found.txt", style=style)
    rows = np.array([[float(word) for word in line.split()[1:]] for line in path.read_text().splitlines()])
    np.testing.assert_allclose(poses_of(rows, order=ORDER, convention="world-to-camera"), scene.queries.pose, atol=1e-9)
    assert (rows[:, 0] >= 0).all()


def test_queries_without_a_pose_have_no_line(tmp_path):
    scene = street(CMU)
    pose = scene.queries.pose.copy()
    pose[[1, 4]] = np.nan
    path = write_submission(Poses(scene.queries.names, pose), tmp_path / "found.txt", style="cmu")
    (matched,) = match_submission(read_submission(path), [scene])
    assert matched.missing == (CMU[1], CMU[4])
    report = check_submission(path, scenes=[scene])
    assert kinds(report) == [("missing", None)] * 2
    with pytest.raises(InvalidInputError, match="none of the 6 queries has one"):
        write_submission(Poses(scene.queries.names, np.full(pose.shape, np.nan)), tmp_path / "none.txt", style="cmu")
    assert not (tmp_path / "none.txt").exists()


def test_several_scenes_share_a_file_if_their_names_differ(town, tmp_path):
    """The town's two scenes use the same file names: the server could not tell them apart."""
    with pytest.raises(InvalidInputError, match=r"'queries/ride01-00000\.jpg' and 'queries/ride01-00000\.jpg' would both be"):
        write_submission([truth(scene) for scene in town], tmp_path / "found.txt", style="cmu")
    renamed = []
    for scene in town:
        names = tuple(f"query/{scene.name}-{name[8:]}" for name in scene.queries.names)
        renamed.append(dataclasses.replace(scene, queries=dataclasses.replace(scene.queries, names=names)))
    path = write_submission([truth(scene) for scene in renamed], tmp_path / "found.txt", style="cmu")
    for scene, matched in zip(renamed, match_submission(read_submission(path), renamed), strict=True):
        assert matched.names == scene.queries.names
        np.testing.assert_allclose(matched.pose, scene.queries.pose, atol=1e-6)
    assert not check_submission(path, scenes=renamed).problems
    assert not check_submission(path, scenes=renamed).remarks
    report = check_submission(path, scenes=town)
    assert {kind for kind, _ in kinds(report)} == {"unknown", "missing"}
    assert report.remarks[0].startswith("16 queries of the data share their name with another")


def test_a_photograph_in_two_slices_has_one_line(tmp_path):
    """The first pose that it has; read back, the line is of both."""
    one = street(CMU)
    other = dataclasses.replace(
        one, queries=dataclasses.replace(one.queries, names=tuple(name.replace("slice2", "slice3") for name in CMU))
    )
    first = one.queries.pose.copy()
    first[0] = np.nan
    both = [Poses(one.queries.names, first), truth(other)]
    with pytest.raises(InvalidInputError, match=r"would both be.*choose repeated \"same\""):
        write_submission(both, tmp_path / "f.txt", style="cmu")
    with pytest.warns(CovisWarning, match="6 queries are taken for photographs that stand under another query too"):
        path = write_submission(both, tmp_path / "f.txt", style="cmu", repeated="same")
    found = read_submission(path)
    assert sorted(found.names) == sorted(submission_names(CMU, style="cmu"))
    for matched in match_submission(found, [one, other], repeated="same"):
        np.testing.assert_allclose(matched.pose, one.queries.pose, atol=1e-9)
    with pytest.raises(InvalidInputError, match=r"A line must be of one query.*choose repeated \"same\""):
        match_submission(found, [one, other])
    report = check_submission(path, scenes=[one, other])
    assert not report.problems
    assert len(report.remarks) == 1


def test_slices_of_cmu_share_the_photographs_at_their_borders(covis_data, tmp_path):
    """19 in slices 6, 7, 8 and 22, in one frame; and files that hold centres, as the data set's own do, are found out."""
    form, scenes, said = FORMS["cmu"], [], []
    for number in (6, 7, 8, 22):
        sides = []
        for pattern in ("c0_db.txt", "c0_[0-9]*.txt"):
            files = sorted((covis_data / "metadata" / "cmu_poses" / str(number)).glob(pattern))
            rows = [line.split() for file in files for line in file.read_text().splitlines() if line.strip()]
            numbers = np.array([row[1:] for row in rows], dtype=float)
            names = [row[0] for row in rows]
            sides.append(Images("r", names, pose=poses_of(numbers, order=form.order, convention=form.convention)))
        said += [" ".join([row[0].rpartition("/")[2], *row[1:]]) for row in rows]
        scenes.append(Scene(f"slice{number}", "val", *sides))
    with pytest.raises(InvalidInputError, match=r"'slice6/query/img_04339_c0_1283348135154347us\.jpg' and 'slice7/query/img_04339"):
        write_submission([truth(scene) for scene in scenes], tmp_path / "f.txt", style="cmu")
    with pytest.warns(CovisWarning, match="19 queries are taken"):
        path = write_submission([truth(scene) for scene in scenes], tmp_path / "f.txt", style="cmu", repeated="same")
    report = check_submission(path, scenes=scenes)
    assert (report.entries, report.problems, len(report.remarks)) == (7560, (), 1)
    for matched, scene in zip(match_submission(read_submission(path), scenes, repeated="same"), scenes, strict=True):
        metres, degrees = pose_errors(matched, scene.queries)
        assert max(metres.max(), degrees.max()) < 1e-6
    path.write_text("".join(f"{line}\n" for line in dict.fromkeys(said)))
    report = check_submission(path, scenes=scenes)
    assert not report.problems
    assert "the last three numbers are camera centres C" in report.remarks[-1]


@pytest.mark.parametrize(("names", "style", "said"), [
    (["images/night/left/1.jpg"], "robotcar", r"must be of the rear camera.*left/1\.jpg"), (["1.jpg"], "robotcar", "rear camera"),
    (["night/rear/1.jpeg"], "robotcar", r"rear/<digits>\.jpg or \.png"), (["night/rear/a.jpg"], "robotcar", "called by its timestamp"),
    (["a b.jpg"], "cmu", "no white space"), (["x y/a.jpg"], "cmu", "no white space"), (["#.jpg"], "cmu", "no #"),
])  # fmt: skip
def test_names_that_cannot_be_submitted(names, style, said, tmp_path):
    with pytest.raises(InvalidInputError, match=said):
        write_submission(Poses(tuple(names), np.eye(4)[None]), tmp_path / "f.txt", style=style)


def test_other_refusals(tmp_path):
    with pytest.raises(InvalidInputError, match=r"called \.txt; got 'f\.csv'"):
        write_submission(truth(street(CMU)), tmp_path / "f.csv", style="cmu")
    with pytest.raises(UnknownNameError, match=r"'robot'. Did you mean 'robotcar'"):
        write_submission(truth(street(CMU)), tmp_path / "f.txt", style="robot")
    with pytest.raises(UnknownNameError, match="Known: cmu, msls, robotcar"):
        check_submission(tmp_path, kind="tokyo")
    with pytest.raises(MissingFileError, match="no such file"):
        check_submission(tmp_path / "none.txt")
    with pytest.raises(DamagedFileError, match="file that can be read"):
        check_submission(tmp_path)


GOOD = "a.jpg 1 0 0 0 4 5 6\nb.jpg 0 1 0 0 4 5 6\n"


@pytest.mark.parametrize(("text", "said"), [
    ("a.jpg 1 0 0 0 4 5\n", r"line 1: a line must have eight columns.*this one has 7"), (GOOD + "c.jpg\n", "line 3.*this one has 1"),
    ("a.jpg 1 0 0 0 4 x 6\n", "line 1: ty must be a finite number; found 'x'"), ("a.jpg 1 0 0 0 nan 5 6\n", "tx must be.*'nan'"),
    ("a.jpg 1 0 0 0 4 5 1_0\n", "tz must be.*'1_0'"), ("a.jpg 2 0 0 0 4 5 6\n", "must have length 1, within 0.001; it has 2"),
    ("a.jpg １ 0 0 0 4 5 6\n", "qw must be a finite number; found '１'"), ("a.jpg 0 0 0 0 4 5 6\n", "it has 0"),
    (GOOD + "a.jpg 1 0 0 0 4 5 6\n", "line 3.*'a.jpg' has another at line 1"), ("", "holds none"),
    ("# only\n\n", "holds none"),
])  # fmt: skip
def test_a_damaged_pose_file_is_not_read(text, said, tmp_path):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(DamagedFileError, match=said):
        read_submission(tmp_path / "f.txt")


def test_readers_are_lenient_with_line_ends(tmp_path):
    (tmp_path / "f.txt").write_bytes(b"\xef\xbb\xbf# made elsewhere\r\na.jpg 1 0 0 0  4 5 6\r\n\r\n")
    assert read_submission(tmp_path / "f.txt").names == ("a.jpg",)
    (tmp_path / "f.txt").write_bytes(b"a.jpg 1 0 0 0 4 5 \xff\n")
    with pytest.raises(DamagedFileError, match="UTF-8"):
        read_submission(tmp_path / "f.txt")


def test_a_match_by_name_whatever_the_suffix(tmp_path):
    scene = street(ROBOTCAR)
    path = write_submission(truth(scene), tmp_path / "found.txt", style="robotcar")
    path.write_text(path.read_text().replace(".jpg", ".png"))
    assert not match_submission(read_submission(path), [scene])[0].missing
    assert not check_submission(path, scenes=[scene]).problems
    with pytest.raises(InvalidInputError, match=r"6 of 6 are not, the first is 'rear/1418133732744920\.png'\. .* the right split\?"):
        match_submission(read_submission(path), [street([name.replace("1418", "77") for name in ROBOTCAR])])


@pytest.mark.parametrize(("data", "expected", "said"), [
    (b"\xef\xbb\xbf" + GOOD.encode(), [("bytes", 1)], "byte order mark"),
    (GOOD.replace("\n", "\r\n").encode(), [("bytes", 1)], "2 have a carriage return"),
    (GOOD.encode()[:-1], [("bytes", 2)], "is the file cut off"),
    (GOOD.encode() + b"c\xff.jpg 1 0 0 0 4 5 6\n", [("bytes", 3)], "byte 2 of it is not"),
    (b"a.jpg\t1 0 0 0 4 5 6\nb.jpg 1 0 0  0 4 5 6\n c.jpg 1 0 0 0 4 5 6\n", [("bytes", 1), ("bytes", 2), ("bytes", 3)], "single blanks"),
    (GOOD.encode() + b"\n", [("bytes", 3)], "empty line"),
    (b"# by hand\n" + GOOD.encode(), [("bytes", 1)], "comments"),
    (b"a.jpg 1 0 0 0 4 5 6\0\n", [("bytes", 1), ("number", 1)], "zero byte"),
    (GOOD.encode() + b"c.jpg 1 0 0 0 4 5\nd.jpg 1 0 0 0 4 5 6 7\n", [("columns", 3), ("columns", 4)], "this one has 9"),
    (GOOD.encode() + b"c.jpg 1 0 0 0 inf 5 6\n", [("number", 3)], "tx must be a finite number; found 'inf'"),
    (GOOD.encode() + b"c.jpg 1 0.1 0 0 4 5 6\n", [("quaternion", 3)], "it has 1.00499"),
    (GOOD.encode() + b"a.png 1 0 0 0 4 5 6\n", [("twice", 3)], "has another at line 1"),
    (GOOD.encode() + b"c 1 0 0 0 4 5 6\n", [("name", 3)], "must end in .jpg or .png"),
    (GOOD.encode() + b"rear/1.jpg 1 0 0 0 4 5 6\n", [("name", 1), ("name", 2)], "must be rear/<timestamp>.jpg"),
    (b"left/a.jpg 1 0 0 0 4 5 6\n", [("name", 1)], "found 'left/a.jpg'"),
    (b"rear/1418133732744920.jpeg 1 0 0 0 4 5 6\n", [("name", 1)], "or .png, the timestamp in digits"),
    (b"rear/.jpg 1 0 0 0 4 5 6\n", [("name", 1)], "or .png, the timestamp in digits"),
    (b"rear/c.png 1 0 0 0 4 5 6\n", [("name", 1)], "or .png, the timestamp in digits"),
    ("rear/１.png 1 0 0 0 4 5 6\n".encode(), [("name", 1)], "or .png, the timestamp in digits"),
    (b"1418133732744920.jpg 1 0 0 0 4 5 6\n", [("name", 1)], "the rear camera"),
    (b".jpg 1 0 0 0 4 5 6\n", [("name", 1)], "with something before it"),
    (b"a.jpeg 1 0 0 0 4 5 6\n", [("name", 1)], "must end in .jpg or .png"),
    ("a.jpg 1 0 0 0 4 ５ 6\n".encode(), [("number", 1)], "ty must be a finite number; found '５'"),
    (b"", [("file", None)], "holds none"),
])  # fmt: skip
def test_every_damage_is_listed(data, expected, said, tmp_path):
    (tmp_path / "f.txt").write_bytes(data)
    report = check_submission(tmp_path / "f.txt")
    assert kinds(report) == expected
    assert said in str(report)
    assert [problem["kind"] for problem in report.as_dict()["problems"]] == [kind for kind, _ in expected]


def test_all_problems_at_once(tmp_path):
    lines = [f"{i}.jpg 1 0 0 0 4 5" for i in range(9)] + ["x/z.jpg 3 0 0 0 4 5 u"]
    (tmp_path / "f.dat").write_text("\n".join(lines))
    report = check_submission(tmp_path / "f.dat", kind="cmu")
    assert len(report.problems) == 1 + 9 + 1 + 3
    text = str(report)
    assert "… and 4 more (--json lists all)" in text
    assert "a pose file must be called .txt; the file is called 'f.dat'." in text
    assert text.endswith("14 problems")


def test_a_style_that_is_said_is_held_to(tmp_path):
    (tmp_path / "f.txt").write_text(GOOD)
    assert not check_submission(tmp_path / "f.txt", kind="cmu").problems
    assert kinds(check_submission(tmp_path / "f.txt", kind="robotcar")) == [("name", 1), ("name", 2)]


def test_the_style_is_that_of_the_data(tmp_path):
    """Names without rear/ look like those of CMU, and the server of RobotCar knows none of them."""
    scene, guess = street(ROBOTCAR), "read as {}, by the names in it"
    path = write_submission(truth(scene), tmp_path / "f.txt", style="robotcar")
    assert check_submission(path).remarks[0].startswith(guess.format("robotcar"))
    path.write_text(path.read_text().replace("rear/", ""))
    against = check_submission(path, scenes=[scene])
    assert against.kind == "robotcar"
    assert [problem.line for problem in against.problems if problem.kind == "name"] == [1, 2, 3, 4, 5, 6]
    assert not any("read as" in remark for remark in against.remarks)
    alone = check_submission(path)
    assert (alone.kind, kinds(alone)) == ("robotcar", [("name", line) for line in range(1, 7)])
    assert alone.remarks[0].startswith(guess.format("robotcar"))
    said = check_submission(path, kind="cmu")
    assert (said.problems, said.remarks) == ((), ())
    digits = street([f"slice2/query/{i}.jpg" for i in range(6)])
    report = check_submission(write_submission(truth(digits), tmp_path / "d.txt", style="cmu"), scenes=[digits])
    assert (report.kind, report.problems, report.remarks) == ("cmu", (), ())
    path.write_text(GOOD)
    assert check_submission(path).remarks[0].startswith(guess.format("cmu"))
    both = street([*ROBOTCAR[:3], *(name.replace("rear", "left") for name in ROBOTCAR[3:])])
    assert check_submission(path, scenes=[both]).remarks[0].startswith(guess.format("cmu"))


def test_another_split_is_asked_for(tmp_path):
    scene, other = street(CMU), street([name.replace("img_", "img_9") for name in CMU])
    path = write_submission(truth(scene), tmp_path / "f.txt", style="cmu")
    assert "the right split (--split)?" in check_submission(path, scenes=[other]).remarks[0]
    assert not check_submission(path, scenes=[scene]).remarks
    one, two = cities()
    path = write_msls_submission(one, tmp_path / "f.zip")
    assert "the right split (--split)?" in check_submission(path, scenes=as_scenes([two])).remarks[-1]
    assert not check_submission(path, scenes=as_scenes([one])).remarks


def rewritten(path, rows):
    names = [line.split()[0] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{name} {' '.join(map(repr, row))}\n" for name, row in zip(names, rows.tolist(), strict=True)))


def test_suspicious_poses_are_remarked(scene, style, tmp_path):
    """The check reads a file as it is meant, and looks whether another reading would put the cameras where the database's are."""
    path = write_submission(truth(scene), tmp_path / "found.txt", style=style)
    stated = rows_of(scene.queries.pose, order=ORDER, convention="world-to-camera")
    turned = stated * [1, -1, -1, -1, 1, 1, 1]
    for rows, said in (
        (rows_of(scene.queries.pose, order=ORDER, convention="centre"), "the last three numbers are camera centres C"),
        (rows_of(scene.queries.pose, order=ORDER), "the last three numbers are camera centres C"),
        (turned, "the quaternions turn from the camera to the world"),
        (stated[:, [1, 2, 3, 0, 4, 5, 6]], "the quaternions are qx qy qz qw"),
    ):
        rewritten(path, rows)
        report = check_submission(path, scenes=[scene])
        assert not report.problems
        assert len(report.remarks) == 1
        assert said in report.remarks[0]
        assert "cameras would be 1 m from" in report.remarks[0]


def test_what_localise_writes_raises_no_suspicion(town, tmp_path):
    scene = town[0]
    found = Rankings(np.arange(16)[:, None], np.zeros((16, 1)), scene.queries.names, scene.database.names)
    path = write_submission(localise(found, scene), tmp_path / "found.txt", style="cmu")
    report = check_submission(path, scenes=[scene])
    assert (report.problems, report.remarks) == ((), ())


@given(st.binary(max_size=200), st.sampled_from(["cmu", "robotcar", "msls", "auto"]))
def test_any_bytes_are_reported_on(tmp_path_factory, data, kind):
    path = tmp_path_factory.mktemp("s") / "f.txt"
    for whole in (data, GOOD.encode() + data):
        path.write_bytes(whole)
        report = check_submission(path, kind=kind)
        assert str(report)
        if not report.problems and report.kind != "msls":
            assert len(read_submission(path)) == report.entries


# Predictions of MSLS.


def cities():
    made = []
    for city in ("cph", "sf"):
        queries = tuple(f"train_val/{city}/query/images/q{city}{i}.jpg" for i in range(3))
        database = tuple(f"train_val/{city}/database/images/d{city}{i}.jpg" for i in range(30))
        rows = np.stack([np.roll(np.arange(30), i) for i in range(3)])
        made.append(Rankings(rows, np.tile(np.arange(30), (3, 1)), queries, database))
    return made


def as_scenes(rankings):
    return [Scene(f"s{i}", "test", Images("r", one.database_names), Images("r", one.query_names)) for i, one in enumerate(rankings)]


def test_a_zip_for_the_challenge(tmp_path):
    found = cities()
    path = write_msls_submission(found, tmp_path / "found.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["found.csv"]
        archive.extractall(tmp_path / "in")
    read = Predictions.read(tmp_path / "in" / "found.csv")
    assert (len(read), read.k) == (6, 25)
    assert read.queries == ("qcph0", "qcph1", "qcph2", "qsf0", "qsf1", "qsf2")
    sides = [Side(one.query_names, one.database_names) for one in found]
    for back, one in zip(read.by_scene(sides), found, strict=True):
        np.testing.assert_array_equal(back.rows, one.rows[:, :25])
    report = check_submission(path, scenes=as_scenes(found))
    assert (report.kind, report.entries, report.problems, report.remarks) == ("msls", 6, (), ())
    same = write_msls_submission(found, tmp_path / "other" / "found.zip")
    assert same.read_bytes() == path.read_bytes()
    plain = write_msls_submission(found, tmp_path / "found.csv", k=5)
    assert check_submission(plain).remarks == (
        "the challenge takes a zip that holds this csv and nothing else",
        "every line names 5; the official script looks at 20",
    )
    with pytest.raises(OutputExistsError):
        write_msls_submission(found, path)


@pytest.mark.parametrize(("change", "said"), [
    ({"rows": [[0, -1]]}, "holds fewer among its first 2"), ({"query_names": ("q q.jpg",)}, "no white space and no #; got 'q q'"),
    ({"database_names": ("x/a.jpg", "y/a.jpg")}, "'a' is that of two"),
])  # fmt: skip
def test_rankings_that_cannot_be_submitted(change, said, tmp_path):
    usual = {"rows": [[0, 1]], "distances": [[0, 1]], "query_names": ("q.jpg",), "database_names": ("a.jpg", "b.jpg")}
    with pytest.raises(InvalidInputError, match=said):
        write_msls_submission(Rankings(**usual | change), tmp_path / "f.zip")
    assert not list(tmp_path.iterdir())


def test_two_cities_must_not_share_a_key(tmp_path):
    one = cities()[0]
    with pytest.raises(InvalidInputError, match=r"Every query must have a key of its own.*'qcph0' is that of two"):
        write_msls_submission([one, one], tmp_path / "f.zip")
    with pytest.raises(InvalidInputError, match=r"called \.zip"):
        write_msls_submission(one, tmp_path / "f.txt")
    with pytest.raises(InvalidInputError, match="k at least 1"):
        write_msls_submission(one, tmp_path / "f.zip", k=0)


@pytest.mark.parametrize("task", ["im2im", "im2seq", "seq2im", "seq2seq"])
def test_the_official_examples_are_valid(covis_data, task, tmp_path):
    """As they are, and in a zip; cut off, with a key that is a path, and with a line that is a key short, they are not."""
    path = covis_data / "metadata" / "msls_predictions" / f"example_msls_{task}_prediction.csv"
    report = check_submission(path)
    assert (report.kind, report.problems) == ("msls", ())
    assert report.entries == len(Predictions.read(path))
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.write(path, "anything.csv")
    assert not check_submission(tmp_path / "f.zip").problems
    whole, copy = path.read_bytes(), tmp_path / "f.csv"
    for damaged, expected in (
        (whole[:-8], {("bytes", report.entries + 4)}),
        (whole + whole.splitlines(keepends=True)[-1], {("twice", report.entries + 5)}),
        (whole.replace(b"\nAoD5-ZB5YrgyClbR5qmG4g", b"\ntest/AoD5.jpg", 1), {("name", 5)} if task.startswith("im2") else set()),
        (whole.rstrip(b"\n").rpartition(b" ")[0] + b"\n", {("columns", report.entries + 4)}),
    ):
        copy.write_bytes(damaged)
        assert set(kinds(check_submission(copy))) == expected


PLAIN = "q1 a b c\nq2 c b a\n"


@pytest.mark.parametrize(("data", "expected", "said"), [
    (b"\xef\xbb\xbf# x\n" + PLAIN.encode(), [("bytes", 1)], "byte order mark"),
    (PLAIN.replace("\n", "\r\n").encode(), [("bytes", 1)], "carriage return"),
    (PLAIN.encode() + b"q3 a b\n", [("columns", 3)], "this one names 2, most name 3"),
    (PLAIN.encode() + b"q3\n", [("columns", 3)], "names none"),
    (PLAIN.encode() + b"q1 a b c\n", [("twice", 3)], "'q1' has another at line 1"),
    (PLAIN.encode() + b"q3 a b a\n", [("twice", 3)], "'a' stands again"),
    (PLAIN.encode() + b"q3.jpg a b c\n", [("name", 3)], "found 'q3.jpg'"),
    (PLAIN.encode() + b"q3 a b x/c\n", [("name", 3)], "found 'x/c'"),
    (PLAIN.encode() + b"q3,q4 a b c\n", [("columns", 3)], "every query must have 1 key, "),
    (PLAIN.encode() + b"q3 a b c,d\n", [("columns", 3)], "every image found must have 1 key, "),
    (b"q1,,q2 a,b c,d\nq3,q4,q5 a,b e,f\n", [("name", 1)], "not empty; found 'q1,,q2'"),
    (b"q1, q2 a b\nq3,q4 a b\nq5,q6 a b\n", [("columns", 1), ("name", 1)], "not empty; found 'q1,'"),
    (b"# nothing\n", [("file", None)], "holds none"),
])  # fmt: skip
def test_every_damage_of_predictions_is_listed(data, expected, said, tmp_path):
    (tmp_path / "f.csv").write_bytes(data)
    report = check_submission(tmp_path / "f.csv")
    assert kinds(report) == expected
    assert said in str(report)


def zipped(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            # always of one time: the bytes are the names of tests, which all processes must agree on
            entry = zipfile.ZipInfo(name.replace("__", "/").replace("_csv", ".csv").replace("_txt", ".txt"), (2026, 1, 1, 0, 0, 0))
            archive.writestr(entry, data)
    return buffer.getvalue()


@pytest.mark.parametrize(("data", "said"), [
    (zipped(a_csv=PLAIN, b_csv=PLAIN), r"one csv and nothing else; it holds 'a\.csv', 'b\.csv'"), (zipped(), "it holds nothing"),
    (zipped(a_txt=PLAIN), r"it holds 'a\.txt'"), (zipped(x__a_csv=PLAIN), "must not be in a folder"),
    (zipped(a_csv=PLAIN)[:40], "a zip that opens"), (b"no zip", "a zip that opens"),
    (zipped(a_csv=PLAIN).replace(b"q1 a b c", b"q1 a b d"), "Bad CRC"),
])  # fmt: skip
def test_a_zip_must_hold_one_csv(data, said, tmp_path):
    (tmp_path / "f.zip").write_bytes(data)
    report = check_submission(tmp_path / "f.zip")
    assert kinds(report)[-1] == ("file", None)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(str(report))


def test_a_text_may_begin_with_the_letters_of_a_zip(tmp_path):
    for name, text, kind in (("f.csv", PLAIN.replace("q1", "PK1"), "msls"), ("f.txt", f"PK_{GOOD}", "cmu")):
        (tmp_path / name).write_text(text)
        report = check_submission(tmp_path / name)
        assert (report.kind, report.entries, report.problems) == (kind, 2, ())


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_damaged_compressed_zip_is_a_problem(method, tmp_path):
    """Each byte of what is compressed is turned once: whatever the library then raises, the check says it in words, or reads the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.csv", PLAIN * 20)
    whole, refused = buffer.getvalue(), 0
    for place in range(35, whole.index(b"PK\x01\x02")):
        (tmp_path / "f.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        report = check_submission(tmp_path / "f.zip")
        refused += kinds(report)[-1] == ("file", None)
        assert report.entries in (0, 40)  # a byte of LZMA's version does not matter
    assert refused > 20


def test_an_encrypted_zip_is_a_problem(tmp_path):
    data = zipped(a_csv=PLAIN)
    flag = data.index(b"PK\x01\x02") + 8
    (tmp_path / "f.zip").write_bytes(data[:6] + b"\1" + data[7:flag] + b"\1" + data[flag + 1 :])
    assert "encrypted" in str(check_submission(tmp_path / "f.zip"))


def test_a_zip_by_another_name_is_named(tmp_path):
    (tmp_path / "f.csv").write_bytes(zipped(a_csv=PLAIN))
    assert "predictions must be called .zip; the file is called 'f.csv'" in str(check_submission(tmp_path / "f.csv"))
    (tmp_path / "f.txt").write_text(PLAIN)
    assert "called .csv" in str(check_submission(tmp_path / "f.txt", kind="msls"))


def test_predictions_against_the_data(tmp_path):
    found = cities()
    scenes = as_scenes(found)
    path = write_msls_submission(found, tmp_path / "f.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1].replace("qsf2 ", "qsf9 ").replace(" dsf3 ", " dxx3 "))
    report = check_submission(path, scenes=scenes)
    assert kinds(report) == [("unknown", 8), ("unknown", 8), ("missing", None)]
    assert "the query 'train_val/sf/query/images/qsf2.jpg' has no line." in str(report)
    flags = {"all": np.array([True, True, False]), "panorama": np.array([False, True, False])}
    scenes = [dataclasses.replace(scene, queries=dataclasses.replace(scene.queries, flags=flags)) for scene in scenes]
    path.write_text("".join(lines[:-2]))
    report = check_submission(path, scenes=scenes)
    assert not report.problems
    assert report.remarks[-1] == "2 lines are of queries that are not asked; they are not read"
    path.write_text("qcph0,qcph1 dcph0 dcph1\nqcph1,qcph7 dcph1 dcph2\n")
    report = check_submission(path, scenes=scenes)
    assert kinds(report) == [("unknown", 2)]
    assert "queries are sequences: which must have a line is not looked at" in report.remarks
