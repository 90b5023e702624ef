"""A sheet of pairs of images that are suspected to be copies, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from covis.errors import InvalidInputError
from covis.rasters import read_picture, write_image

INK, PAPER, FAINT = (34, 40, 49), (255, 255, 255), (110, 118, 129)
GAP, CAPTION, HEAD = 10, 38, 44


def suspect_sheet(
    pairs: Sequence[tuple[str | Path, str | Path, str]],
    out: str | Path,
    *,
    title: str = "Suspected copies",
    columns: int = 3,
    width: int = 200,
) -> Path:
    """Draw pairs of images beside each other, a caption below each; returns the path of the PNG.

    Args:
        pairs: two image files and a caption each.
        out: the PNG.
        title: above.
        columns: pairs in a row.
        width: pixels of each image; it is as high as the first image of its pair.

    Raises:
        InvalidInputError: there is no pair.
        MissingFileError: an image is not there.
        DamagedFileError: one does not decode.
    """
    if not pairs or columns < 1 or width < 1:
        raise InvalidInputError(f"A sheet needs a pair, a column and a width; got {len(pairs)} pairs, {columns} and {width}.")
    height = round(0.75 * width)
    cell = (2 * width + 3 * GAP, height + CAPTION + GAP)
    columns = min(columns, len(pairs))
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (GAP + columns * cell[0], HEAD + rows * cell[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 12), title, INK, font=ImageFont.load_default(18))
    font = ImageFont.load_default(11)
    for number, (first, second, caption) in enumerate(pairs):
        left, top = GAP + number % columns * cell[0], HEAD + number // columns * cell[1]
        for place, path in enumerate((first, second)):
            picture = ImageOps.contain(read_picture(path), (width, height), Image.Resampling.LANCZOS)  # small ones grow too
            corner = (left + place * (width + GAP), top)
            sheet.paste(picture, corner)
            draw.text((corner[0], top + height + 3), _shortened(Path(path).name, width), INK, font=font)
        draw.text((left, top + height + 18), caption, FAINT, font=font)
    return write_image(out, np.asarray(sheet))


def _shortened(name: str, width: int) -> str:
    most = max(8, width // 6)
    return name if len(name) <= most else "…" + name[-(most - 1) :]
