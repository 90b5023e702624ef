"""A partition for the eyes: pairs of each of StructVPR's groups, drawn by a seed, and the groups as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from covis.errors import InvalidInputError
from covis.files import digest
from covis.images import Images, Scene
from covis.rasters import read_label_map, write_image
from covis.reports.label_maps import (
    ABSENT,
    EDGE,
    FAINT,
    GAP,
    INK,
    LEAST_SHEET,
    PAPER,
    Pixels,
    check_size,
    map_palette,
    nearest,
    over,
    photograph_of,
    shortened,
)
from covis.settings import EncodingSettings
from covis.structure.partition import GROUPS, Partition

RIGHT, WRONG = (26, 127, 55), (207, 34, 46)
GROUP_COLOURS = {"D1": (31, 111, 178), "D2": (42, 143, 91), "D3": (209, 112, 26), "D4": (124, 132, 142)}
"""The groups' colours on sheets and figures."""
HEAD, TITLE, LINE, ACROSS = 66, 34, 17, 3


class Pair(NamedTuple):
    """One pair of a partition: the scene's number, the rows of both images, both ranks, the similarity, the weight, if any, and N_t."""

    scene: int
    query: int
    database: int
    teacher: int
    student: int
    similarity: float
    weight: float | None
    threshold: int


class Tile(NamedTuple):
    """A photograph (height, width, 3), and its label map in colours; None where there is none."""

    photograph: Pixels
    map: Pixels | None


def group_sheet(
    scenes: Sequence[Scene],
    partition: Partition,
    *,
    out: str | Path,
    weights: Sequence[NDArray[np.float64]] | None = None,
    pairs: int = 2,
    width: int = 200,
    seed: int = 0,
    settings: EncodingSettings | None = None,
) -> Path:
    """Draw pairs of each group D1 to D4, with what both branches make of them, as one PNG; returns its path.

    The pairs are drawn at random from all of a group, not chosen. Of each stand the query on the left and the positive on the
    right, their label maps over them below where the scenes have maps, the ranks under both branches (green: right, red: wrong),
    the similarity and the weight.

    Args:
        scenes: those of the partition, in its order.
        partition: the pairs with their ranks.
        out: the PNG.
        weights: how much each pair teaches, one array a scene, as `covis.structure.weights.weigh` gives them.
        pairs: of each group, at least 1.
        width: pixels of each photograph, at least 80.
        seed: of the draw.
        settings: how label maps become channels, whose colours are drawn; None: each number has a colour of ours.

    Raises:
        InvalidInputError: the scenes are others than those of the partition, or the weights are not of its pairs.
        MissingFileError: a photograph or a map is not there.
        DamagedFileError: one does not decode.
    """
    check_size(width, pairs=pairs)
    _check_scenes(scenes, partition)
    weights = checked_weights(partition, weights)
    palette = map_palette(settings)
    drawn = {name: _draw(partition, weights, number, pairs=pairs, seed=seed) for number, name in enumerate(GROUPS, start=1)}
    tiles = {name: [_tiles(scenes[pair.scene], pair, width, palette) for pair in found] for name, found in drawn.items()}
    blocks = [
        _block([_cell(*sides, scenes[pair.scene].name, pair) for sides, pair in zip(tiles[name], drawn[name], strict=True)])
        for name in GROUPS
    ]
    heads = [(name, f"{name}: {meaning}", said) for (name, meaning), said in zip(GROUPS.items(), _said(partition, weights), strict=True)]
    return write_image(out, _sheet(partition, heads, blocks))


def partition_text(partition: Partition, weights: Sequence[NDArray[np.float64]] | None = None) -> str:
    """The groups as a table, and in words how far the two branches complement each other.

    Args:
        partition: the pairs with their ranks.
        weights: how much each pair teaches, one array a scene; absent, the table has no weights.

    Raises:
        InvalidInputError: the weights are not of the partition's pairs.

    >>> found = Partition([[0, 0, 1]], [[1, 2, 0]], [[0.9, 0.5, 0.9]], [[1, 12, 3]], [[11, 1, 2]], scenes=("street",))
    >>> print(partition_text(found, [np.array([2.0, 0.0, 0.5])]))
    3 positive pairs (>= 0.5) of 2 queries in 1 scene; rank non-positive, right up to N_t = 10
      D1  teacher right, student wrong               1 ( 33.33 %)  mean weight 2.000
      D2  both right, the teacher at least as good   0 (  0.00 %)  mean weight -
      D3  both right, the student better             1 ( 33.33 %)  mean weight 0.500
      D4  teacher wrong                              1 ( 33.33 %)  mean weight 0.000
      The nearest image is positive for 50.00 % of the queries under the teacher, for 50.00 % under the student;
      under one of them at least for 50.00 %, under both for 50.00 %: the teacher alone finds 0.00 %, the student alone 0.00 %.
    """
    head, *groups = str(partition).splitlines()[: 1 + len(GROUPS)]
    means = mean_weights(partition, weights)
    if means is not None:
        groups = [f"{line}  mean weight {_weight(mean)}" for line, mean in zip(groups, means.values(), strict=True)]
    recall = {name: 100 * share for name, share in partition.union_recall().items()}
    alone = {name: recall["either"] - recall[other] for name, other in (("teacher", "student"), ("student", "teacher"))}
    words = [
        f"  The nearest image is positive for {recall['teacher']:.2f} % of the queries under the teacher, for {recall['student']:.2f} % "
        "under the student;",
        f"  under one of them at least for {recall['either']:.2f} %, under both for {recall['both']:.2f} %: the teacher alone finds "
        f"{alone['teacher']:.2f} %, the student alone {alone['student']:.2f} %.",
    ]
    return "\n".join([head, *groups, *words])


