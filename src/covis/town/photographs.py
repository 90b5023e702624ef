"""Taking pictures: rays, truth from what they meet, and colour from paint and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.lookup import resolve
from covis.town.cameras import Camera
from covis.town.conditions import CONDITIONS, Condition
from covis.town.meshes import Label
from covis.town.sensors import develop
from covis.town.shading import Rig, shade
from covis.town.towns import Setting, Town, visit_town
from covis.town.visits import Visit


@dataclass(frozen=True, eq=False)
class Photograph:
    """A picture and the truth of each of its pixels, all (height, width).

    Attributes:
        rgb: (height, width, 3) uint8.
        depth: float32 metres along the optical axis at pixel centres, 0 where there is sky.
        classes: uint8, Cityscapes train ids; 255 where there is none.
        instances: int32, numbers of things, 0 for what is no thing of its own.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32]


def photograph(
    town: Town,
    camera: Camera,
    *,
    visit: Visit | None = None,
    condition: str | Condition = "day",
    seed: int = 0,
    samples: int = 1,
) -> Photograph:
    """Take one picture.

    Depth, classes and instances depend on town, camera and visit alone, never on the condition, the seed or the samples.

    Args:
        town: what `build_town` gave.
        camera: where and how.
        visit: what changes between visits; by default the first.
        condition: a name in `CONDITIONS`, or one of your own.
        seed: of the sensor's noise.
        samples: colours are averaged over `samples` x `samples` rays a pixel.

    Raises:
        InvalidInputError: samples is not from 1 to 8.
        UnknownNameError: there is no such condition.
        MissingExtraError: embreex is not installed.
    """
    if not 1 <= samples <= 8:
        raise InvalidInputError(f"samples must be 1 to 8; got {samples}.")
    light = resolve(condition, CONDITIONS, what="condition") if isinstance(condition, str) else condition
    setting = visit_town(town, visit or Visit())
    depth, faces, ways = _cast(setting, camera)
    rng = np.random.default_rng([seed, 91])
    rig = Rig(setting, light, at=camera.at, focal=camera.intrinsics[0] * samples, drift=float(rng.uniform(0, 500)))
    if samples > 1:
        fine, found, rays = _cast(setting, camera, samples)
        height, width = camera.size
        colour = shade(rig, fine, found, rays).reshape(height, samples, width, samples, 3).mean((1, 3))
    else:
        colour = shade(rig, depth, faces, ways)
    rows = setting.mesh.patch.take(np.maximum(faces, 0))
    classes = np.where(faces >= 0, setting.looks.label.take(rows), np.uint8(Label.SKY))
    instances = np.where(faces >= 0, setting.looks.instance.take(rows), np.int32(0))
    shape = camera.size
    rgb = develop(colour.reshape(*shape, 3), light, rng)
    return Photograph(rgb, depth.reshape(shape).astype(np.float32), classes.reshape(shape), instances.reshape(shape))


def _cast(setting: Setting, camera: Camera, samples: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Depth (0 for sky), faces (-1 for sky) and directions of every ray, row by row."""
    ways = camera.rays(samples)
    faces = setting.caster.first(np.broadcast_to(camera.at, ways.shape), ways)
    met = np.flatnonzero(faces >= 0)
    depth = np.zeros(len(ways))
    depth[met] = setting.caster.distances(faces.take(met), camera.at, ways.take(met, axis=0))
    return depth, faces, ways
