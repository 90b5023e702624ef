"""Grad-CAM of a descriptor: which locations of a feature map make it strong, or similar to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from covis.attention.inputs import as_pixels, mean_colour, working
from covis.errors import InvalidInputError
from covis.lookup import suggest
from covis.models.backbones import Backbone
from covis.models.describers import Describer
from covis.models.foreign import ForeignModel
from covis.models.place import PlaceModel
from covis.pixels import ImageLike

Scalar = Callable[[torch.Tensor], torch.Tensor]

UNIT = 1e-3
"""A descriptor whose norm is this near to 1 before covis divides by it has been normalised already."""


def gradient_maps(
    model: Describer, image: ImageLike, *, other: ImageLike | None = None, layer: str | None = None
) -> list[NDArray[np.float32]]:
    """Grad-CAM of a number that is made of the descriptor.

    With x_c(i) a feature map, channels c and locations i = 1 … N, and s the number,

        m(i) = max(0, Σ_c w_c x_c(i)),    w_c = (1 / N) Σ_i ∂s / ∂x_c(i).

    s is the cosine of the two descriptors where there is another image, which is held as it is; otherwise ‖v‖², v the
    descriptor before its L2 norm. If the network divides by the norm itself (NetVLAD does; most networks of others), ‖v‖ is 1
    whatever it sees: then s is 1 less the cosine with the descriptor of a blank image of the same mean colour.
    Selvaraju et al.: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization", ICCV 2017.

    Which map: what the backbone gives, every level of it. Where the descriptor does not depend on that (the class token), the
    output of the last stage on whose patches it depends. Of networks that are not of covis, the output of the last module
    that gives a (batch, channels, height, width) of more than one location on which the descriptor depends.

    Args:
        model: a `PlaceModel`, or another torch module that describes (B, 3, height, width) uint8.
        image: a path, a uint8 array or a Pillow image.
        other: another, for what the two share.
        layer: the name of a module (of the backbone's network, or of the module that was opened) whose output is taken instead.

    Returns:
        one (height, width) float32 a level, at its size, >= 0.

    Raises:
        InvalidInputError: the model is no torch module, has no such layer, or no layer gives a map that matters.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"The method 'gradient' needs a network of torch; got {type(model).__name__} (engine {model.engine!r}). "
            "Open the model with --engine torch, or take the method 'occlusion', which needs descriptors alone."
        )
    network: nn.Module = model
    pixels = as_pixels(model, image)
    theirs = None if other is None else as_pixels(model, other)
    with working(network):
        scalar = _scalar(network, pixels, theirs)
        if layer is not None:
            found = [_at_layer(network, layer, pixels, scalar)]
        else:
            found = (
                _of_backbone(network, pixels, scalar) if isinstance(network, PlaceModel) else [_last_that_matters(network, pixels, scalar)]
            )
    return [_cam(level, slope) for level, slope in found]


Level = tuple[torch.Tensor, torch.Tensor]
"""A map (1, channels, height, width), and the gradient with respect to it."""


def _cam(level: torch.Tensor, slope: torch.Tensor) -> NDArray[np.float32]:
    weights = slope.mean(dim=(-2, -1), keepdim=True)
    found: NDArray[np.float32] = (weights * level).sum(dim=1)[0].clamp(min=0).detach().float().cpu().numpy()
    return found


