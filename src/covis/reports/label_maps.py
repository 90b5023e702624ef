"""Label maps as a picture: photographs, the classes over them, the channels that a network reads, and what these weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from covis.errors import InvalidInputError
from covis.images import Images, LabelMaps
from covis.rasters import read_image, read_label_map, write_image
from covis.semantics.encodings import NOTHING, Encoding, clustered, encoding
from covis.semantics.numberings import NUMBERS, Numbering, numbering, own_colour
from covis.settings import EncodingSettings

Colour: TypeAlias = tuple[int, int, int]
Pixels: TypeAlias = NDArray[np.uint8]

INK, PAPER, FAINT = (34, 40, 49), (255, 255, 255), (110, 118, 129)
ABSENT = (234, 237, 240)
"""Where a pixel is of no channel, or a picture is not there."""
CLUSTER_COLOURS: Mapping[str, Colour] = {
    "structure": (132, 136, 142),
    "vegetation": (64, 152, 74),
    "ground": (156, 108, 70),
    "sky": (108, 208, 232),
    "other": (138, 134, 32),
    "dynamic": (226, 118, 152),
}
"""Colours of the six clusters, after the look of StructVPR's poster (CVPR 2023); the values are ours."""
HEAVIEST = (24, 58, 104)
"""The colour of the largest weight; a weight of 0 has that of what is absent."""
GAP, EDGE, CAPTION, HEAD, SWATCH, LINE = 8, 14, 24, 74, 14, 22
LEAST_WIDTH, LEAST_SHEET = 80, 560
MOST = 32
"""Classes or channels that a legend names."""


def map_sheet(images: Images, settings: EncodingSettings, *, out: str | Path, rows: int = 4, width: int = 240) -> Path:
    """Draw photographs, their classes, the channels of an encoding and the channels' weights as one PNG; returns its path.

    The photographs are spread evenly over all, not chosen. Classes have the numbering's colours and lie over the photograph, which
    is grey there; channels and weights stand alone, as a network reads them. A legend names what is drawn. Maps are resized by the
    nearest neighbour: no colour is mixed.

    Args:
        images: with the column segmentation.
        settings: the numbering of the maps, the clusters and their weights.
        out: the PNG.
        rows: photographs, at least 1.
        width: pixels of each, at least 80; an upright one is as high as others are wide.

    Raises:
        InvalidInputError: there is no image, an image has no map, a map holds a number that the numbering does not have, or a
            size is too small.
        UnknownNameError: there is no such numbering or clustering.
        MissingFileError: a photograph or a map is not there.
        DamagedFileError: one does not decode.
    """
    check_size(width, rows=rows)
    encoded, files = encoding(settings), LabelMaps(images)
    numbers = numbering(settings.classes)
    if not len(images):
        raise InvalidInputError("A sheet of label maps needs an image; there is none.")
    chosen = np.unique(np.linspace(0, len(images) - 1, min(rows, len(images))).round()).astype(int).tolist()
    palettes = numbers.palette, channel_palette(encoded, numbers), weight_palette(encoded)
    lines, seen = [], np.zeros(NUMBERS, dtype=np.int64)
    for row in chosen:
        ids = read_label_map(files.path(row))
        channels = _channels(ids, encoded, files.path(row))
        photograph = photograph_of(images.path(row), width)
        size = photograph.shape[1], photograph.shape[0]
        drawn = nearest(ids, size)
        seen += np.bincount(drawn.ravel(), minlength=NUMBERS)
        found = nearest(channels, size)
        lines.append((photograph, over(photograph, palettes[0][drawn]), palettes[1][found], palettes[2][found]))
    heads = ("photograph", f"classes: {Path(numbers.name).name}", f"channels: {Path(settings.clusters).name}", "weights of the channels")
    column = max(LEAST_WIDTH, *(line[0].shape[1] for line in lines))
    legend = draw_legend(_blocks(numbers, encoded, seen), max(2 * EDGE + len(heads) * (column + GAP) - GAP, LEAST_SHEET))
    return write_image(out, _sheet(lines, [images.names[row] for row in chosen], heads, legend=legend, width=column))


