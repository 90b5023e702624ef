"""The town: built once from its settings and a seed; what a visit finds there is added when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.town.furniture import furnish_block, furnish_lot
from covis.town.ground import lay_ground
from covis.town.houses import build_house
from covis.town.lighting import LampGrid, Openness, find_openness
from covis.town.lots import Lot, cut_lots
from covis.town.meshes import Builder, Mesh, Table
from covis.town.places import Standing
from covis.town.plans import Plan, plan_town
from covis.town.plants import grow_wood
from covis.town.rays import Caster
from covis.town.styles import FACADE, STYLES, redecorate
from covis.town.visits import Visit, build_works, grow, park_cars, send_people


@dataclass(frozen=True)
class TownSettings:
    """How large a town is and what it is like.

    Attributes:
        blocks: between streets, eastwards and northwards.
        block: metres, the least and the largest distance between two streets.
        districts: names of `covis.town.styles.STYLES`; neighbouring blocks share one.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    blocks: tuple[int, int] = (4, 3)
    block: tuple[float, float] = (62.0, 92.0)
    districts: tuple[str, ...] = ("old", "brick", "modern", "homes")

    def __post_init__(self) -> None:
        if not all(1 <= count <= 12 for count in self.blocks) or len(self.blocks) != 2:
            raise InvalidInputError(f"A town must have 1 to 12 blocks each way; got {self.blocks}.")
        if not 50 <= self.block[0] <= self.block[1] <= 200:
            raise InvalidInputError(f"Streets must lie 50 to 200 m apart, least first; got {self.block}.")
        unknown = [name for name in self.districts if name not in STYLES]
        if unknown or not self.districts:
            raise InvalidInputError(f"Districts must be of {', '.join(STYLES)}; got {self.districts}.")


@dataclass(frozen=True, eq=False)
class Town:
    """What stands there at every visit.

    Attributes:
        settings, seed: what it was built from.
        plan: streets and blocks.
        lots: every house's ground.
        mesh: everything that never changes.
        trees: each tree.
        lamps: (k, 3) metres, the street lamps' lights.
        things: how many things are numbered in `mesh`.
        openness: how much of the sky each place sees.
        lamp_grid: which lamps are near each place.
    """

    settings: TownSettings
    seed: int
    plan: Plan
    lots: tuple[Lot, ...]
    mesh: Mesh
    trees: Table
    lamps: NDArray[np.float64]
    things: int
    openness: Openness
    lamp_grid: LampGrid


@dataclass(frozen=True, eq=False)
class Looks:
    """The patches of a mesh column by column, as painters want them.

    Attributes:
        kind, label, instance, owner, salt: (p,) as in `PATCH`.
        frames: (p, 16) float32: origin, across, up, normal, colour, round.
    """

    kind: NDArray[np.uint8]
    label: NDArray[np.uint8]
    instance: NDArray[np.int32]
    owner: NDArray[np.int32]
    salt: NDArray[np.int32]
    frames: NDArray[np.float32]

    @classmethod
    def of(cls, mesh: Mesh) -> Looks:
        """Those of a mesh."""
        patches = mesh.patches
        names = ("kind", "label", "instance", "owner", "salt")
        kind, label, instance, owner, salt = (np.ascontiguousarray(patches[name]) for name in names)
        parts = [patches[name].reshape(len(patches), -1) for name in ("origin", "across", "up", "normal", "colour", "round")]
        return cls(kind, label, instance, owner, salt, np.hstack(parts).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Setting:
    """The town as one visit finds it, ready for rays: the same for every light and weather."""

    town: Town
    visit: Visit
    mesh: Mesh
    looks: Looks
    caster: Caster


def build_town(settings: TownSettings | None = None, *, seed: int = 7) -> Town:
    """Build a town; the same settings and seed give the same town.

    Raises:
        InvalidInputError: the seed is negative.
    """
    settings = settings or TownSettings()
    if seed < 0:
        raise InvalidInputError(f"The seed must be 0 or more; got {seed}.")
    plan = plan_town(settings.blocks, settings.block, np.random.default_rng([seed, 1]))
    builder, standing = Builder(), Standing()
    roads = lay_ground(builder, plan, np.random.default_rng([seed, 2]))
    lots = _lots(plan, settings.districts, seed)
    facades: list[Table] = []
    for number, lot in enumerate(lots):
        rng = np.random.default_rng([seed, 4, number])
        build_house(builder, lot, facades, rng)
        furnish_lot(builder, lot, standing, rng)
    for block in plan.blocks:
        furnish_block(builder, block, standing, np.random.default_rng([seed, 5, block.number]))
    trees = standing.all_trees()
    grow_wood(builder, trees, np.random.default_rng([seed, 6]))
    table = np.concatenate([np.zeros(0, FACADE), *facades])
    mesh = builder.finish({"roads": roads, "facades": table})
    lamps = standing.all_lamps()
    openness = find_openness(Caster(mesh.corners), plan.low, plan.high)
    grid = LampGrid.of(lamps, plan.low, plan.high)
    return Town(settings, seed, plan, tuple(lots), mesh, trees, lamps, builder.instances, openness, grid)


def _lots(plan: Plan, districts: Sequence[str], seed: int) -> list[Lot]:
    lots: list[Lot] = []
    for block in plan.blocks:
        if block.kind in ("built", "rim"):
            style = districts[block.district % len(districts)]
            lots += cut_lots(block, style, np.random.default_rng([seed, 3, block.number]))
    return lots


@functools.lru_cache(maxsize=3)
def visit_town(town: Town, visit: Visit) -> Setting:
    """The town with what a visit finds there. The three last ones are kept."""
    builder = Builder(town.things)
    if visit.leaves:
        grow(builder, town.trees, town.seed)
    park_cars(builder, town.plan, visit, town.seed)
    send_people(builder, town.plan, visit, town.seed)
    build_works(builder, town.lots, visit.year, town.seed)
    facades = town.mesh.tables["facades"]
    if visit.year:
        facades = redecorate(facades, np.random.default_rng([town.seed, 25, visit.year]))
    mesh = town.mesh + builder.finish({"facades": facades})
    return Setting(town, visit, mesh, Looks.of(mesh), Caster(mesh.corners))
