"""Folders of photographs: EXIF built by hand, byte by byte; what is missing or odd in it; copies that get a position."""

import contextlib
import io
import os
import struct
import warnings
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from covis.coordinates import to_degrees, to_metres
from covis.datasets.photographs import draft_exif, draft_folder, read_exif, read_folder, write_exif, write_folder
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
HERE = {1: (ASCII, b"N\0"), 2: (RATIONAL, (55, 1, 40, 1, 3000, 100)), 3: (ASCII, b"E\0"), 4: (RATIONAL, (12, 1, 34, 1, 12, 1))}
LATITUDE, LONGITUDE = 55 + 40 / 60 + 30 / 3600, 12 + 34 / 60 + 12 / 3600


def directory(tags, at, order, following=0):
    """One TIFF directory that starts at byte `at`, written from the standard's text."""
    entries, heap = b"", b""
    for tag, (kind, value) in sorted(tags.items()):
        if kind in (ASCII, UNDEFINED):
            packed, count = value, len(value)
        else:
            values = value if isinstance(value, tuple) else (value,)
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            count = len(values) // (2 if kind == RATIONAL else 1)
        if len(packed) > 4:
            where = at + 2 + 12 * len(tags) + 4 + len(heap)
            heap += packed + bytes(len(packed) % 2)
            packed = struct.pack(f"{order}I", where)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + packed.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + heap


def exif(gps=None, photo=None, main=None, *, order="<", thumbnail=None):
    """An EXIF block: header, main directory, those of the photograph and the GPS, and a directory for a thumbnail."""
    main = dict(main or {})
    parts = {tag: tags for tag, tags in ((0x8769, photo), (0x8825, gps)) if tags is not None}
    size = len(directory(main | dict.fromkeys(parts, (LONG, 0)), 8, order))
    blocks, at = b"", 8 + size
    for tag, tags in parts.items():
        block = directory(tags, at, order)
        main[tag] = LONG, at
        blocks, at = blocks + block, at + len(block)
    following = at if thumbnail else 0
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + head + directory(main, 8, order, following) + blocks + (directory(thumbnail, at, order) if thumbnail else b"")


def photo(path, block=b"", *, size=(36, 24), seed=1, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".webp": "WEBP"}
    Image.fromarray(pixels).save(path, format=kinds[path.suffix.lower()], **({"exif": block} if block else {}), **options)
    return path


def gps(latitude, longitude, **more):
    """GPS tags for decimal degrees, to 1e-6 degrees."""
    tags = {1: (ASCII, b"N\0" if latitude >= 0 else b"S\0"), 3: (ASCII, b"E\0" if longitude >= 0 else b"W\0")}
    for tag, value in ((2, latitude), (4, longitude)):
        tags[tag] = RATIONAL, (round(abs(value) * 1e6), 10**6, 0, 1, 0, 1)
    return tags | more


def one(tmp_path, block, *, size=(36, 24), **options):
    photo(tmp_path / "p" / "a.jpg", block, size=size)
    (scene,) = read_exif(tmp_path / "p", **options)
    return scene.database


@pytest.mark.parametrize("order", ["<", ">"])
def test_position_heading_time_and_opening_are_read(tmp_path, order):
    tags = HERE | {7: (RATIONAL, (13, 1, 5, 1, 2050, 100)), 16: (ASCII, b"T\0"), 17: (RATIONAL, (27150, 100)), 29: (ASCII, b"2024:03:09\0")}
    block = exif(tags, {0xA405: (SHORT, 18), 0x9003: (ASCII, b"2001:01:01 00:00:00\0")}, order=order)
    images = one(tmp_path, block)
    assert images.names == ("a.jpg",)
    assert images.crs == "EPSG:32633"
    np.testing.assert_allclose(images.xy, to_metres([LATITUDE], [LONGITUDE], crs="EPSG:32633"), atol=1e-6)
    assert images.heading.tolist() == [271.5]
    assert images.time.tolist() == [datetime(2024, 3, 9, 13, 5, 20, 500000, tzinfo=UTC).timestamp()]
    np.testing.assert_allclose(images.fov, [90])  # 3:2 landscape, f = 18 mm: 2 atan(18 / 18)


@pytest.mark.parametrize(("letters", "signs"), [("NE", (1, 1)), ("SE", (-1, 1)), ("NW", (1, -1)), ("SW", (-1, -1))])
def test_the_letters_give_the_signs(tmp_path, letters, signs):
    tags = HERE | {1: (ASCII, letters[0].encode() + b"\0"), 3: (ASCII, letters[1].encode() + b"\0")}
    images = one(tmp_path, exif(tags))
    expected = to_metres([signs[0] * LATITUDE], [signs[1] * LONGITUDE], crs=images.crs)
    np.testing.assert_allclose(images.xy, expected, atol=1e-6)
    assert images.crs[5:8] == ("326" if signs[0] > 0 else "327")