def _raw(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The descriptor before covis divides it by its norm, (B, dim)."""
    if isinstance(model, PlaceModel):
        found: torch.Tensor = model.projection(model.aggregator(model.see(pixels)))
        return found
    described: torch.Tensor = model(pixels)
    return described


def _scalar(model: nn.Module, pixels: torch.Tensor, other: torch.Tensor | None) -> Scalar:
    """The number whose gradient is asked for, as a function of the descriptor."""
    with torch.no_grad():
        if other is not None:
            theirs = _raw(model, other)
            return lambda mine: F.cosine_similarity(mine, theirs).sum()
        if abs(float(_raw(model, pixels).norm()) - 1) > UNIT:
            return lambda mine: mine.square().sum()
        blank = _raw(model, mean_colour(pixels).expand_as(pixels).contiguous())
        return lambda mine: 1 - F.cosine_similarity(mine, blank).sum()


def _slopes(scalar: torch.Tensor, leaves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if not scalar.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(scalar, list(leaves), allow_unused=True, materialize_grads=True)


def _matters(level: Level) -> bool:
    return bool(level[1].any())


def _of_backbone(model: PlaceModel, pixels: torch.Tensor, scalar: Scalar) -> list[Level]:
    with torch.no_grad():
        features = model.see(pixels)
    leaves = [level.detach().requires_grad_() for level in features.maps]
    slopes = _slopes(scalar(model.projection(model.aggregator(features._replace(maps=tuple(leaves))))), leaves)
    found = list(zip(leaves, slopes, strict=True))
    if any(map(_matters, found)):
        return found
    for stage in reversed(model.backbone.stages):
        level = _at_layer(model, stage, pixels, scalar)
        if _matters(level):
            return [level]
    return found


def _last_that_matters(model: nn.Module, pixels: torch.Tensor, scalar: Scalar) -> Level:
    for name in reversed(_layers_with_maps(model, pixels)):
        level = _at_layer(model, name, pixels, scalar)
        if _matters(level):
            return level
    raise InvalidInputError(
        f"The method 'gradient' needs a module that gives (batch, channels, height, width) on which the descriptor depends; "
        f"{type(model).__name__} has none. Take the method 'occlusion', which needs descriptors alone."
    )


def _at_layer(model: nn.Module, name: str, pixels: torch.Tensor, scalar: Scalar) -> Level:
    """The layer's output as (1, channels, height, width) and the gradient there; the graph begins behind the layer."""
    kept: list[torch.Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: object) -> object:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # what follows may write into it

    handle = _layer(model, name).register_forward_hook(cut)
    try:
        value = scalar(_raw(model, pixels))
    finally:
        handle.remove()
    if not kept:
        raise InvalidInputError(f"The layer {name!r} must give one feature map when the network runs; it gives none.")
    (slope,) = _slopes(value, kept[-1:])
    return _as_map(model, name, kept[-1], pixels), _as_map(model, name, slope, pixels)


def _named(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the network that the model is made around, by the names that it gives them."""
    inner = model.backbone if isinstance(model, PlaceModel) else model
    inner = inner.network if isinstance(inner, (Backbone, ForeignModel)) else inner
    return {name: module for name, module in inner.named_modules() if name}


def _layer(model: nn.Module, name: str) -> nn.Module:
    modules = _named(model)
    if name not in modules:
        raise InvalidInputError(f"The network has no layer called {name!r}. {suggest(name, modules)}")
    return modules[name]


def _as_map(model: nn.Module, name: str, output: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Channels first; the patches of a transformer's tokens become a map."""
    network = model.backbone.network if isinstance(model, PlaceModel) else None
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else output
    if output.ndim == 3 and hasattr(network, "patch_embed"):
        height, width = network.patch_embed.dynamic_feat_size(tuple(pixels.shape[-2:]))  # type: ignore[union-attr]
        patches = output[:, output.shape[1] - height * width :]
        return patches.transpose(1, 2).reshape(1, -1, height, width)
    raise InvalidInputError(
        f"The layer {name!r} must give a feature map (1, channels, height, width); it gives {tuple(output.shape)}. Name another."
    )


def _layers_with_maps(model: nn.Module, pixels: torch.Tensor) -> list[str]:
    """Names of the modules that give a map of more than one location, in the order in which they end."""
    ended: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.is_floating_point() and output.shape[-2:].numel() > 1:
                ended.append(name)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in _named(model).items()]
    try:
        with torch.no_grad():
            _raw(model, pixels)
    finally:
        for handle in handles:
            handle.remove()
    return ended
