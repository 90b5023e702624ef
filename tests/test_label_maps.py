"""Label maps as files: the numbers of any tool's PNG as they are stored, and everything else refused by name."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputFailedError
from covis.rasters import image_size, read_label_map, write_label_map
from covis.semantics import NUMBERINGS

IDS = np.array([[0, 1, 2], [18, 254, 255]], dtype=np.uint8)


def grey_png(path, ids, bits):
    """A grey PNG of so many bits a pixel, written by hand: Pillow writes none of 2 or 4."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = ids.shape
    spread = np.unpackbits(ids[..., None], axis=2)[..., 8 - bits :].reshape(height, width * bits)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in spread)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


@given(ids=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_numbers_come_back(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("m")
    for palette in (None, NUMBERINGS["ade20k"].palette):
        found = read_label_map(write_label_map(folder / "m.png", ids, palette=palette))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, ids)


def test_a_palette_is_only_for_looking(tmp_path):
    path = write_label_map(tmp_path / "m.png", IDS, palette=NUMBERINGS["cityscapes-train"].palette)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((2, 0)) == (70, 70, 70)
    assert image_size(path) == (2, 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_few_bits_is_not_spread(tmp_path, bits):
    ids = np.arange(15, dtype=np.uint8).reshape(3, 5) & (2**bits - 1)
    np.testing.assert_array_equal(read_label_map(grey_png(tmp_path / "m.png", ids, bits)), ids)


def test_maps_of_other_tools(tmp_path):
    wide = Image.fromarray(IDS.astype(np.uint16))
    wide.save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "wide.png"), IDS)
    Image.fromarray(IDS > 1).save(tmp_path / "one.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "one.png"), IDS > 1)
    few = Image.fromarray(IDS % 4)
    few.putpalette([10, 20, 30] * 4)
    few.save(tmp_path / "few.png", bits=2, transparency=0)
    np.testing.assert_array_equal(read_label_map(tmp_path / "few.png"), IDS % 4)


def test_a_map_is_upright_as_its_photograph_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(IDS).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.png"), np.rot90(IDS, -1))
    assert image_size(tmp_path / "m.png") == (3, 2)


def rgb(path):
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)


def alpha(path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).convert("LA").save(path)


def jpeg(path):
    Image.fromarray(IDS).save(path, format="JPEG")


def tiff(path):
    Image.fromarray(IDS).save(path, format="TIFF")


def large(path):
    Image.fromarray(np.array([[0, 256, 3000]], dtype=np.uint16)).save(path)


def text(path):
    path.write_text("no image")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rgb, r"single-channel image of class numbers; .* has mode 'RGB'\. Is it a photograph"),
        (alpha, r"has mode 'LA'"),
        (jpeg, r"must be a PNG, which keeps numbers as they are; .* is JPEG"),
        (tiff, r"must be a PNG, which keeps numbers as they are; .* is TIFF"),
        (large, r"from 0 to 255; .* reaches 3000"),
        (text, r"of no kind that Pillow knows"),
        (empty, r"it is empty"),
    ],
)
def test_what_is_no_map_is_refused_in_words(tmp_path, damage, words):
    damage(tmp_path / "m.png")
    with pytest.raises(DamagedFileError, match=words) as refused:
        read_label_map(tmp_path / "m.png")
    assert "m.png" in str(refused.value)


def test_a_truncated_or_missing_map(tmp_path, refuses_every_cut):
    path = write_label_map(tmp_path / "m.png", np.random.default_rng(0).integers(0, 256, size=(40, 40), dtype=np.uint8))
    refuses_every_cut(path, lambda: read_label_map(path), harmless=20)  # check values and the end chunk: no pixel is in them
    with pytest.raises(MissingFileError, match=r"gone\.png must exist"):
        read_label_map(tmp_path / "gone.png")


def test_a_flipped_byte_never_gives_other_numbers(tmp_path, never_wrong):
    ids = np.random.default_rng(0).integers(0, 256, size=(30, 40), dtype=np.uint8)
    path = write_label_map(tmp_path / "m.png", ids)
    never_wrong(path, lambda: read_label_map(path), lambda found: np.array_equal(found, ids))


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, full_disk):
    for ids, name in [(IDS.astype(np.int64), "m.png"), (IDS[0], "m.png"), (IDS, "m.jpg"), (IDS[:0], "m.png")]:
        with pytest.raises(InvalidInputError, match=r"must be \(height, width\) uint8 and a \.png"):
            write_label_map(tmp_path / name, ids)
    for palette in (np.zeros((3, 3), dtype=np.uint8), np.zeros((256, 3))):
        with pytest.raises(InvalidInputError, match=r"palette must be \(256, 3\) uint8"):
            write_label_map(tmp_path / "m.png", IDS, palette=palette)
    big = np.random.default_rng(0).integers(0, 256, size=(300, 300), dtype=np.uint8)
    with full_disk(4096), pytest.raises(OutputFailedError):
        write_label_map(tmp_path / "m.png", big)
    assert list(tmp_path.iterdir()) == []
