"""How houses look: palettes and facade styles, a few for each district, so that houses repeat as they do in towns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from covis.town.meshes import Table
from covis.town.patterns import linear

FACADE = np.dtype(
    [
        *((name, np.float32, 3) for name in ("wall", "trim", "base", "frame_colour", "blind", "door", "sign", "letter", "awning", "roof")),
        *((name, np.float32) for name in ("width", "height", "ground", "floor", "bay", "margin", "pane", "rise", "sill")),
        *((name, np.float32) for name in ("frame", "recess", "mullions", "transoms", "arch", "shutter", "lintel")),
        *((name, np.float32) for name in ("band", "quoin", "shop", "openness", "grime", "graffiti", "tint", "gloss")),
        ("material", np.int32),
        ("salt", np.int32),
        ("shop_salt", np.int32),
    ]
)
"""One wall of a house. Lengths in metres, colours linear; `pane` and `rise` are a window's share of its bay and its floor.

`openness` is the share of bays with windows, `shop` that of bays with a shop on the ground floor; `material` is a place in `MATERIALS`.
"""

MATERIALS = ("plaster", "brick", "stone", "panels", "boards", "glass")

_ACCENTS = linear(
    [
        (0.72, 0.10, 0.10), (0.08, 0.26, 0.58), (0.06, 0.40, 0.22), (0.94, 0.76, 0.10), (0.88, 0.42, 0.08), (0.38, 0.14, 0.42),
        (0.05, 0.46, 0.50), (0.12, 0.12, 0.14), (0.92, 0.90, 0.86), (0.34, 0.18, 0.10), (0.85, 0.30, 0.45), (0.55, 0.70, 0.20),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """A way to build: ranges (least, most) are drawn once for each house."""

    materials: tuple[str, ...]
    walls: tuple[tuple[float, float, float], ...]
    stories: tuple[int, int]
    floor: tuple[float, float] = (2.9, 3.3)
    ground: tuple[float, float] = (3.4, 4.2)
    bay: tuple[float, float] = (2.2, 3.2)
    width: tuple[float, float] = (9.0, 18.0)
    pane: tuple[float, float] = (0.38, 0.48)
    rise: tuple[float, float] = (0.52, 0.62)
    recess: tuple[float, float] = (0.10, 0.22)
    mullions: tuple[int, ...] = (2,)
    transoms: tuple[int, ...] = (1, 2)
    arch: float = 0.0
    shutter: float = 0.0
    lintel: float = 0.3
    band: float = 0.3
    quoin: float = 0.2
    shop: float = 0.6
    roofs: tuple[str, ...] = ("gable",)
    roof_walls: tuple[tuple[float, float, float], ...] = ((0.48, 0.26, 0.20), (0.32, 0.31, 0.33))
    balcony: float = 0.2
    bow: float = 0.0
    setback: tuple[float, float] = (0.0, 0.0)
    gap: float = 0.04
    repeat: float = 0.3


STYLES: Mapping[str, Style] = {
    "old": Style(
        ("plaster", "plaster", "plaster", "stone"),
        ((0.90, 0.82, 0.62), (0.86, 0.68, 0.50), (0.93, 0.90, 0.82), (0.80, 0.74, 0.66), (0.84, 0.58, 0.46), (0.70, 0.74, 0.70)),
        (3, 5), floor=(3.0, 3.6), bay=(2.2, 2.9), width=(8, 17), rise=(0.56, 0.68), shutter=0.35, lintel=0.7, band=0.6, quoin=0.45,
        roofs=("gable", "mansard", "mansard", "hip"), balcony=0.3, shop=0.7,
    ),
    "brick": Style(
        ("brick", "brick", "brick", "plaster"),
        ((0.58, 0.30, 0.23), (0.50, 0.27, 0.20), (0.66, 0.42, 0.30), (0.74, 0.62, 0.44), (0.88, 0.85, 0.78)),
        (2, 4), bay=(2.0, 2.7), width=(5.5, 9.5), pane=(0.40, 0.5), arch=0.4, lintel=0.8, band=0.35, roofs=("gable", "gable",
            "parapet", "front"),
        roof_walls=((0.30, 0.30, 0.33), (0.38, 0.25, 0.21)), bow=0.35, shop=0.45, balcony=0.0, repeat=0.6, setback=(0.0, 0.0),
    ),
    "modern": Style(
        ("panels", "panels", "glass", "stone", "brick"),
        ((0.78, 0.77, 0.74), (0.60, 0.61, 0.62), (0.46, 0.42, 0.40), (0.86, 0.84, 0.80), (0.54, 0.36, 0.28), (0.36, 0.40, 0.46)),
        (4, 8), floor=(3.0, 3.5), ground=(4.0, 5.0), bay=(2.6, 4.0), width=(14, 26), pane=(0.62, 0.88), rise=(0.5, 0.66), recess=(0.05,
            0.16),
        mullions=(2, 3), transoms=(1,), lintel=0.0, band=0.5, quoin=0.0, roofs=("flat",), balcony=0.35, shop=0.8, repeat=0.15, gap=0.06,
    ),
    "homes": Style(
        ("plaster", "brick", "boards", "plaster"),
        ((0.94, 0.92, 0.88), (0.88, 0.84, 0.72), (0.62, 0.34, 0.26), (0.62, 0.70, 0.74), (0.74, 0.36, 0.28), (0.86, 0.76, 0.50)),
        (2, 3), floor=(2.7, 3.0), ground=(2.9, 3.2), bay=(2.6, 3.8), width=(8, 13), pane=(0.36, 0.5), rise=(0.44, 0.52), recess=(0.06,
            0.12),
        shutter=0.2, band=0.0, quoin=0.05, roofs=("gable", "hip", "front", "gable"), shop=0.06, balcony=0.1, bow=0.15, setback=(2.2, 4.2),
        gap=0.22, repeat=0.35,
    ),
}  # fmt: skip
"""Styles by name; each district of a town keeps to one."""


def draw_facade(style: Style, width: float, rng: np.random.Generator) -> Table:
    """One row of `FACADE`: the front of a house of that width in metres."""
    row = np.zeros(1, FACADE)
    for name in ("floor", "ground", "pane", "rise", "recess"):
        row[name] = rng.uniform(*getattr(style, name))
    stories = int(rng.integers(style.stories[0], style.stories[1] + 1))
    row["width"], row["height"] = width, row["ground"] + (stories - 1) * row["floor"] + rng.uniform(0.3, 0.8)
    row["sill"] = rng.uniform(0.5, 0.62)
    row["frame"], row["mullions"], row["transoms"] = rng.uniform(0.05, 0.09), rng.choice(style.mullions), rng.choice(style.transoms)
    for name in ("arch", "shutter", "lintel", "band", "quoin"):
        row[name] = rng.random() < getattr(style, name)
    row["openness"], row["grime"], row["graffiti"] = 1.0, rng.uniform(0.2, 1.0), rng.random() < 0.35
    material = str(rng.choice(style.materials))
    row["material"] = MATERIALS.index(material)
    row["gloss"] = 1.0 if material == "glass" else 0.0
    if material == "glass":
        row["pane"], row["rise"], row["shutter"], row["mullions"] = 0.95, 0.86, 0, 2
    _colour(row, style, rng)
    row["shop"] = rng.choice([0.0, 0.5, 0.8, 1.0]) if rng.random() < style.shop else 0.0
    row["salt"], row["shop_salt"] = rng.integers(1 << 16, size=2)
    row["bay"] = rng.uniform(*style.bay)
    return fitted(row, width)


def fitted(row: Table, width: float) -> Table:
    """The same style on a wall of another width: bays of about the same width, and the rest as margins."""
    changed = row.copy()
    count = max(1, int((width - 0.5) / float(row["bay"][0])))
    changed["width"], changed["bay"], changed["margin"] = width, (width - 0.5) / count, 0.25
    return changed


def redecorate(rows: Table, rng: np.random.Generator) -> Table:
    """The facades of another year: about a third of the shops have changed hands, and some walls have new paint or new scrawls."""
    changed = rows.copy()
    new = rng.random(len(rows)) < 0.35
    accents = _ACCENTS[rng.integers(len(_ACCENTS), size=(3, len(rows)))]
    for name, values in zip(("sign", "awning", "door"), accents, strict=True):
        changed[name] = np.where(new[:, None], values, rows[name])
    changed["letter"] = np.where(changed["sign"].mean(1, keepdims=True) > 0.25, 0.02, 0.85)
    changed["shop_salt"] = np.where(new, rng.integers(1 << 16, size=len(rows)), rows["shop_salt"])
    painted = (rng.random(len(rows)) < 0.08) & (rows["material"] == 0)
    changed["wall"] = np.where(painted[:, None], rows["wall"] * rng.uniform(0.6, 1.2, (len(rows), 3)), rows["wall"]).clip(0, 0.9)
    changed["graffiti"] = np.where(rng.random(len(rows)) < 0.2, 1 - rows["graffiti"], rows["graffiti"])
    return changed


def _colour(row: Table, style: Style, rng: np.random.Generator) -> None:
    brick = row["material"][0] == MATERIALS.index("brick")
    walls = [wall for wall in style.walls if (wall[0] - wall[2] > 0.2 and wall[0] < 0.8) == brick] or list(style.walls)
    wall = np.clip(np.array(walls[rng.integers(len(walls))]) * rng.uniform(0.93, 1.05) + rng.normal(0, 0.015, 3), 0.05, 0.95)
    row["wall"] = linear(wall)
    row["trim"] = linear(np.clip(wall * 0.4 + 0.55, 0, 0.95) if rng.random() < 0.7 else wall * 0.7)
    row["base"] = linear(wall * rng.choice([0.6, 0.75, 1.0]))
    row["frame_colour"] = linear(
        [[0.92, 0.92, 0.9], [0.9, 0.9, 0.9], [0.25, 0.2, 0.18], [0.2, 0.22, 0.25], [0.35, 0.24, 0.15]][rng.integers(5)]
    )
    row["blind"] = linear(
        [[0.25, 0.40, 0.30], [0.32, 0.22, 0.16], [0.22, 0.32, 0.45], [0.55, 0.56, 0.56], [0.45, 0.16, 0.14]][rng.integers(5)]
    )
    for name in ("door", "sign", "awning"):
        row[name] = np.clip(_ACCENTS[rng.integers(len(_ACCENTS))] * rng.uniform(0.8, 1.2), 0, 0.9)
    row["letter"] = 0.02 if row["sign"].mean() > 0.25 else 0.85
    row["roof"] = linear(np.array(style.roof_walls[rng.integers(len(style.roof_walls))]) * rng.uniform(0.85, 1.15))
    row["tint"] = rng.uniform(0.0, 1.0)
