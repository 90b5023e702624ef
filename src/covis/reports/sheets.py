"""A sheet of queries and what was retrieved for them: right or wrong, with the graded similarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from covis.errors import InvalidInputError
from covis.images import Scene
from covis.labels import TIE, Labels
from covis.protocols import Protocol
from covis.rankings import Rankings
from covis.rasters import read_image, write_image
from covis.truths import Truth, truth

INK, PAPER, FAINT = (34, 40, 49), (255, 255, 255), (110, 118, 129)
RIGHT, PARTLY, WRONG = (26, 127, 55), (191, 135, 0), (207, 34, 46)
GAP, EDGE, CAPTION = 10, 5, 22


def retrieval_sheet(
    scenes: Sequence[Scene],
    rankings: Sequence[Rankings],
    labels: Sequence[Labels],
    *,
    protocol: Protocol,
    out: str | Path,
    rows: int = 6,
    shown: int = 4,
    width: int = 200,
) -> Path:
    """Draw queries and their first retrieved images as one PNG; returns its path.

    The queries are spread evenly over all that are counted, not chosen by how well they do. A frame is green where the
    image is a positive, amber where it shares less than that, red where it shares nothing.

    Args:
        scenes: whose images are drawn.
        rankings: one a scene.
        labels: one a scene: the similarity written below each image.
        protocol: what counts as positive, and which queries are counted.
        out: the PNG.
        rows: queries.
        shown: retrieved images of each.
        width: pixels of each image.

    Raises:
        InvalidInputError: there is no query to draw.
        MissingFileError: an image is not there.
    """
    truths = [truth(scene, protocol, label) for scene, label in zip(scenes, labels, strict=True)]
    chosen = _spread(truths, protocol, rows)
    if not chosen:
        raise InvalidInputError("A retrieval sheet needs a query; the scenes have none.")
    first = read_image(scenes[chosen[0][0]].queries.path(chosen[0][1]))
    size = (width, round(width * first.shape[0] / first.shape[1]))
    cell = (size[0] + 2 * EDGE + GAP, size[1] + 2 * EDGE + CAPTION + GAP)
    head = 64
    sheet = Image.new("RGB", (GAP + cell[0] * (1 + shown) + GAP, head + cell[1] * len(chosen)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, protocol, cell[0])
    for line, (scene, query) in enumerate(chosen):
        top = head + line * cell[1]
        images, label, found, one = scenes[scene], labels[scene], rankings[scene], truths[scene]
        _tile(sheet, (GAP, top), images.queries.path(query), size, INK, f"query {query}, {images.name}")
        pairs = [row for row in found.rows[query] if row >= 0 and one.searched[row] and not one.excluded[query, row]]
        if one.groups is not None:  # of each place the first, as the protocol has it
            best: dict[int, int] = {}
            for row in pairs:
                best.setdefault(int(one.groups[row]), row)
            pairs = list(best.values())
        for place, row in enumerate(pairs[:shown]):
            similarity = float(label.matrix[query, row])
            colour = RIGHT if one.positives[query, row] else PARTLY if similarity > TIE else WRONG
            caption = f"{place + 1}:  {'right' if colour == RIGHT else 'wrong'},  similarity {similarity:.2f}"
            _tile(sheet, (2 * GAP + cell[0] * (1 + place), top), images.database.path(int(row)), size, colour, caption)
    return write_image(out, np.asarray(sheet))


def _spread(truths: Sequence[Truth], protocol: Protocol, rows: int) -> list[tuple[int, int]]:
    """(scene, query) pairs, evenly over all counted queries; over all queries where none is counted."""
    every = [(number, query) for number, one in enumerate(truths) for query in np.flatnonzero(one.asked).tolist()]
    counted = every if protocol.denominator == "all" else [(number, query) for number, query in every if truths[number].answerable[query]]
    chosen = counted or every
    return [chosen[int(place)] for place in np.unique(np.linspace(0, len(chosen) - 1, min(rows, len(chosen))).round())] if chosen else []


def _heading(draw: ImageDraw.ImageDraw, protocol: Protocol, cell: int) -> None:
    draw.text((GAP + EDGE, 12), "Asked", INK, font=ImageFont.load_default(20))
    draw.text((2 * GAP + EDGE + cell, 12), "Retrieved, best first", INK, font=ImageFont.load_default(20))
    draw.text(
        (2 * GAP + EDGE + cell, 40),
        f"{protocol.name}: right means {protocol.correct_in_words()}; amber is wrong and shares something, red nothing",
        FAINT,
        font=ImageFont.load_default(13),
    )


def _tile(
    sheet: Image.Image, corner: tuple[int, int], path: Path, size: tuple[int, int], colour: tuple[int, int, int], caption: str
) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + size[0] + 2 * EDGE - 1, top + size[1] + 2 * EDGE - 1), fill=colour)
    sheet.paste(Image.fromarray(read_image(path)).resize(size, Image.Resampling.BICUBIC), (left + EDGE, top + EDGE))
    draw.text((left + EDGE, top + size[1] + 2 * EDGE + 3), caption, colour, font=ImageFont.load_default(13))
