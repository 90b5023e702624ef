"""The picture of attention: colours, overlays, sheets, and the command that draws them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from covis import cli
from covis.attention import attend
from covis.errors import InvalidInputError, MissingFileError, OutputExistsError
from covis.models.checkpoints import save
from covis.models.place import PlaceModel
from covis.rasters import image_size
from covis.reports.overlays import EDGE, Row, Tile, attention_sheet, draw_sheet, heat, overlay
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> PlaceModel:
    return PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=48), seed=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four photographs, the third of them upright."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(8)
    files = []
    for number, name in enumerate("abcd"):
        coarse = Image.fromarray(random.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        files.append(folder / f"{name}.png")
        coarse.resize((90, 120) if number == 2 else (120, 90), Image.Resampling.BICUBIC).save(files[-1])
    (folder / "notes.txt").write_text("no image")
    return files


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB, by its definition."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_more_is_lighter_in_steps_that_look_equal() -> None:
    steps = np.diff(lightness(heat(np.linspace(0, 1, 9))))
    assert (steps > 0).all()
    assert steps.max() < 2.2 * steps.min(), "another measure of lightness agrees roughly"
    np.testing.assert_array_equal(heat(np.array([[-1.0, 2.0]])), heat(np.array([[0.0, 1.0]])))


def test_an_overlay_colours_where_the_map_is_high() -> None:
    grey = np.full((40, 60, 3), 120, dtype=np.uint8)
    attention = np.zeros((4, 6), dtype=np.float32)
    attention[:, 4:] = 1
    drawn = overlay(grey, attention).astype(int)
    assert drawn.shape == (40, 60, 3)
    assert np.ptp(drawn[20, 5]) == 0, "grey where there is nothing"
    assert np.ptp(drawn[20, 55]) > 20
    assert (overlay(grey, np.zeros((2, 3), np.float32)) == 121).all()


def test_a_sheet_has_every_tile_where_it_belongs() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]
    tiles = [Tile(np.full((30, 100, 3), colour, dtype=np.uint8), None) for colour in colours]
    sheet = draw_sheet([Row(tuple(tiles), "caption")], columns=["one", "two"], title="title", together=2)
    found = [tuple(pixel) for pixel in sheet[80, EDGE + 50 :: 100 + 6][:2].tolist()]
    assert found == colours[:2]
    assert all((sheet == colour).all(axis=2).sum() == 3000 for colour in colours)


@pytest.mark.parametrize(("pair", "rows", "tiles"), [(False, 4, 3), (True, 2, 6)])
def test_a_picture_of_all_methods(pair: bool, rows: int, tiles: int, network: PlaceModel, photos: list[Path], tmp_path: Path) -> None:
    out = attention_sheet(network, photos, out=tmp_path / "a.png", methods=("activation", "gradient"), pair=pair, width=80)
    heights = {False: 3 * 60 + 107, True: 60 + 107}[pair]
    width = max(400, 2 * EDGE + 80 * tiles + (3 * 6 + 2 * 18 if pair else 2 * 18))
    assert image_size(out) == (74 + 44 + heights + 26 * rows, width)


def test_maps_are_those_of_attend(network: PlaceModel, photos: list[Path], tmp_path: Path) -> None:
    attention_sheet(network, photos[:2], out=tmp_path / "a.jpg", pair=True, width=80, maps=tmp_path / "maps")
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == ["000-0-a-activation.npy", "000-1-b-activation.npy"]
    stored = np.load(tmp_path / "maps" / "000-1-b-activation.npy", allow_pickle=False)
    np.testing.assert_array_equal(stored, attend(network, photos[1], other=photos[0]))
    assert (tmp_path / "a.jpg").read_bytes()[:2] == b"\xff\xd8", "a JPEG"


def test_squares_show_the_square_that_the_network_sees(photos: list[Path], tmp_path: Path) -> None:
    model = PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=32, resize="pil-crop"), seed=1)
    assert image_size(attention_sheet(model, photos[:1], out=tmp_path / "a.png", width=80))[0] == 74 + 44 + 80 + 26


@pytest.mark.parametrize(
    ("count", "wrong", "message"),
    [
        (0, {}, r"at least one image; got 0"),
        (3, {"pair": True}, r"an even number of images, two a pair; got 3"),
        (1, {"methods": ()}, r"methods of activation, gradient, occlusion; got none"),
        (1, {"methods": ("rollout",)}, r"got rollout"),
        (1, {"width": 20}, r"at least 80 pixels wide; got 20"),
        (1, {"layer": "layer4"}, r"layer is of the method gradient"),
        (1, {"colour": "red"}, r"colour is of no method"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    count: int, wrong: dict[str, Any], message: str, network: PlaceModel, photos: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        attention_sheet(network, photos[:count], out=tmp_path / "a.png", **wrong)
    with pytest.raises(MissingFileError, match=r"nowhere.png"):
        attention_sheet(network, [photos[0], tmp_path / "nowhere.png"], out=tmp_path / "a.png", maps=tmp_path / "maps")
    assert list(tmp_path.iterdir()) == []


# The command.


@pytest.fixture(scope="module")
def stored(network: PlaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(network, tmp_path_factory.mktemp("model") / "model")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["attention", *map(str, arguments)])


def test_the_command_draws_a_folder(stored: Path, photos: list[Path], tmp_path: Path) -> None:
    done = invoke(photos[0].parent, "--model", stored, "--out", tmp_path / "a.png", "--limit", 3, "--width", 90)
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "a.png")]
    assert image_size(tmp_path / "a.png")[0] == 74 + 44 + 2 * 68 + 120 + 3 * 26
    again = invoke(*photos[:2], "--model", stored, "--out", tmp_path / "a.png")
    assert isinstance(again.exception, OutputExistsError)


def test_the_command_draws_pairs_and_replaces_if_asked(stored: Path, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    pair = invoke(
        *photos[:2], "--model", stored, "--pair", "--method", "gradient", "--method", "occlusion", "--patch", 16, "--stride", 16,
        "--out", tmp_path / "a.png", "--maps", tmp_path / "maps", "--overwrite",
    )  # fmt: skip
    assert pair.exit_code == 0, pair.output
    assert len(list((tmp_path / "maps").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--limit", "0"], r"--limit must be at least 1"), (["--pair"], r"an even number"), (["--method", "x"], r"got x")],
)
def test_the_command_refuses_in_a_sentence(arguments: list[str], message: str, stored: Path, photos: list[Path], tmp_path: Path) -> None:
    given = photos[:3] if "--pair" in arguments else photos
    refused = invoke(*given, "--model", stored, "--out", tmp_path / "a.png", *arguments)
    assert isinstance(refused.exception, InvalidInputError)
    assert message in str(refused.exception)
    (tmp_path / "empty").mkdir()
    assert "there is none" in str(invoke(tmp_path / "empty", "--model", stored, "--out", tmp_path / "a.png").exception)


def test_the_command_has_the_defaults_of_the_function() -> None:
    import inspect

    from typer.main import get_command

    options = {one.name: one.default for one in get_command(cli.app).commands["attention"].params}  # type: ignore[attr-defined]
    assert options["method"] is None, "then it is the function's"
    for function in (attention_sheet, attend):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in options and name not in ("out", "method") and parameter.default is not inspect.Parameter.empty:
                assert options[name] == parameter.default, name


@pytest.mark.slow
def test_an_exported_file_takes_occlusion_alone(network: PlaceModel, photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    stored = save(PlaceModel(replace(network.settings), seed=3), tmp_path / "model")
    subprocess.run(
        [sys.executable, "-m", "covis", "export", str(stored), "--out", str(tmp_path / "m.onnx")], check=True, capture_output=True
    )
    squares = ("--method", "occlusion", "--patch", 16, "--stride", 16)
    for name, spec in (("onnx", tmp_path / "m.onnx"), ("torch", stored)):
        done = invoke(photos[0], "--model", spec, *squares, "--out", tmp_path / f"{name}.png", "--maps", tmp_path / name)
        assert done.exit_code == 0, done.exception
    a, b = (np.load(tmp_path / name / "000-0-a-occlusion.npy") for name in ("onnx", "torch"))
    np.testing.assert_allclose(a, b, atol=1e-2)
    refused = invoke(photos[0], "--model", tmp_path / "m.onnx", "--method", "gradient", "--out", tmp_path / "g.png", "--engine", "onnx")
    assert "needs a network of torch" in str(refused.exception)
