"""`covis check`: everything that is wrong at once, and nothing that is not."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from covis import cli
from covis.datasets import check
from covis.errors import InvalidInputError, MissingFileError
from covis.rasters import write_image


@pytest.fixture
def table(tmp_path):
    """A function that writes a table of images and as many of its files as are asked for."""

    def write(rows, *, images=()):
        for name in images:
            write_image(tmp_path / name, np.zeros((4, 6, 3), np.uint8))
        lines = [",".join(map(str, row)) for row in rows]
        (tmp_path / "set.csv").write_text("name,lat,lon,heading\n" + "\n".join(lines) + "\n")
        return tmp_path / "set.csv"

    return write


def kinds(report):
    return sorted((problem.kind, problem.name) for problem in report.problems)


def test_a_sound_set_has_no_problem(table):
    report = check("table", table([("a.png", 55.7, 12.6, 0), ("b.png", 55.7, 12.6, 359.9)], images=["a.png", "b.png"]))
    assert report.problems == ()
    assert report.decoded == 2
    assert "no problem found" in str(report)


def test_all_problems_are_told_at_once(table, tmp_path):
    rows = [
        ("a.png", 55.7, 12.6, 0),
        ("a.png", 55.7, 12.6, 0),
        ("gone.png", 55.7, 12.6, 0),
        ("c.png", "", 12.6, 0),
        ("d.png", 55.7, 12.6, 400),
    ]
    path = table([*rows, ("e.png", 55.7, 12.6, 0)], images=["a.png", "c.png", "d.png"])
    (tmp_path / "e.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    report = check("table", path)
    assert kinds(report) == [
        ("duplicate name", "a.png"),
        ("heading", "d.png"),
        ("image", "e.png"),
        ("missing image", "gone.png"),
        ("position", "c.png"),
    ]
    assert all(str(path) in problem.where for problem in report.problems if problem.kind != "image")
    by_kind = {problem.kind: problem.where for problem in report.problems}
    assert by_kind["missing image"].endswith("line 4"), "the line in the file, its header counted"
    for kind in by_kind:
        assert kind in str(report)


def test_positions_of_two_continents_are_a_problem_of_zones(table):
    path = table([("a.png", 55.7, 12.6, 0), ("b.png", 37.8, -122.4, 0)], images=["a.png", "b.png"])
    assert kinds(check("table", path)) == [("zones", "set")]


def test_what_cannot_be_read_is_one_problem(tmp_path):
    (tmp_path / "set.csv").write_text('name,lat,lon\n"a.png,1,2\n')
    (only,) = check("table", tmp_path / "set.csv").problems
    assert only.kind == "data"
    assert "set.csv" in only.what


def test_what_is_odd_and_allowed_is_remarked(table, tmp_path):
    rows = [(f"{number}.png", 55.7 + number * 1e-5, 12.6, 0) for number in range(20)]
    path = table([*rows, ("far.png", 55.9, 12.6, 0)], images=[*(row[0] for row in rows), "far.png"])
    write_image(tmp_path / "far.png", np.zeros((6, 4, 3), np.uint8))
    report = check("table", path)
    assert report.problems == ()
    outlier, shapes = report.remarks
    assert "1 of 21 positions" in outlier
    assert "far.png" in outlier
    assert "line 22" in outlier
    assert "1 images are taller than wide and 20 wider" in shapes
    assert check("table", table(rows, images=[])).remarks == ()


def test_what_a_reader_warns_of_is_a_remark(table):
    rows = [(f"{number}.png", 55.7, 12.6, 0) for number in range(5)]
    report = check("table", table([*rows, ("far.png", 55.9, 12.6, 0)]), missing="ignore", within=1000)
    assert report.problems == ()
    assert "far.png" in report.remarks[0]


def test_metadata_alone(table):
    path = table([("a.png", 55.7, 12.6, 0), ("b.png", 55.7, 12.6, 400)])
    assert kinds(check("table", path, missing="ignore")) == [("heading", "b.png")]


def test_a_layout_without_drafts(room):
    folder = room()
    assert check("7scenes", folder).problems == ()
    (folder / "seq-01" / "frame-000001.color.png").write_bytes(b"")
    assert [problem.kind for problem in check("7scenes", folder).problems] == ["image"]
    (folder / "seq-01" / "frame-000001.pose.txt").unlink()
    assert [problem.kind for problem in check("7scenes", folder).problems] == ["data"]


def test_options_and_places_are_checked(table, tmp_path):
    with pytest.raises(InvalidInputError, match="zoom"):
        check("table", table([("a.png", 1, 2, 3)]), zoom=1)
    with pytest.raises(MissingFileError, match="nowhere"):
        check("auto", tmp_path / "nowhere")


def test_the_command(table):
    path = table([("a.png", 55.7, 12.6, 0)], images=["a.png"])
    done = CliRunner().invoke(cli.app, ["check", str(path)])
    assert done.exit_code == 0
    path = table([("a.png", 55.7, 12.6, 0), ("b.png", 55.7, 12.6, 0)])
    done = CliRunner().invoke(cli.app, ["check", str(path), "--json", "--layout", "table"])
    assert done.exit_code == 1
    assert [problem["kind"] for problem in json.loads(done.stdout)["problems"]] == ["missing image"]
