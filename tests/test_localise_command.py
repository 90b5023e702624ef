"""covis localise, covis convert predictions and covis check --as submission: from files to files, and what is said."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from covis.cli import app
from covis.cli.localising import _beside
from covis.datasets import write
from covis.descriptors import Descriptors
from covis.errors import CovisError, InvalidInputError, OutputFailedError
from covis.files import atomic_path
from covis.localisation import Poses, PoseScores
from covis.rankings import Rankings
from covis.submissions import read_submission


@pytest.fixture(autouse=True, scope="module")
def built_once():
    """The application is built anew at every call otherwise, which takes longer than most commands."""
    built = get_command(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: built)
        yield


def covis(*arguments, code=0):
    quick = ("--samples", 20) if arguments[0] == "localise" else ()
    result = CliRunner().invoke(app, [*map(str, (*arguments, *quick))])
    if code == 0 and result.exception:
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, CovisError), result.output
    return str(result.exception)


def nearest(scene, k=5):
    away = np.linalg.norm(scene.queries.pose[:, None, :3, 3] - scene.database.pose[None, :, :3, 3], axis=2)
    rows = np.argsort(away, axis=1, kind="stable")[:, :k]
    return Rankings(rows, np.take_along_axis(away, rows, axis=1) / away.max(), scene.queries.names, scene.database.names)


@pytest.fixture(scope="module")
def place(town, tmp_path_factory):
    """The two towns as tables, with rankings by true distance and descriptors that are positions."""
    folder = tmp_path_factory.mktemp("localise")
    write("table", town, folder / "data", files="link")
    (folder / "rankings").mkdir()
    for scene in town:
        nearest(scene).save(folder / "rankings" / f"{scene.name}.npz")
        middle = scene.database.pose[:, :3, 3].mean(axis=0)
        for side in ("queries", "database"):
            images = getattr(scene, side)
            vectors = (images.pose[:, :3, 3] - middle).astype(np.float32)
            Descriptors(vectors, images.names, "positions").save(folder / "described" / scene.name / side)
            Descriptors(vectors, images.names, "positions").save(folder / scene.name / scene.name / side)
    return folder


def test_one_scene(place, town, tmp_path):
    data, out = place / "data" / "miami", tmp_path / "poses.npz"
    options = ("--rankings", place / "rankings" / "miami.npz", "--out", out, "--submission", "cmu", "--scores", tmp_path / "s.json")
    result = covis("localise", data, *options)
    assert result.stdout.splitlines() == [str(out), str(tmp_path / "poses.txt"), str(tmp_path / "s.json")]
    assert "16 queries, 0 without a pose" in result.stderr
    assert "poses\n  asked      every query; one without a pose is a failure" in result.stderr
    assert "dusk" in result.stderr
    found = Poses.load(out)
    np.testing.assert_array_equal(found.pose, town[0].database.pose[nearest(town[0]).rows[:, 0]])
    submitted = read_submission(tmp_path / "poses.txt")
    assert submitted.names == tuple(name.partition("/")[2] for name in found.names)
    np.testing.assert_allclose(submitted.pose, found.pose, atol=1e-6)
    scores = PoseScores.load(tmp_path / "s.json")
    away = np.linalg.norm(town[0].queries.pose[:, None, :3, 3] - town[0].database.pose[None, :, :3, 3], axis=2)
    assert scores.groups[0].metres == pytest.approx(np.median(away.min(axis=1)))
    assert "is already there" in refused("localise", data, *options)
    assert covis("localise", data, *options, "--overwrite").exit_code == 0
    assert "no problem found" in covis("check", tmp_path / "poses.txt", "--as", "submission", "--data", data).stdout


def test_the_submission_scores_as_the_poses(place, tmp_path):
    data = place / "data" / "miami"
    first = covis(
        "localise", data, "--rankings", place / "rankings" / "miami.npz", "--out", tmp_path / "a.npz", "--submission", "cmu", "--json"
    )
    for given in ("a.npz", "a.txt"):
        again = covis("localise", data, "--poses", tmp_path / given, "--out", tmp_path / f"b-{given}.npz", "--json")
        mine, theirs = (json.loads(one.stdout)["measured"]["groups"] for one in (first, again))
        for group, other in zip(mine, theirs, strict=True):
            assert group["rates"] == other["rates"]
            assert group["median_metres"] == pytest.approx(other["median_metres"], abs=1e-6)


def test_descriptors_are_searched(place, town, tmp_path):
    """Descriptors that are positions find the nearest cameras; bdi of them gives the query's own position back."""
    data = place / "data" / "athens"
    covis("localise", data, "--descriptors", place / "athens", "--out", tmp_path / "near.npz")
    np.testing.assert_array_equal(Poses.load(tmp_path / "near.npz").rows[:, 0], nearest(town[1]).rows[:, 0])
    said = covis("localise", data, "--descriptors", place / "athens", "--method", "bdi", "--k", 5, "--out", tmp_path / "bdi.npz", "--json")
    group = json.loads(said.stdout)["measured"]["groups"][0]
    assert group["median_metres"] < json.loads(
        covis("localise", data, "--poses", tmp_path / "near.npz", "--out", tmp_path / "c.npz", "--json").stdout
    )["measured"]["groups"][0]["median_metres"]  # fmt: skip
    both = ("--rankings", place / "rankings" / "athens.npz", "--descriptors", place / "athens", "--method", "bdi", "--k", 5)
    covis("localise", data, *both, "--out", tmp_path / "both.npz")
    np.testing.assert_allclose(Poses.load(tmp_path / "both.npz").pose, Poses.load(tmp_path / "bdi.npz").pose, atol=1e-6)