def channel_palette(encoded: Encoding, numbers: Numbering) -> Pixels:
    """A colour for each channel, no two the same: of the six clusters, else of the one class that a channel holds, else of ours.

    Args:
        encoded: which class is of which channel.
        numbers: of the classes, with their colours.

    Returns:
        (256, 3) uint8; the last is for what is of no channel.
    """
    palette = np.full((NUMBERS, 3), ABSENT, dtype=np.uint8)
    used, six = {ABSENT}, set(CLUSTER_COLOURS) <= set(encoded.channels)
    for channel, name in enumerate(encoded.channels):
        own = np.flatnonzero(encoded.lookup == channel)
        single = len(own) == 1 and not six
        colour = _colour(numbers.palette[own[0]]) if single else CLUSTER_COLOURS.get(name, own_colour(channel))
        turn = channel
        while colour in used:
            turn += len(encoded)
            colour = own_colour(turn)
        used.add(colour)
        palette[channel] = colour
    return palette


def weight_palette(encoded: Encoding) -> Pixels:
    """(256, 3) uint8: the colour of each channel's weight, from pale (0) to dark (the largest); no channel is 0."""
    share = np.zeros((NUMBERS, 1))
    share[: len(encoded), 0] = encoded.weights / encoded.weights.max()
    palette: Pixels = np.rint((1 - share) * ABSENT + share * HEAVIEST).astype(np.uint8)
    return palette


def map_palette(settings: EncodingSettings | None) -> Pixels:
    """(256, 3) uint8: the colour of each number of a label map: that of its channel, or without settings one of ours."""
    if settings is None:
        return np.array([own_colour(number) for number in range(NUMBERS)], dtype=np.uint8)
    encoded = encoding(settings)
    known = np.where(encoded.known, np.arange(NUMBERS), np.flatnonzero(encoded.known)[0]).astype(np.uint8)
    colours = channel_palette(encoded, numbering(settings.classes))[clustered(known[None], encoded)[0]]
    return np.where(encoded.known[:, None], colours, np.array(ABSENT, dtype=np.uint8))


def check_size(width: int, **counts: int) -> None:
    """Refuse what cannot be drawn.

    Raises:
        InvalidInputError: the width is less than 80, or a count less than 1.
    """
    if width < LEAST_WIDTH:
        raise InvalidInputError(f"An image on a sheet must be at least {LEAST_WIDTH} pixels wide; got width={width}.")
    for name, count in counts.items():
        if count < 1:
            raise InvalidInputError(f"A sheet must have at least 1 of {name}; got {name}={count}.")


def photograph_of(path: str | Path, width: int) -> Pixels:
    """A photograph that fits into a square of so many pixels, in its own proportions."""
    pixels = read_image(path)
    high, wide = pixels.shape[:2]
    scale = width / max(high, wide)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def nearest(numbers: Pixels, size: tuple[int, int]) -> Pixels:
    """A map of numbers at another size (width, height), by the nearest neighbour."""
    return np.asarray(Image.fromarray(numbers).resize(size, Image.Resampling.NEAREST))


def over(photograph: Pixels, colours: Pixels) -> Pixels:
    """Colours over a photograph, which becomes grey, so that hues are those of the colours."""
    grey = np.asarray(Image.fromarray(photograph).convert("L"), dtype=np.float32)[..., None]
    mixed: Pixels = np.rint(0.34 * grey + 0.66 * colours).astype(np.uint8)
    return mixed


def shortened(text: str, room: float, font: Any) -> str:
    """The text, its middle left out where it is longer than so many pixels."""
    if font.getlength(text) <= room:
        return text
    for kept in range(len(text) - 1, 1, -1):
        tried = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        if font.getlength(tried) <= room:
            return tried
    return text[:1]


