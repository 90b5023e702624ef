"""Extraction: the same vectors in memory, on disk, in one go or after a kill; and the tiny grey image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, SettingsDifferError
from covis.extraction import extract, tiny_images
from covis.images import Images
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

SETTINGS = ModelSettings(
    backbone="resnet10t", backbone_options={"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}, height=32, width=48
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> PlaceModel:
    return PlaceModel(SETTINGS, seed=3)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for number in range(11):
        Image.fromarray(rng.integers(0, 256, (36, 50, 3), dtype=np.uint8)).save(tmp_path / "set" / f"{number}.png")
    return Images(tmp_path / "set", [f"{number}.png" for number in range(11)])


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "set")


def test_in_memory_it_is_describe(model: PlaceModel, images: Images) -> None:
    found = extract(model, images)
    np.testing.assert_allclose(found.vectors, model.describe([images.path(row) for row in range(11)]), atol=1e-6)
    assert (found.names, found.model) == (images.names, model.digest)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_the_folder_holds_what_memory_holds_whatever_the_batch(model: PlaceModel, images: Images, tmp_path: Path, batch: int) -> None:
    memory = extract(model, images)
    disk = extract(model, images, out=tmp_path / "d", batch=batch)
    np.testing.assert_allclose(disk.vectors, memory.vectors, atol=1e-6)
    assert (disk.names, disk.model, disk.history) == (memory.names, memory.model, memory.history)
    assert isinstance(disk.vectors, np.memmap)
    assert (Descriptors.load(tmp_path / "d").vectors == disk.vectors).all()
    assert _names(tmp_path) == ["d"]


def test_half_precision_is_near(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    half = extract(model, images, out=tmp_path / "d", dtype="float16")
    assert half.vectors.dtype == np.float16
    np.testing.assert_allclose(half.vectors, extract(model, images).vectors, atol=1e-3)
    with pytest.raises(InvalidInputError, match="float32"):
        extract(model, images, dtype="float64")  # type: ignore[arg-type]


def test_a_stopped_extraction_goes_on_where_it_was(
    model: PlaceModel, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(model, images)
    last = images.path(9)
    kept = last.read_bytes()
    last.write_bytes(b"x" * len(kept))  # the tenth file does not decode: rows before it are on the disk by then
    with pytest.raises(DamagedFileError, match=r"9\.png"):
        extract(model, images, out=tmp_path / "d", batch=2)
    assert not (tmp_path / "d").exists()
    last.write_bytes(kept)
    for row in range(8):
        images.path(row).write_bytes(b"x" * images.path(row).stat().st_size)  # described already, so not opened again
    resumed = extract(model, images, out=tmp_path / "d", batch=2)
    np.testing.assert_allclose(resumed.vectors, whole.vectors, atol=1e-6)


def test_a_finished_folder_is_returned_and_another_one_refused(
    model: PlaceModel, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d"
    extract(model, images, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(PlaceModel, "describe_pixels", None)  # nothing is described a second time
        extract(model, images, out=out)
    other = PlaceModel(SETTINGS, seed=4)
    with pytest.raises(SettingsDifferError, match=f"model: '{model.digest}' there, '{other.digest}' now"):
        extract(other, images, out=out)
    with pytest.raises(SettingsDifferError, match="dtype"):
        extract(model, images, out=out, dtype="float16")
    with pytest.raises(SettingsDifferError, match="names: 11 images there, 3 now"):
        extract(model, images.select([0, 1, 2]), out=out)
    assert extract(other, images, out=out, overwrite=True).model == other.digest


def test_other_photographs_under_the_same_names_are_noticed(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    extract(model, images, out=tmp_path / "d")
    Image.fromarray(np.zeros((36, 50, 3), dtype=np.uint8)).save(images.path(4))
    with pytest.raises(SettingsDifferError, match="files"):
        extract(model, images, out=tmp_path / "d")


def test_a_missing_image_stops_before_the_first_is_described(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    images.path(10).unlink()
    with pytest.raises(MissingFileError, match=r"10\.png"):
        extract(model, images, out=tmp_path / "d")
    assert _names(tmp_path) == []


def test_a_descriptor_that_is_no_number_names_its_image(images: Images, tmp_path: Path) -> None:
    broken = PlaceModel(dataclasses.replace(SETTINGS), seed=3)
    with torch.no_grad():
        broken.aggregator.p.fill_(float("nan"))
    with pytest.raises(InvalidInputError, match=r"0\.png"):
        extract(broken, images, out=tmp_path / "d")


def test_no_images_give_no_descriptors(model: PlaceModel, images: Images) -> None:
    assert extract(model, images.select(np.arange(0))).vectors.shape == (0, model.dim)


def test_the_bar_is_on_stderr_and_only_where_asked_for(model: PlaceModel, images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    extract(model, images)
    assert capsys.readouterr() == ("", "")
    extract(model, images, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "11/11" in shown.err


def test_the_tiny_image_is_its_definition(images: Images) -> None:
    found = tiny_images(images)
    assert found.vectors.shape == (11, 192)
    assert found.model == "tiny/12x16"
    with Image.open(images.path(3)) as opened:
        grey = np.asarray(opened.convert("L").resize((16, 12), Image.Resampling.BILINEAR), dtype=float).ravel()
    expected = (grey - grey.mean()) / np.sqrt(((grey - grey.mean()) ** 2).sum())
    np.testing.assert_allclose(found.vectors[3], expected, atol=1e-6)
    np.testing.assert_allclose(found.vectors.sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)


def test_brightness_and_contrast_leave_the_tiny_image_nearly_as_it_is(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(60, 180, 48)[None, :, None], (36, 48, 3))
    for name, pixels in (("a.png", ramp), ("b.png", 0.5 * ramp + 100), ("flat.png", np.full_like(ramp, 90))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    a, b, flat = tiny_images(Images(tmp_path, ["a.png", "b.png", "flat.png"]), height=6, width=8).vectors
    assert a @ b > 0.999
    assert (flat == 0).all()


def test_a_tiny_image_of_nothing_is_refused(images: Images) -> None:
    with pytest.raises(InvalidInputError, match="at least 1 x 1"):
        tiny_images(images, height=0)
