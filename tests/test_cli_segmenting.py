"""`covis segment`, from the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import covis.cli.segmenting  # noqa: F401 - imported for the command that it adds
from covis.cli import app
from covis.datasets import read
from covis.errors import CovisError, InvalidInputError, MissingFileError, SettingsDifferError
from covis.rasters import read_image, read_label_map, write_image
from covis.semantics import attach_maps

SPEC = "test_cli_segmenting:Red"


class Red:
    """Sky where red is above a value, else road."""

    classes, engine = "cityscapes-train", "numpy"

    def __init__(self, above=127):
        self.above, self.digest = above, f"red {above}"

    def segment(self, photographs):
        return [np.where(one[..., 0] > self.above, 10, 0).astype(np.uint8) for one in photographs]


@pytest.fixture
def photographs(tmp_path):
    random = np.random.default_rng(1)
    (tmp_path / "photos/images").mkdir(parents=True)
    lines = ["name,lat,lon"]
    for number in range(4):
        write_image(tmp_path / f"photos/images/{number}.png", random.integers(0, 256, size=(8, 9, 3), dtype=np.uint8))
        lines.append(f"images/{number}.png,63.{number:04d}1,10.4")
    (tmp_path / "photos/places.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos/places.csv"


def run(*arguments):
    return CliRunner().invoke(app, ["segment", *map(str, arguments)], catch_exceptions=True)


def test_maps_of_a_table(photographs, tmp_path):
    out = tmp_path / "maps"
    found = run(photographs, "--layout", "table", "--model", SPEC, "--out", out)
    assert found.exit_code == 0, found.output
    assert found.stdout == f"{out}\n"
    assert "sky" in found.stderr
    (scene,) = read("table", photographs)
    for row in range(4):
        path = scene.database.path(row)
        numbers = read_label_map(out / path.relative_to(scene.database.root).with_suffix(".png"))
        np.testing.assert_array_equal(numbers, np.where(read_image(path)[..., 0] > 127, 10, 0))


def test_what_is_printed_as_json(photographs, tmp_path):
    found = run(photographs, "--layout", "table", "--model", SPEC, "--model-option", "above=99", "--out", tmp_path / "maps", "--json")
    said = json.loads(found.stdout)
    assert (said["images"], said["digest"], said["model"], said["skipped"]) == (4, "red 99", SPEC, [])
    assert sum(said["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert said["seconds"] >= 0


def test_other_settings_and_places_are_refused(photographs, tmp_path):
    arguments = (photographs, "--layout", "table", "--model", SPEC, "--out", tmp_path / "maps")
    assert run(*arguments).exit_code == 0
    again = run(*arguments, "--model-option", "above=1")
    assert isinstance(again.exception, SettingsDifferError)
    assert run(*arguments, "--model-option", "above=1", "--overwrite").exit_code == 0
    found = run(tmp_path / "photos", "--layout", "folder", "--model", SPEC, "--out", tmp_path / "photos/maps")
    assert isinstance(found.exception, InvalidInputError)
    assert not (tmp_path / "photos/maps").exists()


def test_a_table_beside_its_photographs(photographs, tmp_path):
    """Names that lead out of the table's folder: maps are named from the folder above on."""
    table = tmp_path / "tables/walk.csv"
    table.parent.mkdir()
    table.write_text(photographs.read_text().replace("images/", "../photos/images/"))
    found = run(table, "--layout", "table", "--model", SPEC, "--out", tmp_path / "maps")
    assert found.exit_code == 0, found.output
    assert sorted(path.name for path in (tmp_path / "maps/photos/images").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    (scene,) = read("table", table)
    assert len(attach_maps(scene.database, tmp_path / "maps", base=table).segmentation) == 4


@pytest.mark.parametrize("wrong", [("--batch", "0"), ("--classes", "nowhere"), ("--model-option", "above")])
def test_what_is_wrong_is_said_before_the_model_is_opened(photographs, tmp_path, wrong):
    found = run(photographs, "--layout", "table", "--model", "nowhere.tflite", "--out", tmp_path / "maps", *wrong)
    assert isinstance(found.exception, CovisError)
    assert not isinstance(found.exception, MissingFileError)


def test_a_folder_names_maps_the_same_whatever_is_chosen(room, tmp_path):
    """Scenes have roots of their own; maps are named from DATA on, for one scene as for all."""
    data = room("data/kitchen").parent
    room("data/office")
    for pattern, there in (("kitchen", {"kitchen"}), ("*", {"kitchen", "office"})):
        found = run(data, "--layout", "7scenes", "--scenes", pattern, "--model", SPEC, "--out", tmp_path / "maps")
        assert found.exit_code == 0, found.output
        assert {path.relative_to(tmp_path / "maps").parts[0] for path in (tmp_path / "maps").rglob("*.png")} == there
