"""Where in a photograph a descriptor looks: maps from what locations add up to, from gradients, and from occlusion."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from covis.attention.contributions import contributions
from covis.attention.gradients import gradient_maps
from covis.attention.occlusion import occlusion_map
from covis.errors import InvalidInputError
from covis.models.describers import Describer
from covis.pixels import ImageLike

__all__ = ["METHODS", "Method", "attend", "contributions", "gradient_maps", "occlusion_map"]

Method = Literal["activation", "gradient", "occlusion"]
METHODS: tuple[str, ...] = get_args(Method)


def attend(
    model: Describer,
    image: ImageLike,
    *,
    method: Method = "activation",
    other: ImageLike | None = None,
    layer: str | None = None,
    patch: int | None = None,
    stride: int | None = None,
    batch: int = 32,
) -> NDArray[np.float32]:
    """Where the descriptor of an image looks, or what of the image it shares with another.

    "activation": what each location of the network's last feature map adds to the descriptor (`contributions`); for models of
    covis. "gradient": Grad-CAM of the descriptor's strength, or of the similarity (`gradient_maps`); for networks of torch.
    "occlusion": how much the descriptor changes, or the similarity falls, when a place is covered (`occlusion_map`); for all.
    What the methods give is set to 0 where it is negative, resized bilinearly to the network's input (maps of several levels
    are added there), and divided by its maximum; a map of zeros stays as it is.

    Args:
        model: what describes. It is left as it was, and works on the device where it is.
        image: a path, a uint8 array or a Pillow image, of any size.
        method: a name of `METHODS`.
        other: an image that may show the same place; the map then says what of `image` makes the two similar.
        layer: of "gradient": the name of the module whose output is the feature map; absent, as `gradient_maps` says.
        patch: of "occlusion": pixels of the covered square, as `occlusion_map` says.
        stride: of "occlusion": pixels from one square to the next.
        batch: of "occlusion": images that the network sees at once.

    Returns:
        (height, width) float32 in [0, 1], at the size of the network's input.

    Raises:
        InvalidInputError: there is no such method, it does not take the options, or the model does not take the method; or the
            model reads label maps.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.

    >>> from covis.models.place import PlaceModel
    >>> from covis.settings import ModelSettings
    >>> model = PlaceModel(ModelSettings(backbone="resnet10t", height=64, width=96), seed=1)
    >>> found = attend(model, np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))
    >>> found.shape, found.min() >= 0, found.max() == 1
    ((64, 96), np.True_, np.True_)
    """
    _check(method, layer=layer, patch=patch, stride=stride)
    if method == "occlusion":
        return _scaled(occlusion_map(model, image, other=other, patch=patch, stride=stride, batch=batch))
    levels = gradient_maps(model, image, other=other, layer=layer) if method == "gradient" else contributions(model, image, other=other)
    return _scaled(np.sum([_resized(level, (model.height, model.width)) for level in levels], axis=0))


def _check(method: str, **options: object) -> None:
    if method not in METHODS:
        raise InvalidInputError(f"The method of attention must be one of {', '.join(METHODS)}; got {method!r}.")
    owners = {"layer": "gradient", "patch": "occlusion", "stride": "occlusion"}
    for name, value in options.items():
        if value is not None and owners[name] != method:
            raise InvalidInputError(f"The option {name} is of the method {owners[name]!r} alone; got {name}={value!r} for {method!r}.")


def _resized(level: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    positive = torch.from_numpy(level).clamp(min=0)[None, None]
    large: NDArray[np.float32] = F.interpolate(positive, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return large


def _scaled(found: NDArray[np.float32]) -> NDArray[np.float32]:
    positive = np.maximum(found, 0).astype(np.float32)
    most = positive.max()
    return positive / most if most > 0 else positive
