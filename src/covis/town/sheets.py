"""The contact sheet: one place under every condition, its depth and classes, and what two views share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from covis.files import atomic_path
from covis.town.cameras import Camera
from covis.town.conditions import CONDITIONS
from covis.town.meshes import Label
from covis.town.overlaps import Sight, seen_pixels, surface_overlap
from covis.town.photographs import photograph
from covis.town.rides import Ride, Shot, shots
from covis.town.towns import Town
from covis.town.visits import Visit

Pixels = NDArray[np.uint8]

PALETTE: dict[int, tuple[int, int, int]] = {
    0: (128, 64, 128), 1: (244, 35, 232), 2: (70, 70, 70), 3: (102, 102, 156), 4: (190, 153, 153), 5: (153, 153, 153), 6: (250, 170, 30),
    7: (220, 220, 0), 8: (107, 142, 35), 9: (152, 251, 152), 10: (70, 130, 180), 11: (220, 20, 60), 12: (255, 0, 0), 13: (0, 0, 142),
    14: (0, 0, 70), 15: (0, 60, 100), 16: (0, 80, 100), 17: (0, 0, 230), 18: (119, 11, 32), 255: (0, 0, 0),
}  # fmt: skip
"""The colours of Cityscapes' train ids."""

_RAMP = np.array(
    [
        [48, 18, 59],
        [70, 107, 227],
        [40, 188, 235],
        [50, 242, 152],
        [164, 252, 60],
        [238, 207, 58],
        [251, 126, 33],
        [208, 47, 5],
        [122, 4, 3],
    ]
)
_GAP, _LINE = 6, 18
_FAR = 60.0


def write_sheet(path: str | Path, town: Town, *, size: tuple[int, int] = (240, 320), samples: int = 2) -> Path:
    """Draw the contact sheet of a town into a PNG or JPEG file; returns the path.

    Rows of four: the place under every condition (in those without leaves on a visit of their own), then its depth, its
    classes, and two overlapping views with what both see in full colour and the rest grey.

    Args:
        path: the file; its suffix says the format.
        town: what `build_town` gave.
        size: (height, width) pixels of each picture.
        samples: rays along each side of a pixel.

    Raises:
        OutputFailedError: the system refused the write.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(draw_sheet(town, size=size, samples=samples)).save(
            temporary, format="JPEG" if Path(path).suffix in (".jpg", ".jpeg") else "PNG"
        )
    return Path(path)


def draw_sheet(town: Town, *, size: tuple[int, int] = (240, 320), samples: int = 2) -> Pixels:
    """The contact sheet as (height, width, 3) uint8; see `write_sheet`."""
    first, second = _place(town, size)
    tiles = []
    for number, (name, light) in enumerate(CONDITIONS.items()):
        visit = Visit(number=number % 2, year=number % 2, leaves=light.season > 0)
        picture = photograph(town, first.camera, visit=visit, condition=name, seed=number, samples=samples)
        tiles.append((name, picture.rgb))
    visit = Visit()
    views = [photograph(town, shot.camera, visit=visit, samples=samples) for shot in (first, second)]
    a, b = (Sight(shot.camera, visit) for shot in (first, second))
    shared = surface_overlap(town, a, b, reach=_FAR)
    tiles.append(("depth, 0 to 60 m", depth_colours(views[0].depth)))
    tiles.append(("classes", class_colours(views[0].classes)))
    for caption, view, here, there in ((f"what both see: overlap {shared:.2f}", views[0], a, b), ("the other view", views[1], b, a)):
        tiles.append((caption, _shaded(view.rgb, seen_pixels(town, here, there, reach=_FAR))))
    return _mounted(tiles, size)


def depth_colours(depth: NDArray[np.float32], *, far: float = _FAR) -> Pixels:
    """Depth (height, width) in metres as colours from red (near) to blue (far); black where unknown."""
    share = np.sqrt(np.clip(depth / far, 0, 1)) * (len(_RAMP) - 1)
    colours = np.stack([np.interp(len(_RAMP) - 1 - share, np.arange(len(_RAMP)), _RAMP[:, k]) for k in range(3)], -1)
    return np.where((depth > 0)[..., None], colours, 0).astype(np.uint8)


def class_colours(classes: NDArray[np.uint8]) -> Pixels:
    """Train ids (height, width) in the colours of Cityscapes."""
    table = np.zeros((256, 3), np.uint8)
    for number, colour in PALETTE.items():
        table[number] = colour
    return table[classes]


def _place(town: Town, size: tuple[int, int]) -> tuple[Shot, Shot]:
    """A picture with much to see in it, and the one taken some metres further on from the other edge of the lane."""
    small = (48, 64)
    ride = Ride(900, Visit(), "day", 60, spacing=9.0)
    found = [_interest(town, shot.camera) for shot in shots(town, ride, size=small)]
    best = int(np.argmax(found))
    pair = (ride, Ride(901, Visit(), "day", 60, spacing=9.0, lateral=-0.9))
    a, b = (shots(town, one, size=size) for one in pair)
    after = best + 1 if best + 1 < len(b) and b[best + 1].leg == a[best].leg else best
    return a[best], b[after]


def _interest(town: Town, camera: Camera) -> float:
    """How many classes cover at least a hundredth of a picture, less what is too much of one."""
    picture = photograph(town, camera)
    classes, detail = picture.classes, float(np.abs(np.diff(picture.rgb.astype(np.float32), axis=1)).mean())
    shares = np.bincount(classes.ravel(), minlength=256) / classes.size
    spread = float((shares > 0.008).sum())
    sky, houses, trees = (float(shares[label]) for label in (Label.SKY, Label.BUILDING, Label.VEGETATION))
    return (
        spread
        + 0.3 * detail
        - 12 * abs(sky - 0.16)
        - 8 * max(0.22 - houses, 0)
        - 10 * max(trees - 0.2, 0)
        - 8 * abs(float(shares[Label.CAR]) - 0.05)
    )


def _shaded(rgb: Pixels, seen: NDArray[np.bool_]) -> Pixels:
    grey = rgb.mean(-1, keepdims=True) * 0.35 + 20
    return np.where(seen[..., None], rgb, np.repeat(grey, 3, -1)).astype(np.uint8)


def _mounted(tiles: Sequence[tuple[str, Pixels]], size: tuple[int, int], columns: int = 4) -> Pixels:
    height, width = size
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (_GAP + columns * (width + _GAP), _GAP + rows * (height + _LINE + _GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, pixels) in enumerate(tiles):
        x, y = _GAP + (number % columns) * (width + _GAP), _GAP + (number // columns) * (height + _LINE + _GAP)
        sheet.paste(Image.fromarray(pixels), (x, y))
        pen.text((x + 2, y + height + 3), caption, fill=(40, 40, 40))
    return np.asarray(sheet)
