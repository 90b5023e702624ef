"""Photographs as they come: deep, grey, turned, transparent, broken. Each kind of file gives the pixels that the docs say."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError
from covis.pixels import decode
from covis.rasters import image_size, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, size=(9, 13, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, size=(9, 13), dtype=np.uint16)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def png(path: Path, values: np.ndarray, colour: int) -> Path:
    """A PNG of 16 bits a channel by hand (Pillow writes grey ones only); colour: PNG's type, 2 RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def tiff(path: Path, data: bytes, shape: tuple[int, int], *, order: str = "<", **changed: int) -> Path:
    """A grey TIFF of one strip by hand; what is changed are tags, by name."""
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "start": 273, "samples": 277, "rows": 278,
            "bytes": 279, "orientation": 274, "format": 339}  # fmt: skip
    found = {"width": shape[1], "height": shape[0], "bits": 16, "compression": 1, "photometric": 1, "samples": 1, "rows": shape[0],
             "bytes": len(data), "format": 1} | changed  # fmt: skip
    found["start"] = 8 + 2 + 12 * (len(found) + 1) + 4
    entries = b"".join(struct.pack(f"{order}HHII", tags[name], 4, 1, found[name]) for name in sorted(found, key=lambda name: tags[name]))
    path.write_bytes((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(found)) + entries + bytes(4) + data)
    return path