@pytest.mark.parametrize(
    "parts", [(55675, 1000, 0, 1, 0, 1), (55, 1, 405, 10, 0, 1), (55, 1, 40, 1, 30, 1), (55675, 1000), (55, 1, 405, 10)]
)
def test_degrees_are_read_in_each_of_their_spellings(tmp_path, parts):
    images = one(tmp_path, exif(HERE | {2: (RATIONAL, parts)}))
    np.testing.assert_allclose(images.xy, to_metres([LATITUDE], [LONGITUDE], crs=images.crs), atol=1e-6)


WRONG = {
    "nothing": ({}, "holds no GPS position"),
    "no letter": ({2: HERE[2], 4: HERE[4], 3: HERE[3]}, "does not read"),
    "no longitude": ({1: HERE[1], 2: HERE[2]}, "does not read"),
    "zero denominator": (HERE | {2: (RATIONAL, (55, 1, 40, 0, 0, 1))}, "does not read"),
    "all zero over zero": (HERE | {2: (RATIONAL, (0, 0, 0, 0, 0, 0)), 4: (RATIONAL, (0, 0, 0, 0, 0, 0))}, "does not read"),
    "95 degrees": (HERE | {2: (RATIONAL, (95, 1, 0, 1, 0, 1))}, "does not read"),
    "200 degrees": (HERE | {4: (RATIONAL, (200, 1, 0, 1, 0, 1))}, "does not read"),
    "99 minutes": (HERE | {2: (RATIONAL, (55, 1, 99, 1, 0, 1))}, "does not read"),
    "four numbers": (HERE | {2: (RATIONAL, (55, 1, 1, 1, 1, 1, 1, 1))}, "does not read"),
    "text": (HERE | {2: (ASCII, b"fifty-five\0")}, "does not read"),
    "the other letter": (HERE | {1: (ASCII, b"E\0")}, "does not read"),
    "null island": (HERE | {2: (RATIONAL, (0, 1, 0, 1, 0, 1)), 4: (RATIONAL, (0, 1, 0, 1, 0, 1))}, "stands for none"),
    "another datum": (HERE | {18: (ASCII, b"TOKYO\0")}, "'TOKYO'"),
    "beyond UTM": (HERE | {2: (RATIONAL, (86, 1, 0, 1, 0, 1))}, "on the globe"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_position_that_cannot_be_used_is_a_problem_with_its_reason(tmp_path, case):
    tags, said = WRONG[case]
    photo(tmp_path / "p" / "a.jpg", exif(tags))
    photo(tmp_path / "p" / "b.jpg", exif(HERE))
    (draft,) = draft_exif(tmp_path / "p")
    ((row, problem),) = draft.database.invalid()
    assert (row, problem.kind, problem.name, problem.where) == (0, "position", "a.jpg", str(tmp_path / "p"))
    assert said in problem.what
    with pytest.raises(InvalidInputError, match=r"1 of 2 images.*a\.jpg"):
        read_exif(tmp_path / "p")
    with pytest.warns(CovisWarning, match=r"a\.jpg.*left out"):
        (scene,) = read_exif(tmp_path / "p", invalid="skip")
    assert scene.database.names == ("b.jpg",)
    (scene,) = read_exif(tmp_path / "p", positions="none")
    assert scene.database.names == ("a.jpg", "b.jpg")
    assert scene.database.xy is None


@pytest.mark.parametrize("datum", [b"WGS-84\0", b"WGS84\0", b"wgs 1984\0", b"\0", b"JGD2011\0"])
def test_frames_that_agree_with_wgs84_are_taken(tmp_path, datum):
    assert len(one(tmp_path, exif(HERE | {18: (ASCII, datum)}))) == 1


def test_what_does_not_open_is_a_problem_whether_positions_are_asked_for_or_not(tmp_path):
    photo(tmp_path / "p" / "a.jpg", exif(HERE))
    (tmp_path / "p" / "b.jpg").write_bytes(b"no image")
    (tmp_path / "p" / "c.png").write_bytes(b"")
    (tmp_path / "p" / "d.jpg").symlink_to("nowhere")
    for positions in ("exif", "none"):
        (draft,) = draft_exif(tmp_path / "p", positions=positions)
        found = [(problem.kind, problem.name) for _, problem in draft.database.invalid()]
        assert found == [("image", "b.jpg"), ("image", "c.png"), ("image", "d.jpg")]
        with pytest.raises(InvalidInputError, match=r"1 of 4 images .* d\.jpg"):
            draft.scene()
        with pytest.raises(InvalidInputError, match=r"3 of 4 images .* b\.jpg .*does not open as an image"):
            draft.scene(missing="ignore")


def test_headings(tmp_path):
    def with_heading(number, over, ref=b"T\0"):
        return exif(HERE | {16: (ASCII, ref), 17: (RATIONAL, (number, over))})

    for name, block in {
        "a": with_heading(360, 1), "b": with_heading(0, 1), "c": exif(HERE), "d": with_heading(1, 0), "e": with_heading(35999, 100),
        "f": with_heading(905, 10, b"M\0"), "g": with_heading(0, 0, b"M\0"),
    }.items():  # fmt: skip
        photo(tmp_path / "p" / f"{name}.jpg", block)
    with pytest.warns(CovisWarning, match="1 of 7 photographs have a heading from magnetic north"):
        (scene,) = read_exif(tmp_path / "p")
    np.testing.assert_array_equal(scene.database.heading, [0, 0, np.nan, np.nan, 359.99, 90.5, np.nan])
    photo(tmp_path / "p" / "f.jpg", with_heading(361, 1))
    with pytest.raises(InvalidInputError, match=r"f\.jpg.*heading is 361"):
        read_exif(tmp_path / "p")


def test_a_column_that_no_photograph_has_is_absent(tmp_path):
    images = one(tmp_path, exif(HERE))
    assert images.heading is images.time is images.fov is None


GPS_TIME = {7: (RATIONAL, (1, 1, 2, 1, 3, 1)), 29: (ASCII, b"2024:01:01\0")}
TAKEN = {0x9003: (ASCII, b"2020:06:01 12:00:00\0")}


@pytest.mark.parametrize(("tags", "photograph", "expected"), [
    (GPS_TIME, TAKEN, "2024-01-01T01:02:03+00:00"),
    (GPS_TIME | {29: (ASCII, b"2024-01-01\0")}, {}, "2024-01-01T01:02:03+00:00"),
    ({7: GPS_TIME[7]}, TAKEN, "2020-06-01T12:00:00+00:00"),  # a time of day alone is of no day
    ({29: GPS_TIME[29]}, TAKEN, "2020-06-01T12:00:00+00:00"),
    (GPS_TIME | {7: (RATIONAL, (1, 1, 2, 0, 3, 1))}, TAKEN, "2020-06-01T12:00:00+00:00"),
    (GPS_TIME | {7: (RATIONAL, (25, 1, 2, 1, 3, 1))}, TAKEN, "2020-06-01T12:00:00+00:00"),
    (GPS_TIME | {7: (RATIONAL, (1, 1))}, TAKEN, "2020-06-01T12:00:00+00:00"),
    ({}, TAKEN | {0x9011: (ASCII, b"+02:00\0")}, "2020-06-01T10:00:00+00:00"),
    ({}, TAKEN | {0x9011: (ASCII, b"-05:30\0")}, "2020-06-01T17:30:00+00:00"),
    ({}, TAKEN | {0x9011: (ASCII, b"   :  \0")}, "2020-06-01T12:00:00+00:00"),
    ({}, TAKEN | {0x9291: (ASCII, b"25\0")}, "2020-06-01T12:00:00.250000+00:00"),
    ({}, {0x9003: (ASCII, b"0000:00:00 00:00:00\0")}, None),
    ({}, {0x9003: (ASCII, b"yesterday\0")}, None),
    ({}, {0x9003: (UNDEFINED, b"\xff" * 20)}, None),
    ({}, {}, None),
])  # fmt: skip
def test_times(tmp_path, tags, photograph, expected):
    images = one(tmp_path, exif(HERE | tags, photograph))
    if expected is None:
        assert images.time is None
    else:
        assert images.time.tolist() == [datetime.fromisoformat(expected).timestamp()]


@pytest.mark.parametrize(("size", "orientation", "expected"), [
    ((36, 24), 1, 2 * np.arctan(18 / 26)),
    ((36, 24), 3, 2 * np.arctan(18 / 26)),
    ((36, 24), 6, 2 * np.arctan(12 / 26)),  # lies on its side: upright it is 24 wide
    ((36, 24), 8, 2 * np.arctan(12 / 26)),
    ((24, 36), 1, 2 * np.arctan(12 / 26)),
    ((24, 36), 5, 2 * np.arctan(18 / 26)),
    ((40, 30), 1, 2 * np.arctan(np.hypot(18, 12) * 0.8 / 26)),  # 4:3 by the diagonal
])  # fmt: skip
def test_the_opening_angle_is_that_of_the_upright_photograph(tmp_path, size, orientation, expected):
    images = one(tmp_path, exif(HERE, {0xA405: (SHORT, 26)}, {0x0112: (SHORT, orientation)}), size=size)
    np.testing.assert_allclose(images.fov, [np.degrees(expected)])


def test_an_opening_angle_is_for_all_or_for_none(tmp_path):
    photo(tmp_path / "p" / "a.jpg", exif(HERE, {0xA405: (SHORT, 26)}))
    assert read_exif(tmp_path / "p")[0].database.fov is not None
    assert read_exif(tmp_path / "p", fov="none")[0].database.fov is None
    photo(tmp_path / "p" / "b.jpg", exif(HERE, {0xA405: (SHORT, 0)}))  # the standard: 0 means unknown
    assert read_exif(tmp_path / "p")[0].database.fov is None


def test_every_format_is_read(tmp_path):
    folder = tmp_path / "p"
    names = ["a.JPG", "b.jpeg", "c.Png", "d.webp", "e.tif", "f.TIFF"]
    for name in names:
        photo(folder / name, exif(HERE))
    for name in ("notes.txt", "g.jpg.bak", ".hidden.jpg", ".thumbs/h.jpg", "jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (scene,) = read_exif(folder)
    assert scene.database.names == tuple(names)
    np.testing.assert_allclose(scene.database.xy, np.tile(to_metres([LATITUDE], [LONGITUDE], crs="EPSG:32633"), (6, 1)), atol=1e-6)


def png_chunks(data):
    """(kind, payload) of each chunk: written from the PNG standard."""
    at, chunks = 8, []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload)) for kind, payload in chunks
    )


