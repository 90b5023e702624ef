"""Every layout alike: its reader, its writer, its drafts, its place in the guess, and the command that converts."""

import inspect

import numpy as np
import pytest
from typer.testing import CliRunner

from covis import cli
from covis.datasets import DRAFTS, READERS, WRITERS, check, guess_layout, read, write
from covis.errors import InvalidInputError, UnknownNameError
from covis.images import Images, Scene
from covis.rasters import write_depth, write_image

PLAIN = ["7scenes", "exif", "folder", "gcl", "msls", "table", "utm"]
"""Layouts that any scene can be written in and read from without an option; all are in test_round_trips.py."""
LAYOUTS = sorted([
    *PLAIN, "aligned", "cmu-seasons", "colmap", "dbstruct", "gsv-cities", "kapture", "kitti", "nordland", "npy", "opensfm",
    "robotcar-seasons", "tum",
])  # fmt: skip
ASKED = {"msls": "val", "gcl": "val"}
"""The split that the two cities of the test stand in."""


@pytest.fixture
def town(tmp_path):
    """A scene that any layout can hold: JPEGs in two sides, with all that a layout may want."""
    random = np.random.default_rng(2)
    root = tmp_path / "town"

    def side(name, n):
        names = [f"{name}/{name}{number:019d}.jpg" for number in range(n)]
        for file in names:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            write_image(root / file, random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            write_depth(root / f"{file}.png", np.full((12, 16), 3.0, np.float32))
        pose = np.tile(np.eye(4), (n, 1, 1))
        pose[:, :3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # looking east
        xy = np.array([347_000.0, 6_172_000.0]) + random.integers(0, 10_000, (n, 2)) / 100
        pose[:, :2, 3] = xy
        flags = {name: np.zeros(n, bool) for name in ("panorama", "night", "backward", "sideways", "control_panel")}
        flags |= {name: np.ones(n, bool) for name in ("all", "forward")} | {
            k: np.zeros(n, bool) for k in ("s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
        }
        return Images(
            root, names, xy=xy, heading=np.full(n, 90.0), pose=pose, intrinsics=np.tile([15.0, 15, 7.5, 5.5], (n, 1)),
            depth=[f"{file}.png" for file in names], sequence=[f"seq-{name}"] * n, frame=np.arange(n), place=np.zeros(n, int),
            time=np.full(n, 1_500_000_000.0), crs="EPSG:32633", flags=flags,
        )  # fmt: skip

    return Scene("cph", "val", side("database", 5), side("query", 3))


def fitting(scene, layout):
    """The scene in the split that the layout knows."""
    return Scene(scene.name, ASKED.get(layout, "test"), scene.database, scene.queries)


def test_every_layout_has_a_reader_and_a_writer():
    assert sorted(READERS) == sorted(WRITERS) == LAYOUTS
    assert set(DRAFTS) == set(LAYOUTS) - {"7scenes"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_readers_and_writers_have_the_seams_signature(layout):
    reader, writer = inspect.signature(READERS[layout]).parameters, inspect.signature(WRITERS[layout]).parameters
    assert next(iter(reader)) == "root"
    assert reader["split"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(writer)[:2] == ["scenes", "out"]
    assert writer["overwrite"].default is False
    assert writer["files"].default == "copy"
    if layout in DRAFTS:
        assert {"missing", "invalid"} <= reader.keys()
        assert next(iter(inspect.signature(DRAFTS[layout]).parameters)) == "root"


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.filterwarnings("ignore::covis.errors.CovisWarning")
def test_what_is_written_is_read_again(layout, town, tmp_path):
    scene = fitting(town, layout)
    written = write(layout, scene, tmp_path / "out")
    assert written
    assert all(path.exists() for path in written)
    whole = layout in ("msls", "gcl")  # whose root holds all cities
    root = tmp_path / "out" if whole else written[0]
    found = guess_layout(root)
    assert found == layout
    (again,) = read(layout, root, split=scene.split)
    assert (len(again.database), len(again.queries)) == (5, 3)
    for side in ("database", "queries"):
        mine, theirs = getattr(scene, side), getattr(again, side)
        for row in range(len(mine)):
            assert theirs.path(row).is_file()
        if layout not in ("folder", "7scenes"):
            np.testing.assert_allclose(theirs.xy, mine.xy, atol=0.011)
            np.testing.assert_allclose(theirs.heading, mine.heading, atol=0.5)
    report = check(layout, root, split=scene.split)
    assert report.problems == ()
    assert report.decoded == 8
    assert {path.name for path in town.database.root.rglob("*") if path.is_file()} == {
        name for row in (*town.database.names, *town.queries.names) for name in (row.split("/")[1], f"{row.split('/')[1]}.png")
    }, "the original is as it was"


@pytest.mark.parametrize("layout", PLAIN)
@pytest.mark.filterwarnings("ignore::covis.errors.CovisWarning")
def test_the_command_converts(layout, town, tmp_path):
    scene = fitting(town, layout)
    (source,) = write("table", scene, tmp_path / "in")
    arguments = [str(source), "--split", scene.split, "--to", layout, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, ["convert", "data", *arguments])
    assert done.exit_code == 0, done.output
    assert done.stdout.split()


def test_what_is_not_known_is_said(town, tmp_path):
    with pytest.raises(UnknownNameError, match="tables"):
        write("tables", town, tmp_path / "x")
    with pytest.raises(InvalidInputError, match="colour"):
        write("table", town, tmp_path / "x", colour=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="--layout"):
        guess_layout(tmp_path / "empty")