def same(path: Path, expected: np.ndarray) -> None:
    """The file reads as expected, and so does every other way to its pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image(path)
    np.testing.assert_array_equal(found, expected)
    height, width = expected.shape[:2]
    assert image_size(path) == (height, width)
    np.testing.assert_array_equal(decode(path, height=height, width=width), expected.transpose(2, 0, 1))
    with path.open("rb") as stream, Image.open(stream) as opened:
        np.testing.assert_array_equal(decode(opened, height=height, width=width), expected.transpose(2, 0, 1))


# -- more than eight bits --


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / f"a.{suffix}")
    same(tmp_path / f"a.{suffix}", grey(DEEP // 256))


def test_eight_bits_survive_the_way_through_sixteen(tmp_path: Path) -> None:
    values = PIXELS[..., 0]
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "a.png")  # 0 stays black, 255 becomes 65535
    same(tmp_path / "a.png", grey(values))


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_and_colour_of_sixteen_bits_agree(tmp_path: Path, order: str) -> None:
    same(png(tmp_path / "rgb.png", np.stack([DEEP, DEEP[::-1], DEEP], axis=2), 2), np.stack([DEEP, DEEP[::-1], DEEP], axis=2) // 256)
    same(png(tmp_path / "la.png", np.stack([DEEP, DEEP[::-1]], axis=2), 4), grey(DEEP // 256))
    same(png(tmp_path / "rgba.png", np.stack([DEEP, DEEP, DEEP, DEEP[::-1]], axis=2), 6), grey(DEEP // 256))
    same(tiff(tmp_path / "big.tif", DEEP.astype(f"{order}u2").tobytes(), DEEP.shape, order=order), grey(DEEP // 256))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_and_tiff_images_are_turned_too(tmp_path: Path, orientation: int) -> None:
    """Pillow by itself turns big-endian ones, and uncompressed grey TIFFs that it is given by name, wrongly."""
    exif = Image.Exif()
    exif[0x0112] = orientation

    def turned(values: np.ndarray) -> np.ndarray:
        across = values.swapaxes(0, 1)
        return np.ascontiguousarray(
            {1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: across, 6: np.rot90(values), 7: across[::-1, ::-1],
             8: np.rot90(values, -1)}[orientation]
        )  # fmt: skip

    deep = turned(DEEP)
    Image.fromarray(deep).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(deep).save(tmp_path / "a.tif", exif=exif)
    Image.fromarray(deep).save(tmp_path / "packed.tif", exif=exif, compression="tiff_lzw")
    for order in "<>":
        tiff(tmp_path / f"{order}.tif", deep.astype(f"{order}u2").tobytes(), deep.shape, order=order, orientation=orientation)
    for name in ("a.png", "a.tif", "packed.tif", "<.tif", ">.tif"):
        same(tmp_path / name, grey(DEEP // 256))
    Image.fromarray(turned(PIXELS)).save(tmp_path / "colour.tif", exif=exif)
    same(tmp_path / "colour.tif", PIXELS)
    Image.fromarray(turned(PIXELS[..., 0])).save(tmp_path / "grey.tif", exif=exif)
    same(tmp_path / "grey.tif", grey(PIXELS[..., 0]))


def test_integers_of_thirty_two_bits_count_as_sixteen_and_are_refused_beyond(tmp_path: Path) -> None:
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "a.tif")
    same(tmp_path / "a.tif", grey(DEEP // 256))
    for value in (-1, 65536):
        Image.fromarray(np.full((2, 2), value, dtype=np.int32)).save(tmp_path / "b.tif")
        with pytest.raises(DamagedFileError, match=rf"b\.tif.*must be in \[0, 65535\].*found {value} to {value}"):
            read_image(tmp_path / "b.tif")
    Image.fromarray(np.full((2, 2), 200, dtype=np.int32)).save(tmp_path / "b.tif")  # as 16 bits it would be black
    with pytest.raises(DamagedFileError, match=r"integers of 32 bits reach only 200"):
        read_image(tmp_path / "b.tif")


def test_twelve_bits_and_white_as_zero(tmp_path: Path) -> None:
    values = (np.arange(24, dtype=np.uint16) * 170).reshape(2, 12)
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)  # two values in three bytes
    same(tiff(tmp_path / "twelve.tif", packed.tobytes(), (2, 12), bits=12), grey(values // 16))
    same(tiff(tmp_path / "white.tif", DEEP.astype("<u2").tobytes(), DEEP.shape, photometric=0), grey(255 - DEEP // 256))


def test_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)).save(tmp_path / "f.tif")
    with pytest.raises(DamagedFileError, match=r"f\.tif.*floats have no range.*store it with 8 or 16 bits"):
        read_image(tmp_path / "f.tif")
    with Image.open(tmp_path / "f.tif") as opened, pytest.raises(InvalidInputError, match="floats have no range"):
        decode(opened, height=2, width=3)


# -- other colours --


def test_grey_and_one_bit(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "grey.png")
    same(tmp_path / "grey.png", grey(PIXELS[..., 0]))
    Image.fromarray(PIXELS[..., 0] > 127).save(tmp_path / "bit.png")
    same(tmp_path / "bit.png", grey(np.where(PIXELS[..., 0] > 127, 255, 0)))


def test_alpha_is_dropped_and_the_stored_colours_stay(tmp_path: Path) -> None:
    alpha = np.random.default_rng(2).integers(0, 256, size=(9, 13, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)).save(tmp_path / "rgba.png")
    same(tmp_path / "rgba.png", PIXELS)
    Image.fromarray(np.concatenate([PIXELS[..., :1], alpha], axis=2), mode=None).save(tmp_path / "la.png")
    same(tmp_path / "la.png", grey(PIXELS[..., 0]))


@pytest.mark.parametrize("transparency", [bytes([0, 128, 255, 7]), 2])
def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path, transparency: bytes | int) -> None:
    colours = np.array([[255, 0, 0], [0, 200, 30], [9, 8, 7], [250, 250, 250]], dtype=np.uint8)
    chosen = np.random.default_rng(3).integers(0, 4, size=(9, 13)).astype(np.uint8)
    picture = Image.fromarray(chosen).convert("P")
    picture.putpalette(colours.tobytes())
    picture.putdata(chosen.ravel().tolist())
    picture.save(tmp_path / "p.png", transparency=transparency)
    same(tmp_path / "p.png", colours[chosen])


def test_cmyk_with_and_without_the_inversion_of_adobe(tmp_path: Path) -> None:
    inks = np.random.default_rng(4).integers(0, 256, size=(8, 8, 4), dtype=np.uint8)
    Image.frombytes("CMYK", (8, 8), inks.tobytes()).save(tmp_path / "c.tif")
    white = 255 - inks[..., :3].astype(float)
    expected = white * (255 - inks[..., 3:].astype(float)) / 255
    np.testing.assert_allclose(read_image(tmp_path / "c.tif"), expected, atol=1)
    flat = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan
    flat.save(tmp_path / "c.jpg", quality=100)
    assert b"Adobe" in (tmp_path / "c.jpg").read_bytes()  # which stores inks the other way round
    np.testing.assert_allclose(read_image(tmp_path / "c.jpg"), np.broadcast_to([0, 255, 255], (16, 16, 3)), atol=1)


def test_of_a_moving_picture_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "b.tif", "c.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        same(tmp_path / name, np.full((8, 8, 3), 10, dtype=np.uint8))


def test_a_turned_jpeg_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (16, 24, 3))
    Image.fromarray(np.ascontiguousarray(np.rot90(ramp))).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg"), ramp, atol=3)


# -- what is none --


def damaged(folder: Path) -> dict[str, Path]:
    """A file of each kind that does not decode."""
    Image.fromarray(np.tile(PIXELS, (8, 8, 1))).save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    contents = {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpg": b"<html>404 Not Found</html>",
        "head.jpg": whole[:20],
        "zeros.png": bytes(1000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.jpg").mkdir()
    return {name: folder / name for name in (*contents, "folder.jpg")}


def test_what_does_not_decode_is_named(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        with pytest.raises(DamagedFileError, match=rf"{name} must decode as an image; it does not \("):
            read_image(path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(MissingFileError, match=r"gone\.jpg must exist"):
        read_image(tmp_path / "gone.jpg")


def test_a_picture_beyond_what_pillow_decodes_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # of which Pillow decodes twice as many
    with pytest.raises(DamagedFileError, match=r"huge\.png.*1600 pixels.*Store it smaller"):
        read_image(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_image(tmp_path / "huge.png").shape == (40, 40, 3)
    assert [one.category for one in said] == [Image.DecompressionBombWarning]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DamagedFileError, match=r"huge\.png.*1600 pixels"):
            read_image(tmp_path / "huge.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.gif", "a.webp", "a.png"])
def test_a_flipped_byte_is_an_image_or_an_error_of_ours(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path, exif=exif)
    whole = path.read_bytes()
    for _ in range(200):
        broken = bytearray(whole)
        for place in random.integers(0, min(len(whole), 300), size=random.integers(1, 4)):
            broken[place] = random.integers(0, 256)
        path.write_bytes(bytes(broken)[: random.integers(1, len(whole) + 1)])
        try:
            read_image(path)
        except CovisError as error:
            assert name in str(error)  # noqa: PT017 - most damage is refused, some leaves an image
