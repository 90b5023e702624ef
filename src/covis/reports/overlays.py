"""Attention as a picture: photographs, and over each of them the map of where the descriptor looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from covis.attention import METHODS, Method, attend
from covis.attention.inputs import check_attended
from covis.errors import InvalidInputError
from covis.files import atomic_path
from covis.models.describers import Describer, describe
from covis.pixels import Resize, decode
from covis.rasters import image_size, write_image

INK, PAPER, FAINT = (34, 40, 49), (255, 255, 255), (110, 118, 129)
GAP, EDGE, CAPTION, HEAD, FOOT = 6, 14, 20, 74, 44
_OPTIONS = {"gradient": ("layer",), "occlusion": ("patch", "stride", "batch")}
Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]


class Tile(NamedTuple):
    """A photograph (height, width, 3) at the size in which it is drawn, and the map that lies over it, if any."""

    photograph: Pixels
    map: Map | None


class Row(NamedTuple):
    """A line of tiles, and what stands below it."""

    tiles: tuple[Tile, ...]
    caption: str


def attention_sheet(
    model: Describer,
    images: Sequence[str | Path],
    *,
    out: str | Path,
    methods: Sequence[Method] = ("activation",),
    pair: bool = False,
    width: int = 240,
    title: str = "",
    maps: str | Path | None = None,
    **options: Any,
) -> Path:
    """Draw photographs and where the descriptor looks in each as one picture; returns its path.

    A row is one image: the photograph, and the map of each method over it. With `pair` a row is two images: both
    photographs, and for each method what the two share, on both; the similarity (the cosine of the descriptors) stands below.
    Each map is scaled by its own maximum, so that colours compare places of one map, and not two maps.

    Args:
        model: any that describes and takes the methods.
        images: files; with `pair` an even number, the first two are the first pair.
        out: the picture; its suffix says the format.
        methods: of `covis.attention.METHODS`, a column each.
        pair: whether the images are pairs.
        width: pixels of each photograph in the picture, at least 80.
        title: the first line; absent, what is drawn.
        maps: a folder for the maps as `.npy` files (height, width) float32 of the network's size; absent, none is written.
        options: of the methods, as `attend` takes them; each goes to the method that has it.

    Raises:
        InvalidInputError: there is no image, a number of images that makes no pairs, no method, or a method does not fit the model;
            or the model reads label maps.
        MissingFileError: an image is not there.
        DamagedFileError: an image does not decode.
    """
    check_attended(model)
    files = [Path(image) for image in images]
    _check(files, methods, pair=pair, width=width)
    _check_options(methods, options)
    groups = [tuple(files[start : start + 2]) for start in range(0, len(files), 2)] if pair else [(file,) for file in files]
    rows: list[Row] = []
    raw: dict[str, Map] = {}
    for number, group in enumerate(groups):
        found = {method: [_attend(model, group, place, method, options) for place in range(len(group))] for method in methods}
        photographs = [_photograph(file, width, model.resize) for file in group]
        tiles = [Tile(photograph, None) for photograph in photographs]
        for method in methods:
            tiles += [Tile(photograph, one) for photograph, one in zip(photographs, found[method], strict=True)]
            raw |= {
                f"{number:03d}-{place}-{file.stem}-{method}": one
                for place, (file, one) in enumerate(zip(group, found[method], strict=True))
            }
        rows.append(Row(tuple(tiles), _caption(model, group)))
    columns = ["photographs", *(f"{method}: what they share" for method in methods)] if pair else ["photograph", *methods]
    heading = title or ("What two photographs share" if pair else "Where the descriptor looks")
    if maps is not None:
        _write_maps(Path(maps), raw)
    return write_image(out, draw_sheet(rows, columns=columns, title=heading, together=2 if pair else 1))


def heat(values: NDArray[np.floating[Any]]) -> Pixels:
    """Colours of values in [0, 1], from dark violet over red to pale yellow; equal steps look equal.

    In OKLab (Ottosson 2020) lightness grows linearly from 0.22 to 0.96 while the hue turns from 285 to 465 degrees; where a colour
    is outside sRGB its chroma is lowered.

    Args:
        values: (…); what is outside [0, 1] counts as its nearest end.

    Returns:
        (…, 3) uint8.

    >>> heat(np.array([0.0, 1.0])).tolist()
    [[24, 21, 53], [247, 245, 198]]
    """
    table = _colours()
    found: Pixels = table[np.rint(np.clip(values, 0, 1) * (len(table) - 1)).astype(np.intp)]
    return found


def overlay(photograph: Pixels, attention: Map) -> Pixels:
    """A map over a photograph: the more attention, the more colour; without any the photograph is grey, and a little paler.

    Args:
        photograph: (height, width, 3).
        attention: (rows, columns) in [0, 1], of any size; it is resized bilinearly.

    Returns:
        (height, width, 3) uint8.
    """
    size = photograph.shape[1], photograph.shape[0]
    large = np.asarray(Image.fromarray(np.asarray(attention, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR))[..., None]
    grey = np.asarray(Image.fromarray(photograph).convert("L"), dtype=np.float32)[..., None]
    share = 0.75 * np.clip(large, 0, 1) ** 0.7
    mixed: Pixels = np.rint((1 - share) * (25 + 0.8 * grey) + share * heat(large[..., 0])).astype(np.uint8)
    return mixed


def draw_sheet(rows: Sequence[Row], *, columns: Sequence[str], title: str, together: int = 1) -> Pixels:
    """Rows of tiles under a title and the columns' names, and the scale of colours below.

    Args:
        rows: each of as many tiles as there are columns, times `together`.
        columns: names.
        title: the first line.
        together: tiles under one name.

    Returns:
        (height, width, 3) uint8.
    """
    widths = [max(row.tiles[place].photograph.shape[1] for row in rows) for place in range(len(columns) * together)]
    lefts = [EDGE]
    for place, wide in enumerate(widths):
        lefts.append(lefts[-1] + wide + (GAP * 3 if (place + 1) % together == 0 else GAP))
    heights = [max(tile.photograph.shape[0] for tile in row.tiles) + CAPTION + GAP for row in rows]
    sheet = Image.new("RGB", (max(lefts[-1] - 3 * GAP + EDGE, 400), HEAD + sum(heights) + FOOT), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, 12), title, INK, font=ImageFont.load_default(20))
    for number, name in enumerate(columns):
        draw.text((lefts[number * together], HEAD - 24), name, FAINT, font=ImageFont.load_default(14))
    top = HEAD
    for row, height in zip(rows, heights, strict=True):
        for left, tile in zip(lefts, row.tiles, strict=False):
            sheet.paste(Image.fromarray(tile.photograph if tile.map is None else overlay(tile.photograph, tile.map)), (left, top))
        draw.text((EDGE, top + height - CAPTION - GAP + 3), row.caption, INK, font=ImageFont.load_default(13))
        top += height
    _scale(sheet, draw, top + 12)
    return np.asarray(sheet)


def _scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int) -> None:
    font = ImageFont.load_default(13)
    bar = np.repeat(np.linspace(0, 1, 140)[None], 12, axis=0)
    draw.text((EDGE, top - 2), "none", FAINT, font=font)
    left = EDGE + round(draw.textlength("none", font=font)) + 8
    sheet.paste(Image.fromarray(heat(bar)), (left, top))
    draw.text((left + 148, top - 2), "most in this map", FAINT, font=font)


@cache
def _colours() -> Pixels:
    """The 256 colours of `heat`."""
    share = np.linspace(0, 1, 256)
    lightness, hue = 0.22 + 0.74 * share, np.deg2rad(285 + 180 * share)
    chroma = 0.06 + 0.16 * np.sin(math.pi * np.clip(share, 0, 1) ** 0.8)
    for _ in range(200):
        linear = _from_oklab(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        chroma = np.where(outside, chroma * 0.97, chroma)
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(255 * encoded).astype(np.uint8)
    return table


def _from_oklab(lightness: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear sRGB (n, 3) of OKLab colours; outside [0, 1] where sRGB has none such."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    found: NDArray[np.float64] = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    )
    return found


def _check(files: Sequence[Path], methods: Sequence[str], *, pair: bool, width: int) -> None:
    if not files or (pair and len(files) % 2):
        wanted = "an even number of images, two a pair" if pair else "at least one image"
        raise InvalidInputError(f"A picture of attention needs {wanted}; got {len(files)}.")
    if not methods or not set(methods) <= set(METHODS):
        raise InvalidInputError(f"A picture of attention needs methods of {', '.join(METHODS)}; got {', '.join(methods) or 'none'}.")
    if width < 80:
        raise InvalidInputError(f"A photograph in the picture must be at least 80 pixels wide; got {width}.")


def _check_options(methods: Sequence[str], options: dict[str, Any]) -> None:
    for name, value in options.items():
        owner = next((method for method, own in _OPTIONS.items() if name in own), None)
        if owner is None:
            raise InvalidInputError(f"The option {name} is of no method of attention; got {name}={value!r}.")
        if value is not None and name != "batch" and owner not in methods:
            raise InvalidInputError(f"The option {name} is of the method {owner}, which is not drawn; got {name}={value!r}.")


def _attend(model: Describer, group: Sequence[Path], place: int, method: Method, options: dict[str, Any]) -> Map:
    chosen = {name: value for name, value in options.items() if name in _OPTIONS.get(method, ())}
    return attend(model, group[place], method=method, other=group[1 - place] if len(group) == 2 else None, **chosen)


def _photograph(file: Path, width: int, resize: Resize) -> Pixels:
    """As the network sees it, at the size of the picture: whole, in its own proportions, or the central square."""
    high, wide = image_size(file)
    height = width if resize == "pil-crop" else max(1, round(width * high / wide))
    return decode(file, height=height, width=width, resize=resize).transpose(1, 2, 0)


def _caption(model: Describer, group: Sequence[Path]) -> str:
    names = "  ·  ".join(file.name for file in group)
    if len(group) == 1:
        return names
    a, b = describe(model, group).astype(np.float64)
    cosine = float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    return f"similarity {cosine:.3f}:  {names}"


def _write_maps(folder: Path, maps: dict[str, Map]) -> None:
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, one in maps.items():
            np.save(temporary / f"{name}.npy", one, allow_pickle=False)