def draw_legend(blocks: Mapping[str, Sequence[tuple[Colour, str]]], width: int) -> Image.Image:
    """A strip of named colours, a block after the other, broken into lines where they do not fit.

    Args:
        blocks: title -> colours and what they mean.
        width: of the strip, pixels.
    """
    font = ImageFont.load_default(13)
    left = EDGE + max(font.getlength(title) for title in blocks) + 14
    placed: list[tuple[float, int, Colour | None, str]] = []
    line = 0
    for title, entries in blocks.items():
        placed.append((EDGE, line, None, title))
        x = left
        for colour, text in entries:
            wide = SWATCH + 6 + font.getlength(text)
            if x > left and x + wide > width - EDGE:
                x, line = left, line + 1
            placed.append((x, line, colour, shortened(text, width - EDGE - x - SWATCH - 6, font)))
            x += wide + 18
        line += 1
    strip = Image.new("RGB", (width, line * LINE), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, row, swatch, text in placed:
        top = row * LINE
        if swatch is not None:
            draw.rectangle((x, top + 3, x + SWATCH - 1, top + 2 + SWATCH), fill=swatch, outline=FAINT if min(swatch) > 215 else None)
        draw.text((x + (SWATCH + 6 if swatch is not None else 0), top + 2), text, FAINT if swatch is None else INK, font=font)
    return strip


def _channels(ids: Pixels, encoded: Encoding, path: Path) -> Pixels:
    try:
        return clustered(ids, encoded)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _colour(values: Pixels) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue


def _blocks(numbers: Numbering, encoded: Encoding, seen: NDArray[np.int64]) -> dict[str, list[tuple[Colour, str]]]:
    """What stands in the legend: classes that are drawn, the largest first; channels; channels by weight."""
    present = [number for number in np.argsort(-seen, kind="stable").tolist() if seen[number]]
    classes = [(_colour(numbers.palette[number]), numbers.classes.get(number, f"void ({number})")) for number in present]
    palette, strengths = channel_palette(encoded, numbers), weight_palette(encoded)
    drawn = dict.fromkeys(int(encoded.lookup[number]) for number in present)
    without = -1 in drawn
    named = range(len(encoded)) if len(encoded) <= MOST else [channel for channel in drawn if channel >= 0]
    channels = [(_colour(palette[channel]), encoded.channels[channel]) for channel in named]
    weights: list[tuple[Colour, str]] = []
    for weight in np.unique(encoded.weights)[::-1]:
        of = np.flatnonzero(encoded.weights == weight)
        said = ", ".join(encoded.channels[channel] for channel in of) if len(of) <= 4 else f"{len(of)} channels"
        weights.append((_colour(strengths[of[0]]), f"{weight:g}: {said}"))
    if without:
        channels.append((ABSENT, "no channel"))
        weights.append((_colour(strengths[NOTHING]), "0: no channel"))
    return {"classes": _most(classes), "channels": _most(channels), "weights": _most(weights)}


def _most(entries: list[tuple[Colour, str]]) -> list[tuple[Colour, str]]:
    return entries if len(entries) <= MOST else [*entries[:MOST], (PAPER, f"and {len(entries) - MOST} more")]


def _sheet(lines: Sequence[Sequence[Pixels]], names: Sequence[str], heads: Sequence[str], *, legend: Image.Image, width: int) -> Pixels:
    """Rows of tiles with the name of each image, under the columns' heads, and the legend below."""
    heights = [line[0].shape[0] + CAPTION for line in lines]
    sheet = Image.new("RGB", (legend.width, HEAD + sum(heights) + GAP + legend.height + EDGE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, 12), "Label maps, and what a network reads of them", INK, font=ImageFont.load_default(20))
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    lefts = [EDGE + place * (width + GAP) for place in range(len(heads))]
    for left, head in zip(lefts, heads, strict=True):
        draw.text(
            (left, HEAD - 24),
            head if font.getlength(head) <= width else shortened(head.split(":")[0].split()[0], width, font),
            FAINT,
            font=font,
        )
    top = HEAD
    for line, name, height in zip(lines, names, heights, strict=True):
        for left, tile in zip(lefts, line, strict=True):
            sheet.paste(Image.fromarray(tile), (left, top))
        draw.text((EDGE, top + height - CAPTION + 3), shortened(name, legend.width - 2 * EDGE, small), FAINT, font=small)
        top += height
    sheet.paste(legend, (0, top + GAP))
    return np.asarray(sheet)
