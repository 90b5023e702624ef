"""Pixels: every way in gives the same pixels; the store gives what decoding gives, whatever its limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Images
from covis.pixels import PixelStore, decode, decode_ahead, normalize


def _photo(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _folder(root: Path, count: int, *, first: int = 0) -> Images:
    root.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(_photo(first + number)).save(root / f"{number}.png")
    return Images(root, [f"{number}.png" for number in range(count)])


def test_a_path_an_array_and_a_pillow_image_give_the_same_pixels(tmp_path: Path) -> None:
    photo = _photo(0)
    Image.fromarray(photo).save(tmp_path / "a.png")
    ways = [tmp_path / "a.png", str(tmp_path / "a.png"), photo, Image.fromarray(photo)]
    first, *others = [decode(way, height=12, width=16) for way in ways]
    assert first.shape == (3, 12, 16)
    assert first.dtype == np.uint8
    assert all((first == other).all() for other in others)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    photo = _photo(1)
    assert (decode(photo, height=30, width=40) == photo.transpose(2, 0, 1)).all()


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = decode(stripes, height=8, width=8)
    assert abs(small[:, 2:-2, 2:-2].astype(float) - 127.5).max() < 6  # a point sampler would give 0 or 255


def test_a_turned_photograph_comes_upright(tmp_path: Path) -> None:
    photo = _photo(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(photo).save(tmp_path / "turned.png", exif=exif)
    upright = decode(tmp_path / "turned.png", height=40, width=30)
    assert (upright.transpose(1, 2, 0) == np.rot90(photo, -1)).all()
    with Image.open(tmp_path / "turned.png") as opened:
        assert (decode(opened, height=40, width=30) == upright).all()


def test_grey_images_become_three_equal_channels() -> None:
    grey = _photo(3)[..., 0]
    three = decode(grey, height=30, width=40)
    assert (three == grey).all()


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros((3, 4, 4), dtype=np.uint8),
        7,
        None,
    ],
)
def test_what_is_no_image_is_refused(bad: object) -> None:
    with pytest.raises(InvalidInputError, match="must be a path, a Pillow image, or a uint8 array"):
        decode(bad, height=4, width=4)  # type: ignore[arg-type]


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 x 1"):
        decode(_photo(0), height=0, width=4)


def test_normalising_is_the_formula_in_plain_numpy() -> None:
    photo = _photo(4)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 2.0])
    pixels = torch.from_numpy(photo.transpose(2, 0, 1)[None].copy())
    found = normalize(
        pixels, torch.tensor(mean, dtype=torch.float32).reshape(3, 1, 1), torch.tensor(std, dtype=torch.float32).reshape(3, 1, 1)
    )
    np.testing.assert_allclose(found[0].numpy().transpose(1, 2, 0), (photo / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert pixels.dtype == torch.uint8


@pytest.mark.parametrize("batch", [1, 3, 7, 50])
def test_decoding_ahead_keeps_the_order_and_every_image(batch: int) -> None:
    photos = [_photo(seed) for seed in range(7)]
    blocks = list(decode_ahead(photos, height=12, width=16, batch=batch, threads=3))
    assert [len(block) for block in blocks[:-1]] == [batch] * (len(blocks) - 1)
    expected = np.stack([decode(photo, height=12, width=16) for photo in photos])
    assert (torch.cat(blocks).numpy() == expected).all()


def test_decoding_ahead_names_the_file_that_does_not_decode(tmp_path: Path) -> None:
    images = _folder(tmp_path / "set", 5)
    images.path(3).write_bytes(b"no image")
    with pytest.raises(DamagedFileError, match=r"3\.png"):
        list(decode_ahead([images.path(row) for row in range(5)], height=4, width=4, batch=2))


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 image"):
        list(decode_ahead([_photo(0)], height=4, width=4, batch=0))


@pytest.mark.parametrize("limit", [0, 12 * 16 * 3 * 4, 10**9])
def test_the_store_gives_what_decoding_gives_whatever_its_limit(tmp_path: Path, limit: int) -> None:
    scenes = [_folder(tmp_path / "a", 5), _folder(tmp_path / "b", 3, first=50)]
    rng = np.random.default_rng(0)
    with PixelStore(scenes, 12, 16, limit=limit) as store:
        assert len(store) == 8
        for _ in range(4):
            scene = rng.integers(0, 2, 9)
            row = rng.integers(0, np.array([5, 3])[scene])
            expected = np.stack([decode(scenes[s].path(r), height=12, width=16) for s, r in zip(scene, row, strict=True)])
            assert (store.take(scene, row).numpy() == expected).all()
        assert store.kept <= min(8, limit // (12 * 16 * 3))


def test_the_store_reads_a_file_once(tmp_path: Path) -> None:
    images = _folder(tmp_path / "a", 2)
    with PixelStore([images], 12, 16) as store:
        rows = np.array([0, 1])
        before = store.take(np.zeros(2, dtype=np.int64), rows)
        for row in rows:
            images.path(int(row)).unlink()
        assert (store.take(np.zeros(2, dtype=np.int64), rows) == before).all()


def test_the_store_names_a_missing_file(tmp_path: Path) -> None:
    images = _folder(tmp_path / "a", 2)
    images.path(1).unlink()
    with PixelStore([images], 12, 16) as store, pytest.raises(MissingFileError, match=r"1\.png"):
        store.take(np.array([0]), np.array([1]))


# -- like torchvision --


@pytest.mark.parametrize("shape", [(601, 800), (800, 601), (96, 96), (97, 224), (224, 300), (50, 35), (481, 640), (225, 226)])
def test_pixels_are_those_of_torchvision_bit_for_bit(shape: tuple[int, int]) -> None:
    photo = Image.fromarray(_photo(sum(shape), *shape))
    for height, width in ((48, 64), (96, 96), shape):
        expected = np.asarray(transforms.Resize((height, width))(photo)).transpose(2, 0, 1)
        assert (decode(photo, height=height, width=width) == expected).all()
    for side in (33, 96, 224):
        square = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
        assert (decode(photo, height=side, width=side, resize="pil-crop") == np.asarray(square(photo)).transpose(2, 0, 1)).all()


def test_every_way_to_pixels_takes_the_same_resize(tmp_path: Path) -> None:
    images = _folder(tmp_path / "a", 3)
    paths = [images.path(row) for row in range(3)]
    expected = np.stack([decode(path, height=12, width=12, resize="pil-crop") for path in paths])
    assert (expected != np.stack([decode(path, height=12, width=12) for path in paths])).any()
    assert (torch.cat(list(decode_ahead(paths, height=12, width=12, batch=2, resize="pil-crop"))).numpy() == expected).all()
    for limit in (0, 10**6):
        with PixelStore([images], 12, 12, resize="pil-crop", limit=limit) as store:
            assert (store.take(np.zeros(3, dtype=np.int64), np.arange(3)).numpy() == expected).all()


def test_a_crop_is_for_squares_and_an_unknown_way_is_refused(tmp_path: Path) -> None:
    images = _folder(tmp_path / "a", 1)
    for call in (
        lambda resize: decode(_photo(0), height=12, width=16, resize=resize),
        lambda resize: list(decode_ahead([_photo(0)], height=12, width=16, batch=1, resize=resize)),
        lambda resize: PixelStore([images], 12, 16, resize=resize),
    ):
        with pytest.raises(InvalidInputError, match="defined for squares, height = width; got 12 x 16"):
            call("pil-crop")
        with pytest.raises(InvalidInputError, match="must be one of pil, pil-crop, labels; got 'opencv'"):
            call("opencv")