def test_queries_without_poses_are_submitted(place, town, tmp_path):
    """No truth, no positions: poses and a submission, and no scores."""
    scene = town[0]
    bare = dataclasses.replace(scene.queries, xy=None, heading=None, fov=None, reach=None, pose=None, flags={}, depth=None, frame=None)
    write(
        "table",
        [dataclasses.replace(scene, queries=bare, database=dataclasses.replace(scene.database, xy=None))],
        tmp_path / "data",
        files="link",
    )
    options = ("--descriptors", place / "miami", "--out", tmp_path / "p.npz", "--submission", "cmu")
    result = covis("localise", tmp_path / "data" / "miami", *options)
    assert "no truth in miami" in result.stderr
    assert len(read_submission(tmp_path / "p.txt")) == 16
    said = refused("localise", tmp_path / "data" / "miami", *options, "--scores", tmp_path / "s.json", "--overwrite")
    assert "--scores must have the poses of the queries" in said


def test_what_cannot_be_is_refused_before_anything_is_written(place, tmp_path):
    data = place / "data" / "miami"
    ranked = ("--rankings", place / "rankings" / "miami.npz")
    for options, said in (
        ((), "Exactly one of --rankings"),
        ((*ranked, "--poses", tmp_path / "x.npz"), "or the first two together; got rankings, poses"),
        ((*ranked, "--method", "evb"), "Did you mean 'ewb'"),
        ((*ranked, "--protocol", "robot"), "Did you mean 'robotcar-v2'"),
        ((*ranked, "--submission", "robotcar"), "must be of the rear camera"),
        ((*ranked, "--scores", tmp_path / "p.npz"), "must be different files"),
        ((*ranked, "--method", "ewb"), "must be 20 deep for k 20; they are 5"),
        (("--rankings", place / "none.npz"), "none.npz"),
    ):
        assert said in refused("localise", data, *options, "--out", tmp_path / "p.npz")
    assert "poses of one scene go to an .npz" in refused("localise", data, *ranked, "--out", tmp_path / "p").replace("Poses", "poses")
    assert not list(tmp_path.iterdir())


