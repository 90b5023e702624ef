"""People on foot and on bicycles, from a handful of prisms each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.town.meshes import Builder, Kind, Label
from covis.town.patterns import linear
from covis.town.solids import add_balls, add_prisms, placed

_CLOTHES = linear(
    [
        (0.12, 0.13, 0.18), (0.45, 0.12, 0.12), (0.16, 0.24, 0.42), (0.75, 0.72, 0.66), (0.30, 0.30, 0.32), (0.20, 0.32, 0.22),
        (0.78, 0.62, 0.22), (0.55, 0.40, 0.30), (0.85, 0.85, 0.86), (0.35, 0.45, 0.60),
    ]
)  # fmt: skip
_SKIN = linear([(0.87, 0.68, 0.56), (0.72, 0.52, 0.40), (0.45, 0.30, 0.22), (0.92, 0.76, 0.66)])


def walk(builder: Builder, *, at: NDArray[np.float64], angle: NDArray[np.float64], rng: np.random.Generator) -> None:
    """People at (k, 3) metres who walk towards `angle` (k,) radians."""
    if len(at):
        _bodies(builder, at, angle, rng, stride=rng.uniform(0.05, 0.3, len(at)), label=Label.PERSON, lift=0.0)


def ride(builder: Builder, *, at: NDArray[np.float64], angle: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Cyclists: a rider each, and a bicycle."""
    if not len(at):
        return
    number = builder.things(len(at))
    for x in (-0.52, 0.52):
        hub = placed([[x, -0.02, 0.34], [x, 0.02, 0.34]], at=at, angle=angle)
        add_prisms(
            builder,
            hub[:, 0],
            hub[:, 1],
            radius=0.34,
            sides=12,
            cap=True,
            kind=Kind.PLAIN,
            label=Label.BICYCLE,
            instance=number,
            colour=(0.03, 0.03, 0.03),
        )
    colour = _CLOTHES[rng.integers(len(_CLOTHES), size=len(at))]
    for a, b in (((-0.52, 0.34), (-0.1, 0.8)), ((-0.1, 0.8), (0.42, 0.82)), ((0.52, 0.34), (0.4, 1.0)), ((-0.1, 0.35), (0.42, 0.8))):
        ends = placed([[a[0], 0, a[1]], [b[0], 0, b[1]]], at=at, angle=angle)
        add_prisms(
            builder, ends[:, 0], ends[:, 1], radius=0.025, sides=4, kind=Kind.PLAIN, label=Label.BICYCLE, instance=number, colour=colour
        )
    _bodies(builder, at, angle, rng, stride=np.full(len(at), 0.2), label=Label.RIDER, lift=0.25)


def _bodies(
    builder: Builder,
    at: NDArray[np.float64],
    angle: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    stride: NDArray[np.float64],
    label: Label,
    lift: float,
) -> None:
    count = len(at)
    number, tall = builder.things(count), rng.uniform(0.92, 1.06, count)
    top, legs = (_CLOTHES[rng.integers(len(_CLOTHES), size=count)] for _ in range(2))
    skin = _SKIN[rng.integers(len(_SKIN), size=count)]
    look: dict[str, Any] = {"kind": Kind.CLOTH, "label": label, "instance": number}

    def limb(a: tuple[float, float, float], b: tuple[float, float, float], swing: float, **more: Any) -> None:
        ends = np.broadcast_to([a, b], (count, 2, 3)) * tall[:, None, None]
        ends = ends + np.array([0, 0, lift])
        ends[:, 1, 0] += swing * stride
        moved = placed(ends, at=at, angle=angle)
        add_prisms(builder, moved[:, 0], moved[:, 1], **look, **more)

    for side in (-1, 1):
        limb((0, side * 0.09, 0.88), (0, side * 0.1, 0.04), side, radius=0.085, sides=5, taper=0.65, colour=legs)
        limb((0, side * 0.23, 1.42), (0.02, side * 0.27, 0.85), -side, radius=0.055, sides=4, taper=0.8, colour=top)
    limb((0, 0, 0.82), (0, 0, 1.22), 0, radius=0.17, sides=7, taper=1.15, colour=top)
    limb((0, 0, 1.22), (0, 0, 1.5), 0, radius=0.195, sides=7, taper=0.5, colour=top)
    head = placed(np.broadcast_to([[0.02, 0, 1.63]], (count, 1, 3)) * tall[:, None, None] + [0, 0, lift], at=at, angle=angle)[:, 0]
    add_balls(builder, head, radius=[[0.1, 0.09, 0.125]], level=1, colour=skin, **look)
    hair = head + np.array([0, 0, 0.04])
    add_balls(builder, hair, radius=[[0.11, 0.1, 0.1]], level=0, colour=skin * 0.15, **look)
