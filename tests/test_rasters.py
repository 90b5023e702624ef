"""Image and depth files: upright RGB, metres, and damage said by name."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, OutputFailedError
from covis.rasters import image_size, read_depth, read_image, write_depth, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, size=(9, 13, 3), dtype=np.uint8)


def test_pixels_come_back(tmp_path):
    path = write_image(tmp_path / "a b#ü.png", PIXELS)
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert image_size(path) == (9, 13)


@given(depth=arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 65.5, width=32)))
def test_depth_comes_back_to_half_a_millimetre(tmp_path_factory, depth):
    path = tmp_path_factory.mktemp("d") / "d.png"
    found = read_depth(write_depth(path, depth))
    known = depth >= 0.0006
    np.testing.assert_allclose(found[known], depth[known], atol=0.000505)
    assert (found[depth < 0.0004] == 0).all()


def test_unknown_depth_is_zero_either_way(tmp_path):
    raw = np.array([[0, 65535, 1000, 65534]], dtype=np.uint16)
    Image.fromarray(raw).save(tmp_path / "d.png")
    np.testing.assert_allclose(read_depth(tmp_path / "d.png"), [[0, 0, 1, 65.534]])
    np.testing.assert_allclose(read_depth(tmp_path / "d.png", scale=0.01), [[0, 0, 10, 655.34]], rtol=1e-6)
    write_depth(tmp_path / "e.png", np.array([[0.0, 100.0]], dtype=np.float32))
    assert np.asarray(Image.open(tmp_path / "e.png")).tolist() == [[65535, 65535]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_read_upright(tmp_path, orientation):
    """Each EXIF orientation, turned by hand, gives the same picture."""
    upright = PIXELS
    across = upright.transpose(1, 0, 2)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: across,
        6: np.rot90(upright),
        7: across[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)
    assert image_size(tmp_path / "a.png") == (9, 13)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(PIXELS).convert(mode).save(path)
    found = read_image(path)
    assert found.shape == (9, 13, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_images_are_refused(tmp_path, suffix):
    path = write_image(tmp_path / f"a.{suffix}", np.tile(PIXELS, (8, 8, 1)))
    whole = path.read_bytes()
    for share in (0, 0.01, 0.1, 0.4, 0.7, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DamagedFileError, match=rf"a\.{suffix} must decode"):
            read_image(path)


@pytest.mark.parametrize(("read", "suffix"), [(read_image, "png"), (read_image, "jpg"), (read_depth, "png"), (image_size, "jpg")])
def test_damage_is_never_a_foreign_traceback(tmp_path, read, suffix):
    random = np.random.default_rng(1)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(PIXELS[..., 0].astype(np.uint16)) if read is read_depth else Image.fromarray(PIXELS)
    picture.save(stream, format={"jpg": "JPEG"}.get(suffix, "PNG"), exif=exif)
    path, whole = tmp_path / f"a.{suffix}", stream.getvalue()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), size=random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(bytes(damaged)[: random.integers(1, len(whole) + 1)])
        try:
            read(path)
        except CovisError as error:
            assert path.name in str(error)  # noqa: PT017 - most damage is refused, some leaves an image


def test_what_is_no_image_is_said(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DamagedFileError, match=r"a\.png"):
        read_image(tmp_path / "a.png")
    with pytest.raises(MissingFileError, match=r"b\.png"):
        read_image(tmp_path / "b.png")
    with pytest.raises(DamagedFileError):
        read_image(tmp_path)
    write_image(tmp_path / "c.png", PIXELS)
    with pytest.raises(DamagedFileError, match="colour image"):
        read_depth(tmp_path / "c.png")


@pytest.mark.parametrize("pixels", [PIXELS[..., 0], PIXELS.astype(float), PIXELS[..., :2]])
def test_only_rgb_is_written(tmp_path, pixels):
    with pytest.raises(InvalidInputError, match=r"uint8.*a\.png"):
        write_image(tmp_path / "a.png", pixels)


@pytest.mark.parametrize("depth", [np.full((2, 2), np.nan), np.full((2, 2), -1.0), np.zeros(3), np.full((1, 1), np.inf)])
def test_only_finite_depth_is_written(tmp_path, depth):
    with pytest.raises(InvalidInputError, match=r"finite.*a\.png"):
        write_depth(tmp_path / "a.png", depth)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_image(tmp_path, full_disk):
    path = write_image(tmp_path / "a.png", PIXELS)
    with full_disk(1500), pytest.raises(OutputFailedError, match=r"a\.png"):
        write_image(path, np.random.default_rng(0).integers(0, 256, size=(99, 99, 3), dtype=np.uint8))
    np.testing.assert_array_equal(read_image(path), PIXELS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