def mean_weights(partition: Partition, weights: Sequence[NDArray[np.float64]] | None) -> dict[str, float] | None:
    """The mean weight of each group's pairs, NaN of a group without any; None without weights."""
    checked = checked_weights(partition, weights)
    if checked is None:
        return None
    groups, flat = np.concatenate(partition.groups()), np.concatenate(checked)
    total, counts = np.bincount(groups, flat, minlength=5), np.bincount(groups, minlength=5)
    return {name: float(total[number] / counts[number]) if counts[number] else np.nan for number, name in enumerate(GROUPS, start=1)}


def checked_weights(partition: Partition, weights: Sequence[NDArray[np.float64]] | None) -> list[NDArray[np.float64]] | None:
    """Weights after a look that each pair has one.

    Raises:
        InvalidInputError: their number differs from that of the pairs of a scene, or one is not finite.
    """
    if weights is None:
        return None
    found = [np.asarray(one, dtype=np.float64) for one in weights]
    wanted = [rows.shape for rows in partition.query]
    if [one.shape for one in found] != wanted or not all(np.isfinite(one).all() for one in found):
        raise InvalidInputError(
            f"Weights must be finite, one a pair in one array a scene, {[size for (size,) in wanted]}; "
            f"got arrays of shape {[one.shape for one in found]}. Weigh this partition."
        )
    return found


def _check_scenes(scenes: Sequence[Scene], partition: Partition) -> None:
    if len(scenes) != len(partition.scenes):
        raise InvalidInputError(f"The scenes must be the {len(partition.scenes)} of the partition, in its order; got {len(scenes)}.")
    for number, (scene, name) in enumerate(zip(scenes, partition.scenes, strict=True)):
        rows = ((scene.queries, partition.query[number]), (scene.database, partition.database[number]))
        same = not partition.images or partition.images[number] == digest([scene.queries.names, scene.database.names])
        if not same or any(len(found) and found.max() >= len(images) for images, found in rows):
            raise InvalidInputError(f"The scenes must be those of the partition, in its order; {scene.name} has other images than {name}.")


def _draw(partition: Partition, weights: Sequence[NDArray[np.float64]] | None, group: int, *, pairs: int, seed: int) -> list[Pair]:
    """Some pairs of a group, each as likely as any other."""
    found = [np.flatnonzero(one == group) for one in partition.groups()]
    ends = np.cumsum([len(one) for one in found])
    chosen = np.random.default_rng([seed, group]).choice(ends[-1], min(pairs, ends[-1]), replace=False) if ends[-1] else []
    drawn = []
    for place in np.asarray(chosen, dtype=np.int64).tolist():
        scene = int(np.searchsorted(ends, place, side="right"))
        row = int(found[scene][place - (ends[scene - 1] if scene else 0)])
        query, database, x, y = (int(getattr(partition, name)[scene][row]) for name in ("query", "database", "teacher", "student"))
        weight = None if weights is None else float(weights[scene][row])
        drawn.append(Pair(scene, query, database, x, y, float(partition.similarity[scene][row]), weight, partition.threshold))
    return drawn


def _tiles(scene: Scene, pair: Pair, width: int, palette: Pixels) -> tuple[Tile, Tile]:
    return _tile(scene.queries, pair.query, width, palette), _tile(scene.database, pair.database, width, palette)


def _tile(images: Images, row: int, width: int, palette: Pixels) -> Tile:
    photograph = photograph_of(images.path(row), width)
    if images.segmentation is None or not images.segmentation[row]:
        return Tile(photograph, None)
    ids = nearest(read_label_map(images.root / images.segmentation[row]), (photograph.shape[1], photograph.shape[0]))
    return Tile(photograph, over(photograph, palette[ids]))


