"""Every layout, written from the town and read back: the layout is guessed, the sides stay, image for image, and positions come back."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covis.datasets import READERS, WRITERS, check, guess_layout, read, write
from covis.errors import CovisError, CovisWarning, InvalidInputError, OutputExistsError
from covis.images import Images, Scene
from covis.rasters import read_image, write_image

READING: dict[str, dict[str, Any]] = {
    "aligned": {"match": "none"},
    "gsv-cities": {"split": "train"},
    "kitti": {"database": "00", "queries": "01", "one_world": True},
    "nordland": {"sizes": "ignore"},
}
"""What a copy of the town must be told, and a benchmark must not."""

SUBSETS = ("gsv-cities",)
"""Labelled by place, without queries: one side holds all images."""

POSED = ("7scenes", "colmap", "kapture", "kitti", "opensfm", "table", "tum")
PLACED = {"dbstruct": 1e-9, "exif": 0.05, "msls": 1e-9, "table": 0.0, "utm": 0.006}
"""Layouts that hold positions, and how exactly, metres."""


@pytest.fixture(scope="module")
def city(town: list[Scene]) -> Scene:
    """One town, with places: cells of 20 m."""
    scene = town[0]

    def placed(images: Images) -> Images:
        (xy,) = images.need("xy")
        cell = np.floor((xy - np.concatenate([scene.database.xy, scene.queries.xy]).min(axis=0)) / 20).astype(np.int64)
        return dataclasses.replace(images, place=cell[:, 0] * 100 + cell[:, 1])

    return Scene(scene.name, "test", placed(scene.database), placed(scene.queries))


def pictures(images: Images, layout: str) -> list[str]:
    """The bytes of every image, in order; its pixels, where the layout writes into the file."""
    paths = [images.path(row) for row in range(len(images))]
    contents = (read_image(path).tobytes() if layout == "exif" else path.read_bytes() for path in paths)
    return [hashlib.sha256(content).hexdigest() for content in contents]


def root_of(layout: str, written: list[Path], out: Path) -> Path:
    """What a user points to: the data set's own folder or file."""
    return out if layout in ("msls", "gsv-cities") else written[0]


@pytest.fixture(params=sorted(WRITERS))
def there_and_back(request: pytest.FixtureRequest, city: Scene, tmp_path: Path) -> tuple[str, Path, Scene]:
    layout = request.param
    out = tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)  # of what a layout has no place for; its own tests hold the words
        root = root_of(layout, write(layout, city, out), out)
        (back,) = read(layout, root, **READING.get(layout, {}))
    return layout, root, back


def test_what_is_written_is_sound(there_and_back: tuple[str, Path, Scene]) -> None:
    layout, root, _ = there_and_back
    found = check(layout, root, **READING.get(layout, {}))
    assert found.problems == ()
    assert found.decoded == 40


def test_the_layout_is_guessed_and_the_images_come_back(there_and_back: tuple[str, Path, Scene], city: Scene) -> None:
    layout, root, back = there_and_back
    assert guess_layout(root) == layout
    if layout in SUBSETS:
        assert sorted(pictures(back.database, layout)) == sorted(pictures(city.database, layout) + pictures(city.queries, layout))
        return
    assert pictures(back.database, layout) == pictures(city.database, layout)
    assert pictures(back.queries, layout) == pictures(city.queries, layout)