def test_exif_behind_the_pixels_of_a_png_is_read_without_decoding_them(tmp_path, monkeypatch):
    path = photo(tmp_path / "p" / "a.png", exif(HERE))
    chunks = png_chunks(path.read_bytes())
    block = next(chunk for chunk in chunks if chunk[0] == b"eXIf")
    late = [chunk for chunk in chunks if chunk is not block]
    path.write_bytes(png([*late[:-1], block, late[-1]]))
    photo(tmp_path / "p" / "b.png")
    photo(tmp_path / "p" / "c.jpg", exif(HERE))

    def refuse(*_):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    with pytest.warns(CovisWarning, match=r"b\.png"):
        (scene,) = read_exif(tmp_path / "p", invalid="skip")
    assert scene.database.names == ("a.png", "c.jpg")


def test_one_side_and_two(tmp_path):
    root = tmp_path / "city"
    for name in ("x/1.jpg", "2.jpg", "x/y/3.jpg"):
        photo(root / name, exif(HERE))
    (scene,) = read_exif(root)
    assert (scene.name, scene.split, scene.training) == ("city", "test", True)
    assert scene.database.names == ("2.jpg", "x/1.jpg", "x/y/3.jpg")
    assert scene.database.root == root
    for name in ("database/x/1.jpg", "queries/1.jpg"):
        photo(root / name, exif(HERE))
    for read in (read_exif, read_folder):
        with pytest.warns(CovisWarning, match="3 photographs that lie in neither"):
            (scene,) = read(root, split="val")
        assert (scene.split, scene.training, scene.database.names, scene.queries.names) == ("val", False, ("x/1.jpg",), ("1.jpg",))
        assert scene.queries.path(0) == root / "queries" / "1.jpg"
        with pytest.warns(CovisWarning, match="neither"):
            (scene,) = read(root, split="train")
        assert scene.training
        assert scene.database.names == ("x/1.jpg",)