def _cell(query: Tile, positive: Tile, scene: str, pair: Pair) -> Image.Image:
    """Both photographs, their maps below, and what is known of the pair."""
    second = query.photograph.shape[1] + 4
    wide = max(second + positive.photograph.shape[1], round(sum(long for _, _, long in _ranks(pair))))
    high = max(query.photograph.shape[0], positive.photograph.shape[0])
    mapped = query.map is not None or positive.map is not None
    top = high + (high + 4 if mapped else 0) + 5
    cell = Image.new("RGB", (wide, top + 3 * LINE), PAPER)
    draw = ImageDraw.Draw(cell)
    for left, tile in ((0, query), (second, positive)):
        cell.paste(Image.fromarray(tile.photograph), (left, 0))
        if tile.map is not None:
            cell.paste(Image.fromarray(tile.map), (left, high + 4))
        elif mapped:
            draw.rectangle((left, high + 4, left + tile.photograph.shape[1] - 1, high + 3 + tile.photograph.shape[0]), fill=ABSENT)
            draw.text((left + 8, high + 10), "no label map", FAINT, font=ImageFont.load_default(12))
    _caption(draw, top, pair, width=wide, where=f"{scene}: query {pair.query}, image {pair.database}")
    return cell


def _caption(draw: ImageDraw.ImageDraw, top: int, pair: Pair, *, width: int, where: str) -> None:
    """Both ranks, in the colours of right and wrong; the similarity and the weight; which images."""
    font, left = ImageFont.load_default(13), 0.0
    for said, colour, long in _ranks(pair):
        draw.text((left, top), said, colour, font=font)
        left += long
    facts = f"similarity {pair.similarity:.2f}" + ("" if pair.weight is None else f",  weight {pair.weight:.2f}")
    draw.text((0, top + LINE), facts, INK, font=font)
    draw.text((0, top + 2 * LINE), shortened(where, width, ImageFont.load_default(12)), FAINT, font=ImageFont.load_default(12))


def _ranks(pair: Pair) -> list[tuple[str, tuple[int, int, int], float]]:
    """What is said of each branch, in which colour, and how long it is with the space behind it, pixels."""
    font = ImageFont.load_default(13)
    said = [(f"{name}: rank {rank:,}", rank) for name, rank in (("teacher", pair.teacher), ("student", pair.student))]
    return [(text, RIGHT if rank <= pair.threshold else WRONG, font.getlength(text) + 12) for text, rank in said]


def _block(cells: Sequence[Image.Image]) -> Image.Image:
    """The pairs of a group beside each other, three a line."""
    if not cells:
        return Image.new("RGB", (1, 1), PAPER)  # the headline says so
    lines = [cells[start : start + ACROSS] for start in range(0, len(cells), ACROSS)]
    heights = [max(cell.height for cell in line) for line in lines]
    step = max(cell.width for cell in cells) + 2 * GAP
    block = Image.new("RGB", (len(lines[0]) * step - 2 * GAP, sum(heights) + GAP * (len(lines) - 1)), PAPER)
    top = 0
    for line, height in zip(lines, heights, strict=True):
        for place, cell in enumerate(line):
            block.paste(cell, (place * step, top))
        top += height + GAP
    return block


def _said(partition: Partition, weights: Sequence[NDArray[np.float64]] | None) -> list[str]:
    """Of each group how many pairs it has, and how much they weigh."""
    means, shares = mean_weights(partition, weights), partition.shares()
    found = []
    for name, count in partition.counts().items():
        if not count:
            found.append("no pair is in this group")
            continue
        weight = "" if means is None else f", mean weight {means[name]:.2f}"
        found.append(f"{100 * shares[name]:.1f} % of the pairs ({count:,}){weight}")
    return found


def _sheet(partition: Partition, heads: Sequence[tuple[str, str, str]], blocks: Sequence[Image.Image]) -> Pixels:
    """The groups below each other, each under its headline."""
    large, font = ImageFont.load_default(16), ImageFont.load_default(13)
    facts = f"query and positive, drawn at random from {len(partition):,} pairs; right: rank {partition.rank}, up to {partition.threshold}"
    lines = [font.getlength(facts), *(28 + large.getlength(title) + font.getlength(said) for _, title, said in heads)]
    wide = 2 * EDGE + max(LEAST_SHEET, round(max(lines)), *(block.width for block in blocks))
    sheet = Image.new("RGB", (wide, HEAD + sum(TITLE + block.height + 2 * GAP for block in blocks)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, 12), "Pairs by what teacher and student make of them", INK, font=ImageFont.load_default(20))
    draw.text((EDGE, 41), facts, FAINT, font=font)
    top = HEAD
    for (name, title, said), block in zip(heads, blocks, strict=True):
        draw.rectangle((EDGE, top + 6, EDGE + 5, top + 24), fill=GROUP_COLOURS[name])
        draw.text((EDGE + 14, top + 5), title, INK, font=large)
        left = EDGE + 14 + large.getlength(title) + 14
        draw.text((left, top + 8), said, FAINT, font=font)
        sheet.paste(block, (EDGE, top + TITLE))
        top += TITLE + block.height + 2 * GAP
    return np.asarray(sheet)


def _weight(mean: float) -> str:
    return "-" if np.isnan(mean) else f"{mean:.3f}"