def test_nothing_is_read_away(place, town, tmp_path):
    """--overwrite never reaches the data, nor what the poses are made of."""
    data, ranked, described = tmp_path / "data" / "miami", tmp_path / "rankings", tmp_path / "miami"
    shutil.copytree(place / "data", tmp_path / "data", symlinks=True)
    shutil.copytree(place / "rankings", ranked)
    shutil.copytree(place / "miami", described)
    covis("localise", data, "--rankings", ranked / "miami.npz", "--out", tmp_path / "p.npz", "--submission", "cmu")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "link").symlink_to(data)
    one = ("--rankings", ranked / "miami.npz")
    for options, said in (
        ((*one, "--out", data / "p.npz"), "must not be DATA nor lie in it"),
        ((*one, "--out", tmp_path / "link" / "new" / "p.npz"), "must not be DATA nor lie in it"),
        ((*one, "--out", tmp_path / "q.npz", "--scores", data / "s.json"), "must not be DATA nor lie in it"),
        ((*one, "--out", ranked / "miami.npz"), "must not be --rankings"),
        (("--rankings", ranked, "--out", ranked / "miami.npz"), "must not be a file of --rankings"),
        (("--poses", tmp_path / "p.npz", "--out", tmp_path / "p.npz"), "must not be --poses"),
        (("--poses", tmp_path / "p.txt", "--out", tmp_path / "p.npz", "--submission", "cmu"), "must not be --poses"),
        (("--descriptors", described, "--out", tmp_path / "q.npz", "--scores", described), "must not be --descriptors"),
    ):
        assert said in refused("localise", data, *options, "--overwrite")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_others_is_left_as_it_is(covis_data_free_scenes, tmp_path, monkeypatch):
    data, rankings = covis_data_free_scenes
    out = tmp_path / "precious"
    out.mkdir()
    (out / "notes.md").write_text("mine")
    covis("localise", data, "--rankings", rankings, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == ["notes.md", "one.npz", "two.npz"]
    assert "one.npz is already there" in refused("localise", data, "--rankings", rankings, "--out", out)
    covis("localise", data, "--rankings", rankings, "--out", out, "--overwrite")
    assert (out / "notes.md").read_text() == "mine"
    before = sorted(path for path in tmp_path.rglob("*"))
    for place in (data, data / "one", rankings):
        assert "must not be" in refused("localise", data, "--rankings", rankings, "--out", place, "--overwrite")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    said = covis("localise", data, "--rankings", rankings, "--out", ".").stdout.split()
    assert said == ["."]
    assert sorted(path.name for path in here.iterdir()) == ["one.npz", "two.npz"]
    assert "must be of the rear camera" in refused(
        "localise", data, "--rankings", rankings, "--out", ".", "--submission", "robotcar", "--overwrite"
    )


@pytest.mark.parametrize("name", [".", "", "..", "a/.."])
def test_a_place_without_a_name_is_refused_in_words(name):
    with pytest.raises(InvalidInputError, match="must have a name of its own"), atomic_path(name):
        raise AssertionError


@pytest.mark.parametrize(("out", "name"), [("o.v1", "o.v1.txt"), ("o.npz", "o.txt"), ("runs/poses", "runs/poses.txt")])
def test_the_submission_lies_beside_the_poses(out, name):
    assert _beside(Path(out)) == Path(name)


def test_the_submission_of_this_folder_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _beside(Path(".")) == tmp_path.with_name(f"{tmp_path.name}.txt")


def test_outputs_are_looked_at_before_anything_is_computed(place, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("computed")

    monkeypatch.setattr("covis.localisation.localise", never)
    (tmp_path / "file").write_text("x")
    (tmp_path / "s.json").write_text("x")
    (tmp_path / "folder").mkdir()
    data, out = place / "data" / "miami", tmp_path / "p.npz"
    for options, said in (
        (("--out", out, "--scores", tmp_path / "file" / "s.json"), "no folder that can be written to"),
        (("--out", out, "--scores", tmp_path / "s.json"), "is already there"),
        (("--out", out, "--scores", tmp_path / "folder", "--overwrite"), "is a folder"),
        (("--out", out, "--scores", out / "s.json"), "none within another"),
        (("--out", out, "--scores", tmp_path / "folder" / ".." / "p.npz"), "must be different files"),
        (("--out", out, "--scores", tmp_path / "p.txt", "--submission", "cmu"), "must be different files"),
    ):
        assert said in refused("localise", data, "--rankings", place / "rankings" / "miami.npz", *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "s.json"]


def test_names_are_looked_at_before_anything_is_computed(covis_data_free_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("covis.cli.localising._localised", lambda *_: pytest.fail("computed"))
    data, rankings = covis_data_free_scenes
    said = refused("localise", data, "--rankings", rankings, "--out", tmp_path / "o", "--submission", "cmu")
    assert "Queries must have different names in a pose file" in said


def test_a_failure_at_the_end_leaves_nothing(place, tmp_path, monkeypatch):
    def full(self, path, *, overwrite=False):
        raise OutputFailedError("the disk is full")

    options = ("--rankings", place / "rankings" / "miami.npz", "--out", tmp_path / "p.npz", "--submission", "cmu")
    with monkeypatch.context() as patch:
        patch.setattr(PoseScores, "save", full)
        assert "full" in refused("localise", place / "data" / "miami", *options, "--scores", tmp_path / "s.json")
    assert not list(tmp_path.iterdir())


def test_options_that_would_be_ignored_are_refused(place, tmp_path):
    data, ranked = place / "data" / "miami", ("--rankings", place / "rankings" / "miami.npz")
    covis("localise", data, *ranked, "--out", tmp_path / "p.npz")
    for option in (("--method", "nearest"), ("--k", 1), ("--alpha", 8)):
        said = refused("localise", data, "--poses", tmp_path / "p.npz", "--out", tmp_path / "q.npz", *option)
        assert f"got {option[0]} with it" in said
    (tmp_path / "f.txt").write_text("a.jpg 1 0 0 0 4 5 6\n")
    for option in (("--layout", "table"), ("--split", "val"), ("--read", "missing=skip")):
        assert "Add --data" in refused("check", tmp_path / "f.txt", "--as", "submission", *option)


def test_what_is_not_there_is_called_by_its_option(place, covis_data_free_scenes, tmp_path):
    data, _ = covis_data_free_scenes
    for option in ("--rankings", "--poses"):
        for folder in (place / "data" / "miami", data):
            out = tmp_path / ("p" if folder == data else "p.npz")
            assert refused("localise", folder, option, "none.npz", "--out", out).startswith(f"{option} none.npz must exist")
    (tmp_path / "f.txt").write_text("a.jpg 1 0 0 0 4 5 6\n")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("a.csv", "q a")
    for name in ("f.txt", "f.zip"):
        assert "add --as submission" in refused("check", tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert "--as submission" not in refused("check", tmp_path / "empty")


def test_several_scenes_go_to_a_folder(covis_data_free_scenes, tmp_path):
    data, rankings = covis_data_free_scenes
    covis("localise", data, "--rankings", rankings, "--out", tmp_path / "poses")
    assert sorted(path.name for path in (tmp_path / "poses").iterdir()) == ["one.npz", "two.npz"]
    assert "--out is for the poses" in refused(
        "localise", data, "--rankings", rankings, "--out", tmp_path / "poses.txt", "--submission", "cmu"
    )
    assert not (tmp_path / "poses.txt").exists()
    assert "several scenes go to a folder" in refused("localise", data, "--rankings", rankings, "--out", tmp_path / "poses.npz")
    said = refused("localise", data, "--rankings", rankings / "one.npz", "--out", tmp_path / "other")
    assert "A file must be of one scene" in said
    covis("localise", data, "--poses", tmp_path / "poses", "--out", tmp_path / "again")


@pytest.fixture
def covis_data_free_scenes(room, tmp_path):
    """Two rooms in one folder, and rankings that name for each test frame the train frame of the same number."""
    from covis.datasets import read

    rooms = tmp_path / "rooms"
    rooms.mkdir()
    for name in ("one", "two"):
        room(name).rename(rooms / name)
    folder = tmp_path / "ranked"
    folder.mkdir()
    for scene in read("7scenes", rooms):
        rows = np.arange(len(scene.queries))[:, None]
        Rankings(rows, np.zeros(rows.shape), scene.queries.names, scene.database.names).save(folder / f"{scene.name}.npz")
    return rooms, folder


def test_predictions_locate_too(place, town, tmp_path):
    nearest(town[0]).save(tmp_path / "found.txt")
    covis("localise", place / "data" / "miami", "--rankings", tmp_path / "found.txt", "--out", tmp_path / "p.npz")
    np.testing.assert_array_equal(Poses.load(tmp_path / "p.npz").rows[:, 0], nearest(town[0]).rows[:, 0])


def test_a_zip_from_rankings(place, tmp_path):
    found = covis("convert", "predictions", place / "rankings" / "miami.npz", "--out", tmp_path / "found.zip")
    assert found.stdout.strip() == str(tmp_path / "found.zip")
    with zipfile.ZipFile(tmp_path / "found.zip") as archive:
        assert archive.namelist() == ["found.csv"]
    data = place / "data" / "miami"
    checked = covis("check", tmp_path / "found.zip", "--as", "submission", "--data", data, "--json")
    assert json.loads(checked.stdout)["problems"] == []
    said = refused("convert", "predictions", place / "rankings", "--out", tmp_path / "both.zip")
    assert "'ride01-00000' is that of two" in said
    assert "must hold rankings" in refused("convert", "predictions", place / "data", "--out", tmp_path / "no.zip")


def test_check_exits_with_1_and_lists_all(place, tmp_path):
    (tmp_path / "f.txt").write_text("a.jpg 1 0 0 0 4 5\nb.jpg 2 0 0 0 4 5 6\n")
    result = covis("check", tmp_path / "f.txt", "--as", "submission", code=1)
    assert "line 1: a line must have eight columns" in result.stdout
    assert "line 2: the quaternion" in result.stdout
    listed = json.loads(covis("check", tmp_path / "f.txt", "--as", "submission", "--json", "--kind", "robotcar", code=1).stdout)
    assert [problem["line"] for problem in listed["problems"]] == [1, 1, 2, 2]
    against = covis("check", tmp_path / "f.txt", "--as", "submission", "--data", place / "data" / "miami", code=1).stdout
    assert "missing: 16 (queries of the data without a line" in against
    assert "unknown: 2" in against
    assert "--as submission" in refused("check", place / "data" / "miami", "--kind", "cmu")