def test_both_sides_share_the_zone_and_a_frame_may_be_asked_for(tmp_path):
    photo(tmp_path / "p" / "database" / "a.jpg", exif(gps(55.6, 12.1)))
    photo(tmp_path / "p" / "database" / "b.jpg", exif(gps(55.6, 12.2)))
    photo(tmp_path / "p" / "queries" / "c.jpg", exif(gps(55.6, 11.9)))
    with pytest.warns(CovisWarning, match="1 of 3 positions lie in another UTM zone"):
        (scene,) = read_exif(tmp_path / "p")
    assert scene.database.crs == scene.queries.crs == "EPSG:32633"
    np.testing.assert_allclose(scene.queries.xy, to_metres([55.6], [11.9], crs="EPSG:32633"), atol=1e-6)
    (scene,) = read_exif(tmp_path / "p", crs="EPSG:32632")
    np.testing.assert_allclose(scene.queries.xy, to_metres([55.6], [11.9], crs="EPSG:32632"), atol=1e-6)
    photo(tmp_path / "p" / "queries" / "d.jpg", exif(gps(40.0, -3.0)))
    with pytest.raises(InvalidInputError, match="span"):
        read_exif(tmp_path / "p")


def test_a_folder_is_read_without_opening_a_file(tmp_path):
    (tmp_path / "p" / "deep").mkdir(parents=True)
    for name in ("b.jpg", "deep/a.PNG", "c.txt", ".d.jpg"):
        (tmp_path / "p" / name).write_bytes(b"")
    (scene,) = read_folder(tmp_path / "p")
    assert scene.database.names == ("b.jpg", "deep/a.PNG")
    assert scene.training
    assert scene.database.xy is scene.database.crs is None
    assert draft_folder(tmp_path / "p")[0].database.missing() == []


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    photo(tmp_path / "elsewhere" / "a.jpg")
    photo(tmp_path / "p" / "b.jpg")
    (tmp_path / "p" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "p" / "self").symlink_to(tmp_path / "p")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "p")
    assert read_folder(tmp_path / "p")[0].database.names == ("b.jpg", "linked/a.jpg")