def test_positions_and_poses_come_back(there_and_back: tuple[str, Path, Scene], city: Scene) -> None:
    layout, _, back = there_and_back
    for mine, theirs in () if layout in SUBSETS else ((city.database, back.database), (city.queries, back.queries)):
        if layout in PLACED:
            (xy,) = theirs.need("xy")
            assert np.abs(xy - mine.xy).max() <= PLACED[layout]
        if layout in POSED:
            (pose,) = theirs.need("pose")
            relative = [np.linalg.inv(side[0]) @ side for side in (np.asarray(mine.pose), pose)]
            assert np.abs(relative[0] - relative[1]).max() < 1e-6, "seen from the first camera, since a world may begin elsewhere"


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_nothing_is_overwritten_unasked(layout: str, city: Scene, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        write(layout, city, tmp_path / "out")
        before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
        with pytest.raises(OutputExistsError):
            write(layout, city, tmp_path / "out")
        assert before == {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
        write(layout, city, tmp_path / "out", overwrite=True)


def test_every_reader_has_its_inverse() -> None:
    assert READERS.keys() == WRITERS.keys()


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"gcl"}))
@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_what_is_read_is_never_written_over(layout: str, files: str, city: Scene, tmp_path: Path) -> None:
    """Images that would be replaced by links to themselves, or by nothing, stay as they are. (gcl replaces no folder.)"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        root = root_of(layout, write(layout, city, tmp_path / "out"), tmp_path / "out")
        (back,) = read(layout, root, **READING.get(layout, {}))
        named = Scene(city.name if layout != "cmu-seasons" else back.name, city.split, back.database, back.queries)
        before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
        with pytest.raises(
            InvalidInputError,
            match=r"beside the one that it is made of|must not be replaced|own images lie in it|must (copy|have its) files|files must",
        ):
            write(layout, named, tmp_path / "out", overwrite=True, files=files)
    assert before == {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"cmu-seasons", "gsv-cities", "msls"}))
def test_several_scenes_are_written_all_or_none(layout: str, city: Scene, tmp_path: Path) -> None:
    """The second scene's folder is taken: the first is not begun. (The three others write several scenes to one folder.)"""
    second = dataclasses.replace(city, name="second")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        write(layout, second, tmp_path / "out")
        before = sorted((tmp_path / "out").rglob("*"))
        with pytest.raises(OutputExistsError):
            write(layout, [city, second], tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize(("layout", "option", "said"), [
    ("colmap", {"queries": 3}, "queries='3'"),
    ("kitti", {"camera": True}, "camera of the reader read_kitti must be a whole number; got True"),
    ("kitti", {"database": ["00"]}, r"database of the reader read_kitti must be a text; got \['00'\]"),
    ("tum", {"tolerance": "x"}, "tolerance of the reader read_tum must be a number; got 'x'"),
    ("nordland", {"names": 3}, "3"),
    ("robotcar-seasons", {"model": 5}, "5"),
])  # fmt: skip
def test_options_of_another_type_are_refused_in_words(layout: str, option: dict[str, Any], said: str, city: Scene, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        root = root_of(layout, write(layout, city, tmp_path / "out"), tmp_path / "out")
        with pytest.raises(CovisError, match=said):
            read(layout, root, **option)


@pytest.mark.parametrize(("files", "layout"), [
    (["ref/@1@2@.jpg", "query/@1@2@.jpg"], "utm"),
    (["old/@1@2@.jpg", "new/@1@2@.jpg"], "utm"),
    (["summer/@1@2@.jpg", "winter/@1@2@.jpg"], "utm"),
    (["my_nordland_trip/database/@1@2@.jpg", "my_nordland_trip/queries/@1@2@.jpg"], "utm"),
    (["walk.csv", "ref/a.jpg", "query/a.jpg"], "table"),
    (["walk.csv", "summer/a.jpg", "winter/a.jpg"], "table"),
    (["a.jpg", "cameras.txt"], "folder"),
    (["a.jpg", "rgb.txt"], "folder"),
    (["nordland_hike/database/a.jpg", "nordland_hike/queries/a.jpg"], "folder"),
    (["ref/a.jpg", "query/a.jpg"], "aligned"),
])  # fmt: skip
def test_what_lies_about_is_not_taken_for_a_benchmark(files: list[str], layout: str, tmp_path: Path) -> None:
    for file in files:
        path = tmp_path / "set" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("name,lat,lon\n") if path.suffix == ".csv" else write_image(path, np.zeros((8, 8, 3), np.uint8))
    root = tmp_path / "set" / ("" if "nordland" not in files[0] else files[0].partition("/")[0])
    assert guess_layout(root) == layout


def test_a_damaged_picture_does_not_stop_the_guess(tmp_path: Path) -> None:
    for side in ("ref", "query"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.jpg").write_bytes(b"")
    assert guess_layout(tmp_path) in ("aligned", "folder")
