"""Backbones: timm's networks without their classifier. The only file that imports timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from covis.errors import InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import suggest
from covis.models.aggregators import Features


class Backbone(nn.Module):
    """A timm network up to its last feature map.

    Args:
        name: a timm model name ("resnet50", "mobilenetv2_100", "vit_small_patch14_dinov2").
        options: keyword arguments of `timm.create_model`. The classifier is not built: `num_classes` has no effect.
        pretrained: take the hub's weights.

    Attributes:
        channels: of the maps that `forward` gives, asked of the network.

    Raises:
        UnknownNameError: timm has no such model; the nearest names are suggested.
        InvalidInputError: the model does not take these options.
        MissingFileError: the hub's weights are not to be had.
    """

    def __init__(self, name: str, *, options: Mapping[str, Any] | None = None, pretrained: bool = False) -> None:
        super().__init__()
        self.network = _created(name, dict(options or {}), pretrained=pretrained)
        self.channels: tuple[int, ...] = (int(self.network.num_features),)

    def forward(self, x: torch.Tensor) -> Features:
        """(B, 3, height, width) float to `Features`: the last map, and the class token of a transformer."""
        out = self.network.forward_features(x)
        if out.ndim == 3:
            return self._from_tokens(out, x)
        return Features((out.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else out,))

    @property
    def classifier_names(self) -> tuple[str, ...]:
        """The layers of the classifier that a state dict of the whole network has and this one has not."""
        names = self.network.default_cfg.get("classifier") or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def _from_tokens(self, tokens: torch.Tensor, x: torch.Tensor) -> Features:
        """(B, prefix + height * width, channels) to a map and the first prefix token."""
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        height, width = self.network.patch_embed.dynamic_feat_size(tuple(x.shape[-2:]))
        grid = tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, height, width)
        return Features((grid,), tokens[:, 0] if prefix else None)


def _created(name: str, options: dict[str, Any], *, pretrained: bool) -> Any:
    """The timm network; what goes wrong inside timm becomes a sentence."""
    if not timm.is_model(name):
        raise UnknownNameError(f"timm {timm.__version__} has no model called {name!r}. {_nearest(name)}")
    if pretrained and not timm.is_model_pretrained(name):
        raise InvalidInputError(
            f"timm has no pretrained weights for {name!r}. Give a file with --weights FILE, or train from random weights."
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **options | {"num_classes": 0})
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm's {name!r} does not take the options {options}; {error}.") from error
    except Exception as error:
        if not pretrained:
            raise
        # The hub's client fails in many ways without a network: connection, proxy, missing cache entry, rate limit.
        raise MissingFileError(
            f"The pretrained weights of {name!r} could not be had from the hub ({type(error).__name__}: {error}). "
            "Without a network, download them elsewhere and give them with --weights FILE."
        ) from error


def _nearest(name: str) -> str:
    stem = name.partition(".")[0]
    return suggest(stem, timm.list_models(f"{stem[:3]}*") or ["resnet50", "mobilenetv2_100", "vit_small_patch14_dinov2"])