def test_what_is_no_folder_of_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "p" / "database" / "a.jpg")
    (tmp_path / "p" / "queries").mkdir()
    for read in (read_exif, read_folder):
        with pytest.raises(MissingFileError, match="nowhere must be a folder"):
            read(tmp_path / "nowhere")
        with pytest.raises(MissingFileError, match=r"a\.jpg must be a folder"):
            read(tmp_path / "p" / "database" / "a.jpg")
        with pytest.raises(MissingFileError, match=r"empty must hold a photograph \(.jpg"):
            read(tmp_path / "empty")
        with pytest.raises(MissingFileError, match="queries must hold a photograph"):
            read(tmp_path / "p")
        with pytest.raises(InvalidInputError, match="'train', 'val' or 'test'; got 'all'"):
            read(tmp_path / "p", split="all")
    for option in ("positions", "fov"):
        with pytest.raises(InvalidInputError, match=f"{option} must be 'exif' or 'none'; got 'gps'"):
            read_exif(tmp_path / "p", **{option: "gps"})
    (tmp_path / "odd").mkdir()
    with open(os.fsencode(tmp_path / "odd") + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(InvalidInputError, match="UTF-8"):
        read_folder(tmp_path / "odd")


@given(place=st.integers(0, 400), value=st.integers(1, 255), cut=st.booleans(), order=st.sampled_from("<>"))
def test_damaged_exif_is_never_a_foreign_traceback(tmp_path_factory, place, value, cut, order):
    folder = tmp_path_factory.mktemp("p")
    tags = HERE | GPS_TIME | {17: (RATIONAL, (905, 10))}
    path = photo(folder / "a.jpg", exif(tags, TAKEN | {0xA405: (SHORT, 26)}, {0x0112: (SHORT, 6)}, order=order))
    data = path.read_bytes()
    place %= len(data)
    path.write_bytes(data[:place] if cut else data[:place] + bytes([data[place] ^ value]) + data[place + 1 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CovisWarning)
        (draft,) = draft_exif(folder)
        with contextlib.suppress(CovisError):
            (scene,) = read_exif(folder)
            write_exif([scene], folder / "out")
    assert all(problem.what for _, problem in draft.database.invalid())


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def scene_of(folder, count=2, *, block=b"", names=None, crs="EPSG:32633", **columns):
    names = names or [f"{row}.jpg" for row in range(count)]
    for row, name in enumerate(names):
        photo(folder / name, block, seed=row)
    xy = columns.pop("xy", to_metres(np.linspace(55.6, 55.7, len(names)), np.linspace(12.5, 12.6, len(names)), crs=crs))
    images = Images(folder, names, xy=xy, crs=crs, **columns)
    return Scene("s", "test", images, images)


@given(
    latitude=st.floats(-79.9, 83.9), longitude=st.floats(-180, 180), heading=st.floats(0, 360, exclude_max=True) | st.just(np.nan),
    time=st.floats(2.0**30, 2.0**31) | st.just(np.nan),
)  # fmt: skip
def test_positions_come_back_within_a_millimetre_headings_and_times_too(tmp_path_factory, latitude, longitude, heading, time):
    assume(max(abs(latitude), longitude % 6) > 1e-9)
    folder = tmp_path_factory.mktemp("p")
    crs = "EPSG:32631" if latitude >= 0 else "EPSG:32731"
    xy = to_metres([latitude], [longitude % 6], crs=crs)
    scene = scene_of(folder / "a", 1, xy=xy, crs=crs, heading=[heading], time=[time])
    (written,) = write_exif([scene], folder / "out")
    (found,) = read_exif(written, crs=crs)
    assert np.abs(found.database.xy - xy).max() < 1e-4
    if np.isnan(heading):
        assert found.database.heading is None
    else:
        assert abs((found.database.heading[0] - heading + 180) % 360 - 180) < 1e-7
    assert found.database.time is None if np.isnan(time) else found.database.time.tolist() == [time]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_was_written_is_read_to_the_last_bit(tmp_path, suffix):
    """What EXIF can hold exactly: a second copy says what the first says."""
    scene = scene_of(tmp_path / "a", names=[f"x/1.{suffix}", f"y.{suffix}"], heading=[0.1, np.nan], time=[1.7e9 + 0.123456, 1.6e9])
    (first,) = write_exif([scene], tmp_path / "first")
    (found,) = read_exif(first, crs="EPSG:32633")
    assert found.database.heading[0] == 0.1
    assert found.database.time.tolist() == [1.7e9 + 0.123456, 1.6e9]
    (second,) = write_exif([found], tmp_path / "second")
    (again,) = read_exif(second, crs="EPSG:32633")
    assert again.database.names == found.database.names == scene.database.names
    np.testing.assert_array_equal(again.database.heading, found.database.heading)
    np.testing.assert_allclose(again.database.xy, found.database.xy, rtol=0, atol=1e-5)
    for name in scene.database.names:
        np.testing.assert_array_equal(pixels(first / name), pixels(tmp_path / "a" / name))


def test_two_sides_come_back(tmp_path):
    database, queries = scene_of(tmp_path / "d", 3).database, scene_of(tmp_path / "q", 2).database
    (written,) = write_exif([Scene("s", "test", database, queries)], tmp_path / "out")
    (found,) = read_exif(written)
    assert (found.name, found.split) == ("s", "test")
    for side, was in ((found.database, database), (found.queries, queries)):
        assert side.names == was.names
        np.testing.assert_allclose(side.xy, was.xy, atol=1e-4)
    (written,) = write_folder([Scene("s", "test", database, queries)], tmp_path / "names")
    (found,) = read_folder(written)
    assert found == Scene("s", "test", Images(written / "database", database.names), Images(written / "queries", queries.names))
    assert found.queries.path(1).read_bytes() == queries.path(1).read_bytes()


MAIN = {0x010E: (ASCII, "Überführung\0".encode()), 0x0112: (SHORT, 6), 0x013B: (ASCII, b"A\0")}
NOTE = {0x927C: (UNDEFINED, b"\0\1maker's own" * 9), 0x9003: TAKEN[0x9003], 0x9286: (UNDEFINED, b"ASCII\0\0\0seen from the bridge")}
THUMBNAIL = {0x0103: (SHORT, 6), 0x0201: (LONG, 12345), 0x0202: (LONG, 99)}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_all_other_tags_and_all_pixels_stay(tmp_path, order, suffix):
    old = HERE | {6: (RATIONAL, (1234, 100)), 17: (RATIONAL, (905, 10)), 29: GPS_TIME[29], 27: (UNDEFINED, b"ASCII\0\0\0GPS")}
    path = photo(tmp_path / "a" / f"0.{suffix}", exif(old, NOTE, MAIN, order=order, thumbnail=THUMBNAIL))
    before = path.read_bytes()
    images = Images(tmp_path / "a", [path.name], xy=[[5e5, 5e6]], crs="EPSG:32632")
    (written,) = write_exif([Scene("s", "test", images, images)], tmp_path / "out")
    assert path.read_bytes() == before
    copy = written / path.name
    np.testing.assert_array_equal(pixels(copy), pixels(path))
    with Image.open(path) as original, Image.open(copy) as image:
        was, now = original.getexif(), image.getexif()
        for part in (0x8769, 0x8825, ExifTags.IFD.IFD1):
            was_part, now_part = dict(was.get_ifd(part)), dict(now.get_ifd(part))
            if part == 0x8825:
                assert now_part.pop(6) == was_part.pop(6)
                assert now_part.pop(27) == was_part.pop(27)
                assert set(now_part) == {0, 1, 2, 3, 4, 18}  # no heading and no time of the old position
            else:
                assert now_part == was_part
                assert was_part
        assert {tag: now[tag] for tag in MAIN} == {tag: was[tag] for tag in MAIN}
        assert set(now) == set(was)
        blocks = [original.info["exif"][6:], image.info["exif"][6:]]
    assert blocks[1][8 : len(blocks[0])] == blocks[0][8:]  # the old block stays where it was: what points into it holds
    assert blocks[1][:4] == blocks[0][:4]
    if suffix == "jpg":
        assert before[before.index(b"\xff\xdb") :] == copy.read_bytes()[copy.read_bytes().index(b"\xff\xdb") :]
    else:
        others = [[chunk for chunk in png_chunks(data) if chunk[0] != b"eXIf"] for data in (before, copy.read_bytes())]
        assert others[0] == others[1]
        assert png(png_chunks(copy.read_bytes())) == copy.read_bytes()  # sums are right


def test_exif_goes_where_the_standard_wants_it(tmp_path):
    scene = scene_of(tmp_path / "a", 1)
    (written,) = write_exif([scene], tmp_path / "out")
    data = (written / "0.jpg").read_bytes()
    assert data[2:4] == b"\xff\xe0"  # JFIF's header first
    assert data[20:30] == b"\xff\xe1" + data[22:24] + b"Exif\0\0"
    bare = (tmp_path / "a" / "0.jpg").read_bytes()
    (tmp_path / "a" / "0.jpg").write_bytes(bare[:2] + b"\xff\xff" + bare[20:22].replace(b"\xff", b"") + bare[22:])  # no JFIF; padding
    (written,) = write_exif([scene], tmp_path / "more")
    assert (written / "0.jpg").read_bytes()[2:4] == b"\xff\xe1"
    np.testing.assert_array_equal(pixels(written / "0.jpg"), pixels(tmp_path / "a" / "0.jpg"))
    assert len(read_exif(written)[0].database) == 1


def test_numbers_in_the_bytes_are_those_of_the_position(tmp_path):
    """Read back by a parser of the test's own, so that writer and reader cannot err alike."""
    xy = to_metres([-33.5], [-70.25], crs="EPSG:32719")
    scene = scene_of(tmp_path / "a", 1, xy=xy, crs="EPSG:32719", heading=[271.25], time=[1.7e9])
    (written,) = write_exif([scene], tmp_path / "out")
    with Image.open(written / "0.jpg") as image:
        tiff = image.info["exif"][6:]
    assert tiff[:4] == b"II*\0"

    def tags(at):
        (count,) = struct.unpack_from("<H", tiff, at)
        return {
            tag: (kind, n, tiff[at + 10 + 12 * i :][:4])
            for i in range(count)
            for tag, kind, n in [struct.unpack_from("<HHI", tiff, at + 2 + 12 * i)]
        }

    main = tags(struct.unpack_from("<I", tiff, 4)[0])
    found = tags(struct.unpack("<I", main[0x8825][2])[0])

    def rationals(tag):
        kind, count, where = found[tag]
        assert kind == RATIONAL
        numbers = struct.unpack_from(f"<{2 * count}I", tiff, struct.unpack("<I", where)[0])
        return [a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]

    assert (found[1][2][:2], found[3][2][:2], found[16][2][:2]) == (b"S\0", b"W\0", b"T\0")
    assert found[0][2] == b"\2\3\0\0"
    for tag, value in ((2, 33.5), (4, 70.25)):
        degrees, minutes, seconds = rationals(tag)
        assert abs(degrees + minutes / 60 + seconds / 3600 - value) < 1e-10
    assert rationals(17) == [271.25]
    assert rationals(7) == [22, 13, 20]
    day = found[29]
    assert tiff[struct.unpack("<I", day[2])[0] :][: day[1]] == b"2023:11:14\0"


def test_a_heading_that_rounds_to_a_full_turn_is_north(tmp_path):
    (written,) = write_exif([scene_of(tmp_path / "a", 1, heading=[np.nextafter(360, 0)])], tmp_path / "out")
    with Image.open(written / "0.jpg") as image:
        assert image.getexif().get_ifd(0x8825)[17] == 0
    assert read_exif(written)[0].database.heading.tolist() == [0]


def with_segments(path, *blocks):
    """Puts EXIF segments behind the JFIF header of a JPEG without any."""
    data = path.read_bytes()
    path.write_bytes(data[:20] + b"".join(b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks) + data[20:])


def test_exif_in_two_segments_and_of_odd_length_is_kept(tmp_path):
    block = exif(HERE, NOTE, MAIN) + b"!"
    assert len(block) % 2 == 1
    for name, parts in {"one": [block], "two": [block[:99], b"Exif\0\0" + block[99:]]}.items():
        scene = scene_of(tmp_path / name, 1)
        with_segments(tmp_path / name / "0.jpg", *parts)
        (written,) = write_exif([scene], tmp_path / f"{name}-out")
        with Image.open(written / "0.jpg") as image:
            tags = image.getexif()
            assert tags.get_ifd(0x8769)[0x927C] == NOTE[0x927C][1]
            assert tags[0x8825] % 2 == 0  # directories begin at even bytes
        assert (written / "0.jpg").read_bytes().count(b"Exif\0\0") == 1
        np.testing.assert_allclose(read_exif(written)[0].database.xy, scene.database.xy, atol=1e-4)


def test_a_png_whose_chunk_begins_as_a_jpegs_segment_does(tmp_path):
    scene = scene_of(tmp_path / "a", names=["0.png"])
    chunks = png_chunks((tmp_path / "a" / "0.png").read_bytes())
    (tmp_path / "a" / "0.png").write_bytes(png([chunks[0], (b"eXIf", exif(HERE, NOTE, MAIN)), *chunks[1:]]))
    (written,) = write_exif([scene], tmp_path / "out")
    with Image.open(written / "0.png") as image:
        assert image.getexif()[0x0112] == 6
        assert image.getexif().get_ifd(0x8769)[0x927C] == NOTE[0x927C][1]


def test_times_beyond_the_calendar_and_before_1970(tmp_path):
    early = datetime(1066, 10, 14, 9, 30, tzinfo=UTC).timestamp()
    (written,) = write_exif([scene_of(tmp_path / "a", 1, time=[early])], tmp_path / "out")
    assert read_exif(written)[0].database.time.tolist() == [early]
    with pytest.raises(InvalidInputError, match=r"0\.jpg.*10{15}"):
        write_exif([scene_of(tmp_path / "b", 1, time=[1e15])], tmp_path / "no")


def test_what_cannot_take_a_position_is_refused(tmp_path):
    block = exif(HERE, {0x927C: (UNDEFINED, b"x" * 65250)})
    large = scene_of(tmp_path / "large", 1)
    with_segments(tmp_path / "large" / "0.jpg", block)
    legacy = scene_of(tmp_path / "legacy", names=["0.png"])
    chunks = png_chunks((tmp_path / "legacy" / "0.png").read_bytes())
    (tmp_path / "legacy" / "0.png").write_bytes(
        png([chunks[0], (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"x")), *chunks[1:]])
    )
    for scene, said in (
        (large, "64 KiB"), (legacy, "Raw profile type exif"), (scene_of(tmp_path / "w", names=["0.webp"]), "must be a JPEG or PNG"),
        (scene_of(tmp_path / "t", names=["0.tif"]), "must be a JPEG or PNG"),
        (scene_of(tmp_path / "z", 1, xy=[[0, 0]], crs="EPSG:3857"), "not be 0, 0"),
        (scene_of(tmp_path / "p", 1, xy=[[0, 2e7]], crs="EPSG:3857"), r"latitude in \[-80, 84\]"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_exif([scene], tmp_path / "out")
        assert not (tmp_path / "out" / "s").exists()
    for files in ("link", "none", "move"):
        with pytest.raises(InvalidInputError, match="must copy"):
            write_exif([large], tmp_path / "out", files=files)
    images = Images(tmp_path / "large", ["0.jpg"])
    with pytest.raises(InvalidInputError, match="must have xy"):
        write_exif([Scene("s", "test", images, images)], tmp_path / "out")
    images = Images(tmp_path / "large", ["0.jpg"], xy=[[0, 0]])
    with pytest.raises(InvalidInputError, match="known frame"):
        write_exif([Scene("s", "test", images, images)], tmp_path / "out")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cut_files_are_refused_and_leave_nothing(tmp_path, suffix):
    scene = scene_of(tmp_path / "a", names=[f"0.{suffix}"], block=exif(HERE, NOTE, MAIN))
    path = tmp_path / "a" / f"0.{suffix}"
    data = path.read_bytes()
    last = data.index(b"\xff\xda") if suffix == "jpg" else len(data)
    for cut in range(8, last, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(DamagedFileError, match=f"0.{suffix} must be a whole"):
            write_exif([scene], tmp_path / "out")
        assert not (tmp_path / "out" / "s").exists()
    path.unlink()
    with pytest.raises(MissingFileError, match=r"must be there to be written"):
        write_exif([scene], tmp_path / "out")


def test_exif_that_does_not_read_is_not_half_kept(tmp_path):
    for name, block in {
        "magic": b"Exif\0\0XX*\0\10\0\0\0" + bytes(6),
        "far": b"Exif\0\0II*\0\xff\xff\0\0",
        "short": b"Exif\0\0II*\0\10\0\0\0\5\0",
    }.items():
        scene = scene_of(tmp_path / name, 1)
        with_segments(tmp_path / name / "0.jpg", block)
        with pytest.raises(DamagedFileError, match=r"0\.jpg must have EXIF that reads"):
            write_exif([scene], tmp_path / "out")


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x//a.jpg", ".a.jpg", "x/.y/a.jpg", "a.gif", "a"])
def test_names_that_would_not_come_back_are_refused(tmp_path, name):
    images = Images(tmp_path, [name], xy=[[5e5, 5e6]], crs="EPSG:32632")
    for write in (write_exif, write_folder):
        with pytest.raises(InvalidInputError, match="name of an image written as a photograph"):
            write([Scene("s", "test", images, images)], tmp_path / "out")


def test_scenes_that_would_not_come_back_are_refused(tmp_path):
    scene = scene_of(tmp_path / "a", names=["database/1.jpg", "queries/2.jpg"])
    with pytest.raises(InvalidInputError, match="would be read as two"):
        write_folder([scene], tmp_path / "out")
    with pytest.raises(InvalidInputError, match="different names"):
        write_folder([scene, scene], tmp_path / "out")
    none = Images(tmp_path, [])
    with pytest.raises(InvalidInputError, match="one is empty"):
        write_folder([Scene("s", "test", none, none)], tmp_path / "out")


def test_the_users_files_are_never_changed(tmp_path):
    scene = scene_of(tmp_path / "s", 2)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "s").iterdir()}
    for write in (write_exif, write_folder):
        with pytest.raises(OutputExistsError):
            write([scene], tmp_path)
        with pytest.raises(InvalidInputError, match=r"must not be replaced, since .*0\.jpg lies in it"):
            write([scene], tmp_path, overwrite=True)
        write([scene], tmp_path / "out", overwrite=True)
        write([scene], tmp_path / "out", overwrite=True)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "s").iterdir()}
    (written,) = write_folder([scene], tmp_path / "links", files="link")
    assert (written / "1.jpg").is_symlink()
    assert read_folder(written)[0].database.names == scene.database.names
    for files in ("none", "move"):
        with pytest.raises(InvalidInputError, match="'copy'"):
            write_folder([scene], tmp_path / "no", files=files)
    assert not (tmp_path / "no" / "s").exists()


def test_real_photographs_take_positions(covis_data, tmp_path):
    """Phone photographs from the campus, with the positions that their table gives, through EXIF and back."""
    folder = covis_data / "campus"
    rows = [line.split(",") for line in (folder / "gt.csv").read_text().splitlines()[:40]]
    (scene,) = read_folder(folder)
    path = {name.rsplit("/", 1)[-1]: name for name in scene.database.names}
    names = sorted(path[row[0]] for row in rows if row[0] in path)
    degrees = {path[row[0]]: (float(row[1]), float(row[2])) for row in rows if row[0] in path}
    assert len(names) > 30
    xy = to_metres(*np.array([degrees[name] for name in names]).T, crs="EPSG:32636")
    images = Images(folder, names, xy=xy, crs="EPSG:32636")
    (written,) = write_exif([Scene("campus", "test", images, images)], tmp_path)
    (found,) = read_exif(written)
    assert found.database.crs == "EPSG:32636"
    assert np.abs(found.database.xy - xy).max() < 1e-4
    np.testing.assert_allclose(to_degrees(found.database.xy, crs=found.database.crs), [degrees[name] for name in names], atol=1e-9)
    assert io.BytesIO((written / names[0]).read_bytes()).read(2) == b"\xff\xd8"
